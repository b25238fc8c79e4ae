package amqp

import (
	"context"
	"strings"
	"testing"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/embedded"
	"github.com/surgetank/surgetank/internal/amqp/amqptest"
	"github.com/surgetank/surgetank/internal/amqp/wire"
	"github.com/surgetank/surgetank/internal/auth"
	"github.com/surgetank/surgetank/internal/door"
	"github.com/surgetank/surgetank/internal/door/doortest"
	"github.com/surgetank/surgetank/internal/shards/shardstest"
	"github.com/surgetank/surgetank/internal/tally"
	"github.com/surgetank/surgetank/test/hostile"
)

// TestLimits reaches each limit on the things that clients can create, and then asks for one more
// thing. The server refuses the request with the right code and keeps everything created before.
// After a thing is removed, another can be created.
func TestLimits(t *testing.T) {
	b, err := embedded.Memory(embedded.Options{Shards: shardstest.N, MaxQueues: 20})
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
	amqptest.Until(t, "only one connection is left", func() bool { return len(bn.server.connections()) == 1 })
	bn.connect("guest")
}

// defective is a broker with a defect: it panics when the queue "defect" is declared.
type defective struct{ door.Broker }

func (d defective) DeclareQueue(ctx context.Context, name string, c surgetank.QueueConfig, m surgetank.DeclareMode) (surgetank.QueueInfo, bool, error) {
	if name == "defect" {
		panic("a defect")
	}
	return d.Broker.DeclareQueue(ctx, name, c, m)
}

// TestADefectEndsOneConnection: a panic in one connection ends only that connection.
func TestADefectEndsOneConnection(t *testing.T) {
	b, err := embedded.Memory(embedded.Options{Shards: shardstest.N})
	if err != nil {
		t.Fatal(err)
	}
	bn := startOn(t, defective{doortest.Of(t, b)}, Limits{})
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

// TestLimitsOfConsumers reaches the limits of consumers for a channel, a connection, a user and a
// queue. Each further consumer is refused on its channel with a reason. A consumer that ends, in
// any way, frees its share.
func TestLimitsOfConsumers(t *testing.T) {
	bn := start(t, Limits{MaxConsumers: 3, MaxConnectionConsumers: 5})
	ctx := context.Background()
	bn.user("u", auth.AllPermissions)
	c := bn.as("u")
	c.queue("q", nil)
	c.queue("short", nil)
	counted := uint64(0)
	consume := func(ch *client, queue string) error {
		_, err := ch.Consume(queue, "tag", false, false, false, false, nil)
		return err
	}
	add := func(ch *client, queue string, n int) *client {
		t.Helper()
		for range n {
			ch.consume(queue, nil)
		}
		return ch
	}
	refused := func(err error, reason string) { // checks the error, and that the refusal is counted
		t.Helper()
		counted++
		if n := bn.refusedNow(tally.Consumers) + bn.refusedNow(tally.UserConsumers); n < counted {
			t.Errorf("%q: %d refusals are counted, want at least %d", reason, n, counted)
		}
		if e, is := err.(*amqp091.Error); !is || e.Code != 406 || !strings.Contains(e.Reason, reason) {
			t.Errorf("%v, want %q", err, reason)
		}
	}
	refused(consume(add(c.open(), "q", 3), "q"), "the channel has 3 consumers already")

	// The refusal closed that channel and ended its consumers.
	a, b := add(c.open(), "q", 3), add(c.open(), "q", 2)
	refused(consume(c.open(), "q"), "the connection has 5 consumers already")
	c.ok(bn.auth.PutUserLimits(ctx, "u", auth.UserLimits{MaxConsumers: ptr(6)}))
	other := bn.as("u")
	c.ok(consume(other, "q"))
	refused(consume(other.open(), "q"), "the limit of 6 user consumers is reached")

	// The end of a consumer, a channel, a queue or a connection frees its share.
	c.ok(other.Cancel("tag", false))
	c.ok(consume(other, "q"))
	c.ok(a.Close())
	add(c.open(), "short", 2)
	c.ok(consume(other.open(), "q"))
	refused(consume(other.open(), "q"), "the limit of 6 user consumers is reached")
	amqptest.Must[int](t)(c.QueueDelete("short", false, false, false))
	amqptest.Until(t, "both consumers of the queue have ended", func() bool { return consume(other.open(), "q") == nil })
	c.ok(other.conn.Close())
	amqptest.Until(t, "the connection has ended", func() bool { return len(bn.server.Connections()) == 1 })
	add(add(c.open(), "q", 1), "q", 2)

	// A queue's own limit of consumers.
	c.ok(bn.auth.PutUserLimits(ctx, "u", auth.UserLimits{}))
	amqptest.Must[bool](t)(declared(bn.broker.DeclareQueue(ctx, "q", surgetank.QueueConfig{MaxConsumers: 5}, surgetank.DeclareUpdate)))
	c.ok(b.Close())
	add(c.open(), "q", 2)
	third := bn.as("u")
	refused(consume(third, "q"), "queue \"q\" has 5 consumers, and max_consumers allows 5")
	if _, ok, err := third.open().Get("q", false); ok || err != nil {
		t.Errorf("basic.get at a queue with as many consumers as it may have: %v, %v", ok, err)
	}
}

func declared(_ surgetank.QueueInfo, created bool, err error) (bool, error) { return created, err }
