package sink

import (
	"context"
)

// changeTries is how often a batch is added again because the table changed. After this number of
// changes the target counts as down.
const changeTries = 8

// outcome is the result of one attempt at a batch, for each of its messages.
type outcome struct {
	done   []*entry  // messages whose rows are committed
	failed []failure // messages whose rows failed when they were written alone
	unseen []*entry  // messages that were not tried alone, or not at all; why has the reason
	why    *Error
	again  bool // nothing was written; the same messages are tried again in smaller batches
}

// failure is a message that the target rejected when its row was written alone.
type failure struct {
	e    *entry
	err  *Error
	mark uint64 // see session.tick
	// twice: the row failed, another row was written after it in the same transaction, and the row
	// failed again. company: that transaction was committed, or was made only for the comparison.
	twice   bool
	company bool
}

func (l *lane) fail(e *entry, err *Error) failure {
	return failure{e: e, err: err, mark: l.s.tick.Add(1)}
}

// commit writes the batch to the target and decides what becomes of each message.
func (l *lane) commit() error {
	s := l.s
	s.mu.Lock()
	for _, e := range l.batch {
		if e.lost {
			s.mu.Unlock()
			return errLeaseLost
		}
	}
	s.mu.Unlock()
	if !l.back.empty() {
		l.behind()
		if len(l.batch) == 0 {
			return nil
		}
	}
	o, err := l.try()
	if err != nil {
		return err
	}
	if o.again {
		l.putBack()
		return nil
	}
	if err := l.compare(&o); err != nil {
		s.finish(o.done)
		return err
	}
	l.conclude(o)
	return nil
}

// try attempts the batch until an attempt has an outcome. After an error that passes by itself it
// waits and retries.
func (l *lane) try() (outcome, error) {
	pause := l.s.r.backoff()
	retries, changes := 0, 0
	for {
		o, err := l.once()
		e := asError(err)
		if err != nil && e.Class == TooLarge {
			l.limit.tooLarge(len(l.batch))
			l.s.r.stats.retried(e, l.s.r.opts.clock.Now())
			o, err = outcome{again: true}, nil
		}
		if err == nil {
			l.leave(&o, nil)
			return o, nil
		}
		switch e.Class {
		case Changed:
			if changes++; changes < changeTries {
				continue
			}
			return o, &Error{Class: Down, Row: -1, Reason: "the table changes again and again: " + e.Reason, Err: e}
		case Retry:
			if retries++; retries == retryTries {
				return o, &Error{Class: Down, Row: -1, Reason: e.Reason, Err: e}
			}
			l.s.r.stats.retried(e, l.s.r.opts.clock.Now())
			l.leave(&o, e)
			if e.RetryAfter > 0 {
				l.holdOff(e.RetryAfter)
				return outcome{again: true}, nil
			}
			if !pause.wait(l.s.ctx) || !l.enter() {
				return outcome{again: true}, context.Cause(l.s.ctx)
			}
		default:
			return o, e
		}
	}
}

// once turns the messages into rows and makes one attempt to write all of them.
func (l *lane) once() (outcome, error) {
	var o outcome
	l.floor, _ = l.s.sub.Floor()
	good, err := l.addAll(&o)
	if err == nil && len(o.failed) > 0 {
		// The lane's description of the table must be current before a message is called bad.
		var changed bool
		err = l.within(func(ctx context.Context) (err error) { changed, err = l.conn.Fresh(ctx); return err })
		if err == nil && changed {
			good, err = l.addAll(&o)
		}
	}
	if err != nil || len(good) == 0 {
		return o, err
	}
	return o, l.write(good, &o)
}

// addAll turns the batch into rows. It returns the entries that have a row.
func (l *lane) addAll(o *outcome) (good []*entry, err error) {
	l.conn.Reset()
	o.failed = o.failed[:0]
	for _, e := range l.batch {
		err := l.conn.Add(&e.d)
		if err == nil {
			good = append(good, e)
			continue
		}
		if asError(err).Class != BadRow {
			return nil, asError(err)
		}
		o.failed = append(o.failed, l.fail(e, asError(err)))
	}
	return good, nil
}

// write commits the rows together. If a row is at fault, write searches for the row.
func (l *lane) write(good []*entry, o *outcome) error {
	mark := l.s.tick.Load()
	err := l.timed(len(good), func() error {
		return l.within(func(ctx context.Context) error { return l.conn.Commit(ctx, l.progress(good)) })
	})
	if err == nil {
		l.committed(good, mark)
		o.done = good
		for i := range o.failed { // failures that Add reported in this attempt
			o.failed[i].company = true
		}
		return nil
	}
	e := asError(err)
	switch {
	case e.Class == TooLarge && len(good) == 1:
		alone := *e
		alone.Class = Suspect // a single row that never fits says nothing about the size of the batch
		e = &alone
	case !e.Class.OfRow():
		return e
	}
	switch {
	case len(good) == 1:
		o.failed = append(o.failed, l.fail(good[0], e))
	case e.Class == Reference && !l.overdue(good) && l.s.earliest(l) < good[len(good)-1].seq:
		// The missing rows may be in other lanes. Wait until those rows are written before
		// searching for rows at fault.
		o.unseen, o.why = good, e
	default:
		l.split = true
		return l.search(good, o)
	}
	return nil
}

// overdue reports whether a message has waited long enough for earlier messages.
func (l *lane) overdue(rows []*entry) bool {
	now := l.s.r.opts.clock.Now()
	for _, e := range rows {
		if h := e.hold; h != nil && h.after && !h.due.After(now) {
			return true
		}
	}
	return false
}

// progress returns the progress that the lane stores with these entries.
func (l *lane) progress(rows []*entry) Progress {
	l.seqs = l.seqs[:0]
	for _, e := range rows {
		l.seqs = append(l.seqs, e.seq)
	}
	floor, entry := l.s.sub.Floor()
	return l.s.ledger.progress(l.number, floor, entry, l.seqs)
}

// committed records a commit of the rows that progress was made for. It sends the lane's progress
// to the broker before the acks. mark is the tick before the last of the rows was written.
func (l *lane) committed(rows []*entry, mark uint64) {
	l.s.mark(l.number, l.s.ledger.commit(l.number, l.seqs))
	l.limit.committed(len(rows))
	l.s.prove(mark, len(rows))
	l.s.r.stats.committed(len(rows), l.s.r.opts.clock.Now())
}
