package broker

import (
	"context"
	"errors"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/queue"
)

// retryUnreadable is the time after which a message is read again after an I/O error. Wrong bytes
// are not read again.
const retryUnreadable = 10 * time.Second

// errMoved is the cause of the error for a message that was moved each time it was read.
var errMoved = errors.New("the message moved")

// unreadable tells the machine that a message could not be read. The message is removed from its
// line, so that other messages are delivered. unreadable returns false if the error is not about
// the message; the caller must report such an error. at is the time of the machine's decision:
// later hand-outs of the group take the damage into account.
func (b *Broker) unreadable(o *queue.Handout, cause error) (at int64, ok bool) {
	if surgetank.CodeOf(cause) == surgetank.CodeClosed || errors.Is(cause, errMoved) || !b.alive() {
		return 0, false
	}
	if o.Consumer == 0 && retryAfter(cause) > 0 {
		return 0, true // no consumer waits for the message; its next reader will report the damage
	}
	c := &queue.Quarantine{ID: surgetank.MessageID{Queue: o.Queue.ID(), Seq: o.Seq}, Lease: o.Lease, NoAck: o.Lease == 0 && o.Consumer != 0,
		What: cause.Error(), Retry: retryAfter(cause)}
	b.logger.Error("a message cannot be read; it is kept out of its line", "queue", o.Queue.Name(), "message", c.ID.String(), "group", o.Group,
		"settled_unseen", c.NoAck, "retry", c.Retry, "error", cause)
	if err := b.do(context.Background(), c, 0); err != nil {
		return 0, false
	}
	return c.At + 1, true
}

// retryAfter returns when to read again after an error: soon after an I/O error, never (0) for
// wrong bytes.
func retryAfter(cause error) time.Duration {
	var e *surgetank.Error
	if errors.As(cause, &e) && e.Code == surgetank.CodeInternal && !errors.Is(cause, errMoved) {
		return retryUnreadable
	}
	return 0
}

// DropDamaged drops the messages of a queue that cannot be read. See surgetank.Broker.
func (b *Broker) DropDamaged(ctx context.Context, name string) (int64, error) {
	c := &queue.DropDamaged{Name: name}
	if err := b.pages(ctx, c, func() bool { return c.Next != 0 }); err != nil {
		return 0, err
	}
	return c.Dropped, c.Err
}
