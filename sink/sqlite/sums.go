package sqlite

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/surgetank/surgetank/sink"
)

// sums adds rows with the same conflict key before they are written, if on_conflict adds. If only
// SQLite treats two keys as equal, their rows stay separate, and SQLite adds them.
type sums struct {
	columns []int  // the columns that are added; nil: none
	keys    []int  // the key columns of on_conflict
	parts   []part // the rows to write
	values  []driver.NamedValue
	byKey   map[string]candidate
	exact   []byte
	loose   []byte
}

// candidate is the newest part for a set of keys that SQLite might treat as equal. Only rows with
// exactly the part's key are added to it, so the last row of the set is written last.
type candidate struct {
	part  int
	exact string
}

// part is one row to write: the sum of some rows of the batch.
type part struct {
	row
	first int  // the index of its first row in the batch
	many  bool // it is the sum of more than one row
}

func newSums(t *table) (s sums) {
	for i, c := range t.columns {
		switch {
		case t.spec.Table.Adds(c.Name):
			s.columns = append(s.columns, i)
		case t.spec.Table.IsKey(c.Name):
			s.keys = append(s.keys, i)
		}
	}
	return s
}

// key writes a row's key values to s.exact. To s.loose it writes a form that is the same for all
// keys that SQLite might treat as equal: numbers by value, text without case. It returns false if a
// key is null, because null equals no other key.
func (s *sums) key(values []driver.NamedValue) bool {
	s.exact, s.loose = s.exact[:0], s.loose[:0]
	for _, i := range s.keys {
		var text string
		switch v := values[i].Value.(type) {
		case nil:
			return false
		case string:
			text = v
		case []byte:
			text = string(v)
		default:
			text = fmt.Sprint(v)
		}
		s.exact = fmt.Appendf(s.exact, "%T %d %s", values[i].Value, len(text), text)
		if f, err := strconv.ParseFloat(strings.TrimSpace(text), 64); err == nil {
			text = fmt.Sprint(f + 0) // +0 makes the two zeros equal
		} else {
			text = strings.TrimRight(strings.ToLower(text), " ")
		}
		s.loose = fmt.Appendf(s.loose, "%d %s", len(text), text)
	}
	return true
}

// add returns the sum of two numbers. It returns false if only SQLite can add them.
func add(a, b driver.Value) (driver.Value, bool) {
	switch x := a.(type) {
	case nil:
		return b, true
	case int64:
		switch y := b.(type) {
		case nil:
			return a, true
		case int64:
			sum := x + y
			return sum, (sum > x) == (y > 0) || y == 0
		}
	case float64:
		switch y := b.(type) {
		case nil:
			return a, true
		case float64:
			return x + y, true
		}
	}
	return nil, false
}

// insertSums adds the rows of each key and writes the results. The other columns get the values of
// the key's last row.
func (l *lane) insertSums(ctx context.Context, from, to int) error {
	s, width := &l.sums, len(l.table.columns)
	base := l.rows[from].at
	s.parts, s.byKey = s.parts[:0], map[string]candidate{}
	s.values = append(s.values[:0], l.values[base:l.rows[to-1].at+width]...)
	for i := from; i < to; i++ {
		r := l.rows[i]
		at := r.at - base
		hasKey := s.key(s.values[at : at+width])
		if r.leave != nil { // its key might be a column's default
			clear(s.byKey)
		} else if c, ok := s.byKey[string(s.loose)]; hasKey && ok && c.exact == string(s.exact) && s.merge(&s.parts[c.part], at, width) {
			continue
		}
		s.parts = append(s.parts, part{row: row{at: at, leave: r.leave}, first: i})
		if hasKey && r.leave == nil {
			s.byKey[string(s.loose)] = candidate{len(s.parts) - 1, string(s.exact)}
		}
	}
	// insertRows writes the lane's rows and values, so the sums replace them during the call.
	rows, values := l.rows, l.values
	defer func() {
		l.rows, l.values = rows, values
		clear(s.values)
	}()
	l.rows, l.values = make([]row, len(s.parts)), make([]driver.NamedValue, 0, len(s.parts)*width)
	for i, p := range s.parts {
		l.rows[i] = row{at: len(l.values), leave: p.leave}
		l.values = append(l.values, s.values[p.at:p.at+width]...)
	}
	err := l.insertAll(ctx, 0, len(l.rows))
	var e *sink.Error
	if errors.As(err, &e) && e.Row >= 0 {
		if p := s.parts[e.Row]; p.many {
			e.Row = -1 // any row of the part can be at fault
		} else {
			e.Row = p.first
		}
	}
	return err
}

// merge adds a row to a part. It changes nothing and returns false if a sum is not possible.
func (s *sums) merge(p *part, at, width int) bool {
	var results [8]driver.Value
	done := results[:0]
	for _, i := range s.columns {
		v, ok := add(s.values[p.at+i].Value, s.values[at+i].Value)
		if !ok {
			return false
		}
		done = append(done, v)
	}
	for i := range width {
		if k := slices.Index(s.columns, i); k >= 0 {
			s.values[p.at+i].Value = done[k]
		} else {
			s.values[p.at+i].Value = s.values[at+i].Value
		}
	}
	p.many = true
	return true
}
