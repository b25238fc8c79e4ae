package amqp

import (
	"fmt"
	"testing"

	"github.com/surgetank/surgetank/internal/amqp/amqptest"
	"github.com/surgetank/surgetank/internal/amqp/wire"
)

// TestCancelComesAfterPublishes: a consumer that is first in line gets every message that its
// channel published before the cancel. All of these messages are delivered before cancel-ok. Later
// messages are delivered to the next consumer in line.
func TestCancelComesAfterPublishes(t *testing.T) {
	for _, noAck := range []bool{true, false} {
		for _, confirms := range []bool{true, false} {
			t.Run(fmt.Sprintf("no_ack=%t confirms=%t", noAck, confirms), func(t *testing.T) {
				bn := start(t, Limits{})
				p := bn.connect("guest")
				p.Channel(1)
				p.Send(1, &wire.QueueDeclare{Queue: "q"})
				amqptest.Want[*wire.QueueDeclareOk](p, 1)
				tags := []string{"low", "mid", "high"}
				for i, tag := range tags {
					p.Send(1, &wire.BasicConsume{Queue: "q", ConsumerTag: tag, NoAck: noAck, Arguments: wire.Table(nil).AddInt("x-priority", int64(i))})
					amqptest.Want[*wire.BasicConsumeOk](p, 1)
				}
				if confirms {
					p.Send(1, &wire.ConfirmSelect{})
					p.Bare(1, wire.IDConfirmSelectOk)
				}
				const each = 100 // below the limit of unacked deliveries of a consumer without prefetch
				for i := len(tags) - 1; i >= 0; i-- {
					for n := range each {
						p.Publish(1, &wire.BasicPublish{RoutingKey: "q"}, wire.Properties{}, fmt.Sprint(n))
					}
					p.Send(1, &wire.BasicCancel{ConsumerTag: tags[i]})
				}
				for i := len(tags) - 1; i >= 0; i-- {
					got := 0
					for cancelled := false; !cancelled; {
						_, m := p.Method()
						switch m := m.(type) {
						case *wire.BasicDeliver:
							if _, body := p.Content(); m.ConsumerTag != tags[i] || body != fmt.Sprint(got) {
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

// TestDeleteOkBeforeCancel: if a connection deletes the queue of its own consumers, delete-ok
// precedes their cancels, whatever channels they are on.
func TestDeleteOkBeforeCancel(t *testing.T) {
	bn := start(t, Limits{})
	p := bn.connect("guest")
	p.Channel(1)
	p.Channel(2)
	for range 100 {
		p.Send(1, &wire.QueueDeclare{Queue: "q"})
		amqptest.Want[*wire.QueueDeclareOk](p, 1)
		p.Send(1, &wire.BasicConsume{Queue: "q", ConsumerTag: "one"})
		amqptest.Want[*wire.BasicConsumeOk](p, 1)
		p.Send(2, &wire.BasicConsume{Queue: "q", ConsumerTag: "two"})
		amqptest.Want[*wire.BasicConsumeOk](p, 2)
		p.Send(1, &wire.QueueDelete{Queue: "q"})
		amqptest.Want[*wire.QueueDeleteOk](p, 1)
		for range 2 {
			if _, m := p.Method(); m.ID() != wire.IDBasicCancel {
				t.Fatalf("got %T, want a cancel", m)
			}
		}
	}
}
