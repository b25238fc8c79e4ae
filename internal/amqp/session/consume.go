package session

import (
	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/amqp/topology"
	"github.com/surgetank/surgetank/internal/amqp/translate"
	"github.com/surgetank/surgetank/internal/amqp/wire"
	"github.com/surgetank/surgetank/internal/door"
	"github.com/surgetank/surgetank/internal/tally"
)

// consumer is one basic.consume. After a cancel its subscription stays while deliveries are
// unacknowledged, because the leases of the deliveries end with the subscription.
type consumer struct {
	tag    string
	ch     *channel
	q      *topology.Queue
	sub    door.Subscription
	noAck  bool
	entry  topology.Consumer // the consumer's entry in the queue's list
	manual bool              // credit returns when messages are written, not when they are settled

	// The channel's delivering guards stopped. After it is set, nothing more is delivered.
	stopped bool

	// The outbox's lock guards these fields.
	started bool // consume-ok is in the outbox
	busy    bool // the consumer is in the outbox's list busy

	// The ledger's lock guards these fields.
	leaving     bool // the consumer gets no more credit
	cancelled   bool
	outstanding int
	owed        int // credit to add for written messages
}

// collectOwed returns the credit that can be added now. If it returns any, it sets owed to zero.
// The caller holds the ledger's lock.
func (cons *consumer) collectOwed(maxUnacked int) int {
	if cons.owed == 0 || cons.leaving || !cons.noAck && cons.ch.ledger.unacked.live >= maxUnacked {
		return 0
	}
	n := cons.owed
	cons.owed = 0
	return n
}

// fetch receives some of the messages that wait for the consumer, and enters them in the ledger.
// Their tags begin at first. The caller holds the channel's delivering until the messages are in
// the outbox or the writer's buffer. This keeps them in order.
func (cons *consumer) fetch(buf []surgetank.Delivery) (got []surgetank.Delivery, first uint64, err error) {
	got, err = cons.sub.TryReceive(buf, deliverMax, deliverBytes)
	if len(got) == 0 {
		return got, 0, err
	}
	return got, cons.ch.ledger.enter(cons, got, seconds(cons.ch.c.srv.Clock.Passed())), nil
}

// notify tells the writer that messages wait. The broker calls it on its loop, so it locks only the
// outbox. Before consume-ok is in the outbox, notify does nothing. start then looks for the
// messages that arrived earlier.
func (cons *consumer) notify() {
	o := &cons.ch.c.out
	o.mu.Lock()
	wake := cons.started && o.offer(cons)
	o.mu.Unlock()
	if wake {
		o.wakeWriter()
	}
}

// end stops hand-outs and returns the unacknowledged deliveries to the queue.
func (cons *consumer) end() {
	cons.ch.delivering.Lock()
	cons.stopped = true
	cons.ch.delivering.Unlock()
	if err := cons.sub.Close(); err != nil {
		cons.ch.c.srv.Log.Debug("closing a subscription failed", "queue", cons.q.Name, "err", err)
	}
}

func (ch *channel) qos(m *wire.BasicQos) error {
	if m.PrefetchSize != 0 {
		return wire.Errorf(wire.CodeNotImplemented, "prefetch_size!=0 (%d)", m.PrefetchSize)
	}
	if !m.Global {
		ch.prefetch = int(m.PrefetchCount)
	} else {
		ch.global = int(m.PrefetchCount)
		if cons := ch.ledger.acking(); cons != nil {
			cons.sub.SetPoolLimit(ch.global) // the pool belongs to the channel
		}
	}
	ch.answer(wire.Bare(wire.IDBasicQosOk))
	return nil
}

func (ch *channel) consume(m *wire.BasicConsume) error {
	c, vh := ch.c, ch.c.vhost()
	if m.Queue == translate.ReplyToQueue {
		return ch.consumeReplies(m)
	}
	name, err := ch.readable(m.Queue)
	if err != nil {
		return err
	}
	n, taken := ch.ledger.count(m.ConsumerTag)
	if taken || m.ConsumerTag != "" && ch.reply != nil && ch.reply.tag == m.ConsumerTag {
		return wire.Errorf(wire.CodeNotAllowed, "attempt to reuse consumer tag '%s'", m.ConsumerTag)
	}
	if n >= c.srv.limits.MaxConsumers {
		c.srv.Refused.Add(tally.Consumers)
		return wire.Errorf(wire.CodePreconditionFailed, "the channel has %d consumers already; open another channel", n)
	}
	if all := c.consumers.Load(); all >= int64(c.srv.limits.MaxConnectionConsumers) {
		c.srv.Refused.Add(tally.Consumers)
		return wire.Errorf(wire.CodePreconditionFailed, "the connection has %d consumers already, as many as one may have; cancel some, or open another connection", all)
	}
	q, err := vh.Open(c, name)
	if err != nil {
		return err
	}
	if q.Attrs().Quorum && ch.global > 0 {
		return wire.Errorf(wire.CodeNotImplemented, "%s does not support global qos", translate.DescribeQueue(name, vh.Name))
	}
	opts := door.SubscribeOptions{SubscribeOptions: surgetank.SubscribeOptions{Lease: surgetank.LeaseForever, NoAck: m.NoAck, Exclusive: m.Exclusive, Single: q.Attrs().Single, Name: c.Name + " " + m.ConsumerTag}}
	if v, ok := m.Arguments.Get(translate.ArgPriority); ok {
		p, isInt := v.Int()
		if !isInt {
			return translate.InvalidArg(translate.ArgPriority, translate.DescribeQueue(name, vh.Name), `"expected integer, got %s"`, v.TypeName())
		}
		opts.Priority = int(p)
	}
	if m.ConsumerTag == "" {
		m.ConsumerTag = translate.RandomName("amq.ctag-")
	}
	cons := &consumer{tag: m.ConsumerTag, ch: ch, q: q, noAck: m.NoAck, entry: topology.Consumer{Exclusive: m.Exclusive}}
	opts.Notify = cons.notify
	if err := c.seat.Consumer(); err != nil {
		c.srv.Refused.Refused(err, tally.Consumers)
		return err
	}
	if err := q.Attach(&cons.entry); err != nil {
		c.seat.EndConsumers(1)
		return err
	}
	if err := ch.subscribe(cons, opts); err != nil {
		c.seat.EndConsumers(1)
		q.Detach(&cons.entry)
		switch surgetank.CodeOf(err) {
		case surgetank.CodeExists:
			return q.InExclusiveUse()
		case surgetank.CodeNotFound:
			vh.Forget(q)
			return vh.NoQueue(name)
		}
		return err
	}
	c.consumers.Add(1)
	ch.ledger.add(cons)
	o := &c.out
	o.mu.Lock()
	if !m.NoWait {
		o.method(wire.AppendMethod(o.methods, ch.id, &wire.BasicConsumeOk{ConsumerTag: cons.tag}))
	}
	cons.started = true
	o.offer(cons)
	o.mu.Unlock()
	o.wakeWriter()
	return nil
}

// subscribe attaches a consumer to the broker. The pool's limit is set before credit is added, so
// that credit cannot exceed it.
func (ch *channel) subscribe(cons *consumer, opts door.SubscribeOptions) error {
	credit := ch.prefetch
	if cons.noAck || credit == 0 {
		cons.manual, opts.ManualCredit = true, true
		credit = ch.c.srv.limits.DeliverWindow
		if cons.noAck { // a handed-out message counts as acked, so few should be in transit when the connection breaks
			credit = max(1, credit/8)
		}
	}
	if !cons.noAck {
		opts.Pool = ch.pool
	}
	if opts.Pool == 0 || ch.global == 0 {
		opts.Credit = credit
	}
	var err error
	if cons.sub, err = ch.c.srv.Broker.Attach(ch.c.ctx, cons.q.Full, opts); err != nil {
		return err
	}
	if opts.Pool != 0 && ch.global > 0 {
		cons.sub.SetPoolLimit(ch.global)
		cons.sub.AddCredit(credit)
	}
	return nil
}

// get handles basic.get.
func (ch *channel) get(m *wire.BasicGet) error {
	c, vh := ch.c, ch.c.vhost()
	name, err := ch.readable(m.Queue)
	if err != nil {
		return err
	}
	q, err := vh.Open(c, name)
	if err != nil {
		return err
	}
	// Many of these requests fit into one read, but their bodies do not fit into memory.
	if err := c.waitForRoom(); err != nil {
		return err
	}
	q.Touch()
	got, err := c.srv.Broker.Receive(c.ctx, q.Full, surgetank.ReceiveOptions{Max: 1, Lease: surgetank.LeaseForever, NoAck: m.NoAck, Name: c.Name})
	if surgetank.CodeOf(err) == surgetank.CodeNotFound {
		vh.Forget(q)
		return vh.NoQueue(name)
	}
	if err != nil {
		return err
	}
	if len(got) == 0 {
		ch.answer(&wire.BasicGetEmpty{})
		return nil
	}
	info, err := c.srv.Broker.Queue(c.ctx, q.Full)
	if err != nil && surgetank.CodeOf(err) != surgetank.CodeNotFound {
		return err
	}
	d := &got[0]
	exchange, key, block, _ := translate.Outgoing(d, q.Attrs().Quorum, nil)
	frames := c.frames(ch.id, block, d.Body)
	ch.delivering.Lock()
	tag := ch.ledger.enterOne(d, q, seconds(c.srv.Clock.Passed()), m.NoAck)
	o := &c.out
	o.mu.Lock()
	o.content(wire.AppendMethod(o.methods, ch.id, &wire.BasicGetOk{DeliveryTag: tag, Redelivered: d.Redelivered, Exchange: string(exchange),
		RoutingKey: key, MessageCount: ready(info)}), frames)
	o.mu.Unlock()
	ch.delivering.Unlock()
	o.wakeWriter()
	return nil
}
