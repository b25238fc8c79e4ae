package postgres

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/surgetank/surgetank/sink"
)

// create creates the table if it does not exist.
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

// createAgain creates a table that disappeared after the sink was created, if the claim accepts the
// stored progress. If rows of the sink disappeared with the table, as in a recreated database, the
// claim refuses and no table is created.
func (t *Target) createAgain(ctx context.Context, pg *pgconn.PgConn, claim sink.Claim) error {
	there, err := t.exists(ctx, pg, sink.QuoteTable(t.table))
	if err != nil || there {
		return err
	}
	schema := t.table[0]
	if len(t.table) == 1 {
		rows, err := query(ctx, pg, "SELECT current_schema()")
		if err != nil {
			return t.unreachable(classify(err))
		}
		schema = string(rows[0][0])
	}
	var old *sink.State
	if there, err = t.exists(ctx, pg, progressName(schema)); err != nil {
		return err
	}
	if there {
		if err := t.upgradeProgressTable(ctx, pg, schema); err != nil {
			return err
		}
		if old, err = (&layout{progress: progressName(schema)}).stored(ctx, pg, claim.Instance); err != nil {
			return err
		}
	}
	if _, err := claim.Next(old); err != nil {
		return err
	}
	return t.create(ctx, pg)
}

// isType lets PostgreSQL's own parser check that a column's type, as written in CREATE TABLE, is a
// type name and nothing else.
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

// createType returns the column's type from the settings. Without one, it returns a type that
// accepts every value of the source. A value at a JSON path becomes text: a string's characters, a
// number's digits, or JSON. So no value is rejected, and strings compare without quotes.
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
