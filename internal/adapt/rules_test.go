package adapt

import "testing"

// loaded returns a controller in a load phase, during slow start or after it. Its probes measured
// 40 ms.
func loaded(limit float64, slowStart bool) *Controller {
	c := New(0, Settings{})
	c.phase, c.limit, c.slowStart = Load, limit, slowStart
	c.steps = [2]measure{{limit, 1}, {limit, 1}}
	c.base, c.latency, c.loadEnd = 40*ms, 40*ms, never
	c.probes.add(40 * ms)
	c.probes.add(40 * ms)
	c.startWindow(0)
	c.skip = 0
	return c
}

// feed runs one window of jobs with a latency, at the whole limit.
func feed(c *Controller, latency int64) {
	n := c.Working()
	c.skip = 0
	c.Handed(c.now, n)
	at := c.now
	for range n - windowLeast {
		c.Answered(at, Answer{HandedAt: at, Outcome: Returned})
	}
	for i := range windowLeast {
		c.Answered(at+windowTime, Answer{HandedAt: at, Latency: latency})
		if i < windowLeast-n {
			c.Handed(at, 1)
		}
	}
}

func TestThreeWindowsInSequenceAreAnOverload(t *testing.T) {
	c := loaded(32, false)
	for _, latency := range []int64{400, 400, 40, 400, 400} {
		feed(c, latency*ms)
		if c.Working() != 32 {
			t.Fatalf("limit %d after a window of %d ms", c.Working(), latency)
		}
	}
	feed(c, 400*ms)
	if c.Working() != 16 || c.windows.n != 0 {
		t.Fatalf("limit %d, %d windows", c.Working(), c.windows.n)
	}
}

func TestTwoWindowsInSequenceEndSlowStart(t *testing.T) {
	c := loaded(4, true)
	for _, x := range []struct{ latency, limit int64 }{{70, 4}, {40, 6}, {70, 6}, {50, 10}, {70, 10}} {
		feed(c, x.latency*ms)
		if int64(c.Working()) != x.limit || !c.slowStart {
			t.Fatalf("limit %d after a window of %d ms, want %d", c.Working(), x.latency, x.limit)
		}
	}
	feed(c, 70*ms)
	if c.slowStart || c.last().Reason != SlowStartEnd {
		t.Fatalf("slow start goes on: %v", c.last())
	}
}

func TestTheLawNeedsWindowsProbesAndUse(t *testing.T) {
	for _, x := range []struct {
		what            string
		windows, probes int
		ratio           float32
		limit, used     float64
		want            int
	}{
		{"enough", 3, 2, 1, 20, 20, 24},
		{"slow", 3, 2, 3, 20, 20, 15},
		{"two windows", 2, 2, 1, 20, 20, 20},
		{"one probe", 3, 1, 1, 20, 20, 20},
		{"three quarters are used", 3, 2, 1, 20, 15, 24},
		{"less is used", 3, 2, 1, 20, 14, 20},
		{"less is used, and it is slow", 3, 2, 4, 64, 20, 48},
		{"less is used, and a step would go below", 3, 2, 4, 28, 20, 21},
		{"a step below the use", 3, 2, 4, 26, 19.2, 20},
	} {
		c := loaded(x.limit, false)
		c.probes.clear()
		for range x.probes {
			c.probes.add(40 * ms)
		}
		for range x.windows {
			c.windows.add(float64(40 * ms * x.ratio))
		}
		c.used, c.usedN = int64(x.used*1000), 1000
		c.law(0)
		if got := c.Working(); got != x.want {
			t.Errorf("%s: limit %d, want %d", x.what, got, x.want)
		}
		if c.Working() != int(x.limit) && c.windows.n != 0 {
			t.Errorf("%s: windows of the old limit count on", x.what)
		}
	}
}

func TestRareSlowJobsAreNoStall(t *testing.T) {
	r := newRig(t, Settings{}, func(_, n int) int64 { return pickInt(n%20 == 19, 3*second, 100*ms) })
	r.run(600 * second)
	stalls := 0
	for _, c := range r.c.History(nil) {
		if c.Reason == Stalled {
			stalls++
		}
	}
	if stalls > 1 || r.c.Working() != 64 {
		t.Fatalf("%d stalls, limit %d", stalls, r.c.Working())
	}
}

// TestWindowsAreNotOfShortJobsOnly: of jobs that are handed out together, the short ones end first.
// They must not make the latency look low.
func TestWindowsAreNotOfShortJobsOnly(t *testing.T) {
	r := newRig(t, Settings{}, func(_, n int) int64 { return int64(20+2*(n*37%101)) * ms })
	r.run(60 * second)
	for _, c := range r.c.History(nil) {
		if c.From > 8 && c.Ratio < 0.75 {
			t.Errorf("the load does not change latency, and the ratio is %.2f: %v", c.Ratio, c)
		}
	}
}

func TestOneVariedProbeIsNotEnough(t *testing.T) {
	r := newRig(t, Settings{}, func(_, n int) int64 { return int64(ms) << (3 * (n % 4)) })
	for !r.c.wide {
		r.run(ms)
	}
	if r.c.varied {
		t.Fatal("one probe is enough")
	}
	r.run(60 * second)
	if !r.c.varied {
		t.Fatal("latency counts as a signal")
	}
}

func TestSlowJobsTogetherAreNoStragglers(t *testing.T) {
	r := newRig(t, Settings{}, constant(40*ms))
	r.run(5 * second)
	for r.c.phase != Load {
		r.run(ms)
	}
	r.latency = constant(-1) // the target hangs, and the consumers extend their leases
	for range 300 {
		r.run(100 * ms)
		r.c.Extended(r.now)
	}
	if r.c.Limit(r.now) != 1 || r.c.stragglers != 0 {
		t.Fatalf("limit %d, stragglers %d", r.c.Limit(r.now), r.c.stragglers)
	}
}

func TestTimeoutsAreNoSignOfLife(t *testing.T) {
	r := newRig(t, Settings{}, constant(40*ms))
	r.run(5 * second)
	r.latency = constant(-1)
	for range 15 {
		r.run(100 * ms)
		r.c.Answered(r.now, Answer{HandedAt: r.now - second, Outcome: Timeout})
	}
	if !r.c.Status(r.now).Stalled {
		t.Fatal("not stalled")
	}
}

// TestFewSuccessesFillAWindow: the latency of failures is not measured, so a window with few
// successes lasts for several load phases.
func TestFewSuccessesFillAWindow(t *testing.T) {
	r := newRig(t, Settings{}, constant(40*ms))
	r.outcome = func(n int) Answer {
		return Answer{Outcome: Outcome(pickInt(n%40 == 0, int64(Success), int64(BadMessage)))}
	}
	r.run(600 * second)
	if r.c.Working() < 16 {
		t.Fatalf("limit %d", r.c.Working())
	}
}

func TestAQuietProbeDoesNotMakeALongLoadPhase(t *testing.T) {
	r := newRig(t, Settings{}, constant(40*ms))
	r.want = -1
	for range 100 {
		r.hand()
		r.run(10 * second)
		if r.c.phase == Load && r.c.loadEnd-r.c.begun > 3*second {
			t.Fatalf("load phase of %d s", (r.c.loadEnd-r.c.begun)/second)
		}
	}
}

func TestALimitBelowTheLeases(t *testing.T) {
	c := loaded(32, false)
	c.Handed(0, 32)
	c.Answered(ms, Answer{HandedAt: 0, Outcome: Throttle})
	if c.Limit(ms) != 16 || c.InFlight() != 31 {
		t.Fatalf("limit %d, in flight %d", c.Limit(ms), c.InFlight())
	}
}

func TestASampleCoversTheWholeWindow(t *testing.T) {
	for _, n := range []int{1, 63, 64, 65, 127, 1000, 100_000} {
		var s sample
		for i := range n {
			s.add(float32(i))
		}
		if s.seen != n || s.n > len(s.v) || s.n < min(n, len(s.v)/2) {
			t.Fatalf("%d of %d", s.n, n)
		}
		if got, want := s.median(), float64(n-1)/2; got < 0.95*want-1 || got > 1.05*want+1 {
			t.Errorf("median %g of %d", got, n)
		}
	}
}
