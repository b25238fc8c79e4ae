package amqp

import (
	"github.com/surgetank/surgetank/internal/shards/shardstest"
	"slices"
	"testing"

	"github.com/surgetank/surgetank/internal/amqp/amqptest"
	"github.com/surgetank/surgetank/internal/amqp/wire"
)

// TestCommitReturnsWhatLostItsQueues: a mandatory message whose last queue was deleted before the
// commit is returned, in the order of publishing. A message with a remaining queue arrives in this
// queue.
func TestCommitReturnsWhatLostItsQueues(t *testing.T) {
	shardstest.One(t, "a transaction stays within one shard")
	bn := start(t, Limits{})
	p := bn.connect("guest")
	p.Channel(1)
	for _, q := range []string{"stays", "goes", "also goes", "taken"} {
		p.Send(1, &wire.QueueDeclare{Queue: q})
		amqptest.Want[*wire.QueueDeclareOk](p, 1)
		p.Send(1, &wire.QueueBind{Queue: q, Exchange: "amq.fanout"})
		p.Bare(1, wire.IDQueueBindOk)
	}
	p.Publish(1, &wire.BasicPublish{RoutingKey: "taken"}, wire.Properties{}, "acknowledged")
	p.Send(1, &wire.BasicGet{Queue: "taken"})
	amqptest.Want[*wire.BasicGetOk](p, 1)
	p.Content()
	p.Send(1, wire.Bare(wire.IDTxSelect))
	p.Bare(1, wire.IDTxSelectOk)
	for _, m := range []struct {
		exchange, key, body string
		mandatory           bool
	}{
		{"", "goes", "1", true}, {"", "nobody", "2", true}, {"", "goes", "3", false}, {"", "stays", "4", true},
		{"amq.fanout", "", "5", true}, {"", "also goes", "6", true}, {"", "nobody", "7", true},
	} {
		p.Publish(1, &wire.BasicPublish{Exchange: m.exchange, RoutingKey: m.key, Mandatory: m.mandatory}, wire.Properties{}, m.body)
	}
	p.Send(1, &wire.BasicAck{DeliveryTag: 1})
	// Another connection deletes the queues. This channel is not told.
	other := bn.connect("guest")
	other.Channel(1)
	p.Send(1, &wire.BasicQos{}) // the answer shows that the publishes have arrived
	p.Bare(1, wire.IDBasicQosOk)
	for _, q := range []string{"goes", "also goes", "taken"} {
		other.Send(1, &wire.QueueDelete{Queue: q})
		amqptest.Want[*wire.QueueDeleteOk](other, 1)
	}
	p.Send(1, wire.Bare(wire.IDTxCommit))
	var returned []string
	for {
		_, m := p.Method()
		if r, is := m.(*wire.BasicReturn); is {
			if r.ReplyCode != wire.CodeNoRoute || r.ReplyText != "NO_ROUTE" {
				t.Errorf("%+v", r)
			}
			_, body := p.Content()
			returned = append(returned, r.RoutingKey+" "+body)
			continue
		}
		if b, is := m.(wire.Bare); !is || b.ID() != wire.IDTxCommitOk {
			t.Fatalf("got %T %+v, want commit-ok", m, m)
		}
		break
	}
	if want := []string{"goes 1", "nobody 2", "also goes 6", "nobody 7"}; !slices.Equal(returned, want) {
		t.Errorf("returned %q, want %q", returned, want)
	}
	for _, body := range []string{"4", "5"} {
		p.Send(1, &wire.BasicGet{Queue: "stays", NoAck: true})
		amqptest.Want[*wire.BasicGetOk](p, 1)
		if _, got := p.Content(); got != body {
			t.Errorf("got %q, want %q", got, body)
		}
	}
}
