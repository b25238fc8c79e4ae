package sinktest

import (
	"context"
	"math/rand/v2"
	"sync"

	"github.com/surgetank/surgetank/sink"
)

// Faults makes a target fail at every point where a real target can. A seeded random source decides
// for each call.
type Faults struct {
	mu   sync.Mutex
	rng  *rand.Rand
	rate float64
	seen map[string]int
}

// NewFaults makes faults that affect each call with this probability.
func NewFaults(seed uint64, rate float64) *Faults {
	return &Faults{rng: rand.New(rand.NewPCG(seed, 2)), rate: rate, seen: map[string]int{}}
}

// Stop ends the faults: all later calls succeed.
func (f *Faults) Stop() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.rate = 0
}

// Seen returns the number of faults at each point.
func (f *Faults) Seen() map[string]int {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := map[string]int{}
	for k, v := range f.seen {
		out[k] = v
	}
	return out
}

// draw returns one of the kinds of fault for a call, or none.
func (f *Faults) draw(call string, kinds ...string) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.rng.Float64() >= f.rate {
		return ""
	}
	k := kinds[f.rng.IntN(len(kinds))]
	f.seen[call+" "+k]++
	return k
}

func lost(when string) error {
	return &sink.Error{Class: sink.Down, Row: -1, Reason: "injected: the connection was lost " + when}
}

// Wrap returns the target with these faults.
func (f *Faults) Wrap(t sink.Target) sink.Target { return &faultyTarget{Target: t, f: f} }

type faultyTarget struct {
	sink.Target
	f *Faults
}

// KeyForms returns the key forms of the wrapped target.
func (t *faultyTarget) KeyForms() map[string]sink.KeyForm {
	if k, ok := t.Target.(sink.Keyed); ok {
		return k.KeyForms()
	}
	return nil
}

func (t *faultyTarget) Open(ctx context.Context, c sink.Claim) (sink.State, []sink.Lane, error) {
	kind := t.f.draw("open", "before", "after")
	if kind == "before" {
		return sink.State{}, nil, lost("before opening")
	}
	state, lanes, err := t.Target.Open(ctx, c)
	if err == nil && kind == "after" {
		return sink.State{}, nil, lost("after opening")
	}
	wrapped := make([]sink.Lane, len(lanes))
	for i, l := range lanes {
		wrapped[i] = &faultyLane{Lane: l, f: t.f}
	}
	return state, wrapped, err
}

type faultyLane struct {
	sink.Lane
	f *Faults
}

func (l *faultyLane) Commit(ctx context.Context, p sink.Progress) error {
	kinds := []string{"before", "after", "retry"}
	limbo, ok := l.Lane.(interface{ Limbo(sink.Progress) })
	if ok {
		kinds = append(kinds, "limbo")
	}
	switch l.f.draw("commit", kinds...) {
	case "before":
		return lost("before the commit")
	case "retry":
		return &sink.Error{Class: sink.Retry, Row: -1, Reason: "injected: deadlock detected"}
	case "limbo":
		limbo.Limbo(p)
		return lost("during the commit")
	case "after":
		if err := l.Lane.Commit(ctx, p); err != nil {
			return err
		}
		return lost("after the commit, before its answer")
	}
	return l.Lane.Commit(ctx, p)
}

func (l *faultyLane) Begin(ctx context.Context) error {
	if l.f.draw("begin", "before") != "" {
		return lost("before begin")
	}
	return l.Lane.Begin(ctx)
}

func (l *faultyLane) Write(ctx context.Context, from, to int) error {
	switch l.f.draw("write", "before", "after", "retry") {
	case "before":
		return lost("before a write")
	case "retry":
		return &sink.Error{Class: sink.Retry, Row: -1, Reason: "injected: could not serialize access"}
	case "after":
		if err := l.Lane.Write(ctx, from, to); err != nil {
			return err
		}
		return lost("after a write")
	}
	return l.Lane.Write(ctx, from, to)
}

func (l *faultyLane) Finish(ctx context.Context, p sink.Progress) error {
	switch l.f.draw("finish", "before", "after", "retry") {
	case "before":
		return lost("before the commit of a split batch")
	case "retry":
		return &sink.Error{Class: sink.Retry, Row: -1, Reason: "injected: could not serialize access"}
	case "after":
		if err := l.Lane.Finish(ctx, p); err != nil {
			return err
		}
		return lost("after the commit of a split batch")
	}
	return l.Lane.Finish(ctx, p)
}
