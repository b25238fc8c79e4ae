package amqp

import (
	"slices"
	"testing"

	"github.com/surgetank/surgetank/internal/amqp/wire"
)

// TestCommitReturnsWhatLostItsQueues: a mandatory message whose last queue is deleted before the commit comes back, in the order of
// publishing; what has a queue left arrives there.
func TestCommitReturnsWhatLostItsQueues(t *testing.T) {
	bn := start(t, Limits{})
	p := bn.connect("guest")
	p.channel(1)
	for _, q := range []string{"stays", "goes", "also goes", "taken"} {
		p.send(1, &wire.QueueDeclare{Queue: q})
		want[*wire.QueueDeclareOk](p, 1)
		p.send(1, &wire.QueueBind{Queue: q, Exchange: "amq.fanout"})
		p.bare(1, wire.IDQueueBindOk)
	}
	p.publish(1, &wire.BasicPublish{RoutingKey: "taken"}, wire.Properties{}, "acknowledged")
	p.send(1, &wire.BasicGet{Queue: "taken"})
	want[*wire.BasicGetOk](p, 1)
	p.content()
	p.send(1, wire.Bare(wire.IDTxSelect))
	p.bare(1, wire.IDTxSelectOk)
	for _, m := range []struct {
		exchange, key, body string
		mandatory           bool
	}{
		{"", "goes", "1", true}, {"", "nobody", "2", true}, {"", "goes", "3", false}, {"", "stays", "4", true},
		{"amq.fanout", "", "5", true}, {"", "also goes", "6", true}, {"", "nobody", "7", true},
	} {
		p.publish(1, &wire.BasicPublish{Exchange: m.exchange, RoutingKey: m.key, Mandatory: m.mandatory}, wire.Properties{}, m.body)
	}
	p.send(1, &wire.BasicAck{DeliveryTag: 1})
	// Another connection deletes the queues: this channel hears nothing of it.
	other := bn.connect("guest")
	other.channel(1)
	p.send(1, &wire.BasicQos{}) // the publishes have arrived when this is answered
	p.bare(1, wire.IDBasicQosOk)
	for _, q := range []string{"goes", "also goes", "taken"} {
		other.send(1, &wire.QueueDelete{Queue: q})
		want[*wire.QueueDeleteOk](other, 1)
	}
	p.send(1, wire.Bare(wire.IDTxCommit))
	var returned []string
	for {
		_, m := p.method()
		if r, is := m.(*wire.BasicReturn); is {
			if r.ReplyCode != wire.CodeNoRoute || r.ReplyText != "NO_ROUTE" {
				t.Errorf("%+v", r)
			}
			_, body := p.content()
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
		p.send(1, &wire.BasicGet{Queue: "stays", NoAck: true})
		want[*wire.BasicGetOk](p, 1)
		if _, got := p.content(); got != body {
			t.Errorf("got %q, want %q", got, body)
		}
	}
}
