package queue

import "slices"

// line is an order of service: by priority, then by turn. It is a binary heap, so joining, leaving
// and moving to the end of a priority take logarithmic time.
//
// The line of a queue contains seats, and the line of each seat contains consumers: see seat.
type line struct{ heap []place }

// place is one element of a line. It contains the keys of the order, so that a comparison of two
// places follows no pointer.
type place struct {
	priority int
	turn     uint64 // the lower number is served first
	of       *spot
}

// spot is the part of a consumer or a seat that knows its position in a line.
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

// front returns the first place in the line, or nil.
func (l *line) front() *place {
	if len(l.heap) == 0 {
		return nil
	}
	return &l.heap[0]
}

// put sets the priority and the turn of a spot. A spot that is not in line joins the line.
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

// remove removes a spot from the line. It does nothing if the spot is not in line.
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
		l.heap = nil // frees the memory after many spots have left
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

// seat contains the consumers of one queue that belong to the same pool, or to no pool. The seat
// has the priority and the turn of its first consumer in its queue's line.
//
// Consumers in line want a message. A consumer that stops wanting one keeps its position until
// nextConsumer looks at the line with a message to hand out. If nextConsumer finds a seat whose
// pool is full, the whole seat is parked: it leaves its queue's line until the pool has room, and
// its consumers keep their positions in the seat. So a full pool costs the same for any number of
// consumers.
type seat struct {
	q        *Queue
	pool     *pool      // nil: no pool
	members  int        // consumers, in line or not
	line     line       // of consumers
	spot     spot       // position in q.line, unless the seat is empty or parked
	inPool   node[seat] // node in pool.seats
	isParked node[seat] // node in pool.parked
}

func newSeat(q *Queue, p *pool) *seat {
	s := &seat{q: q, pool: p}
	s.spot.seat, s.inPool.of, s.isParked.of = s, s, s
	return s
}

// full tells whether the limit of the pool stops all consumers of the seat.
func (s *seat) full() bool { return s.pool != nil && s.pool.full() }

// put moves a consumer behind all others of its priority.
func (s *seat) put(c *consumer) {
	s.q.lineTurn++
	s.line.put(&c.spot, c.opts.Priority, s.q.lineTurn)
	s.follow()
}

// drop removes a consumer from the line of its seat.
func (s *seat) drop(c *consumer) {
	s.line.remove(&c.spot)
	s.follow()
}

// follow moves the seat in its queue's line to the priority and turn of the seat's first consumer.
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

// park removes the seat from its queue's line until its pool has room.
func (s *seat) park() {
	s.q.line.remove(&s.spot)
	s.pool.parked.push(&s.isParked)
}

// canServe tells whether one of the seat's consumers could receive a message now.
func (s *seat) canServe() bool {
	return !s.full() && slices.ContainsFunc(s.line.heap, func(p place) bool { return p.of.c.hungry() && p.of.c.active() })
}
