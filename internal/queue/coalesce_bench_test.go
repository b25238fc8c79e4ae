package queue_test

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"testing"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/door"
	"github.com/surgetank/surgetank/internal/queue"
)

// BenchmarkCoalesce measures publish, hand-out and ack on the machine, with coalescing off and on.
// One operation is one published message. "all different": no two waiting messages have a key in
// common. "ten to one": of ten published messages one is delivered.
func BenchmarkCoalesce(b *testing.B) {
	last := surgetank.CoalesceConfig{By: "header:k"}
	first := surgetank.CoalesceConfig{By: "header:k", Keep: surgetank.KeepFirst}
	for _, c := range []struct {
		name   string
		config surgetank.CoalesceConfig
		same   int // published messages with one key
	}{{"off", surgetank.CoalesceConfig{}, 1}, {"on, no key", last, 0}, {"last, all different", last, 1}, {"last, ten to one", last, 10}, {"first, ten to one", first, 10}} {
		b.Run(c.name, func(b *testing.B) {
			r := newRig()
			r.step(&queue.Declare{Name: "q", Config: surgetank.QueueConfig{Coalesce: c.config}})
			r.step(&queue.OpenEpoch{Epoch: 1})
			pub := surgetank.Publishing{Queues: []string{"q"}, Message: surgetank.Message{Body: make([]byte, 256)}}
			const batch = 100
			msgs := make([]queue.Incoming, batch)
			for i := range msgs {
				msgs[i].Publishing = &pub
				if c.same > 0 {
					msgs[i].Keys = []queue.Key{{Hash: queue.MakeCoalesceKey("header:k", "", fmt.Sprint(i/c.same))}}
				}
			}
			b.ReportAllocs()
			for range max(1, b.N/batch) {
				r.step(&queue.Publish{Msgs: msgs, Results: make([]surgetank.PublishResult, batch)})
				out := r.step(&queue.Attach{Queue: "q", Now: true, Opts: door.SubscribeOptions{SubscribeOptions: surgetank.SubscribeOptions{Credit: batch}}})
				acks := make([]surgetank.Settlement, len(out.Handouts))
				for i, h := range out.Handouts {
					acks[i].Receipt = surgetank.Receipt{Epoch: 1, ID: surgetank.MessageID{Queue: h.Queue.ID(), Seq: h.Seq}, Lease: h.Lease}
				}
				s := &queue.Settle{Items: acks, Results: make([]error, len(acks))}
				if r.step(s); s.Results[0] != nil {
					b.Fatal(s.Results[0])
				}
			}
		})
	}
}

// BenchmarkMakeKey measures the hash of a coalescing key, which callers compute.
func BenchmarkMakeKey(b *testing.B) {
	for range b.N {
		queue.MakeCoalesceKey("header:customer", "", "customer-4711")
	}
}

// BenchmarkCoalescedBacklog measures the heap bytes of 200,000 waiting messages, without keys, with
// keys, and after each key was written ten times in random order.
func BenchmarkCoalescedBacklog(b *testing.B) {
	const n = 200_000
	for _, c := range []struct {
		name   string
		keyed  bool
		writes int
	}{{"no keys", false, 1}, {"keys", true, 1}, {"keys, written ten times", true, 10}} {
		b.Run(c.name, func(b *testing.B) {
			for range b.N {
				r := newRig()
				r.step(&queue.Declare{Name: "q", Config: surgetank.QueueConfig{Coalesce: surgetank.CoalesceConfig{By: "header:k", MaxWait: surgetank.NoMaxWait}}})
				r.step(&queue.OpenEpoch{Epoch: 1})
				var before, after runtime.MemStats
				runtime.GC()
				runtime.ReadMemStats(&before)
				pub := surgetank.Publishing{Queues: []string{"q"}, Message: surgetank.Message{Body: make([]byte, 256)}}
				rng := rand.New(rand.NewPCG(1, 1))
				at := 0
				for range n * c.writes / 500 {
					msgs := make([]queue.Incoming, 500)
					for i := range msgs {
						msgs[i].Publishing = &pub
						if c.keyed {
							k := at
							if at++; k >= n {
								k = rng.IntN(n)
							}
							msgs[i].Keys = []queue.Key{{Hash: queue.MakeCoalesceKey("", "", fmt.Sprint(k))}}
						}
					}
					r.step(&queue.Publish{Msgs: msgs, Results: make([]surgetank.PublishResult, 500)})
				}
				runtime.GC()
				runtime.ReadMemStats(&after)
				b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/n, "B/key")
				runtime.KeepAlive(r)
			}
		})
	}
}
