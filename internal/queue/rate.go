package queue

import "github.com/surgetank/surgetank"

// Rates use the generic cell rate algorithm (ITU-T I.371): one number, the theoretical arrival time
// of the next hand-out, says everything. A hand-out is allowed while that time is not more than the
// burst's worth ahead of now.

// interval is the time between two hand-outs at a rate, in nanoseconds.
func interval(r surgetank.Rate) int64 { return max(1, int64(1e9/float64(r))) }

// rateDue says when the next hand-out is allowed; not after now means at once.
func rateDue(tat int64, r surgetank.Rate, burst int) int64 {
	if r <= 0 {
		return 0
	}
	return tat - interval(r)*int64(max(1, burst)-1)
}

// rateSpend accounts for one hand-out.
func rateSpend(tat *int64, r surgetank.Rate, now int64) {
	if r > 0 {
		*tat = max(*tat, now) + interval(r)
	}
}
