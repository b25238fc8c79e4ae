package queue

import "slices"

// line is the consumers of a queue that are to be served, in order: by priority, and among equals
// by when they got in line. It is a binary heap, so that getting in line, leaving it and moving to
// the end of a priority take a time that hardly grows with the number of consumers or priorities.
//
// A consumer in line may have become unable to take a message. It keeps its place until the line is
// looked at while there is something to be had (nextConsumer).
type line struct {
	heap []place
	turn uint64 // of the newest place
}

// place is a consumer's place in line. The keys stand beside the pointer, so that comparing two
// places reads no consumer.
type place struct {
	priority int
	turn     uint64 // grows: the lower number is served first
	c        *consumer
}

func (p *place) before(o *place) bool {
	if p.priority != o.priority {
		return p.priority > o.priority
	}
	return p.turn < o.turn
}

// front returns who is first in line, or nil.
func (l *line) front() *consumer {
	if len(l.heap) == 0 {
		return nil
	}
	return l.heap[0].c
}

// push puts a consumer that is not in line behind the others of its priority.
func (l *line) push(c *consumer) {
	l.turn++
	l.heap = append(l.heap, place{c.opts.Priority, l.turn, c})
	c.place = len(l.heap)
	l.up(c.place - 1)
}

// toEnd moves a consumer that is in line behind the others of its priority.
func (l *line) toEnd(c *consumer) {
	l.turn++
	l.heap[c.place-1].turn = l.turn
	l.down(c.place - 1)
}

// remove takes a consumer out of line. One that is not in line is left alone.
func (l *line) remove(c *consumer) {
	if c.place == 0 {
		return
	}
	i, last := c.place-1, len(l.heap)-1
	l.set(i, l.heap[last])
	l.heap[last] = place{}
	l.heap = l.heap[:last]
	c.place = 0
	switch {
	case i < last:
		l.down(i)
		l.up(i)
	case last == 0 && cap(l.heap) > compactFrom:
		l.heap = nil // many consumers left
	}
}

func (l *line) set(i int, p place) {
	l.heap[i] = p
	p.c.place = i + 1
}

func (l *line) up(i int) {
	for p := l.heap[i]; i > 0; i = (i - 1) / 2 {
		over := (i - 1) / 2
		if !p.before(&l.heap[over]) {
			break
		}
		above := l.heap[over]
		l.set(over, p)
		l.set(i, above)
	}
}

func (l *line) down(i int) {
	p := l.heap[i]
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

// any tells whether f is true of somebody in line.
func (l *line) any(f func(*consumer) bool) bool {
	return slices.ContainsFunc(l.heap, func(p place) bool { return f(p.c) })
}
