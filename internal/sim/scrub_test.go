package sim

import "testing"

// TestScrub lets logs on files scrub themselves in runs with all features, crashes and failing
// disks. No data is damaged, so the scrub may only find I/O errors. The broker's reaction to these
// errors must break no promise.
func TestScrub(t *testing.T) {
	runs := uint64(200)
	switch {
	case testing.Short():
		runs = 40
	case *seedsFlag >= 2000:
		runs = 1500
	}
	scrubs := 0
	for seed := uint64(1); seed <= runs; seed++ {
		o := workload(seed)
		o.Files, o.Probe, o.Steps = true, 0, 150
		actions := Script(o)
		for i := range actions {
			if i%4 == 3 {
				actions[i].Kind = "scrub"
				scrubs++
			}
		}
		if r := Play(o, actions, false); r.Violation != "" {
			report(t, Shrink(r))
			return
		}
	}
	t.Logf("%d runs with %d scrubs", runs, scrubs)
}
