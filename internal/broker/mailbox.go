package broker

import (
	"context"
	"sync"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/inorder"
	"github.com/surgetank/surgetank/internal/queue"
)

// op is one command on its way through the loop, and the function to call when its outcome is
// durable.
type op struct {
	cmd     queue.Command
	release func(err error) // called once, on the loop; an error means that the outcome is not known
	weight  int64           // bytes that count against the mailbox's limit
	quiet   bool            // release does nothing: no caller waits for the outcome
	user    bool            // release calls a user's function
	watch   func()          // starts a watch of metadata, before release; usually nil

	line    *inorder.Line // the caller's order, while the command is in the back lane; nil: none
	delayed bool          // a command for the front lane that was put into the back lane
}

// mailbox is the queue of commands for the loop, in the two lanes of queue.Front. Within a lane,
// commands keep the order of put. Bytes and commands of the back lane are limited: callers that
// publish wait for room. Callers that free room (acks, credit) never wait.
//
// A command of the front lane goes to the back lane in two cases:
//   - a settlement of a caller with an inorder.Line, whose earlier commands are in the back lane;
//   - the stop or end of a subscription while such a settlement waits in the back lane, because a
//     settlement must precede the end of its subscription.
type mailbox struct {
	mu       sync.Mutex
	front    []*op
	ops      []*op // the back lane
	bytes    int64 // bytes of the back lane
	maxBytes int64
	maxOps   int
	delayed  int           // number of commands with op.delayed that the loop has not decided
	enough   int64         // bytes of the back lane at which the loop is woken again; 0: none
	room     chan struct{} // closed and replaced when the back lane was emptied; nil when no caller waits
	closed   error
	wake     chan struct{} // contains a token when the loop should read the mailbox
}

func newMailbox(maxBytes int64, maxOps int) *mailbox {
	return &mailbox{maxBytes: maxBytes, maxOps: maxOps, wake: make(chan struct{}, 1)}
}

// opWeight is the weight of a command without its bodies.
const opWeight = 128

// put adds a command. If wait is set and there is no room, it waits until ctx ends.
func (b *mailbox) put(ctx context.Context, o *op, wait bool) error {
	line, front := inorder.Of(ctx), queue.Front(o.cmd)
	for {
		b.mu.Lock()
		if b.closed != nil {
			err := b.closed
			b.mu.Unlock()
			return err
		}
		front := front && !b.mustWait(o, line)
		if front || !wait || len(b.ops) == 0 || b.bytes+o.weight <= b.maxBytes && len(b.ops) < b.maxOps {
			var first bool // the lane was empty or has enough for an entry, so the loop must be woken
			if front {
				first = len(b.front) == 0
				b.front = append(b.front, o)
			} else {
				first = len(b.ops) == 0 || b.bytes < b.enough && b.bytes+o.weight >= b.enough
				b.ops = append(b.ops, o)
				b.bytes += o.weight
				if line != nil {
					o.line = line
					line.Join()
				}
			}
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
			err := surgetank.Errorf(surgetank.CodeBusy, "the broker has too much work waiting; try again shortly: %w", ctx.Err())
			err.Limit = surgetank.LimitMailbox
			return err
		}
	}
}

// mustWait reports whether a command of the front lane must be put into the back lane.
func (b *mailbox) mustWait(o *op, line *inorder.Line) bool {
	switch o.cmd.(type) {
	case *queue.Settle:
		if !line.Waits() {
			return false
		}
	case *queue.Stop, *queue.Detach:
		if b.delayed == 0 {
			return false
		}
	default:
		return false
	}
	o.delayed = true
	b.delayed++
	return true
}

// decided is called after a turn with the finished commands of the back lane.
func (b *mailbox) decided(ops []*op) {
	delayed := 0
	for _, o := range ops {
		if o.delayed {
			delayed++
		}
		if o.line != nil {
			o.line.Leave()
		}
	}
	if delayed > 0 {
		b.mu.Lock()
		b.delayed -= delayed
		b.mu.Unlock()
	}
}

func (b *mailbox) nudge() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// finish refuses all later commands and wakes the loop. It returns false if that was done before.
func (b *mailbox) finish(err error) bool {
	b.mu.Lock()
	first := b.closed == nil
	if first {
		b.closed = err
		b.ops = append(b.ops, &op{cmd: queue.Nop{}, release: func(error) {}})
	}
	b.mu.Unlock()
	b.nudge()
	return first
}

// weight returns the bytes of the back lane.
func (b *mailbox) weight() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.bytes
}

// waits reports whether commands wait in the front lane or, with back, in either lane.
func (b *mailbox) waits(back bool) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.front) > 0 || back && len(b.ops) > 0
}

// closing reports whether Close was called.
func (b *mailbox) closing() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.closed != nil
}

// finished reports whether Close was called and no command waits.
func (b *mailbox) finished() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.closed != nil && len(b.front)+len(b.ops) == 0
}

// takeFront moves the commands of the front lane to the end of ops.
func (b *mailbox) takeFront(ops []*op) []*op {
	b.mu.Lock()
	defer b.mu.Unlock()
	ops = append(ops, b.front...)
	clear(b.front)
	b.front = b.front[:0]
	return ops
}

// take removes and returns all commands of the back lane. to is the emptied result of an earlier
// take, whose memory is reused.
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

// close refuses all later commands and returns the commands that still wait.
func (b *mailbox) close(err error) []*op {
	b.mu.Lock()
	if b.closed == nil {
		b.closed = err
	}
	b.mu.Unlock()
	return append(b.takeFront(nil), b.take(nil)...)
}
