package adapt

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
)

// scenario is a test in which batches drain a backlog, while other requests (the foreground) use
// the same target. Times are in seconds.
type scenario struct {
	name    string
	jobs    int
	queues  int
	work    float64 // seconds of work of a batch
	own     float64 // seconds of work of a foreground request
	sigma   float64 // sigma of the lognormal factor of a batch's work
	bad     float64 // share of batches with a bad row
	fast    float64 // share of batches that are refused at once, each for another reason
	seeds   int
	disturb func(*world)
	// Bounds for pair: foreground p99 ÷ undisturbed p99, and drain time ÷ that of 64 workers.
	p99, drain float64
}

const (
	rows       = 200
	batchWork  = 0.004 + rows*0.0002
	rowWork    = 0.002
	pool       = 100 // connections of the foreground; other requests wait for one
	foreground = 400 // requests a second
	refuse     = 0.012
)

var scenarios = []scenario{
	{name: "steady", p99: 2, drain: 1.5},
	{name: "half capacity, 30 s", p99: 2, drain: 1.5, disturb: func(w *world) { w.between(10, 40, func(on bool) { w.t.speed = pick(on, 0.5, 1) }) }},
	{name: "foreground ×3", p99: 2, drain: 1.5, disturb: func(w *world) { w.between(10, 40, func(on bool) { w.rate = pick(on, 3*foreground, foreground) }) }},
	{name: "down 20 s, cold after", p99: 3, drain: 1.5, disturb: func(w *world) {
		w.between(15, 35, func(on bool) {
			w.refuses = on
			w.t.speed = pick(on, 1, 0.4)
		})
		w.t.after(45, func() { w.t.speed = 1 })
	}},
	{name: "lock-up ×20, 15 s", p99: 2, drain: 1.5, disturb: func(w *world) { w.between(15, 30, func(on bool) { w.t.speed = pick(on, 0.05, 1) }) }},
	{name: "30 % of batches bad", p99: 2, drain: 1.5, bad: 0.3},
	{name: "60 % fail at once", p99: 2, drain: 1.6, fast: 0.6},
	{name: "others congest it", p99: 2.2, drain: 1.5, disturb: func(w *world) { w.between(10, 50, func(on bool) { w.t.foreign = int(pick(on, 16, 0)) }) }},
	{name: "mixed cost, σ 1", p99: 2.8, drain: 1.6, sigma: 1},
	{name: "8 × backlog", jobs: 80_000, p99: 2, drain: 1.5, seeds: 1},
	{name: "unsteady target", p99: 2, drain: 2.2, disturb: func(w *world) {
		var change func()
		change = func() {
			w.t.speed = min(w.t.lognormal(0.5), 1.5)
			w.t.after(0.2+0.8*w.t.rng.Float64(), change)
		}
		change()
	}},
	{name: "two queues, one target", queues: 2, p99: 3, drain: 1.3},
	{name: "group commit", jobs: 100_000, work: 0.0003, own: 0.0003, p99: 2, drain: 2, disturb: func(w *world) {
		w.rate, w.t.cores, w.t.commit = 150, 2, 0.0008
	}},
	{name: "jobs of 60 s", jobs: 256, work: 60, seeds: 1, p99: 2.6, drain: 2.2},
}

func pick(on bool, a, b float64) float64 {
	if on {
		return a
	}
	return b
}

// world is one run of a scenario.
type world struct {
	scenario
	t       *target
	rate    float64
	refuses bool

	times    []float64 // response times of the foreground
	left     int
	out      int // requests of the foreground that have a connection
	waiting  []float64
	failed   int
	drained  float64 // the time at which the backlog was drained
	limiters []limiter
	inFlight []int
	todo     []int
}

func (w *world) between(from, to float64, f func(on bool)) {
	w.t.after(from, func() { f(true) })
	w.t.after(to, func() { f(false) })
}

// run drains the backlog and returns p99 of the foreground, the time of the drain and the failed
// rows. Without limiters it runs only the foreground, until the time until.
func run(s scenario, seed uint64, limiters []limiter, until float64) (p99, took float64, failed int) {
	w := &world{scenario: s, t: newTarget(seed), rate: foreground, limiters: limiters}
	w.inFlight = make([]int, len(limiters))
	for range limiters {
		w.todo = append(w.todo, s.jobs/len(limiters))
	}
	w.left = s.jobs
	if s.disturb != nil {
		s.disturb(w)
	}
	w.request()
	if len(limiters) > 0 {
		w.poll()
	}
	for len(limiters) > 0 && w.left > 0 || len(limiters) == 0 && w.t.now < until {
		if !w.t.step() || w.t.now > 40_000 {
			break
		}
	}
	w.t.queue = nil
	for _, start := range w.waiting {
		w.times = append(w.times, w.t.now-start)
	}
	slices.Sort(w.times)
	return w.times[len(w.times)*99/100], w.t.now, w.failed
}

// request makes a request of the foreground and schedules the next request.
func (w *world) request() {
	w.t.after(w.t.rng.ExpFloat64()/w.rate, w.request)
	if w.refuses {
		return
	}
	w.waiting = append(w.waiting, w.t.now)
	w.serve()
}

// serve starts waiting requests while a connection is free.
func (w *world) serve() {
	for w.out < pool && len(w.waiting) > 0 {
		start := w.waiting[0]
		w.waiting = w.waiting[1:]
		w.out++
		w.t.process(w.own*w.t.lognormal(0.3), func() {
			w.out--
			w.times = append(w.times, w.t.now-start)
			w.serve()
		})
	}
}

func (w *world) poll() {
	for i, l := range w.limiters {
		l.tick(w.t.ns())
		w.pump(i)
	}
	w.t.after(0.02, w.poll)
}

// pump hands out batches up to the limit.
func (w *world) pump(i int) {
	l := w.limiters[i]
	for w.todo[i] > 0 && w.inFlight[i] < l.limit(w.t.ns()) {
		w.todo[i]--
		w.inFlight[i]++
		handed := w.t.ns()
		l.handed(handed)
		end := func(o Outcome) {
			w.inFlight[i]--
			now := w.t.ns()
			if o == Down {
				w.todo[i]++
				w.failed += rows
			} else {
				w.left--
			}
			l.answered(now, Answer{HandedAt: handed, Latency: now - handed, Rows: rows, Outcome: o})
			l.tick(now)
			w.pump(i)
		}
		if w.refuses {
			w.t.after(refuse, func() { end(Down) })
			continue
		}
		if w.fast > 0 && w.t.rng.Float64() < w.fast {
			w.t.after(refuse, func() { end(BadMessage) })
			continue
		}
		work, outcome := w.work*w.t.lognormal(w.sigma)/math.Exp(w.sigma*w.sigma/2), Success
		if w.bad > 0 && w.t.rng.Float64() < w.bad {
			work, outcome = 2*work, BadBatch // includes the search for the bad row
		}
		w.t.process(work, func() { end(outcome) })
	}
}

func (s scenario) withDefaults() scenario {
	s.jobs = int(pick(s.jobs == 0, 10_000, float64(s.jobs)))
	s.queues = max(s.queues, 1)
	s.own = pick(s.own == 0, rowWork, s.own)
	s.work = pick(s.work == 0, batchWork, s.work)
	s.sigma = pick(s.sigma == 0, 0.2, s.sigma)
	s.seeds = int(pick(s.seeds == 0, 2, float64(s.seeds)))
	return s
}

// result is the mean over the seeds.
type result struct {
	p99, drain, failed float64
}

func (s scenario) measure(make func() limiter) (r result) {
	for seed := range s.seeds {
		var all []limiter
		for range s.queues {
			all = append(all, make())
		}
		p99, took, failed := run(s, uint64(seed+1), all, 0)
		window := took
		if s.disturb == nil {
			window = min(window, 200) // enough for a p99
		}
		alone, _, _ := run(s, uint64(seed+1), nil, window)
		r.p99 += p99 / alone / float64(s.seeds)
		r.drain += took / float64(s.seeds)
		r.failed += float64(failed) / float64(s.seeds)
	}
	return r
}

var rivals = []struct {
	name string
	make func() limiter
}{
	{"64 workers", func() limiter { return naive{} }},
	{"AIMD", func() limiter { return &aimd{l: 1} }},
	{"Gradient2", func() limiter { return &gradient2{l: 20} }},
	{"Vegas", func() limiter { return &vegas{l: 1} }},
	{"pair", func() limiter { return newPair(0) }},
}

// TestScenarios compares rules that set the limit. It prints a table, and checks the bounds for
// this package's rule.
func TestScenarios(t *testing.T) {
	all := rivals
	if !testing.Verbose() { // the bounds need only the rules "64 workers" and pair
		all = append(rivals[:1:1], rivals[len(rivals)-1])
	}
	var table strings.Builder
	fmt.Fprintf(&table, "foreground p99 ÷ undisturbed p99 / drain time ÷ that of 64 workers\n%-24s", "")
	for _, r := range all {
		fmt.Fprintf(&table, "%14s", r.name)
	}
	for _, s := range scenarios {
		s = s.withDefaults()
		if !testing.Verbose() && s.work > 1 {
			continue // skip the scenarios that need half of the test's time
		}
		fmt.Fprintf(&table, "\n%-24s", s.name)
		var first, last result
		for i, r := range all {
			last = s.measure(r.make)
			if i == 0 {
				first = last
			}
			fmt.Fprintf(&table, "%7.1f /%5.1f", last.p99, last.drain/first.drain)
		}
		fmt.Fprintf(&table, "   %.0f s", first.drain)
		if first.failed > 0 {
			fmt.Fprintf(&table, "; failed rows %.0f, %.0f", first.failed, last.failed)
		}
		if last.p99 > s.p99 || last.drain/first.drain > s.drain {
			t.Errorf("%s: pair has %.2f / %.2f; want at most %.1f / %.1f", s.name, last.p99, last.drain/first.drain, s.p99, s.drain)
		}
		if first.p99 < 2*s.p99 && s.name != "lock-up ×20, 15 s" {
			t.Errorf("%s: 64 workers have only %.2f; the scenario shows nothing", s.name, first.p99)
		}
		if first.failed > 0 && last.failed > 20_000 {
			t.Errorf("%s: pair failed %.0f rows", s.name, last.failed)
		}
	}
	t.Logf("\n%s", table.String())
}
