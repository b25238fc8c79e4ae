package session

import (
	"errors"
	"sync"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/amqp/topology"
	"github.com/surgetank/surgetank/internal/amqp/translate"
	"github.com/surgetank/surgetank/internal/amqp/wire"
	"github.com/surgetank/surgetank/internal/auth"
	"github.com/surgetank/surgetank/internal/door"
	"github.com/surgetank/surgetank/internal/tally"
)

// channel is one channel. The reader owns every field whose comment names no other owner.
type channel struct {
	c  *Conn
	id uint16

	closing   bool // the server has sent channel.close; it discards everything until close-ok
	lastQueue string
	prefetch  int    // limit for each new consumer; 0: no limit
	global    int    // limit for the whole channel; 0: no limit
	pool      uint64 // the broker's number of the pool whose limit is global
	mode      mode
	published bool   // the channel published a message outside of a transaction
	seq       uint64 // number of the last publish since confirm.select
	tx        *transaction
	assembly  assembly
	last      lastContent
	lingering map[*consumer]struct{} // cancelled consumers with unacknowledged deliveries
	due       []*consumer            // consumers for which follow has work
	reply     *replyConsumer
	settled   bool   // some deliveries were settled without waiting for the broker
	phases    phases // of the settled messages' shards

	ledger ledger // shared; its own lock guards it

	// delivering keeps the tags of a channel in order. A goroutine locks it before it fetches
	// messages, and unlocks it when they are in the outbox or the writer's buffer. It is locked
	// before ledger.mu and outbox.mu.
	delivering sync.Mutex

	// The outbox's lock guards closed.
	closed   bool
	confirms confirms
}

// mode says how a channel answers publishes. It changes at most once, from plain to another mode.
type mode uint8

const (
	plain mode = iota
	confirming
	transactional
)

// frame handles one frame of an open connection.
func (c *Conn) frame(f wire.Frame) error {
	if f.Type == wire.FrameHeartbeat {
		return nil
	}
	if f.Channel == 0 {
		return c.control(f)
	}
	ch := c.channels.byID[f.Channel]
	if ch == nil {
		return c.openChannel(f)
	}
	if ch.closing {
		return ch.discard(f)
	}
	var id wire.MethodID
	var err error
	switch f.Type {
	case wire.FrameMethod:
		if id, err = wire.MethodIDOf(f.Payload); err == nil {
			err = ch.method(id, f.Payload)
		}
	case wire.FrameHeader:
		id = wire.IDBasicPublish
		err = ch.header(f.Payload)
	default:
		id = wire.IDBasicPublish
		err = ch.body(f.Payload)
	}
	if err == nil {
		return nil
	}
	return ch.failed(err, id)
}

// failed ends the channel, or returns the error that ends the connection.
func (ch *channel) failed(err error, id wire.MethodID) error {
	if f, ok := err.(*failure); ok {
		return f
	}
	if err == errClientClosed {
		return err
	}
	w := translate.ToWire(err)
	if w.Code.Connection() {
		return &failure{w, id}
	}
	if err := ch.c.flush(); err != nil {
		return err
	}
	ch.c.srv.Log.Info("AMQP channel closed with an error", "peer", ch.c.Name, "channel", ch.id, "err", w.Text)
	ch.shut()
	ch.closing = true
	ch.c.out.send(ch.id, &wire.ChannelClose{Closing: wire.Closing{ReplyCode: w.Code, ReplyText: w.Text, Class: id.Class(), Method: id.Method()}})
	return nil
}

// discard drops a frame for a channel that the server has closed.
func (ch *channel) discard(f wire.Frame) error {
	if f.Type != wire.FrameMethod {
		return nil
	}
	switch id, _ := wire.MethodIDOf(f.Payload); id {
	case wire.IDChannelCloseOk:
		ch.c.removeChannel(ch)
	case wire.IDChannelClose: // the two closes crossed; some clients never answer the server's
		ch.c.removeChannel(ch)
		ch.c.out.send(ch.id, wire.Bare(wire.IDChannelCloseOk))
	}
	return nil
}

func (c *Conn) removeChannel(ch *channel) {
	if c.channels.byID[ch.id] != ch {
		return
	}
	c.channels.remove(ch)
	c.seat.EndChannel()
}

// openChannel handles the first frame on a channel that is not open.
func (c *Conn) openChannel(f wire.Frame) error {
	id, err := wire.MethodIDOf(f.Payload)
	if f.Type != wire.FrameMethod {
		return &failure{wire.Errorf(wire.CodeChannelError, "expected 'channel.open'"), 0}
	}
	if err != nil {
		return err
	}
	if id == wire.IDChannelCloseOk {
		return nil // the client's answer to a server's close that crossed its own
	}
	m, err := wire.ParseMethod(f.Payload)
	if err != nil {
		return err
	}
	if _, ok := m.(*wire.ChannelOpen); !ok {
		if id.Class() == wire.ClassConnection {
			return &failure{wire.Errorf(wire.CodeCommandInvalid, "unimplemented method"), id}
		}
		return &failure{wire.Errorf(wire.CodeChannelError, "expected 'channel.open'"), id}
	}
	if f.Channel > c.tuned.ChannelMax {
		c.srv.Refused.Add(tally.Channels)
		return &failure{wire.Errorf(wire.CodeChannelError, "channel %d is above the negotiated channel_max (%d)", f.Channel, c.tuned.ChannelMax), id}
	}
	if n := len(c.channels.byID); n >= int(c.tuned.ChannelMax) {
		c.srv.Refused.Add(tally.Channels)
		return &failure{wire.Errorf(wire.CodeNotAllowed, "number of channels opened (%d) has reached the negotiated channel_max (%d)",
			n, c.tuned.ChannelMax), 0}
	}
	if err := c.seat.Channel(); err != nil {
		var l *auth.LimitError
		if !errors.As(err, &l) {
			return err
		}
		c.srv.Refused.Refused(err, tally.Channels)
		return &failure{wire.Errorf(wire.CodeNotAllowed, "number of channels opened for user '%s' has reached the maximum allowed user limit of (%d)",
			c.user().Name, l.Limit), 0}
	}
	ch := &channel{c: c, id: f.Channel, pool: door.NewPool(), lingering: map[*consumer]struct{}{},
		ledger: ledger{nextTag: 1, consumers: map[string]*consumer{}, left: c.consumersLeft}}
	c.channels.add(ch)
	c.out.send(ch.id, &wire.ChannelOpenOk{})
	return nil
}

// control handles a frame on channel 0 of an open connection.
func (c *Conn) control(f wire.Frame) error {
	if f.Type != wire.FrameMethod {
		return &failure{wire.Errorf(wire.CodeUnexpectedFrame, "expected method frame, got non method frame instead"), 0}
	}
	m, err := wire.ParseMethod(f.Payload)
	if err != nil {
		return err
	}
	switch m.(type) {
	case *wire.ConnectionClose:
		if err := c.flush(); err != nil {
			return err
		}
		return errClientClosed
	case *wire.ConnectionUpdateSecret:
		// The secret is checked only at login, so a new secret changes nothing here. The server
		// accepts it, as RabbitMQ does for users with passwords.
		c.out.send(0, wire.Bare(wire.IDConnectionUpdateSecretOk))
		return nil
	}
	if m.ID().Class() == wire.ClassConnection && m.ID() == wire.IDConnectionCloseOk {
		return nil // a late close-ok, for which the server no longer waits
	}
	return &failure{wire.Errorf(wire.CodeChannelError, "unexpected method in connection state running"), m.ID()}
}

// method handles one method of an open channel.
func (ch *channel) method(id wire.MethodID, payload []byte) error {
	if ch.assembly.active {
		return ch.assembly.interrupted()
	}
	switch id {
	case wire.IDBasicPublish:
		return ch.beginPublish(payload)
	case wire.IDBasicAck, wire.IDBasicNack, wire.IDBasicReject:
		s, err := wire.ParseSettle(id, payload)
		if err != nil {
			return err
		}
		return ch.settle(s)
	}
	m, err := wire.ParseMethod(payload)
	if err != nil {
		return err
	}
	if id.Class() == wire.ClassConnection {
		return wire.Errorf(wire.CodeCommandInvalid, "unimplemented method")
	}
	// All other methods must see the effects of the methods before them.
	if err := ch.c.flush(); err != nil {
		return err
	}
	switch m := m.(type) {
	case *wire.ChannelOpen:
		return wire.Errorf(wire.CodeChannelError, "second 'channel.open' seen")
	case *wire.ChannelClose:
		ch.shut()
		if ch.lostSettlements() {
			ch.closing = true
			ch.c.out.send(ch.id, &wire.ChannelClose{Closing: wire.Closing{ReplyCode: wire.CodePreconditionFailed, ReplyText: lostText, Class: id.Class(), Method: id.Method()}})
			return nil
		}
		ch.c.removeChannel(ch)
		ch.c.out.send(ch.id, wire.Bare(wire.IDChannelCloseOk))
		return nil
	case *wire.ChannelFlow:
		if !m.Active {
			return wire.Errorf(wire.CodeNotImplemented, "active=false")
		}
		ch.answer(&wire.ChannelFlowOk{Active: true})
		return nil
	case *wire.AccessRequest:
		ch.answer(&wire.AccessRequestOk{Ticket: 1})
		return nil
	case *wire.ExchangeDeclare:
		return ch.exchangeDeclare(m)
	case *wire.ExchangeDelete:
		return ch.exchangeDelete(m)
	case *wire.ExchangeBind:
		return ch.exchangeBind(m)
	case *wire.ExchangeUnbind:
		return ch.exchangeUnbind(m)
	case *wire.QueueDeclare:
		return ch.queueDeclare(m)
	case *wire.QueueBind:
		return ch.queueBind(m)
	case *wire.QueueUnbind:
		return ch.queueUnbind(m)
	case *wire.QueuePurge:
		return ch.queuePurge(m)
	case *wire.QueueDelete:
		return ch.queueDelete(m)
	case *wire.BasicQos:
		return ch.qos(m)
	case *wire.BasicConsume:
		return ch.consume(m)
	case *wire.BasicCancel:
		return ch.cancel(m)
	case *wire.BasicGet:
		return ch.get(m)
	case *wire.BasicRecover:
		if err := ch.recover(m.Requeue); err != nil {
			return err
		}
		ch.answer(wire.Bare(wire.IDBasicRecoverOk))
		return nil
	case *wire.BasicRecoverAsync:
		return ch.recover(m.Requeue)
	case *wire.ConfirmSelect:
		return ch.confirmSelect(m)
	case wire.Bare:
		return ch.bare(id)
	}
	return wire.Errorf(wire.CodeCommandInvalid, "method %d of class %d is not for servers", id.Method(), id.Class())
}

// bare handles methods without arguments.
func (ch *channel) bare(id wire.MethodID) error {
	switch id {
	case wire.IDTxSelect:
		return ch.txSelect()
	case wire.IDTxCommit:
		return ch.txCommit()
	case wire.IDTxRollback:
		return ch.txRollback()
	case wire.IDChannelCloseOk, wire.IDChannelFlowOk:
		return nil
	}
	return wire.Errorf(wire.CodeCommandInvalid, "method %d of class %d is not for servers", id.Method(), id.Class())
}

// answer sends a reply.
func (ch *channel) answer(m wire.Method) { ch.c.out.send(ch.id, m) }

// answerUnless sends a reply unless the client asked for none.
func (ch *channel) answerUnless(nowait bool, m wire.Method) {
	if !nowait {
		ch.answer(m)
	}
}

// shut ends the channel's consumers, returns its unacknowledged deliveries, and drops an unfinished
// message.
func (ch *channel) shut() {
	c := ch.c
	ch.drop()
	ch.dropReplyConsumer()
	c.out.close(ch)
	consumers, left := ch.ledger.clear()
	var back []surgetank.Settlement
	giveBack := func(u unacked) {
		if u.cons == nil || u.cons.cancelled { // the other deliveries return to their queues when their subscriptions end
			back = append(back, surgetank.Settlement{Receipt: u.receipt, Op: surgetank.Nack})
		}
	}
	for _, u := range left {
		giveBack(u)
	}
	if ch.tx != nil {
		for _, u := range ch.tx.removed {
			giveBack(u)
		}
		ch.tx.free()
		ch.tx = nil
	}
	for cons := range ch.lingering {
		consumers = append(consumers, cons)
	}
	clear(ch.lingering)
	// Ending a consumer waits for the broker's log. All consumers end in parallel.
	var ends sync.WaitGroup
	slots := make(chan struct{}, 64)
	for _, cons := range consumers {
		slots <- struct{}{}
		ends.Go(func() {
			cons.end()
			cons.q.Detach(&cons.entry)
			<-slots
		})
	}
	ends.Wait()
	if len(back) > 0 || ch.settled {
		// This also makes all earlier settlements durable. The close-ok is AMQP's only answer to
		// acks.
		c.srv.settleAll(back)
	}
}

// cleanup ends everything that belongs to the connection, before the client can know that the
// connection has ended.
func (c *Conn) cleanup() {
	c.out.end()
	channels := c.channels.list()
	for _, ch := range channels { // first free the shares of the budget, for which other connections can wait
		ch.drop()
		if ch.tx != nil {
			ch.tx.free()
		}
	}
	c.passed()
	for _, ch := range channels {
		ch.shut()
	}
	for q := range c.exclusives {
		if err := q.Vhost.DeleteQueue(q); err != nil {
			c.srv.Log.Warn("an exclusive queue could not be deleted", "queue", q.Name, "vhost", q.Vhost.Name, "err", err)
		}
	}
	if len(c.exclusives) > 0 {
		c.srv.Policies.Release(c) // queues that could not be deleted have no owner from now on
	}
	clear(c.exclusives)
}

// authorizeTopic checks the user's topic permissions for keys, if x is a topic exchange. The caller
// has checked the permission for x itself.
func (c *Conn) authorizeTopic(op auth.Op, x *topology.Exchange, keys ...string) error {
	if x == nil || x.By != topology.KindTopic {
		return nil
	}
	for _, k := range keys {
		if c.srv.Auth.Authorize(c.user(), c.vhost().Name, op, x.Name, k) != nil {
			return wire.Errorf(wire.CodeAccessRefused, "access to topic '%s' in %s refused for user '%s'", k, translate.DescribeExchange(x.Name, c.vhost().Name), c.user().Name)
		}
	}
	return nil
}

// authorize checks whether the user may do op to a queue or exchange.
func (c *Conn) authorize(op auth.Op, kind, name string) error {
	err := c.srv.Auth.Authorize(c.user(), c.vhost().Name, op, name)
	if err == nil {
		return nil
	}
	return wire.Errorf(wire.CodeAccessRefused, "access to %s '%s' in vhost '%s' refused for user '%s'", kind, name, c.vhost().Name, c.user().Name)
}
