package postgres

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/surgetank/surgetank/sink"
)

// create makes the table, unless it is there.
func (t *Target) create(ctx context.Context, pg *pgconn.PgConn) error {
	name := sink.QuoteTable(t.table)
	there, err := t.exists(ctx, pg, name)
	if err != nil || there {
		return err
	}
	for _, c := range t.spec.Table.Columns {
		if err := t.isType(ctx, pg, c); err != nil {
			return err
		}
	}
	var b strings.Builder
	fmt.Fprintf(&b, "CREATE TABLE IF NOT EXISTS %s (", name)
	for i, c := range t.spec.Table.Columns {
		if i > 0 {
			b.WriteString(", ")
		}
		key := t.spec.Table.IsKey(c.Name)
		fmt.Fprintf(&b, "%s %s", sink.QuoteName(c.Name), createType(c))
		if key {
			b.WriteString(" NOT NULL")
		}
	}
	if oc := t.spec.Table.OnConflict; oc != nil {
		fmt.Fprintf(&b, ", PRIMARY KEY (%s)", names(oc.Keys))
	}
	b.WriteString(")")
	if err := exec(ctx, pg, b.String()); err != nil {
		return refused("postgres.create_table", "table %s cannot be made: %v", name, classify(err))
	}
	return nil
}

// isType lets PostgreSQL's own parser decide that a column's type is the name of a type and nothing else, as it will stand in CREATE TABLE.
func (t *Target) isType(ctx context.Context, pg *pgconn.PgConn, c sink.Column) error {
	if c.Type == "" {
		return nil
	}
	rows, err := query(ctx, pg, "SELECT to_regtype($1) IS NOT NULL", c.Type)
	var wrong *pgconn.PgError
	switch {
	case errors.As(err, &wrong):
		return refused("postgres.columns."+c.Name+".type", "%q is not a type of PostgreSQL: %s", c.Type, wrong.Message)
	case err != nil:
		return t.unreachable(classify(err))
	case string(rows[0][0]) != "t":
		return refused("postgres.columns."+c.Name+".type", "%q is not a type of this database; write a type such as bigint, numeric(12,2), text or timestamptz", c.Type)
	}
	return nil
}

// createType gives the type of the settings, or one that takes whatever the source gives. A value at a JSON path becomes text: a string's characters,
// a number's digits, JSON for the rest. So no value is refused, and strings compare without quotes.
func createType(c sink.Column) string {
	if c.Type != "" {
		return c.Type
	}
	switch c.From.Shape() {
	case sink.ShapeWhole:
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
