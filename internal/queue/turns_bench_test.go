package queue_test

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/queue"
)

// BenchmarkTurns measures the longest turn of commands that look at all of a queue with five
// million messages, or at all of 100,000 queues. No other queue is served during a turn.
func BenchmarkTurns(b *testing.B) {
	const n = 5_000_000
	body := make([]byte, 256)
	kinds := []struct {
		name string
		make func(i int) surgetank.Message
	}{
		{"plain", func(int) surgetank.Message { return surgetank.Message{Body: body} }},
		{"ttl", func(int) surgetank.Message { return surgetank.Message{Body: body, TTL: time.Hour} }},
		{"delayed", func(int) surgetank.Message { return surgetank.Message{Body: body, Delay: time.Hour} }},
		{"groups", func(i int) surgetank.Message { return surgetank.Message{Body: body, Group: fmt.Sprint("g", i)} }},
	}
	peek := &queue.Peek{Queue: "q", Opts: surgetank.PeekOptions{Max: 10, State: surgetank.StateLeased}}
	redrive := &queue.Redrive{From: "q", Opts: surgetank.RedriveOptions{Reason: "expired"}}
	drop, purge := &queue.DropDamaged{Name: "q"}, &queue.Purge{Name: "q"}
	for _, k := range kinds {
		r := newRig()
		r.step(&queue.Declare{Name: "q"}, &queue.OpenEpoch{Epoch: 1})
		r.fillWith(n, k.make)
		r.longest(b, k.name+"/peek", peek, func() bool { return peek.Next == 0 })
		r.longest(b, k.name+"/redrive", redrive, func() bool { return redrive.Next == 0 })
		r.longest(b, k.name+"/drop-damaged", drop, func() bool { return drop.Next == 0 })
		survivors := &queue.Survivors{}
		r.longest(b, k.name+"/survivors", survivors, func() bool { return survivors.Done })
		r.longest(b, k.name+"/info", &queue.Info{Name: "q"}, nil)
		r.longest(b, k.name+"/pause", &queue.Pause{Name: "q", Paused: true}, nil)
		r.longest(b, k.name+"/limit-groups", &queue.Declare{Name: "q", Config: surgetank.QueueConfig{Group: surgetank.GroupConfig{MaxInFlight: 1}}}, nil)
		r.longest(b, k.name+"/purge", purge, func() bool { return purge.Next == 0 })
		r = newRig()
		r.step(&queue.Declare{Name: "q"})
		r.fillWith(n, k.make)
		b.Run(k.name+"/snapshot-start", func(b *testing.B) {
			start := time.Now()
			r.m.StartSnapshot(r.entry)
			b.ReportMetric(float64(time.Since(start).Microseconds())/1000, "max-ms")
		})
		r.longest(b, k.name+"/delete-in-snapshot", &queue.Delete{Name: "q"}, func() bool { return !r.m.Sweeping() })
	}
	r := newRig()
	for i := range 100_000 {
		r.step(&queue.Declare{Name: fmt.Sprint("q", i)})
	}
	infos := &queue.Info{}
	r.longest(b, "queues/infos", infos, func() bool { return infos.Next == 0 })
	survivors := &queue.Survivors{}
	r.longest(b, "queues/survivors", survivors, func() bool { return survivors.Done })
}

// longest sends a command to the machine again until the command is done, and reports the longest
// turn. It does this once, for any b.N.
func (r *rig) longest(b *testing.B, name string, c queue.Command, done func() bool) {
	b.Run(name, func(b *testing.B) {
		if b.N > 1 {
			return
		}
		runtime.GC()
		most, turns := time.Duration(0), 0
		for first := true; first || done != nil && !done(); first = false {
			start := time.Now()
			if _, is := c.(*queue.Delete); is && !first {
				r.step()
			} else {
				r.step(c)
			}
			most = max(most, time.Since(start))
			turns++
		}
		b.ReportMetric(float64(most.Microseconds())/1000, "max-ms")
		b.ReportMetric(float64(turns), "turns")
		b.ReportMetric(0, "ns/op")
	})
}

// fillWith publishes n messages to the queue q.
func (r *rig) fillWith(n int, message func(i int) surgetank.Message) {
	const batch = 500
	pubs, msgs := make([]surgetank.Publishing, batch), make([]queue.Incoming, batch)
	for at := 0; at < n; at += batch {
		for i := range msgs {
			pubs[i] = surgetank.Publishing{Queues: []string{"q"}, Message: message(at + i)}
			msgs[i].Publishing = &pubs[i]
		}
		r.step(&queue.Publish{Msgs: msgs, Results: make([]surgetank.PublishResult, batch)})
	}
}
