// Command simulate runs the simulator over a range of seeds until enough crash states were
// recovered and checked: the run before a release. It reports on stderr as it goes, and at its end,
// also when it is interrupted, prints what was reached as Markdown for docs/guarantees.md.
// Interrupted, it says from which seed to go on.
//
//	go run ./test/simulate -states 5000000
//	go run ./test/simulate -first 40001 -seeds 1000
//	go run ./test/simulate -shards -states 1000000
package main

import (
	"context"
	"flag"
	"fmt"
	"math"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"github.com/surgetank/surgetank/internal/sim"
)

func main() {
	c := sim.Campaign{}
	flag.Uint64Var(&c.First, "first", 1, "the first seed")
	flag.Int64Var(&c.Seeds, "seeds", math.MaxInt64, "how many seeds at most")
	flag.Int64Var(&c.States, "states", 5_000_000, "end after this many crash states")
	flag.IntVar(&c.Workers, "workers", 0, "seeds that run at a time; 0: one a processor")
	flag.BoolVar(&c.Shards, "shards", false, "run only seeds with several shards")
	flag.IntVar(&c.Most, "failures", 10, "end after this many failing seeds")
	every := flag.Duration("progress", 10*time.Second, "how often to report on stderr")
	flag.Parse()
	debug.SetGCPercent(800) // runs are short; collecting after each costs more than running them
	ok, err := run(c, *every)
	if err != nil {
		fmt.Fprintln(os.Stderr, "simulate:", err)
	}
	if !ok || err != nil {
		os.Exit(1)
	}
}

// run gives false when a promise was broken.
func run(c sim.Campaign, every time.Duration) (bool, error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	start, last := time.Now(), time.Now()
	c.Done = func(sum *sim.Counters, failed int) bool {
		if time.Since(last) >= every {
			last = time.Now()
			n := sum.N[sim.CrashStates]
			fmt.Fprintf(os.Stderr, "%s: %d seeds, %d crash states (%.0f/s), %d checks, %d failures\n", time.Since(start).Round(time.Second), sum.N[sim.Runs], n,
				float64(n)/time.Since(start).Seconds(), sum.N[sim.Checks], failed)
		}
		return ctx.Err() == nil
	}
	sum, failed, next := c.Run()
	fmt.Printf("commit %s, seeds %d to %d in %s with %d workers (%s): %d crash states, %d failures\n\n", commit(), c.First, next-1,
		time.Since(start).Round(time.Second), workers(c.Workers), runtime.Version(), sum.N[sim.CrashStates], len(failed))
	if err := sum.Table(os.Stdout); err != nil {
		return false, err
	}
	missing := sum.Missing()
	if c.Shards {
		missing = sum.MissingOfShards()
	}
	if len(missing) > 0 {
		fmt.Printf("\nnever reached: %s\n", strings.Join(missing, ", "))
	}
	if ctx.Err() != nil {
		fmt.Printf("\ninterrupted; go on with -first %d\n", next)
	}
	for _, r := range failed {
		fmt.Printf("\nseed %d: %s\n", r.Options.Seed, r.Violation)
	}
	for _, r := range failed { // this takes a while
		r = sim.Shrink(r)
		fmt.Printf("\nseed %d: %s\n%s\n%s\n\n%s", r.Options.Seed, r.Violation, r.Options, strings.Join(r.Trace, "\n"), r.Text())
	}
	idle := len(missing) > 0 && sum.N[sim.Runs] >= enoughRuns
	return len(failed) == 0 && !idle, nil
}

// enoughRuns reach every point; a campaign of as many that does not is idle somewhere.
const enoughRuns = 2000

func workers(n int) int {
	if n == 0 {
		return runtime.GOMAXPROCS(0)
	}
	return n
}

// commit says what was built, as far as the build knows.
func commit() string {
	revision, changed := "unknown", ""
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			switch {
			case s.Key == "vcs.revision":
				revision = s.Value[:min(12, len(s.Value))]
			case s.Key == "vcs.modified" && s.Value == "true":
				changed = " with changes"
			}
		}
	}
	return revision + changed
}
