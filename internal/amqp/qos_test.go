package amqp

import (
	"fmt"
	"testing"

	"github.com/surgetank/surgetank/internal/amqp/amqptest"
	"github.com/surgetank/surgetank/internal/amqp/wire"
	"github.com/surgetank/surgetank/internal/shards/shardstest"
)

// TestGlobalPrefetchIsShared: the consumers of a channel get messages in turn under its prefetch,
// on several queues and on one.
func TestGlobalPrefetchIsShared(t *testing.T) {
	for _, queues := range []int{3, 1} {
		for _, prefetch := range []uint16{1, 2, 7} {
			t.Run(fmt.Sprintf("%d queues, prefetch %d", queues, prefetch), func(t *testing.T) {
				bn := start(t, Limits{})
				p := bn.connect("guest")
				p.Channel(1)
				const consumers, each = 3, 40
				for i := range consumers {
					q := fmt.Sprint("q", i%queues)
					p.Send(1, &wire.QueueDeclare{Queue: q})
					amqptest.Want[*wire.QueueDeclareOk](p, 1)
					for range each {
						p.Publish(1, &wire.BasicPublish{RoutingKey: q}, wire.Properties{}, "m")
					}
				}
				p.Send(1, &wire.BasicQos{PrefetchCount: prefetch, Global: true})
				p.Bare(1, wire.IDBasicQosOk)
				got := map[string]int{}
				// Unacked messages of another queue use up the prefetch until all consumers have
				// started.
				p.Send(1, &wire.QueueDeclare{Queue: "first"})
				amqptest.Want[*wire.QueueDeclareOk](p, 1)
				p.Send(1, &wire.BasicConsume{Queue: "first"})
				amqptest.Want[*wire.BasicConsumeOk](p, 1)
				for range prefetch {
					p.Publish(1, &wire.BasicPublish{RoutingKey: "first"}, wire.Properties{}, "m")
				}
				for range prefetch {
					amqptest.Want[*wire.BasicDeliver](p, 1)
					p.Content()
				}
				for i := range consumers {
					p.Send(1, &wire.BasicConsume{Queue: fmt.Sprint("q", i%queues), ConsumerTag: fmt.Sprint("c", i)})
					amqptest.Want[*wire.BasicConsumeOk](p, 1)
				}
				p.Send(1, &wire.BasicAck{DeliveryTag: uint64(prefetch), Multiple: true})
				for range consumers * each {
					d := amqptest.Want[*wire.BasicDeliver](p, 1)
					p.Content()
					got[d.ConsumerTag]++
					low, high := each, 0
					for i := range consumers {
						n := got[fmt.Sprint("c", i)]
						low, high = min(low, n), max(high, n)
					}
					if high-low > int(prefetch) && (shardstest.N == 1 || queues == 1) { // queues of different shards share less exactly
						t.Fatalf("the consumers have got %v", got)
					}
					p.Send(1, &wire.BasicAck{DeliveryTag: d.DeliveryTag})
				}
			})
		}
	}
}
