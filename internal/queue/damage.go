package queue

import (
	"fmt"
	"math"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/mutant"
)

// Damage: what the machine does about messages whose bodies cannot be read. It never sees bodies,
// so it is told.
//
//	found when                         | state     | its group                           | ends by
//	-----------------------------------+-----------+-------------------------------------+--------------------------------
//	it was handed out, or came to the  | slotHeld  | it counts as in flight: what is     | drop, purge; a restart or, where
//	front of its line while suspect    |           | behind it in a strict group waits   | the disk gave an error, some time
//	it stands further back in its line | (suspect) | goes on up to it                    | coming to the front
//	repair had lost its body           | slotLost  | goes on: repairing was the          | drop, purge
//	                                   |           | operator's choice                   |
//
// Holding and suspicion are volatile: after a restart the body is tried again. A lost body is
// durable state, but no record says it: it comes from a snapshot that repair wrote, and goes with a
// removed, purged or queue-gone record like any message.

// damage is what is known of a message that cannot be read.
type damage struct {
	what  string
	retry int64 // when it is to be tried again; 0: not by itself
}

// Quarantine takes a message out of its line, or has it taken out when its turn comes, because its
// body cannot be read.
type Quarantine struct {
	ID    surgetank.MessageID
	Lease uint64        // under which it was handed out; 0: it was not
	NoAck bool          // it was settled as it was handed out: it is only counted
	What  string        // what is wrong, for people
	Retry time.Duration // when to try again; 0: never

	Done bool  // it is held or suspect now
	At   int64 // the time of the turn: what was handed out of its group before did not know
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
			return true // its new holder will find out
		}
		q.endLease(seq)
		s = q.slots.edit(seq)
		s.to(slotHeld)
		q.leased--
		q.hold(seq, s, d)
	case s.state() == slotWaiting && q.frontOf(s.flow) == seq:
		q.holdFront(s.flow, seq, d)
	case s.state() == slotWaiting || s.state() == slotDelayed:
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

// holdFront takes the front message of a line out of it.
func (q *Queue) holdFront(h uint32, seq uint64, d *damage) {
	s := q.slots.edit(seq)
	q.takeFront(h, seq, s)
	if q.backsOff(seq) {
		q.countBacking(h, -1) // until when stays on record: it is durable
	}
	s.to(slotHeld)
	q.waiting--
	q.leasedBytes += int64(s.size)
	q.flows[h].inflight++
	q.hold(seq, s, d)
}

// hold keeps a message that is in no line any more, and has a slot of its group.
func (q *Queue) hold(seq uint64, s *slot, d *damage) {
	if q.held == nil {
		q.held = map[uint64]*damage{}
	}
	delete(q.suspect, seq)
	q.held[seq] = d
	q.damagedN++
	if mutant.Is(mutant.HeldOvertaken) {
		q.flows[s.flow].inflight--
	}
	q.flows[s.flow].holder = 0 // nobody's run goes on behind it
	q.touch(s.flow)
	q.mark()
	if d.retry > 0 {
		q.deadline(d.retry, seq)
	}
}

// holdSuspects takes a suspect off the front of a line; true: it did, so another message is in
// front now.
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
		delete(q.suspect, seq) // the time to try again has come before its turn
		return false
	}
	q.holdFront(h, seq, d)
	return true
}

// retryHeld puts a held message back at its old place, to be read once more.
func (q *Queue) retryHeld(seq uint64) {
	s := q.slots.edit(seq)
	q.unhold(seq, s)
	q.waiting++
	q.giveBack(s.flow, seq, s)
	if q.backsOff(seq) { // firstRetry may have dropped its entry meanwhile
		q.countBacking(s.flow, 1)
		q.retryAt(q.backing[seq], seq)
	}
	q.touch(s.flow)
	q.mark()
	if s.has(slotExpired) {
		s.clear(slotExpired)
		at := q.lapsed[seq]
		q.unlapse(seq)
		q.expires(at, seq)
	}
}

// unhold forgets that a message is held; the caller gives it another state.
func (q *Queue) unhold(seq uint64, s *slot) {
	delete(q.held, seq)
	q.damagedN--
	q.leasedBytes -= int64(s.size)
	if !mutant.Is(mutant.HeldOvertaken) {
		q.flows[s.flow].inflight--
	}
}

// damageOf says what is wrong with a message; empty: nothing is known to be.
func (q *Queue) damageOf(seq uint64, s *slot) string {
	switch {
	case s.state() == slotLost:
		return fmt.Sprintf("it stood in entry %d of the log, which was damaged and which repair could not save", s.ref().Entry())
	case s.state() == slotHeld:
		return q.held[seq].what
	case q.suspect[seq] != nil:
		return q.suspect[seq].what
	}
	return ""
}

// explainDamage says in words what waits for the operator; empty when nothing is damaged.
func (q *Queue) explainDamage() string {
	if q.damagedN == 0 {
		return ""
	}
	text := "a damaged message waits for you to look at it (peek with state damaged) and to drop it (purge with damaged)"
	if q.damagedN > 1 {
		text = fmt.Sprintf("%d damaged messages wait for you to look at them (peek with state damaged) and to drop them (purge with damaged)", q.damagedN)
	}
	if len(q.held) > 0 {
		seq := uint64(math.MaxUint64)
		// unordered: the least is looked for
		for held := range q.held {
			seq = min(seq, held)
		}
		s := q.slots.get(seq)
		if group := q.groupName(s.flow); group != "" && q.config.Group.MaxInFlight > 0 {
			text += fmt.Sprintf("; group %q waits behind message %d", group, seq)
		}
		text += ": " + q.held[seq].what
	}
	return text
}
