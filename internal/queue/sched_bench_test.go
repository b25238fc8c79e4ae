package queue_test

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/door"
	"github.com/surgetank/surgetank/internal/queue"
)

// orders are the settings that choose the next group.
var orders = []struct {
	name   string
	config surgetank.QueueConfig
}{
	{"heap", surgetank.QueueConfig{MaxPriority: 3}},
	{"heap-ageing", surgetank.QueueConfig{MaxPriority: 3, PriorityStep: time.Minute}},
	{"heap-fresh", surgetank.QueueConfig{MaxPriority: 3, Level: surgetank.LevelConfig{FreshShare: 0.2}}},
	{"ring", surgetank.QueueConfig{MaxPriority: 3, Group: surgetank.GroupConfig{Fair: true}}},
	{"ring-weights", surgetank.QueueConfig{MaxPriority: 3, Group: surgetank.GroupConfig{Fair: true, Weights: map[string]int{"g1": 3, "*": 2}}}},
	{"ring-ageing", surgetank.QueueConfig{MaxPriority: 3, PriorityStep: time.Minute, Group: surgetank.GroupConfig{Fair: true}}},
	{"ring-fresh", surgetank.QueueConfig{MaxPriority: 3, Level: surgetank.LevelConfig{FreshShare: 0.2}, Group: surgetank.GroupConfig{Fair: true}}},
}

// BenchmarkHandOut measures one hand-out, with its ack, in a queue where many groups can deliver.
// Each group has three messages. The benchmark also reports the memory of a group, with its name of
// 8 to 10 bytes and its messages.
//
//	go test ./internal/queue -run - -bench HandOut -benchtime 1000000x
func BenchmarkHandOut(b *testing.B) {
	for _, groups := range []int{1000, 5_000_000} {
		for _, o := range orders {
			b.Run(fmt.Sprintf("%s/%d", o.name, groups), func(b *testing.B) {
				var before, after runtime.MemStats
				runtime.GC()
				runtime.ReadMemStats(&before)
				r := newRig()
				r.step(&queue.Declare{Name: "q", Config: o.config}, &queue.OpenEpoch{Epoch: 1})
				const each = 3
				fill := func() {
					r.fillWith(each*groups, func(i int) surgetank.Message {
						return surgetank.Message{Body: small, Group: fmt.Sprintf("g%d", i%groups)}
					})
				}
				fill()
				runtime.GC()
				runtime.ReadMemStats(&after)
				const turn = 500
				b.ResetTimer()
				for done := 0; done < b.N; {
					want := min(turn, b.N-done)
					out := r.step(&queue.Attach{Queue: "q", Opts: door.SubscribeOptions{SubscribeOptions: surgetank.SubscribeOptions{Credit: want, NoAck: true, ManualCredit: true}}, Now: true})
					if done += len(out.Handouts); len(out.Handouts) < want {
						b.StopTimer()
						fill()
						b.StartTimer()
					}
				}
				b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/float64(groups), "B/group")
				runtime.KeepAlive(r)
			})
		}
	}
}

var small = make([]byte, 16)

// BenchmarkOrders measures publish, hand-out and ack in a queue with 1000 groups and a backlog,
// with each way to choose the next group.
func BenchmarkOrders(b *testing.B) {
	for _, o := range orders {
		b.Run(o.name, func(b *testing.B) {
			p := newPath(o.config, prioritized, nil)
			b.ResetTimer()
			b.ReportMetric(p.run(b.N), "cpu-ns/msg")
		})
	}
}

// names are the names of 1000 groups.
var names = func() []string {
	list := make([]string, 1000)
	for i := range list {
		list[i] = fmt.Sprint("group-", i)
	}
	return list
}()
