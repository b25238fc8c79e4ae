package adapt

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"
)

// FuzzAnyOrder passes any reports in any order. The limit must stay within its bounds, no call may
// panic, and a second controller with the same reports must have the same state.
func FuzzAnyOrder(f *testing.F) {
	f.Add([]byte{1, 0, 9, 200, 3, 2, 9, 1, 1, 4, 7, 0, 250, 9, 9, 3, 6, 1, 100, 3, 7, 200, 1})
	f.Add([]byte("\x00\x10\x02\x0a\x03\x20\x03\xff\x05\xff\x06\xff\x07\xff\x08\xff\x09\x01\x01\x80\x02\x40\x04\x11\x21\x31"))
	f.Fuzz(func(t *testing.T, data []byte) {
		next := func() int64 {
			if len(data) == 0 {
				return 0
			}
			x := data[0]
			data = data[1:]
			return int64(x)
		}
		set := Settings{Min: int(next()) - 10, Max: int(next()) - 10, Tolerance: float64(next())/20 - 1, BatchMax: int(next()) - 10}
		a, b := New(0, set), New(0, set)
		each := func(do func(*Controller)) { do(a); do(b) }
		now := int64(0)
		for len(data) > 0 {
			op, x, y := next(), next(), next()
			now += x * x * x * x * (ms / 10) // up to 5 days
			at := now - y*y*second/100
			switch op % 8 {
			case 0, 1:
				each(func(c *Controller) { c.Handed(now, int(y)-5) })
			case 2, 3, 4:
				answer := Answer{HandedAt: at, Latency: now - at, Rows: int(next()) - 5, Partial: y == 7, Outcome: Outcome(op / 8 % 10), RetryAfter: (y - 100) * second}
				if y == 255 {
					answer.Latency, answer.RetryAfter = int64(binary.LittleEndian.Uint64([]byte{255, 255, 255, 255, 255, 255, 255, 127})), 1<<62
				}
				each(func(c *Controller) { c.Answered(now, answer) })
			case 5:
				each(func(c *Controller) { c.Tick(now); c.Extended(at) })
			case 6:
				each(func(c *Controller) { c.Reset(now, Reason(y%byteOf(reasons))) })
			case 7:
				set := Settings{Min: int(y) - 10, Max: int(next()) - 10, BatchMax: int(next()) - 10}
				each(func(c *Controller) { c.Configure(now, set) })
			}
			s := a.Status(now)
			_, _, _ = s.Sentence(), s.Last.String(), a.Next()
			if s.Limit < a.set.Min || s.Limit > a.set.Max || s.Now < 0 || s.Now > a.set.Max || s.Now == 0 && s.PausedUntil == 0 {
				t.Fatalf("limit %d, in force %d, bounds %d and %d", s.Limit, s.Now, a.set.Min, a.set.Max)
			}
			if s.BatchSize < min(a.set.BatchMax, 1) || s.BatchSize > a.set.BatchMax || s.InFlight < 0 || a.stragglers < 0 || a.older < 0 {
				t.Fatalf("%+v", s)
			}
		}
		if *a != *b {
			t.Fatal("two controllers with the same reports differ")
		}
	})
}

func byteOf(r Reason) int64 { return int64(r) }

// FuzzSteadyTargetIsUsed simulates a steady target without congestion, with any latency, noise,
// settings and share of failures. The limit must grow above the smallest one.
func FuzzSteadyTargetIsUsed(f *testing.F) {
	f.Add(uint64(1), uint16(40), uint8(1), uint8(64), uint8(0), uint8(0))
	f.Add(uint64(2), uint16(1), uint8(4), uint8(200), uint8(30), uint8(80))
	f.Add(uint64(3), uint16(3000), uint8(2), uint8(9), uint8(10), uint8(20))
	f.Add(uint64(4), uint16(500), uint8(2), uint8(9), uint8(99), uint8(90))
	f.Fuzz(func(t *testing.T, seed uint64, latency uint16, least, most, noise, failures uint8) {
		set := Settings{Min: int(least%16) + 1}
		set.Max = set.Min + int(most) + 1
		rng := rand.New(rand.NewPCG(seed, 1))
		mean := int64(latency%3000+1) * ms
		r := newRig(t, set, func(int, int) int64 {
			return mean + int64(float64(mean)*float64(noise%100)/100*(rng.Float64()-0.5))
		})
		r.outcome = func(int) Answer {
			if rng.IntN(100) < int(failures%91) {
				return Answer{Outcome: BadMessage}
			}
			return Answer{}
		}
		for range 200 {
			r.run(30 * mean)
			if r.c.Working() > set.Min {
				return
			}
		}
		t.Fatalf("limit %d after %d jobs: %+v", r.c.Working(), r.handed, r.c.Status(r.now))
	})
}

func BenchmarkAnswered(b *testing.B) {
	for _, x := range []struct {
		name string
		out  int
	}{{"in flight 1", 1}, {"in flight 64", 64}} {
		b.Run(x.name, func(b *testing.B) {
			c := New(0, Settings{})
			b.ReportAllocs()
			now, ring := int64(0), make([]int64, x.out)
			for i := range ring {
				ring[i] = now
			}
			c.Handed(0, x.out)
			i := 0
			for b.Loop() {
				now += ms
				c.Answered(now, Answer{HandedAt: ring[i], Latency: now - ring[i] + int64(i)*1000})
				c.Handed(now, 1)
				ring[i] = now
				if i++; i == len(ring) {
					i = 0
				}
			}
		})
	}
}

// TestNothingIsAllocated: a controller allocates no memory after New.
func TestNothingIsAllocated(t *testing.T) {
	c, now := New(0, Settings{BatchMax: 100}), int64(0)
	if n := testing.AllocsPerRun(10_000, func() {
		c.Handed(now, 1)
		c.Answered(now+ms, Answer{HandedAt: now, Latency: ms, Rows: 100})
		now += 2 * ms
		c.Tick(c.Next())
	}); n > 0 {
		t.Fatalf("%g allocations", n)
	}
}
