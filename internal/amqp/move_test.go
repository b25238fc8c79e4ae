package amqp

import (
	"context"
	"fmt"
	"testing"
	"time"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/embedded"
)

// TestQueueMovesBelowClients: a client that publishes with confirms, and one that consumes with a
// prefetch, do not notice that their queue moves to another shard and back.
func TestQueueMovesBelowClients(t *testing.T) {
	b, err := embedded.Memory(embedded.Options{Shards: 2})
	if err != nil {
		t.Fatal(err)
	}
	bn := startOn(t, b, Limits{})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	const n, moves, step = 1000, 4, 200
	if _, _, err := b.DeclareQueue(ctx, "q", surgetank.QueueConfig{Shard: 1}, surgetank.DeclareNew); err != nil {
		t.Fatal(err)
	}
	consumer, publisher := bn.dial(), bn.dial()
	consumer.ok(consumer.Qos(20, 0, false))
	deliveries, err := consumer.ConsumeWithContext(ctx, "q", "", false, false, false, false, nil)
	consumer.ok(err)
	publisher.ok(publisher.Confirm(false))
	sent := make(chan struct{}, n)
	published := make(chan error, 1)
	go func() {
		var last *amqp091.DeferredConfirmation
		for i := range n {
			d, err := publisher.PublishWithDeferredConfirmWithContext(ctx, "", "q", true, false, amqp091.Publishing{Body: fmt.Append(nil, i), DeliveryMode: amqp091.Persistent})
			if err != nil {
				published <- err
				return
			}
			if last != nil {
				if ok, err := last.WaitContext(ctx); err != nil || !ok {
					published <- fmt.Errorf("message %d was not confirmed: %w", i-1, err)
					return
				}
			}
			last = d
			sent <- struct{}{}
		}
		_, err := last.WaitContext(ctx)
		published <- err
	}()
	moved := make(chan error, 1)
	go func() {
		for i := range moves {
			for range step {
				select {
				case <-sent:
				case <-ctx.Done():
				}
			}
			r, err := b.MoveQueue(ctx, "q", surgetank.MoveOptions{Shard: 2 - i%2})
			if err != nil || r.Returned != 0 {
				moved <- fmt.Errorf("move %d: %+v, %w", i, r, err)
				return
			}
		}
		moved <- nil
	}()
	for i := range n {
		select {
		case d, ok := <-deliveries:
			if !ok || string(d.Body) != fmt.Sprint(i) || d.Redelivered {
				t.Fatalf("delivery %d is %s, redelivered %v; the channel is open: %v", i, d.Body, d.Redelivered, ok)
			}
			consumer.ok(d.Ack(false))
		case <-ctx.Done():
			t.Fatalf("delivery %d does not come", i)
		}
	}
	for _, c := range []chan error{published, moved} {
		if err := <-c; err != nil {
			t.Error(err)
		}
	}
	i, err := b.Queue(ctx, "q")
	if err != nil || i.Shard != 1 || i.Consumers != 1 {
		t.Errorf("in the end: %+v, %v", i, err)
	}
}
