package broker_test

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/embedded"
)

// BenchmarkPublishMemory measures the loop and the machine without a disk: 8 publishers, each with
// 1,000 unconfirmed messages.
func BenchmarkPublishMemory(b *testing.B) {
	br, err := embedded.Memory(embedded.Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer br.Close()
	ctx := b.Context()
	if _, _, err := br.DeclareQueue(ctx, "q", surgetank.QueueConfig{}, surgetank.DeclareNew); err != nil {
		b.Fatal(err)
	}
	body := make([]byte, 1024)
	b.SetBytes(1024)
	b.ReportAllocs()
	b.ResetTimer()
	var wg sync.WaitGroup
	const publishers = 8
	for range publishers {
		wg.Go(func() {
			window := make(chan struct{}, 1000)
			done := func([]surgetank.PublishResult, error) { <-window }
			queues := []string{"q"}
			for range b.N / publishers {
				window <- struct{}{}
				msg := []surgetank.Publishing{{Queues: queues, Message: surgetank.Message{Body: body}}}
				if err := br.PublishAsync(ctx, msg, done); err != nil {
					b.Error(err)
				}
			}
			for range cap(window) {
				window <- struct{}{}
			}
		})
	}
	wg.Wait()
}

// BenchmarkPublishBesideScan measures how long a lone publisher waits for its confirm while another
// call repeatedly searches a queue of five million messages for a message that is not in the queue.
func BenchmarkPublishBesideScan(b *testing.B) {
	br, err := embedded.Memory(embedded.Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer br.Close()
	ctx := b.Context()
	for _, q := range []string{"large", "q"} {
		if _, _, err := br.DeclareQueue(ctx, q, surgetank.QueueConfig{}, surgetank.DeclareNew); err != nil {
			b.Fatal(err)
		}
	}
	msgs := make([]surgetank.Publishing, 5000)
	for i := range msgs {
		msgs[i] = surgetank.Publishing{Queues: []string{"large"}}
	}
	for range 1000 {
		if _, err := br.Publish(ctx, msgs); err != nil {
			b.Fatal(err)
		}
	}
	ctx, stop := context.WithCancel(ctx)
	var scans int
	var scanning sync.WaitGroup
	scanning.Go(func() {
		for ctx.Err() == nil {
			if _, err := br.Peek(ctx, "large", surgetank.PeekOptions{State: surgetank.StateLeased}); err == nil {
				scans++
			}
		}
	})
	one := []surgetank.Publishing{{Queues: []string{"q"}}}
	var waits []time.Duration
	for begun := time.Now(); time.Since(begun) < 5*time.Second; {
		start := time.Now()
		if _, err := br.Publish(b.Context(), one); err != nil {
			b.Fatal(err)
		}
		waits = append(waits, time.Since(start))
	}
	stop()
	scanning.Wait()
	slices.Sort(waits)
	at := func(share float64) float64 {
		return float64(waits[int(share*float64(len(waits)-1))].Microseconds()) / 1000
	}
	b.ReportMetric(at(0.5), "p50-ms")
	b.ReportMetric(at(0.999), "p99.9-ms")
	b.ReportMetric(at(1), "max-ms")
	b.ReportMetric(float64(len(waits))/5, "publishes/s")
	b.ReportMetric(float64(scans), "scans")
	b.ReportMetric(0, "ns/op")
}
