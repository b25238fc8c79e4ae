package sink

import (
	"cmp"
	"slices"
	"time"
)

// hold is the record of a message that could not be written and was not parked. The lane owns it.
type hold struct {
	class  Class
	reason string
	fails  int       // attempts in which the message failed alone, with errors of this class
	first  time.Time // time of the first of these attempts
	mark   uint64    // the tick of the newest attempt
	// Evidence that the message itself is at fault. company: the message failed in a transaction
	// that wrote and committed another row after it. rounds counts failures after which other rows
	// were written before the message failed again.
	company bool
	rounds  int
	due     time.Time // not tried again before this time
	after   bool      // the row refers to a row that an earlier message may write; due when no lane has an earlier message to write
}

// Limits of the pauses of messages in the backlog.
const (
	firstHold = 50 * time.Millisecond // after the first failure alone; doubles with each failure
	mostHold  = 2 * time.Second
	mostPace  = time.Second      // between batches of a lane that can write nothing
	mostAfter = 10 * time.Second // the longest wait until earlier messages are written
)

// dueAt returns when the message is tried again. If a reference failed and rows were written since,
// the missing row may be among them, so the message does not wait for its whole pause. proof is
// session.proof.
func (h *hold) dueAt(proof uint64) time.Time {
	if h.class == Reference && h.fails > 1 && !h.after && proof >= h.mark {
		return h.due.Add(firstHold - pauseOf(h.fails))
	}
	return h.due
}

// pauseOf returns how long a message waits after it failed alone fails times.
func pauseOf(fails int) time.Duration {
	return min(mostHold, firstHold<<min(fails-1, 10))
}

// backlog contains the messages of one lane that could not be written yet, ordered by number. The
// lane's goroutine owns it.
type backlog struct {
	list       []*entry
	chains     map[uint64]int // number of messages in the list, by chain
	dueAt      time.Time      // when the next message is due; zero if every message in the list has after set
	nextAt     time.Time      // no attempt before this time
	pause      time.Duration
	after      int    // number of messages whose hold has after set
	references int    // number of messages whose reference failed
	seen       uint64 // the session's version when the messages with after set were last checked
	turn       bool   // whether a batch of one message prefers a failed message; each call of take flips it
}

func (b *backlog) empty() bool { return len(b.list) == 0 }

// has reports whether the backlog contains a message of this chain.
func (b *backlog) has(chain uint64) bool { return chain != 0 && b.chains[chain] > 0 }

func (b *backlog) add(list []*entry) {
	for _, e := range list {
		e.back = true
		if e.chain != 0 {
			b.chains[e.chain]++
		}
	}
	b.list = append(b.list, list...)
	// If a lease is lost while the message is being parked, the message is delivered again after
	// later ones.
	bySeq := func(a, b *entry) int { return cmp.Compare(a.seq, b.seq) }
	if !slices.IsSortedFunc(b.list, bySeq) {
		slices.SortFunc(b.list, bySeq)
	}
}

// remove deletes the entries whose back is false.
func (b *backlog) remove() {
	b.list = slices.DeleteFunc(b.list, func(e *entry) bool {
		if e.back {
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

// refresh computes after an attempt when the next message is due. fruitful reports whether the
// attempt committed or parked a message.
func (b *backlog) refresh(now time.Time, fruitful bool) {
	b.dueAt, b.after, b.references, b.seen = time.Time{}, 0, 0, 0
	waits := map[uint64]bool{}
	for _, e := range b.list {
		if e.chain != 0 && waits[e.chain] {
			continue // waits for an earlier message of its chain
		}
		waits[e.chain] = true
		if e.hold.after {
			b.after++
		}
		if e.hold.class == Reference && !e.hold.after {
			b.references++
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

// next reports whether a message is due. If not, after is the time until a message is due; 0 means
// never.
func (b *backlog) next(l *lane, now time.Time) (due bool, after time.Duration) {
	if b.empty() {
		return false, 0
	}
	if v := l.s.version.Load(); b.after+b.references > 0 && b.seen != v {
		b.seen = v
		if b.references > 0 {
			proof, waits := l.s.proof.Load(), map[uint64]bool{}
			for _, e := range b.list {
				if e.chain != 0 && waits[e.chain] {
					continue // waits for an earlier message of its chain
				}
				waits[e.chain] = true
				if at := e.hold.dueAt(proof); at.Before(b.dueAt) {
					b.dueAt, b.nextAt = at, now
				}
			}
		}
		first := l.s.earliest(l)
		passed := map[uint64]bool{}
		for _, e := range b.list {
			switch {
			case e.chain != 0 && passed[e.chain]:
			case e.hold.after && e.seq < first:
				return true, 0
			case e.chain != 0:
				passed[e.chain] = true
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

// front is the largest number of messages that failed alone and come first in a batch. It is
// smaller than hopeless, so the other messages of the batch are always tried.
const front = hopeless / 2

// take appends at most most due messages to batch. They stay in the backlog. If an earlier message
// of a chain is left out, the later messages are left out, too. Some messages that failed alone
// come first: rows written after them in the same transaction are evidence. company says that new
// messages follow in the batch. In this case messages without evidence are appended before they are
// due.
func (b *backlog) take(l *lane, now time.Time, batch []*entry, most int, company bool) []*entry {
	first, proof := uint64(0), l.s.proof.Load()
	if b.after > 0 {
		first = l.s.earliest(l)
	}
	due := func(e *entry) bool {
		h := e.hold
		return !h.dueAt(proof).After(now) || h.after && e.seq < first || company && h.class == Suspect && h.fails > 0 && !h.company
	}
	taken := map[*entry]bool{}
	size := 0
	full := func(e *entry, most int) bool { return len(batch) >= most || size > 0 && size+e.size > maxBatchBytes }
	put := func(e *entry) {
		taken[e] = true
		batch = append(batch, e)
		size += e.size
	}
	failed := func(most int) {
		var list []*entry
		seen := map[uint64]bool{}
		for _, e := range b.list {
			if e.hold.fails > 0 && due(e) && !taken[e] && !seen[e.chain] {
				list = append(list, e)
			}
			seen[e.chain] = e.chain != 0
		}
		slices.SortStableFunc(list, func(a, b *entry) int {
			if a.hold.class == Reference && b.hold.class == Reference {
				return cmp.Compare(a.seq, b.seq) // a later message may refer to the row of an earlier message
			}
			return a.hold.due.Compare(b.hold.due)
		})
		for _, e := range list {
			if full(e, most) {
				return
			}
			put(e)
		}
	}
	b.turn = !b.turn
	if most > 1 || b.turn {
		failed(min(front, (most+1)/2))
	}
	passed := map[uint64]bool{}
	for _, e := range b.list {
		switch {
		case taken[e]:
		case full(e, most):
			return batch
		case e.chain != 0 && passed[e.chain]:
		case e.hold.fails > 0 || !due(e):
			passed[e.chain] = true
		default:
			put(e)
		}
	}
	if !company {
		failed(most)
	}
	return batch
}
