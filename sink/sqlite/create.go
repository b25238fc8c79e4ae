package sqlite

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/surgetank/surgetank/sink"
)

// types lists the column types that the settings may name. SQLite accepts other names too, but with
// a surprising meaning.
var types = []string{"INTEGER", "REAL", "TEXT", "BLOB", "NUMERIC"}

// create creates the table if it does not exist.
func create(ctx context.Context, d *db, spec sink.Spec) error {
	parts, err := sink.SplitTable(spec.Table.Table)
	if err != nil {
		return err
	}
	for _, c := range spec.Table.Columns {
		if c.Type != "" && !slices.Contains(types, strings.ToUpper(c.Type)) {
			return refused("sqlite.columns."+c.Name+".type", "%q is not a type that SQLite has; write %s, or no type", c.Type, strings.Join(types, ", "))
		}
	}
	if err := d.exec(ctx, createSQL(parts[0], spec.Table)); err != nil {
		return refused("sqlite.create_table", "table %s cannot be made: %v", parts[0], err)
	}
	return nil
}

// createSQL returns a CREATE TABLE in which every value keeps its form. Columns from JSON paths
// have no type unless the settings name one, so numbers stay numbers and text stays text.
func createSQL(name string, t sink.TableSpec) string {
	var b strings.Builder
	fmt.Fprintf(&b, "CREATE TABLE IF NOT EXISTS %s (", sink.QuoteName(name))
	for i, c := range t.Columns {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(sink.QuoteName(c.Name))
		if typeName := createType(c); typeName != "" {
			b.WriteString(" " + typeName)
		}
		if t.IsKey(c.Name) {
			b.WriteString(" NOT NULL")
		}
	}
	if t.OnConflict != nil {
		b.WriteString(", PRIMARY KEY (" + names(t.OnConflict.Keys) + ")")
	}
	b.WriteString(")")
	return b.String()
}

// createType returns a column's type in CREATE TABLE. It is empty for a column without a type.
func createType(c sink.Column) string {
	if c.Type != "" {
		return strings.ToUpper(c.Type)
	}
	switch c.From.Shape() {
	case sink.ShapeWhole, sink.ShapeText, sink.ShapeTime:
		return "TEXT"
	case sink.ShapeBytes:
		return "BLOB"
	case sink.ShapeInteger:
		return "INTEGER"
	}
	return ""
}
