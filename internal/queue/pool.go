package queue

// pool is a limit that consumers share, of one queue or of several. Under a limit its members take
// turns: of the queues that could serve a member now, that member is next which was served longest
// ago.
type pool struct {
	limit   int // 0: none
	held    int
	members list[consumer] // under a limit in the order of their turns, otherwise in the order of their coming
	seats   list[seat]     // of its members, one a queue
	seatOf  map[*Queue]*seat
	parked  list[seat] // that are out of line because the pool was full; in any order
}

// full says that the members hold as many messages as they may.
func (p *pool) full() bool { return p.limit > 0 && p.held >= p.limit }

// seatIn returns the seat for members of a queue, and makes it if need be.
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

// leave ends a membership. The consumer is out of line.
func (p *pool) leave(c *consumer) {
	p.members.remove(&c.inPool)
	if s := c.seat; s.members == 0 {
		p.seats.remove(&s.inPool)
		delete(p.seatOf, s.q)
	}
}

// next returns the member whose turn it is: the first of those that their queues would serve now. c
// is one of them. If all members are of one queue, c is the only one, because a queue serves who is
// first in its line.
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

// served moves a member behind the others.
func (p *pool) served(c *consumer) {
	p.members.remove(&c.inPool)
	p.members.push(&c.inPool)
}

// refill puts the seats that were parked in line again, if there is room.
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

// poolLimit changes how many messages the members of a pool may hold together.
func (m *Machine) poolLimit(id uint64, limit int) {
	if p := m.pools[id]; p != nil {
		p.limit = limit
		p.refill()
		for s := range p.seats.all {
			s.q.mark()
		}
	}
}

// poolOf returns a pool, and makes it if need be.
func (m *Machine) poolOf(id uint64) *pool {
	p := m.pools[id]
	if p == nil {
		p = &pool{seatOf: map[*Queue]*seat{}}
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
