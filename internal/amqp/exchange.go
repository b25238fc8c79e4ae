package amqp

import (
	"crypto/rand"
	"encoding/binary"
	"strings"

	"github.com/surgetank/surgetank/internal/amqp/wire"
	"github.com/surgetank/surgetank/internal/auth"
	"github.com/surgetank/surgetank/internal/tally"
)

func (ch *channel) exchangeDeclare(m *wire.ExchangeDeclare) error {
	c, vh := ch.c, ch.c.vhost()
	name := cleanName(m.Exchange)
	if m.Passive {
		if name == "" {
			return errDefaultExchange
		}
		if vh.exchange(name) == nil {
			return vh.noExchange(name)
		}
		ch.answerUnless(m.NoWait, wire.Bare(wire.IDExchangeDeclareOk))
		return nil
	}
	if !routingKind(m.Type) && m.Type != kindDelayed {
		return wire.Errorf(wire.CodeCommandInvalid, "unknown exchange type '%s'", m.Type)
	}
	if name == "" {
		return errDefaultExchange
	}
	if err := c.authorize(auth.Configure, "exchange", name); err != nil {
		return err
	}
	defer vh.lock(exchangeStripe(name))()
	if x := vh.exchange(name); x != nil {
		if err := vh.equivalentExchange(x, m); err != nil {
			return err
		}
	} else if err := ch.newExchange(name, m); err != nil {
		return err
	}
	ch.answerUnless(m.NoWait, wire.Bare(wire.IDExchangeDeclareOk))
	return nil
}

// routingKind tells of the types that say how messages are routed.
func routingKind(kind string) bool {
	switch kind {
	case kindDirect, kindFanout, kindTopic, kindHeaders, kindHash, kindRandom, kindLocalRandom:
		return true
	}
	return false
}

func (vh *vhost) equivalentExchange(x *exchange, m *wire.ExchangeDeclare) error {
	where := describeExchange(x.name, vh.name)
	if x.kind != m.Type {
		return inequivalent("type", where, "'"+m.Type+"'", "'"+x.kind+"'")
	}
	for _, f := range []struct {
		name      string
		now, want bool
	}{{"durable", x.durable, m.Durable}, {"auto_delete", x.autoDelete, m.AutoDelete}, {"internal", x.internal, m.Internal}} {
		if err := sameFlag(f.name, where, f.now, f.want); err != nil {
			return err
		}
	}
	return sameArg(argAlternate, where, x.args, m.Arguments)
}

// newExchange makes an exchange; the caller holds its stripe.
func (ch *channel) newExchange(name string, m *wire.ExchangeDeclare) error {
	c, vh := ch.c, ch.c.vhost()
	if strings.HasPrefix(name, reservedPrefix) {
		return wire.Errorf(wire.CodeAccessRefused, "exchange name '%s' contains reserved prefix 'amq.*'", name)
	}
	if v, _ := m.Arguments.Get(argDelayedType); m.Type == kindDelayed && !routingKind(string(v.Data)) {
		return wire.Errorf(wire.CodePreconditionFailed, "Invalid argument, 'x-delayed-type' must be an existing exchange type")
	}
	if v, ok := m.Arguments.Get(argAlternate); ok {
		alt, isStr := v.Str()
		if !isStr || len(alt) > 255 {
			return wire.Errorf(wire.CodePreconditionFailed, "invalid type '%s' for arg '%s' in %s", v.TypeName(), argAlternate, describeExchange(name, vh.name))
		}
		if err := c.authorize(auth.Read, "exchange", name); err != nil {
			return err
		}
		if err := c.authorize(auth.Write, "exchange", resourceName(string(alt))); err != nil {
			return err
		}
	}
	if _, err := parseHashOn(m.Arguments, describeExchange(name, vh.name)); m.Type == kindHash && err != nil {
		return err
	}
	vh.mu.RLock()
	n := len(vh.exchanges)
	vh.mu.RUnlock()
	if n >= c.srv.limits.MaxExchanges {
		c.srv.refused.Add(tally.Routing)
		return wire.Errorf(wire.CodePreconditionFailed, "vhost '%s' has %d exchanges, which is its limit", vh.name, n)
	}
	x := newExchange(name, m.Type, m.Durable, m.AutoDelete, m.Internal, m.Arguments)
	var id [8]byte
	rand.Read(id[:])
	x.id = binary.BigEndian.Uint64(id[:]) | 1
	if x.durable {
		if err := vh.saveExchange(x); err != nil {
			return err
		}
	}
	vh.mu.Lock()
	defer vh.mu.Unlock()
	if vh.gone {
		return wire.Errorf(wire.CodeNotFound, "vhost '%s' is down", vh.name)
	}
	vh.addExchange(x)
	return nil
}

func (ch *channel) exchangeDelete(m *wire.ExchangeDelete) error {
	c, vh := ch.c, ch.c.vhost()
	name := cleanName(m.Exchange)
	if name == "" {
		return errDefaultExchange
	}
	if strings.HasPrefix(name, reservedPrefix) {
		return wire.Errorf(wire.CodeAccessRefused, "deletion of system %s not allowed", describeExchange(name, vh.name))
	}
	if err := c.authorize(auth.Configure, "exchange", name); err != nil {
		return err
	}
	unlock := vh.lock(exchangeStripe(name))
	var t trash
	vh.mu.Lock()
	x := vh.exchanges[name]
	inUse := x != nil && m.IfUnused && len(x.bindings) > 0
	if x != nil && !inUse {
		vh.removeExchange(x, &t)
	}
	vh.mu.Unlock()
	unlock()
	if inUse {
		return wire.Errorf(wire.CodePreconditionFailed, "%s in use", describeExchange(name, vh.name))
	}
	vh.sweep(t)
	ch.answerUnless(m.NoWait, wire.Bare(wire.IDExchangeDeleteOk))
	return nil
}

func (ch *channel) exchangeBind(m *wire.ExchangeBind) error {
	c, vh := ch.c, ch.c.vhost()
	src, dst := cleanName(m.Source), cleanName(m.Destination)
	if src == "" || dst == "" {
		return errDefaultExchange
	}
	if err := c.authorize(auth.Write, "exchange", dst); err != nil {
		return err
	}
	if err := c.authorize(auth.Read, "exchange", src); err != nil {
		return err
	}
	if err := c.authorizeTopic(auth.Read, vh.exchange(src), m.RoutingKey); err != nil {
		return err
	}
	b := &binding{id: bindingID(vh.name, src, "exchange", dst, m.RoutingKey, m.Arguments), key: m.RoutingKey, args: m.Arguments}
	unlock := vh.lock(exchangeStripe(src), exchangeStripe(dst), b.id)
	defer unlock()
	b.to = vh.exchange(dst)
	if b.to == nil {
		return vh.noExchange(dst)
	}
	if err := vh.bind(b, src); err != nil {
		return err
	}
	ch.answerUnless(m.NoWait, wire.Bare(wire.IDExchangeBindOk))
	return nil
}

// read reads what the kind of its source wants to know of a binding.
func (b *binding) read() (err error) {
	switch b.source.by {
	case kindHeaders:
		b.match, err = parseHeadersMatch(b.args)
	case kindHash:
		b.weight, err = parseWeight(b.key)
	}
	return err
}

// bind makes a binding whose destination is set; the caller holds the stripes of both ends and of its id.
func (vh *vhost) bind(b *binding, source string) error {
	b.source = vh.exchange(source)
	if b.source == nil {
		return vh.noExchange(source)
	}
	if err := b.read(); err != nil {
		return err
	}
	vh.mu.RLock()
	old, n := b.source.bindings[b.id], len(b.source.bindings)
	vh.mu.RUnlock()
	if old != nil {
		return nil
	}
	if n >= vh.srv.limits.MaxBindings {
		vh.srv.refused.Add(tally.Routing)
		return wire.Errorf(wire.CodePreconditionFailed, "%s has %d bindings, which is its limit", describeExchange(source, vh.name), n)
	}
	b.durable = b.source.durable && (b.queue != nil && b.queue.attrs().durable && !b.queue.attrs().exclusive || b.to != nil && b.to.durable)
	if b.durable {
		if err := vh.saveBinding(b); err != nil {
			return err
		}
	}
	vh.mu.Lock()
	// An auto-delete end can have gone in the meantime; the record that was saved is void then.
	alive := vh.exchanges[source] == b.source &&
		(b.queue == nil || !b.queue.gone) && (b.to == nil || vh.exchanges[b.to.name] == b.to)
	if alive {
		vh.addBinding(b)
	}
	vh.mu.Unlock()
	if !alive {
		return wire.Errorf(wire.CodeNotFound, "an end of the binding from %s was deleted", describeExchange(source, vh.name))
	}
	return nil
}

func (ch *channel) exchangeUnbind(m *wire.ExchangeUnbind) error {
	c, vh := ch.c, ch.c.vhost()
	src, dst := cleanName(m.Source), cleanName(m.Destination)
	if src == "" || dst == "" {
		return errDefaultExchange
	}
	if err := c.authorize(auth.Write, "exchange", dst); err != nil {
		return err
	}
	if err := c.authorize(auth.Read, "exchange", src); err != nil {
		return err
	}
	if err := c.authorizeTopic(auth.Read, vh.exchange(src), m.RoutingKey); err != nil {
		return err
	}
	vh.unbind(src, bindingID(vh.name, src, "exchange", dst, m.RoutingKey, m.Arguments))
	ch.answerUnless(m.NoWait, wire.Bare(wire.IDExchangeUnbindOk))
	return nil
}

// unbind removes a binding if it is there. When it returns, that is durable.
func (vh *vhost) unbind(source, id string) {
	unlock := vh.lock(exchangeStripe(source), id)
	var t trash
	durable := false
	vh.mu.Lock()
	if x := vh.exchanges[source]; x != nil {
		if b := x.bindings[id]; b != nil {
			durable = b.durable
			vh.removeBinding(b, &t)
		}
	}
	vh.mu.Unlock()
	if durable {
		vh.logged("binding", id, vh.dropRecord(metaBinding+id))
	}
	unlock()
	t.bindings = nil
	vh.sweep(t)
}
