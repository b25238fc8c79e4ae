package sim

import (
	"flag"
	"fmt"
	"os"
	"runtime/debug"
	"strings"
	"testing"
	"time"
)

var (
	seedFlag  = flag.Uint64("seed", 0, "run this seed alone and print everything it does")
	seedsFlag = flag.Int("seeds", 0, "run this many seeds; 0: a few")
	firstFlag = flag.Uint64("first", 1, "the first seed of -seeds")
)

// TestSim runs seeds. Every seed is a separate run. A failed run prints its options and the
// shortest script that still fails.
//
//	go test ./internal/sim -seeds 10000          a campaign
//	go test ./internal/sim -seed 4711            one run again, with a trace
func TestSim(t *testing.T) {
	if *seedFlag != 0 {
		o := Draw(*seedFlag)
		report(t, Play(o, Script(o), true))
		return
	}
	c := Campaign{First: *firstFlag, Seeds: int64(*seedsFlag)}
	if c.Seeds == 0 {
		if c.Seeds = 200; testing.Short() {
			c.Seeds = 40
		}
	}
	start := time.Now()
	sum, failed, next := c.Run()
	for _, r := range failed {
		report(t, Shrink(r))
	}
	var table strings.Builder
	if err := sum.Table(&table); err != nil {
		t.Fatal(err)
	}
	t.Logf("seeds %d to %d in %v\n%s", c.First, next-1, time.Since(start).Round(time.Millisecond), &table)
	if missing := sum.Missing(); c.Seeds >= 2000 && len(failed) == 0 && len(missing) > 0 {
		t.Errorf("%d seeds never reached: %s; the simulator does not test these events", c.Seeds, strings.Join(missing, ", "))
	}
}

// TestMain makes garbage collections rare: runs are short, and a collection after each costs more
// than the runs.
func TestMain(m *testing.M) {
	debug.SetGCPercent(800)
	os.Exit(m.Run())
}

func report(t *testing.T, r Result) {
	t.Helper()
	if r.Violation == "" {
		t.Logf("seed %d: every promise was kept\n%s", r.Options.Seed, strings.Join(r.Trace, "\n"))
		return
	}
	t.Errorf("seed %d (go test ./internal/sim -seed %d): %s\n%s\nthe shortest run found, %d actions:\n%s\n\nthe same as a script, to be kept in internal/sim/testdata/NAME.sim:\n%s",
		r.Options.Seed, r.Options.Seed, r.Violation, r.Options, len(r.Actions), strings.Join(r.Trace, "\n"), r.Text())
}

// TestSameSeedSameRun: two runs of one seed must have equal traces.
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
