package embedded_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/embedded"
)

// scratch makes a temporary directory for an example.
func scratch() (dir string, remove func()) {
	dir, err := os.MkdirTemp("", "surgetank-example-")
	if err != nil {
		log.Fatal(err)
	}
	return dir, func() { os.RemoveAll(dir) }
}

// A queue in your own process: publish, receive, ack.
func Example() {
	dir, remove := scratch()
	defer remove()
	ctx := context.Background()

	b, err := embedded.Open(dir, embedded.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer b.Close()
	if _, _, err := b.DeclareQueue(ctx, "orders", surgetank.QueueConfig{}, surgetank.DeclareIfAbsent); err != nil {
		log.Fatal(err)
	}

	// A nil error means that the message is on disk.
	results, err := b.Publish(ctx, []surgetank.Publishing{{
		Queues:  []string{"orders"},
		Message: surgetank.Message{Body: []byte(`{"id": 1}`)},
	}})
	if err != nil || results[0].Err != nil {
		log.Fatal(err, results[0].Err)
	}

	deliveries, err := b.Receive(ctx, "orders", surgetank.ReceiveOptions{Max: 10, Wait: time.Second})
	if err != nil {
		log.Fatal(err)
	}
	for _, d := range deliveries {
		fmt.Printf("message %d: %s attempt %d\n", d.ID.Seq, d.Body, d.Attempt)
		if _, err := b.Settle(ctx, []surgetank.Settlement{{Receipt: d.Receipt, Op: surgetank.Ack}}); err != nil {
			log.Fatal(err)
		}
	}
	// Output: message 1: {"id": 1} attempt 1
}

// Messages of one customer are handled in order, different customers in parallel, and each publish
// is stored once.
func Example_groupsAndDedup() {
	dir, remove := scratch()
	defer remove()
	ctx := context.Background()
	b, err := embedded.Open(dir, embedded.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer b.Close()
	config := surgetank.QueueConfig{
		GroupBy:     "$.customer",
		Group:       surgetank.GroupConfig{MaxInFlight: 1},
		DedupWindow: 10 * time.Minute,
	}
	if _, _, err := b.DeclareQueue(ctx, "orders", config, surgetank.DeclareNew); err != nil {
		log.Fatal(err)
	}
	order := func(id, body string) surgetank.Publishing {
		return surgetank.Publishing{Queues: []string{"orders"}, Message: surgetank.Message{DedupID: id, Body: []byte(body)}}
	}
	results, err := b.Publish(ctx, []surgetank.Publishing{
		order("a1", `{"customer": "ada", "n": 1}`),
		order("a2", `{"customer": "ada", "n": 2}`),
		order("b1", `{"customer": "bob", "n": 1}`),
		order("a1", `{"customer": "ada", "n": 1}`), // the client repeats the publish
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("the last one is a duplicate:", results[3].Duplicate)

	// ada's second order is delivered after her first is acked.
	deliveries, err := b.Receive(ctx, "orders", surgetank.ReceiveOptions{Max: 10})
	if err != nil {
		log.Fatal(err)
	}
	for _, d := range deliveries {
		fmt.Println(d.Group, string(d.Body))
	}
	// Output:
	// the last one is a duplicate: true
	// ada {"customer": "ada", "n": 1}
	// bob {"customer": "bob", "n": 1}
}

// A message whose handler fails is delivered again after a back-off. After its last attempt it is
// moved to the dead-letter queue.
func Example_retryAndDeadLetter() {
	dir, remove := scratch()
	defer remove()
	ctx := context.Background()
	b, err := embedded.Open(dir, embedded.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer b.Close()
	config := surgetank.QueueConfig{Retry: surgetank.RetryConfig{MaxAttempts: 2, Initial: time.Millisecond, Jitter: -1}}
	if _, _, err := b.DeclareQueue(ctx, "jobs", config, surgetank.DeclareNew); err != nil {
		log.Fatal(err)
	}
	if _, err := b.Publish(ctx, []surgetank.Publishing{{Queues: []string{"jobs"}, Message: surgetank.Message{Body: []byte("job")}}}); err != nil {
		log.Fatal(err)
	}
	for range 2 {
		deliveries, err := b.Receive(ctx, "jobs", surgetank.ReceiveOptions{Wait: time.Minute})
		if err != nil {
			log.Fatal(err)
		}
		d := deliveries[0]
		fmt.Println("attempt", d.Attempt)
		if _, err := b.Settle(ctx, []surgetank.Settlement{{Receipt: d.Receipt, Op: surgetank.Nack, Delay: surgetank.RetryBackoff, Reason: "no luck"}}); err != nil {
			log.Fatal(err)
		}
	}
	parked, err := b.Peek(ctx, "jobs.dead", surgetank.PeekOptions{})
	if err != nil {
		log.Fatal(err)
	}
	for _, d := range parked {
		fmt.Println(string(d.Body), "died in", d.Deaths[0].Queue, "by", d.Deaths[0].Reason+":", d.Deaths[0].Detail)
	}
	// Output:
	// attempt 1
	// attempt 2
	// job died in jobs by attempts: no luck
}

// shop is a program that depends on a Broker only, so that a test can pass one in memory.
type shop struct{ queue surgetank.Broker }

func (s shop) order(ctx context.Context, body string) error {
	_, err := surgetank.Send(ctx, s.queue, "orders", surgetank.Message{Body: []byte(body)})
	return err
}

// A test of a program uses a broker in memory.
func ExampleMemory() {
	ctx := context.Background()
	b, err := embedded.Memory(embedded.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer b.Close()
	if _, _, err := b.DeclareQueue(ctx, "orders", surgetank.QueueConfig{}, surgetank.DeclareNew); err != nil {
		log.Fatal(err)
	}
	if err := (shop{b}).order(ctx, `{"total": 7}`); err != nil {
		log.Fatal(err)
	}
	list, err := b.Peek(ctx, "orders", surgetank.PeekOptions{})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%d order: %s\n", len(list), list[0].Body)
	// Output: 1 order: {"total": 7}
}
