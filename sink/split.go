package sink

import (
	"context"
	"slices"
)

// hopeless is a number of rows. If this many rows of a batch fail alone and no row can be written,
// the split ends, and the rest of the batch is not tried.
const hopeless = 32

// split searches a batch for the rows that the target rejects, in one transaction with a savepoint
// for each part. It writes parts in order, so a row is tried after every row before it.
//
//	[0 … 7]  fails → [0 … 3] written, [4 … 7] fails → [4 5] fails → 4 written, 5 fails alone; [6 7] written
//
// If the target names the row, the parts are: the rows before it, the row alone, the rows after it.
// If an earlier row of a chain failed and may be retried, later rows of the chain are left out and
// cannot overtake.
type split struct {
	l      *lane
	rows   []*entry
	done   []bool // whether each row is written
	failed []failure
	why    *Error
	held   map[uint64]int // first row of each chain that may be retried
	mark   uint64         // the tick before the newest successful write
	any    bool           // something was written
	tries  int            // number of rows that failed alone
	bad    int            // number of these rows that are bad beyond doubt
}

// search finds the rows at fault and commits the others.
func (l *lane) search(good []*entry, o *outcome) (err error) {
	sp := &split{l: l, rows: good, done: make([]bool, len(good)), held: map[uint64]int{}}
	open := true
	defer func() {
		if err != nil && open {
			if rb := l.within(l.conn.Rollback); rb != nil {
				err = &Error{Class: Down, Row: -1, Reason: err.Error(), Err: err}
			}
		}
	}()
	if err := l.within(l.conn.Begin); err != nil {
		return err
	}
	if err := sp.part(0, len(good)); err != nil {
		return err
	}
	if err := sp.confirm(); err != nil {
		return err
	}
	written := sp.written(0, len(good))
	if len(written) == 0 {
		open = false
		if err := l.within(l.conn.Rollback); err != nil {
			return &Error{Class: Down, Row: -1, Reason: err.Error(), Err: err}
		}
	} else if err := l.within(func(ctx context.Context) error { return l.conn.Finish(ctx, l.progress(written)) }); err == nil {
		l.committed(written, sp.mark)
		o.done = written
		for i := range sp.failed {
			sp.failed[i].company = sp.failed[i].twice
		}
	} else {
		e := asError(err)
		if !e.Class.OfRow() {
			return err
		}
		// A check that is deferred until the commit names no row. The rows are committed in halves.
		open = false
		if rb := l.within(l.conn.Rollback); rb != nil {
			return &Error{Class: Down, Row: -1, Reason: e.Reason, Err: e}
		}
		if err := sp.apart(0, len(good), e, o); err != nil {
			return err
		}
	}
	o.failed = append(o.failed, sp.failed...)
	o.why = sp.why
	gone := map[*entry]bool{}
	for _, e := range o.done {
		gone[e] = true
	}
	for _, f := range sp.failed {
		gone[f.e] = true
	}
	for _, e := range good {
		if !gone[e] {
			o.unseen = append(o.unseen, e)
		}
	}
	return nil
}

// over reports whether to stop the search: many rows failed and none could be written. Rows that
// are bad beyond doubt count only if the brake would hold them back.
func (sp *split) over() bool {
	return !sp.any && (sp.tries-sp.bad >= hopeless || sp.l.s.r.brake.exceeds(sp.bad))
}

// behind reports whether an earlier row of the same chain may be retried.
func (sp *split) behind(i int) bool {
	if sp.rows[i].chain == 0 {
		return false
	}
	first, ok := sp.held[sp.rows[i].chain]
	return ok && i > first
}

// part writes the rows [from, to). It leaves out rows that fail alone and rows whose chain is in
// held.
func (sp *split) part(from, to int) error {
	for i := from; i < to; i++ {
		if sp.behind(i) {
			if err := sp.part(from, i); err != nil {
				return err
			}
			return sp.part(i+1, to)
		}
	}
	if from >= to || sp.over() {
		return nil
	}
	mark := sp.l.s.tick.Load()
	err := sp.write(from, to)
	if err == nil {
		sp.mark, sp.any = mark, true
		for i := from; i < to; i++ {
			sp.done[i] = true
		}
		return nil
	}
	e := asError(err)
	if !e.Class.OfRow() {
		return e
	}
	if e.Lost {
		if err := sp.restart(from); err != nil {
			return err
		}
	}
	if to-from == 1 {
		sp.fail(from, e)
		return nil
	}
	cut, alone := (from+to)/2, (from+to)/2
	if e.Row >= from && e.Row < to {
		cut, alone = e.Row, e.Row+1
	}
	if err := sp.part(from, cut); err != nil {
		return err
	}
	if err := sp.part(cut, alone); err != nil {
		return err
	}
	return sp.part(alone, to)
}

// confirm retries each suspect once if another row was written after the suspect failed. The retry
// distinguishes a fault of the row from a lock or a permission that was missing for a moment. In
// the first case the row fails, another row succeeds, and the row fails again.
func (sp *split) confirm() error {
	kept := sp.failed[:0]
	for _, f := range sp.failed {
		if f.err.Class != Suspect || f.mark > sp.mark {
			kept = append(kept, f)
			continue
		}
		i := slices.Index(sp.rows, f.e)
		mark := sp.l.s.tick.Load()
		err := sp.write(i, i+1)
		if err == nil {
			sp.done[i], sp.mark = true, mark
			continue
		}
		e := asError(err)
		if !e.Class.OfRow() {
			return e
		}
		if e.Lost {
			if err := sp.restart(len(sp.rows)); err != nil {
				return err
			}
		}
		f.twice = true
		kept = append(kept, f)
	}
	sp.failed = kept
	return nil
}

func (sp *split) write(from, to int) error {
	return sp.l.within(func(ctx context.Context) error { return sp.l.conn.Write(ctx, from, to) })
}

// fail records that a row failed alone. A row that is bad beyond doubt is parked and no other row
// waits for it.
func (sp *split) fail(i int, e *Error) {
	sp.failed = append(sp.failed, sp.l.fail(sp.rows[i], e))
	sp.why = e
	sp.tries++
	if e.Class == BadRow {
		sp.bad++
	}
	if c := sp.rows[i].chain; c != 0 && e.Class != BadRow {
		if first, ok := sp.held[c]; !ok || i < first {
			sp.held[c] = i
		}
	}
}

// restart begins a new transaction after an error that ended the old one, and writes the same rows
// again.
func (sp *split) restart(before int) error {
	if err := sp.l.begin(); err != nil {
		return err
	}
	err := sp.rewrite(0, before)
	if err != nil && asError(err).Class.OfRow() { // these rows could be written a moment ago, so something else changed
		return &Error{Class: Retry, Row: -1, Reason: err.Error(), Err: err}
	}
	return err
}

// rewrite writes those rows of [from, to) that were written before.
func (sp *split) rewrite(from, to int) error {
	for from < to {
		if !sp.done[from] {
			from++
			continue
		}
		end := from
		for end < to && sp.done[end] {
			end++
		}
		if err := sp.write(from, end); err != nil {
			return err
		}
		from = end
	}
	return nil
}

func (sp *split) written(from, to int) []*entry {
	var list []*entry
	for i := from; i < to; i++ {
		if sp.done[i] {
			list = append(list, sp.rows[i])
		}
	}
	return list
}

// apart commits the written rows of [from, to) in separate transactions. It halves a part whose
// commit fails with e.
func (sp *split) apart(from, to int, e *Error, o *outcome) error {
	for i := from; i < to; i++ {
		if sp.done[i] && sp.behind(i) {
			sp.done[i], e = false, nil // this set of rows is smaller than the set that failed
		}
	}
	rows := sp.written(from, to)
	if len(rows) == 0 || sp.over() && len(o.done) == 0 {
		return nil
	}
	if e == nil {
		var err error
		if e, err = sp.alone(from, to, rows, o); err != nil || e == nil {
			return err
		}
	}
	if len(rows) == 1 {
		for i := from; i < to; i++ {
			if sp.done[i] {
				sp.done[i] = false
				sp.fail(i, e)
			}
		}
		return nil
	}
	// Half of the remaining rows, not of the positions.
	half, cut := len(rows)/2, from
	for n := 0; n < half; cut++ {
		if sp.done[cut] {
			n++
		}
	}
	if err := sp.apart(from, cut, nil, o); err != nil {
		return err
	}
	return sp.apart(cut, to, nil, o)
}

// alone commits some written rows in a separate transaction. If one of the rows causes an error,
// alone returns that error.
func (sp *split) alone(from, to int, rows []*entry, o *outcome) (*Error, error) {
	l := sp.l
	if err := l.within(l.conn.Begin); err != nil {
		return nil, err
	}
	mark := l.s.tick.Load()
	err := sp.rewrite(from, to)
	if err == nil {
		err = l.within(func(ctx context.Context) error { return l.conn.Finish(ctx, l.progress(rows)) })
	}
	if err == nil {
		l.committed(rows, mark)
		o.done = append(o.done, rows...)
		return nil, nil
	}
	if rb := l.within(l.conn.Rollback); rb != nil {
		return nil, &Error{Class: Down, Row: -1, Reason: err.Error(), Err: err}
	}
	if e := asError(err); e.Class.OfRow() {
		return e, nil
	}
	if e := asError(err); e.Class == Changed || e.Class == TooLarge || e.Class == Retry {
		// Some rows may be committed already. The next session reads from the target which rows
		// are.
		return nil, &Error{Class: Down, Row: -1, Reason: e.Reason, Err: e}
	}
	return nil, err
}
