package broker_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/embedded"
)

func TestPublishReceiveAck(t *testing.T) {
	b, err := embedded.Memory(embedded.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	ctx := t.Context()
	if _, _, err := b.DeclareQueue(ctx, "orders", surgetank.QueueConfig{}, surgetank.DeclareNew); err != nil {
		t.Fatal(err)
	}
	var msgs []surgetank.Publishing
	for i := range 10 {
		msgs = append(msgs, surgetank.Publishing{Queues: []string{"orders"}, Message: surgetank.Message{Body: fmt.Append(nil, i)}})
	}
	res, err := b.Publish(ctx, msgs)
	if err != nil || res[9].Err != nil || res[9].ID.Seq != 10 {
		t.Fatal(res, err)
	}
	got, err := b.Receive(ctx, "orders", surgetank.ReceiveOptions{Max: 100})
	if err != nil || len(got) != 10 || string(got[3].Body) != "3" {
		t.Fatal(len(got), err)
	}
	var acks []surgetank.Settlement
	for _, d := range got {
		acks = append(acks, surgetank.Settlement{Receipt: d.Receipt})
	}
	results, err := b.Settle(ctx, acks)
	if err != nil || results[0] != nil {
		t.Fatal(results, err)
	}
	info, err := b.Queue(ctx, "orders")
	if err != nil || info.Ready+info.Leased != 0 || info.Acked != 10 {
		t.Fatalf("%+v %v", info, err)
	}
}

func TestManyPublishersAndConsumersConserveCounts(t *testing.T) {
	b, err := embedded.Memory(embedded.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if _, _, err := b.DeclareQueue(ctx, "q", surgetank.QueueConfig{}, surgetank.DeclareNew); err != nil {
		t.Fatal(err)
	}
	const each, publishers, consumers = 5000, 4, 4
	var wg sync.WaitGroup
	for range publishers {
		wg.Go(func() {
			var in sync.WaitGroup
			for i := range each {
				in.Add(1)
				err := b.PublishAsync(ctx, []surgetank.Publishing{{Queues: []string{"q"}, Message: surgetank.Message{Body: fmt.Append(nil, i)}}},
					func(r []surgetank.PublishResult, err error) {
						if err != nil || r[0].Err != nil {
							t.Error(err)
						}
						in.Done()
					})
				if err != nil {
					t.Error(err)
				}
			}
			in.Wait()
		})
	}
	var mu sync.Mutex
	seen := map[uint64]int{}
	all := make(chan struct{})
	for range consumers {
		sub, err := b.Subscribe(ctx, "q", surgetank.SubscribeOptions{Credit: 100})
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			go func() { <-all; sub.Cancel() }()
			for {
				ds, err := sub.Receive(ctx, nil, 50, 1<<20)
				if err != nil {
					return
				}
				var acks []surgetank.Settlement
				mu.Lock()
				for _, d := range ds {
					seen[d.ID.Seq]++
					acks = append(acks, surgetank.Settlement{Receipt: d.Receipt})
				}
				done := len(seen) == each*publishers
				mu.Unlock()
				if res, err := b.Settle(ctx, acks); err != nil || res[0] != nil {
					t.Error(res, err)
				}
				if done {
					close(all)
				}
			}
		})
	}
	wg.Wait()
	for seq, n := range seen {
		if n != 1 {
			t.Errorf("message %d was delivered %d times", seq, n)
		}
	}
}
