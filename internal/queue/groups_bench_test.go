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

// BenchmarkGroupMemory measures the heap of five million groups with names of 8 bytes: first with
// one message in each group, then with three.
func BenchmarkGroupMemory(b *testing.B) {
	const groups = 5_000_000
	for _, o := range orders {
		b.Run(o.name, func(b *testing.B) {
			if b.N > 1 {
				return
			}
			r := newRig()
			r.step(&queue.Declare{Name: "q", Config: o.config}, &queue.OpenEpoch{Epoch: 1})
			message := func(i int) surgetank.Message {
				return surgetank.Message{Body: small, Group: fmt.Sprintf("g%07d", i%groups)}
			}
			empty := heap()
			r.fillWith(groups, message)
			one := heap()
			r.fillWith(2*groups, message)
			three := heap()
			perMessage := float64(three-one) / (2 * groups)
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(perMessage, "B/msg")
			b.ReportMetric(float64(one-empty)/groups-perMessage, "B/group")
			runtime.KeepAlive(r)
		})
	}
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// BenchmarkQuietGroup measures how many deliveries the message of a quiet group waits for while a
// noisy group has a backlog, and the processor time of these deliveries.
func BenchmarkQuietGroup(b *testing.B) {
	for _, fair := range []bool{false, true} {
		for _, waiting := range []int{1000, 100_000, 1_000_000} {
			b.Run(fmt.Sprintf("fair=%v/%d", fair, waiting), func(b *testing.B) {
				if b.N > 1 {
					return
				}
				r := newRig()
				r.step(&queue.Declare{Name: "q", Config: surgetank.QueueConfig{Group: surgetank.GroupConfig{Fair: fair}}}, &queue.OpenEpoch{Epoch: 1})
				r.fillWith(waiting, func(int) surgetank.Message { return surgetank.Message{Body: small, Group: "noisy"} })
				pub := surgetank.Publishing{Queues: []string{"q"}, Message: surgetank.Message{Body: small, Group: "quiet"}}
				r.step(&queue.Publish{Msgs: []queue.Incoming{{Publishing: &pub}}, Results: make([]surgetank.PublishResult, 1)})
				start := cpuTime()
				before := r.waitOf("quiet")
				b.ReportMetric(0, "ns/op")
				b.ReportMetric(float64(before), "deliveries-before")
				b.ReportMetric(float64(cpuTime()-start)/float64(time.Microsecond), "cpu-µs")
			})
		}
	}
}

// waitOf delivers messages in turns of 100 until a message of the group is delivered. It returns
// the number of other messages that were delivered before.
func (r *rig) waitOf(group string) int {
	for before := 0; ; {
		out := r.step(&queue.Attach{Queue: "q", Opts: door.SubscribeOptions{SubscribeOptions: surgetank.SubscribeOptions{Credit: 100, NoAck: true, ManualCredit: true}}, Now: true})
		for i := range out.Handouts {
			if out.Handouts[i].Group == group {
				return before
			}
			before++
		}
		if len(out.Handouts) == 0 {
			panic("the group has no message")
		}
	}
}
