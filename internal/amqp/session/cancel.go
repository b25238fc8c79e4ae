package session

import (
	"math"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/amqp/translate"
	"github.com/surgetank/surgetank/internal/amqp/wire"
)

// cancel handles the client's basic.cancel. The consumer still gets the messages that the channel
// published before, if the consumer was first in line for them. Its unacknowledged deliveries stay
// with the channel.
func (ch *channel) cancel(m *wire.BasicCancel) error {
	if ch.reply != nil && ch.reply.tag == m.ConsumerTag {
		ch.dropReplyConsumer()
	}
	if cons := ch.ledger.find(m.ConsumerTag); cons != nil {
		if err := cons.stop(); err != nil {
			return err
		}
		if left := ch.ledger.cancel(cons); left > 0 || ch.tx != nil {
			ch.lingering[cons] = struct{}{}
		} else {
			cons.end()
		}
		cons.q.Detach(&cons.entry)
	}
	ch.answerUnless(m.NoWait, &wire.BasicCancelOk{ConsumerTag: m.ConsumerTag})
	return nil
}

// stop ends hand-outs. When it returns, every handed-out message is entered as a delivery, and its
// frames are in the outbox.
//
// The broker hands out messages at the end of a turn. So stop first waits for the turn that
// accepted the channel's publishes. It then removes the consumer's credit, and waits for the turn
// that removed the credit.
func (cons *consumer) stop() error {
	c := cons.ch.c
	if err := c.srv.Sync(c.ordered); err != nil {
		return err
	}
	cons.ch.ledger.leave(cons)
	cons.sub.AddCredit(math.MinInt32)
	if err := c.srv.Sync(c.ordered); err != nil {
		return err
	}
	for more := true; more; {
		var err error
		if more, err = cons.deliverRest(); err != nil {
			return err
		}
	}
	if err := cons.sub.Cancel(); err != nil {
		c.srv.Log.Debug("cancelling a subscription failed", "queue", cons.q.Name, "err", err)
	}
	return nil
}

// deliverRest encodes some of the handed-out messages and adds their frames to the outbox. When no
// messages are left, it marks the consumer as stopped and returns false.
func (cons *consumer) deliverRest() (more bool, err error) {
	c := cons.ch.c
	if err := c.waitForRoom(); err != nil {
		return false, err
	}
	if err := c.asked.failure(); err != nil {
		return false, err
	}
	ch := cons.ch
	ch.delivering.Lock()
	defer ch.delivering.Unlock()
	if cons.stopped { // its subscription ended by itself
		return false, nil
	}
	got, tag, err := cons.fetch(nil)
	if err != nil || len(got) == 0 {
		cons.stopped = true
		return false, nil
	}
	for i := range got {
		d := &got[i]
		exchange, key, block, _ := translate.Outgoing(d, cons.q.Attrs().Quorum, nil)
		frames := c.frames(ch.id, block, d.Body)
		c.out.mu.Lock()
		c.out.content(wire.AppendDeliver(c.out.methods, ch.id, cons.tag, tag+uint64(i), d.Redelivered, exchange, key), frames)
		c.out.mu.Unlock()
	}
	c.out.wakeWriter()
	return true, nil
}

// lost handles a subscription that ended by itself, because the queue was deleted or the broker is
// closing. A client with the capability gets a basic.cancel. The writer calls lost.
func (c *Conn) lost(cons *consumer, err error) {
	if ch := cons.ch; ch.ledger.remove(cons) && c.caps.cancelNotify {
		c.out.cancelled(ch, cons.tag)
	}
	q, vh := cons.q, cons.q.Vhost
	forgotten := q.DropConsumer(&cons.entry)
	if surgetank.CodeOf(err) == surgetank.CodeNotFound {
		if forgotten {
			return // another consumer of the queue has removed the queue from the topology
		}
		c.srv.Background(func() { vh.Forget(q) })
	} else {
		c.srv.Log.Info("a subscription ended", "queue", q.Name, "vhost", vh.Name, "err", err)
	}
}
