package server

import (
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// The collector's pace. Go's default lets the heap double, which is too eager for a server with little in memory (it would
// collect many times a second under load) and too lax for one with millions of waiting messages.
const (
	headroom   = 48 << 20 // bytes that may gather between collections
	minPercent = 20
	maxPercent = 800
)

// paceCollector keeps the room between collections near headroom, and at least minPercent of what lives. It
// does nothing where the operator set GOGC; GOMEMLIMIT works beside it. It ends when stop is closed.
func paceCollector(stop <-chan struct{}) {
	if os.Getenv("GOGC") != "" {
		return
	}
	sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	current := 0
	set := func() {
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
	set()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			set()
		case <-stop:
			return
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
