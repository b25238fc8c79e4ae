package amqp

import (
	"hash/maphash"
	"sync"
	"sync/atomic"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/amqp/wire"
)

// vhost is the topology of one virtual host: exchanges, bindings, and what AMQP says of its queues.
//
// mu guards all of it; routing takes it for reading, and only when a connection's route cache does not know the
// answer. version counts changes, so that a cache can tell by one load whether what it knows still holds. Operations that
// make a change durable before they make it visible hold lock(names) from the check to the end, so that two
// of them on one name take turns; they never hold mu while they wait for the broker.
type vhost struct {
	name    string
	srv     *Server
	version atomic.Uint64

	mu        sync.RWMutex
	exchanges map[string]*exchange
	queues    map[string]*queue
	retired   map[string]queueAttrs // by broker name: queues that are gone whose dead letters may still come
	gone      bool                  // the virtual host was deleted

	stripes [64]sync.Mutex

	deadLetters deadLetterer
	refusals    refusals
	circles     circles
}

// exchange types.
const (
	kindDirect  = "direct"
	kindFanout  = "fanout"
	kindTopic   = "topic"
	kindHeaders = "headers"
	// kindDelayed is the type of a plug-in that many use. x-delay holds on every exchange here, so this one only says in an
	// argument of which of the other types it is.
	kindDelayed    = "x-delayed-message"
	argDelayedType = "x-delayed-type"
)

type exchange struct {
	name, kind                    string
	by                            string // the kind it routes as
	durable, autoDelete, internal bool
	args                          wire.Table
	alternate                     string // "" when there is none
	id                            uint64 // of this life of the name; bindings name it, so that older ones cannot come back

	// Bindings with this exchange as the source: all of them, and by what its kind asks.
	bindings map[string]*binding
	byKey    map[string]map[string]*binding
	topics   *topicTrie
	list     []*binding          // of the random kinds
	hash     hashOn              // of the hashing kind
	incoming map[string]*binding // with this exchange as the destination
}

// binding is the 4-tuple of source, destination, key and arguments; exactly one of queue and to is set.
type binding struct {
	id      string // names the tuple within the virtual host
	source  *exchange
	queue   *queue
	to      *exchange
	key     string
	args    wire.Table
	match   headersMatch
	weight  float64 // of a hashing source
	at      int     // in the source's list
	durable bool
}

// queue is what AMQP knows of one broker queue.
type queue struct {
	vh    *vhost
	name  string
	full  string                     // the broker's name of it
	id    uint64                     // the broker's number of it
	set   atomic.Pointer[queueAttrs] // with what its policy asks
	said  atomic.Pointer[queueAttrs] // as it was declared
	owner *conn                      // of an exclusive queue

	delivered uint64 // the janitor's: the broker's count when it last looked

	// Guarded by vh.mu.
	bindings     map[string]*binding
	consumers    map[*consumer]struct{}
	exclusiveUse bool          // one of them is exclusive, and so alone
	lastUse      time.Duration // what had passed on the server's clock
	gone         bool
}

// attrs gives the queue's settings as they are in force.
func (q *queue) attrs() *queueAttrs { return q.set.Load() }

// own gives the settings that the queue was declared with. They change at most once, when a declaration turns out to be that
// of a queue which was taken for another door's.
func (q *queue) own() *queueAttrs { return q.said.Load() }

// give sets what the queue was declared with, and puts its policy over it. For a queue that others can see the caller
// holds vh.mu, so that no change of policies is missed.
func (q *queue) give(own *queueAttrs) {
	q.said.Store(own)
	a := q.vh.under(q.name, *own)
	q.set.Store(&a)
}

var stripeSeed = maphash.MakeSeed()

// lock takes the stripe locks of names and gives the function that releases them. Stripes are taken in
// their order, which is what keeps two callers from waiting for each other.
func (vh *vhost) lock(names ...string) (unlock func()) {
	var wanted uint64
	for _, n := range names {
		wanted |= 1 << (maphash.String(stripeSeed, n) % uint64(len(vh.stripes)))
	}
	for i := range vh.stripes {
		if wanted>>i&1 != 0 {
			vh.stripes[i].Lock()
		}
	}
	return func() {
		for i := range vh.stripes {
			if wanted>>i&1 != 0 {
				vh.stripes[i].Unlock()
			}
		}
	}
}

// Stripe names of exchanges and queues live in different spaces.
func exchangeStripe(name string) string { return "x" + name }
func queueStripe(name string) string    { return "q" + name }

func newVhost(srv *Server, name string) *vhost {
	vh := &vhost{name: name, srv: srv, exchanges: map[string]*exchange{}, queues: map[string]*queue{}, retired: map[string]queueAttrs{}}
	for _, x := range []struct {
		name, kind string
		internal   bool
	}{
		{"", kindDirect, false}, {"amq.direct", kindDirect, false}, {"amq.fanout", kindFanout, false},
		{"amq.topic", kindTopic, false}, {"amq.headers", kindHeaders, false}, {"amq.match", kindHeaders, false},
		{traceExchange, kindTopic, true},
	} {
		vh.addExchange(newExchange(x.name, x.kind, true, false, x.internal, nil))
	}
	return vh
}

func newExchange(name, kind string, durable, autoDelete, internal bool, args wire.Table) *exchange {
	x := &exchange{name: name, kind: kind, by: kind, durable: durable, autoDelete: autoDelete, internal: internal, args: args,
		bindings: map[string]*binding{}, incoming: map[string]*binding{}}
	if kind == kindDelayed {
		v, _ := args.Get(argDelayedType)
		x.by = string(v.Data)
	}
	switch x.by {
	case kindDirect:
		x.byKey = map[string]map[string]*binding{}
	case kindTopic:
		x.topics = &topicTrie{}
	case kindHash:
		x.hash, _ = parseHashOn(args, name) // it was checked when it was declared
	}
	return x
}

// alternateArg reads the alternate exchange of an exchange's arguments.
func alternateArg(args wire.Table) (name string, ok bool) {
	v, ok := args.Get(argAlternate)
	if !ok {
		return "", false
	}
	s, ok := v.Str()
	return string(s), ok
}

// addExchange makes an exchange visible; the caller holds mu, or has a virtual host of its own.
func (vh *vhost) addExchange(x *exchange) {
	x.alternate = vh.alternateOf(x)
	vh.exchanges[x.name] = x
	vh.changed()
}

// changed tells the route caches; the caller holds mu.
func (vh *vhost) changed() { vh.version.Add(1) }

// addBinding makes a binding visible; the caller holds mu.
func (vh *vhost) addBinding(b *binding) {
	x := b.source
	x.bindings[b.id] = b
	switch x.by {
	case kindDirect:
		if x.byKey[b.key] == nil {
			x.byKey[b.key] = map[string]*binding{}
		}
		x.byKey[b.key][b.id] = b
	case kindTopic:
		x.topics.add(b)
	case kindRandom, kindLocalRandom:
		b.at = len(x.list)
		x.list = append(x.list, b)
	}
	if b.queue != nil {
		b.queue.bindings[b.id] = b
	} else {
		b.to.incoming[b.id] = b
	}
	vh.changed()
}

// removeBinding takes a binding away, and with it an auto-delete source that has none left. It adds what is to be
// forgotten durably to trash. The caller holds mu.
func (vh *vhost) removeBinding(b *binding, trash *trash) {
	x := b.source
	if x.bindings[b.id] != b {
		return
	}
	delete(x.bindings, b.id)
	switch x.by {
	case kindDirect:
		if m := x.byKey[b.key]; m != nil {
			delete(m, b.id)
			if len(m) == 0 {
				delete(x.byKey, b.key)
			}
		}
	case kindTopic:
		x.topics.remove(b)
	case kindRandom, kindLocalRandom:
		last := x.list[len(x.list)-1]
		x.list[b.at], last.at = last, b.at
		x.list = x.list[:len(x.list)-1]
	}
	if b.queue != nil {
		delete(b.queue.bindings, b.id)
	} else {
		delete(b.to.incoming, b.id)
	}
	if b.durable {
		trash.bindings = append(trash.bindings, b.id)
	}
	vh.changed()
	if x.autoDelete && len(x.bindings) == 0 {
		vh.removeExchange(x, trash)
	}
}

// removeExchange takes an exchange away with all bindings from and to it; the caller holds mu.
func (vh *vhost) removeExchange(x *exchange, trash *trash) {
	if vh.exchanges[x.name] != x {
		return
	}
	delete(vh.exchanges, x.name)
	vh.changed()
	if x.durable {
		trash.exchanges = append(trash.exchanges, x.name)
	}
	x.autoDelete = false // it is gone already
	for _, b := range x.bindings {
		vh.removeBinding(b, trash)
	}
	for _, b := range x.incoming {
		vh.removeBinding(b, trash)
	}
}

// removeQueue takes a queue away with its bindings; the caller holds mu.
func (vh *vhost) removeQueue(q *queue, trash *trash) {
	if vh.queues[q.name] == q {
		delete(vh.queues, q.name)
		vh.srv.policies.SetQuorum(q.full, false)
		if !q.attrs().hasDLX { // that of one with dead letters on their way is needed until they have arrived
			trash.queues = append(trash.queues, q.full)
		}
	}
	q.gone = true
	if q.attrs().hasDLX {
		vh.retire(q.full, *q.attrs())
	}
	for _, b := range q.bindings {
		vh.removeBinding(b, trash)
	}
	vh.changed()
}

// forget takes away a queue that the broker no longer has.
func (vh *vhost) forget(q *queue) {
	var t trash
	vh.mu.Lock()
	vh.removeQueue(q, &t)
	vh.mu.Unlock()
	vh.sweep(t)
}

// exchange finds an exchange.
func (vh *vhost) exchange(name string) *exchange {
	vh.mu.RLock()
	defer vh.mu.RUnlock()
	return vh.exchanges[name]
}

// known finds a queue that this door has heard of.
func (vh *vhost) known(name string) *queue {
	vh.mu.RLock()
	defer vh.mu.RUnlock()
	return vh.queues[name]
}

// find finds a queue, also one that another door made; nil when there is none.
func (vh *vhost) find(name string) (*queue, error) {
	if q := vh.known(name); q != nil {
		return q, nil
	}
	// The name alone is checked: a full name in it would lead into another virtual host.
	if surgetank.ValidateName("queue", name) != nil {
		return nil, nil
	}
	full := surgetank.FullName(vh.name, name)
	info, err := vh.srv.broker.Queue(vh.srv.ctx, full)
	switch surgetank.CodeOf(err) {
	case "":
		return vh.adopt(info), nil
	case surgetank.CodeNotFound:
		return nil, nil
	}
	return nil, err
}

// adopt takes note of a queue that another door made.
func (vh *vhost) adopt(info surgetank.QueueInfo) *queue {
	_, name := surgetank.SplitName(info.Name)
	a := attrsOf(info.Declared())
	a.foreign = true
	vh.mu.Lock()
	defer vh.mu.Unlock()
	if q := vh.queues[name]; q != nil {
		return q
	}
	q := vh.newQueue(name, info.ID, a)
	vh.queues[name] = q
	vh.changed()
	return q
}

func (vh *vhost) newQueue(name string, id uint64, a queueAttrs) *queue {
	q := &queue{vh: vh, name: name, full: surgetank.FullName(vh.name, name), id: id,
		bindings: map[string]*binding{}, consumers: map[*consumer]struct{}{}, lastUse: vh.srv.clock.Passed()}
	q.give(&a)
	return q
}
