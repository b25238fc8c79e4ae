package adapt

import (
	"math"
	"testing"
	"unsafe"
)

const ms = second / 1000

// rig runs jobs of a controller in simulated time. latency returns how long a job lasts, for the
// number of jobs in flight and the job's number.
type rig struct {
	t       *testing.T
	c       *Controller
	now     int64
	latency func(inFlight, n int) int64
	outcome func(n int) Answer // Success if nil
	want    int                // the most jobs in flight that the load can fill; 0 means no bound
	rows    int                // of a job; -1: the batch size
	handed  int
	events  items
}

func newRig(t *testing.T, set Settings, latency func(inFlight, n int) int64) *rig {
	return &rig{t: t, c: New(0, set), latency: latency}
}

func constant(d int64) func(int, int) int64 { return func(int, int) int64 { return d } }

// run hands out jobs up to the limit for some time.
func (r *rig) run(time int64) {
	r.t.Helper()
	end := r.now + time
	for {
		r.pump()
		next := end
		if len(r.events) > 0 {
			next = min(next, int64(r.events[0].at))
		}
		if at := r.c.Next(); at > 0 {
			next = min(next, max(at, r.now))
		}
		r.now = next
		if at := r.c.Next(); at > 0 && r.now >= at {
			r.c.Tick(r.now)
			if again := r.c.Next(); again > 0 && again <= r.now {
				r.t.Fatalf("Next is %d after a Tick at %d", again, r.now)
			}
		}
		r.check()
		switch {
		case len(r.events) > 0 && int64(r.events[0].at) <= r.now:
			r.events.pop().do()
		case r.now >= end:
			return
		}
	}
}

func (r *rig) pump() {
	for r.c.InFlight() < r.c.Limit(r.now) && (r.want == 0 || r.c.InFlight() < r.want) {
		r.hand()
	}
}

func (r *rig) hand() {
	at, n := r.now, r.handed
	r.handed++
	r.c.Handed(at, 1)
	rows := r.rows
	if rows < 0 {
		rows = r.c.BatchSize()
	}
	d := r.latency(r.c.InFlight(), n)
	if d < 0 {
		return // a job with a negative latency never ends
	}
	r.events.push(item{float64(at + d), func() {
		a := Answer{}
		if r.outcome != nil {
			a = r.outcome(n)
		}
		a.HandedAt, a.Latency, a.Rows = at, d, rows
		r.c.Answered(r.now, a)
		r.check()
	}})
}

func (r *rig) check() {
	r.t.Helper()
	if w := r.c.Working(); w < r.c.set.Min || w > r.c.set.Max {
		r.t.Fatalf("limit %d is not within %d and %d", w, r.c.set.Min, r.c.set.Max)
	}
}

// reasons returns the reasons of the history, in order and without repetition.
func (r *rig) reasons() (all []Reason) {
	for _, c := range r.c.History(nil) {
		if len(all) == 0 || all[len(all)-1] != c.Reason {
			all = append(all, c.Reason)
		}
	}
	return all
}

func (r *rig) expect(want ...Reason) {
	r.t.Helper()
	got := r.reasons()
	if len(got) != len(want) {
		r.t.Fatalf("reasons %v, want %v", got, want)
	}
	for i := range got {
		if got[i] != want[i] {
			r.t.Fatalf("reasons %v, want %v", got, want)
		}
	}
}

// usl returns a latency of 40 ms, increased by the Universal Scalability Law.
func usl(inFlight, _ int) int64 {
	n := float64(inFlight)
	return int64(40 * ms * (1 + sigma*(n-1) + kappa*n*(n-1)))
}

func TestConvergesToTheToleranceOfAKnownTarget(t *testing.T) {
	for _, tolerance := range []float64{1.5, 2, 3} {
		r := newRig(t, Settings{Tolerance: tolerance}, usl)
		r.run(300 * second)
		// 1 + σ(n−1) + κn(n−1) = tolerance, solved for n.
		b, c := sigma-kappa, 1-sigma-tolerance
		want := (-b + math.Sqrt(b*b-4*kappa*c)) / (2 * kappa)
		got := float64(r.c.Working())
		if math.Abs(got-want) > 1+0.1*want {
			t.Errorf("tolerance %.1f: limit %.0f, want about %.1f\n%v", tolerance, got, want, r.c.History(nil))
		}
	}
}

func TestLaw(t *testing.T) {
	for _, x := range []struct{ tolerance, ratio, want float64 }{
		{1.5, 1.5, 1}, {1.5, 1.57, 1}, {1.5, 1.43, 1}, // ratios within lawBand of the tolerance change nothing
		{1.5, 1.6, math.Sqrt(1.5 / 1.6)}, {1.5, 1.2, math.Sqrt(1.25)},
		{1.5, 1, math.Sqrt(1.5)}, {2, 1, 1.33}, {1.5, 3, 0.75}, {1.5, 1e9, 0.75}, {1.5, 1e-9, 1.33}, {1.5, 0, 1.33},
	} {
		if got := factor(x.tolerance, x.ratio); math.Abs(got-x.want) > 1e-9 {
			t.Errorf("factor(%g, %g) = %g, want %g", x.tolerance, x.ratio, got, x.want)
		}
	}
}

func TestASteadyTargetWithoutACongestionIsUsedFully(t *testing.T) {
	r := newRig(t, Settings{}, constant(40*ms))
	r.run(10 * second)
	if got := r.c.Working(); got != 64 {
		t.Fatalf("limit %d", got)
	}
	r.expect(Started, SlowStart)
}

func TestProbesCostATenthOfTheTime(t *testing.T) {
	r := newRig(t, Settings{}, usl)
	r.run(20 * second)
	var probe int64
	for range 6000 {
		r.run(10 * ms)
		if r.c.phase == Probe {
			probe += 10 * ms
		}
	}
	if share := float64(probe) / float64(60*second); share < 0.05 || share > 0.12 {
		t.Fatalf("probes took %.3f of the time", share)
	}
}

func TestAProbeWaitsForOlderJobs(t *testing.T) {
	// 20 jobs of 500 ms run when the probe begins. Jobs of the probe last 10 ms.
	r := newRig(t, Settings{}, constant(10*ms))
	r.run(2 * second)
	r.latency = constant(500 * ms)
	for r.c.phase != Probe {
		r.run(ms)
	}
	if r.c.older < 10 {
		t.Fatalf("only %d older jobs", r.c.older)
	}
	r.latency = constant(10 * ms)
	for r.c.phase == Probe {
		r.run(ms)
	}
	if got := r.c.base; got != 10*ms {
		t.Fatalf("the baseline is %g ms", got/ms)
	}
}

func TestOnlySuccessesOfFullBatchesAreLatency(t *testing.T) {
	for _, a := range []Answer{{Outcome: BadMessage}, {Outcome: BadBatch}, {Outcome: Down}, {Outcome: Returned}, {Outcome: Timeout}, {Partial: true}} {
		r := newRig(t, Settings{}, constant(10*ms))
		r.outcome = func(int) Answer { return a }
		r.run(20 * second)
		if r.c.probe.n != 0 || r.c.probes.n != 0 {
			t.Errorf("%+v counted as latency", a)
		}
	}
}

func TestBatchesCountPerRow(t *testing.T) {
	r := newRig(t, Settings{BatchMax: 500}, constant(100*ms))
	r.rows = 500
	r.run(5 * second)
	if r.c.base != 0.2*ms || r.c.Status(r.now).Latency != 100*ms {
		t.Fatalf("baseline %g, latency %d", r.c.base, r.c.latency)
	}
}

func TestAnUnusedLimitIsNotRaised(t *testing.T) {
	r := newRig(t, Settings{}, constant(40*ms))
	r.want = 6
	r.run(60 * second)
	if got := r.c.Working(); got < 6 || got > 9 {
		t.Fatalf("limit %d for a load of 6", got)
	}
}

func TestAnUnusedLimitIsLoweredToItsUseOnly(t *testing.T) {
	r := newRig(t, Settings{}, constant(40*ms))
	r.run(10 * second)
	r.want = 20
	r.latency = func(n, _ int) int64 { return pickInt(n > 1, 44*ms, 20*ms) } // ratio 2.2, caused by other programs' load
	r.run(20 * second)
	if got := r.c.Working(); got > 20 {
		t.Fatalf("limit %d, used 20, ratio 2.2", got)
	}
	r = newRig(t, Settings{}, r.latency)
	r.want = 2
	r.c.limit, r.c.slowStart = 12, false
	for r.c.Working() > 2 && r.now < 60*second {
		r.run(ms)
	}
	if got := r.c.Working(); got != 2 {
		t.Fatalf("limit %d, used 2", got)
	}
}

func pickInt(on bool, a, b int64) int64 {
	if on {
		return a
	}
	return b
}

func TestThrottleHalvesOncePerRoundTripAndPauses(t *testing.T) {
	r := newRig(t, Settings{}, constant(40*ms))
	r.run(10 * second)
	for r.c.phase != Load || r.c.InFlight() < 64 {
		r.run(ms)
	}
	for range 64 { // the answers of one round trip: all these jobs were handed out before the first answer
		r.c.Answered(r.now, Answer{HandedAt: r.now - 10*ms, Outcome: Throttle, RetryAfter: 3 * second})
	}
	if got := r.c.Working(); got != 32 {
		t.Fatalf("limit %d, want 32", got)
	}
	if r.c.Limit(r.now) != 0 || r.c.Limit(r.now+3*second-1) != 0 || r.c.Limit(r.now+3*second) == 0 {
		t.Fatal("the pause is wrong")
	}
	if r.c.PausedUntil() != r.now+3*second || r.c.Next() == 0 || r.c.Next() > r.now+3*second {
		t.Fatalf("paused until %d, next %d", r.c.PausedUntil(), r.c.Next())
	}
	r.c.Handed(r.now+4*second, 1)
	r.c.Answered(r.now+4*second, Answer{HandedAt: r.now + 4*second, Outcome: Throttle})
	if got := r.c.Working(); got != 16 {
		t.Fatalf("limit %d after a second refusal, want 16", got)
	}
}

func TestOverloadHalves(t *testing.T) {
	for _, failure := range []Outcome{Success, Timeout, Down} {
		r := newRig(t, Settings{}, constant(40*ms))
		r.run(5 * second)
		for r.c.phase != Load {
			r.run(ms)
		}
		if failure != Success {
			r.outcome = func(n int) Answer { return Answer{Outcome: Outcome(pickInt(n%3 == 0, int64(failure), int64(Success)))} }
		} else {
			r.latency = constant(400 * ms) // ratio 10
		}
		r.run(2 * second)
		r.expect(Started, SlowStart, Overload)
	}
}

func TestStall(t *testing.T) {
	r := newRig(t, Settings{}, constant(40*ms))
	r.run(5 * second)
	for r.c.phase != Load {
		r.run(ms)
	}
	r.latency = constant(-1)
	r.run(900 * ms)
	if r.c.Status(r.now).Stalled {
		t.Fatal("stalled too early")
	}
	r.run(200 * ms)
	if s := r.c.Status(r.now); !s.Stalled || s.Limit != 1 || s.Latency != 0 {
		t.Fatalf("%+v", s)
	}
	r.expect(Started, SlowStart, Stalled)
	r.c.Extended(r.now)
	if r.c.Status(r.now).Stalled {
		t.Fatal("an extension is a sign of life")
	}
	// All jobs end by their deadline, and the target is back.
	r.latency = constant(40 * ms)
	for r.c.InFlight() > 0 {
		r.c.Answered(r.now, Answer{HandedAt: r.now - second, Outcome: Timeout})
	}
	r.run(5 * second)
	if r.c.Working() != 64 {
		t.Fatalf("limit %d after the stall", r.c.Working())
	}
}

func TestAStragglerDoesNotBlockProbes(t *testing.T) {
	r := newRig(t, Settings{}, constant(40*ms))
	r.latency = func(_, n int) int64 { return pickInt(n == 100, -1, 40*ms) } // a consumer never answers for one message
	r.run(5 * second)
	probes := r.c.probes.n
	for range 60 {
		r.run(second / 2)
		r.c.Extended(r.now) // the consumer extends the lease of that message
	}
	if r.c.stragglers != 1 || r.c.probes.n <= probes || r.c.Working() != 64 {
		t.Fatalf("stragglers %d, probes %d, limit %d", r.c.stragglers, r.c.probes.n, r.c.Working())
	}
}

func TestBeginsLow(t *testing.T) {
	r := newRig(t, Settings{Min: 2}, constant(40*ms))
	r.run(10 * second)
	for _, reason := range []Reason{Resumed, BreakerOpen} {
		if r.c.Working() != 64 {
			t.Fatalf("limit %d", r.c.Working())
		}
		r.c.Reset(r.now, reason)
		if r.c.Limit(r.now) != 2 || r.c.last().Reason != reason || r.c.RampWindows() != 0 || r.c.windows.n != 0 {
			t.Fatalf("limit %d, %v", r.c.Limit(r.now), r.c.last())
		}
		r.run(10 * second)
		if r.c.RampWindows() < 3 {
			t.Fatalf("%d windows", r.c.RampWindows())
		}
	}
	for len(r.events) > 0 { // let the jobs end, without new ones
		r.now = int64(r.events[0].at)
		r.events.pop().do()
	}
	idle := r.now
	for at := r.c.Next(); at != 0; at = r.c.Next() {
		r.now = at
		r.c.Tick(at)
	}
	if r.now != idle+IdleAfter || r.c.Limit(r.now) != 2 || r.c.last().Reason != Idle {
		t.Fatalf("idle since %d, now %d, limit %d", idle, r.now, r.c.Limit(r.now))
	}
}

func TestTinyLoadHolds(t *testing.T) {
	r := newRig(t, Settings{}, constant(40*ms))
	r.want = -1 // hand out only the jobs of this test
	for range 600 {
		r.hand()
		r.run(100 * ms)
		if r.c.Working() > 2 {
			t.Fatalf("limit %d for one job at a time", r.c.Working())
		}
	}
}

func TestLongJobsAreProbedRarely(t *testing.T) {
	r := newRig(t, Settings{}, func(n, i int) int64 { return int64(60*second) + int64(i%7)*second })
	r.want = 1
	r.run(4 * 66 * second)
	if r.c.phase != Load {
		t.Fatal("the first probe needs more than three jobs")
	}
	for r.c.phase == Load {
		r.run(second)
		if r.now > 10*3600*second {
			t.Fatal("no second probe")
		}
	}
	if r.handed < 50 {
		t.Fatalf("second probe after %d jobs", r.handed)
	}
}

func TestLatencyTooVaried(t *testing.T) {
	r := newRig(t, Settings{}, func(_, n int) int64 { return int64(ms) << (3 * (n % 4)) }) // 1, 8, 64 and 512 ms
	r.run(60 * second)
	s := r.c.Status(r.now)
	if !s.TooVaried {
		t.Fatalf("%+v", s)
	}
	r.run(600 * second)
	if got := r.c.Status(r.now).Limit; got <= s.Limit {
		t.Fatalf("limit %d after %d: it does not rise without errors", got, s.Limit)
	}
	limit := r.c.Working()
	r.c.Answered(r.now, Answer{HandedAt: r.now, Outcome: Throttle})
	if got := r.c.Working(); got != limit/2 {
		t.Fatalf("limit %d after %d and a refusal", got, limit)
	}
}

func TestOneLane(t *testing.T) {
	r := newRig(t, Settings{Max: 1, BatchMax: 1000}, nil)
	r.rows = -1
	r.latency = func(int, int) int64 { return int64(r.c.BatchSize()) * 50 * ms }
	r.run(120 * second)
	if r.c.Working() != 1 || r.c.BatchSize() != 16 {
		t.Fatalf("limit %d, batch %d", r.c.Working(), r.c.BatchSize())
	}
	r.expect(Started, BatchSlow)
}

func TestBatchSize(t *testing.T) {
	r := newRig(t, Settings{BatchMax: 1000}, constant(100*ms))
	r.rows = -1
	r.run(5 * second)
	if r.c.BatchSize() != 1000 {
		t.Fatalf("batch %d: the time of a batch does not depend on its size", r.c.BatchSize())
	}
	r.c.Handed(r.now, 3) // for the three answers below
	r.c.Answered(r.now, Answer{HandedAt: r.now, Rows: 1000, Outcome: Timeout})
	if r.c.BatchSize() != 500 {
		t.Fatalf("batch %d after a time-out", r.c.BatchSize())
	}
	if r.c.phase != Probe || r.c.probes.n != 0 {
		t.Fatal("a new size voids the baseline")
	}
	r.c.Answered(r.now, Answer{HandedAt: r.now - ms, Rows: 1000, Outcome: Timeout})
	if r.c.BatchSize() != 500 {
		t.Fatalf("batch %d: an older batch halved it again", r.c.BatchSize())
	}
	r.c.Answered(r.now, Answer{HandedAt: r.now, Rows: 100, Outcome: TooLarge})
	if r.c.BatchSize() != 50 {
		t.Fatalf("batch %d after 100 rows were too large", r.c.BatchSize())
	}
	r.run(10 * second)
	if r.c.BatchSize() != 50 {
		t.Fatalf("batch %d after a few good cycles\n%v", r.c.BatchSize(), r.c.History(nil))
	}
	r.run(1000 * second)
	if r.c.BatchSize() != 1000 {
		t.Fatalf("batch %d after many good cycles", r.c.BatchSize())
	}
}

func TestHistoryKeepsTheLast(t *testing.T) {
	r := newRig(t, Settings{}, constant(10*ms))
	for range 50 {
		r.run(2 * second)
		r.c.Reset(r.now, Resumed)
	}
	h := r.c.History(nil)
	if len(h) != HistorySize || h[len(h)-1].Reason != Resumed || r.c.Changes() <= HistorySize {
		t.Fatalf("%d of %d changes, last %v", len(h), r.c.Changes(), h[len(h)-1])
	}
	for i := 1; i < len(h); i++ {
		if h[i].At < h[i-1].At || h[i].From != h[i-1].To {
			t.Fatalf("change %d does not follow: %v, %v", i, h[i-1], h[i])
		}
	}
}

func TestReasonsHaveWords(t *testing.T) {
	seen := map[string]bool{}
	for r := range reasons {
		if r.String() == "" || r.Sentence() == "" || seen[r.String()] {
			t.Errorf("reason %d: %q, %q", r, r, r.Sentence())
		}
		seen[r.String()] = true
	}
	if got := (Change{From: 4, To: 3, Reason: TooSlow, Ratio: 2}).String(); got != "limit 4 → 3. The target is slower than the tolerance allows. Latency is 2.00 × that at the smallest limit." {
		t.Error(got)
	}
}

func TestSettings(t *testing.T) {
	for _, s := range []Settings{{}, {Min: 1, Max: 1}, {Min: 100}, {Tolerance: 1.2}, {Max: LimitMax, Tolerance: ToleranceMax}} {
		if err := s.Validate(); err != nil {
			t.Errorf("%+v: %v", s, err)
		}
	}
	for _, s := range []Settings{{Min: -1}, {Min: 5, Max: 4}, {Max: LimitMax + 1}, {Tolerance: 1.19}, {Tolerance: math.NaN()}, {Tolerance: 11}, {BatchMax: -1}} {
		if s.Validate() == nil {
			t.Errorf("%+v is valid", s)
		}
	}
}

func TestConfigure(t *testing.T) {
	r := newRig(t, Settings{}, constant(40*ms))
	r.run(10 * second)
	r.c.Configure(r.now, Settings{Max: 10})
	if r.c.Working() != 10 {
		t.Fatalf("limit %d", r.c.Working())
	}
	r.c.Configure(r.now, Settings{Min: 20, BatchMax: 7})
	if r.c.Working() != 20 || r.c.BatchSize() != 7 {
		t.Fatalf("limit %d, batch %d", r.c.Working(), r.c.BatchSize())
	}
	r.run(10 * second)
	if r.c.Working() != 64 {
		t.Fatalf("limit %d", r.c.Working())
	}
}

func TestMemory(t *testing.T) {
	if size := unsafe.Sizeof(Controller{}); size > 3000 {
		t.Errorf("a Controller needs %d bytes", size)
	}
}

// TestRivalsFollowTheirLaws checks the other controllers of the scenarios against computed numbers.
func TestRivalsFollowTheirLaws(t *testing.T) {
	a := &aimd{l: 1}
	for range 1 + 2 + 3 + 4 {
		a.answered(0, Answer{})
	}
	if a.l < 4.3 || a.l > 5 { // grows by 1 in each round trip
		t.Errorf("AIMD: %g", a.l)
	}
	l := a.l
	a.answered(1, Answer{Outcome: Down})
	a.answered(1, Answer{Outcome: Down})
	if a.l != l/2 {
		t.Errorf("AIMD: %g after %g and two errors of one round", a.l, l)
	}
	g := &gradient2{l: 10}
	for i := range int64(10) {
		g.answered(i*second/9, Answer{Latency: ms})
	}
	if math.Abs(g.l-10.8) > 1e-9 { // gradient 1: 0.8 × l + 0.2 × (l + 4)
		t.Errorf("Gradient2: %g", g.l)
	}
	v := &vegas{l: 10}
	for i := range int64(10) {
		v.answered(i*second/9, Answer{Latency: ms})
	}
	if v.l != 16 { // no queue: + 6 × log₁₀ 10
		t.Errorf("Vegas: %g", v.l)
	}
}
