package amqp

import (
	"math"
	"strings"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/amqp/wire"
	"github.com/surgetank/surgetank/internal/auth"
	"github.com/surgetank/surgetank/internal/policy"
)

// queueName resolves the empty name that stands for the queue this channel declared last.
func (ch *channel) queueName(name string) (string, error) {
	if name != "" {
		return cleanName(name), nil
	}
	if ch.lastQueue == "" {
		return "", wire.Errorf(wire.CodeNotFound, "no previously declared queue")
	}
	return ch.lastQueue, nil
}

// open finds a queue that the connection may use.
func (vh *vhost) open(c *conn, name string) (*queue, error) {
	q, err := vh.find(name)
	if err != nil {
		return nil, err
	}
	if q == nil {
		return nil, vh.noQueue(name)
	}
	if q.attrs().exclusive && q.owner != c {
		return nil, vh.locked(name)
	}
	return q, nil
}

// touch notes a use, for x-expires.
func (q *queue) touch() {
	if q.attrs().expires > 0 {
		q.vh.mu.Lock()
		q.lastUse = q.vh.srv.clock.Passed()
		q.vh.mu.Unlock()
	}
}

// ready is the number of messages that AMQP counts: those that a consumer could get.
func ready(info surgetank.QueueInfo) uint32 {
	return uint32(min(max(info.Ready+info.Blocked, 0), math.MaxUint32))
}

func (ch *channel) queueDeclare(m *wire.QueueDeclare) error {
	vh := ch.c.vhost()
	name := cleanName(m.Queue)
	if name == replyToQueue || strings.HasPrefix(name, replyToPrefix) {
		return ch.declareReplyQueue(m, name)
	}
	var q *queue
	var err error
	if m.Passive {
		q, err = vh.open(ch.c, name)
	} else {
		q, err = ch.declare(name, m)
		if was := vh.known(name); err != nil && was != nil && vh.ghost(was) {
			q, err = ch.declare(name, m)
		}
	}
	if err != nil {
		return err
	}
	q.touch()
	ch.lastQueue = q.name
	if m.NoWait {
		return nil
	}
	info, err := ch.c.srv.broker.Queue(ch.c.ctx, q.full)
	if surgetank.CodeOf(err) == surgetank.CodeNotFound {
		vh.forget(q) // another door has deleted it
		if m.Passive {
			return vh.noQueue(name)
		}
		if q, err = ch.declare(name, m); err != nil {
			return err
		}
		ch.lastQueue = q.name
		if info, err = ch.c.srv.broker.Queue(ch.c.ctx, q.full); surgetank.CodeOf(err) == surgetank.CodeNotFound {
			return vh.noQueue(name)
		}
	}
	if err != nil {
		return err
	}
	ch.answer(&wire.QueueDeclareOk{Queue: q.name, MessageCount: ready(info), Consumers: uint32(min(max(info.Consumers, 0), math.MaxUint32))})
	return nil
}

// declare finds the queue or makes it.
func (ch *channel) declare(name string, m *wire.QueueDeclare) (*queue, error) {
	c, vh := ch.c, ch.c.vhost()
	if err := c.authorize(auth.Configure, "queue", name); err != nil {
		return nil, err
	}
	want := queueAttrs{durable: m.Durable, exclusive: m.Exclusive, autoDelete: m.AutoDelete, args: m.Arguments}
	generated := name == ""
	if generated {
		name = randomName("amq.gen-")
	}
	defer vh.lock(queueStripe(name))()
	if !generated {
		q, err := vh.find(name)
		if err != nil {
			return nil, err
		}
		if q != nil {
			return ch.redeclare(q, want)
		}
		if strings.HasPrefix(name, reservedPrefix) {
			return nil, wire.Errorf(wire.CodeAccessRefused, "queue name '%s' contains reserved prefix 'amq.*'", name)
		}
	}
	a, err := parseQueueArgs(want, describeQueue(name, vh.name))
	if err != nil {
		return nil, err
	}
	if generated && a.quorum {
		return nil, wire.Errorf(wire.CodePreconditionFailed, "Cannot declare a server-named queue for type rabbit_quorum_queue")
	}
	resource := name
	if generated {
		resource = ""
	}
	if err := ch.authorizeDeadLetters(a, resource); err != nil {
		return nil, err
	}
	return ch.newQueue(name, a)
}

// authorizeDeadLetters: whoever names a dead-letter exchange could otherwise read and write past the permissions.
func (ch *channel) authorizeDeadLetters(a queueAttrs, name string) error {
	if !a.hasDLX {
		return nil
	}
	if err := ch.c.authorize(auth.Read, "queue", name); err != nil {
		return err
	}
	return ch.c.authorize(auth.Write, "exchange", resourceName(a.dlx))
}

// redeclare checks a declaration of a queue that exists.
func (ch *channel) redeclare(q *queue, want queueAttrs) (*queue, error) {
	vh, where := q.vh, describeQueue(q.name, q.vh.name)
	if q.attrs().exclusive != want.exclusive && !q.attrs().foreign || q.attrs().exclusive && q.owner != ch.c {
		return nil, vh.locked(q.name)
	}
	if !q.attrs().foreign {
		return q, equivalentQueue(*q.own(), want, where)
	}
	// Another door's queue, or one of this door whose record a crash took: if it is exactly what this declaration
	// would make, it is that.
	a, err := parseQueueArgs(want, where)
	if err == nil && (len(a.args) > 0 || a.autoDelete) {
		info, err := vh.srv.broker.Queue(vh.srv.ctx, q.full)
		if err == nil && info.Declared().WithDefaults() == queueConfig(vh.name, a).WithDefaults() {
			return q, vh.own(q, a)
		}
	}
	return q, compatibleQueue(*q.own(), want, where)
}

// ghost tells whether another door has deleted a queue that this one still knows, and forgets it then. The caller holds no stripe.
func (vh *vhost) ghost(q *queue) bool {
	info, err := vh.srv.broker.Queue(vh.srv.ctx, q.full)
	if surgetank.CodeOf(err) == surgetank.CodeNotFound || err == nil && info.ID != q.id {
		vh.forget(q)
		return true
	}
	return false
}

// own makes a queue this door's, with these settings.
func (vh *vhost) own(q *queue, a queueAttrs) error {
	n := vh.newQueue(q.name, q.id, a)
	if a.durable && !a.exclusive && (len(a.args) > 0 || a.autoDelete) {
		if err := vh.saveQueue(n); err != nil {
			return err
		}
	}
	if a.quorum {
		if err := vh.srv.policies.MakeQuorum(vh.srv.ctx, q.full); err != nil {
			return err
		}
	}
	vh.mu.Lock()
	q.give(&a)
	vh.changed()
	vh.mu.Unlock()
	return nil
}

// newQueue makes a queue; the caller holds its stripe.
func (ch *channel) newQueue(name string, a queueAttrs) (*queue, error) {
	c, vh := ch.c, ch.c.vhost()
	// The name alone is checked: a full name in it would lead into another virtual host.
	if err := surgetank.ValidateName("queue", name); err != nil {
		return nil, err
	}
	full := surgetank.FullName(vh.name, name)
	vh.srv.policies.SetQuorum(full, a.quorum)
	if inForce := vh.under(name, a); inForce.hasDLX || inForce.overflow == overflowRejectDLX {
		if err := vh.startDeadLetters(); err != nil {
			return nil, err
		}
	}
	ctx := policy.WithOwner(c.srv.ctx, c)
	var info surgetank.QueueInfo
	var created bool
	var err error
	if a.exclusive {
		info, created, err = c.srv.policies.DeclareExclusive(ctx, full, queueConfig(vh.name, a))
	} else {
		info, created, err = c.srv.broker.DeclareQueue(ctx, full, queueConfig(vh.name, a), surgetank.DeclareIfAbsent)
	}
	if err != nil {
		return nil, err
	}
	if !created { // another door was faster
		vh.srv.policies.SetQuorum(full, false)
		return ch.redeclare(vh.adopt(info), a)
	}
	q := vh.newQueue(name, info.ID, a)
	if a.durable && !a.exclusive && (len(a.args) > 0 || a.autoDelete) {
		if err := vh.saveQueue(q); err != nil {
			if _, err := c.srv.broker.DeleteQueue(c.srv.ctx, full, surgetank.DeleteOptions{IfEmpty: true}); err != nil {
				c.srv.log.Warn("a queue whose settings could not be saved was left behind", "queue", name, "vhost", vh.name, "err", err)
			}
			return nil, err
		}
	}
	vh.mu.Lock()
	gone := vh.gone
	if !gone {
		if a.exclusive {
			q.owner = c
		}
		q.give(&a) // again: policies may have changed since
		vh.queues[name] = q
		delete(vh.retired, full)
		vh.changed()
	}
	vh.mu.Unlock()
	if gone {
		if _, err := c.srv.broker.DeleteQueue(ctx, full, surgetank.DeleteOptions{}); err != nil {
			c.srv.log.Warn("a queue of a deleted virtual host was left behind", "queue", name, "vhost", vh.name, "err", err)
		}
		return nil, wire.Errorf(wire.CodeNotFound, "vhost '%s' is down", vh.name)
	}
	if a.exclusive {
		c.exclusives[q] = struct{}{}
	}
	return q, nil
}

func (ch *channel) queueBind(m *wire.QueueBind) error {
	c, vh := ch.c, ch.c.vhost()
	name, err := ch.queueName(m.Queue)
	if err != nil {
		return err
	}
	key := m.RoutingKey
	if m.Queue == "" && key == "" {
		key = name
	}
	src := cleanName(m.Exchange)
	if err := c.authorize(auth.Write, "queue", name); err != nil {
		return err
	}
	if err := c.authorize(auth.Read, "exchange", resourceName(src)); err != nil {
		return err
	}
	if src == "" {
		return errDefaultExchange
	}
	if err := c.authorizeTopic(auth.Read, vh.exchange(src), key); err != nil {
		return err
	}
	b := &binding{id: bindingID(vh.name, src, "queue", name, key, m.Arguments), key: key, args: m.Arguments}
	unlock := vh.lock(exchangeStripe(src), queueStripe(name), b.id)
	defer unlock()
	if b.queue, err = vh.open(c, name); err != nil {
		return err
	}
	if err := vh.bind(b, src); err != nil {
		return err
	}
	ch.answerUnless(m.NoWait, wire.Bare(wire.IDQueueBindOk))
	return nil
}

func (ch *channel) queueUnbind(m *wire.QueueUnbind) error {
	c, vh := ch.c, ch.c.vhost()
	name, err := ch.queueName(m.Queue)
	if err != nil {
		return err
	}
	key := m.RoutingKey
	if m.Queue == "" && key == "" {
		key = name
	}
	src := cleanName(m.Exchange)
	if err := c.authorize(auth.Write, "queue", name); err != nil {
		return err
	}
	if err := c.authorize(auth.Read, "exchange", resourceName(src)); err != nil {
		return err
	}
	if src == "" {
		return errDefaultExchange
	}
	if err := c.authorizeTopic(auth.Read, vh.exchange(src), key); err != nil {
		return err
	}
	if q := vh.known(name); q != nil && q.attrs().exclusive && q.owner != c {
		return vh.locked(name)
	}
	vh.unbind(src, bindingID(vh.name, src, "queue", name, key, m.Arguments))
	ch.answer(wire.Bare(wire.IDQueueUnbindOk))
	return nil
}

func (ch *channel) queuePurge(m *wire.QueuePurge) error {
	c, vh := ch.c, ch.c.vhost()
	name, err := ch.queueName(m.Queue)
	if err != nil {
		return err
	}
	if err := c.authorize(auth.Read, "queue", name); err != nil {
		return err
	}
	q, err := vh.open(c, name)
	if err != nil {
		return err
	}
	n, err := c.srv.broker.PurgeQueue(policy.WithOwner(c.srv.ctx, c), q.full)
	if surgetank.CodeOf(err) == surgetank.CodeNotFound {
		vh.forget(q)
		return vh.noQueue(name)
	}
	if err != nil {
		return err
	}
	ch.answerUnless(m.NoWait, &wire.QueuePurgeOk{MessageCount: uint32(min(n, math.MaxUint32))})
	return nil
}

func (ch *channel) queueDelete(m *wire.QueueDelete) error {
	c, vh := ch.c, ch.c.vhost()
	name, err := ch.queueName(m.Queue)
	if err != nil {
		return err
	}
	if err := c.authorize(auth.Configure, "queue", name); err != nil {
		return err
	}
	q, err := vh.find(name)
	if err != nil {
		return err
	}
	var n int64
	if q != nil {
		if q.attrs().exclusive && q.owner != c {
			return vh.locked(name)
		}
		defer c.out.deferCancels()()
		if n, err = vh.deleteQueueIf(q, surgetank.DeleteOptions{IfUnused: m.IfUnused, IfEmpty: m.IfEmpty}); err != nil {
			return err
		}
		delete(c.exclusives, q)
	}
	ch.answerUnless(m.NoWait, &wire.QueueDeleteOk{MessageCount: uint32(min(n, math.MaxUint32))})
	return nil
}

// deleteQueueIf deletes a queue under conditions, and gives the number of messages it held ready.
func (vh *vhost) deleteQueueIf(q *queue, opts surgetank.DeleteOptions) (int64, error) {
	unlock := vh.lock(queueStripe(q.name))
	vh.mu.RLock()
	used, gone := len(q.consumers) > 0, q.gone
	vh.mu.RUnlock()
	if gone {
		unlock()
		return 0, nil
	}
	where := describeQueue(q.name, vh.name)
	if opts.IfUnused && used {
		unlock()
		return 0, wire.Errorf(wire.CodePreconditionFailed, "%s in use", where)
	}
	ctx := vh.srv.ctx
	if q.owner != nil {
		ctx = policy.WithOwner(ctx, q.owner)
	}
	n, err := vh.srv.broker.DeleteQueue(ctx, q.full, opts)
	switch surgetank.CodeOf(err) {
	case "", surgetank.CodeNotFound:
	case surgetank.CodeExists:
		unlock()
		if info, ierr := vh.srv.broker.Queue(vh.srv.ctx, q.full); opts.IfEmpty && (ierr != nil || info.Consumers == 0 || !opts.IfUnused) {
			return 0, wire.Errorf(wire.CodePreconditionFailed, "%s not empty", where)
		}
		return 0, wire.Errorf(wire.CodePreconditionFailed, "%s in use", where)
	default:
		unlock()
		return 0, err
	}
	var t trash
	vh.mu.Lock()
	vh.removeQueue(q, &t)
	vh.mu.Unlock()
	unlock()
	vh.sweep(t)
	return n, nil
}

// deleteQueue deletes a queue whatever it holds.
func (vh *vhost) deleteQueue(q *queue) error {
	_, err := vh.deleteQueueIf(q, surgetank.DeleteOptions{})
	return err
}
