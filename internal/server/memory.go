package server

import (
	"log/slog"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// The collector's pace. Go's default lets the heap double, which is too eager for a server with
// little in memory (it would collect many times a second under load) and too lax for one with
// millions of waiting messages.
const (
	headroom   = 48 << 20 // bytes that may gather between collections
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

// paceCollector gives a function that keeps the room between collections near headroom, and at
// least minPercent of what lives. It does nothing where the operator set GOGC; GOMEMLIMIT works
// beside it.
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

// collectorPercent gives GOGC for so many living bytes, in steps of 20 so that it rarely changes.
func collectorPercent(live uint64) int {
	percent := maxPercent
	if live > 0 {
		percent = int(min(headroom*100/live, maxPercent))
	}
	return max(minPercent, percent/20*20)
}
