package sqlite

import (
	"context"
	"database/sql/driver"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/sink"
)

// timeFormat is RFC 3339 in UTC with microseconds, so that times sort as text.
const timeFormat = "2006-01-02T15:04:05.000000Z"

// lane writes batches over the target's one connection. From Begin to Finish or Rollback it has the
// token of Target.writer.
type lane struct {
	t      *Target
	table  *table
	claim  sink.Claim
	number int
	x      *sink.Extractor

	sums   sums
	values []driver.NamedValue // the values of all rows, row by row
	rows   []row
	inTx   bool                   // this lane has the token of Target.writer
	stmts  map[int]driver.Stmt    // prepared inserts, by number of rows
	odd    map[string]driver.Stmt // prepared inserts of rows that leave out columns, by these columns
}

// row locates a row's values. If the row leaves out columns, leave marks them, their values are
// nil, and they get their defaults. Otherwise leave is nil.
type row struct {
	at    int
	leave []bool
}

func newLane(t *Target, tab *table, claim sink.Claim, number int) *lane {
	return &lane{t: t, table: tab, claim: claim, number: number, x: sink.NewExtractor(tab.spec.Table.Columns), sums: newSums(tab),
		stmts: map[int]driver.Stmt{}, odd: map[string]driver.Stmt{}}
}

func (l *lane) Reset() {
	clear(l.values)
	l.values, l.rows = l.values[:0], l.rows[:0]
}

func (l *lane) Add(d *surgetank.Delivery) error {
	cells, err := l.x.Cells(d)
	if err != nil {
		return err
	}
	r := row{at: len(l.values)}
	for i := range cells {
		c := &l.table.columns[i]
		var v driver.Value
		switch {
		case cells[i].Kind != sink.CellMissing:
			if v, err = c.value(&cells[i]); err != nil {
				l.values = l.values[:r.at]
				return err
			}
		case c.fallback:
			if r.leave == nil {
				r.leave = make([]bool, len(cells))
			}
			r.leave[i] = true
		case !c.optional:
			l.values = l.values[:r.at]
			return sink.MissingField(c.Column)
		}
		l.values = append(l.values, driver.NamedValue{Value: v})
	}
	l.rows = append(l.rows, r)
	return nil
}

// Commit writes the whole batch in one transaction.
func (l *lane) Commit(ctx context.Context, p sink.Progress) error {
	if err := l.Begin(ctx); err != nil {
		return err
	}
	err := l.insertRows(ctx, 0, len(l.rows))
	if err == nil {
		err = l.finish(ctx, p)
	}
	if err != nil {
		l.t.db.rollback()
	}
	l.release()
	return err
}

// Begin waits for the connection and acquires SQLite's write lock.
func (l *lane) Begin(ctx context.Context) error {
	select {
	case <-l.t.writer:
	case <-ctx.Done():
		return classify(ctx.Err())
	}
	l.inTx = true
	err := classify(l.t.db.exec(ctx, "BEGIN IMMEDIATE"))
	if err == nil {
		err = l.unchanged(ctx)
	}
	if err != nil {
		l.t.db.rollback()
		l.release()
	}
	return err
}

// unchanged checks within a transaction that the open file is the file at the path, and that the
// table has not changed since the rows were made.
func (l *lane) unchanged(ctx context.Context) error {
	if err := l.t.db.same(); err != nil {
		return err
	}
	version, err := l.t.db.schemaVersion(ctx)
	if err != nil {
		return classify(err)
	}
	if version == l.table.version {
		return nil
	}
	changed, err := l.reload(ctx)
	if err == nil && changed {
		err = &sink.Error{Class: sink.Changed, Row: -1, Reason: "the table was changed"}
	}
	return err
}

// reload reads the table again and prepares the statements again. It reports whether rows must be
// made again.
func (l *lane) reload(ctx context.Context) (changed bool, err error) {
	now, err := read(ctx, l.t.db, l.t.spec)
	if err != nil {
		return false, err
	}
	changed = now.key != l.table.key
	l.close()
	clear(l.stmts)
	clear(l.odd)
	l.table = now
	return changed, nil
}

func (l *lane) release() {
	l.inTx = false
	l.t.writer <- struct{}{}
}

// Write writes some rows after a savepoint.
func (l *lane) Write(ctx context.Context, from, to int) error {
	if err := l.t.db.exec(ctx, "SAVEPOINT part"); err != nil {
		return classify(err)
	}
	err := l.insertRows(ctx, from, to)
	if err != nil {
		if back := l.t.db.exec(context.Background(), "ROLLBACK TO part"); back != nil {
			// RAISE(ROLLBACK) and ON CONFLICT ROLLBACK end the whole transaction, including the
			// savepoint.
			if e, ok := err.(*sink.Error); ok && e.Class.OfRow() {
				e.Lost = true
				return e
			}
			return classify(&sink.Error{Class: sink.Down, Row: -1, Reason: "SQLite: " + back.Error(), Err: back})
		}
	}
	if rel := l.t.db.exec(context.Background(), "RELEASE part"); rel != nil && err == nil {
		return classify(rel)
	}
	return err
}

// Finish stores the progress and commits.
func (l *lane) Finish(ctx context.Context, p sink.Progress) error {
	err := l.finish(ctx, p)
	if err != nil {
		return err // the caller then calls Rollback
	}
	l.release()
	return nil
}

// Rollback rolls back the transaction, if there is one.
func (l *lane) Rollback(context.Context) error {
	if l.inTx {
		l.t.db.rollback()
		l.release()
	}
	return nil
}

func (l *lane) finish(ctx context.Context, p sink.Progress) error {
	if p.Settled != nil {
		if err := l.t.db.exec(ctx, "UPDATE surgetank_progress SET ids = ? WHERE instance = ? AND lane = -1 AND owner = ? AND epoch = ?", p.Settled, l.claim.Instance, l.claim.Owner, int64(p.Epoch)); err != nil {
			return classify(err)
		}
	}
	n, err := l.t.db.changes(ctx, `UPDATE surgetank_progress SET batch = batch + 1, watermark = ?, entry = ?, applied = ?, ids = ?, updated = `+timeNow+`
		WHERE instance = ? AND lane = ? AND owner = ? AND epoch = ? AND batch = ?`,
		int64(p.Watermark), int64(p.Entry), int64(p.Applied), p.IDs, l.claim.Instance, int64(l.number), l.claim.Owner, int64(p.Epoch), int64(p.Batch))
	if err != nil {
		return classify(err)
	}
	if n != 1 {
		return errStale
	}
	if err := l.t.db.same(); err != nil {
		return err
	}
	if err := l.t.db.exec(ctx, "COMMIT"); err != nil {
		return classify(err)
	}
	// If the file was deleted or moved during the commit, the commit is lost. The messages are not
	// acked, and the next opening detects the loss.
	err = l.t.db.same()
	return err
}

var errStale = &sink.Error{Class: sink.Stale, Row: -1, Reason: "the progress in surgetank_progress was changed by another opening of the sink"}

// close closes the prepared statements.
func (l *lane) close() {
	for _, s := range l.stmts {
		_ = s.Close() // the statements are only in memory; the connection is closed next
	}
	for _, s := range l.odd {
		_ = s.Close()
	}
}

// Fresh reads the table again.
func (l *lane) Fresh(ctx context.Context) (changed bool, err error) {
	select {
	case <-l.t.writer:
	case <-ctx.Done():
		return false, classify(ctx.Err())
	}
	defer l.release()
	if err := l.t.db.same(); err != nil {
		return false, err
	}
	if l.claim.Verify != nil {
		check := l.claim.Verify()
		state, err := stored(ctx, l.t.db, l.claim.Instance)
		switch {
		case err != nil:
			return false, err
		case state == nil:
			return false, errStale
		}
		if err := check(*state); err != nil {
			return false, err
		}
	}
	return l.reload(ctx)
}

// Rest does nothing: all lanes share one connection.
func (l *lane) Rest() {}
