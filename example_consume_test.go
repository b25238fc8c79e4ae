package surgetank_test

import (
	"context"
	"fmt"
	"log"
	"time"

	"github.com/surgetank/surgetank"
)

// A queue with max_priority delivers messages with a higher priority first.
func ExampleMessage_priority() {
	ctx := context.Background()
	b := open("mails", surgetank.QueueConfig{MaxPriority: 9})
	defer b.Close()
	if err := surgetank.SendAll(ctx, b, "mails", surgetank.Message{Body: []byte("newsletter")}, surgetank.Message{Body: []byte("password reset"), Priority: 9}); err != nil {
		log.Fatal(err)
	}
	deliveries, err := b.Receive(ctx, "mails", surgetank.ReceiveOptions{Max: 10})
	if err != nil {
		log.Fatal(err)
	}
	for _, d := range deliveries {
		fmt.Printf("%s\n", d.Body)
	}
	// Output:
	// password reset
	// newsletter
}

// A message that waits longer than its TTL is moved to the dead-letter queue.
func ExampleMessage_ttl() {
	ctx := context.Background()
	b := open("quotes", surgetank.QueueConfig{DeadLetter: "old-quotes"})
	defer b.Close()
	if _, _, err := b.DeclareQueue(ctx, "old-quotes", surgetank.QueueConfig{}, surgetank.DeclareIfAbsent); err != nil {
		log.Fatal(err)
	}
	if _, err := surgetank.Send(ctx, b, "quotes", surgetank.Message{Body: []byte("42.10"), TTL: time.Millisecond}); err != nil {
		log.Fatal(err)
	}
	dead, err := b.Receive(ctx, "old-quotes", surgetank.ReceiveOptions{Wait: time.Minute})
	if err != nil || len(dead) == 0 {
		log.Fatal("no dead letter came: ", err)
	}
	fmt.Println(dead[0].Deaths[0].Queue, dead[0].Deaths[0].Reason)
	// Output: quotes expired
}

// A rejected message is moved to the dead-letter queue at once, with the consumer's reason.
func ExampleDelivery_Reject() {
	ctx := context.Background()
	b := open("orders", surgetank.QueueConfig{})
	defer b.Close()
	if _, err := surgetank.Send(ctx, b, "orders", surgetank.Message{Body: []byte("not JSON")}); err != nil {
		log.Fatal(err)
	}
	deliveries, err := b.Receive(ctx, "orders", surgetank.ReceiveOptions{})
	if err != nil {
		log.Fatal(err)
	}
	if err := surgetank.SettleAll(ctx, b, deliveries[0].Reject("the body is not JSON")); err != nil {
		log.Fatal(err)
	}
	dead, err := b.Peek(ctx, "orders"+surgetank.DeadLetterSuffix, surgetank.PeekOptions{})
	if err != nil {
		log.Fatal(err)
	}
	death := dead[0].Deaths[0]
	fmt.Printf("%s: %s (%s)\n", dead[0].Body, death.Reason, death.Detail)
	// Output: not JSON: rejected (the body is not JSON)
}

// With ManualCredit, a consumer asks for a batch whenever it is ready for one.
func ExampleSubscription_credit() {
	ctx := context.Background()
	b := open("orders", surgetank.QueueConfig{})
	defer b.Close()
	m := surgetank.Message{Body: []byte("{}")}
	if err := surgetank.SendAll(ctx, b, "orders", m, m, m); err != nil {
		log.Fatal(err)
	}
	s, err := b.Subscribe(ctx, "orders", surgetank.SubscribeOptions{ManualCredit: true})
	if err != nil {
		log.Fatal(err)
	}
	defer s.Close()
	for _, credit := range []int{2, 1} {
		s.AddCredit(credit)
		var batch []surgetank.Delivery
		for len(batch) < credit {
			if batch, err = s.Receive(ctx, batch, credit-len(batch), 1<<20); err != nil {
				log.Fatal(err)
			}
		}
		fmt.Println("a batch of", len(batch))
		if err := surgetank.AckAll(ctx, b, batch...); err != nil {
			log.Fatal(err)
		}
	}
	// Output:
	// a batch of 2
	// a batch of 1
}

// A pause stops deliveries of a queue. Publishing continues.
func ExampleAdministrator_pause() {
	ctx := context.Background()
	b := open("orders", surgetank.QueueConfig{})
	defer b.Close()
	if err := b.PauseQueue(ctx, "orders", 0); err != nil {
		log.Fatal(err)
	}
	if _, err := surgetank.Send(ctx, b, "orders", surgetank.Message{Body: []byte("{}")}); err != nil {
		log.Fatal(err)
	}
	deliveries, err := b.Receive(ctx, "orders", surgetank.ReceiveOptions{})
	fmt.Println(len(deliveries), err)
	if err := b.ResumeQueue(ctx, "orders"); err != nil {
		log.Fatal(err)
	}
	deliveries, err = b.Receive(ctx, "orders", surgetank.ReceiveOptions{})
	fmt.Println(len(deliveries), err)
	// Output:
	// 0 <nil>
	// 1 <nil>
}
