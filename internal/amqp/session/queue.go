package session

import (
	"math"
	"strings"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/amqp/topology"
	"github.com/surgetank/surgetank/internal/amqp/translate"
	"github.com/surgetank/surgetank/internal/amqp/wire"
	"github.com/surgetank/surgetank/internal/auth"
	"github.com/surgetank/surgetank/internal/policy"
)

// queueName resolves a queue name. The empty name is the queue that this channel declared last.
func (ch *channel) queueName(name string) (string, error) {
	if name != "" {
		return translate.CleanName(name), nil
	}
	if ch.lastQueue == "" {
		return "", wire.Errorf(wire.CodeNotFound, "no previously declared queue")
	}
	return ch.lastQueue, nil
}

// readable resolves a queue name as queueName does, for a method that needs read on the queue.
func (ch *channel) readable(name string) (string, error) {
	name, err := ch.queueName(name)
	if err != nil {
		return "", err
	}
	return name, ch.c.authorize(auth.Read, "queue", name)
}

// ready returns AMQP's message count: the messages that a consumer could get.
func ready(info surgetank.QueueInfo) uint32 {
	return uint32(min(max(info.Ready+info.Blocked, 0), math.MaxUint32))
}

func (ch *channel) queueDeclare(m *wire.QueueDeclare) error {
	vh := ch.c.vhost()
	name := translate.CleanName(m.Queue)
	if name == translate.ReplyToQueue || strings.HasPrefix(name, translate.ReplyToPrefix) {
		return ch.declareReplyQueue(m, name)
	}
	var q *topology.Queue
	var err error
	if m.Passive {
		q, err = vh.Open(ch.c, name)
	} else {
		q, err = ch.declare(name, m)
		if was := vh.Known(name); err != nil && was != nil && vh.Ghost(was) {
			q, err = ch.declare(name, m)
		}
	}
	if err != nil {
		return err
	}
	q.Touch()
	ch.lastQueue = q.Name
	if m.NoWait {
		return nil
	}
	info, err := ch.c.srv.Broker.Queue(ch.c.ctx, q.Full)
	if surgetank.CodeOf(err) == surgetank.CodeNotFound {
		vh.Forget(q) // another door has deleted it
		if m.Passive {
			return vh.NoQueue(name)
		}
		if q, err = ch.declare(name, m); err != nil {
			return err
		}
		ch.lastQueue = q.Name
		if info, err = ch.c.srv.Broker.Queue(ch.c.ctx, q.Full); surgetank.CodeOf(err) == surgetank.CodeNotFound {
			return vh.NoQueue(name)
		}
	}
	if err != nil {
		return err
	}
	ch.answer(&wire.QueueDeclareOk{Queue: q.Name, MessageCount: ready(info), Consumers: uint32(min(max(info.Consumers, 0), math.MaxUint32))})
	return nil
}

// declare finds the queue or declares it.
func (ch *channel) declare(name string, m *wire.QueueDeclare) (*topology.Queue, error) {
	c := ch.c
	if err := c.authorize(auth.Configure, "queue", name); err != nil {
		return nil, err
	}
	want := translate.QueueAttrs{Durable: m.Durable, Exclusive: m.Exclusive, AutoDelete: m.AutoDelete, Args: m.Arguments}
	q, err := c.vhost().DeclareQueue(name, want, c, func(a translate.QueueAttrs) error { return ch.authorizeDeadLetters(a, name) })
	if err == nil && q.Attrs().Exclusive {
		c.exclusives[q] = struct{}{}
	}
	return q, err
}

// authorizeDeadLetters checks the rights that dead letters use. Without this check, a dead-letter
// exchange could bypass the permissions.
func (ch *channel) authorizeDeadLetters(a translate.QueueAttrs, name string) error {
	if !a.HasDLX {
		return nil
	}
	if err := ch.c.authorize(auth.Read, "queue", name); err != nil {
		return err
	}
	return ch.c.authorize(auth.Write, "exchange", translate.ResourceName(a.DLX))
}

// bound checks that the user may bind a queue to an exchange, or unbind it. It returns the queue's
// name, the exchange's name and the key that the request means.
func (ch *channel) bound(queue, exchange, routingKey string) (name, src, key string, err error) {
	c := ch.c
	if name, err = ch.queueName(queue); err != nil {
		return "", "", "", err
	}
	if key = routingKey; queue == "" && key == "" {
		key = name
	}
	if err := c.authorize(auth.Write, "queue", name); err != nil {
		return "", "", "", err
	}
	src = translate.CleanName(exchange)
	if err := c.authorize(auth.Read, "exchange", translate.ResourceName(src)); err != nil {
		return "", "", "", err
	}
	if src == "" {
		return "", "", "", errDefaultExchange
	}
	return name, src, key, c.authorizeTopic(auth.Read, c.vhost().Exchange(src), key)
}

func (ch *channel) queueBind(m *wire.QueueBind) error {
	c, vh := ch.c, ch.c.vhost()
	name, src, key, err := ch.bound(m.Queue, m.Exchange, m.RoutingKey)
	if err != nil {
		return err
	}
	if err := vh.BindQueue(src, name, c, key, m.Arguments); err != nil {
		return err
	}
	ch.answerUnless(m.NoWait, wire.Bare(wire.IDQueueBindOk))
	return nil
}

func (ch *channel) queueUnbind(m *wire.QueueUnbind) error {
	c, vh := ch.c, ch.c.vhost()
	name, src, key, err := ch.bound(m.Queue, m.Exchange, m.RoutingKey)
	if err != nil {
		return err
	}
	if q := vh.Known(name); q != nil && q.Attrs().Exclusive && q.Owner != c {
		return vh.Locked(name)
	}
	vh.UnbindQueue(src, name, key, m.Arguments)
	ch.answer(wire.Bare(wire.IDQueueUnbindOk))
	return nil
}

func (ch *channel) queuePurge(m *wire.QueuePurge) error {
	c, vh := ch.c, ch.c.vhost()
	name, err := ch.readable(m.Queue)
	if err != nil {
		return err
	}
	q, err := vh.Open(c, name)
	if err != nil {
		return err
	}
	n, err := c.srv.Broker.PurgeQueue(policy.WithOwner(c.srv.Context, c), q.Full)
	if surgetank.CodeOf(err) == surgetank.CodeNotFound {
		vh.Forget(q)
		return vh.NoQueue(name)
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
	q, err := vh.Find(name)
	if err != nil {
		return err
	}
	var n int64
	if q != nil {
		if q.Attrs().Exclusive && q.Owner != c {
			return vh.Locked(name)
		}
		defer c.out.deferCancels()()
		if n, err = vh.DeleteQueueIf(q, surgetank.DeleteOptions{IfUnused: m.IfUnused, IfEmpty: m.IfEmpty}); err != nil {
			return err
		}
		delete(c.exclusives, q)
	}
	ch.answerUnless(m.NoWait, &wire.QueueDeleteOk{MessageCount: uint32(min(n, math.MaxUint32))})
	return nil
}
