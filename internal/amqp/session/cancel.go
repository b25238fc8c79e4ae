package session

import (
	"math"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/amqp/translate"
	"github.com/surgetank/surgetank/internal/amqp/wire"
)

// cancel handles the client's basic.cancel. The consumer still gets the messages that the channel
// published before: they were for the consumer that was first in line then. Its deliveries that are
// not acknowledged stay with the channel.
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

// stop ends hand-outs. When it returns, every message that was handed out is entered as a delivery,
// and its frames are among those to be written.
//
// The broker hands out at the end of a turn. So stop waits for the turn in which it received the
// publishes before it takes the consumer's credit away, and then for the turn that did so.
func (cons *consumer) stop() error {
	c := cons.ch.c
	if err := c.srv.Sync(); err != nil {
		return err
	}
	cons.ch.ledger.leave(cons)
	cons.sub.AddCredit(math.MinInt32)
	if err := c.srv.Sync(); err != nil {
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

// deliverRest puts some of what was handed out among the frames to be written. Without more it has
// stopped the consumer.
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

// lost deals with a subscription that ended by itself: the queue was deleted, or the broker is
// closing. The client is told, if it asked to be. It runs on the writer goroutine.
func (c *Conn) lost(cons *consumer, err error) {
	if ch := cons.ch; ch.ledger.remove(cons) && c.caps.cancelNotify {
		c.out.cancelled(ch, cons.tag)
	}
	q, vh := cons.q, cons.q.Vhost
	forgotten := q.DropConsumer(&cons.entry)
	if surgetank.CodeOf(err) == surgetank.CodeNotFound {
		if forgotten {
			return // by another of the queue's consumers
		}
		c.srv.Background(func() { vh.Forget(q) })
	} else {
		c.srv.Log.Info("a subscription ended", "queue", q.Name, "vhost", vh.Name, "err", err)
	}
}
