package broker_test

import (
	"sync"
	"testing"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/embedded"
)

// BenchmarkPublishMemory is what the loop and the machine cost without a disk: 8 publishers, 1,000 in flight each.
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
