package worker_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/embedded"
	"github.com/surgetank/surgetank/worker"
)

var errDatabaseDown = errors.New("the database is down")

func store(context.Context, []byte) error { return nil }

// A worker stores orders. Bad orders go to orders.dead. While the database is away, no attempt is
// counted.
func ExampleRun() {
	ctx, stop := context.WithCancel(context.Background())
	b, err := embedded.Memory(embedded.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer b.Close()
	if _, _, err := b.DeclareQueue(ctx, "orders", surgetank.QueueConfig{}, surgetank.DeclareOrUpdate); err != nil {
		log.Fatal(err)
	}
	if _, err := b.Publish(ctx, []surgetank.Publishing{{Queues: []string{"orders"}, Message: surgetank.Message{Body: []byte(`{"total": 7}`)}}}); err != nil {
		log.Fatal(err)
	}

	err = worker.Run(ctx, b, "orders", func(ctx context.Context, d *surgetank.Delivery) error {
		var order struct{ Total int }
		if err := json.Unmarshal(d.Body, &order); err != nil {
			return worker.Reject(err) // no attempt can succeed
		}
		if err := store(ctx, d.Body); errors.Is(err, errDatabaseDown) {
			return worker.Return(5*time.Second, err) // the order is good
		} else if err != nil {
			return err // retry after the queue's back-off
		}
		fmt.Println("stored an order of", order.Total)
		stop() // ends the example; a service stops on a signal
		return nil
	}, worker.Options{Concurrency: 4})
	if err != nil {
		log.Fatal(err)
	}
	// Output: stored an order of 7
}

// A worker handles up to 500 messages at once and reports which of them failed.
func ExampleRunBatches() {
	ctx, stop := context.WithCancel(context.Background())
	b, err := embedded.Memory(embedded.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer b.Close()
	if _, _, err := b.DeclareQueue(ctx, "clicks", surgetank.QueueConfig{}, surgetank.DeclareOrUpdate); err != nil {
		log.Fatal(err)
	}
	var clicks []surgetank.Publishing
	for range 3 {
		clicks = append(clicks, surgetank.Publishing{Queues: []string{"clicks"}, Message: surgetank.Message{Body: []byte("click")}})
	}
	if _, err := b.Publish(ctx, clicks); err != nil {
		log.Fatal(err)
	}

	err = worker.RunBatches(ctx, b, "clicks", func(ctx context.Context, batch []surgetank.Delivery) error {
		failed := make(worker.Errors, len(batch))
		for i := range batch {
			failed[i] = store(ctx, batch[i].Body)
		}
		fmt.Println("stored", len(batch), "clicks")
		stop()
		return failed
	}, worker.Options{MaxBatch: 500})
	if err != nil {
		log.Fatal(err)
	}
	// Output: stored 3 clicks
}
