package queue

import (
	"fmt"
	"strings"
)

// waitsTurn describes, for a user, what comes before a message that may go. It returns "" if the
// queue's order is that of confirmation, or if the message is next. The numbers are estimates: new
// messages and retries change them.
func (q *Queue) waitsTurn(h uint32) string {
	s, f := q.sched, &q.flows[h]
	if s == nil || f.place < 0 || f.open == 0 || s.live < 2 {
		return ""
	}
	var parts []string
	if s.fair {
		l := &s.sides[f.side()].levels[f.priority]
		ahead := l.live - 1 // a round, if each has one hand-out
		if f.flags&flowOld == 0 {
			ahead = min(ahead, l.new.n-1)
		} else {
			ahead *= int(max(1, q.others))
		}
		if ahead > 0 {
			parts = append(parts, fmt.Sprintf("about %d hand-outs of other groups come first, and its group has %d in a turn", ahead, q.weight(f)))
		}
	}
	if other := &s.sides[1-f.side()]; q.config.Level.FreshShare > 0 && (len(other.heap) > 0 || other.inUse != [4]uint64{}) {
		if f.side() == backlog {
			parts = append(parts, fmt.Sprintf("fresh messages get %g %% of the hand-outs", q.config.Level.FreshShare*100))
		} else {
			parts = append(parts, fmt.Sprintf("the backlog gets %g %% of the hand-outs", (1-q.config.Level.FreshShare)*100))
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
	return "for its turn: " + strings.Join(parts, "; ")
}

// higher reports whether a group with a higher priority than that of f could be served now. The
// queue is fair.
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
