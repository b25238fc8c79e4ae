package history

import (
	"fmt"
	"slices"
	"time"
)

// Verdict is what a run came to. Unknown counts as a failure: a check that could not be made proves
// nothing.
type Verdict string

// The verdicts.
const (
	Pass    Verdict = "ok"
	Broken  Verdict = "BROKEN"
	Unknown Verdict = "UNKNOWN"
)

// Report is the outcome of all checkers over one history.
type Report struct {
	Totals
	Calls    int // records looked at
	Doubled  int // findings that a message was had more often than allowed
	Disorder int // findings against the order in groups
	Other    int
	Findings []Finding
	Unclear  []string // what could not be decided, and why
}

// doubles are the checks whose findings count as doubled; order has its own column, and lost is
// counted by TotalQueue.
var doubles = []string{"redelivered", "stored twice", "id reused", "two leases", "life cycle", "row doubled"}

// missing are the checks whose findings count as lost beside TotalQueue's own.
var missing = []string{"unsettled", "dead letter lost", "row lost"}

// Check runs every checker that needs nothing but the history.
func Check(h *History, timeout time.Duration) Report {
	var r Report
	r.Calls = len(h.Ops)
	var bad []Finding
	r.Totals, bad = TotalQueue(h)
	r.add(bad)
	r.add(AckedFinal(h))
	r.add(Marked(h))
	_, bad = GroupOrder(h)
	r.add(bad)
	r.add(OneLease(h))
	r.add(GroupInFlight(h))
	_, unknown, bad := LifeCycle(h, timeout)
	r.add(bad)
	if unknown > 0 {
		r.Unclear = append(r.Unclear, fmt.Sprintf("the life cycle of %d messages was not decided in %v", unknown, timeout))
	}
	_, bad = DedupOnce(h)
	r.add(bad)
	r.add(IDsUnique(h))
	r.add(Conserved(h))
	if !h.Drained {
		r.Unclear = append(r.Unclear, "the queues were not drained, so nothing can be said about loss")
	}
	if r.Confirmed == 0 {
		r.Unclear = append(r.Unclear, "nothing was confirmed, so nothing was tested")
	}
	return r
}

// Add counts further findings, of checkers that need more than the history.
func (r *Report) Add(bad ...Finding) { r.add(bad) }

func (r *Report) add(bad []Finding) {
	r.Findings = append(r.Findings, bad...)
	for _, f := range bad {
		switch {
		case f.Check == "lost":
		case slices.Contains(missing, f.Check):
			r.Lost++
		case slices.Contains(doubles, f.Check):
			r.Doubled++
		case f.Check == "order" || f.Check == "group in flight":
			r.Disorder++
		default:
			r.Other++
		}
	}
}

// Verdict is the report in a word.
func (r *Report) Verdict() Verdict {
	switch {
	case len(r.Findings) > 0:
		return Broken
	case len(r.Unclear) > 0:
		return Unknown
	}
	return Pass
}
