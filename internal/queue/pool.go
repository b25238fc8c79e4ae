package queue

import (
	"math"
	"slices"
)

// pool is a limit on messages in flight that consumers of one or more queues share: its members.
// With a limit, the members are served in turn: among the members that their queues could serve
// now, the one that was served longest ago is next.
type pool struct {
	limit   int // 0: none
	held    int
	members list[consumer] // with a limit in the order of their turns, otherwise in the order of joining
	seats   list[seat]     // the seats of the members, one for each queue
	seatOf  map[*Queue]*seat
	parked  list[seat] // seats out of line because the pool was full; in any order

	id      uint64
	watched bool      // the pool's state is reported, see PoolState
	told    PoolState // the newest report
}

// PoolClosed as the limit of a pool means that no message may be leased to its members.
const PoolClosed = math.MinInt

// PoolState is the state of a pool whose limit is a part of a limit over several shards.
type PoolState struct {
	Pool  uint64
	Limit int
	Held  int  // messages that are leased to the members
	Waits bool // a member would get a message now if the pool had room
}

// waits tells whether a member waits for nothing but room in the pool.
func (p *pool) waits() bool {
	if !p.full() {
		return false
	}
	for s := range p.seats.all {
		if q := s.q; !q.gone && q.anyReady() && q.queueVerdict() == mayGo &&
			slices.ContainsFunc(s.line.heap, func(x place) bool { return x.of.c.willing() && x.of.c.active() }) {
			return true
		}
	}
	return false
}

// reportPools reports the watched pools that changed in this turn.
func (m *Machine) reportPools() {
	m.watched = slices.DeleteFunc(m.watched, func(p *pool) bool {
		now := PoolState{p.id, p.limit, p.held, p.waits()}
		if now != p.told {
			p.told = now
			m.out.Pools = append(m.out.Pools, now)
		}
		return !p.watched || m.pools[p.id] != p
	})
}

// full tells whether as many messages are leased to the members as the limit allows.
func (p *pool) full() bool { return p.limit > 0 && p.held >= p.limit || p.limit == PoolClosed }

// seatIn returns the pool's seat in a queue. It creates the seat if there is none.
func (p *pool) seatIn(q *Queue) *seat {
	s := p.seatOf[q]
	if s == nil {
		s = newSeat(q, p)
		p.seatOf[q] = s
		p.seats.push(&s.inPool)
	}
	return s
}

// join makes a consumer a member.
func (p *pool) join(c *consumer) {
	c.pool, c.seat = p, p.seatIn(c.q)
	p.members.push(&c.inPool)
}

// leave ends a membership. The consumer must be out of line.
func (p *pool) leave(c *consumer) {
	p.members.remove(&c.inPool)
	if s := c.seat; s.members == 0 {
		p.seats.remove(&s.inPool)
		delete(p.seatOf, s.q)
	}
}

// next returns the member whose turn it is: the first member that its queue would serve now. c must
// be a member that its queue would serve now. If all members belong to one queue, the result is c,
// because a queue serves the first consumer in its line.
func (p *pool) next(c *consumer) *consumer {
	if p.seats.n == 1 {
		return c
	}
	for o := range p.members.all {
		if o == c || o.credit > 0 && o.queued() && o.q.wouldServe(o) {
			return o
		}
	}
	return c
}

// served moves a member to the end of the order of turns.
func (p *pool) served(c *consumer) {
	p.members.remove(&c.inPool)
	p.members.push(&c.inPool)
}

// refill puts the parked seats in line again if the pool has room.
func (p *pool) refill() {
	if p.full() {
		return
	}
	for s := range p.parked.all {
		p.parked.remove(&s.isParked)
		s.follow()
		s.q.mark()
	}
}

// poolLimit changes how many messages may be leased to the members of a pool together.
func (m *Machine) poolLimit(id uint64, limit int, watch bool) {
	if p := m.pools[id]; p != nil {
		p.limit = limit
		if watch {
			p.told.Pool = 0 // report the state in any case: it is the answer to this command
			if !slices.Contains(m.watched, p) {
				m.watched = append(m.watched, p)
			}
		}
		p.watched = watch
		p.refill()
		for s := range p.seats.all {
			s.q.mark()
		}
	}
}

// poolOf returns a pool. It creates the pool if there is none.
func (m *Machine) poolOf(id uint64) *pool {
	p := m.pools[id]
	if p == nil {
		p = &pool{id: id, seatOf: map[*Queue]*seat{}}
		m.pools[id] = p
	}
	return p
}

// forget drops a pool without members and leases.
func (m *Machine) forget(id uint64, p *pool) {
	if p.members.n == 0 && p.held == 0 {
		delete(m.pools, id)
	}
}
