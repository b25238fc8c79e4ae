package amqp

import (
	"fmt"
	"testing"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/amqp/wire"
)

// TestCancelComesAfterPublishes: what a channel publishes before it cancels a consumer reaches that consumer where it is first in
// line, and all of it is delivered before cancel-ok. Who is next in line gets what comes after.
func TestCancelComesAfterPublishes(t *testing.T) {
	for _, noAck := range []bool{true, false} {
		for _, confirms := range []bool{true, false} {
			t.Run(fmt.Sprintf("no_ack=%t confirms=%t", noAck, confirms), func(t *testing.T) {
				bn := start(t, Limits{})
				p := bn.connect("guest")
				p.channel(1)
				p.send(1, &wire.QueueDeclare{Queue: "q"})
				want[*wire.QueueDeclareOk](p, 1)
				tags := []string{"low", "mid", "high"}
				for i, tag := range tags {
					p.send(1, &wire.BasicConsume{Queue: "q", ConsumerTag: tag, NoAck: noAck, Arguments: wire.Table(nil).AddInt("x-priority", int64(i))})
					want[*wire.BasicConsumeOk](p, 1)
				}
				if confirms {
					p.send(1, &wire.ConfirmSelect{})
					p.bare(1, wire.IDConfirmSelectOk)
				}
				const each = 100 // fewer than a consumer without prefetch may have on its way
				for i := len(tags) - 1; i >= 0; i-- {
					for n := range each {
						p.publish(1, &wire.BasicPublish{RoutingKey: "q"}, wire.Properties{}, fmt.Sprint(n))
					}
					p.send(1, &wire.BasicCancel{ConsumerTag: tags[i]})
				}
				for i := len(tags) - 1; i >= 0; i-- {
					got := 0
					for cancelled := false; !cancelled; {
						_, m := p.method()
						switch m := m.(type) {
						case *wire.BasicDeliver:
							if _, body := p.content(); m.ConsumerTag != tags[i] || body != fmt.Sprint(got) {
								t.Fatalf("%s got %s, want message %d for %s", m.ConsumerTag, body, got, tags[i])
							}
							got++
						case *wire.BasicCancelOk:
							cancelled = true
						}
					}
					if got != each {
						t.Errorf("%s got %d messages before cancel-ok, want %d", tags[i], got, each)
					}
				}
			})
		}
	}
}

// TestDeleteOkBeforeCancel: who deletes the queue of its own consumers gets the answer first, on whatever channel they are.
func TestDeleteOkBeforeCancel(t *testing.T) {
	bn := start(t, Limits{})
	p := bn.connect("guest")
	p.channel(1)
	p.channel(2)
	for range 100 {
		p.send(1, &wire.QueueDeclare{Queue: "q"})
		want[*wire.QueueDeclareOk](p, 1)
		p.send(1, &wire.BasicConsume{Queue: "q", ConsumerTag: "one"})
		want[*wire.BasicConsumeOk](p, 1)
		p.send(2, &wire.BasicConsume{Queue: "q", ConsumerTag: "two"})
		want[*wire.BasicConsumeOk](p, 2)
		p.send(1, &wire.QueueDelete{Queue: "q"})
		want[*wire.QueueDeleteOk](p, 1)
		for range 2 {
			if _, m := p.method(); m.ID() != wire.IDBasicCancel {
				t.Fatalf("got %T, want a cancel", m)
			}
		}
	}
}

// TestCancelsAreDeferred: while the connection deletes a queue, its consumers' cancels wait, however late the answer is.
func TestCancelsAreDeferred(t *testing.T) {
	bn := start(t, Limits{})
	p := bn.connect("guest")
	p.channel(1)
	p.send(1, &wire.QueueDeclare{Queue: "q"})
	want[*wire.QueueDeclareOk](p, 1)
	p.send(1, &wire.BasicConsume{Queue: "q", ConsumerTag: "c"})
	want[*wire.BasicConsumeOk](p, 1)
	c := bn.server.connections()[0]
	release := c.out.deferCancels()
	if _, err := bn.broker.DeleteQueue(t.Context(), "q", surgetank.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	until(t, "the consumer is lost", func() bool {
		n, _ := c.channels.list()[0].ledger.count("")
		return n == 0
	})
	p.send(1, &wire.BasicQos{})
	p.bare(1, wire.IDBasicQosOk)
	release()
	want[*wire.BasicCancel](p, 1)
}
