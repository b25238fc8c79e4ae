package amqp

import (
	"context"
	"sync/atomic"
	"testing"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/embedded"
	"github.com/surgetank/surgetank/internal/amqp/amqptest"
	"github.com/surgetank/surgetank/internal/amqp/wire"
)

// settling counts the settlements that were left without waiting and not yet waited for.
type settling struct {
	surgetank.Broker
	open atomic.Int64
}

func (s *settling) SettleAsync(ctx context.Context, list []surgetank.Settlement, done func([]surgetank.SettleResult, error)) error {
	s.open.Add(int64(len(list)))
	return s.Broker.SettleAsync(ctx, list, done)
}

// Settle waits until it is durable, and with it all that came before.
func (s *settling) Settle(ctx context.Context, list []surgetank.Settlement) ([]surgetank.SettleResult, error) {
	n := s.open.Load()
	got, err := s.Broker.Settle(ctx, list)
	s.open.Add(-n)
	return got, err
}

// An ack has no answer of its own. The close-ok of its channel says that it is on disk.
func TestCloseOkComesBehindDurableAcks(t *testing.T) {
	b, err := embedded.Memory(embedded.Options{})
	if err != nil {
		t.Fatal(err)
	}
	s := &settling{Broker: b}
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
