package shards

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/surgetank/surgetank"
)

// gates makes calls wait for a queue that is switching to another shard.
//
// A publish counts itself in before it looks for closed gates, and out after its shard has accepted
// it. So close can wait for all publishes that did not see the gate. New publishes count in the
// other counter, so close never waits for them.
type gates struct {
	b     *Broker
	turn  atomic.Uint32 // the counter in use is the one with this parity
	in    [2]atomic.Int64
	shut  atomic.Int32 // number of closed gates
	flips sync.Mutex   // one close at a time

	mu     sync.Mutex
	closed map[string]chan struct{} // by queue; closed when the gate opens
}

// gateWait is how long a call waits for a gate. gatePoll is how often close looks at the counter.
const (
	gateWait = 10 * time.Second
	gatePoll = time.Millisecond
)

// enter waits until no queue of the messages has a closed gate, and counts the call in. The caller
// passes the result to leave.
func (g *gates) enter(ctx context.Context, msgs []surgetank.Publishing) (side uint32, err error) {
	for {
		side = g.turn.Load() & 1
		g.in[side].Add(1)
		if g.shut.Load() == 0 {
			return side, nil
		}
		name, c := g.first(msgs)
		if c == nil {
			return side, nil
		}
		g.in[side].Add(-1)
		if err := g.wait(ctx, name, c); err != nil {
			return 0, err
		}
	}
}

func (g *gates) leave(side uint32) { g.in[side].Add(-1) }

// first returns a queue of the messages with a closed gate.
func (g *gates) first(msgs []surgetank.Publishing) (string, chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for i := range msgs {
		for _, name := range msgs[i].Queues {
			if c := g.closed[name]; c != nil {
				return name, c
			}
		}
	}
	return "", nil
}

// pass waits until a queue has no closed gate.
func (g *gates) pass(ctx context.Context, name string) error {
	for g.shut.Load() > 0 {
		g.mu.Lock()
		c := g.closed[name]
		g.mu.Unlock()
		if c == nil {
			return nil
		}
		if err := g.wait(ctx, name, c); err != nil {
			return err
		}
	}
	return nil
}

func (g *gates) wait(ctx context.Context, name string, c chan struct{}) error {
	t := g.b.clock.NewTimer(gateWait)
	defer t.Stop()
	e := surgetank.Errorf(surgetank.CodeUnavailable, "the queue %q is just moving to another shard; try again", shown(name))
	e.RetryAfter = time.Second
	select {
	case <-c:
		return nil
	case <-t.C():
	case <-g.b.ctx.Done():
	case <-ctx.Done():
		e.Err = ctx.Err()
	}
	return e
}

// close closes the gates of some queues. When it returns, every publish that passed them has been
// accepted by its shard or has failed. If that takes longer than calls wait for a gate, close opens
// the gates again and fails.
func (g *gates) close(names []string) (open func(), err error) {
	g.flips.Lock()
	defer g.flips.Unlock()
	c := make(chan struct{})
	g.mu.Lock()
	if g.closed == nil {
		g.closed = map[string]chan struct{}{}
	}
	for _, name := range names {
		g.closed[name] = c
	}
	g.mu.Unlock()
	g.shut.Add(1)
	open = func() {
		g.mu.Lock()
		for _, name := range names {
			delete(g.closed, name)
		}
		g.mu.Unlock()
		g.shut.Add(-1)
		close(c)
	}
	end := g.b.clock.Passed() + gateWait
	for range 2 { // a call can have read the counter before the last flip
		old := (g.turn.Add(1) - 1) & 1
		for g.in[old].Load() > 0 {
			if !g.b.paused(gatePoll) {
				open()
				return nil, surgetank.Errorf(surgetank.CodeClosed, "the broker was closed")
			}
			if g.b.clock.Passed() >= end {
				open()
				return nil, surgetank.Errorf(surgetank.CodeUnavailable, "earlier publishes did not end within %v, so the queue stays in its shard; try again", gateWait)
			}
		}
	}
	return open, nil
}
