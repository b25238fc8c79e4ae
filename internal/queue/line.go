package queue

import "slices"

// line is who is to be served, in order: by priority, and among equals by turn. It is a binary
// heap, so that getting in line, leaving it and moving to the end of a priority take a time that
// hardly grows with the length of the line or the number of priorities.
//
// A queue's line is one of seats, and each seat has a line of consumers: see seat.
type line struct{ heap []place }

// place is a place in line. The keys stand beside the pointer, so that comparing two places reads
// nothing else.
type place struct {
	priority int
	turn     uint64 // the lower number is served first
	of       *spot
}

// spot is what stands in a line. It is a field of a consumer or of a seat.
type spot struct {
	at   int // the place in the heap, from 1 on; 0: not in line
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

// put gives a spot its place, whether it is in line or not.
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

// remove takes a spot out of line. One that is not in line is left alone.
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

// fix moves a place that changed to where it belongs.
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

// seat is the consumers of one queue that are of one pool, or of none. The seat has the place in
// its queue's line that the first of its consumers has.
//
// Consumers in line want a message. One that does not any more keeps its place until the line is
// looked at while there is something to be had (nextConsumer). If the pool is full by then, the
// whole seat is parked: its consumers keep their places in it, and it is in its queue's line again
// when the pool has room. So a full pool costs the same however many consumers it has.
type seat struct {
	q        *Queue
	pool     *pool      // nil: of none
	members  int        // in line or not
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

// full says that the limit of the pool keeps all consumers of the seat from being served.
func (s *seat) full() bool { return s.pool != nil && s.pool.full() }

// put gives a consumer the last place of its priority.
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

// follow gives the seat the place of its first consumer.
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

// canServe says that one of the consumers could take a message now.
func (s *seat) canServe() bool {
	return !s.full() && slices.ContainsFunc(s.line.heap, func(p place) bool { return p.of.c.hungry() && p.of.c.active() })
}
