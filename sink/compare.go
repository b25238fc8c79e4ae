package sink

import (
	"context"
	"slices"

	"github.com/surgetank/surgetank"
)

// compares is how many other rows one comparison writes.
const compares = 8

// compare looks for evidence about a suspect that order or small batches keep apart from other
// rows. In a transaction that is rolled back, it writes the suspect alone, which fails. Then it
// writes some other rows, and after the first success the suspect again. If the suspect fails
// again, it failed in company. compare does this for one suspect of an attempt.
func (l *lane) compare(o *outcome) error {
	var f *failure
	for i := range o.failed {
		c := &o.failed[i]
		if h := c.e.hold; c.err.Class == Suspect && !c.company && h != nil && h.class == Suspect && !h.company {
			f = c
			break
		}
	}
	if f == nil {
		return nil
	}
	l.conn.Reset()
	if l.conn.Add(&f.e.d) != nil {
		return nil
	}
	added := 1
	for _, d := range l.others(f.e, o) {
		if l.conn.Add(&d) == nil {
			added++
		}
	}
	if added == 1 {
		return nil
	}
	err := l.within(l.conn.Begin)
	if err == nil {
		err = l.one(0)
		for i := 1; i < added && err != nil; i++ {
			e := asError(err)
			if !e.Class.OfRow() && e.Class != TooLarge {
				break
			}
			if e.Lost || e.Class == TooLarge {
				if err = l.begin(); err != nil {
					break
				}
			}
			if err = l.one(i); err != nil {
				continue
			}
			again := l.one(0)
			f.company = again != nil && asError(again).Class.OfRow()
		}
	}
	if rb := l.within(l.conn.Rollback); rb != nil {
		return &Error{Class: Down, Row: -1, Reason: rb.Error(), Err: rb}
	}
	if err == nil {
		return nil
	}
	switch e := asError(err); e.Class {
	case Down, Stale, Fenced, Refused:
		return e
	}
	return nil // the error is ignored: the next attempt meets it again
}

// others returns messages to compare a suspect with. Messages of this lane that never failed alone
// come first, then messages of other lanes. Each call chooses different ones.
func (l *lane) others(suspect *entry, o *outcome) []surgetank.Delivery {
	s := l.s
	s.mu.Lock() // the dispatcher renews receipts
	defer s.mu.Unlock()
	var list []surgetank.Delivery
	for _, from := range [][]*entry{o.unseen, l.back.list} {
		for _, e := range from {
			if len(list) < compares && e != suspect && (e.hold == nil || e.hold.fails == 0) {
				list = append(list, e.d)
			}
		}
	}
	if len(list) > compares/2 {
		return list
	}
	var seqs []uint64
	for seq, e := range s.held {
		if !e.settled && e.lane != l {
			seqs = append(seqs, seq)
		}
	}
	slices.Sort(seqs)
	for i := range min(len(seqs), compares-len(list)) {
		list = append(list, s.held[seqs[(suspect.hold.fails*compares/2+i)%len(seqs)]].d)
	}
	return list
}

// one writes one of the added rows.
func (l *lane) one(i int) error {
	return l.within(func(ctx context.Context) error { return l.conn.Write(ctx, i, i+1) })
}

// begin starts a new transaction after an error that ended the old one.
func (l *lane) begin() error {
	if err := l.within(l.conn.Rollback); err != nil {
		return err
	}
	return l.within(l.conn.Begin)
}
