package topology

import (
	"crypto/rand"
	"encoding/binary"
	"strings"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/amqp/translate"
	"github.com/surgetank/surgetank/internal/amqp/wire"
	"github.com/surgetank/surgetank/internal/metacache"
	"github.com/surgetank/surgetank/internal/tally"
)

// DeclareExchange makes an exchange, or checks that an existing one is equivalent. may reports
// whether the caller may use an alternate exchange. It is called only for a new exchange.
func (vh *Vhost) DeclareExchange(name string, m *wire.ExchangeDeclare, may func(alternate string) error) error {
	defer vh.lock(exchangeStripe(name))()
	for try := 1; ; try++ {
		old, _ := vh.registry.records.Get(vh.exchangeKey(name))
		if x := vh.Exchange(name); x != nil {
			return vh.equivalentExchange(x, m)
		}
		if old.Version != 0 {
			// Another program can have made the exchange just now. Refresh returns after the record
			// was applied.
			vh.registry.records.Refresh()
			if x := vh.Exchange(name); x != nil {
				return vh.equivalentExchange(x, m)
			}
		}
		err := vh.makeExchange(name, m, may, old.Version)
		if surgetank.CodeOf(err) != surgetank.CodeExists || try == metacache.Tries {
			return err
		}
	}
}

// RoutingKind reports whether kind says how messages are routed.
func RoutingKind(kind string) bool {
	switch kind {
	case kindDirect, kindFanout, KindTopic, kindHeaders, kindHash, kindRandom, kindLocalRandom:
		return true
	}
	return false
}

func (vh *Vhost) equivalentExchange(x *Exchange, m *wire.ExchangeDeclare) error {
	where := translate.DescribeExchange(x.Name, vh.Name)
	if x.kind != m.Type {
		return translate.Inequivalent("type", where, "'"+m.Type+"'", "'"+x.kind+"'")
	}
	for _, f := range []struct {
		name      string
		now, want bool
	}{{"durable", x.durable, m.Durable}, {"auto_delete", x.autoDelete, m.AutoDelete}, {"internal", x.Internal, m.Internal}} {
		if err := translate.SameFlag(f.name, where, f.now, f.want); err != nil {
			return err
		}
	}
	return translate.SameArg(translate.ArgAlternate, where, x.args, m.Arguments)
}

// makeExchange makes an exchange. The caller holds its stripe. may is called if there is an
// alternate exchange. expected is the version of the record under the exchange's name. If another
// program has changed the record, the error is CodeExists.
func (vh *Vhost) makeExchange(name string, m *wire.ExchangeDeclare, may func(alternate string) error, expected uint64) error {
	if strings.HasPrefix(name, translate.ReservedPrefix) {
		return wire.Errorf(wire.CodeAccessRefused, "exchange name '%s' contains reserved prefix 'amq.*'", name)
	}
	if v, _ := m.Arguments.Get(argDelayedType); m.Type == KindDelayed && !RoutingKind(string(v.Data)) {
		return wire.Errorf(wire.CodePreconditionFailed, "Invalid argument, 'x-delayed-type' must be an existing exchange type")
	}
	if v, ok := m.Arguments.Get(translate.ArgAlternate); ok {
		alt, isStr := v.Str()
		if !isStr || len(alt) > 255 {
			return wire.Errorf(wire.CodePreconditionFailed, "invalid type '%s' for arg '%s' in %s", v.TypeName(), translate.ArgAlternate, translate.DescribeExchange(name, vh.Name))
		}
		if err := may(string(alt)); err != nil {
			return err
		}
	}
	if _, err := parseHashOn(m.Arguments, translate.DescribeExchange(name, vh.Name)); m.Type == kindHash && err != nil {
		return err
	}
	vh.mu.RLock()
	n := len(vh.exchanges)
	vh.mu.RUnlock()
	if n >= vh.env.MaxExchanges {
		vh.env.Refused.Add(tally.Routing)
		return wire.Errorf(wire.CodePreconditionFailed, "vhost '%s' has %d exchanges, which is its limit", vh.Name, n)
	}
	x := newExchange(name, m.Type, m.Durable, m.AutoDelete, m.Internal, m.Arguments)
	var id [8]byte
	rand.Read(id[:])
	x.id = binary.BigEndian.Uint64(id[:]) | 1
	if x.durable {
		if err := vh.saveExchange(x, expected); err != nil {
			return err
		}
	}
	vh.mu.Lock()
	defer vh.mu.Unlock()
	if vh.gone {
		return wire.Errorf(wire.CodeNotFound, "vhost '%s' is down", vh.Name)
	}
	if x.durable { // follow has made the exchange, unless it was deleted again
		return nil
	}
	vh.addExchange(x)
	return nil
}

// DeleteExchange deletes an exchange, if there is one, and its bindings. With ifUnused, an exchange
// that has bindings is an error.
func (vh *Vhost) DeleteExchange(name string, ifUnused bool) error {
	unlock := vh.lock(exchangeStripe(name))
	var t trash
	vh.mu.Lock()
	x := vh.exchanges[name]
	inUse := x != nil && ifUnused && len(x.bindings) > 0
	if x != nil && !inUse {
		vh.removeExchange(x, &t)
	}
	vh.mu.Unlock()
	unlock()
	if inUse {
		return wire.Errorf(wire.CodePreconditionFailed, "%s in use", translate.DescribeExchange(name, vh.Name))
	}
	vh.sweep(t)
	return nil
}

// BindExchange binds an exchange to another.
func (vh *Vhost) BindExchange(src, dst, key string, args wire.Table) error {
	b := &binding{id: bindingID(vh.Name, src, "exchange", dst, key, args), key: key, args: args}
	unlock := vh.lock(exchangeStripe(src), exchangeStripe(dst), b.id)
	defer unlock()
	b.to = vh.Exchange(dst)
	if b.to == nil {
		return vh.NoExchange(dst)
	}
	return vh.bind(b, src)
}

// BindQueue binds a queue to an exchange. owner must have the right to use the queue.
func (vh *Vhost) BindQueue(src, name string, owner any, key string, args wire.Table) (err error) {
	b := &binding{id: bindingID(vh.Name, src, "queue", name, key, args), key: key, args: args}
	unlock := vh.lock(exchangeStripe(src), queueStripe(name), b.id)
	defer unlock()
	if b.queue, err = vh.Open(owner, name); err != nil {
		return err
	}
	return vh.bind(b, src)
}

// UnbindExchange removes a binding between exchanges, if there is one. When it returns, the removal
// is durable.
func (vh *Vhost) UnbindExchange(src, dst, key string, args wire.Table) {
	vh.unbind(src, bindingID(vh.Name, src, "exchange", dst, key, args))
}

// UnbindQueue removes the binding of a queue, if there is one. When it returns, the removal is
// durable.
func (vh *Vhost) UnbindQueue(src, name, key string, args wire.Table) {
	vh.unbind(src, bindingID(vh.Name, src, "queue", name, key, args))
}

// read parses the parts of a binding that its source's kind uses.
func (b *binding) read() (err error) {
	switch b.source.By {
	case kindHeaders:
		b.match, err = parseHeadersMatch(b.args)
	case kindHash:
		b.weight, err = parseWeight(b.key)
	}
	return err
}

// bind adds a binding whose destination is set. The caller holds the stripes of both ends and of
// the binding's id.
func (vh *Vhost) bind(b *binding, source string) error {
	b.source = vh.Exchange(source)
	if b.source == nil {
		return vh.NoExchange(source)
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
	if n >= vh.env.MaxBindings {
		vh.env.Refused.Add(tally.Routing)
		return wire.Errorf(wire.CodePreconditionFailed, "%s has %d bindings, which is its limit", translate.DescribeExchange(source, vh.Name), n)
	}
	b.durable = b.source.durable && (b.queue != nil && b.queue.Attrs().Durable && !b.queue.Attrs().Exclusive || b.to != nil && b.to.durable)
	if b.durable {
		if err := vh.saveBinding(b); err != nil {
			return err
		}
	}
	// An auto-delete exchange or queue of the binding can be gone by now. The saved record is then
	// invalid.
	alive := vh.complete(b)
	if !alive {
		return wire.Errorf(wire.CodeNotFound, "an end of the binding from %s was deleted", translate.DescribeExchange(source, vh.Name))
	}
	return nil
}

// unbind removes a binding, if there is one. When it returns, the removal is durable.
func (vh *Vhost) unbind(source, id string) {
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
		vh.logged("binding", id, vh.dropRecord(metaBinding+id, anyRecord))
	}
	unlock()
	t.bindings = nil
	vh.sweep(t)
}
