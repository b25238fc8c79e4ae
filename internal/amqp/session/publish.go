package session

import (
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/amqp/topology"
	"github.com/surgetank/surgetank/internal/amqp/translate"
	"github.com/surgetank/surgetank/internal/amqp/wire"
	"github.com/surgetank/surgetank/internal/auth"
	"github.com/surgetank/surgetank/internal/fullname"
)

// A batch of this size is sent to the broker before the read ends.
const (
	batchMax   = 4096
	batchBytes = 1 << 20
)

// publishBatch has the publishes of one read. who[i] gets the outcome of msgs[i].
type publishBatch struct {
	c     *Conn
	msgs  []surgetank.Publishing
	who   []publisher
	bytes int
}

// publisher says where a publish came from.
type publisher struct {
	ch        *channel
	seq       uint64 // 0: the publish gets no confirm
	mandatory bool
	refused   bool // one of the message's queues accepts no messages; the other queues store it, and the publish is nacked
}

// publish handles a complete message.
func (ch *channel) publish(ct *translate.Content, body []byte) error {
	c, a := ch.c, &ch.assembly
	if ch.mode == confirming {
		ch.seq++
	}
	to, err := c.pubs.routes.lookup(a.exchange, a.key)
	if err != nil {
		return ch.unknown(err)
	}
	if to.reply {
		ch.publishReply(to, ct, body)
		return nil
	}
	queues, refused := to.Queues, to.Refused
	if len(ct.CC) > 0 || !to.Fixed {
		r, err := c.routeAll(to, ct)
		if err != nil {
			return ch.unknown(err)
		}
		queues, refused = r.Queues, r.Refused
	}
	who := publisher{ch: ch, mandatory: a.mandatory, refused: refused}
	if ch.mode == confirming {
		who.seq = ch.seq
	}
	if len(queues) == 0 {
		if !refused && a.mandatory {
			if ch.mode == transactional {
				return ch.tx.addReturned(returnedMessage{exchange: string(a.exchange), key: to.key, block: ct.Block, body: body})
			}
			if err := c.waitForRoom(); err != nil {
				return err
			}
			ch.returned(string(a.exchange), to.key, ct.Block, body)
		}
		ch.confirm(who.seq, !refused)
		return nil
	}
	m := surgetank.Publishing{Queues: queues, Message: ct.Template}
	m.Message.Body, m.Message.Key = body, to.key
	if ch.mode == transactional {
		return ch.tx.publish(m, a.mandatory)
	}
	if c.pubs.batch == nil {
		c.pubs.batch = &publishBatch{c: c, msgs: make([]surgetank.Publishing, 0, c.in.expected()), who: make([]publisher, 0, c.in.expected())}
	}
	ch.published = true
	b := c.pubs.batch
	b.msgs = append(b.msgs, m)
	b.who = append(b.who, who)
	if b.bytes += len(body); len(b.msgs) >= batchMax || b.bytes >= batchBytes {
		return c.flush()
	}
	return nil
}

// unknown handles the error of finding a message's queues. If a queue can be in a shard that is not
// open, the publish is nacked, and the channel stays open for the queues of other shards.
func (ch *channel) unknown(err error) error {
	if surgetank.CodeOf(err) != surgetank.CodeUnavailable || ch.mode == transactional {
		return err
	}
	ch.c.srv.Log.Debug("a publish was refused", "peer", ch.c.Name, "err", err)
	if ch.mode == confirming {
		ch.confirm(ch.seq, false)
	}
	return nil
}

// routeAll finds the queues for all of a message's keys and for its headers.
func (c *Conn) routeAll(to *route, ct *translate.Content) (topology.Routed, error) {
	keys := append([]string{to.key}, ct.CC...)
	if err := c.authorizeTopic(auth.Write, to.exchange, ct.CC...); err != nil {
		return topology.Routed{}, err
	}
	if to.exchange.Name == "" {
		for _, k := range ct.CC {
			if _, err := c.vhost().Find(k); err != nil { // Find makes a queue of another door known to this door
				return topology.Routed{}, err
			}
		}
	}
	return c.vhost().Route(to.exchange, keys, &ct.Props), nil
}

// returned returns a message that found no queue to its client.
func (ch *channel) returned(exchange, key string, block, body []byte) {
	frames := ch.c.frames(ch.id, block, body)
	o := &ch.c.out
	o.mu.Lock()
	if !ch.closed {
		o.content(wire.AppendMethod(o.methods, ch.id, &wire.BasicReturn{ReplyCode: wire.CodeNoRoute, ReplyText: "NO_ROUTE", Exchange: exchange,
			RoutingKey: key}), frames)
	}
	o.mu.Unlock()
	o.wakeWriter()
}

// flush sends the collected publishes and settlements to the broker. Publishes go first. If a
// channel publishes a result and then acks its input, the ack is never stored without the result.
// Settlements of channels that never published need not wait for the connection's publishes.
func (c *Conn) flush() error {
	if c.pubs.batch != nil {
		if err := c.holdWhileAlarmed(); err != nil {
			return err
		}
		b := c.pubs.batch
		c.pubs.batch = nil
		if err := c.srv.Broker.PublishAsync(c.ordered, b.msgs, b.done); err != nil {
			b.failed(err)
			if err := c.asked.failure(); err != nil {
				return err
			}
			if surgetank.CodeOf(err) == surgetank.CodeClosed {
				return &failure{why: translate.ToWire(err)}
			}
		}
	}
	c.passed()
	if len(c.pubs.settles) > 0 {
		s := c.pubs.settles
		ctx := c.ctx
		if c.pubs.behind {
			ctx = c.ordered
		}
		c.pubs.settles, c.pubs.behind = nil, false
		if err := c.srv.Broker.SettleAsync(ctx, s, nil); err != nil {
			if err := c.asked.failure(); err != nil {
				return err
			}
			return translate.ToWire(err)
		}
	}
	return nil
}

// passed frees the bytes of the server's budget that the messages of the last flush reserved.
func (c *Conn) passed() {
	c.srv.budget.free(c, c.pubs.passing)
	c.pubs.passing = 0
}

// alarmLook is the time between two checks of a blocked connection. The server does not read from
// it, so no read notices its end.
const alarmLook = time.Second

// holdWhileAlarmed blocks a connection that publishes while there is an alarm, and tells its client
// the reason.
func (c *Conn) holdWhileAlarmed() error {
	for {
		a := c.srv.alarms.now.Load()
		if a.reason == "" {
			if c.pubs.blocked {
				c.pubs.blocked = false
				c.pubs.isBlocked.Store(false)
				if c.caps.blocked {
					c.out.send(0, wire.Bare(wire.IDConnectionUnblocked))
				}
			}
			return nil
		}
		if !c.pubs.blocked {
			c.pubs.blocked = true
			c.pubs.isBlocked.Store(true)
			if c.caps.blocked {
				c.out.send(0, &wire.ConnectionBlocked{Reason: wire.Clip(a.reason)})
			}
		}
		look := c.srv.Clock.NewTimer(alarmLook)
		select {
		case <-a.over:
		case <-look.C():
			if hungUp(c.nc) { // its unread publishes were not confirmed
				return errSocket
			}
		case <-c.asked.kicked:
			look.Stop()
			return c.asked.failure()
		case <-c.written: // the socket failed
			look.Stop()
			return errSocket
		}
		look.Stop()
	}
}

// done gets the outcomes of a batch, in the order of publishing. The broker calls it on its loop,
// so it must not block. It locks the outbox, and short locks below it. No goroutine copies a body
// under any of them.
func (b *publishBatch) done(results []surgetank.PublishResult, err error) {
	if err != nil {
		b.failed(err)
		return
	}
	c := b.c
	var late []publisher
	var wait time.Duration
	c.out.mu.Lock()
	for i := range b.who {
		w := &b.who[i]
		switch surgetank.CodeOf(results[i].Err) {
		case "":
			c.out.addOutcome(w.ch, w.seq, !w.refused)
		case surgetank.CodeNotFound: // a queue is gone; reconsider finds out which, and can wait
			m, w := b.msgs[i], *w
			c.srv.Background(func() { w.reconsider(m) })
		case surgetank.CodeFull:
			if m, w := b.msgs[i], *w; c.vhost().WantsRefused(m.Queues) {
				c.vhost().DeadLetterRefused(m, func() { w.ch.confirm(w.seq, false) })
				continue
			}
			c.out.addOutcome(w.ch, w.seq, false)
		case surgetank.CodeBusy: // the queue's accept.rate is reached
			if e, ok := results[i].Err.(*surgetank.Error); ok && w.seq != 0 && c.pubs.late.Load() < maxLate {
				c.out.outcome(w.ch, w.seq, func() { w.ch.confirms.postpone(w.seq) })
				late, wait = append(late, *w), max(wait, e.RetryAfter)
				continue
			}
			c.out.addOutcome(w.ch, w.seq, false)
		default:
			c.out.addOutcome(w.ch, w.seq, false)
			c.srv.Log.Debug("a publish was refused", "peer", c.Name, "queues", len(b.msgs[i].Queues), "err", results[i].Err)
		}
	}
	c.out.mu.Unlock()
	c.out.wakeWriter()
	if len(late) > 0 {
		c.nackLater(late, min(wait, longestLate))
	}
}

const (
	// longestLate is the longest delay of a nack.
	longestLate = 5 * time.Second
	// maxLate is how many batches of a connection have delayed nacks. Later nacks are sent at once.
	maxLate = 64
)

// nackLater nacks publishes above accept.rate after some time. This slows a publisher that waits
// for its confirms. It does not slow publishes to other queues, because the server still reads from
// the connection.
func (c *Conn) nackLater(late []publisher, wait time.Duration) {
	c.pubs.late.Add(1)
	c.srv.Background(func() {
		defer c.pubs.late.Add(-1)
		timer := c.srv.Clock.NewTimer(wait)
		defer timer.Stop()
		select {
		case <-timer.C():
		case <-c.ctx.Done():
			return
		}
		c.out.mu.Lock()
		for _, w := range late {
			c.out.outcome(w.ch, w.seq, func() { w.ch.confirms.overdue(w.seq) })
		}
		c.out.mu.Unlock()
		c.out.wakeWriter()
	})
}

// failed nacks a whole batch.
func (b *publishBatch) failed(err error) {
	c := b.c
	c.srv.Log.Warn("publishes failed", "peer", c.Name, "messages", len(b.who), "err", err)
	c.out.mu.Lock()
	for _, w := range b.who {
		c.out.addOutcome(w.ch, w.seq, false)
	}
	c.out.mu.Unlock()
	c.out.wakeWriter()
}

// reconsider handles a message that was refused because one of its queues is gone.
func (w publisher) reconsider(m surgetank.Publishing) {
	s, vh := w.ch.c.srv, w.ch.c.vhost()
	left := make([]string, 0, len(m.Queues))
	for _, full := range m.Queues {
		info, err := s.Broker.Queue(s.Context, full)
		_, name := fullname.Split(full)
		q := vh.Known(name)
		switch {
		case err == nil:
			left = append(left, full)
			// Another door has declared the queue again; the old queue's bindings do not apply.
			if q != nil && q.ID != info.ID {
				vh.Forget(q)
			}
		case surgetank.CodeOf(err) == surgetank.CodeNotFound:
			if q != nil {
				vh.Forget(q)
			}
		default: // the queue cannot be asked now, and may exist
			w.ch.confirm(w.seq, false)
			return
		}
	}
	if len(left) == 0 {
		if w.mandatory {
			f, _, _ := translate.ReadStored(&m.Message, nil)
			w.ch.returned(string(f.Exchange), m.Message.Key, f.Block, m.Message.Body)
		}
		w.ch.confirm(w.seq, true)
		return
	}
	m.Queues = left
	res, err := s.Broker.Publish(s.Context, []surgetank.Publishing{m})
	w.ch.confirm(w.seq, err == nil && res[0].Err == nil && !w.refused)
}
