package amqp

import (
	"context"
	"testing"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/embedded"
	"github.com/surgetank/surgetank/internal/amqp/amqptest"
	"github.com/surgetank/surgetank/internal/amqp/wire"
	"github.com/surgetank/surgetank/test/hostile"
)

// TestLimits takes everything that clients can make to its limit and one beyond. The one beyond is refused with the right code, what was
// made before stands, and what is given back can be made again.
func TestLimits(t *testing.T) {
	b, err := embedded.Memory(embedded.Options{MaxQueues: 20})
	if err != nil {
		t.Fatal(err)
	}
	bn := startOn(t, b, Limits{MaxConsumers: 5, MaxExchanges: 30, MaxBindings: 40})
	for range 3 {
		if err := bn.target().Churn(hostile.Limits{Channels: 2047, Consumers: 5, Exchanges: 30, Bindings: 40, Queues: 5}); err != nil {
			t.Fatal(err)
		}
		amqptest.Until(t, "all connections end", func() bool { return len(bn.server.connections()) == 0 })
	}
	p := bn.connect("guest")
	p.Channel(1)
	made := 0
	for {
		p.Send(1, &wire.QueueDeclare{Exclusive: true})
		_, m := p.Method()
		if c, ok := m.(*wire.ChannelClose); ok {
			if c.ReplyCode != wire.CodePreconditionFailed {
				t.Errorf("one queue too many: %+v", c)
			}
			break
		}
		if made++; made > 30 {
			t.Fatal("the broker's limit of queues does not bind this door")
		}
	}
	if made < 10 {
		t.Errorf("only %d queues could be made", made)
	}
}

func TestTooManyConnections(t *testing.T) {
	bn := start(t, Limits{MaxConnections: 2})
	one := bn.connect("guest")
	bn.connect("guest")
	third := amqptest.Dial(t, bn.addr)
	third.Closed()
	one.Conn.Close()
	amqptest.Until(t, "the place is free", func() bool { return len(bn.server.connections()) == 1 })
	bn.connect("guest")
}

// defective is a broker with a defect.
type defective struct{ surgetank.Broker }

func (d defective) DeclareQueue(ctx context.Context, name string, c surgetank.QueueConfig, m surgetank.DeclareMode) (surgetank.QueueInfo, bool, error) {
	if name == "defect" {
		panic("a defect")
	}
	return d.Broker.DeclareQueue(ctx, name, c, m)
}

// TestADefectEndsOneConnection: a panic while one connection is served ends that one.
func TestADefectEndsOneConnection(t *testing.T) {
	b, err := embedded.Memory(embedded.Options{})
	if err != nil {
		t.Fatal(err)
	}
	bn := startOn(t, defective{b}, Limits{})
	bystander, err := bn.target().Watch()
	if err != nil {
		t.Fatal(err)
	}
	p := bn.connect("guest")
	p.Channel(1)
	p.Send(1, &wire.QueueDeclare{Queue: "defect"})
	p.Closed()
	bn.works(t)
	if _, err := bystander.Stop(); err != nil {
		t.Errorf("another connection was disturbed: %v", err)
	}
}
