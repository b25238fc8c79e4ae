package queue_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/door"
	"github.com/surgetank/surgetank/internal/queue"
)

// crowds are the kinds of consumers that BenchmarkAttach and BenchmarkDetach attach to one queue.
var crowds = []struct {
	name string
	opts func(i int) door.SubscribeOptions
}{
	{"no-credit", func(int) door.SubscribeOptions { return door.SubscribeOptions{} }},
	{"credit", func(int) door.SubscribeOptions {
		return door.SubscribeOptions{SubscribeOptions: surgetank.SubscribeOptions{Credit: 1}}
	}},
	{"priorities", func(i int) door.SubscribeOptions {
		return door.SubscribeOptions{SubscribeOptions: surgetank.SubscribeOptions{Credit: 1, Priority: i * 7919 % 1000}}
	}},
	{"single", func(int) door.SubscribeOptions {
		return door.SubscribeOptions{SubscribeOptions: surgetank.SubscribeOptions{Credit: 1, Single: true}}
	}},
	{"pool", func(int) door.SubscribeOptions {
		return door.SubscribeOptions{SubscribeOptions: surgetank.SubscribeOptions{Credit: 1}, Pool: 1}
	}},
}

var crowdSizes = []int{1_000, 10_000, 40_000}

// commandsEach is how many commands of a crowd are in one turn.
const commandsEach = 100

// gather attaches n consumers to the queue q and returns their numbers.
func (r *rig) gather(n int, opts func(int) door.SubscribeOptions) []uint64 {
	ids := make([]uint64, 0, n)
	for i := 0; i < n; i += commandsEach {
		cmds := make([]queue.Command, min(commandsEach, n-i))
		for j := range cmds {
			cmds[j] = &queue.Attach{Queue: "q", Opts: opts(i + j)}
		}
		r.step(cmds...)
		for _, c := range cmds {
			a := c.(*queue.Attach)
			if a.Err != nil {
				panic(a.Err)
			}
			ids = append(ids, a.Consumer)
		}
	}
	return ids
}

// scatter detaches consumers in the order of ids.
func (r *rig) scatter(ids []uint64) {
	for part := range slices.Chunk(ids, commandsEach) {
		cmds := make([]queue.Command, len(part))
		for i, id := range part {
			cmds[i] = &queue.Detach{Consumer: id, All: true}
		}
		r.step(cmds...)
	}
}

func crowded() *rig {
	r := newRig()
	r.step(&queue.Declare{Name: "q"}, &queue.OpenEpoch{Epoch: 1})
	return r
}

// BenchmarkAttach measures attaching one of many consumers to a queue.
func BenchmarkAttach(b *testing.B) {
	for _, c := range crowds {
		for _, n := range crowdSizes {
			b.Run(fmt.Sprintf("%s/%d", c.name, n), func(b *testing.B) {
				for range b.N {
					crowded().gather(n, c.opts)
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/consumer")
			})
		}
	}
}

// BenchmarkDetach measures detaching one of many consumers from its queue.
func BenchmarkDetach(b *testing.B) {
	rng := rand.New(rand.NewPCG(1, 2))
	orders := []struct {
		name string
		of   func([]uint64)
	}{
		{"fifo", func([]uint64) {}},
		{"lifo", slices.Reverse[[]uint64]},
		{"random", func(ids []uint64) { rng.Shuffle(len(ids), func(i, j int) { ids[i], ids[j] = ids[j], ids[i] }) }},
	}
	for _, c := range crowds {
		for _, o := range orders {
			for _, n := range crowdSizes {
				b.Run(fmt.Sprintf("%s/%s/%d", c.name, o.name, n), func(b *testing.B) {
					for range b.N {
						b.StopTimer()
						r := crowded()
						ids := r.gather(n, c.opts)
						o.of(ids)
						b.StartTimer()
						r.scatter(ids)
					}
					b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/consumer")
				})
			}
		}
	}
}

// BenchmarkServeCrowd measures one message of a queue with many consumers. Each consumer has a
// credit of one: it is served, leaves the line, acks and joins the line again.
func BenchmarkServeCrowd(b *testing.B) {
	for _, c := range crowds[1:] {
		for _, n := range crowdSizes {
			b.Run(fmt.Sprintf("%s/%d", c.name, n), func(b *testing.B) {
				r := crowded()
				r.gather(n, c.opts)
				r.step(&queue.PoolLimit{Pool: 1, Limit: 10})
				pub := surgetank.Publishing{Queues: []string{"q"}, Message: surgetank.Message{Body: make([]byte, 256)}}
				b.ResetTimer()
				for range b.N {
					out := r.step(&queue.Publish{Msgs: []queue.Incoming{{Publishing: &pub}}, Results: make([]surgetank.PublishResult, 1)})
					if len(out.Handouts) != 1 {
						b.Fatalf("%d hand-outs", len(out.Handouts))
					}
					h := &out.Handouts[0]
					r.step(&queue.Settle{Items: []surgetank.Settlement{{Receipt: surgetank.Receipt{Epoch: 1,
						ID: surgetank.MessageID{Queue: h.Queue.ID(), Seq: h.Seq}, Lease: h.Lease}}}, Results: make([]error, 1)})
				}
			})
		}
	}
}

// BenchmarkAckInFullPool measures an ack in a pool that is at its limit while all members want a
// message.
func BenchmarkAckInFullPool(b *testing.B) {
	for _, n := range crowdSizes {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			r := crowded()
			r.gather(n, crowds[len(crowds)-1].opts)
			r.step(&queue.PoolLimit{Pool: 1, Limit: 1})
			pub := surgetank.Publishing{Queues: []string{"q"}, Message: surgetank.Message{Body: make([]byte, 256)}}
			msgs := []queue.Incoming{{Publishing: &pub}, {Publishing: &pub}}
			out := r.step(&queue.Publish{Msgs: msgs, Results: make([]surgetank.PublishResult, 2)})
			b.ResetTimer()
			for range b.N {
				if len(out.Handouts) != 1 {
					b.Fatalf("%d hand-outs", len(out.Handouts))
				}
				h := &out.Handouts[0]
				out = r.step(&queue.Settle{Items: []surgetank.Settlement{{Receipt: surgetank.Receipt{Epoch: 1,
					ID: surgetank.MessageID{Queue: h.Queue.ID(), Seq: h.Seq}, Lease: h.Lease}}}, Results: make([]error, 1)},
					&queue.Publish{Msgs: msgs[:1], Results: make([]surgetank.PublishResult, 1)})
			}
		})
	}
}

// BenchmarkDetachHolders measures the detaching of a consumer that returns its one message, while
// each of the other consumers also has one leased message.
func BenchmarkDetachHolders(b *testing.B) {
	for _, n := range crowdSizes {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			for range b.N {
				b.StopTimer()
				r := crowded()
				ids := r.gather(n, func(int) door.SubscribeOptions {
					return door.SubscribeOptions{SubscribeOptions: surgetank.SubscribeOptions{Credit: 1}}
				})
				r.fill(n, 500)
				b.StartTimer()
				r.scatter(ids)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/consumer")
		})
	}
}

// BenchmarkDeleteCrowd measures the longest turn while a queue with many consumers is deleted.
func BenchmarkDeleteCrowd(b *testing.B) {
	for _, n := range crowdSizes {
		r := crowded()
		r.gather(n, crowds[1].opts)
		r.longest(b, fmt.Sprint(n), &queue.Delete{Name: "q"}, func() bool { return !r.m.Sweeping() })
	}
}
