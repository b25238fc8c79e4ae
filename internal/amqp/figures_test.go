package amqp

import (
	"fmt"
	"testing"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"github.com/surgetank/surgetank/embedded"
	"github.com/surgetank/surgetank/internal/amqp/amqptest"
	"github.com/surgetank/surgetank/internal/amqp/wire"
	"github.com/surgetank/surgetank/internal/shards/shardstest"
	"github.com/surgetank/surgetank/internal/tally"
)

// refusedNow returns how often a limit refused something.
func (bn *bench) refusedNow(limit tally.Limit) (n uint64) {
	bn.server.refused.Each(func(l tally.Limit, count uint64) {
		if l == limit {
			n = count
		}
	})
	return n
}

// TestFigures: the figures show a connection and its parts while they are open. After they end, in
// good order or not, the figures do not show them.
func TestFigures(t *testing.T) {
	bn := start(t, Limits{})
	peer := amqptest.Dial(t, bn.addr)
	amqptest.Until(t, "the new connection is counted", func() bool { return bn.server.Figures() == Figures{Connections: 1, BeforeLogin: 1, Accepted: 1} })
	peer.Conn.Close()
	amqptest.Until(t, "the closed connection is not counted", func() bool { return bn.server.Figures() == Figures{Accepted: 1} })

	conn := amqptest.Must[*amqp091.Connection](t)(amqp091.Dial(bn.url()))
	var channels []*amqp091.Channel
	for range 3 {
		ch := amqptest.Must[*amqp091.Channel](t)(conn.Channel())
		channels = append(channels, ch)
	}
	q := amqptest.Must[amqp091.Queue](t)(channels[0].QueueDeclare("", false, false, true, false, nil))
	for _, tag := range []string{"a", "b"} {
		amqptest.Must[<-chan amqp091.Delivery](t)(channels[1].Consume(q.Name, tag, false, false, false, false, nil))
	}
	if f := bn.server.Figures(); f != (Figures{Connections: 1, Channels: 3, Consumers: 2, Accepted: 2}) {
		t.Errorf("%+v", f)
	}
	bn.server.SetAlarm("low on disk", true)
	if err := channels[2].Publish("", q.Name, false, false, amqp091.Publishing{}); err != nil {
		t.Fatal(err)
	}
	amqptest.Until(t, "the connection is held back", func() bool { return bn.server.Figures().Blocked == 1 })
	bn.server.SetAlarm("low on disk", false)
	amqptest.Until(t, "the connection goes on", func() bool { return bn.server.Figures().Blocked == 0 })
	if err := channels[1].Close(); err != nil {
		t.Fatal(err)
	}
	if f := bn.server.Figures(); f != (Figures{Connections: 1, Channels: 2, Accepted: 2}) {
		t.Errorf("after a channel has closed: %+v", f)
	}
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
	amqptest.Until(t, "nothing is left", func() bool { return bn.server.Figures() == Figures{Accepted: 2} })
	if _, err := amqp091.Dial("amqp://guest:wrong@" + bn.addr + "/"); err == nil {
		t.Fatal("a wrong password was accepted")
	}
	amqptest.Until(t, "the refused login is counted", func() bool { return bn.server.Figures() == Figures{Accepted: 3, RefusedLogins: 1} })
}

// TestRefusalsAreCounted: each limit of this door counts its refusals.
func TestRefusalsAreCounted(t *testing.T) {
	ask := func(p *amqptest.Peer, channel uint16, list ...wire.Method) {
		for _, m := range list {
			p.Send(channel, m)
			p.Method()
		}
	}
	q := &wire.QueueDeclare{Queue: "q"}
	for i, c := range []struct {
		limit  tally.Limit
		limits Limits
		reach  func(bn *bench, p *amqptest.Peer)
	}{
		{tally.Channels, Limits{ChannelMax: 1}, func(_ *bench, p *amqptest.Peer) { ask(p, 2, &wire.ChannelOpen{}) }},
		{tally.Consumers, Limits{MaxConsumers: 1}, func(_ *bench, p *amqptest.Peer) {
			ask(p, 1, q, &wire.BasicConsume{Queue: "q", ConsumerTag: "a"}, &wire.BasicConsume{Queue: "q", ConsumerTag: "b"})
		}},
		{tally.Routing, Limits{MaxExchanges: 1}, func(_ *bench, p *amqptest.Peer) { ask(p, 1, &wire.ExchangeDeclare{Exchange: "x", Type: "fanout"}) }},
		{tally.Routing, Limits{MaxBindings: 1}, func(_ *bench, p *amqptest.Peer) {
			ask(p, 1, q, &wire.QueueBind{Queue: "q", Exchange: "amq.topic", RoutingKey: "a"}, &wire.QueueBind{Queue: "q", Exchange: "amq.topic", RoutingKey: "b"})
		}},
		{tally.MessageSize, Limits{MaxMessage: 100}, func(_ *bench, p *amqptest.Peer) {
			p.Send(1, &wire.BasicPublish{RoutingKey: "q"})
			p.Raw(wire.AppendHeader(nil, 1, 101, []byte{0, 0}))
			p.Method()
		}},
		{tally.Queues, Limits{}, func(_ *bench, p *amqptest.Peer) { ask(p, 1, q, &wire.QueueDeclare{Queue: "r"}) }},
		{tally.Connections, Limits{MaxConnections: 1}, func(bn *bench, _ *amqptest.Peer) { amqptest.Dial(bn.t, bn.addr).Closed() }},
		{tally.BeforeLogin, Limits{MaxBeforeLogin: 1}, func(bn *bench, _ *amqptest.Peer) {
			first := amqptest.Dial(bn.t, bn.addr)
			amqptest.Until(bn.t, "a connection before login is counted", func() bool { return bn.server.Figures().BeforeLogin == 1 })
			amqptest.Dial(bn.t, bn.addr)
			first.Closed()
		}},
	} {
		t.Run(fmt.Sprintf("%s %d", c.limit, i), func(t *testing.T) {
			b, err := embedded.Memory(embedded.Options{Shards: shardstest.N, MaxQueues: 1})
			if err != nil {
				t.Fatal(err)
			}
			bn := startOn(t, b, c.limits)
			p := amqptest.Dial(t, bn.addr)
			p.Login("guest", "/", wire.Tuning{ChannelMax: max(1, bn.server.limits.ChannelMax), FrameMax: 131072})
			p.Channel(1)
			if n := bn.refusedNow(c.limit); n != 0 {
				t.Fatalf("counted %d before anything was refused", n)
			}
			c.reach(bn, p)
			if n := bn.refusedNow(c.limit); n != 1 {
				t.Errorf("counted %d, want 1", n)
			}
		})
	}
}
