package amqp

import (
	"context"
	"math"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/amqp/wire"
)

// cancel handles the client's basic.cancel. The consumer still gets the messages that the channel published before: they were for
// whoever was first in line then. Its deliveries that are not acknowledged stay with the channel.
func (ch *channel) cancel(m *wire.BasicCancel) error {
	c := ch.c
	if ch.reply != nil && ch.reply.tag == m.ConsumerTag {
		ch.dropReplyConsumer()
	}
	c.mu.Lock()
	cons := ch.consumers[m.ConsumerTag]
	c.mu.Unlock()
	if cons != nil {
		if err := cons.stop(); err != nil {
			return err
		}
		c.mu.Lock()
		ch.leave(cons)
		cons.cancelled = true
		left := cons.outstanding
		c.mu.Unlock()
		if left > 0 || ch.tx != nil {
			ch.lingering[cons] = struct{}{}
		} else {
			cons.end()
		}
		cons.q.detach(cons)
	}
	ch.answerUnless(m.NoWait, &wire.BasicCancelOk{ConsumerTag: m.ConsumerTag})
	return nil
}

// stop ends hand-outs. When it returns, every message that was handed out is entered as a delivery, and its frames are among those to be
// written.
//
// The broker hands out at the end of a turn. So stop waits for the turn in which it received the publishes before it takes the
// consumer's credit away, and then for the turn that did so.
func (cons *consumer) stop() error {
	c := cons.ch.c
	if err := c.srv.sync(); err != nil {
		return err
	}
	c.mu.Lock()
	cons.leaving = true
	c.mu.Unlock()
	cons.sub.AddCredit(math.MinInt32)
	if err := c.srv.sync(); err != nil {
		return err
	}
	for more := true; more; {
		var err error
		if more, err = cons.deliverRest(); err != nil {
			return err
		}
	}
	if err := cons.sub.Cancel(); err != nil {
		c.srv.log.Debug("cancelling a subscription failed", "queue", cons.q.name, "err", err)
	}
	return nil
}

// sync waits until the broker has decided everything that it was asked before.
func (s *Server) sync() error {
	_, err := s.broker.Settle(context.WithoutCancel(s.ctx), nil)
	return err
}

// deliverRest puts some of what was handed out among the frames to be written. Without more it has stopped the consumer.
func (cons *consumer) deliverRest() (more bool, err error) {
	c := cons.ch.c
	if err := c.waitForRoom(); err != nil {
		return false, err
	}
	if f := c.forced.Load(); f != nil {
		return false, &failure{why: f}
	}
	cons.mu.Lock()
	defer cons.mu.Unlock()
	if cons.stopped { // its subscription ended by itself
		return false, nil
	}
	got, tag, err := cons.fetch(nil)
	if err != nil || len(got) == 0 {
		cons.stopped = true
		return false, nil
	}
	c.mu.Lock()
	for i := range got {
		c.out = appendDelivery(c.out, cons, tag+uint64(i), &got[i])
	}
	c.mu.Unlock()
	c.wakeWriter()
	return true, nil
}

func appendDelivery(out []byte, cons *consumer, tag uint64, d *surgetank.Delivery) []byte {
	ch := cons.ch
	exchange, key, block := outgoing(d, cons.q.attrs().quorum)
	out = wire.AppendDeliver(out, ch.id, cons.tag, tag, d.Redelivered, exchange, key)
	out = wire.AppendHeader(out, ch.id, len(d.Body), block)
	return wire.AppendBody(out, ch.id, d.Body, int(ch.c.tuned.FrameMax))
}

// deferCancels keeps the cancels of this connection's consumers back until the returned function is called. Who deletes the queue of its own
// consumer gets delete-ok before the cancel: clients close the channel at the cancel, and the answer must not be missing then.
func (c *conn) deferCancels() (release func()) {
	c.mu.Lock()
	c.deleting = true
	c.mu.Unlock()
	return func() {
		c.mu.Lock()
		c.out = append(c.out, c.cancels...)
		c.deleting, c.cancels = false, nil
		c.mu.Unlock()
		c.wakeWriter()
	}
}

// lost deals with a subscription that ended by itself: the queue was deleted, or the broker is closing. The
// client is told, if it asked to be. It runs on the writer goroutine.
func (c *conn) lost(cons *consumer, err error) {
	ch := cons.ch
	c.mu.Lock()
	if ch.leave(cons) {
		if c.caps.cancelNotify && !ch.closed && !c.ending {
			to := &c.out
			if c.deleting {
				to = &c.cancels
			}
			*to = wire.AppendMethod(*to, ch.id, &wire.BasicCancel{ConsumerTag: cons.tag, NoWait: true})
		}
	}
	c.mu.Unlock()
	q, vh := cons.q, cons.q.vh
	vh.mu.Lock()
	q.remove(cons)
	forgotten := q.gone
	vh.mu.Unlock()
	if surgetank.CodeOf(err) == surgetank.CodeNotFound {
		if forgotten {
			return // by another of the queue's consumers
		}
		c.srv.background(func() { vh.forget(q) })
	} else {
		c.srv.log.Info("a subscription ended", "queue", q.name, "vhost", vh.name, "err", err)
	}
}
