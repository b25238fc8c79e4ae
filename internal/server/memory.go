package server

import (
	"log/slog"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// The pace of the garbage collector. Go's default lets the heap double. For a server with little in
// memory that is too often: many times a second under load. For one with millions of waiting
// messages it is too rare.
const (
	headroom   = 48 << 20 // bytes that may be allocated between collections
	minPercent = 20
	maxPercent = 800
)

// lookAfterMemory sets the collector's pace and returns memory to the system after bursts, until
// stop is closed.
func lookAfterMemory(log *slog.Logger, stop <-chan struct{}) {
	pace, back := paceCollector(), newReturner()
	pace()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			pace()
			back.tick(log)
		case <-stop:
			return
		}
	}
}

// paceCollector returns a function that keeps the room between collections near headroom, and at
// least at minPercent of the live memory. It does nothing if the operator set GOGC. GOMEMLIMIT
// works as usual.
func paceCollector() func() {
	if os.Getenv("GOGC") != "" {
		return func() {}
	}
	sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	current := 0
	return func() {
		metrics.Read(sample)
		live := uint64(0)
		if sample[0].Value.Kind() == metrics.KindUint64 {
			live = sample[0].Value.Uint64()
		}
		if want := collectorPercent(live); want != current {
			debug.SetGCPercent(want)
			current = want
		}
	}
}

// collectorPercent returns GOGC for a number of live bytes, in steps of 20 so that it rarely
// changes.
func collectorPercent(live uint64) int {
	percent := maxPercent
	if live > 0 {
		percent = int(min(headroom*100/live, maxPercent))
	}
	return max(minPercent, percent/20*20)
}
