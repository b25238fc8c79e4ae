package brokertest

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/surgetank/surgetank"
)

func subscribeCredit(e *env) {
	e.declare("q", surgetank.QueueConfig{})
	s := e.subscribe("q", surgetank.SubscribeOptions{Credit: 2, Lease: surgetank.LeaseForever})
	e.bodies("q", "1", "2", "3", "4")
	got := e.collect(s, 2)
	e.same(texts(got), []string{"1", "2"})
	if !got[0].Deadline.IsZero() {
		e.Fatalf("deadline %v of a lease that lasts as long as its subscription", got[0].Deadline)
	}
	e.quiet(s, "q")
	e.counts("q", 2, 0, 0, 2)
	e.settle(surgetank.Ack, got[0]) // settling makes the credit available again
	e.same(texts(e.collect(s, 1)), []string{"3"})
	e.nack(got[1], surgetank.Settlement{Delay: time.Hour})
	e.same(texts(e.collect(s, 1)), []string{"4"})
	e.must(s.Close())
}

func subscribeManualCredit(e *env) {
	e.declare("q", surgetank.QueueConfig{})
	s := e.subscribe("q", surgetank.SubscribeOptions{Credit: 1, ManualCredit: true})
	e.bodies("q", "1", "2", "3")
	got := e.collect(s, 1)
	e.settle(surgetank.Ack, got...)
	e.quiet(s, "q")
	s.AddCredit(2)
	e.same(texts(e.collect(s, 2)), []string{"2", "3"})
	e.must(s.Close())
}

func subscribeTryReceive(e *env) {
	e.declare("q", surgetank.QueueConfig{})
	s := e.subscribe("q", surgetank.SubscribeOptions{Credit: 100})
	got, err := s.TryReceive(nil, 10, 1<<20)
	e.must(err)
	e.same(texts(got), []string(nil))
	e.bodies("q", "1", "2", "3")
	var all []surgetank.Delivery
	for len(all) < 3 {
		select {
		case <-s.Ready():
		case <-time.After(patience):
			e.Fatalf("no token came after %d messages", len(all))
		}
		for {
			had := len(all)
			if all, err = s.TryReceive(all, 1, 1<<20); err != nil {
				e.Fatal(err)
			}
			if len(all) > had+1 {
				e.Fatal("more messages were received than requested")
			}
			if len(all) == had {
				break
			}
		}
	}
	e.same(texts(all), []string{"1", "2", "3"})
	e.must(s.Close())
	select { // the end of a subscription adds a token too
	case <-s.Ready():
	case <-time.After(patience):
		e.Fatal("no token arrived at the end of the subscription")
	}
	_, err = s.TryReceive(nil, 1, 1)
	e.code(err, surgetank.CodeClosed)
}

func subscribePriority(e *env) {
	e.declare("q", surgetank.QueueConfig{})
	low := e.subscribe("q", surgetank.SubscribeOptions{Credit: 10})
	high := e.subscribe("q", surgetank.SubscribeOptions{Credit: 2, Priority: 5})
	e.bodies("q", "1", "2", "3")
	e.same(texts(e.collect(high, 2)), []string{"1", "2"})
	e.same(texts(e.collect(low, 1)), []string{"3"})
	e.must(high.Close())
	e.must(low.Close())
}

func subscribeExclusive(e *env) {
	e.declare("q", surgetank.QueueConfig{})
	s := e.subscribe("q", surgetank.SubscribeOptions{Credit: 1, Exclusive: true})
	_, err := e.b.Subscribe(e.ctx, "q", surgetank.SubscribeOptions{Credit: 1})
	e.code(err, surgetank.CodeExists)
	e.must(s.Close())
	s = e.subscribe("q", surgetank.SubscribeOptions{Credit: 1})
	_, err = e.b.Subscribe(e.ctx, "q", surgetank.SubscribeOptions{Credit: 1, Exclusive: true})
	e.code(err, surgetank.CodeExists)
	e.must(s.Close())
}

func subscribeSingle(e *env) {
	e.declare("q", surgetank.QueueConfig{})
	first := e.subscribe("q", surgetank.SubscribeOptions{Credit: 1, Single: true})
	second := e.subscribe("q", surgetank.SubscribeOptions{Credit: 10, Single: true})
	e.bodies("q", "1", "2")
	got := e.collect(first, 1)
	e.quiet(second, "q")
	e.settle(surgetank.Ack, got...)
	got = e.collect(first, 1)
	e.same(texts(got), []string{"2"})
	e.must(first.Close())
	e.same(texts(e.collect(second, 1)), []string{"2"}) // the next subscription becomes active and gets the messages of the first
	e.must(second.Close())
}

func subscribeNoAck(e *env) {
	e.declare("q", surgetank.QueueConfig{})
	s := e.subscribe("q", surgetank.SubscribeOptions{Credit: 1000, NoAck: true})
	e.bodies("q", "1", "2", "3")
	got := e.collect(s, 3)
	e.same(texts(got), []string{"1", "2", "3"})
	if got[0].Receipt != (surgetank.Receipt{}) {
		e.Fatalf("receipt %v", got[0].Receipt)
	}
	e.counts("q", 0, 0, 0, 0)
	e.must(s.Close())
}

func subscribeCancel(e *env) {
	e.declare("q", surgetank.QueueConfig{Retry: surgetank.RetryConfig{Initial: -1}})
	s := e.subscribe("q", surgetank.SubscribeOptions{Credit: 10, Lease: surgetank.LeaseForever})
	e.bodies("q", "1", "2", "3")
	got := e.collect(s, 1)
	e.until("the others are leased, too", func() bool { return e.info("q").Leased == 3 })
	e.must(s.Cancel())
	_, err := s.Receive(e.ctx, nil, 1, 1)
	e.code(err, surgetank.CodeClosed)
	e.bodies("q", "4")
	back := e.await("q", 3, 0) // messages that were not received return, without a counted attempt
	e.same(texts(back), []string{"2", "3", "4"})
	if back[0].Attempt != 1 {
		e.Fatalf("attempt %d, want 1", back[0].Attempt)
	}
	e.settle(surgetank.Ack, got...) // received messages are still leased
	e.must(s.Close())

	s = e.subscribe("q", surgetank.SubscribeOptions{Credit: 10, Lease: surgetank.LeaseForever})
	e.bodies("q", "5")
	e.collect(s, 1)
	e.must(s.Cancel())
	e.must(s.Close()) // also after Cancel: received messages return to the queue
	e.same(texts(e.await("q", 1, 0)), []string{"5"})
}

func subscribeClose(e *env) {
	e.declare("q", surgetank.QueueConfig{Retry: surgetank.RetryConfig{Initial: -1}})
	s := e.subscribe("q", surgetank.SubscribeOptions{Credit: 10, Lease: surgetank.LeaseForever})
	e.bodies("q", "1", "2")
	got := e.collect(s, 1)
	e.must(s.Close())
	again := e.await("q", 2, 0)
	e.same(texts(again), []string{"1", "2"})
	if again[0].Attempt != 2 || !again[0].Redelivered || again[1].Attempt != 1 {
		e.Fatalf("attempts %d and %d, want 2 and 1", again[0].Attempt, again[1].Attempt)
	}
	e.code(e.settleAll(surgetank.Ack, got...)[0], surgetank.CodeLeaseLost)
	e.must(s.Close())
}

func subscribeQueueDeleted(e *env) {
	e.declare("q", surgetank.QueueConfig{})
	s := e.subscribe("q", surgetank.SubscribeOptions{Credit: 10})
	got := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(e.ctx, patience)
		defer cancel()
		_, err := s.Receive(ctx, nil, 1, 1)
		got <- err
	}()
	_, err := e.b.DeleteQueue(e.ctx, "q", surgetank.DeleteOptions{})
	e.must(err)
	e.code(<-got, surgetank.CodeNotFound)
	e.must(s.Close())
	_, err = e.b.Subscribe(e.ctx, "q", surgetank.SubscribeOptions{Credit: 1})
	e.code(err, surgetank.CodeNotFound)
}

func subscribeContext(e *env) {
	e.declare("q", surgetank.QueueConfig{})
	ctx, cancel := context.WithCancel(e.ctx)
	s, err := e.b.Subscribe(ctx, "q", surgetank.SubscribeOptions{Credit: 10})
	e.must(err)
	cancel() // the context limits only the attaching
	e.bodies("q", "x")
	e.same(texts(e.collect(s, 1)), []string{"x"})
	if _, err := s.Receive(ctx, nil, 1, 1); err == nil {
		e.Fatal("a receive whose context has ended waits for no message")
	}
	e.bodies("q", "y") // the subscription has not ended
	e.same(texts(e.collect(s, 1)), []string{"y"})
	e.must(s.Close())
}

// conservation: many publishers publish while consumers ack, nack, extend and disconnect. Every
// confirmed message is acked exactly once, and the messages of each group in order.
func conservation(e *env) {
	const publishers, perPublisher, consumers = 8, 250, 6
	e.declare("q", surgetank.QueueConfig{Group: surgetank.GroupConfig{MaxInFlight: 1}, Retry: surgetank.RetryConfig{MaxAttempts: -1, Initial: -1}})
	ctx, cancel := context.WithTimeout(e.ctx, 3*patience)
	defer cancel()
	var mu sync.Mutex
	acked := map[string][]int{} // acked messages of each group, in the order of acks
	total := 0
	done := make(chan struct{})
	var wg sync.WaitGroup
	for p := range publishers {
		wg.Go(func() {
			group := fmt.Sprintf("g%d", p)
			for i := 0; i < perPublisher; i += 10 {
				var batch []surgetank.Publishing
				for j := range 10 {
					batch = append(batch, grouped("q", group, fmt.Sprint(i+j)))
				}
				results, err := e.b.Publish(ctx, batch)
				if err != nil {
					e.Error(err)
					return
				}
				for _, r := range results {
					if r.Err != nil {
						e.Error(r.Err)
					}
				}
			}
		})
	}
	consume := func(c int) {
		s, err := e.b.Subscribe(ctx, "q", surgetank.SubscribeOptions{Credit: 4, Lease: surgetank.LeaseForever})
		if err != nil {
			e.Error(err)
			return
		}
		defer func() { s.Close() }()
		go func() { <-done; s.Cancel() }()
		for n := 0; ; n++ {
			list, err := s.Receive(ctx, nil, 3, 1<<20)
			if err != nil {
				if surgetank.CodeOf(err) != surgetank.CodeClosed {
					e.Error(err)
				}
				return
			}
			for i, d := range list {
				op := surgetank.Settlement{Receipt: d.Receipt}
				if (n+i+c)%7 == 0 {
					op.Op = surgetank.Nack
				} else {
					// Recorded under the lease: no other consumer has a message of this group now.
					var seq int
					fmt.Sscan(string(d.Body), &seq)
					mu.Lock()
					acked[d.Group] = append(acked[d.Group], seq)
					mu.Unlock()
				}
				results, err := e.b.Settle(ctx, []surgetank.Settlement{op})
				if err == nil {
					err = results[0]
				}
				if err != nil {
					e.Error(err)
					return
				}
				if op.Op != surgetank.Ack {
					continue
				}
				mu.Lock()
				if total++; total == publishers*perPublisher {
					close(done)
				}
				mu.Unlock()
			}
		}
	}
	for c := range consumers {
		wg.Go(func() { consume(c) })
	}
	wg.Wait()
	if total != publishers*perPublisher {
		e.Fatalf("%d of %d messages were acked", total, publishers*perPublisher)
	}
	for group, list := range acked {
		if len(list) != perPublisher || !slices.IsSorted(list) {
			e.Fatalf("group %s: %d acks, in order: %v", group, len(list), slices.IsSorted(list))
		}
	}
	e.counts("q", 0, 0, 0, 0)
}

// limitConsumers: a queue never has more consumers than its limit. If a consumer ends, another one
// can attach.
func limitConsumers(e *env) {
	e.declare("q", surgetank.QueueConfig{MaxConsumers: 2})
	one := e.subscribe("q", surgetank.SubscribeOptions{Credit: 1})
	two := e.subscribe("q", surgetank.SubscribeOptions{})
	refused := func() {
		_, err := e.b.Subscribe(e.ctx, "q", surgetank.SubscribeOptions{Credit: 1})
		e.code(err, surgetank.CodeFull)
		_, err = e.b.Receive(e.ctx, "q", surgetank.ReceiveOptions{Max: 1, Wait: patience}) // would wait as a consumer
		e.code(err, surgetank.CodeFull)
	}
	refused()
	got, err := e.b.Receive(e.ctx, "q", surgetank.ReceiveOptions{Max: 1}) // does not wait, so it is no consumer
	e.must(err)
	if len(got) != 0 || e.info("q").Consumers != 2 {
		e.Fatalf("received %d messages of an empty queue with %d consumers", len(got), e.info("q").Consumers)
	}
	e.must(two.Cancel())
	two = e.subscribe("q", surgetank.SubscribeOptions{})
	refused()
	e.must(one.Close())
	one = e.subscribe("q", surgetank.SubscribeOptions{})
	change := func(most int) {
		_, _, err := e.b.DeclareQueue(e.ctx, "q", surgetank.QueueConfig{MaxConsumers: most}, surgetank.DeclareUpdate)
		e.must(err)
	}
	change(1) // existing consumers stay
	refused()
	if n := e.info("q").Consumers; n != 2 {
		e.Fatalf("%d consumers are left", n)
	}
	change(0)
	three := e.subscribe("q", surgetank.SubscribeOptions{})
	for _, s := range []surgetank.Subscription{one, two, three} {
		e.must(s.Close())
	}
}
