package adapt

import (
	"math"
	"math/rand/v2"
)

// target is a simulated database. All its tasks run at the same time, and share a speed that
// follows the Universal Scalability Law: with n tasks, each runs 1 + σ(n−1) + κn(n−1) times slower
// than alone.
type target struct {
	now     float64 // seconds
	virtual float64 // seconds of work that a task would have received that was present from the start
	speed   float64 // 1 is normal
	queue   items
	events  items
	rng     *rand.Rand
	foreign int // tasks of other programs, which never end

	// With cores, tasks share processors and do not slow each other down below this number. With
	// commit, a task then waits for a commit of this many seconds, which all waiting tasks share.
	cores      float64
	commit     float64
	committing bool
	group      []func()
}

const (
	sigma = 0.03
	kappa = 0.0008
)

// item is a task with its end in virtual time, or a timer with its time.
type item struct {
	at float64
	do func()
}

// items is a heap.
type items []item

func (h *items) push(x item) {
	v := append(*h, x)
	i := len(v) - 1
	for i > 0 && v[(i-1)/2].at > x.at {
		v[i] = v[(i-1)/2]
		i = (i - 1) / 2
	}
	v[i] = x
	*h = v
}

func (h *items) pop() item {
	v := *h
	first, last := v[0], v[len(v)-1]
	v = v[:len(v)-1]
	*h = v
	for i := 0; len(v) > 0; {
		child := 2*i + 1
		if child+1 < len(v) && v[child+1].at < v[child].at {
			child++
		}
		if child >= len(v) || v[child].at >= last.at {
			v[i] = last
			break
		}
		v[i] = v[child]
		i = child
	}
	return first
}

func newTarget(seed uint64) *target {
	return &target{speed: 1, rng: rand.New(rand.NewPCG(seed, 12))}
}

func (t *target) ns() int64 { return int64(t.now * second) }

// after calls do in some seconds.
func (t *target) after(seconds float64, do func()) {
	t.events.push(item{t.now + seconds, do})
}

// process starts a task of some seconds of work.
func (t *target) process(work float64, done func()) {
	end := done
	if t.commit > 0 {
		end = func() { t.join(done) }
	}
	t.queue.push(item{t.virtual + work, end})
}

// join adds a task to the next commit.
func (t *target) join(done func()) {
	t.group = append(t.group, done)
	if t.committing {
		return
	}
	t.committing = true
	var next func()
	next = func() {
		group := t.group
		t.group = nil
		t.after(t.commit*t.lognormal(0.3), func() {
			if t.committing = len(t.group) > 0; t.committing {
				next()
			}
			for _, done := range group {
				done()
			}
		})
	}
	next()
}

// rate returns the speed of each task, as a share of the speed of a single task.
func (t *target) rate() float64 {
	n := float64(len(t.queue) + t.foreign)
	if n == 0 {
		return 0
	}
	if t.cores > 0 {
		return t.speed * min(1, t.cores/n)
	}
	return t.speed / (1 + sigma*(n-1) + kappa*n*(n-1))
}

// step runs the next event. It returns false after the last one.
func (t *target) step() bool {
	next := math.Inf(1)
	rate := t.rate()
	if len(t.queue) > 0 && rate > 0 {
		next = t.now + max(t.queue[0].at-t.virtual, 0)/rate
	}
	if len(t.events) > 0 && t.events[0].at <= next {
		e := t.events.pop()
		t.virtual += (e.at - t.now) * rate
		t.now = e.at
		e.do()
		return true
	}
	if math.IsInf(next, 1) {
		return false
	}
	t.now = next
	t.virtual = t.queue[0].at
	t.queue.pop().do()
	return true
}

// lognormal returns a random factor with median 1.
func (t *target) lognormal(s float64) float64 { return math.Exp(s * t.rng.NormFloat64()) }
