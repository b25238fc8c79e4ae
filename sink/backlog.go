package sink

import (
	"slices"
	"time"
)

// hold is what is known about a message that could not be written and was not parked. The lane owns it.
type hold struct {
	class  Class
	reason string
	fails  int       // attempts in which it failed alone
	first  time.Time // of them
	mark   uint64    // the tick of the first
	due    time.Time // it is not tried again before
	after  bool      // it refers to a row that an earlier message may bring: due as soon as no lane has an earlier message to write
}

// Pauses of messages in back.
const (
	firstHold = 50 * time.Millisecond // after a message failed alone for the first time; doubles with each time
	mostHold  = 2 * time.Second
	mostPace  = time.Second      // between batches of a lane that can write nothing
	mostAfter = 10 * time.Second // a message waits for earlier ones to be written
)

// pauseOf is how long a message waits after it has failed alone so many times.
func pauseOf(fails int) time.Duration {
	return min(mostHold, firstHold<<min(fails-1, 10))
}

// backlog is the messages of one lane that could not be written yet, in order of delivery. The lane's goroutine owns it.
type backlog struct {
	list   []*entry
	chains map[uint64]int // how many of the list are of each chain
	dueAt  time.Time      // when the next is due; zero: only messages of after are there
	nextAt time.Time      // no attempt before
	pause  time.Duration
	after  int    // messages of after
	seen   uint64 // the session's version when after was looked at
}

func (b *backlog) empty() bool { return len(b.list) == 0 }

// has tells whether a message of this chain is here.
func (b *backlog) has(chain uint64) bool { return chain != 0 && b.chains[chain] > 0 }

func (b *backlog) add(list []*entry) {
	for _, e := range list {
		if e.chain != 0 {
			b.chains[e.chain]++
		}
	}
	b.list = append(b.list, list...)
}

// remove takes out what is settled.
func (b *backlog) remove(settled map[*entry]bool) {
	b.list = slices.DeleteFunc(b.list, func(e *entry) bool {
		if !settled[e] {
			return false
		}
		if e.chain != 0 {
			if b.chains[e.chain]--; b.chains[e.chain] == 0 {
				delete(b.chains, e.chain)
			}
		}
		return true
	})
}

// refresh works out when the next message is due, after an attempt. fruitful tells whether the attempt settled a message.
func (b *backlog) refresh(now time.Time, fruitful bool) {
	b.dueAt, b.after, b.seen = time.Time{}, 0, 0
	waits := map[uint64]bool{}
	for _, e := range b.list {
		if e.chain != 0 && waits[e.chain] {
			continue // behind an earlier one
		}
		waits[e.chain] = true
		if e.hold.after {
			b.after++
		}
		if b.dueAt.IsZero() || e.hold.due.Before(b.dueAt) {
			b.dueAt = e.hold.due
		}
	}
	b.pause = min(mostPace, max(firstHold, 2*b.pause))
	if fruitful {
		b.pause = 0
	}
	b.nextAt = now.Add(b.pause)
}

// next tells whether a message is due, or else how long until one is; 0 is never.
func (b *backlog) next(l *lane, now time.Time) (due bool, after time.Duration) {
	if b.empty() {
		return false, 0
	}
	if v := l.s.version.Load(); b.after > 0 && b.seen != v {
		b.seen = v
		first := l.s.earliest(l)
		for _, e := range b.list {
			if e.hold.after && e.seq < first {
				return true, 0
			}
		}
	}
	at := b.dueAt
	if at.Before(b.nextAt) {
		at = b.nextAt
	}
	if wait := at.Sub(now); wait > 0 {
		return false, wait
	}
	return true, 0
}

// take appends up to most messages that are due to batch; they stay in the backlog. Those that never failed alone come first, so that no
// number of bad ones keeps them from being tried. A message whose chain has an earlier one that is not taken is not taken either.
func (b *backlog) take(l *lane, now time.Time, batch []*entry, most int) []*entry {
	first := uint64(0)
	if b.after > 0 {
		first = l.s.earliest(l)
	}
	due := func(e *entry) bool { return !e.hold.due.After(now) || e.hold.after && e.seq < first }
	taken := map[*entry]bool{}
	size := 0
	for _, failedToo := range []bool{false, true} {
		passed := map[uint64]bool{}
		for _, e := range b.list {
			switch {
			case taken[e]:
			case len(batch) == most || size > 0 && size+e.size > maxBatchBytes:
				return batch
			case e.chain != 0 && passed[e.chain]:
			case !due(e), e.hold.fails > 0 && !failedToo:
				passed[e.chain] = true
			default:
				taken[e] = true
				batch = append(batch, e)
				size += e.size
			}
		}
	}
	return batch
}
