package queue

import (
	"cmp"
	"slices"
)

// pool is a limit that consumers share, of one queue or of several. Under a limit its members take
// turns: the next message goes to the member that was served longest ago.
//
// A member that the limit alone keeps out of its queue's line is parked. When somebody gives room
// back, the parked members get in line again, in the order of their turns.
type pool struct {
	limit   int // 0: none
	held    int
	turn    uint64         // the highest of its members
	members list[consumer] // under a limit in the order of their turns, otherwise in the order of their coming
	parked  list[consumer] // in any order
	only    *Queue         // the queue of all members; nil if they are of several
}

// full says that the members hold as many messages as they may.
func (p *pool) full() bool { return p.limit > 0 && p.held >= p.limit }

// add makes a consumer a member.
func (p *pool) add(c *consumer) {
	if p.members.n == 0 {
		p.only = c.q
	} else if p.only != c.q {
		p.only = nil
	}
	c.pool = p
	p.members.push(&c.inPool)
	p.behind(c)
}

// behind gives a member the last turn.
func (p *pool) behind(c *consumer) {
	p.turn++
	c.turn = p.turn
}

// leave ends a membership.
func (p *pool) leave(c *consumer) {
	p.members.remove(&c.inPool)
	p.parked.remove(&c.isParked)
}

// next returns the member whose turn it is: the first of those that their queues would serve now. c
// is one of them. If all members are of one queue, c is the only one, because a queue serves who is
// first in its line.
func (p *pool) next(c *consumer) *consumer {
	if p.only != nil {
		return c
	}
	for o := range p.members.all {
		if o == c || o.credit > 0 && o.queued() && o.q.wouldServe(o) {
			return o
		}
	}
	return c
}

// served moves a member behind the others.
func (p *pool) served(c *consumer) {
	p.members.remove(&c.inPool)
	p.members.push(&c.inPool)
	p.behind(c)
}

// refill puts the parked members in line again, if there is room.
func (p *pool) refill() {
	if p.full() || p.parked.n == 0 {
		return
	}
	list := make([]*consumer, 0, p.parked.n)
	for c := range p.parked.all {
		p.parked.remove(&c.isParked)
		list = append(list, c)
	}
	slices.SortFunc(list, func(a, b *consumer) int { return cmp.Compare(a.turn, b.turn) })
	for _, c := range list {
		c.q.offer(c)
	}
}

// poolLimit changes how many messages the members of a pool may hold together.
func (m *Machine) poolLimit(id uint64, limit int) {
	if p := m.pools[id]; p != nil {
		p.limit = limit
		p.refill()
		for c := range p.members.all {
			c.q.mark()
		}
	}
}

// poolOf returns a pool, and makes it if need be.
func (m *Machine) poolOf(id uint64) *pool {
	p := m.pools[id]
	if p == nil {
		p = &pool{}
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
