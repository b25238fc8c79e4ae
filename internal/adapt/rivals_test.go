package adapt

import (
	"math"
	"slices"

	"github.com/surgetank/surgetank/internal/breaker"
)

// limiter is a rule that sets the limit of batches in flight. The scenarios compare several rules.
type limiter interface {
	limit(now int64) int
	handed(now int64)
	answered(now int64, a Answer)
	tick(now int64) // called every 20 ms at least
}

// naive is a fixed number of workers.
type naive struct{}

func (naive) limit(int64) int        { return 64 }
func (naive) handed(int64)           {}
func (naive) answered(int64, Answer) {}
func (naive) tick(int64)             {}

// aimd uses errors only. It adds 1 to the limit after a round trip of successes. It halves the
// limit after an error, at most once per round trip.
type aimd struct {
	naive
	l   float64
	cut int64
}

func (r *aimd) limit(int64) int { return int(r.l) }

func (r *aimd) answered(now int64, a Answer) {
	if a.Outcome == Success {
		r.l = min(r.l+1/r.l, 64)
	} else if a.HandedAt >= r.cut {
		r.l, r.cut = max(r.l/2, 1), now
	}
}

// windowed collects the latencies of successes until a window is long enough.
type windowed struct {
	v     []float64
	begun int64
}

// add adds an answer. If the window ends, it returns the window's mean and median.
func (w *windowed) add(now int64, a Answer, length int64) (mean, median float64, ends bool) {
	if a.Outcome != Success {
		return 0, 0, false
	}
	if len(w.v) == 0 {
		w.begun = now
	}
	w.v = append(w.v, float64(a.Latency))
	if len(w.v) < 10 || now-w.begun < length {
		return 0, 0, false
	}
	slices.Sort(w.v)
	for _, x := range w.v {
		mean += x / float64(len(w.v))
	}
	median = w.v[len(w.v)/2]
	w.v = w.v[:0]
	return mean, median, true
}

// gradient2 imitates Netflix's Gradient2Limit with its WindowedLimit: a long average of latency, a
// tolerance, and a queue of 4.
type gradient2 struct {
	naive
	windowed
	l, long float64
	n       int
}

func (r *gradient2) limit(int64) int { return int(r.l) }

func (r *gradient2) answered(now int64, a Answer) {
	x, _, ok := r.add(now, a, second)
	if !ok {
		return
	}
	if r.n < 10 {
		r.long = (r.long*float64(r.n) + x) / float64(r.n+1)
		r.n++
	} else {
		r.long += (x - r.long) * 2 / (600 + 1)
	}
	if r.long/x > 2 {
		r.long *= 0.95
	}
	want := r.l*min(max(1.5*r.long/x, 0.5), 1) + 4
	r.l = min(max(r.l*0.8+want*0.2, 1), 64)
}

// vegas imitates Netflix's VegasLimit: the estimated queue is limit × (1 − minimum ÷ latency). From
// time to time the minimum is measured again, under load.
type vegas struct {
	naive
	windowed
	l, low float64
	round  int
}

func (r *vegas) limit(int64) int { return int(r.l) }

func (r *vegas) answered(now int64, a Answer) {
	_, x, ok := r.add(now, a, second/10)
	if !ok {
		return
	}
	if r.round++; r.low == 0 || x < r.low || float64(r.round) > 30*r.l {
		r.low, r.round = x, 0
	}
	step := max(math.Log10(r.l), 1)
	switch queue := r.l * (1 - r.low/x); {
	case queue <= step:
		r.l += 6 * step
	case queue < 3*step:
		r.l += step
	case queue > 6*step:
		r.l -= step
	}
	r.l = min(max(r.l, 1), 64)
}

// pair is a Controller with a Breaker. Its flaws are mistakes that the scenarios must detect.
type pair struct {
	c *Controller
	b *breaker.Breaker

	ownLoad         bool // flaw: probes run at the working limit, so the reference latency includes the controller's own load
	failuresLatency bool // flaw: the latency of failures is measured

	seq    uint64
	failed int // failed rows
}

func newPair(now int64) *pair {
	return &pair{c: New(now, Settings{}), b: breaker.New(breaker.Settings{Adaptive: true})}
}

func (p *pair) limit(now int64) int {
	switch p.b.MayHand() {
	case breaker.None:
		return 0
	case breaker.One:
		return p.c.InFlight() + 1
	}
	if p.ownLoad && now >= p.c.PausedUntil() {
		return p.c.Working()
	}
	return p.c.Limit(now)
}

func (p *pair) handed(now int64) {
	p.seq++
	if p.b.MayHand() == breaker.One {
		p.b.ProbeHanded(now, 0)
	}
	p.c.Handed(now, 1)
}

func (p *pair) answered(now int64, a Answer) {
	if p.ownLoad && p.c.phase == Probe {
		if a.HandedAt = now; p.c.older > 0 {
			a.HandedAt = p.c.begun
		}
	}
	if p.failuresLatency && a.Outcome != Success {
		p.c.Answered(now, Answer{HandedAt: a.HandedAt, Latency: a.Latency})
	} else {
		p.c.Answered(now, a)
	}
	o := map[Outcome]breaker.Outcome{Success: breaker.Success, BadBatch: breaker.BadMessage, BadMessage: breaker.BadMessage, Down: breaker.Down, Timeout: breaker.Timeout}[a.Outcome]
	if p.b.Answered(now, breaker.Answer{HandedAt: a.HandedAt, Latency: a.Latency, Outcome: o}).Opened {
		p.c.Reset(now, BreakerOpen)
	}
	p.b.Ramped(now, p.c.RampWindows())
}

func (p *pair) tick(now int64) {
	p.b.Tick(now)
	p.c.Tick(now)
}
