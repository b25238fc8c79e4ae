package queue

import (
	"fmt"
	"strings"
)

// waitsTurn describes, for a user, the rules that choose between a message that can be delivered
// and other such messages. It returns "" if the queue's order is the order of publishing or no
// other group can deliver.
func (q *Queue) waitsTurn(h uint32) string {
	s, f := q.sched, &q.flows[h]
	if s == nil || f.place < 0 || f.open == 0 || s.live < 2 {
		return ""
	}
	var parts []string
	if s.fair && s.groupsAhead(q, f) > 0 {
		parts = append(parts, fmt.Sprintf("its group has %d in a turn", q.weight(f)))
	}
	if other := &s.sides[1-f.side()]; q.config.Level.FreshShare > 0 && (len(other.heap) > 0 || other.inUse != [4]uint64{}) {
		if f.side() == backlog {
			parts = append(parts, fmt.Sprintf("fresh messages get %g %% of the deliveries", q.config.Level.FreshShare*100))
		} else {
			parts = append(parts, fmt.Sprintf("the backlog gets %g %% of the deliveries", (1-q.config.Level.FreshShare)*100))
		}
	}
	if s.higher(f) {
		if step := q.config.PriorityStep; step > 0 {
			parts = append(parts, fmt.Sprintf("higher priorities come first until it has waited %v longer for each priority", step))
		} else {
			parts = append(parts, "higher priorities come first")
		}
	}
	if len(parts) == 0 {
		return ""
	}
	return "; " + strings.Join(parts, "; ")
}

// groupsAhead returns about how many hand-outs of other groups come before the turn of a flow.
func (s *sched) groupsAhead(q *Queue, f *flow) int {
	l := &s.sides[f.side()].levels[f.priority]
	ahead := l.live - 1 // a round, if each group has one hand-out in it
	if f.flags&flowOld == 0 {
		return max(0, min(ahead, l.new.n-1))
	}
	return max(0, ahead*int(max(1, q.others)))
}

// turnOf returns about how many hand-outs come before a message that can be delivered. It ignores
// priorities and fresh shares. Without full, it counts only the hand-outs of other groups before
// the next turn of the message's group.
func (q *Queue) turnOf(h uint32, seq uint64, full bool) int64 {
	s, f := q.sched, &q.flows[h]
	switch {
	case s != nil && s.fair:
		if f.place < 0 || f.open == 0 {
			return 0
		}
		others := int64(s.groupsAhead(q, f))
		if !full {
			return others
		}
		own := q.ahead(h, seq)
		round := int64(max(0, s.sides[f.side()].levels[f.priority].live-1)) * int64(max(1, q.others))
		return own + others + own/int64(q.weight(f))*round
	case !full:
		return 0
	}
	n := int64(0)
	q.slots.scan(max(q.floor, q.lowest), maxAhead, func(at uint64, s *slot) bool {
		if at < seq && s.state() == slotWaiting && q.flows[s.flow].open > 0 {
			n++
		}
		return at < seq
	})
	q.m.spend(maxAhead, costPeek)
	return n
}

// higher reports whether a group with a higher priority than f's could be served now. The queue
// must have group.fair.
func (s *sched) higher(f *flow) bool {
	for i := range s.sides {
		for p := range s.sides[i].descending {
			if p > f.priority {
				return true
			}
		}
	}
	return false
}
