package sim

import (
	"strings"
	"testing"
	"time"
)

// TestShards runs seeds with several shards. Few of the seeds of TestSim are such.
func TestShards(t *testing.T) {
	c := Campaign{First: *firstFlag, Seeds: 40, Shards: true}
	switch {
	case *seedsFlag > 0:
		c.Seeds = max(1, int64(*seedsFlag)/50)
	case testing.Short():
		c.Seeds = 10
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
	t.Logf("%d seeds up to %d in %v\n%s", sum.N[Runs], next-1, time.Since(start).Round(time.Millisecond), &table)
	if missing := sum.MissingOfShards(); c.Seeds >= 200 && len(failed) == 0 && len(missing) > 0 {
		t.Errorf("%d seeds never reached: %s; the simulator does not test these events", c.Seeds, strings.Join(missing, ", "))
	}
}

// TestShardsWithPowerFailuresEverywhere makes the power of all shards fail at every change of a
// file system.
func TestShardsWithPowerFailuresEverywhere(t *testing.T) {
	seed, want := uint64(1), 3
	if testing.Short() {
		want = 1
	}
	for ; want > 0; seed++ {
		o := Draw(seed)
		if o.Shards < 2 || !o.Files {
			continue
		}
		want--
		o.Steps, o.Probe = 25, 100
		if r := Play(o, Script(o), false); r.Violation != "" {
			report(t, Shrink(r))
		}
	}
}

// TestShardsSameSeedSameRun: two runs of one seed with several shards must have equal traces.
func TestShardsSameSeedSameRun(t *testing.T) {
	for seed, left := uint64(1), 8; left > 0; seed++ {
		o := Draw(seed)
		if o.Shards < 2 {
			continue
		}
		left--
		a, b := Play(o, Script(o), true), Play(o, Script(o), true)
		if x, y := strings.Join(a.Trace, "\n"), strings.Join(b.Trace, "\n"); x != y || a.Counters != b.Counters {
			t.Errorf("seed %d gives two runs:\n%s", seed, firstDifference(a.Trace, b.Trace))
		}
	}
}
