package history

import (
	"fmt"
	"slices"
	"time"
)

// Verdict is the result of a run. Unknown counts as a failure, because a check that could not be
// made shows nothing.
type Verdict string

// The verdicts.
const (
	Pass    Verdict = "ok"
	Broken  Verdict = "BROKEN"
	Unknown Verdict = "UNKNOWN"
)

// Report is the result of all checkers for one history.
type Report struct {
	Totals
	Calls    int // number of records
	Doubled  int // findings of messages that came more often than allowed
	Disorder int // findings against the order in groups
	Other    int
	Findings []Finding
	Unclear  []string // undecided questions, with the reason
}

// doubles are the checks whose findings count as doubled. Report.Disorder counts findings about
// order, and TotalQueue counts lost values.
var doubles = []string{"redelivered", "stored twice", "id reused", "two leases", "life cycle", "row doubled"}

// missing are the checks whose findings count as lost, in addition to TotalQueue's lost values.
var missing = []string{"unsettled", "dead letter lost", "row lost"}

// Check runs every checker that needs only the history.
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

// Add adds findings of checkers that need more than the history.
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

// Verdict returns the verdict of the report.
func (r *Report) Verdict() Verdict {
	switch {
	case len(r.Findings) > 0:
		return Broken
	case len(r.Unclear) > 0:
		return Unknown
	}
	return Pass
}
