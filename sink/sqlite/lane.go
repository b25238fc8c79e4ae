package sqlite

import (
	"context"
	"database/sql/driver"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/failpoint"
	"github.com/surgetank/surgetank/internal/jsonpath"
	"github.com/surgetank/surgetank/sink"
)

// timeFormat is RFC 3339 in UTC with microseconds, so that times sort as text.
const timeFormat = "2006-01-02T15:04:05.000000Z"

// lane writes batches over the target's one connection. Between Begin and Finish or Rollback it owns the writer's token.
type lane struct {
	t        *Target
	table    *table
	instance string
	number   int
	x        *sink.Extractor

	values []driver.NamedValue // of all rows, row by row
	rows   []row
	inTx   bool                   // this lane has the writer's token
	stmts  map[int]driver.Stmt    // by the number of rows
	odd    map[string]driver.Stmt // for rows that leave columns out, by the columns
}

// row is where a row's values are. leave is nil unless columns are left out for their defaults; their values are nil.
type row struct {
	at    int
	leave []bool
}

func newLane(t *Target, tab *table, instance string, number int) *lane {
	return &lane{t: t, table: tab, instance: instance, number: number, x: sink.NewExtractor(tab.spec.Table.Columns),
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

// value turns a cell into what SQLite stores, as the column's affinity would have it.
func (c *column) value(cell *sink.Cell) (driver.Value, error) {
	switch cell.Kind {
	case sink.CellText:
		return cell.Text, nil
	case sink.CellInt:
		return cell.Int, nil
	case sink.CellTime:
		return cell.Time.Format(timeFormat), nil
	case sink.CellBytes:
		if c.affinity == affinityNone {
			return cell.Bytes, nil
		}
		if !utf8.Valid(cell.Bytes) {
			return nil, sink.BadRowf("column %q holds text, but the body is not UTF-8; a BLOB column takes any body", c.Name)
		}
		return string(cell.Bytes), nil
	case sink.CellJSON:
		return c.json(cell.JSON)
	}
	return nil, nil
}

func (c *column) json(v jsonpath.Value) (driver.Value, error) {
	switch v.Kind {
	case jsonpath.True, jsonpath.False:
		if c.affinity == affinityText {
			return string(v.Raw), nil
		}
		return int64(v.Kind - jsonpath.False), nil
	case jsonpath.Number:
		if c.affinity == affinityText {
			return string(v.Raw), nil
		}
		return c.number(string(v.Raw))
	case jsonpath.String:
		s, ok := v.Text()
		if !ok {
			return nil, sink.BadRowf("column %q: %s holds half of a surrogate pair, which is no character", c.Name, c.From)
		}
		return s, nil
	}
	return string(v.Raw), nil // objects and arrays as they are written
}

// number gives an integer exactly, and any other number as the nearest double, which is all that SQLite has.
func (c *column) number(s string) (driver.Value, error) {
	if !strings.ContainsAny(s, ".eE") {
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			return nil, sink.BadRowf("column %q: %.60s is above the 64 bits of SQLite's integers; a TEXT column keeps every digit", c.Name, s)
		}
		return n, nil
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || math.IsInf(f, 0) {
		return nil, sink.BadRowf("column %q: %.60s is out of the range of SQLite's numbers; a TEXT column keeps it", c.Name, s)
	}
	return f, nil
}

// Commit writes everything in one transaction.
func (l *lane) Commit(ctx context.Context, p sink.Progress) error {
	if err := l.Begin(ctx); err != nil {
		return err
	}
	failpoint.Reach(failpoint.SinkTxBegun)
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

// Begin waits for the connection and takes SQLite's write lock.
func (l *lane) Begin(ctx context.Context) error {
	select {
	case <-l.t.writer:
	case <-ctx.Done():
		return classify(ctx.Err())
	}
	l.inTx = true
	if err := l.t.db.exec(ctx, "BEGIN IMMEDIATE"); err != nil {
		l.t.db.rollback()
		l.release()
		return classify(err)
	}
	return nil
}

func (l *lane) release() {
	l.inTx = false
	l.t.writer <- struct{}{}
}

// Write writes some rows behind a savepoint.
func (l *lane) Write(ctx context.Context, from, to int) error {
	if err := l.t.db.exec(ctx, "SAVEPOINT part"); err != nil {
		return classify(err)
	}
	err := l.insertRows(ctx, from, to)
	if err != nil {
		if back := l.t.db.exec(context.Background(), "ROLLBACK TO part"); back != nil {
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
		return err // Rollback follows
	}
	l.release()
	return nil
}

// Rollback drops the transaction, if there is one.
func (l *lane) Rollback(context.Context) error {
	if l.inTx {
		l.t.db.rollback()
		l.release()
	}
	return nil
}

func (l *lane) finish(ctx context.Context, p sink.Progress) error {
	failpoint.Reach(failpoint.SinkTxRows)
	if p.Settled != nil {
		if err := l.t.db.exec(ctx, "UPDATE surgetank_progress SET ids = ? WHERE instance = ? AND lane = -1 AND epoch = ?", p.Settled, l.instance, int64(p.Epoch)); err != nil {
			return classify(err)
		}
	}
	n, err := l.t.db.changes(ctx, `UPDATE surgetank_progress SET batch = batch + 1, watermark = ?, entry = ?, applied = ?, ids = ?, updated = `+timeNow+`
		WHERE instance = ? AND lane = ? AND epoch = ? AND batch = ?`,
		int64(p.Watermark), int64(p.Entry), int64(p.Applied), p.IDs, l.instance, int64(l.number), int64(p.Epoch), int64(p.Batch))
	if err != nil {
		return classify(err)
	}
	if n != 1 {
		return &sink.Error{Class: sink.Stale, Row: -1, Reason: "the progress in surgetank_progress was changed by another opening of the sink"}
	}
	failpoint.Reach(failpoint.SinkTxMoved)
	return classify(l.t.db.exec(ctx, "COMMIT"))
}

// close releases the prepared statements.
func (l *lane) close() {
	for _, s := range l.stmts {
		_ = s.Close() // a read-only operation of memory; the connection goes next
	}
	for _, s := range l.odd {
		_ = s.Close()
	}
}

// Fresh does nothing yet: the columns are those of the opening.
func (l *lane) Fresh(context.Context) (bool, error) { return false, nil }

// Rest does nothing: all lanes share one connection, which costs the database nothing.
func (l *lane) Rest() {}
