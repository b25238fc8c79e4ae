package postgres

import (
	"bytes"
	"context"
	"io"
	"strconv"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/sink"
)

// lane writes batches over one connection. A row is kept as one line of COPY's text format.
type lane struct {
	conn     *pgconn.PgConn
	l        *layout
	instance string
	number   int
	x        *sink.Extractor

	lines   []byte // of all rows
	ends    []int  // where each row's line ends in lines
	missing []byte // len(l.defaults) characters a row: 1 where a field is missing and its column has a default
	anyGone bool   // some row has a 1 there
	staged  []byte // lines for the staging table
	hasTemp bool   // the staging table is there
}

func newLane(conn *pgconn.PgConn, l *layout, instance string, number int) *lane {
	return &lane{conn: conn, l: l, instance: instance, number: number, x: newExtractor(l)}
}

func newExtractor(l *layout) *sink.Extractor {
	columns := make([]sink.Column, len(l.columns))
	for i, c := range l.columns {
		columns[i] = c.Column
	}
	return sink.NewExtractor(columns)
}

// keptBytes is how much of a buffer is kept for the next batch.
const keptBytes = 16 << 20

func (l *lane) Reset() {
	if cap(l.lines)+cap(l.staged) > keptBytes {
		l.lines, l.staged = nil, nil
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
	k := 0 // of the columns with defaults before this one
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

// start is where a row's line begins.
func (l *lane) start(row int) int {
	if row == 0 {
		return 0
	}
	return l.ends[row-1]
}

// rows gives the statements that bring rows into the table, with the data for the COPY among them: before it, it, and
// after it.
func (l *lane) rows(from, to int) (data io.Reader, sql string, after string) {
	if l.l.direct && !l.anyGone {
		return bytes.NewReader(l.lines[l.start(from):l.start(to)]), l.l.copyInto, ""
	}
	l.staged = l.staged[:0]
	width := len(l.l.defaults)
	for row := from; row < to; row++ {
		l.staged = strconv.AppendInt(l.staged, int64(row), 10)
		l.staged = append(l.staged, '\t')
		l.staged = append(l.staged, l.missing[row*width:(row+1)*width]...)
		l.staged = append(l.staged, '\t')
		l.staged = append(l.staged, l.lines[l.start(row):l.ends[row]]...)
	}
	return bytes.NewReader(l.staged), l.l.copyBy, l.l.insert
}

// stage makes the staging table, once for each connection.
func (l *lane) stage(ctx context.Context) error {
	if l.hasTemp || l.l.direct && !l.anyGone {
		return nil
	}
	if err := exec(ctx, l.conn, l.l.stage); err != nil {
		return classify(err)
	}
	l.hasTemp = true
	return nil
}

// Commit sends everything as one query, which is one transaction.
func (l *lane) Commit(ctx context.Context, p sink.Progress) error {
	if err := l.stage(ctx); err != nil {
		return err
	}
	data, sql, after := l.rows(0, len(l.ends))
	sql = l.l.advance(l.instance, l.number, p, true) + "; " + sql
	if after != "" {
		sql += "; " + after
	}
	_, err := l.conn.CopyFrom(ctx, data, sql)
	return classify(err)
}

// Begin starts a transaction in which deferred constraints are checked at once, so that they can be laid at a row's door.
func (l *lane) Begin(ctx context.Context) error {
	if err := l.stage(ctx); err != nil {
		return err
	}
	return classify(exec(ctx, l.conn, "BEGIN; SET CONSTRAINTS ALL IMMEDIATE"))
}

// Write writes rows behind a savepoint.
func (l *lane) Write(ctx context.Context, from, to int) error {
	data, sql, after := l.rows(from, to)
	sql = "SAVEPOINT part; " + sql + "; "
	if after != "" {
		sql += after + "; DELETE FROM " + stageName + "; "
	}
	_, err := l.conn.CopyFrom(ctx, data, sql+"RELEASE SAVEPOINT part")
	if err == nil {
		return nil
	}
	err = classify(err)
	if e := err.(*sink.Error); e.Class == sink.BadRow {
		if e.Row >= 0 {
			e.Row += from
		}
		if back := exec(ctx, l.conn, "ROLLBACK TO SAVEPOINT part; RELEASE SAVEPOINT part"); back != nil {
			return classify(back)
		}
	}
	return err
}

// Finish moves the progress and commits.
func (l *lane) Finish(ctx context.Context, p sink.Progress) error {
	results, err := l.conn.Exec(ctx, l.l.advance(l.instance, l.number, p, false)).ReadAll()
	if err != nil {
		return classify(err)
	}
	if n := len(results); n == 0 || results[n-1].CommandTag.RowsAffected() != 1 {
		return &sink.Error{Class: sink.Stale, Row: -1, Reason: "the progress in surgetank_progress was changed by another opening of the sink"}
	}
	return classify(exec(ctx, l.conn, "COMMIT"))
}

// Rollback drops the transaction, if there is one.
func (l *lane) Rollback(ctx context.Context) error {
	return classify(exec(ctx, l.conn, "ROLLBACK"))
}

// Fresh does nothing yet: the layout is that of the connection's opening.
func (l *lane) Fresh(context.Context) (bool, error) { return false, nil }

// Rest does nothing yet: the connection stays.
func (l *lane) Rest() {}
