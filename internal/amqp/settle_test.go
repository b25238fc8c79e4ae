package amqp

import (
	"context"
	"sync/atomic"
	"testing"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/embedded"
	"github.com/surgetank/surgetank/internal/amqp/amqptest"
	"github.com/surgetank/surgetank/internal/amqp/wire"
	"github.com/surgetank/surgetank/internal/door"
	"github.com/surgetank/surgetank/internal/door/doortest"
	"github.com/surgetank/surgetank/internal/shards/shardstest"
)

// settling counts settlements that were sent without waiting. Settle resets the count when it waits
// for them.
type settling struct {
	door.Broker
	open atomic.Int64
}

func (s *settling) SettleAsync(ctx context.Context, list []surgetank.Settlement, done func([]surgetank.SettleResult, error)) error {
	s.open.Add(int64(len(list)))
	return s.Broker.SettleAsync(ctx, list, done)
}

// Settle waits until the settlements, and all earlier ones, are durable.
func (s *settling) Settle(ctx context.Context, list []surgetank.Settlement) ([]surgetank.SettleResult, error) {
	n := s.open.Load()
	got, err := s.Broker.Settle(ctx, list)
	s.open.Add(-n)
	return got, err
}

// AMQP has no answer to an ack. The close-ok of its channel tells that the ack is durable.
func TestCloseOkComesBehindDurableAcks(t *testing.T) {
	b, err := embedded.Memory(embedded.Options{Shards: shardstest.N})
	if err != nil {
		t.Fatal(err)
	}
	s := &settling{Broker: doortest.Of(t, b)}
	bn := startOn(t, s, Limits{})
	p := bn.connect("guest")
	p.Channel(1)
	p.Send(1, &wire.QueueDeclare{Queue: "q", Durable: true})
	amqptest.Want[*wire.QueueDeclareOk](p, 1)
	p.Publish(1, &wire.BasicPublish{RoutingKey: "q"}, wire.Properties{}, "m")
	p.Send(1, &wire.BasicGet{Queue: "q"})
	got := amqptest.Want[*wire.BasicGetOk](p, 1)
	p.Content()
	p.Raw(wire.AppendAck(nil, 1, got.DeliveryTag, false))
	p.Send(1, &wire.ChannelClose{Closing: wire.Closing{ReplyCode: 200}})
	p.Bare(1, wire.IDChannelCloseOk)
	if n := s.open.Load(); n != 0 {
		t.Fatalf("close-ok came while %d acks may not be durable", n)
	}
}
