package queue

import (
	"github.com/surgetank/surgetank"
)

// Groups of a fair queue take turns by deficit round robin (Shreedhar and Varghese, "Efficient Fair
// Queueing using Deficit Round Robin", SIGCOMM 1995), with the two lists of FQ-CoDel (RFC 8290,
// section 4.2). The cost of a message is 1.
//
//	becomes ready ──▶ new ──▶ old ◀─┐        blocked: leaves its ring at once; returns to the tail of old
//	                           └────┘        empty: keeps its position; when it is first in new, it moves
//	                        turn is over            to the tail of old; when it is first in old, it is forgotten
//
// A group's turn has as many hand-outs as its weight. A group that is new to the level is served
// before groups that had a turn, so a quiet group does not wait for a round. An empty group stays
// for a round. Otherwise a group that sends one message at a time would be new each time.
//
// RFC 8290 serves old only if new is empty. Here publishers can name new groups without end, so the
// rule of RFC 8290 could starve old. After newRun hand-outs in a row from new, one hand-out is from
// old.

// newRun is how many hand-outs in a row new may have while old waits.
const newRun = 8

// level contains the two rings of one priority on one side (see side).
type level struct {
	new, old ring
	live     int // how many flows of the two rings can deliver
	run      int // hand-outs from new since the last one from old
}

// ring is a circular list of flows. The links are flow.place (the one before) and flow.after.
type ring struct {
	head uint32
	n    int
}

// push adds a flow at the tail.
func (r *ring) push(flows []flow, h uint32) {
	f := &flows[h]
	if r.n++; r.n == 1 {
		r.head, f.place, f.after = h, int32(h), h
		return
	}
	head := &flows[r.head]
	tail := uint32(head.place)
	f.place, f.after = int32(tail), r.head
	flows[tail].after, head.place = h, int32(h)
}

// remove removes a flow from the ring.
func (r *ring) remove(flows []flow, h uint32) {
	f := &flows[h]
	before, after := uint32(f.place), f.after
	f.place, f.after = -1, 0
	if r.n--; r.n == 0 {
		r.head = 0
		return
	}
	flows[before].after, flows[after].place = after, int32(before)
	if r.head == h {
		r.head = after
	}
}

// weight returns the number of hand-outs in a flow's turn.
func (q *Queue) weight(f *flow) uint16 {
	switch {
	case f.weight > 0:
		return f.weight
	}
	return max(1, q.others)
}

// reweigh stores changed weights in the flows that they name.
func (q *Queue) reweigh(was, now map[string]int) {
	q.others = uint16(now[surgetank.OtherGroups])
	for name := range was { // unordered: each flow is changed once
		if h, live := q.byGroup[name]; live && now[name] == 0 {
			q.flows[h].weight = 0
		}
	}
	for name, n := range now { // unordered: each flow is changed once
		if h, live := q.byGroup[name]; live && name != "" {
			q.flows[h].weight = uint16(n)
		}
	}
}

// turnTaken accounts for a hand-out in a queue with a sched.
func (q *Queue) turnTaken(h uint32) {
	f := &q.flows[h]
	if !q.sched.fair || f.place < 0 {
		return
	}
	weight := q.weight(f)
	f.deficit = min(f.deficit, weight) - 1 // the weight may have become smaller
	if f.deficit > 0 {
		return
	}
	f.deficit = weight
	q.toOld(h)
}

// toOld moves a flow to the tail of the old ring of its level.
func (q *Queue) toOld(h uint32) {
	f := &q.flows[h]
	l := &q.sched.sides[f.side()].levels[f.priority]
	if f.flags&flowOld != 0 {
		l.old.remove(q.flows, h)
	} else {
		l.new.remove(q.flows, h)
		f.flags |= flowOld
	}
	l.old.push(q.flows, h)
}

// forgetTurn removes an empty flow from its ring, and frees the flow if it has no other state.
func (q *Queue) forgetTurn(h uint32) {
	q.leave(h)
	q.flows[h].flags &^= flowSeen
	q.flows[h].deficit = 0
	q.idle(h)
}

// skipEmpty ends the turn of the empty flows at the head of each ring: a flow in new moves to old,
// and a flow in old leaves its ring. At least one flow of the level must be able to deliver.
func (q *Queue) skipEmpty(l *level) {
	for l.new.n > 0 && q.flows[l.new.head].open == 0 {
		q.toOld(l.new.head)
	}
	for l.old.n > 0 && q.flows[l.old.head].open == 0 {
		q.forgetTurn(l.old.head)
	}
}

// head returns the flow whose turn it is in a level. Call skipEmpty before head.
func (l *level) head() uint32 {
	if l.fromNew() {
		return l.new.head
	}
	return l.old.head
}

func (l *level) fromNew() bool { return l.new.n > 0 && (l.old.n == 0 || l.run < newRun) }

// serve returns the head, and counts the hand-out.
func (l *level) serve() uint32 {
	h := l.head()
	if l.fromNew() && l.old.n > 0 {
		l.run++
	} else {
		l.run = 0
	}
	return h
}
