package surgetank_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/embedded"
)

// open returns a broker with a queue. A program calls embedded.Open for a directory or client.Dial
// for a server.
func open(queue string, config surgetank.QueueConfig) *embedded.Broker {
	b, err := embedded.Memory(embedded.Options{})
	if err != nil {
		log.Fatal(err)
	}
	if _, _, err := b.DeclareQueue(context.Background(), queue, config, surgetank.DeclareIfAbsent); err != nil {
		log.Fatal(err)
	}
	return b
}

func ExampleSend() {
	ctx := context.Background()
	b := open("orders", surgetank.QueueConfig{})
	defer b.Close()
	id, err := surgetank.Send(ctx, b, "orders", surgetank.Message{Body: []byte(`{"total": 7}`)})
	fmt.Println(id.Seq, err)
	_, err = surgetank.Send(ctx, b, "odrers", surgetank.Message{Body: []byte("{}")})
	fmt.Println(errors.Is(err, surgetank.ErrNotFound))
	// Output:
	// 1 <nil>
	// true
}

func ExampleSendAll() {
	ctx := context.Background()
	b := open("orders", surgetank.QueueConfig{MaxMessages: 2})
	defer b.Close()
	m := surgetank.Message{Body: []byte("{}")}
	err := surgetank.SendAll(ctx, b, "orders", m, m, m)
	fmt.Println(surgetank.CodeOf(err))
	q, err := b.Queue(ctx, "orders")
	fmt.Println(q.Ready, err)
	// Output:
	// full
	// 2 <nil>
}

func ExampleAckAll() {
	ctx := context.Background()
	b := open("orders", surgetank.QueueConfig{})
	defer b.Close()
	if err := surgetank.SendAll(ctx, b, "orders", surgetank.Message{Body: []byte("a")}, surgetank.Message{Body: []byte("b")}); err != nil {
		log.Fatal(err)
	}
	deliveries, err := b.Receive(ctx, "orders", surgetank.ReceiveOptions{Max: 10})
	if err != nil {
		log.Fatal(err)
	}
	for _, d := range deliveries {
		fmt.Printf("%s\n", d.Body)
	}
	fmt.Println(surgetank.AckAll(ctx, b, deliveries...))
	// Output:
	// a
	// b
	// <nil>
}

// A subscription has credit for a number of messages. Settling a message makes its credit available
// again.
func ExampleDeliveries() {
	ctx := context.Background()
	b := open("orders", surgetank.QueueConfig{})
	defer b.Close()
	if err := surgetank.SendAll(ctx, b, "orders", surgetank.Message{Body: []byte("a")}, surgetank.Message{Body: []byte("b")}, surgetank.Message{Body: []byte("stop")}); err != nil {
		log.Fatal(err)
	}
	s, err := b.Subscribe(ctx, "orders", surgetank.SubscribeOptions{Credit: 2})
	if err != nil {
		log.Fatal(err)
	}
	defer s.Close()
	for d, err := range surgetank.Deliveries(ctx, s) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%s\n", d.Body)
		if err := surgetank.SettleAll(ctx, b, d.Ack()); err != nil {
			log.Fatal(err)
		}
		if string(d.Body) == "stop" {
			break
		}
	}
	// Output:
	// a
	// b
	// stop
}

// Messages of one group are handled in order, one at a time. Different groups are handled in
// parallel.
func ExampleGroupConfig() {
	ctx := context.Background()
	b := open("orders", surgetank.QueueConfig{GroupBy: "$.customer", Group: surgetank.GroupConfig{MaxInFlight: 1}})
	defer b.Close()
	for _, body := range []string{`{"customer": 1, "n": 1}`, `{"customer": 1, "n": 2}`, `{"customer": 2, "n": 1}`} {
		if _, err := surgetank.Send(ctx, b, "orders", surgetank.Message{Body: []byte(body)}); err != nil {
			log.Fatal(err)
		}
	}
	deliveries, err := b.Receive(ctx, "orders", surgetank.ReceiveOptions{Max: 10})
	if err != nil {
		log.Fatal(err)
	}
	for _, d := range deliveries {
		fmt.Println(d.Group, string(d.Body))
	}
	// Output:
	// 1 {"customer": 1, "n": 1}
	// 2 {"customer": 2, "n": 1}
}

// Messages that a handler publishes become durable together with its ack, or not at all.
func ExampleBroker_transact() {
	ctx := context.Background()
	b := open("orders", surgetank.QueueConfig{})
	defer b.Close()
	if _, _, err := b.DeclareQueue(ctx, "invoices", surgetank.QueueConfig{}, surgetank.DeclareIfAbsent); err != nil {
		log.Fatal(err)
	}
	if _, err := surgetank.Send(ctx, b, "orders", surgetank.Message{Body: []byte("order 1")}); err != nil {
		log.Fatal(err)
	}
	deliveries, err := b.Receive(ctx, "orders", surgetank.ReceiveOptions{})
	if err != nil {
		log.Fatal(err)
	}
	invoice := surgetank.Publishing{Queues: []string{"invoices"}, Message: surgetank.Message{Body: []byte("invoice for order 1")}}
	_, err = b.Transact(ctx, []surgetank.Publishing{invoice}, []surgetank.Settlement{deliveries[0].Ack()})
	fmt.Println(err)
	// Output: <nil>
}

// A message that is rejected or fails too often is moved to the queue's dead-letter queue. A
// redrive moves it back.
func ExampleBroker_redrive() {
	ctx := context.Background()
	b := open("orders", surgetank.QueueConfig{})
	defer b.Close()
	if _, err := surgetank.Send(ctx, b, "orders", surgetank.Message{Body: []byte("order 1")}); err != nil {
		log.Fatal(err)
	}
	deliveries, err := b.Receive(ctx, "orders", surgetank.ReceiveOptions{})
	if err != nil {
		log.Fatal(err)
	}
	if err := surgetank.SettleAll(ctx, b, deliveries[0].Reject("no such product")); err != nil {
		log.Fatal(err)
	}
	dead, err := b.Peek(ctx, "orders.dead", surgetank.PeekOptions{})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(dead[0].Deaths[0].Reason, dead[0].Deaths[0].Detail)
	result, err := b.Redrive(ctx, "orders.dead", surgetank.RedriveOptions{})
	fmt.Println(result.Moved, err)
	// Output:
	// rejected no such product
	// 1 <nil>
}

// A second message with a dedup id that the queue remembers is confirmed and not stored.
func ExampleMessage_dedup() {
	ctx := context.Background()
	b := open("orders", surgetank.QueueConfig{DedupWindow: time.Hour})
	defer b.Close()
	for range 2 {
		results, err := b.Publish(ctx, []surgetank.Publishing{{Queues: []string{"orders"}, Message: surgetank.Message{Body: []byte("{}"), DedupID: "order-1"}}})
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(results[0].ID.Seq, results[0].Duplicate)
	}
	// Output:
	// 1 false
	// 1 true
}

// A delayed message is delivered after its delay. Until then a peek shows it as delayed.
func ExampleMessage_delay() {
	ctx := context.Background()
	b := open("reminders", surgetank.QueueConfig{})
	defer b.Close()
	if _, err := surgetank.Send(ctx, b, "reminders", surgetank.Message{Body: []byte("call back"), Delay: time.Hour}); err != nil {
		log.Fatal(err)
	}
	shown, err := b.Peek(ctx, "reminders", surgetank.PeekOptions{})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(shown[0].State, shown[0].Delay)
	// Output: delayed 1h0m0s
}

// A queue's level limits deliveries to the rate of its target.
func ExampleLevelConfig() {
	b := open("orders", surgetank.QueueConfig{Level: surgetank.LevelConfig{Rate: 500, MaxInFlight: 20}})
	defer b.Close()
	q, err := b.Queue(context.Background(), "orders")
	fmt.Println(q.Config.Level.Burst, err)
	// Output: 50 <nil>
}

// A message that must never become a dead letter is tried without end. Its delays grow up to ten
// minutes.
func ExampleRetryConfig() {
	b := open("orders", surgetank.QueueConfig{Retry: surgetank.RetryConfig{MaxAttempts: surgetank.Unlimited, Initial: 5 * time.Second}})
	defer b.Close()
	q, err := b.Queue(context.Background(), "orders")
	fmt.Println(q.Config.Retry.Max, err)
	// Output: 10m0s <nil>
}

// An error's code says what to do. Passing reports whether the same call can succeed later.
func ExampleCodeOf() {
	b := open("orders", surgetank.QueueConfig{})
	if err := b.Close(); err != nil {
		log.Fatal(err)
	}
	_, err := surgetank.Send(context.Background(), b, "orders", surgetank.Message{})
	fmt.Println(surgetank.CodeOf(err), surgetank.Passing(err))
	// Output: closed false
}
