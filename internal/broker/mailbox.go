package broker

import (
	"context"
	"sync"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/queue"
)

// op is one command on its way through the loop, and the function to call when its outcome is
// durable.
type op struct {
	cmd     queue.Command
	release func(err error) // called once, on the loop; with an error the outcome is not known
	weight  int64           // bytes that count against the mailbox's limit
	quiet   bool            // release does nothing: no caller waits for the outcome
	user    bool            // release calls a user's function
}

// mailbox is the queue of commands for the loop. Bytes and commands are limited: callers that
// publish wait for room. Callers that make room (acks, credit) never wait.
type mailbox struct {
	mu       sync.Mutex
	ops      []*op
	bytes    int64
	maxBytes int64
	maxOps   int
	room     chan struct{} // closed and replaced when the mailbox was emptied; nil when no caller waits
	closed   error
	wake     chan struct{} // has a token when the loop should look at the mailbox
}

func newMailbox(maxBytes int64, maxOps int) *mailbox {
	return &mailbox{maxBytes: maxBytes, maxOps: maxOps, wake: make(chan struct{}, 1)}
}

// opWeight is the weight of a command without its bodies.
const opWeight = 128

// put adds a command. With wait it waits for room until ctx ends.
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
			return surgetank.Errorf(surgetank.CodeBusy, "the broker has too much work waiting; try again shortly: %w", ctx.Err())
		}
	}
}

func (b *mailbox) nudge() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// closing tells whether Close was called.
func (b *mailbox) closing() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.closed != nil
}

// take returns all waiting commands. to is an emptied slice of an earlier take; its memory is used
// again.
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

// close rejects all later commands and returns those that still wait.
func (b *mailbox) close(err error) []*op {
	b.mu.Lock()
	if b.closed == nil {
		b.closed = err
	}
	b.mu.Unlock()
	return b.take(nil)
}
