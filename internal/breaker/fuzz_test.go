package breaker

import (
	"reflect"
	"testing"
)

// FuzzAnyOrder passes any reports in any order, and then checks that a healthy target closes the
// breaker.
func FuzzAnyOrder(f *testing.F) {
	f.Add([]byte("\x04\x01\x04\x01\x04\x01\x00\x20\x05\x01\x00\x00\x02\x30\x06\x01\x07\x01"), false)
	f.Add([]byte("\x02\x04\x01\x02\x04\x01\x02\x04\x01\x02\x04\x01\x02\x04\x01\x00\x99\x01\x01\x01\x01\x0a\x00\x00"), true)
	f.Fuzz(func(t *testing.T, data []byte, adaptive bool) {
		next := func() int64 {
			if len(data) == 0 {
				return 0
			}
			x := data[0]
			data = data[1:]
			return int64(x)
		}
		set := Settings{Adaptive: adaptive, Limit: int(next())}
		a, b := New(set), New(set)
		now := int64(0)
		reported := map[Failure]int{}
		for len(data) > 0 {
			op, x, y := next(), next(), next()
			now += x * x * x * ms / 10
			a.Tick(now)
			b.Tick(now)
			was := a.State()
			switch op % 9 {
			case 0:
				a.ProbeHanded(now, uint64(y%8))
				b.ProbeHanded(now, uint64(y%8))
			case 1, 2, 3, 4:
				answer := Answer{Seq: uint64(y % 64), Group: uint64(y % 16), Attempt: uint32(x), HandedAt: now - x*x*ms, Latency: y * y * ms,
					Outcome: Outcome(op / 8 % 8), RetryAfter: (y - 50) * second}
				va, vb := a.Answered(now, answer), b.Answered(now, answer)
				if va != vb {
					t.Fatalf("%+v and %+v", va, vb)
				}
				if was != Closed && was != Ramp && answer.Outcome.failure() && !va.Uncounted {
					t.Fatalf("a failure counts in state %v", was)
				}
				if va.Uncounted && answer.Outcome == BadMessage {
					t.Fatal("a bad message does not count")
				}
				if answer.Outcome.failure() && !va.Uncounted {
					reported[Failure{answer.Seq, answer.Attempt}]++
				}
				if va.Opened {
					for _, r := range a.Refunds() {
						if reported[r]--; reported[r] < 0 {
							t.Fatalf("attempt %+v is returned and was not counted", r)
						}
					}
				}
			case 5:
				if a.OpenBy(now, "ann", "") {
					for _, r := range a.Refunds() {
						if reported[r]--; reported[r] < 0 {
							t.Fatalf("attempt %+v is returned and was not counted", r)
						}
					}
				}
				b.OpenBy(now, "ann", "")
			case 6:
				a.CloseBy(now, "ann", "")
				b.CloseBy(now, "ann", "")
			case 7:
				a.Ramped(now, int(y%5))
				b.Ramped(now, int(y%5))
				a.Extended(now, uint64(y%8))
				b.Extended(now, uint64(y%8))
			case 8:
				if a.Reported(now, y%2 == 0, x%2 == 0, (y-50)*second) {
					for _, r := range a.Refunds() {
						if reported[r]--; reported[r] < 0 {
							t.Fatalf("attempt %+v is returned and was not counted", r)
						}
					}
				}
				b.Reported(now, y%2 == 0, x%2 == 0, (y-50)*second)
			}
			if a.ParkDelay(now) != b.ParkDelay(now) || a.Next() != 0 && a.Next() <= now {
				t.Fatalf("next %d at %d", a.Next(), now)
			}
			if (a.State() == Open || a.State() == Held) && a.MayHand() != None || a.failures > a.answers || a.unclassified > a.failures || a.unclassified < 0 {
				t.Fatalf("%+v", a.Status())
			}
		}
		if !reflect.DeepEqual(a, b) {
			t.Fatal("two breakers with the same reports differ")
		}
		a.CloseBy(now, "", "")
		for i := 0; a.State() != Closed; i++ {
			if i > 5000 {
				t.Fatalf("not closed: %+v", a.Status())
			}
			now += second
			a.Tick(now)
			switch a.MayHand() {
			case One:
				a.ProbeHanded(now, 1)
				fallthrough
			case All:
				a.Answered(now, Answer{Seq: 1, HandedAt: now})
			}
		}
	})
}

func BenchmarkAnswered(b *testing.B) {
	for _, x := range []struct {
		name string
		o    Outcome
		ok   int // every ok-th answer is a success
	}{{"successes", Success, 1}, {"failures", Failed, 5}} {
		b.Run(x.name, func(b *testing.B) {
			r := New(Settings{})
			b.ReportAllocs()
			now, n := int64(0), uint64(0)
			for b.Loop() {
				now += ms
				n++
				o := x.o
				if n%uint64(x.ok) == 0 {
					o = Success
				}
				r.Answered(now, Answer{Seq: n, Group: n, HandedAt: now - ms, Latency: ms, Outcome: o})
			}
		})
	}
}

// TestNothingIsAllocated: a breaker allocates no memory, even during whole outages.
func TestNothingIsAllocated(t *testing.T) {
	b, now, n := New(Settings{Limit: 4}), int64(0), uint64(0)
	if got := testing.AllocsPerRun(10_000, func() {
		now += 300 * ms
		n++
		b.Tick(now)
		o := Success
		if n%100 < 20 {
			o = Down
		}
		if b.MayHand() == One {
			b.ProbeHanded(now, n)
		}
		b.Answered(now, Answer{Seq: n, Group: n, HandedAt: now, Outcome: o})
	}); got > 0 {
		t.Fatalf("%g allocations", got)
	}
	if b.Counts().Openings < 50 {
		t.Fatalf("%+v: the run has too few outages", b.Counts())
	}
}
