package queue

import (
	"maps"
	"math"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/adapt"
	"github.com/surgetank/surgetank/internal/breaker"
)

// timerAt requests a look at the queue at a time.
func (q *Queue) timerAt(at int64) {
	if q.raw() || q.frozen || q.timer != 0 && q.timer <= at {
		return
	}
	q.timer = at
	q.m.timers.push(timed{at, q.id})
	if m := q.m; len(m.timers) > 4*len(m.byID)+1024 { // most entries are stale, because each queue needs one entry
		seen := make(map[uint64]bool, len(m.byID))
		m.timers.keep(func(x timed) bool {
			q := m.byID[x.key]
			if q == nil || q.timer != x.at || seen[x.key] {
				return false
			}
			seen[x.key] = true
			return true
		})
	}
}

// NextDeadline returns when the machine has something to do by itself, in nanoseconds since 1970.
// It returns MaxInt64 if there is nothing.
func (m *Machine) NextDeadline() int64 {
	if m.closed {
		return math.MaxInt64
	}
	if len(m.dirty) > 0 {
		return m.now
	}
	for len(m.timers) > 0 {
		t := m.timers[0]
		if q := m.byID[t.key]; q != nil && q.timer == t.at {
			return t.at
		}
		m.timers.pop()
	}
	return math.MaxInt64
}

// advance handles due timers. It stops when the turn is full; the rest stays due.
func (m *Machine) advance() {
	for !m.turnFull() {
		t, ok := m.timers.due(m.now)
		if !ok {
			return
		}
		q := m.byID[t.key]
		if q == nil || q.timer != t.at {
			continue
		}
		q.timer = 0
		q.advance()
		q.rearm()
	}
}

// turnFull tells whether the rest of the turn's work must wait for the next turn.
func (m *Machine) turnFull() bool { return len(m.out.Entry) >= m.limits.TurnBytes || m.budget <= 0 }

// rearm sets the queue's timer to the earliest event it waits for.
func (q *Queue) rearm() {
	at := int64(math.MaxInt64)
	for _, h := range []timeHeap{q.deadlines, q.delayed, q.wake, q.ttl} {
		if len(h) > 0 {
			at = min(at, h[0].at)
		}
	}
	if len(q.retries) > 0 {
		at = min(at, q.firstRetryAt())
	}
	if end := q.pauseEnds(); end != 0 {
		at = min(at, end)
	}
	if c := q.control; c != nil && c.queues[0] == q && c.next() != 0 {
		at = min(at, max(c.next(), q.m.now+1))
	}
	if at < math.MaxInt64 {
		q.timerAt(at)
	}
}

// advance ends a pause, wakes groups, ends leases, wakes messages, and expires messages, in this
// order.
func (q *Queue) advance() {
	m := q.m
	if q.frozen {
		return
	}
	q.endPause()
	if c := q.control; c != nil && c.queues[0] == q {
		c.tick()
	}
	q.wakeFlows()
	for !m.turnFull() {
		x, ok := q.deadlines.due(m.now)
		if !ok {
			break
		}
		m.budget--
		if l, ok := q.leases[x.key]; ok && l.deadline == x.at {
			q.stats.leasesLost++
			m.notice(LeaseLost, q, "", "")
			m.giveUp(q, x.key, -1, true, causeLease, leaseEnd{outcome: breaker.Timeout})
		} else if d := q.held[x.key]; d != nil && d.retry == x.at {
			q.retryHeld(x.key)
		}
	}
	for !m.turnFull() {
		x, ok := q.delayed.due(m.now)
		if !ok {
			break
		}
		m.budget--
		if s := q.slots.get(x.key); s != nil && s.state() == slotDelayed {
			q.undelay(x.key)
		}
	}
	q.endBackOffs()
	for !m.turnFull() {
		x, ok := q.ttl.due(m.now)
		if !ok {
			break
		}
		m.budget--
		switch s := q.slots.get(x.key); {
		case s == nil || !s.live():
		case s.state() == slotLost: // the message stays until the operator drops it
		case s.state() == slotLeased, s.state() == slotHeld:
			q.lapse(x.key, x.at) // the message is given up when it is returned
		case s.marked(slotExpired) && q.overdueAt[x.key] != x.at: // a newer entry replaced this one
		default:
			if !m.expired(q, x.key) {
				q.overdue(x.key, x.at)
			}
		}
	}
	q.mark()
}

// wakeFlows looks at the groups that wait for a time. It runs before messages return to their lines,
// because a fresh message at the front of a line would keep the older messages behind it from
// moving to the backlog line (ageLine).
func (q *Queue) wakeFlows() {
	m := q.m
	for !m.turnFull() {
		x, ok := q.wake.due(m.now)
		if !ok {
			break
		}
		m.budget--
		if h := uint32(x.key); int(h) < len(q.flows) && !q.flows[h].free {
			if f := &q.flows[h]; f.wakeAt == x.at {
				f.wakeAt = 0 // so that the flow can ask for the same time again, for the next turn
			}
			q.touch(h)
			q.idle(h)
		}
	}
}

// dispatch hands out messages until none can be delivered or the turn is full. It returns false if
// the turn is full.
func (q *Queue) dispatch() bool {
	m := q.m
	if q.sched != nil {
		q.moveChanged()
	}
	for q.anyReady() {
		if len(m.out.Handouts) >= m.limits.TurnHandout || len(m.out.Entry) >= m.handBytes {
			return false
		}
		if v := q.queueVerdict(); v != mayGo {
			if v == levelRate && q.nextConsumer() != nil {
				q.wakeQueue(rateDue(q.tat, q.config.Level.Rate, q.config.Level.Burst))
			}
			if v == levelAdaptive {
				q.gate()
			}
			break
		}
		if q.control != nil && len(q.control.gated) > 0 {
			if o := q.control.gatedFirst(q); o != q {
				o.serve(o.nextConsumer())
				o.mark()
				continue
			}
		}
		c := q.nextConsumer()
		if c == nil {
			break
		}
		if c.pool != nil && c.pool.limit > 0 {
			if c = c.pool.next(c); c.q != q {
				c.q.mark() // the other queue can now have to wait for its rate, or have room again
			}
		}
		c.q.serve(c)
		if c.q.budget.enough {
			c.q.endBackOffs()
			c.q.rearm()
		}
		if q.sched != nil {
			q.moveChanged()
		}
	}
	if q.control != nil {
		q.control.wakeGated()
	}
	return q.sched == nil || q.dropEmpty()
}

// serve hands the next message to a consumer that is first in line.
func (q *Queue) serve(c *consumer) {
	h := q.next()
	if q.control != nil && q.control.wantsProbe() {
		h = q.control.pick(q, h)
	}
	if q.holdSuspects(h) {
		return
	}
	q.handOut(c, h)
	q.idle(h)
	q.rotate(c)
	if p := c.pool; p != nil && p.limit > 0 {
		p.served(c)
	}
}

// wakeQueue requests a dispatch of the queue at a time. The key of its entry in wake is no flow.
func (q *Queue) wakeQueue(at int64) {
	if q.wakeAt != at {
		q.wakeAt = at
		q.wake.push(timed{at, math.MaxUint32})
		q.timerAt(at)
	}
}

// reconfigured updates the indexes after a change of settings. A change of weights affects only the
// groups that are named in it.
func (q *Queue) reconfigured(was *surgetank.QueueConfig) {
	now := &q.config
	if !maps.Equal(now.Group.Weights, was.Group.Weights) {
		q.reweigh(was.Group.Weights, now.Group.Weights)
	}
	switch shares := now.Level.FreshShare > 0; {
	case now.Group.Fair != was.Group.Fair, shares != (was.Level.FreshShare > 0), now.PriorityStep != was.PriorityStep && !now.Group.Fair:
		q.reorder()
	case now.Group.MaxInFlight != was.Group.MaxInFlight || now.Group.Rate != was.Group.Rate:
		q.touchAll()
	case shares && now.Level.FreshAge != was.Level.FreshAge:
		for p := range 256 {
			if h, live := q.byGroup[flowKey("", uint8(p))]; live {
				q.touch(h)
			}
		}
	}
	if was.Paused && !now.Paused {
		q.resumed++
	}
	q.recontrol()
	if c := q.control; c != nil && c.limit != nil && was.Paused && !now.Paused {
		c.limit.Reset(q.m.now, adapt.Resumed)
		c.arm()
	}
	q.mark()
	q.rearm() // a pause has an end, or retries need not wait for a budget any more
}

// touchAll looks at every group again. Call it after a change of the groups' limits.
func (q *Queue) touchAll() {
	q.mark()
	for h := range q.flows {
		if !q.flows[h].free {
			q.touch(uint32(h))
			q.idle(uint32(h)) // after reorder, an empty group is in no ring any more
		}
	}
}
