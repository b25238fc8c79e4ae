package queue

import (
	"cmp"
	"math/bits"
	"slices"
)

// sched chooses the next group in a queue with group.fair or level.fresh_share. Other queues have
// no sched and use queue.ready alone. All state of a sched is volatile.
//
//	            group.fair: rings (ring.go)             otherwise: heaps (ready.go)
//	backlog     one pair of rings for each priority     one heap
//	fresh       one pair of rings for each priority     one heap
//
// Without level.fresh_share every group is in the backlog. Changes of groups are collected, and
// dispatch applies them to the rings and heaps together. So a group's position does not depend on
// the order of commands in a turn.
type sched struct {
	fair    bool
	sides   [2]side
	live    int      // how many flows can deliver
	linked  int      // how many flows are in a ring or heap
	changed []uint32 // flows whose position can have changed; they have flowChanged
	joins   []joining
	credit  int64 // credit of fresh messages, in millionths of a hand-out
}

const (
	backlog = 0
	fresh   = 1

	wholeShare = 1_000_000 // a credit of one hand-out
)

// side contains the groups of the backlog, or the groups with a fresh front message.
type side struct {
	heap   readyHeap // the groups of a queue without group.fair
	levels []level   // the groups of a queue with group.fair, by priority
	inUse  [4]uint64 // bit p: levels[p] has a group that can deliver
}

// joining is a flow that joins a ring or heap, with its front message.
type joining struct {
	front uint64
	h     uint32
}

// Flags of a flow. The ring flags mean something only while the flow is in a ring or heap.
const (
	flowChanged = 1 << iota // in sched.changed
	flowFresh               // the flow is on the fresh side
	flowOld                 // the flow is in the old ring
	flowSeen                // the flow was in the new ring, and is in the old ring from now on
)

// reorder builds the order of the groups anew, after a change of the settings that define it.
func (q *Queue) reorder() {
	q.ready, q.sched = nil, nil
	if c := &q.config; c.Group.Fair || c.Level.FreshShare > 0 {
		q.sched = &sched{fair: c.Group.Fair}
	}
	for h := range q.flows {
		f := &q.flows[h]
		f.place, f.flags, f.deficit = -1, 0, 0
		q.ready_ -= int64(f.open)
		f.open = 0
	}
	q.touchAll()
}

// anyReady tells whether the queue has a group that can deliver now.
func (q *Queue) anyReady() bool {
	if q.sched != nil {
		return q.sched.live > 0
	}
	return len(q.ready) > 0
}

// noteChange is the part of touch for queues with a sched. was tells whether the flow could deliver
// before the change.
func (q *Queue) noteChange(h uint32, was bool) {
	s, f := q.sched, &q.flows[h]
	can, linked := f.open > 0, f.place >= 0
	if can != was {
		n := 1
		if !can {
			n = -1
		}
		s.live += n
		if linked && s.fair {
			s.count(f, n)
		}
	}
	switch {
	case f.flags&flowChanged != 0:
	case linked && can && q.frontOf(h) == f.front,
		linked && s.fair && f.waiting == 0, // an empty flow keeps its position (see ring.go)
		!linked && !can && (f.flags&flowSeen == 0 || f.waiting > 0):
	default:
		f.flags |= flowChanged
		s.changed = append(s.changed, h)
	}
}

// count adds n to the number of flows in f's level that can deliver.
func (s *sched) count(f *flow, n int) {
	d := &s.sides[f.side()]
	l := &d.levels[f.priority]
	if l.live += n; l.live > 0 {
		d.inUse[f.priority/64] |= 1 << (f.priority % 64)
	} else {
		d.inUse[f.priority/64] &^= 1 << (f.priority % 64)
	}
}

// side returns the index in sched.sides of a flow in a ring or heap.
func (f *flow) side() int {
	if f.flags&flowFresh != 0 {
		return fresh
	}
	return backlog
}

// moveChanged moves the changed flows of a queue with a sched to their new positions. First the
// blocked flows leave. Then the flows that can deliver join, in the order of their front messages.
func (q *Queue) moveChanged() {
	s := q.sched
	if len(s.changed) == 0 {
		return
	}
	joins := s.joins[:0]
	for _, h := range s.changed {
		if int(h) >= len(q.flows) || q.flows[h].flags&flowChanged == 0 {
			continue // the flow was freed meanwhile
		}
		f := &q.flows[h]
		f.flags &^= flowChanged
		switch {
		case f.open > 0:
			front := q.frontOf(h)
			if f.place >= 0 {
				if front == f.front {
					continue
				}
				if slot := q.slots.get(front); q.isFresh(slot) == (f.side() == fresh) {
					if !s.fair {
						f.front, f.priority, f.after = front, slot.priority, slot.time
						s.sides[f.side()].heap.fix(q, int(f.place))
						continue
					}
					if slot.priority == f.priority {
						f.front = front
						continue
					}
				}
				q.leave(h)
			}
			joins = append(joins, joining{front, h})
		case f.waiting == 0 && f.place < 0:
			f.flags &^= flowSeen
		case f.place >= 0 && (f.waiting > 0 || !s.fair):
			q.leave(h)
			q.idle(h)
		}
	}
	s.changed = s.changed[:0]
	slices.SortFunc(joins, func(a, b joining) int { return cmp.Compare(a.front, b.front) })
	for _, j := range joins {
		q.join(j.h, j.front)
	}
	if s.joins = joins[:0]; cap(joins) > keptJoins {
		s.joins, s.changed = nil, nil
	}
}

// keptJoins is how many elements sched keeps for the next turn.
const keptJoins = 1 << 14

// join puts a flow that can deliver into the heap or ring of its front message.
func (q *Queue) join(h uint32, front uint64) {
	s, f := q.sched, &q.flows[h]
	slot := q.slots.get(front)
	f.front, f.priority = front, slot.priority
	if f.flags &^= flowFresh | flowOld; q.isFresh(slot) {
		f.flags |= flowFresh
	}
	s.linked++
	d := &s.sides[f.side()]
	if !s.fair {
		f.after = slot.time
		d.heap.push(q, h)
		return
	}
	for int(f.priority) >= len(d.levels) {
		d.levels = append(d.levels, level{})
	}
	l := &d.levels[f.priority]
	if f.deficit == 0 {
		f.deficit = q.weight(f)
	}
	if f.flags&flowSeen != 0 {
		f.flags |= flowOld
		l.old.push(q.flows, h)
	} else {
		f.flags |= flowSeen
		l.new.push(q.flows, h)
	}
	s.count(f, 1)
}

// leave removes a flow from its heap or ring. The flow keeps its deficit.
func (q *Queue) leave(h uint32) {
	s, f := q.sched, &q.flows[h]
	s.linked--
	d := &s.sides[f.side()]
	if !s.fair {
		d.heap.remove(q, int(f.place))
		return
	}
	if f.open > 0 {
		s.count(f, -1)
	}
	l := &d.levels[f.priority]
	if f.flags&flowOld != 0 {
		l.old.remove(q.flows, h)
	} else {
		l.new.remove(q.flows, h)
	}
}

// next returns the flow whose turn it is. At least one flow must be able to deliver.
//
//	level.fresh_share | priority_step | the choice
//	------------------+---------------+------------------------------------------------------------
//	off               | off           | the highest priority
//	off               | on            | the smallest confirm time − priority × step
//	on                | off           | the highest priority; in it, fresh messages with a credit,
//	                  |               | otherwise the backlog
//	on                | on            | the smallest confirm time − priority × step, with a credit
//	                  |               | among fresh messages, otherwise among all
//
// The credit grows by the share with each hand-out. If no fresh message can use the credit, the
// credit does not grow above one hand-out, and the backlog uses the turn.
func (q *Queue) next() uint32 {
	if q.sched == nil {
		return q.ready[0]
	}
	q.moveChanged() // needed here because another queue's dispatch can call next, for the members of a pool
	s := q.sched
	if q.config.Level.FreshShare > 0 {
		q.retireStale()
		s.credit += int64(q.config.Level.FreshShare * wholeShare)
	}
	a, b := q.best(backlog), q.best(fresh)
	side := backlog
	switch {
	case !b.ok:
	case !a.ok:
		side = fresh
	case q.config.PriorityStep == 0 && a.priority != b.priority:
		if b.priority > a.priority {
			side = fresh
		}
	case s.credit >= wholeShare:
		side = fresh
		s.credit -= wholeShare
	case q.config.PriorityStep > 0 && (b.key < a.key || b.key == a.key && b.priority > a.priority):
		side = fresh
	}
	s.credit = min(s.credit, wholeShare)
	if side == fresh {
		a = b
	}
	if !s.fair {
		return s.sides[side].heap[0]
	}
	return s.sides[side].levels[a.priority].serve()
}

// candidate is the best level or flow of a side. key is set only with priority_step.
type candidate struct {
	ok       bool
	priority uint8
	key      int64
}

// best returns the level (with group.fair) or the flow (without) that is served first on a side.
func (q *Queue) best(side int) (c candidate) {
	d := &q.sched.sides[side]
	if !q.sched.fair {
		if len(d.heap) == 0 {
			return c
		}
		f := &q.flows[d.heap[0]]
		return candidate{true, f.priority, q.agedKey(f.after, f.priority)}
	}
	aged := q.config.PriorityStep > 0
	for p := range d.descending {
		l := &d.levels[p]
		q.skipEmpty(l)
		if !aged {
			return candidate{true, p, 0}
		}
		if key := q.agedKey(q.slots.get(q.flows[l.head()].front).time, p); !c.ok || key < c.key {
			c = candidate{true, p, key}
		}
	}
	return c
}

// descending yields the priorities that have a flow that can deliver, highest first.
func (d *side) descending(yield func(uint8) bool) {
	for w := len(d.inUse) - 1; w >= 0; w-- {
		for x := d.inUse[w]; x != 0; {
			b := 63 - bits.LeadingZeros64(x)
			x &^= 1 << b
			if !yield(uint8(w*64 + b)) {
				return
			}
		}
	}
}

// agedKey returns the confirm time of a message, in the form of slot.time, less the steps of its
// priority. All messages age alike, so the order of two keys never changes.
func (q *Queue) agedKey(time uint32, priority uint8) int64 {
	step := int64(q.config.PriorityStep)
	if step == 0 {
		return 0
	}
	return int64(time)*1e9 - int64(priority)*step
}

// dropEmpty removes the empty flows of all rings. Call it when no flow can deliver, because then
// the order of empty flows has no effect. It returns false if some are left for the next turn.
func (q *Queue) dropEmpty() bool {
	s := q.sched
	if s.live > 0 || s.linked == 0 {
		return true
	}
	n := 0
	for i := range s.sides {
		for p := range s.sides[i].levels {
			l := &s.sides[i].levels[p]
			for _, r := range []*ring{&l.new, &l.old} {
				for r.n > 0 {
					if n++; n > sweepEmpty {
						return false
					}
					q.forgetTurn(r.head)
				}
			}
		}
	}
	return true
}

// sweepEmpty is how many empty flows one turn removes.
const sweepEmpty = 4096
