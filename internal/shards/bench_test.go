package shards_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/embedded"
)

// BenchmarkShards publishes messages of 1 KiB from 64 goroutines, and consumes them, with 1, 2 and
// 4 shards on one disk.
func BenchmarkShards(b *testing.B) {
	for _, queues := range []int{16, 1000} {
		for _, n := range []int{1, 2, 4} {
			b.Run(fmt.Sprintf("publish/queues=%d/shards=%d", queues, n), func(b *testing.B) { benchmark(b, n, queues, false) })
			b.Run(fmt.Sprintf("through/queues=%d/shards=%d", queues, n), func(b *testing.B) { benchmark(b, n, queues, true) })
		}
	}
}

func benchmark(b *testing.B, shards, queues int, consume bool) {
	bk, err := embedded.Open(b.TempDir(), embedded.Options{Shards: shards})
	if err != nil {
		b.Fatal(err)
	}
	defer bk.Close()
	names := make([]string, queues)
	for i := range names {
		names[i] = fmt.Sprint("queue-", i)
		if _, _, err := bk.DeclareQueue(b.Context(), names[i], surgetank.QueueConfig{Shard: i%shards + 1}, surgetank.DeclareNew); err != nil {
			b.Fatal(err)
		}
	}
	body := make([]byte, 1024)
	var next atomic.Int64
	b.SetBytes(int64(len(body)))
	b.SetParallelism(64)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			name := names[int(next.Add(1))%queues]
			r, err := bk.Publish(context.Background(), []surgetank.Publishing{{Queues: []string{name}, Message: surgetank.Message{Body: body}}})
			if err != nil || r[0].Err != nil {
				b.Error(err, r)
				return
			}
			if !consume {
				continue
			}
			ds, err := bk.Receive(context.Background(), name, surgetank.ReceiveOptions{})
			if err != nil {
				b.Error(err)
				return
			}
			for i := range ds {
				if err := bk.SettleAsync(context.Background(), []surgetank.Settlement{{Receipt: ds[i].Receipt}}, nil); err != nil {
					b.Error(err)
					return
				}
			}
		}
	})
}
