package queue

import "github.com/surgetank/surgetank"

// Rates use the generic cell rate algorithm (ITU-T I.371). Its whole state is one number, the
// theoretical arrival time (tat) of the next hand-out. A hand-out is allowed while the tat is at
// most one burst ahead of now.

// interval returns the time between two hand-outs at a rate, in nanoseconds.
func interval(r surgetank.Rate) int64 { return max(1, int64(1e9/float64(r))) }

// rateDue returns the time from which the next hand-out is allowed. A past time means now.
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
