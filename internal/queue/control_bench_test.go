package queue_test

import (
	"testing"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/door"
	"github.com/surgetank/surgetank/internal/queue"
)

// BenchmarkControl measures publish, hand-out and ack of one message, with and without an adaptive
// limit and a breaker.
func BenchmarkControl(b *testing.B) {
	adaptive := surgetank.AdaptiveConfig{On: true, Min: 500, Max: 500}
	for _, x := range []struct {
		name  string
		level surgetank.LevelConfig
	}{
		{"off", surgetank.LevelConfig{}},
		{"breaker", surgetank.LevelConfig{Breaker: surgetank.BreakerErrors}},
		{"adaptive", surgetank.LevelConfig{Adaptive: adaptive, Breaker: surgetank.BreakerOff}},
		{"both", surgetank.LevelConfig{Adaptive: adaptive, Breaker: surgetank.BreakerErrors}},
	} {
		b.Run(x.name, func(b *testing.B) {
			r := newRig()
			r.step(&queue.Declare{Name: "q", Config: surgetank.QueueConfig{Level: x.level}}, &queue.OpenEpoch{Epoch: 1})
			message := func(int) surgetank.Message { return surgetank.Message{Body: small} }
			r.fillWith(5000, message)
			r.step(&queue.Attach{Queue: "q", Opts: door.SubscribeOptions{SubscribeOptions: surgetank.SubscribeOptions{Credit: 400}}})
			pubs, msgs, results := make([]surgetank.Publishing, 100), make([]queue.Incoming, 100), make([]surgetank.PublishResult, 100)
			for i := range msgs {
				pubs[i] = surgetank.Publishing{Queues: []string{"q"}, Message: message(i)}
				msgs[i].Publishing = &pubs[i]
			}
			var held []surgetank.Settlement
			b.ReportAllocs()
			b.ResetTimer()
			for range max(1, b.N/100) {
				n := min(100, len(held))
				out := r.step(&queue.Publish{Msgs: msgs, Results: results}, &queue.Settle{Items: held[:n], Results: make([]error, n)})
				r.m.Released(out.Turn, r.now)
				held = held[n:]
				for _, h := range out.Handouts {
					held = append(held, surgetank.Settlement{Receipt: surgetank.Receipt{Epoch: 1, ID: surgetank.MessageID{Queue: h.Queue.ID(), Seq: h.Seq}, Lease: h.Lease}})
				}
			}
		})
	}
}
