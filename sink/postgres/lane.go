package postgres

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strconv"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/sink"
)

// lane writes batches over one connection, which it opens when needed. It stores each row as one
// line of COPY's text format.
type lane struct {
	t      *Target
	l      *layout
	claim  sink.Claim
	number int
	x      *sink.Extractor

	conn   *conn // nil: not connected
	guard  guard
	staged string // the statement that made the connection's staging table; empty: no staging table

	lines   []byte // the lines of all rows
	ends    []int  // end of each row's line in lines
	missing []byte // for each row, one character per column with a default: 1 if the field is missing
	anyGone bool   // missing contains a 1
	stage   []byte // lines for the staging table
	ready   bool   // the guard's statement is prepared on the connection
}

func newLane(t *Target, l *layout, claim sink.Claim, number int) *lane {
	return &lane{t: t, l: l, claim: claim, number: number, x: newExtractor(l), guard: newGuard()}
}

func newExtractor(l *layout) *sink.Extractor {
	columns := make([]sink.Column, len(l.columns))
	for i, c := range l.columns {
		columns[i] = c.Column
	}
	return sink.NewExtractor(columns)
}

// keptBytes is the largest buffer kept for the next batch.
const keptBytes = 16 << 20

func (l *lane) Reset() {
	if cap(l.lines)+cap(l.stage) > keptBytes {
		l.lines, l.stage = nil, nil
	}
	l.lines, l.ends, l.missing, l.anyGone = l.lines[:0], l.ends[:0], l.missing[:0], false
}

func (l *lane) Add(d *surgetank.Delivery) error {
	cells, err := l.x.Cells(d)
	if err != nil {
		return err
	}
	start, gone := len(l.lines), len(l.missing)
	for range l.l.defaults {
		l.missing = append(l.missing, '0')
	}
	k := 0 // number of columns with defaults before this one
	for i := range cells {
		c := &l.l.columns[i]
		if i > 0 {
			l.lines = append(l.lines, '\t')
		}
		switch {
		case cells[i].Kind != sink.CellMissing:
			l.lines, err = c.append(l.lines, &cells[i])
		case c.fallback != "":
			l.missing[gone+k] = '1'
			l.anyGone = true
			l.lines = append(l.lines, null...)
		case c.notNull:
			err = sink.MissingField(c.Column)
		default:
			l.lines = append(l.lines, null...)
		}
		if err != nil {
			l.lines, l.missing = l.lines[:start], l.missing[:gone]
			return err
		}
		if c.fallback != "" {
			k++
		}
	}
	l.lines = append(l.lines, '\n')
	l.ends = append(l.ends, len(l.lines))
	return nil
}

// start returns where a row's line begins.
func (l *lane) start(row int) int {
	if row == 0 {
		return 0
	}
	return l.ends[row-1]
}

// direct reports whether the current rows may be copied straight into the table.
func (l *lane) direct() bool { return l.l.direct && !l.anyGone }

// rows returns the statements that write rows to the table. sql ends with the COPY, data is the
// input of the COPY, and after has the statements after it.
func (l *lane) rows(from, to int) (data io.Reader, sql string, after string) {
	if l.direct() {
		return bytes.NewReader(l.lines[l.start(from):l.start(to)]), l.l.copyInto, ""
	}
	l.stage = l.stage[:0]
	width := len(l.l.defaults)
	for row := from; row < to; row++ {
		l.stage = strconv.AppendInt(l.stage, int64(row), 10)
		l.stage = append(l.stage, '\t')
		l.stage = append(l.stage, l.missing[row*width:(row+1)*width]...)
		l.stage = append(l.stage, '\t')
		l.stage = append(l.stage, l.lines[l.start(row):l.ends[row]]...)
	}
	return bytes.NewReader(l.stage), l.l.copyBy, "; " + l.l.insert
}

// connect makes sure that the lane has a connection whose session is ready for the batch.
func (l *lane) connect(ctx context.Context) error {
	if l.conn == nil {
		if err := l.dial(ctx); err != nil {
			return err
		}
	}
	if l.conn.pooled {
		return nil
	}
	if !l.ready {
		if err := exec(ctx, l.conn.PgConn, l.guard.prepare(l.l.name)); err != nil {
			return classify(err)
		}
		l.ready = true
	}
	if l.direct() || l.staged == l.l.stage {
		return nil
	}
	sql := l.l.stage + " ON COMMIT DELETE ROWS"
	if l.staged != "" {
		sql = "DROP TABLE " + stageName + "; " + sql
	}
	if err := exec(ctx, l.conn.PgConn, sql); err != nil {
		return classify(err)
	}
	l.staged = l.l.stage
	return nil
}

// dial connects after the opening. It checks that the stored progress is still that of this
// opening: the connection leads to the same database, and there was no later opening.
func (l *lane) dial(ctx context.Context) error {
	c, err := l.t.connect(ctx, appName(l.claim.Instance))
	if err != nil {
		return err
	}
	if l.claim.Verify != nil {
		if err := l.verify(ctx, c); err != nil {
			hangUp(c.PgConn)
			return err
		}
	}
	l.conn, l.ready, l.staged = c, false, ""
	return nil
}

func (l *lane) verify(ctx context.Context, c *conn) error {
	check := l.claim.Verify() // notes the committed messages before the progress is read
	state, err := l.l.stored(ctx, c.PgConn, l.claim.Instance)
	switch {
	case err != nil:
		return err
	case state == nil:
		return errStale
	}
	return check(*state)
}

// begin returns the first statements of a transaction: the settings, if there is a pooler, then the
// lock, then the comparison of the table.
func (l *lane) begin() string {
	if !l.conn.pooled {
		return l.l.lock + "; EXECUTE surgetank_guard (" + literal(l.l.print) + "); "
	}
	sql := localSettings
	if !l.direct() {
		sql += l.l.stage + " ON COMMIT DROP; "
	}
	return sql + l.l.lock + "; " + l.guard.compare(l.l.name, literal(l.l.print)) + "; "
}

// sameTries limits the repeats of a transaction whose fingerprint differs while the layout is the
// same.
const sameTries = 5

// guarded calls try, and again while the table's fingerprint differs and its layout does not. If
// try fails, it must roll back everything.
func (l *lane) guarded(ctx context.Context, try func() error) error {
	for n := 1; ; n++ {
		if err := l.connect(ctx); err != nil {
			return err
		}
		err := l.l.rowError(l.guard.verdict(try()))
		var e *sink.Error
		if !errors.As(err, &e) || e.Class != sink.Changed {
			return err
		}
		changed, again := l.reload(ctx)
		switch {
		case again != nil:
			return again
		case changed:
			return e
		case n == sameTries:
			return &sink.Error{Class: sink.Retry, Row: -1, Reason: "the table is being changed all the time", Err: e}
		}
	}
}

// reload reads the table again. It reports whether rows must be made again.
func (l *lane) reload(ctx context.Context) (changed bool, err error) {
	now, err := l.t.read(ctx, l.conn.PgConn)
	if err != nil {
		return false, err
	}
	if now.progress != l.l.progress {
		return false, &sink.Error{Class: sink.Down, Row: -1, Reason: "the name " + l.l.name + " now means a table in another schema, and the sink's progress is in " +
			l.l.progress + "; write the schema into the sink's table"}
	}
	changed = now.key != l.l.key
	l.l = now
	if changed {
		l.x = newExtractor(now)
	}
	return changed, nil
}

// Commit sends the whole batch as one query, which is one transaction.
func (l *lane) Commit(ctx context.Context, p sink.Progress) error {
	return l.guarded(ctx, func() error {
		data, sql, after := l.rows(0, len(l.ends))
		_, err := l.conn.CopyFrom(ctx, data, l.begin()+l.guard.moved(l.l.advance(&l.claim, l.number, p))+"; "+sql+after)
		return err
	})
}

// Begin starts a transaction in which deferred constraints are checked at once. Their errors then
// belong to a known row.
func (l *lane) Begin(ctx context.Context) error {
	return l.guarded(ctx, func() error {
		err := exec(ctx, l.conn.PgConn, "BEGIN ISOLATION LEVEL READ COMMITTED; SET CONSTRAINTS ALL IMMEDIATE; "+l.begin())
		if err != nil && !l.conn.IsClosed() {
			if back := exec(ctx, l.conn.PgConn, "ROLLBACK"); back != nil {
				return back
			}
		}
		return err
	})
}

// Write writes rows after a savepoint.
func (l *lane) Write(ctx context.Context, from, to int) error {
	data, sql, after := l.rows(from, to)
	sql = "SAVEPOINT part; " + sql + after + "; "
	if after != "" {
		sql += "DELETE FROM " + stageName + "; "
	}
	_, err := l.conn.CopyFrom(ctx, data, sql+"RELEASE SAVEPOINT part")
	if err == nil {
		return nil
	}
	err = l.l.rowError(err)
	if e := err.(*sink.Error); e.Class.OfRow() {
		if e.Row >= 0 {
			e.Row += from
		}
		if back := exec(ctx, l.conn.PgConn, "ROLLBACK TO SAVEPOINT part; RELEASE SAVEPOINT part"); back != nil {
			return classify(back)
		}
	}
	return err
}

// Finish updates the progress and commits.
func (l *lane) Finish(ctx context.Context, p sink.Progress) error {
	if err := exec(ctx, l.conn.PgConn, l.guard.moved(l.l.advance(&l.claim, l.number, p))); err != nil {
		return l.guard.verdict(err)
	}
	return classify(exec(ctx, l.conn.PgConn, "COMMIT"))
}

// Rollback rolls back the transaction, if there is one.
func (l *lane) Rollback(ctx context.Context) error {
	if l.conn == nil {
		return nil
	}
	return classify(exec(ctx, l.conn.PgConn, "ROLLBACK"))
}

// Fresh reads the table again, even if its fingerprint is unchanged.
func (l *lane) Fresh(ctx context.Context) (changed bool, err error) {
	if err := l.connect(ctx); err != nil {
		return false, err
	}
	return l.reload(ctx)
}

// Rest closes the connection.
func (l *lane) Rest() {
	if l.conn != nil {
		goodbye(l.conn.PgConn)
		l.conn = nil
	}
}
