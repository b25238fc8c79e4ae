package broker

import (
	"context"
	"sync"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/queue"
)

// op is one command on its way through the loop, with what to do when its outcome is durable.
type op struct {
	cmd     queue.Command
	release func(err error) // called once, on the loop; err: nothing is known about the outcome
	weight  int64           // bytes it brings; counts against the mailbox's room
	quiet   bool            // release does nothing: nobody waits for the outcome
	user    bool            // release calls a function of a user's
}

// mailbox is where every caller leaves its commands for the loop. It is bounded by bytes and
// commands: callers that publish wait for room, callers that make room (acks, credit) never do.
type mailbox struct {
	mu       sync.Mutex
	ops      []*op
	bytes    int64
	maxBytes int64
	maxOps   int
	room     chan struct{} // closed and replaced when the mailbox was emptied; nil when nobody waits
	closed   error
	wake     chan struct{} // has a token when the loop should look
}

func newMailbox(maxBytes int64, maxOps int) *mailbox {
	return &mailbox{maxBytes: maxBytes, maxOps: maxOps, wake: make(chan struct{}, 1)}
}

// opWeight is what a command counts besides its bodies.
const opWeight = 128

// put leaves a command. With wait it waits for room until ctx ends.
func (b *mailbox) put(ctx context.Context, o *op, wait bool) error {
	for {
		b.mu.Lock()
		if b.closed != nil {
			err := b.closed
			b.mu.Unlock()
			return err
		}
		if !wait || len(b.ops) == 0 || b.bytes+o.weight <= b.maxBytes && len(b.ops) < b.maxOps {
			b.ops = append(b.ops, o)
			b.bytes += o.weight
			first := len(b.ops) == 1
			b.mu.Unlock()
			if first {
				b.nudge()
			}
			return nil
		}
		if b.room == nil {
			b.room = make(chan struct{})
		}
		room := b.room
		b.mu.Unlock()
		select {
		case <-room:
		case <-ctx.Done():
			return surgetank.Errorf(surgetank.CodeBusy, "the broker has more work waiting than it may hold; try again shortly: %w", ctx.Err())
		}
	}
}

func (b *mailbox) nudge() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// closing says that Close was called.
func (b *mailbox) closing() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.closed != nil
}

// take gives everything that waits. to is an emptied slice of an earlier take, for its memory.
func (b *mailbox) take(to []*op) []*op {
	b.mu.Lock()
	ops := b.ops
	b.ops, b.bytes = to[:0], 0
	if b.room != nil {
		close(b.room)
		b.room = nil
	}
	b.mu.Unlock()
	return ops
}

// close refuses what comes from now on and gives what is still there.
func (b *mailbox) close(err error) []*op {
	b.mu.Lock()
	if b.closed == nil {
		b.closed = err
	}
	b.mu.Unlock()
	return b.take(nil)
}
