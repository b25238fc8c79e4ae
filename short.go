package surgetank

import (
	"context"
	"errors"
	"fmt"
	"iter"
)

// Send publishes one message to one queue and returns after it is on disk. The error is from the
// call or from the message. With CodeUncertain, it is not known whether the message is stored.
func Send(ctx context.Context, p Publisher, queue string, m Message) (MessageID, error) {
	results, err := p.Publish(ctx, []Publishing{{Queues: []string{queue}, Message: m}})
	if err != nil {
		return MessageID{}, err
	}
	return results[0].ID, results[0].Err
}

// SendAll publishes messages to one queue, in order, and returns after they are on disk. If
// messages are refused, the error has their number and the first cause. The other messages are
// stored.
func SendAll(ctx context.Context, p Publisher, queue string, messages ...Message) error {
	list := make([]Publishing, len(messages))
	queues := []string{queue}
	for i := range messages {
		list[i] = Publishing{Queues: queues, Message: messages[i]}
	}
	results, err := p.Publish(ctx, list)
	if err != nil {
		return err
	}
	return first("message", len(results), func(i int) error { return results[i].Err })
}

// SettleAll settles deliveries and returns after the changes are on disk: SettleAll(ctx, b,
// d.Ack()). If settlements are refused, the error has their number and the first cause. The other
// settlements are done.
func SettleAll(ctx context.Context, c Consumer, settlements ...Settlement) error {
	results, err := c.Settle(ctx, settlements)
	if err != nil {
		return err
	}
	return first("settlement", len(results), func(i int) error { return results[i] })
}

// AckAll acks deliveries and returns after the acks are on disk. If acks are refused, the error has
// their number and the first cause. The other acks are done.
func AckAll(ctx context.Context, c Consumer, deliveries ...Delivery) error {
	list := make([]Settlement, len(deliveries))
	for i := range deliveries {
		list[i] = deliveries[i].Ack()
	}
	return SettleAll(ctx, c, list...)
}

// first returns the first error of n results. Its text gets the position of the error and the
// number of errors. Code and field stay the same.
func first(what string, n int, at func(i int) error) error {
	var found error
	number, count := 0, 0
	for i := range n {
		if err := at(i); err != nil {
			if count++; found == nil {
				found, number = err, i+1
			}
		}
	}
	if found == nil || n == 1 {
		return found
	}
	e := &Error{Code: CodeOf(found), Err: found}
	var inner *Error
	if errors.As(found, &inner) {
		e.Field = inner.Field
	}
	e.Message = fmt.Sprintf("%d of %d %ss were refused; the first is number %d: %s", count, n, what, number, found)
	return e
}

// Ack returns the settlement for a handled message.
func (d *Delivery) Ack() Settlement { return Settlement{Receipt: d.Receipt, Op: Ack} }

// Nack returns the settlement for another try after the queue's retry back-off. reason is kept in
// the message's dead-letter history.
func (d *Delivery) Nack(reason string) Settlement {
	return Settlement{Receipt: d.Receipt, Op: Nack, Delay: RetryBackoff, Reason: reason}
}

// Reject returns the settlement for a message that must not be tried again. The message is moved to
// the queue's dead-letter queue.
func (d *Delivery) Reject(reason string) Settlement {
	return Settlement{Receipt: d.Receipt, Op: Reject, Reason: reason}
}

// Deliveries iterates over the deliveries of a subscription. The iteration ends when ctx ends or
// the subscription is closed. If the subscription ends for another reason, the last step returns an
// empty delivery and the error, such as CodeNotFound if the queue was deleted. The loop's body must
// settle each delivery, or add credit, to get more. If the body leaves the loop early, later
// deliveries stay in the subscription.
func Deliveries(ctx context.Context, s Subscription) iter.Seq2[Delivery, error] {
	return func(yield func(Delivery, error) bool) {
		var buf []Delivery
		for {
			var err error
			if buf, err = s.Receive(ctx, buf[:0], 1, 1); err != nil && len(buf) == 0 {
				if ctx.Err() == nil && CodeOf(err) != CodeClosed {
					yield(Delivery{}, err)
				}
				return
			}
			for i := range buf {
				if !yield(buf[i], nil) {
					return
				}
			}
			clear(buf) // so that the bodies can be freed
		}
	}
}
