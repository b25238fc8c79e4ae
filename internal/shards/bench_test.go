package shards_test

import (
	"context"
	"fmt"
	"os"
	"sync/atomic"
	"testing"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/embedded"
)

// tmpfs is a file system in memory, which syncs at once.
const tmpfs = "/dev/shm"

// BenchmarkShards publishes messages of 1 KiB from 64 publishers for each core, and consumes them,
// with 1, 2 and 4 shards. The logs are on one disk, on a disk and a tmpfs by turns, or all on a
// tmpfs. A tmpfs stands for a disk of its own whose syncs cost nothing, so it shows the limit of
// the loops.
func BenchmarkShards(b *testing.B) {
	for _, queues := range []int{16, 1000} {
		for _, disks := range []string{"one", "two", "tmpfs"} {
			for _, n := range []int{1, 2, 4} {
				if disks == "two" && n == 1 {
					continue // the same as one
				}
				b.Run(fmt.Sprintf("publish/queues=%d/disks=%s/shards=%d", queues, disks, n), func(b *testing.B) { benchmark(b, disks, n, queues, false) })
				b.Run(fmt.Sprintf("through/queues=%d/disks=%s/shards=%d", queues, disks, n), func(b *testing.B) { benchmark(b, disks, n, queues, true) })
			}
		}
	}
}

// directories returns a directory for each shard.
func directories(b *testing.B, disks string, shards int) []string {
	dirs := make([]string, shards)
	for i := range dirs {
		if disks == "one" || disks == "two" && i%2 == 0 {
			dirs[i] = b.TempDir()
			continue
		}
		var err error
		if dirs[i], err = os.MkdirTemp(tmpfs, "surgetank-bench-"); err != nil {
			b.Skipf("a tmpfs is needed: %v", err)
		}
		b.Cleanup(func() { os.RemoveAll(dirs[i]) })
	}
	return dirs
}

func benchmark(b *testing.B, disks string, shards, queues int, consume bool) {
	dirs := directories(b, disks, shards)
	o := embedded.Options{Shards: shards}
	if shards > 1 {
		o.ShardDirs = append([]string{""}, dirs[1:]...)
	}
	bk, err := embedded.Open(dirs[0], o)
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
