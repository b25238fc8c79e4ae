package sim

import (
	"fmt"
	"testing"
)

// workload returns the options of a run without faults and crashes. The test causes them itself.
func workload(seed uint64) Options {
	o := Draw(seed)
	o.Files, o.Steps = true, 30
	o.Crashes, o.Kills, o.Faults, o.Full, o.Jumps, o.Flips = false, false, false, false, false, false
	o.Probe = 2
	return o
}

// TestFaultAtEveryOperation makes the n-th operation on the file system fail, for every n of a few
// workloads: with an I/O error or a full disk, once or always, without effect or half done. The
// broker must stop or continue. Afterwards it must open again, and no promise may be broken. Runs
// with several shards are left out: their faults are actions of the run.
func TestFaultAtEveryOperation(t *testing.T) {
	workloads, step := uint64(2), 5
	switch {
	case testing.Short():
		workloads, step = 1, 23
	case *seedsFlag >= 2000: // more workloads in a campaign
		workloads, step = 20, 1
	}
	var sum Counters
	for seed, left := uint64(1), workloads; left > 0 && !t.Failed(); seed++ {
		if workload(seed).Shards > 1 {
			continue
		}
		left--
		for kind := range 8 {
			for n := 1 + kind%step; ; n += step {
				o := workload(seed)
				o.Fault = &FaultPlan{N: n, Forever: kind&1 != 0, Short: kind&2 != 0, NoSpace: kind&4 != 0}
				r := Play(o, Script(o), false)
				sum.Add(&r.Counters)
				if r.Violation != "" {
					report(t, Shrink(r))
					break
				}
				if r.Counters.N[FaultsMet] == 0 {
					break // the workload has fewer operations
				}
			}
		}
	}
	if sum.N[FaultsMet] == 0 {
		t.Error("no operation ever failed")
	}
	t.Logf("%d workloads, %d runs, %d operations failed, %d times the log failed, %d openings failed; %d crash states", workloads, sum.N[Runs], sum.N[FaultsMet], sum.N[LogFailures],
		sum.N[FailedOpenings], sum.N[CrashStates])
}

// TestCrashAtEveryOperation makes the power fail at the n-th change of the file system, for every n
// of a few workloads. Each recovery is interrupted in the same way, at every early change, and so
// is the recovery after that. An interrupted recovery must lose nothing.
func TestCrashAtEveryOperation(t *testing.T) {
	workloads := uint64(2)
	switch {
	case testing.Short():
		workloads = 1
	case *seedsFlag >= 2000:
		workloads = 12
	}
	var sum Counters
	for seed := uint64(101); seed < 101+workloads && !t.Failed(); seed++ {
		o := workload(seed)
		o.Probe = 100
		r := Play(o, Script(o), false)
		if sum.Add(&r.Counters); r.Violation != "" {
			report(t, Shrink(r))
		}
	}
	if sum.N[ProbesTwice] == 0 {
		t.Error("the power never failed twice in recovery")
	}
	t.Log(fmt.Sprintf("%d workloads: %d crash states, %d with a failure in recovery, %d with two", workloads, sum.N[CrashStates], sum.N[ProbesInRecovery], sum.N[ProbesTwice]))
}
