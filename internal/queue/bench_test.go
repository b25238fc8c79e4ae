package queue_test

import (
	"bufio"
	"bytes"
	"io"
	"runtime"
	"testing"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/door"
	"github.com/surgetank/surgetank/internal/queue"
)

// rig drives a machine without a log.
type rig struct {
	m     *queue.Machine
	entry uint64
	now   int64
}

func newRig() *rig { return &rig{m: queue.New(queue.Limits{}, 1), now: time.Now().UnixNano()} }

func (r *rig) step(cmds ...queue.Command) queue.Output {
	r.entry++
	r.now += 1000
	out := queue.Output{Entry: queue.AppendHeader(nil, queue.EntryHeader{Epoch: 1, Number: r.entry, Time: r.now})}
	if n := r.m.Step(r.now, r.entry, cmds, &out); n != len(cmds) {
		panic("the turn was full")
	}
	return out
}

func (r *rig) fill(n, batch int) {
	pub := surgetank.Publishing{Queues: []string{"q"}, Message: surgetank.Message{Body: make([]byte, 256)}}
	msgs := make([]queue.Incoming, batch)
	for i := range msgs {
		msgs[i].Publishing = &pub
	}
	for range n / batch {
		r.step(&queue.Publish{Msgs: msgs, Results: make([]surgetank.PublishResult, batch)})
	}
}

// BenchmarkBacklog measures ten million waiting messages: heap bytes for each message, how long
// StartSnapshot and all of SnapshotNext take, and how long Restore takes.
func BenchmarkBacklog(b *testing.B) {
	const n = 10_000_000
	for range b.N {
		r := newRig()
		r.step(&queue.Declare{Name: "q"})
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		r.fill(n, 500)
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/n, "B/msg")
		start := time.Now()
		r.m.StartSnapshot(r.entry)
		b.ReportMetric(float64(time.Since(start).Microseconds()), "start-µs")
		var snap bytes.Buffer
		start = time.Now()
		for last := false; !last; {
			var piece []byte
			piece, last = r.m.SnapshotNext(256 << 10)
			snap.Write(piece)
		}
		b.ReportMetric(float64(time.Since(start).Milliseconds()), "snapshot-ms")
		b.ReportMetric(float64(snap.Len())/n, "snapshot-B/msg")
		m := queue.New(queue.Limits{}, 1)
		start = time.Now()
		in := bufio.NewReaderSize(&snap, 1<<20)
		var frame []byte
		if _, err := m.Restore(in, func(n int) ([]byte, error) {
			if cap(frame) < n {
				frame = make([]byte, n)
			}
			_, err := io.ReadFull(in, frame[:n])
			return frame[:n], err
		}); err != nil {
			b.Fatal(err)
		}
		m.Recovered(r.now)
		b.ReportMetric(float64(time.Since(start).Milliseconds()), "restore-ms")
		runtime.KeepAlive(r)
	}
}

// BenchmarkEnqueue measures a publish on the machine.
func BenchmarkEnqueue(b *testing.B) {
	r := newRig()
	r.step(&queue.Declare{Name: "q"})
	b.ReportAllocs()
	r.fill(max(500, b.N), 500)
}

// BenchmarkEndToEnd measures publish, hand-out and ack.
func BenchmarkEndToEnd(b *testing.B) {
	r := newRig()
	r.step(&queue.Declare{Name: "q"})
	r.step(&queue.OpenEpoch{Epoch: 1})
	r.step(&queue.Attach{Queue: "q", Opts: door.SubscribeOptions{SubscribeOptions: surgetank.SubscribeOptions{Credit: 1000}}})
	pub := surgetank.Publishing{Queues: []string{"q"}, Message: surgetank.Message{Body: make([]byte, 256)}}
	msgs := make([]queue.Incoming, 100)
	for i := range msgs {
		msgs[i].Publishing = &pub
	}
	b.ReportAllocs()
	for range max(1, b.N/100) {
		out := r.step(&queue.Publish{Msgs: msgs, Results: make([]surgetank.PublishResult, 100)})
		acks := make([]surgetank.Settlement, len(out.Handouts))
		for i, h := range out.Handouts {
			acks[i].Receipt = surgetank.Receipt{Epoch: 1, ID: surgetank.MessageID{Queue: h.Queue.ID(), Seq: h.Seq}, Lease: h.Lease}
		}
		s := &queue.Settle{Items: acks, Results: make([]error, len(acks))}
		r.step(s)
		if s.Results[0] != nil {
			b.Fatal(s.Results[0])
		}
	}
}
