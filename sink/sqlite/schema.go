package sqlite

import (
	"context"
	"fmt"
	"strings"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/sink"
)

// table is the lanes' description of the table. It has one column for each column of the spec, in
// the same order.
type table struct {
	spec    sink.Spec
	columns []column
	version int64  // version of the file's schema when the columns were read
	key     string // tables with the same key turn messages into the same rows
}

type column struct {
	sink.Column
	declared string // declared type
	affinity affinity
	optional bool // the column may be left out: it allows null, or SQLite numbers it
	fallback bool // the column has a default, which a missing field gets
}

// affinity is how SQLite converts a value for a column, by the rules of
// https://sqlite.org/datatype3.html section 3.1. NUMERIC affinity is divided by the usual meaning
// of the declared type's name.
type affinity uint8

const (
	affinityNone    affinity = iota // BLOB, or no type: values stay unchanged
	affinityText                    // every value becomes text
	affinityInteger                 // INT in the name
	affinityReal                    // REAL, FLOAT, DOUBLE
	affinityDecimal                 // NUMERIC, DECIMAL: meant for numbers
	affinityOther                   // STRING, UUID, DATETIME, BOOLEAN …: SQLite converts text to a number if it can
)

func affinityOf(declared string, strict bool) affinity {
	t := strings.ToUpper(declared)
	has := func(s string) bool { return strings.Contains(t, s) }
	switch {
	case has("INT"):
		return affinityInteger
	case has("CHAR"), has("CLOB"), has("TEXT"):
		return affinityText
	case has("BLOB"), t == "", t == "ANY" && strict:
		return affinityNone
	case has("REAL"), has("FLOA"), has("DOUB"):
		return affinityReal
	case has("DEC"), has("NUM"):
		return affinityDecimal
	}
	return affinityOther
}

// read compares the table with the settings. It changes nothing.
func read(ctx context.Context, d *db, spec sink.Spec) (*table, error) {
	parts, err := sink.SplitTable(spec.Table.Table)
	if err != nil {
		return nil, err
	}
	name := parts[0]
	version, err := d.schemaVersion(ctx) // read before the columns, so that the first batch detects a later change
	if err != nil {
		return nil, unusable(spec.Address, err)
	}
	rows, err := d.query(ctx, `SELECT x.name, x.type, "notnull", dflt_value, pk, hidden, strict FROM pragma_table_xinfo(?) x, pragma_table_list(?) l WHERE l.schema = 'main'`, name, name)
	if err != nil {
		return nil, refused("sqlite.table", "table %s cannot be read: %v", name, err)
	}
	if len(rows) == 0 {
		return nil, refused("sqlite.table", "table %s does not exist in %s; make it, or set create_table: true", name, spec.Address)
	}
	type info struct {
		column
		hidden bool
		given  bool
	}
	// A single INTEGER PRIMARY KEY is the rowid, which SQLite assigns.
	keys := 0
	for _, r := range rows {
		if r[4].(int64) > 0 {
			keys++
		}
	}
	have := map[string]*info{}
	for _, r := range rows {
		declared, _ := r[1].(string)
		notNull, pk := r[2].(int64) != 0, r[4].(int64) > 0
		rowid := pk && keys == 1 && strings.EqualFold(declared, "INTEGER")
		have[strings.ToLower(r[0].(string))] = &info{hidden: r[5].(int64) != 0, column: column{declared: declared, affinity: affinityOf(declared, r[6].(int64) != 0),
			optional: !notNull || rowid, fallback: r[3] != nil}}
	}
	t := &table{spec: spec, version: version}
	var missing []string
	for _, c := range spec.Table.Columns {
		i := have[strings.ToLower(c.Name)]
		switch {
		case i == nil:
			missing = append(missing, fmt.Sprintf("%q", c.Name))
			continue
		case i.hidden:
			return nil, refused("sqlite.columns."+c.Name, "column %q of table %s is generated and takes no value; leave it out", c.Name, name)
		}
		i.given = true
		i.Column = c
		t.columns = append(t.columns, i.column)
		t.key += fmt.Sprintf("%d %t %t; ", i.affinity, i.optional, i.fallback)
	}
	if missing != nil {
		return nil, refused("sqlite.columns", "table %s has no column %s; add it to the table, or leave it out", name, strings.Join(missing, ", "))
	}
	for _, r := range rows {
		if i := have[strings.ToLower(r[0].(string))]; !i.given && !i.hidden && !i.optional && !i.fallback {
			return nil, refused("sqlite.columns", "column %q of table %s allows no null and has no default; give it a value in columns", r[0], name)
		}
	}
	stmt, err := d.conn.Prepare(t.insert(1, nil))
	if err != nil {
		field := "sqlite.table"
		if spec.Table.OnConflict != nil {
			field = "sqlite.on_conflict.keys"
		}
		return nil, refused(field, "SQLite refuses the sink's insert into %s: %v", name, err)
	}
	return t, stmt.Close()
}

func refused(field, format string, args ...any) error {
	return surgetank.FieldErrorf(field, format, args...)
}

func names(list []string) string {
	quoted := make([]string, len(list))
	for i, n := range list {
		quoted[i] = sink.QuoteName(n)
	}
	return strings.Join(quoted, ", ")
}

// insert returns the INSERT of n rows. If leave is not nil, it marks the columns that are left out
// and get their defaults.
func (t *table) insert(n int, leave []bool) string {
	var b strings.Builder
	parts, _ := sink.SplitTable(t.spec.Table.Table) // checked by New
	b.WriteString("INSERT INTO " + sink.QuoteName(parts[0]) + " (")
	var given []string
	for i, c := range t.columns {
		if leave == nil || !leave[i] {
			given = append(given, c.Name)
		}
	}
	b.WriteString(names(given) + ") VALUES ")
	if len(given) == 0 {
		b.Reset()
		b.WriteString("INSERT INTO " + sink.QuoteName(parts[0]) + " DEFAULT VALUES")
		return b.String()
	}
	row := "(" + strings.TrimSuffix(strings.Repeat("?,", len(given)), ",") + ")"
	b.WriteString(strings.TrimSuffix(strings.Repeat(row+",", n), ","))
	if oc := t.spec.Table.OnConflict; oc != nil {
		b.WriteString(" ON CONFLICT (" + names(oc.Keys) + ") DO ")
		b.WriteString(t.conflictAction())
	}
	return b.String()
}

// conflictAction returns the text after ON CONFLICT … DO. If all columns are keys, there is nothing
// to update.
func (t *table) conflictAction() string {
	var sets []string
	for _, c := range t.columns {
		if !t.spec.Table.IsKey(c.Name) {
			q := sink.QuoteName(c.Name)
			value := "excluded." + q
			if t.spec.Table.Adds(c.Name) { // null adds nothing
				value = "CASE WHEN excluded." + q + " IS NULL THEN " + q + " WHEN " + q + " IS NULL THEN excluded." + q + " ELSE " + q + " + excluded." + q + " END"
			}
			sets = append(sets, q+" = "+value)
		}
	}
	if !t.spec.Table.OnConflict.Update || len(sets) == 0 {
		return "NOTHING"
	}
	return "UPDATE SET " + strings.Join(sets, ", ")
}
