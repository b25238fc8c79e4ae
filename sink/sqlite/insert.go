package sqlite

import (
	"context"
	"database/sql/driver"

	"github.com/surgetank/surgetank/sink"
)

// maxParameters is SQLite's default limit of parameters in one statement
// (SQLITE_MAX_VARIABLE_NUMBER).
const maxParameters = 32766

// rowSteps lists the numbers of rows for which an INSERT is prepared.
var rowSteps = [...]int{128, 16, 1}

// insertRows writes rows in order, using the largest prepared insert that fits. Rows that leave out
// columns are written one by one.
func (l *lane) insertRows(ctx context.Context, from, to int) error {
	if l.sums.columns != nil {
		return l.insertSums(ctx, from, to)
	}
	return l.insertAll(ctx, from, to)
}

func (l *lane) insertAll(ctx context.Context, from, to int) error {
	width := len(l.table.columns)
	for from < to {
		if err := ctx.Err(); err != nil {
			return classify(err)
		}
		r := &l.rows[from]
		if r.leave != nil {
			if err := l.insertOdd(r); err != nil {
				return l.at(err, from)
			}
			from++
			continue
		}
		run := 1
		for from+run < to && run < rowSteps[0] && l.rows[from+run].leave == nil {
			run++
		}
		n := 1
		for _, step := range rowSteps {
			if step <= run && step*width <= maxParameters {
				n = step
				break
			}
		}
		stmt, err := l.statement(n)
		if err != nil {
			return classify(err)
		}
		values := l.values[r.at : r.at+n*width]
		for i := range values {
			values[i].Ordinal = i + 1
		}
		if err := execute(stmt, values); err != nil {
			if n == 1 {
				return l.at(err, from)
			}
			return l.table.rowError(err)
		}
		from += n
	}
	return nil
}

// execute runs a prepared insert. It has no context: a statement is short, and watching a context
// would cost more.
func execute(stmt driver.Stmt, values []driver.NamedValue) error {
	_, err := stmt.(driver.StmtExecContext).ExecContext(context.Background(), values)
	return err
}

// at adds the row's index to an error.
func (l *lane) at(err error, i int) error {
	e := l.table.rowError(err)
	if e, ok := e.(*sink.Error); ok && e.Class.OfRow() {
		e.Row = i
	}
	return e
}

func (l *lane) statement(n int) (driver.Stmt, error) {
	if s := l.stmts[n]; s != nil {
		return s, nil
	}
	s, err := l.t.db.conn.Prepare(l.table.insert(n, nil))
	if err != nil {
		return nil, err
	}
	l.stmts[n] = s
	return s, nil
}

// insertOdd writes a row that leaves out columns, so that they get their defaults.
func (l *lane) insertOdd(r *row) error {
	key := make([]byte, len(r.leave))
	var values []driver.NamedValue
	for i, left := range r.leave {
		if left {
			key[i] = 1
			continue
		}
		values = append(values, driver.NamedValue{Ordinal: len(values) + 1, Value: l.values[r.at+i].Value})
	}
	s := l.odd[string(key)]
	if s == nil {
		if len(l.odd) >= 64 { // bounds the memory: only a hostile publisher sends more combinations
			for k, old := range l.odd {
				_ = old.Close()
				delete(l.odd, k)
			}
		}
		var err error
		if s, err = l.t.db.conn.Prepare(l.table.insert(1, r.leave)); err != nil {
			return err
		}
		l.odd[string(key)] = s
	}
	return execute(s, values)
}
