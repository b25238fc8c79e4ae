package broker_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/broker"
	"github.com/surgetank/surgetank/internal/commitlog"
	"github.com/surgetank/surgetank/internal/memlog"
)

// remotePace is a pace for logs whose appends last some milliseconds.
var remotePace = commitlog.Pace{Entries: 128, Bytes: 16 << 20, EntryBytes: 256 << 10, Gather: time.Millisecond}

// BenchmarkPublishLatency measures 64 publishers with windows of unconfirmed messages, on logs whose
// appends last 1 ms and 10 ms, with the pace of a remote log and with that of a local disk. One
// operation is one message of 1 KiB.
func BenchmarkPublishLatency(b *testing.B) {
	for _, window := range []int{1, 16, 64, 256} {
		for _, latency := range []time.Duration{time.Millisecond, 10 * time.Millisecond} {
			for _, pace := range []struct {
				name string
				commitlog.Pace
			}{{"remote", remotePace}, {"local", commitlog.Pace{}}} {
				b.Run(fmt.Sprintf("window=%d/latency=%v/pace=%s", window, latency, pace.name), func(b *testing.B) {
					publishLatency(b, window, memlog.Options{Latency: latency, Pace: pace.Pace})
				})
			}
		}
	}
}

func publishLatency(b *testing.B, window int, o memlog.Options) {
	store := memlog.NewStore()
	br, err := broker.Open(broker.Options{OpenLog: func(from commitlog.Offset, _ broker.LogHooks) (commitlog.Replay, commitlog.Log, error) {
		o.From = from
		return store.Open(o)
	}})
	if err != nil {
		b.Fatal(err)
	}
	defer br.Close()
	ctx := b.Context()
	if _, _, err := br.DeclareQueue(ctx, "q", surgetank.QueueConfig{}, surgetank.DeclareNew); err != nil {
		b.Fatal(err)
	}
	const publishers = 64
	body := make([]byte, 1024)
	b.ResetTimer()
	before := store.Len()
	var wg sync.WaitGroup
	for p := range publishers {
		wg.Go(func() {
			free := make(chan struct{}, window)
			done := func([]surgetank.PublishResult, error) { <-free }
			queues := []string{"q"}
			for i := p; i < b.N; i += publishers {
				free <- struct{}{}
				msg := []surgetank.Publishing{{Queues: queues, Message: surgetank.Message{Body: body}}}
				if err := br.PublishAsync(ctx, msg, done); err != nil {
					b.Error(err)
				}
			}
			for range window {
				free <- struct{}{}
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
	b.ReportMetric(float64(b.N)/float64(store.Len()-before), "msg/entry")
}
