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
	lockable     bool // LOCK TABLE is allowed; rights to some columns alone do not allow it
}

// sql is the table's name in statements.
func (f found) sql() string { return sink.QuoteName(f.schema) + "." + sink.QuoteName(f.name) }

// column is one column of the settings with its description in the catalog.
type column struct {
	sink.Column
	kind      kind
	element   kind   // kind of an array's elements
	stageType string // type of the column in the staging table
	cast      string // converts the staging table's value to the column's type
	fallback  string // the expression of the column's default; empty: no default
	notNull   bool
}

// find looks the table up. If the settings name no schema, search_path applies.
func (t *Target) find(ctx context.Context, pg *pgconn.PgConn) (found, error) {
	name := sink.QuoteTable(t.table)
	rows, err := query(ctx, pg, `SELECT n.nspname, c.relname, c.oid, c.relkind, c.relpersistence, row_security_active(c.oid),
			has_table_privilege(c.oid, 'INSERT, UPDATE, DELETE, TRUNCATE')
		FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = to_regclass($1)`, name)
	if err != nil {
		return found{}, t.unreachable(classify(err))
	}
	if len(rows) == 0 {
		return found{}, refused("postgres.table", "table %s does not exist in the database (or the user cannot see it); make it, or set create_table: true", name)
	}
	r := rows[0]
	f := found{schema: string(r[0]), name: string(r[1]), oid: string(r[2]), rowSecurity: string(r[5]) == "t", lockable: string(r[6]) == "t"}
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

// permissions lets the database check the rights to the table and to the progress table. The error
// names the missing GRANT.
func (t *Target) permissions(ctx context.Context, pg *pgconn.PgConn, l *layout) error {
	// EXPLAIN checks permissions, types, and that a unique index fits on_conflict, without any
	// effect.
	if err := exec(ctx, pg, "EXPLAIN "+l.probe()); err != nil {
		var pgErr *pgconn.PgError
		switch {
		case !errors.As(err, &pgErr):
			return t.unreachable(classify(err))
		case pgErr.Code == "42P10":
			return refused("postgres.on_conflict.keys", "table %s has no unique index on exactly (%s), which on_conflict needs; create one", l.found.sql(), strings.Join(t.spec.Table.OnConflict.Keys, ", "))
		}
		return refused("postgres.table", "PostgreSQL refuses the sink's insert into %s: %s", l.found.sql(), words(pgErr))
	}
	rows, err := query(ctx, pg, `SELECT concat_ws(', ', CASE WHEN NOT has_table_privilege($1, 'SELECT') THEN 'SELECT' END, CASE WHEN NOT has_table_privilege($1, 'INSERT') THEN 'INSERT' END,
			CASE WHEN NOT has_table_privilege($1, 'UPDATE') THEN 'UPDATE' END, CASE WHEN NOT has_table_privilege($1, 'DELETE') THEN 'DELETE' END),
		quote_ident(current_user), has_database_privilege(current_database(), 'TEMP'), quote_ident(current_database())`, l.progress)
	if err != nil {
		return t.unreachable(classify(err))
	}
	lacks, user, temp, database := string(rows[0][0]), string(rows[0][1]), string(rows[0][2]) == "t", string(rows[0][3])
	switch {
	case lacks != "":
		return refused("postgres.table", "the user %s may not use the table %s, where the sink keeps its progress; let its owner run: GRANT %s ON %s TO %s",
			user, l.progress, lacks, l.progress, user)
	case !temp && (!l.direct || len(l.defaults) > 0):
		return refused("postgres.table", "the user %s may not make temporary tables, which the sink needs for on_conflict, row-level security and columns with defaults; let an administrator run: GRANT TEMPORARY ON DATABASE %s TO %s",
			user, database, user)
	}
	return nil
}

func (t *Target) exists(ctx context.Context, pg *pgconn.PgConn, name string) (bool, error) {
	rows, err := query(ctx, pg, "SELECT to_regclass($1) IS NOT NULL", name)
	if err != nil {
		return false, t.unreachable(classify(err))
	}
	return string(rows[0][0]) == "t", nil
}

// makeProgress creates surgetank_progress if it does not exist, and upgrades the table of an older
// version. It checks first, because creating needs a permission that using does not need.
func (t *Target) makeProgress(ctx context.Context, pg *pgconn.PgConn, schema string) error {
	there, err := t.exists(ctx, pg, progressName(schema))
	switch {
	case err != nil:
		return err
	case there:
		return t.upgradeProgressTable(ctx, pg, schema)
	}
	if err := exec(ctx, pg, createProgress(schema)); err != nil {
		// If two sinks are set at once, both create the table. The second CREATE fails, and the
		// table exists.
		if there, again := t.exists(ctx, pg, progressName(schema)); again == nil && there {
			return nil
		}
		return refused("postgres.table", "the table %s, where the sink keeps its progress, cannot be made: %v; let an administrator run: %s",
			progressName(schema), classify(err), createProgress(schema))
	}
	return nil
}

// upgradeProgressTable adds the columns that the progress table of an older version lacks.
func (t *Target) upgradeProgressTable(ctx context.Context, pg *pgconn.PgConn, schema string) error {
	rows, err := query(ctx, pg, "SELECT count(*) FROM pg_attribute WHERE attrelid = to_regclass($1) AND attname = 'known' AND NOT attisdropped", progressName(schema))
	if err != nil {
		return t.unreachable(classify(err))
	}
	if string(rows[0][0]) == "1" {
		return nil
	}
	if err := exec(ctx, pg, upgradeProgress(schema)); err != nil {
		return refused("postgres.table", "the table %s, where the sink keeps its progress, is of an older version and cannot be changed: %v; let its owner run: %s",
			progressName(schema), classify(err), upgradeProgress(schema))
	}
	return nil
}

// match finds every column of the settings in the table.
//
// The staging table has the base types of the columns' domains, and text for types that are not
// PostgreSQL's own. A temporary table with a domain or an enum would block ALTER DOMAIN and DROP
// TYPE while the sink runs.
func (t *Target) match(ctx context.Context, pg *pgconn.PgConn, f found) ([]column, error) {
	rows, err := query(ctx, pg, `
		SELECT a.attname, a.attnotnull OR b.strict, a.attidentity, a.attgenerated, format_type(b.oid, b.typmod),
			coalesce(pg_get_expr(d.adbin, d.adrelid), b.fallback), b.typname, coalesce(e.typname, ''),
			CASE WHEN a.attidentity = 'd' THEN 'nextval(' || quote_literal(pg_get_serial_sequence($2, a.attname)) || '::regclass)' END,
			b.typnamespace = 'pg_catalog'::regnamespace, format_type(a.atttypid, NULL)
		FROM pg_attribute a
		LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
		CROSS JOIN LATERAL (
			WITH RECURSIVE up AS (
				SELECT t.oid, t.typname, t.typnamespace, t.typtype, t.typbasetype, t.typelem, t.typcategory, a.atttypmod AS typmod, t.typtypmod,
					t.typnotnull AS strict, pg_get_expr(t.typdefaultbin, 0) AS fallback FROM pg_type t WHERE t.oid = a.atttypid
				UNION ALL
				SELECT t.oid, t.typname, t.typnamespace, t.typtype, t.typbasetype, t.typelem, t.typcategory, up.typtypmod, t.typtypmod,
					up.strict OR t.typnotnull, up.fallback FROM up JOIN pg_type t ON t.oid = up.typbasetype)
			SELECT * FROM up WHERE typbasetype = 0) b
		LEFT JOIN pg_type e ON b.typcategory = 'A' AND e.oid = b.typelem
		WHERE a.attrelid = $1::oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum`, f.oid, f.sql())
	if err != nil {
		return nil, t.unreachable(classify(err))
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
		col := column{Column: c, stageType: string(r[4]), notNull: string(r[1]) == "t", fallback: string(r[5])}
		if string(r[9]) != "t" {
			col.stageType, col.cast = "text", "::"+string(r[10])
		}
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

func names(list []string) string {
	quoted := make([]string, len(list))
	for i, n := range list {
		quoted[i] = sink.QuoteName(n)
	}
	return strings.Join(quoted, ", ")
}
