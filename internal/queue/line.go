package queue

import "slices"

// line is an order of service: by priority, then by turn. It is a binary heap, so joining, leaving
// and moving to the end of a priority take logarithmic time.
//
// The line of a queue contains seats, and the line of each seat contains consumers: see seat.
type line struct{ heap []place }

// place is one place in a line. It contains the keys, so that comparing two places follows no
// pointer.
type place struct {
	priority int
	turn     uint64 // the lower number is served first
	of       *spot
}

// spot is the part of a consumer or a seat that knows its place in a line.
type spot struct {
	at   int // index in the heap plus 1; 0: not in line
	c    *consumer
	seat *seat
}

func (p *place) before(o *place) bool {
	if p.priority != o.priority {
		return p.priority > o.priority
	}
	return p.turn < o.turn
}

// front returns the first place, or nil.
func (l *line) front() *place {
	if len(l.heap) == 0 {
		return nil
	}
	return &l.heap[0]
}

// put gives a spot this priority and turn. A spot that is not in line joins it.
func (l *line) put(s *spot, priority int, turn uint64) {
	if s.at == 0 {
		l.heap = append(l.heap, place{of: s})
		s.at = len(l.heap)
	}
	i := s.at - 1
	l.heap[i].priority, l.heap[i].turn = priority, turn
	if len(l.heap) > 1 {
		l.fix(i)
	}
}

// remove takes a spot out of line. It does nothing if the spot is not in line.
func (l *line) remove(s *spot) {
	if s.at == 0 {
		return
	}
	i, last := s.at-1, len(l.heap)-1
	l.set(i, l.heap[last])
	l.heap[last] = place{}
	l.heap = l.heap[:last]
	s.at = 0
	switch {
	case i < last:
		l.fix(i)
	case last == 0 && cap(l.heap) > compactFrom:
		l.heap = nil // many have left
	}
}

func (l *line) set(i int, p place) {
	l.heap[i] = p
	p.of.at = i + 1
}

// fix moves a place whose keys changed to its position in the heap.
func (l *line) fix(i int) {
	p := l.heap[i]
	for i > 0 && p.before(&l.heap[(i-1)/2]) {
		l.set(i, l.heap[(i-1)/2])
		i = (i - 1) / 2
	}
	for {
		c := 2*i + 1
		if c >= len(l.heap) {
			break
		}
		if c+1 < len(l.heap) && l.heap[c+1].before(&l.heap[c]) {
			c++
		}
		if !l.heap[c].before(&p) {
			break
		}
		l.set(i, l.heap[c])
		i = c
	}
	l.set(i, p)
}

// seat is the consumers of one queue that are of the same pool, or of no pool. The seat's place in
// its queue's line is that of its first consumer.
//
// Consumers in line want a message. A consumer that stops wanting one keeps its place until
// nextConsumer looks at the line with a message to hand out. If the pool is full then, the whole
// seat is parked: it leaves its queue's line until the pool has room, and its consumers keep their
// places in the seat. So a full pool costs the same for any number of consumers.
type seat struct {
	q        *Queue
	pool     *pool      // nil: no pool
	members  int        // consumers, in line or not
	line     line       // of consumers
	spot     spot       // in q.line, unless it is empty or parked
	inPool   node[seat] // of pool.seats
	isParked node[seat] // of pool.parked
}

func newSeat(q *Queue, p *pool) *seat {
	s := &seat{q: q, pool: p}
	s.spot.seat, s.inPool.of, s.isParked.of = s, s, s
	return s
}

// full tells whether the limit of the pool stops all consumers of the seat.
func (s *seat) full() bool { return s.pool != nil && s.pool.full() }

// put moves a consumer to the end of its priority.
func (s *seat) put(c *consumer) {
	s.q.lineTurn++
	s.line.put(&c.spot, c.opts.Priority, s.q.lineTurn)
	s.follow()
}

// drop takes a consumer out of line.
func (s *seat) drop(c *consumer) {
	s.line.remove(&c.spot)
	s.follow()
}

// follow moves the seat to the place of its first consumer.
func (s *seat) follow() {
	first := s.line.front()
	switch {
	case first == nil:
		s.q.line.remove(&s.spot)
		if s.pool != nil {
			s.pool.parked.remove(&s.isParked)
		}
	case s.isParked.in == nil:
		s.q.line.put(&s.spot, first.priority, first.turn)
	}
}

// park takes the seat out of its queue's line until its pool has room.
func (s *seat) park() {
	s.q.line.remove(&s.spot)
	s.pool.parked.push(&s.isParked)
}

// canServe tells whether one of the consumers could take a message now.
func (s *seat) canServe() bool {
	return !s.full() && slices.ContainsFunc(s.line.heap, func(p place) bool { return p.of.c.hungry() && p.of.c.active() })
}
