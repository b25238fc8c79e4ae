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

// guard makes a transaction fail if the table has changed since the rows were made, or if the lane
// did not write the stored progress. A random mark in the error's text distinguishes these failures
// from those of rows, triggers and constraints. Triggers and rows cannot know the mark.
//
// A transaction locks the table, compares, then writes. The lock is ROW EXCLUSIVE. COPY takes this
// lock anyway, and it excludes ALTER TABLE, DROP and similar statements. The lock is a separate
// statement, so the next statement sees commits that happened during the wait for the lock.
type guard struct{ mark string }

func newGuard() guard { return guard{fmt.Sprintf("surgetank %016x", rand.Uint64())} }

const (
	markChanged = " changed "
	markStale   = " stale "
)

// fingerprint returns a subquery whose result, one text, changes with every change that affects a
// layout. It reads which transaction last wrote the rows of the catalog. The text may also change
// without need, for example after GRANT or TRUNCATE. name is the table's name in the settings, so
// search_path applies. Types with an oid below 16384 are PostgreSQL's own and do not change.
func fingerprint(name string) string {
	return `(SELECT concat_ws(' ', c.oid, c.xmin, row_security_active(c.oid),
ARRAY(SELECT a.xmin FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 ORDER BY a.attnum),
ARRAY(SELECT t.xmin FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
	WHERE a.attrelid = c.oid AND a.attnum > 0 AND a.atttypid >= 16384 ORDER BY a.attnum),
ARRAY(SELECT d.xmin FROM pg_catalog.pg_attrdef d WHERE d.adrelid = c.oid ORDER BY d.adnum))
FROM pg_catalog.pg_class c WHERE c.oid = to_regclass(` + literal(name) + `))`
}

// compare returns a statement that fails unless the table's fingerprint equals the SQL expression
// was. The text of the failing cast depends on the table, so the planner cannot evaluate it early.
func (g guard) compare(name, was string) string {
	return "SELECT CASE WHEN f = " + was + " THEN 0 ELSE CAST('" + g.mark + markChanged + "' || coalesce(f, '') AS int) END FROM (SELECT " + fingerprint(name) + " AS f) f"
}

// prepare returns the SQL that makes compare a prepared statement of the session, so that batches
// need not plan it.
func (g guard) prepare(name string) string {
	return "PREPARE surgetank_guard (text) AS " + g.compare(name, "$1")
}

// moved returns a statement that updates a lane's progress and fails unless it updated exactly one
// row.
func (g guard) moved(before, update string) string {
	return before + "WITH moved AS (" + update + " RETURNING 1) SELECT CASE WHEN count(*) = 1 THEN 0 ELSE CAST('" + g.mark + markStale + "' || count(*) AS int) END FROM moved"
}

// verdict classifies an error of a guarded transaction: a failure of the guard, or else as classify
// does.
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

// read looks the table up, compares it with the settings, and makes the statements. It changes
// nothing. It reads the fingerprint first, so the first batch detects a change made meanwhile.
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
