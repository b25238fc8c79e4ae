package session

import (
	"context"
	"strings"
	"testing"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/amqp/amqptest"
	"github.com/surgetank/surgetank/internal/amqp/translate"
	"github.com/surgetank/surgetank/internal/amqp/wire"
)

// TestTheLoopDoesNotWaitForBodies: while the body of an answer is copied, the broker's loop hands
// messages to consumers of the same connection and answers its publishes. The test stops each copy
// until the loop has run a turn that needs the connection's outbox.
func TestTheLoopDoesNotWaitForBodies(t *testing.T) {
	const body = "a body whose copy is held"
	for _, tt := range []struct {
		name string
		ask  func(p *amqptest.Peer)
		read func(p *amqptest.Peer)
	}{
		{"basic.get", func(p *amqptest.Peer) { p.Send(2, &wire.BasicGet{Queue: "held", NoAck: true}) },
			func(p *amqptest.Peer) { amqptest.Want[*wire.BasicGetOk](p, 2) }},
		{"basic.return", func(p *amqptest.Peer) {
			p.Publish(2, &wire.BasicPublish{RoutingKey: "nobody", Mandatory: true}, wire.Properties{}, body)
		},
			func(p *amqptest.Peer) { amqptest.Want[*wire.BasicReturn](p, 2) }},
		{"basic.return of a commit", func(p *amqptest.Peer) {
			p.Send(2, wire.Bare(wire.IDTxSelect))
			p.Bare(2, wire.IDTxSelectOk)
			p.Publish(2, &wire.BasicPublish{RoutingKey: "nobody", Mandatory: true}, wire.Properties{}, body)
			p.Send(2, wire.Bare(wire.IDTxCommit))
		}, func(p *amqptest.Peer) { amqptest.Want[*wire.BasicReturn](p, 2) }},
		{"a direct reply", func(p *amqptest.Peer) {
			p.Send(2, &wire.BasicConsume{Queue: translate.ReplyToQueue, NoAck: true})
			amqptest.Want[*wire.BasicConsumeOk](p, 2)
			p.Publish(2, &wire.BasicPublish{RoutingKey: "rpc"}, wire.Properties{Flags: wire.HasReplyTo, ReplyTo: []byte(translate.ReplyToQueue)}, "request")
			p.Send(2, &wire.BasicGet{Queue: "rpc", NoAck: true})
			amqptest.Want[*wire.BasicGetOk](p, 2)
			props, _ := p.Content()
			p.Publish(2, &wire.BasicPublish{RoutingKey: string(props.ReplyTo)}, wire.Properties{}, body)
		}, func(p *amqptest.Peer) { amqptest.Want[*wire.BasicDeliver](p, 2) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bn := start(t, Limits{})
			ctx, cancel := context.WithTimeout(t.Context(), amqptest.Patience)
			defer cancel()
			p := bn.connect()
			p.Channel(1)
			p.Channel(2)
			for _, q := range []string{"served", "held", "rpc"} {
				p.Ask(1, &wire.QueueDeclare{Queue: q}, wire.IDQueueDeclareOk)
			}
			p.Ask(1, &wire.BasicConsume{Queue: "served", NoAck: true}, wire.IDBasicConsumeOk)
			post := func(queue, body string) {
				t.Helper()
				if _, err := bn.broker.Publish(ctx, []surgetank.Publishing{{Queues: []string{queue}, Message: surgetank.Message{Body: []byte(body)}}}); err != nil {
					t.Fatalf("the loop does not continue: %v", err)
				}
			}
			post("held", body)
			copying, release := make(chan struct{}), make(chan struct{})
			defer close(release)
			c := bn.connections()[0]
			held := func(dst []byte, channel uint16, b []byte, frameMax int) []byte {
				if string(b) == body {
					copying <- struct{}{}
					<-release
				}
				return wire.AppendBody(dst, channel, b, frameMax)
			}
			// The reader owns the field, so the reader sets it.
			set := make(chan struct{})
			c.asked.interrupt(func() error { c.appendBody = held; close(set); return nil })
			<-set
			tt.ask(p)
			select {
			case <-copying:
			case <-ctx.Done():
				t.Fatal("the body was not copied by anybody who holds no lock")
			}
			// For the first publish the loop calls notify. notify must return before the loop can
			// answer the second.
			post("served", "1")
			post("served", "2")
			for _, n := range []string{"1", "2"} {
				amqptest.Want[*wire.BasicDeliver](p, 1)
				if _, got := p.Content(); got != n {
					t.Fatalf("got %q, want %q", got, n)
				}
			}
			release <- struct{}{}
			tt.read(p)
			if _, got := p.Content(); got != body {
				t.Errorf("got %q", got)
			}
		})
	}
}

// TestOutboxKeepsItsOrder: frames with and without a body are sent in the order in which they were
// added, even if they are large.
func TestOutboxKeepsItsOrder(t *testing.T) {
	bn := start(t, Limits{})
	p := bn.connect()
	p.Channel(1)
	p.Ask(1, &wire.ConfirmSelect{}, wire.IDConfirmSelectOk)
	bodies := []string{"", "small", strings.Repeat("x", 3*writeChunk), "y", strings.Repeat("z", writeChunk-8)}
	for range 20 {
		for _, b := range bodies {
			p.Publish(1, &wire.BasicPublish{RoutingKey: "nobody", Mandatory: true}, wire.Properties{}, b)
			p.Send(1, &wire.BasicQos{})
		}
	}
	returns := uint64(0)
	for range 20 {
		for _, b := range bodies {
			for answered, returned := false, false; !answered || !returned; {
				switch _, m := p.Method(); m := m.(type) {
				case *wire.BasicReturn:
					if _, got := p.Content(); got != b {
						t.Fatalf("a body of %d bytes, want %d", len(got), len(b))
					}
					returned = true
					returns++
				case wire.Bare: // qos-ok
					if answered = true; !returned {
						t.Fatal("qos-ok before the return of the publish before it")
					}
				case *wire.BasicAck:
					if m.DeliveryTag > returns {
						t.Fatalf("the confirm of %d before its return", m.DeliveryTag)
					}
				}
			}
		}
	}
}
