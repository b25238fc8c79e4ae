package sim

import (
	"flag"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
)

var (
	seedFlag  = flag.Uint64("seed", 0, "run this seed alone and print everything it does")
	seedsFlag = flag.Int("seeds", 0, "run this many seeds; 0: as many as fit a short run")
	firstFlag = flag.Uint64("first", 1, "the first seed of -seeds")
)

// TestSim runs seeds. Every seed is a run of its own; a failing one prints all it drew and the shortest script
// that still fails.
//
//	go test ./internal/sim -seeds 10000          a campaign
//	go test ./internal/sim -seed 4711            one run again, traced
func TestSim(t *testing.T) {
	if *seedFlag != 0 {
		o := Draw(*seedFlag)
		report(t, Play(o, Script(o), true))
		return
	}
	seeds, limit := *seedsFlag, time.Hour*24
	if seeds == 0 {
		seeds, limit = 100_000, 15*time.Second
	}
	start := time.Now()
	var mu sync.Mutex
	var total Counters
	failed := 0
	for i := range seeds {
		if i%16 == 0 && time.Since(start) > limit || failed >= 3 {
			break
		}
		r := Run(*firstFlag + uint64(i))
		mu.Lock()
		total.add(&r.Counters)
		mu.Unlock()
		if r.Violation != "" {
			failed++
			report(t, Shrink(r))
		}
	}
	t.Logf("%d runs in %v: %s", total.Runs, time.Since(start).Round(time.Millisecond), shown(&total))
}

func shown(c *Counters) string {
	return strings.ReplaceAll(strings.Trim(fmt.Sprintf("%+v", *c), "{}"), ":", " ")
}

func report(t *testing.T, r Result) {
	t.Helper()
	if r.Violation == "" {
		t.Logf("seed %d: every promise was kept\n%s", r.Options.Seed, strings.Join(r.Trace, "\n"))
		return
	}
	t.Errorf("seed %d (go test ./internal/sim -seed %d): %s\n%s\nthe shortest run found, %d actions:\n%s", r.Options.Seed, r.Options.Seed, r.Violation,
		r.Options, len(r.Actions), strings.Join(r.Trace, "\n"))
}

// TestSameSeedSameRun: a seed gives the same run, to the last line of its trace.
func TestSameSeedSameRun(t *testing.T) {
	for seed := uint64(1); seed <= 40; seed++ {
		o := Draw(seed)
		a, b := Play(o, Script(o), true), Play(o, Script(o), true)
		if x, y := strings.Join(a.Trace, "\n"), strings.Join(b.Trace, "\n"); x != y || a.Counters != b.Counters {
			t.Errorf("seed %d gives two runs:\n%s", seed, firstDifference(a.Trace, b.Trace))
		}
	}
}

func firstDifference(a, b []string) string {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return fmt.Sprintf("line %d: %s\nagainst %s", i, a[i], b[i])
		}
	}
	return fmt.Sprintf("%d lines against %d", len(a), len(b))
}
