package sim

import "testing"

// TestRot damages a copy of the disk at many moments and opens it. Each damage must be detected or
// harmless.
func TestRot(t *testing.T) {
	runs := uint64(40)
	switch {
	case testing.Short():
		runs = 10
	case *seedsFlag >= 2000:
		runs = uint64(*seedsFlag) / 10
	}
	var sum Counters
	for seed := *firstFlag; seed < *firstFlag+runs; seed++ {
		o := workload(seed)
		o.Probe, o.Steps = 0, 60
		actions := Script(o)
		for i := range actions {
			if i%3 == 2 {
				actions[i].Kind = "rot"
			}
		}
		r := Play(o, actions, false)
		if sum.Add(&r.Counters); r.Violation != "" {
			report(t, Shrink(r))
			return
		}
	}
	if sum.N[FlipsDetected] == 0 || sum.N[SectorsDetected] == 0 {
		t.Error("no damage was ever detected")
	}
	t.Logf("%d runs: %d flipped bits detected, %d harmless; %d lost sectors detected, %d harmless", runs, sum.N[FlipsDetected], sum.N[FlipsHarmless],
		sum.N[SectorsDetected], sum.N[SectorsHarmless])
}
