package postgres

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/sink"
)

// found is the target table in the catalog.
type found struct {
	schema, name string
	oid          string
	rowSecurity  bool
}

// sql is the table's name in statements.
func (f found) sql() string { return sink.QuoteName(f.schema) + "." + sink.QuoteName(f.name) }

// column is one column of the settings with what the catalog says about it.
type column struct {
	sink.Column
	kind     kind
	element  kind   // of an array
	typeName string // as format_type writes it
	fallback string // the expression of its default; empty: none
	notNull  bool
}

// find looks the table up; search_path counts when the settings name no schema.
func (t *Target) find(ctx context.Context, conn *pgconn.PgConn) (found, error) {
	name := sink.QuoteTable(t.table)
	rows, err := query(ctx, conn, `SELECT n.nspname, c.relname, c.oid, c.relkind, c.relpersistence, row_security_active(c.oid)
		FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = to_regclass($1)`, name)
	if err != nil {
		return found{}, unreachable(t.spec, classify(err))
	}
	if len(rows) == 0 {
		return found{}, refused("postgres.table", "table %s does not exist in the database (or the user cannot see it); make it, or set create_table: true", name)
	}
	r := rows[0]
	f := found{schema: string(r[0]), name: string(r[1]), oid: string(r[2]), rowSecurity: string(r[5]) == "t"}
	switch kind, persistence := string(r[3]), string(r[4]); {
	case kind != "r" && kind != "p":
		return found{}, refused("postgres.table", "%s is not a table; a sink writes to plain and partitioned tables", name)
	case persistence == "u":
		return found{}, refused("postgres.table", "table %s is UNLOGGED: a crash of PostgreSQL would empty it after its messages were acked; ALTER TABLE … SET LOGGED", name)
	case persistence != "p":
		return found{}, refused("postgres.table", "table %s is temporary; a sink needs a table that stays", name)
	}
	return f, nil
}

func refused(field, format string, args ...any) error {
	return surgetank.FieldErrorf(field, format, args...)
}

// prepare makes the tables that are to be made, compares the target table with the settings, and works out the statements.
func (t *Target) prepare(ctx context.Context, conn *pgconn.PgConn) (*layout, error) {
	if t.spec.Table.Create {
		if err := t.create(ctx, conn); err != nil {
			return nil, err
		}
	}
	f, err := t.find(ctx, conn)
	if err != nil {
		return nil, err
	}
	columns, err := t.match(ctx, conn, f)
	if err != nil {
		return nil, err
	}
	l := newLayout(t.spec.Table, f, columns)
	if err := t.progressTable(ctx, conn, f.schema); err != nil {
		return nil, err
	}
	// EXPLAIN checks permissions, types, and that a unique index fits on_conflict, and does nothing.
	if err := exec(ctx, conn, "EXPLAIN "+l.probe()); err != nil {
		field := "postgres.table"
		var pg *pgconn.PgError
		switch {
		case !errors.As(err, &pg):
			return nil, unreachable(t.spec, classify(err))
		case pg.Code == "42P10":
			return nil, refused("postgres.on_conflict.keys", "table %s has no unique index on exactly (%s), which on_conflict needs; create one", f.sql(), strings.Join(t.spec.Table.OnConflict.Keys, ", "))
		}
		return nil, refused(field, "PostgreSQL refuses the sink's insert into %s: %s", f.sql(), words(pg))
	}
	return l, nil
}

// progressTable makes surgetank_progress if it is not there. It asks first: making needs a permission that using does not.
func (t *Target) progressTable(ctx context.Context, conn *pgconn.PgConn, schema string) error {
	rows, err := query(ctx, conn, "SELECT to_regclass($1) IS NOT NULL", progressName(schema))
	if err != nil {
		return unreachable(t.spec, classify(err))
	}
	if string(rows[0][0]) == "t" {
		return t.upgradeProgressTable(ctx, conn, schema)
	}
	if err := exec(ctx, conn, createProgress(schema)); err != nil {
		// Two sinks that are set at once both make it; the loser finds it there.
		if rows, again := query(ctx, conn, "SELECT to_regclass($1) IS NOT NULL", progressName(schema)); again == nil && string(rows[0][0]) == "t" {
			return nil
		}
		return refused("postgres.table", "the table %s, where the sink keeps its progress, cannot be made: %v; let an administrator run: %s",
			progressName(schema), classify(err), createProgress(schema))
	}
	return nil
}

// upgradeProgressTable adds what the progress table of an older version lacks.
func (t *Target) upgradeProgressTable(ctx context.Context, conn *pgconn.PgConn, schema string) error {
	rows, err := query(ctx, conn, "SELECT count(*) FROM pg_attribute WHERE attrelid = to_regclass($1) AND attname = 'known' AND NOT attisdropped", progressName(schema))
	if err != nil {
		return unreachable(t.spec, classify(err))
	}
	if string(rows[0][0]) == "1" {
		return nil
	}
	if err := exec(ctx, conn, upgradeProgress(schema)); err != nil {
		return refused("postgres.table", "the table %s, where the sink keeps its progress, is of an older version and cannot be changed: %v; let its owner run: %s",
			progressName(schema), classify(err), upgradeProgress(schema))
	}
	return nil
}

// match finds every column of the settings in the table.
func (t *Target) match(ctx context.Context, conn *pgconn.PgConn, f found) ([]column, error) {
	rows, err := query(ctx, conn, `
		SELECT a.attname, a.attnotnull, a.attidentity, a.attgenerated, format_type(a.atttypid, a.atttypmod),
			pg_get_expr(d.adbin, d.adrelid), b.typname, coalesce(e.typname, ''),
			CASE WHEN a.attidentity = 'd' THEN 'nextval(' || quote_literal(pg_get_serial_sequence($2, a.attname)) || '::regclass)' END
		FROM pg_attribute a
		LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
		CROSS JOIN LATERAL (
			WITH RECURSIVE up AS (
				SELECT t.oid, t.typname, t.typbasetype, t.typelem, t.typcategory FROM pg_type t WHERE t.oid = a.atttypid
				UNION ALL
				SELECT t.oid, t.typname, t.typbasetype, t.typelem, t.typcategory FROM up JOIN pg_type t ON t.oid = up.typbasetype)
			SELECT * FROM up WHERE typbasetype = 0) b
		LEFT JOIN pg_type e ON b.typcategory = 'A' AND e.oid = b.typelem
		WHERE a.attrelid = $1::oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum`, f.oid, f.sql())
	if err != nil {
		return nil, unreachable(t.spec, classify(err))
	}
	have := map[string][][]byte{}
	for _, r := range rows {
		have[string(r[0])] = r
	}
	var columns []column
	var missing []string
	given := map[string]bool{}
	for _, c := range t.spec.Table.Columns {
		r := have[c.Name]
		switch {
		case r == nil:
			missing = append(missing, fmt.Sprintf("%q", c.Name))
			continue
		case len(r[3]) > 0:
			return nil, refused("postgres.columns."+c.Name, "column %q of table %s is generated and takes no value; leave it out", c.Name, f.sql())
		case string(r[2]) == "a":
			return nil, refused("postgres.columns."+c.Name, "column %q of table %s is GENERATED ALWAYS AS IDENTITY and takes no value; leave it out", c.Name, f.sql())
		}
		given[c.Name] = true
		col := column{Column: c, typeName: string(r[4]), notNull: string(r[1]) == "t", fallback: string(r[5])}
		if len(r[8]) > 0 {
			col.fallback = string(r[8])
		}
		col.kind = kindOf(string(r[6]))
		if len(r[7]) > 0 {
			col.kind, col.element = kindArray, kindOf(string(r[7]))
		}
		columns = append(columns, col)
	}
	if missing != nil {
		return nil, refused("postgres.columns", "table %s has no column %s; add it to the table, or leave it out", f.sql(), strings.Join(missing, ", "))
	}
	for _, r := range rows {
		if name := string(r[0]); !given[name] && string(r[1]) == "t" && len(r[5]) == 0 && len(r[2]) == 0 {
			return nil, refused("postgres.columns", "column %q of table %s allows no null and has no default; give it a value in columns", name, f.sql())
		}
	}
	return columns, nil
}

// create makes the table, unless it is there.
func (t *Target) create(ctx context.Context, conn *pgconn.PgConn) error {
	name := sink.QuoteTable(t.table)
	rows, err := query(ctx, conn, "SELECT to_regclass($1) IS NOT NULL", name)
	if err != nil {
		return unreachable(t.spec, classify(err))
	}
	if string(rows[0][0]) == "t" {
		return nil
	}
	var b strings.Builder
	fmt.Fprintf(&b, "CREATE TABLE IF NOT EXISTS %s (", name)
	for i, c := range t.spec.Table.Columns {
		if i > 0 {
			b.WriteString(", ")
		}
		key := t.spec.Table.IsKey(c.Name)
		fmt.Fprintf(&b, "%s %s", sink.QuoteName(c.Name), createType(c.From.Shape(), key))
		if key {
			b.WriteString(" NOT NULL")
		}
	}
	if oc := t.spec.Table.OnConflict; oc != nil {
		fmt.Fprintf(&b, ", PRIMARY KEY (%s)", names(oc.Keys))
	}
	b.WriteString(")")
	if err := exec(ctx, conn, b.String()); err != nil {
		return refused("postgres.create_table", "table %s cannot be made: %v", name, classify(err))
	}
	return nil
}

// createType picks a type that holds whatever a source gives: a value at a JSON path can be anything, so it becomes jsonb,
// unless it is a key, which must compare as people expect.
func createType(s sink.Shape, key bool) string {
	switch s {
	case sink.ShapeWhole:
		return "jsonb"
	case sink.ShapeJSON:
		if key {
			return "text"
		}
		return "jsonb"
	case sink.ShapeBytes:
		return "bytea"
	case sink.ShapeTime:
		return "timestamptz"
	case sink.ShapeInteger:
		return "bigint"
	}
	return "text"
}

func names(list []string) string {
	quoted := make([]string, len(list))
	for i, n := range list {
		quoted[i] = sink.QuoteName(n)
	}
	return strings.Join(quoted, ", ")
}
