package session

import (
	"testing"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/amqp/amqptest"
	"github.com/surgetank/surgetank/internal/amqp/wire"
)

// TestCancelsAreDeferred: while a connection deletes a queue, the cancels of its own consumers wait
// for delete-ok, however late it is.
func TestCancelsAreDeferred(t *testing.T) {
	bn := start(t, Limits{})
	p := bn.connect()
	p.Channel(1)
	p.Send(1, &wire.QueueDeclare{Queue: "q"})
	amqptest.Want[*wire.QueueDeclareOk](p, 1)
	p.Send(1, &wire.BasicConsume{Queue: "q", ConsumerTag: "c"})
	amqptest.Want[*wire.BasicConsumeOk](p, 1)
	c := bn.connections()[0]
	release := c.out.deferCancels()
	if _, err := bn.broker.DeleteQueue(t.Context(), "q", surgetank.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	amqptest.Until(t, "the consumer is lost", func() bool {
		n, _ := c.channels.list()[0].ledger.count("")
		return n == 0
	})
	p.Send(1, &wire.BasicQos{})
	p.Bare(1, wire.IDBasicQosOk)
	release()
	amqptest.Want[*wire.BasicCancel](p, 1)
}
