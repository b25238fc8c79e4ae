package queue

import "github.com/surgetank/surgetank"

// checkPlace checks that a flow of a queue with a sched is in the right ring or heap. Call it
// between two turns.
func checkPlace(bad func(string, ...any), q *Queue, h uint32) {
	s, f := q.sched, &q.flows[h]
	if s == nil {
		return
	}
	can := q.groupVerdict(h) == mayGo
	if can != (f.open > 0) {
		bad("queue %s: flow %q may go: %v, and %d are open", q.name, f.name, can, f.open)
	}
	if f.flags&flowChanged != 0 {
		return // the next turn's dispatch looks at this flow
	}
	if can != (f.place >= 0) && !(s.fair && f.waiting == 0) {
		bad("queue %s: flow %q may go: %v, its place is %d", q.name, f.name, can, f.place)
	}
	if can && f.front != q.frontOf(h) {
		bad("queue %s: flow %q has the front %d, not %d", q.name, f.name, f.front, q.frontOf(h))
	}
	if f.deficit > surgetank.MaxWeight {
		bad("queue %s: flow %q has the deficit %d", q.name, f.name, f.deficit)
	}
}

// checkSched checks the rings and heaps of a queue, and their counts.
func checkSched(bad func(string, ...any), q *Queue) {
	s := q.sched
	if want := q.config.Group.Fair || q.config.Level.FreshShare > 0; want != (s != nil) {
		bad("queue %s: it has a sched: %v", q.name, s != nil)
	}
	if s == nil {
		return
	}
	if len(q.ready) > 0 {
		bad("queue %s has a sched, and %d flows in its own heap", q.name, len(q.ready))
	}
	live, linked := 0, 0
	for h := range q.flows {
		if q.flows[h].open > 0 {
			live++
		}
		if q.flows[h].place >= 0 {
			linked++
		}
	}
	if live != s.live || linked != s.linked {
		bad("queue %s: %d flows may go and %d have places, counted %d and %d", q.name, s.live, s.linked, live, linked)
	}
	found := 0
	for i := range s.sides {
		d := &s.sides[i]
		for j, h := range d.heap {
			if found++; int(q.flows[h].place) != j || q.flows[h].side() != i || j > 0 && d.heap.less(q, j, (j-1)/2) {
				bad("queue %s: flow %d is wrong in the heap at %d", q.name, h, j)
			}
		}
		for p := range d.levels {
			l := &d.levels[p]
			live := 0
			for _, r := range []*ring{&l.new, &l.old} {
				h := r.head
				for range r.n {
					f := &q.flows[h]
					if found++; f.free || int(f.priority) != p || f.side() != i || (f.flags&flowOld != 0) != (r == &l.old) ||
						q.flows[f.after].place != int32(h) || f.flags&flowSeen == 0 || f.deficit == 0 {
						bad("queue %s: flow %q is wrong in its ring: %+v", q.name, f.name, *f)
					}
					if f.open > 0 {
						live++
					}
					h = f.after
				}
				if r.n > 0 && h != r.head {
					bad("queue %s: a ring is not closed", q.name)
				}
			}
			if live != l.live || (live > 0) != (d.inUse[p/64]&(1<<(p%64)) != 0) {
				bad("queue %s: level %d has %d flows that may go, counted %d", q.name, p, l.live, live)
			}
		}
	}
	if found != linked {
		bad("queue %s: %d flows are in rings and heaps, %d think so", q.name, found, linked)
	}
}
