package breaker

import (
	"reflect"
	"testing"
	"unsafe"
)

const ms = second / 1000

// rig drives a breaker in fake time.
type rig struct {
	t    *testing.T
	b    *Breaker
	now  int64
	seq  uint64
	last Verdict
}

func newRig(t *testing.T, set Settings) *rig { return &rig{t: t, b: New(set), now: 100 * second} }

// answers reports n answers of messages in different groups, each handed out at this moment.
func (r *rig) answers(n int, o Outcome) *rig {
	for range n {
		r.seq++
		r.last = r.b.Answered(r.now, Answer{Seq: r.seq, Group: r.seq, Attempt: 1, HandedAt: r.now, Outcome: o})
	}
	return r
}

func (r *rig) after(d int64) *rig {
	r.now += d
	r.b.Tick(r.now)
	return r
}

func (r *rig) state(want State) *rig {
	r.t.Helper()
	if got := r.b.State(); got != want {
		r.t.Fatalf("state %v, want %v", got, want)
	}
	return r
}

// probe hands out a probe and ends it.
func (r *rig) probe(o Outcome, retryAfter int64) *rig {
	r.t.Helper()
	if r.b.MayHand() != One {
		r.t.Fatalf("state %v lets no probe out", r.b.State())
	}
	r.seq++
	r.b.ProbeHanded(r.now, r.seq)
	if r.b.MayHand() != None {
		r.t.Fatal("a second probe may go")
	}
	r.last = r.b.Answered(r.now, Answer{Seq: r.seq, HandedAt: r.now, Outcome: o, RetryAfter: retryAfter})
	return r
}

// down opens the breaker.
func (r *rig) down() *rig {
	r.t.Helper()
	return r.state(Closed).answers(1, Success).answers(5, Down).state(Open)
}

func (r *rig) refunded() (seqs []uint64) {
	for _, f := range r.b.Refunds() {
		seqs = append(seqs, f.Seq)
	}
	return seqs
}

func TestDownWithoutALifeSignOpens(t *testing.T) {
	r := newRig(t, Settings{})
	r.answers(1, Success).answers(4, Down).state(Closed)
	if r.last != (Verdict{}) {
		t.Fatalf("%+v: a failure counts while the breaker is closed", r.last)
	}
	r.answers(1, Down).state(Open)
	if r.last != (Verdict{Uncounted: true, Opened: true}) {
		t.Fatalf("%+v", r.last)
	}
	if got, want := r.refunded(), []uint64{2, 3, 4, 5}; !reflect.DeepEqual(got, want) {
		t.Fatalf("refunds %v, want %v: the last one is uncounted already", got, want)
	}
	if s := r.b.Status(); s.Cause != DownReported || s.Down != r.now || s.NextProbe != r.now+second {
		t.Fatalf("%+v", s)
	}
	if r.b.MayHand() != None {
		t.Fatal("an open breaker hands out")
	}
}

func TestTheFirstAnswerCanOpen(t *testing.T) {
	newRig(t, Settings{}).answers(1, Down).state(Open)
}

func TestBadMessagesAreSignsOfLife(t *testing.T) {
	r := newRig(t, Settings{})
	for range 200 {
		r.answers(1, BadMessage).answers(4, Down).state(Closed)
	}
}

func TestPoisonDoesNotOpen(t *testing.T) {
	r := newRig(t, Settings{})
	for range 200 { // 90 % of the messages fail
		r.answers(9, Failed).answers(1, Success).after(10 * ms).state(Closed)
	}
}

func TestErrorShare(t *testing.T) {
	r := newRig(t, Settings{})
	r.answers(10, Success).answers(9, Failed).state(Closed)
	r.answers(1, Failed).state(Open) // 20 answers, 10 failures, 10 in sequence
	if got := len(r.refunded()); got != 9 {
		t.Fatalf("%d refunds", got)
	}
	if r.b.Status().Cause != ErrorShare {
		t.Fatal(r.b.Status().Cause)
	}

	r = newRig(t, Settings{})
	r.answers(19, Failed).state(Closed) // too few answers
	r.after(10*second).answers(19, Failed).state(Closed)

	r = newRig(t, Settings{})
	r.answers(11, Success).answers(10, Failed).state(Closed) // below one half
	r.answers(1, Failed).state(Open)

	r = newRig(t, Settings{}) // too few groups
	for i := range 100 {
		r.seq++
		r.b.Answered(r.now, Answer{Seq: r.seq, Group: uint64(i%4) + 1, HandedAt: r.now, Outcome: Failed})
	}
	r.state(Closed)
	r.answers(1, Failed).state(Open)

	r = newRig(t, Settings{}) // without groups each message counts
	for range 20 {
		r.seq++
		r.b.Answered(r.now, Answer{Seq: r.seq, HandedAt: r.now, Outcome: Failed})
	}
	r.state(Open)

	r = newRig(t, Settings{}) // one message without a group, again and again
	for range 100 {
		r.b.Answered(r.now, Answer{Seq: 7, HandedAt: r.now, Outcome: Failed})
	}
	r.state(Closed)
}

func TestErrorShareCountsRecentGroupsAndNoDownReports(t *testing.T) {
	r := newRig(t, Settings{}).answers(1, Success).answers(10, Failed).after(11 * second)
	for range 30 {
		r.b.Answered(r.now, Answer{Seq: 99, Group: 99, HandedAt: r.now, Outcome: Failed})
	}
	r.state(Closed)
	r.answers(4, Failed).state(Open)

	r = newRig(t, Settings{})
	for range 4 {
		r.answers(1, Success).answers(4, Down)
	}
	r.answers(1, Success).answers(10, Failed).state(Closed)
}

func TestOnlyTheProbeEndsTheProbe(t *testing.T) {
	r := newRig(t, Settings{}).down().after(second)
	r.b.ProbeHanded(r.now, 7)
	r.b.Answered(r.now, Answer{Seq: 7, HandedAt: r.now - 20*second, Outcome: Down}) // its lease from before
	r.state(Probing)
	r.b.Answered(r.now, Answer{Seq: 8, HandedAt: r.now, Outcome: Success})
	r.state(Probing)
	r.b.Answered(r.now, Answer{Seq: 7, HandedAt: r.now, Outcome: Success})
	r.state(Ramp)
}

func TestAWindowOfFailuresDoesNotGrow(t *testing.T) {
	r := newRig(t, Settings{Limit: 20}).down().after(second).probe(Success, 0)
	r.after(100*ms).answers(1, Failed)
	if got := r.b.RampLimit(); got != 1 {
		t.Fatalf("ramp limit %d", got)
	}
}

func TestSilence(t *testing.T) {
	timeout := func(r *rig, seq uint64, handed int64) {
		r.b.Answered(r.now, Answer{Seq: seq, Attempt: 1, HandedAt: handed, Outcome: Timeout})
	}
	r := newRig(t, Settings{})
	timeout(r, 1, r.now-30*second)
	r.state(Closed) // one message can hang its consumer
	timeout(r, 1, r.now-30*second)
	r.state(Closed)
	timeout(r, 2, r.now-30*second)
	r.state(Open)
	if got := r.refunded(); !reflect.DeepEqual(got, []uint64{1, 1}) || r.b.Status().Cause != Silence {
		t.Fatalf("refunds %v, cause %v", got, r.b.Status().Cause)
	}

	for _, o := range []Outcome{Success, BadMessage, Failed, Throttle, Returned} {
		r = newRig(t, Settings{})
		timeout(r, 1, r.now-30*second)
		r.after(second).answers(1, o)
		timeout(r, 2, r.now-30*second) // something came back after they were handed out
		timeout(r, 3, r.now-30*second)
		r.state(Closed)
	}
}

func TestThrottleAndReturnsAreNoEvidence(t *testing.T) {
	r := newRig(t, Settings{})
	r.answers(100, Throttle).answers(100, Returned).state(Closed)
	if r.b.ParkDelay(r.now) != 0 || r.b.answers != 0 {
		t.Fatal("they count")
	}
}

func TestPausesGrow(t *testing.T) {
	r := newRig(t, Settings{}).down()
	want := []int64{1000, 1500, 2250, 3375, 5062, 7593, 11390, 17085, 25628, 30000, 30000}
	for _, pause := range want {
		if got := (r.b.Next() - r.now) / ms; got != pause {
			t.Fatalf("pause %d ms, want %d ms", got, pause)
		}
		r.after(r.b.Next() - r.now - 1).state(Open).after(1).state(Probing)
		r.probe(Down, 0).state(Open)
		if r.last != (Verdict{Uncounted: true, Opened: true}) || len(r.b.Refunds()) != 0 {
			t.Fatalf("%+v, refunds %v", r.last, r.b.Refunds())
		}
	}
	r.after(30*second).probe(Down, 100*second)
	if got := r.b.Next() - r.now; got != 100*second {
		t.Fatalf("Retry-After of 100 s: pause %d", got)
	}
	r.after(100*second).probe(Success, 0).state(Ramp).b.close(r.now)
	r.down()
	if got := r.b.Next() - r.now; got != second {
		t.Fatalf("a new outage begins with a pause of %d", got)
	}
}

func TestProbe(t *testing.T) {
	// The scripts of the design: a probe meets a bad message.
	r := newRig(t, Settings{}).down().after(second)
	r.probe(BadMessage, 0).state(Ramp)
	if r.last.Uncounted {
		t.Fatal("a bad message is counted, so that it can be parked")
	}
	for _, o := range []Outcome{Failed, Timeout, Down, Throttle} {
		r = newRig(t, Settings{}).down().after(second).probe(o, 0).state(Open)
		if avoid, ok := r.b.AvoidProbe(); !ok || avoid != r.seq || !r.last.Uncounted {
			t.Fatalf("%d: avoid %d %t, %+v", o, avoid, ok, r.last)
		}
	}
	r = newRig(t, Settings{}).down().after(second).probe(Returned, 0).state(Probing)
	r.probe(Success, 0).state(Ramp)
	if got := r.b.History(nil); len(got) != 1 || got[0].Probes != 2 || got[0].Refunds != 4 {
		t.Fatalf("%+v", got)
	}
}

func TestAProbeHasADeadline(t *testing.T) {
	r := newRig(t, Settings{})
	r.b.Answered(r.now, Answer{HandedAt: r.now, Latency: 2 * second})
	r.down().after(second).state(Probing)
	if r.b.Next() != 0 {
		t.Fatal("a deadline without a probe")
	}
	r.b.ProbeHanded(r.now, 99)
	if got := r.b.Next() - r.now; got != 20*second {
		t.Fatalf("deadline after %d, want 10 × 2 s", got)
	}
	r.after(19 * second)
	r.b.Extended(r.now, 99)
	r.after(20*second - 1).state(Probing).after(1).state(Open)
	if r.b.Status().Cause != ProbeSilent || r.b.Next()-r.now != 1500*ms {
		t.Fatalf("%+v", r.b.Status())
	}
	// The late answer is no evidence, and costs no attempt.
	if v := r.b.Answered(r.now, Answer{Seq: 99, HandedAt: r.now - 39*second, Outcome: Down}); !v.Uncounted || v.Opened {
		t.Fatalf("%+v", v)
	}
}

func TestLeasesFromBeforeAreNoEvidence(t *testing.T) {
	r := newRig(t, Settings{}).down()
	late := func(o Outcome) Verdict {
		r.seq++
		return r.b.Answered(r.now, Answer{Seq: r.seq, Group: r.seq, HandedAt: 99 * second, Outcome: o})
	}
	check := func() {
		t.Helper()
		was := r.b.State()
		for _, o := range []Outcome{Failed, Timeout, Down} {
			for range 50 {
				if v := late(o); !v.Uncounted || v.Opened {
					t.Fatalf("in state %v: %+v", was, v)
				}
			}
		}
		for _, o := range []Outcome{Success, BadMessage} {
			if v := late(o); v != (Verdict{}) {
				t.Fatalf("in state %v: %+v", was, v)
			}
		}
		r.state(was)
	}
	check()
	r.after(second).state(Probing)
	check()
	r.probe(Success, 0).state(Ramp)
	check()
	r.b.close(r.now)
	check()
}

func TestOwnRamp(t *testing.T) {
	r := newRig(t, Settings{Limit: 20}).down().after(second).probe(Success, 0).state(Ramp)
	for _, want := range []int{1, 2, 4, 8, 16} {
		r.state(Ramp)
		if got := r.b.RampLimit(); got != want || r.b.MayHand() != All {
			t.Fatalf("ramp limit %d, want %d", got, want)
		}
		r.answers(min(want, 8), Success)
		if r.b.RampLimit() != want {
			t.Fatal("a window is shorter than 100 ms")
		}
		r.after(100*ms).answers(1, Success)
	}
	r.state(Closed)
	if r.b.RampLimit() != 0 {
		t.Fatal("a limit while closed")
	}
}

func TestAdaptiveRamp(t *testing.T) {
	r := newRig(t, Settings{Adaptive: true}).down().after(second).probe(Success, 0)
	if r.b.RampLimit() != 0 {
		t.Fatal("the adaptive limit rules alone")
	}
	r.b.Ramped(r.now, 2)
	r.state(Ramp)
	r.b.Ramped(r.now, 3)
	r.state(Closed)
	if h := r.b.History(nil); h[0].Ended != r.now {
		t.Fatalf("%+v", h)
	}
}

func TestARampOfAQuietQueueEnds(t *testing.T) {
	r := newRig(t, Settings{Adaptive: true}).down().after(second).probe(Success, 0)
	r.after(60 * second).state(Ramp) // no answers
	r.answers(1, Success).answers(1, Failed).after(60 * second).state(Ramp)
	r.after(60 * second).state(Closed)
}

func TestDownInARampKeepsThePause(t *testing.T) {
	r := newRig(t, Settings{}).down().after(second).probe(Down, 0).after(1500*ms).probe(Success, 0).state(Ramp)
	r.answers(3, Failed).answers(1, Down).state(Open)
	if got := r.b.Next() - r.now; got != 1500*ms || !r.last.Opened || len(r.b.Refunds()) != 3 {
		t.Fatalf("pause %d, %+v, refunds %v", got, r.last, r.b.Refunds())
	}
	if h := r.b.History(nil); len(h) != 1 || h[0].Ended != 0 || r.b.Counts().Openings != 1 {
		t.Fatalf("one outage, not two: %+v", h)
	}
}

func TestCommands(t *testing.T) {
	r := newRig(t, Settings{})
	if r.b.CloseBy(r.now, "ann", "") {
		t.Fatal("it is closed")
	}
	r.answers(1, Success).answers(3, Failed)
	if !r.b.OpenBy(r.now, "ann", "migration") || len(r.b.Refunds()) != 3 {
		t.Fatal("not opened")
	}
	r.after(1000 * second).state(Held)
	if r.b.Next() != 0 || r.b.MayHand() != None {
		t.Fatal("a held breaker ends by a command only")
	}
	if v := r.b.Answered(r.now, Answer{HandedAt: 0, Outcome: Down}); !v.Uncounted {
		t.Fatal("a failure counts")
	}
	if s := r.b.Status(); s.By != "ann" || s.Why != "migration" || s.Cause != Command {
		t.Fatalf("%+v", s)
	}
	if !r.b.CloseBy(r.now, "bob", "done") {
		t.Fatal("not closed")
	}
	r.state(Ramp)
	h := r.b.History(nil)
	if len(h) != 1 || h[0].By != "ann" || h[0].ClosedBy != "bob" || h[0].ClosedWhy != "done" {
		t.Fatalf("%+v", h)
	}
	// From every state.
	for _, prepare := range []func(*rig){
		func(r *rig) {},
		func(r *rig) { r.down() },
		func(r *rig) { r.down().after(second) },
		func(r *rig) { r.down().after(second); r.b.ProbeHanded(r.now, 1) },
		func(r *rig) { r.down().after(second).probe(Success, 0) },
	} {
		r := newRig(t, Settings{})
		prepare(r)
		r.b.OpenBy(r.now, "ann", "")
		r.state(Held).b.CloseBy(r.now, "ann", "")
		r.state(Ramp)
	}
}

func TestParkDelay(t *testing.T) {
	r := newRig(t, Settings{})
	r.answers(30, Success).answers(10, Failed)
	if got := r.b.ParkDelay(r.now); got != 0 {
		t.Fatalf("%d at 25 %%", got)
	}
	r.answers(1, Failed)
	if got := r.b.ParkDelay(r.now); got != 10*second {
		t.Fatalf("%d above 25 %%", got)
	}
	r.now += 10 * second
	if got := r.b.ParkDelay(r.now); got != 0 {
		t.Fatalf("%d after ten quiet seconds", got)
	}
}

func TestRefundsAreRecentAndBounded(t *testing.T) {
	r := newRig(t, Settings{})
	r.answers(3, Failed).answers(1, Success).after(10*second+1).answers(1, Success) // old poison
	r.answers(2, Failed).answers(1, Success)                                        // in the last 10 s
	r.answers(4, Failed).answers(1, Down).state(Open)
	if got, want := r.refunded(), []uint64{6, 7, 9, 10, 11, 12}; !reflect.DeepEqual(got, want) {
		t.Fatalf("refunds %v, want %v", got, want)
	}
	// A slow outage: failures since the last sign of life count, however old.
	r = newRig(t, Settings{}).answers(1, Success)
	for range 5 {
		r.after(60*second).answers(1, Down)
	}
	if r.state(Open); len(r.b.Refunds()) != 4 {
		t.Fatalf("refunds %v", r.b.Refunds())
	}
	// At most the last 64. Few groups keep the breaker closed.
	r = newRig(t, Settings{}).answers(1, Success)
	for range 200 {
		r.seq++
		r.b.Answered(r.now, Answer{Seq: r.seq, Group: 1, HandedAt: r.now, Outcome: Failed})
	}
	r.answers(1, Down).state(Open)
	if got := r.refunded(); len(got) != 63 || got[0] != 139 || got[62] != 201 {
		t.Fatalf("refunds %v", got)
	}
}

func TestHistoryKeepsTheLast(t *testing.T) {
	r := newRig(t, Settings{Adaptive: true})
	for range 20 {
		r.down().after(second).probe(Success, 0)
		r.b.Ramped(r.now, 3)
		r.after(second)
	}
	h := r.b.History(nil)
	if len(h) != HistorySize || r.b.Counts() != (Counts{Openings: 20, Probes: 20, Refunds: 80}) {
		t.Fatalf("%d outages, %+v", len(h), r.b.Counts())
	}
	for i := 1; i < len(h); i++ {
		if h[i].At <= h[i-1].At || h[i].Ended <= h[i].At {
			t.Fatalf("%+v", h)
		}
	}
}

func TestWords(t *testing.T) {
	for c := NoCause + 1; c < causes; c++ {
		if c.String() == "" || c.Sentence() == "" {
			t.Errorf("cause %d", c)
		}
	}
	if Held.String() != "held" || State(99).String() != "held" {
		t.Error(Held, State(99))
	}
}

func TestMemory(t *testing.T) {
	if size := unsafe.Sizeof(Breaker{}); size > 6500 {
		t.Errorf("a Breaker needs %d bytes", size)
	}
}

// TestReportsOnly: without error share and silence, only a report opens the breaker.
func TestReportsOnly(t *testing.T) {
	for _, only := range []bool{false, true} {
		b, now := New(Settings{ReportsOnly: only}), int64(0)
		for n := range uint64(100) {
			now += 10 * ms
			o := Failed
			if n%2 == 0 {
				o = Timeout
			}
			b.Answered(now, Answer{Seq: n, Attempt: 1, HandedAt: now - ms, Outcome: o})
		}
		if open := b.State() != Closed; open == only {
			t.Fatalf("ReportsOnly %v: state %v after failures without a class", only, b.State())
		}
		if only && b.ParkDelay(now) != 0 {
			t.Fatal("parking waits for a breaker that these failures cannot open")
		}
		b.Answered(now, Answer{Seq: 1, HandedAt: now, Outcome: Down})
		if b.State() != Open {
			t.Fatalf("ReportsOnly %v: state %v after a report", only, b.State())
		}
	}
}
