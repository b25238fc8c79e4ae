package judge

import (
	"fmt"
	"slices"
)

// Way is a chosen way to continue after a refusal, and its announced effect.
type Way struct {
	Name                   string // "target", "queue" or "accept-loss"
	Doubled, Skipped, Lost int
}

// After judges the result of a way. Messages that were missing before may stay missing. Messages
// that the way writes again may be there twice. All other messages must be written once, and no
// sink may have refused its target. After changes its argument after.
func After(before, after *History, way Way) []Finding {
	r := Check(before)
	after.Causes, after.Unordered = 0, true
	after.Forgiven, after.Twice = map[int]bool{}, map[int]bool{}
	for _, n := range r.Missing {
		after.Forgiven[n] = true
	}
	// Without progress in the target, every way writes all waiting messages.
	if way.Name == "queue" || before.Causes&ProgressGone != 0 {
		for _, n := range r.Again {
			after.Twice[n] = true
		}
		for _, s := range before.Servers {
			for n := range s.Waiting { // in Update mode a written message can lack a record
				if before.Mode == Update {
					after.Twice[n] = true
				}
			}
		}
	} else {
		for _, s := range before.Servers {
			for n := range s.Waiting { // the other directory may have parked the message
				if m := before.Messages[n]; m != nil && m.Poison {
					after.Forgiven[n] = true
				}
			}
		}
	}
	list := Check(after).Findings
	if n, waited := skipped(before, after); way.Name == "target" && n != way.Skipped && before.Mode != Update {
		list = append(list, Finding{Words, fmt.Sprintf("of %d messages that waited %d were skipped, and %d were to be", waited, n, way.Skipped)})
	}
	if way.Name == "queue" && before.Mode != Update && way.Doubled < len(r.Again) && before.Causes&ProgressGone == 0 {
		list = append(list, Finding{Words, fmt.Sprintf("%d messages were written twice, and at most %d were to be", len(r.Again), way.Doubled)})
	}
	for i := range list {
		list[i].Text = "after going on from " + way.Name + ": " + list[i].Text
	}
	return list
}

// skipped returns how many messages waited before, and how many of them were neither written nor
// parked since.
func skipped(before, after *History) (count, waited int) {
	parked := func(n int) bool {
		return slices.ContainsFunc(after.Servers, func(s *Server) bool { _, ok := s.Parked[n]; return ok })
	}
	for _, s := range before.Servers {
		waited += len(s.Waiting)
		for n := range s.Waiting {
			if !parked(n) && (slices.Contains(before.Applied, n) || !slices.Contains(after.Applied, n)) {
				count++
			}
		}
	}
	return count, waited
}
