package queue

import (
	"fmt"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/breaker"
)

// A message is damaged if its body cannot be read. The machine never reads bodies, so the broker
// reports damage with a Quarantine command.
//
//	found when                         | state     | its group                           | ends by
//	-----------------------------------+-----------+-------------------------------------+--------------------------------
//	it was handed out, or reached the  | slotHeld  | it counts as in flight: in a strict | drop, purge; a restart or, after
//	front of its line while suspect    |           | group, later messages wait          | an I/O error, a retry
//	it is further back in its line     | (suspect) | earlier messages are delivered      | reaching the front
//	repair lost its body               | slotLost  | is delivered: the operator chose    | drop, purge
//	                                   |           | to repair                           |
//
// Held and suspect are volatile states: after a restart the body is read again. Lost is a durable
// state without a record of its own: a snapshot that repair wrote contains it. A lost message is
// removed by a removed, purged or queue-gone record, as any message is.

// damage describes why a message cannot be read.
type damage struct {
	what  string
	retry int64 // when to read the body again; 0: never
}

// Quarantine reports that a message's body cannot be read. The message is held: at once if it is
// leased or at the front of its line, otherwise when it reaches the front.
type Quarantine struct {
	ID    surgetank.MessageID
	Lease uint64        // the lease under which the message was handed out; 0: none
	NoAck bool          // the message was handed out without ack, so the damage is only counted
	What  string        // the reason, for users
	Retry time.Duration // when to read the message again; 0: never

	Done bool  // the message is held or suspect now
	At   int64 // the time of the turn; earlier hand-outs of the message's group did not know of the damage
}

func (c *Quarantine) run(m *Machine) bool {
	c.At = m.now
	q := m.byID[c.ID.Queue]
	if q == nil {
		return true
	}
	seq := c.ID.Seq
	if c.NoAck {
		q.stats.dropped++
		return true
	}
	d := &damage{what: c.What}
	if c.Retry > 0 {
		d.retry = m.now + int64(c.Retry)
	}
	s := q.slots.get(seq)
	switch {
	case s == nil || !s.live():
		return true
	case s.state() == slotLeased:
		if c.Lease == 0 || q.leases[seq].no != c.Lease {
			return true // the message has a new lease, whose consumer will report the damage
		}
		q.endLease(seq, leaseEnd{outcome: breaker.Returned})
		s = q.slots.edit(seq)
		s.to(slotHeld)
		q.leased--
		q.hold(seq, s, d)
	case s.state() == slotWaiting && q.frontOf(s.flow) == seq:
		q.holdFront(s.flow, seq, d)
	case s.state() == slotWaiting || s.state() == slotDelayed || s.state() == slotBehind:
		if q.suspect == nil {
			q.suspect = map[uint64]*damage{}
		}
		q.suspect[seq] = d
	default:
		return true
	}
	c.Done = true
	return true
}

// holdFront removes the front message from its line and holds it.
func (q *Queue) holdFront(h uint32, seq uint64, d *damage) {
	s := q.slots.edit(seq)
	q.takeFront(h, seq, s)
	if q.backsOff(seq) {
		q.countBacking(h, -1) // the time stays in backing, because a snapshot contains it
	}
	s.to(slotHeld)
	q.waiting--
	q.leasedBytes += int64(s.size)
	q.flows[h].inflight++
	q.hold(seq, s, d)
}

// hold records that a message is held. The message is in no line and counts as in flight in its
// group.
func (q *Queue) hold(seq uint64, s *slot, d *damage) {
	if q.held == nil {
		q.held = map[uint64]*damage{}
	}
	delete(q.suspect, seq)
	q.held[seq] = d
	q.damagedN++
	q.flows[s.flow].holder = 0 // no consumer may continue its run past this message
	q.touch(s.flow)
	q.mark()
	if d.retry > 0 {
		q.deadline(d.retry, seq)
	}
}

// holdSuspects holds the front message of a line if the message is suspect. It returns true in this
// case: another message is in front now.
func (q *Queue) holdSuspects(h uint32) bool {
	if len(q.suspect) == 0 {
		return false
	}
	seq := q.frontOf(h)
	d := q.suspect[seq]
	if d == nil {
		return false
	}
	if d.retry > 0 && d.retry <= q.m.now {
		delete(q.suspect, seq) // the time to read the message again has come before the message's turn
		return false
	}
	q.holdFront(h, seq, d)
	return true
}

// retryHeld returns a held message to its old position in its line, so that it is read again.
func (q *Queue) retryHeld(seq uint64) {
	s := q.slots.edit(seq)
	h := s.flow
	q.unhold(seq, s)
	q.waiting++
	q.giveBack(h, seq, s)
	if q.backsOff(seq) { // firstRetry can have dropped the message's entry meanwhile
		q.countBacking(h, 1)
		q.retryAt(q.backing[seq], seq)
	}
	q.touch(h)
	q.idle(h) // the message can have moved to another line (fresh.go)
	q.mark()
	if s.marked(slotExpired) {
		s.unmark(slotExpired)
		at := q.lapsed[seq]
		q.unlapse(seq)
		q.expires(at, seq)
	}
}

// unhold removes the record that a message is held. The caller sets the message's next state.
func (q *Queue) unhold(seq uint64, s *slot) {
	delete(q.held, seq)
	q.damagedN--
	q.leasedBytes -= int64(s.size)
	q.flows[s.flow].inflight--
}

// damageOf describes why a message cannot be read. It returns "" if no damage is known.
func (q *Queue) damageOf(seq uint64, s *slot) string {
	switch {
	case s.state() == slotLost:
		return fmt.Sprintf("its body was in entry %d of the log, which was damaged, and repair could not read it", s.ref().Entry())
	case s.state() == slotHeld:
		return q.held[seq].what
	case q.suspect[seq] != nil:
		return q.suspect[seq].what
	}
	return ""
}
