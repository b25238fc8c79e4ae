package queue

import (
	"slices"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/door"
)

// A timeline tells two data directories with a common past apart: a directory and its copy, or a
// directory before and after a restore. Counters repeat after such an event. Incarnations are
// random and do not repeat:
//
//	openings   i1 from entry 1      i2 from entry 40     i3 from entry 95
//	           ├────────────────────┼────────────────────┼──────────────▶ entries
//	spans of   i1 from message 1    i3 from message 730  (i2 confirmed none in this queue)
//	a queue    ├─────────────────────────────────────────┼──────────────▶ messages
//
// A program that stored a position (incarnation, entry) elsewhere can ask whether this directory
// contains the position. The directory contains it if the incarnation is among the openings and the
// entry is not after that incarnation's last entry.

// timeline is the machine's durable record of openings, oldest first.
type timeline []door.Opening

// incarnation returns the present incarnation, or 0 before the first opening.
func (m *Machine) incarnation() uint64 {
	if n := len(m.openings); n > 0 {
		return m.openings[n-1].Incarnation
	}
	return 0
}

// Incarnation returns the incarnation of the present opening, or 0 if no broker ever opened the
// log.
func (m *Machine) Incarnation() uint64 { return m.incarnation() }

// Contains reports whether the log contains the opening with this incarnation.
func (m *Machine) Contains(incarnation uint64) bool {
	return slices.ContainsFunc(m.openings, func(o door.Opening) bool { return o.Incarnation == incarnation })
}

// open records an opening. It is a part of apply.
func (m *Machine) open(incarnation, entry uint64) {
	m.openings = append(m.openings, door.Opening{Incarnation: incarnation, First: entry})
	if n := len(m.openings) - door.MaxOpenings; n > 0 {
		m.openings = slices.Delete(m.openings, 0, n)
	}
	for _, q := range m.sorted() {
		q.span(incarnation)
	}
}

// span records that the queue's next messages are confirmed in this incarnation. It removes spans
// that can have no messages any more: an empty span, and spans below the floor.
func (q *Queue) span(incarnation uint64) {
	if n := len(q.spans); n > 0 && q.spans[n-1].First == q.nextSeq {
		q.spans = q.spans[:n-1]
	}
	q.spans = append(q.spans, door.Span{Incarnation: incarnation, First: q.nextSeq})
	floor, below := q.Floor(), 0
	for below+1 < len(q.spans) && q.spans[below+1].First <= floor {
		below++
	}
	q.spans = slices.Delete(q.spans, 0, below)
}

// incarnationOf returns the incarnation in which a message was confirmed. It returns 0 for messages
// from the time before directories had incarnations.
func (q *Queue) incarnationOf(seq uint64) uint64 {
	for i := len(q.spans) - 1; i >= 0; i-- {
		if q.spans[i].First <= seq {
			return q.spans[i].Incarnation
		}
	}
	return 0
}

// idOf returns a message's id.
func (q *Queue) idOf(seq uint64) surgetank.MessageID {
	return surgetank.MessageID{Queue: q.id, Seq: seq, Incarnation: uint32(q.incarnationOf(seq))}
}

// History reads a queue's position in the history of its directory. It also counts the messages in
// some ranges of numbers that are not settled. Send it again while Next is not 0.
type History struct {
	Name   string
	Ranges []door.NumberRange // ascending, not overlapping
	Next   uint64
	Found  door.History
	Err    error
}

func (c *History) run(m *Machine) bool {
	q := m.byName[c.Name]
	if q == nil || c.Next != 0 && q.id != c.Found.Queue {
		c.Err, c.Next = noQueue(c.Name), 0
		return true
	}
	if c.Next == 0 {
		c.Found = door.History{Queue: q.id, Floor: q.Floor(), Next: q.nextSeq, Entry: m.entry,
			Spans: slices.Clone(q.spans)}
		if m.out.Records == 0 {
			c.Found.Entry-- // the turn's entry is written only if it has records
		}
		c.Found.Openings, c.Found.Entry = q.history(c.Found.Entry)
		if len(c.Ranges) == 0 {
			return true
		}
		c.Next = max(c.Ranges[0].First, c.Found.Floor)
	}
	last := c.Ranges[len(c.Ranges)-1].Last
	next, n := q.slots.scan(c.Next, m.share(costPeek), func(seq uint64, s *slot) bool {
		if seq > last {
			return false
		}
		in := slices.ContainsFunc(c.Ranges, func(r door.NumberRange) bool { return r.First <= seq && seq <= r.Last })
		if in && s.live() {
			c.Found.Counted++
		}
		return true
	})
	m.spend(n, costPeek)
	if c.Next = next; next > last {
		c.Next = 0
	}
	return true
}
