package postgres

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/surgetank/surgetank/sink"
)

// A guard makes a transaction fail where the ground has moved: where the table is not as it was
// when the rows were made, or the progress is not what the lane left. Its failures are told from
// those of rows, triggers and constraints by a random mark in the error's text, which nothing in
// the database can know.
//
// The order of a transaction is: lock the table, compare, write. The lock is ROW EXCLUSIVE, which
// COPY takes anyway and which ALTER TABLE, DROP and their like exclude. It is a statement of its
// own, so that the next statement sees what was committed while the lock was waited for.
type guard struct{ mark string }

func newGuard() guard { return guard{fmt.Sprintf("surgetank %016x", rand.Uint64())} }

const (
	markChanged = " changed "
	markStale   = " stale "
)

// fingerprint is a subquery that gives one text, a different one after every change of what a
// layout is made of. It reads which transaction wrote the catalog's rows last; it may differ
// without need, as after GRANT or TRUNCATE. name is the table's in the settings, so that
// search_path counts. Below oid 16384 are PostgreSQL's own types, which do not change.
func fingerprint(name string) string {
	return `(SELECT concat_ws(' ', c.oid, c.xmin, row_security_active(c.oid),
ARRAY(SELECT a.xmin FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 ORDER BY a.attnum),
ARRAY(SELECT t.xmin FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
	WHERE a.attrelid = c.oid AND a.attnum > 0 AND a.atttypid >= 16384 ORDER BY a.attnum),
ARRAY(SELECT d.xmin FROM pg_catalog.pg_attrdef d WHERE d.adrelid = c.oid ORDER BY d.adnum))
FROM pg_catalog.pg_class c WHERE c.oid = to_regclass(` + literal(name) + `))`
}

// compare fails unless the table's fingerprint is was, which is an SQL expression. What the cast
// fails on depends on the table, so that it is not worked out at planning.
func (g guard) compare(name, was string) string {
	return "SELECT CASE WHEN f = " + was + " THEN 0 ELSE CAST('" + g.mark + markChanged + "' || coalesce(f, '') AS int) END FROM (SELECT " + fingerprint(name) + " AS f) f"
}

// prepare makes compare a prepared statement of the session, which saves its planning in each
// batch.
func (g guard) prepare(name string) string {
	return "PREPARE surgetank_guard (text) AS " + g.compare(name, "$1")
}

// moved makes the update of a lane's progress fail unless one row was updated.
func (g guard) moved(before, update string) string {
	return before + "WITH moved AS (" + update + " RETURNING 1) SELECT CASE WHEN count(*) = 1 THEN 0 ELSE CAST('" + g.mark + markStale + "' || count(*) AS int) END FROM moved"
}

// verdict is classify for errors of a guarded transaction.
func (g guard) verdict(err error) error {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		_, says, ours := strings.Cut(pg.Message, g.mark)
		switch {
		case ours && strings.HasPrefix(says, markChanged):
			return &sink.Error{Class: sink.Changed, Row: -1, Reason: "the table was changed", Err: err}
		case ours && strings.HasPrefix(says, markStale):
			return errStale
		}
	}
	return classify(err)
}

var errStale = &sink.Error{Class: sink.Stale, Row: -1, Reason: "the progress in surgetank_progress was changed by another opening of the sink"}

// read looks the table up, compares it with the settings, and works out the statements. It changes
// nothing. The fingerprint is read first: what changes meanwhile is then noticed by the first
// batch.
func (t *Target) read(ctx context.Context, pg *pgconn.PgConn) (*layout, error) {
	name := sink.QuoteTable(t.table)
	rows, err := query(ctx, pg, "SELECT "+fingerprint(name))
	if err != nil {
		return nil, t.unreachable(classify(err))
	}
	f, err := t.find(ctx, pg)
	if err != nil {
		return nil, err
	}
	columns, err := t.match(ctx, pg, f)
	if err != nil {
		return nil, err
	}
	return newLayout(t.spec.Table, f, columns, name, string(rows[0][0])), nil
}
