package topology

import (
	"hash/maphash"
	"sync"
	"sync/atomic"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/amqp/translate"
	"github.com/surgetank/surgetank/internal/amqp/wire"
)

// Vhost is the topology of one virtual host: exchanges, bindings, and what AMQP says of its queues.
//
// mu guards all of it; routing takes it for reading, and only when a connection's route cache does
// not know the answer. version counts changes (see Version). Operations that make a change durable
// before they make it visible hold lock(names) from the check to the end, so that two of them on
// one name take turns. They never hold mu while they wait for the broker.
type Vhost struct {
	Name    string // never changes
	env     *Env
	version atomic.Uint64

	mu        sync.RWMutex
	exchanges map[string]*Exchange
	queues    map[string]*Queue
	retired   map[string]translate.QueueAttrs // by broker name: queues that are gone whose dead letters may still come
	gone      bool                            // the virtual host was deleted

	stripes [64]sync.Mutex

	deadLetters deadLetterer
	refusals    refusals
	circles     circles
}

// Version counts the changes of the topology, so that a cache can tell whether what it knows still
// holds.
func (vh *Vhost) Version() uint64 { return vh.version.Load() }

// Types of exchanges.
const (
	kindDirect  = "direct"
	kindFanout  = "fanout"
	KindTopic   = "topic" // its binding keys are patterns, and topic permissions ask for its keys
	kindHeaders = "headers"
	// KindDelayed is the type of a plug-in that many use. x-delay holds on every exchange here, so
	// this one only says in an argument of which of the other types it is.
	KindDelayed    = "x-delayed-message"
	argDelayedType = "x-delayed-type"
)

// Exchange is an exchange and its bindings. Name, By and Internal never change; its virtual host's
// lock guards everything else.
type Exchange struct {
	Name, kind                    string
	By                            string // the kind it routes as
	durable, autoDelete, Internal bool
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

// binding is the 4-tuple of source, destination, key and arguments; exactly one of queue and to is
// set.
type binding struct {
	id      string // names the tuple within the virtual host
	source  *Exchange
	queue   *Queue
	to      *Exchange
	key     string
	args    wire.Table
	match   headersMatch
	weight  float64 // of a hashing source
	at      int     // in the source's list
	durable bool
}

// Queue is what AMQP knows of one broker queue. The exported fields never change once the queue is
// in its virtual host.
type Queue struct {
	Vhost *Vhost
	Name  string                               // within the virtual host
	Full  string                               // the broker's name of it
	ID    uint64                               // the broker's number of it
	set   atomic.Pointer[translate.QueueAttrs] // with what its policy asks
	said  atomic.Pointer[translate.QueueAttrs] // as it was declared
	Owner any                                  // of an exclusive queue: its connection

	delivered uint64 // the janitor's: the broker's count when it last looked

	// Guarded by the virtual host's lock.
	bindings     map[string]*binding
	consumers    map[*Consumer]struct{}
	exclusiveUse bool          // one of them is exclusive, and so alone
	lastUse      time.Duration // what had passed on the server's clock
	gone         bool
}

// Attrs gives the queue's settings as they are in force.
func (q *Queue) Attrs() *translate.QueueAttrs { return q.set.Load() }

// own gives the settings that the queue was declared with. They change at most once, when a
// declaration turns out to be that of a queue which was taken for another door's.
func (q *Queue) own() *translate.QueueAttrs { return q.said.Load() }

// give sets what the queue was declared with, and puts its policy over it. For a queue that others
// can see the caller holds vh.mu, so that no change of policies is missed.
func (q *Queue) give(own *translate.QueueAttrs) {
	q.said.Store(own)
	a := q.Vhost.under(q.Name, *own)
	q.set.Store(&a)
}

var stripeSeed = maphash.MakeSeed()

// lock takes the stripe locks of names and gives the function that releases them. Stripes are taken
// in their order, which is what keeps two callers from waiting for each other.
func (vh *Vhost) lock(names ...string) (unlock func()) {
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

func newVhost(e *Env, name string) *Vhost {
	vh := &Vhost{Name: name, env: e, exchanges: map[string]*Exchange{}, queues: map[string]*Queue{}, retired: map[string]translate.QueueAttrs{}}
	for _, x := range []struct {
		name, kind string
		internal   bool
	}{
		{"", kindDirect, false}, {"amq.direct", kindDirect, false}, {"amq.fanout", kindFanout, false},
		{"amq.topic", KindTopic, false}, {"amq.headers", kindHeaders, false}, {"amq.match", kindHeaders, false},
		{translate.TraceExchange, KindTopic, true},
	} {
		vh.addExchange(newExchange(x.name, x.kind, true, false, x.internal, nil))
	}
	return vh
}

func newExchange(name, kind string, durable, autoDelete, internal bool, args wire.Table) *Exchange {
	x := &Exchange{Name: name, kind: kind, By: kind, durable: durable, autoDelete: autoDelete, Internal: internal, args: args,
		bindings: map[string]*binding{}, incoming: map[string]*binding{}}
	if kind == KindDelayed {
		v, _ := args.Get(argDelayedType)
		x.By = string(v.Data)
	}
	switch x.By {
	case kindDirect:
		x.byKey = map[string]map[string]*binding{}
	case KindTopic:
		x.topics = &topicTrie{}
	case kindHash:
		x.hash, _ = parseHashOn(args, name) // it was checked when it was declared
	}
	return x
}

// alternateArg reads the alternate exchange of an exchange's arguments.
func alternateArg(args wire.Table) (name string, ok bool) {
	v, ok := args.Get(translate.ArgAlternate)
	if !ok {
		return "", false
	}
	s, ok := v.Str()
	return string(s), ok
}

// addExchange makes an exchange visible; the caller holds mu, or has a virtual host of its own.
func (vh *Vhost) addExchange(x *Exchange) {
	x.alternate = vh.alternateOf(x)
	vh.exchanges[x.Name] = x
	vh.changed()
}

// changed tells the route caches; the caller holds mu.
func (vh *Vhost) changed() { vh.version.Add(1) }

// addBinding makes a binding visible; the caller holds mu.
func (vh *Vhost) addBinding(b *binding) {
	x := b.source
	x.bindings[b.id] = b
	switch x.By {
	case kindDirect:
		if x.byKey[b.key] == nil {
			x.byKey[b.key] = map[string]*binding{}
		}
		x.byKey[b.key][b.id] = b
	case KindTopic:
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

// removeBinding takes a binding away, and with it an auto-delete source that has none left. It adds
// what is to be forgotten durably to trash. The caller holds mu.
func (vh *Vhost) removeBinding(b *binding, trash *trash) {
	x := b.source
	if x.bindings[b.id] != b {
		return
	}
	delete(x.bindings, b.id)
	switch x.By {
	case kindDirect:
		if m := x.byKey[b.key]; m != nil {
			delete(m, b.id)
			if len(m) == 0 {
				delete(x.byKey, b.key)
			}
		}
	case KindTopic:
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
func (vh *Vhost) removeExchange(x *Exchange, trash *trash) {
	if vh.exchanges[x.Name] != x {
		return
	}
	delete(vh.exchanges, x.Name)
	vh.changed()
	if x.durable {
		trash.exchanges = append(trash.exchanges, x.Name)
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
func (vh *Vhost) removeQueue(q *Queue, trash *trash) {
	if vh.queues[q.Name] == q {
		delete(vh.queues, q.Name)
		vh.env.Policies.SetQuorum(q.Full, false)
		if !q.Attrs().HasDLX { // that of one with dead letters on their way is needed until they have arrived
			trash.queues = append(trash.queues, q.Full)
		}
	}
	q.gone = true
	if q.Attrs().HasDLX {
		vh.retire(q.Full, *q.Attrs())
	}
	for _, b := range q.bindings {
		vh.removeBinding(b, trash)
	}
	vh.changed()
}

// Forget takes away a queue that the broker no longer has.
func (vh *Vhost) Forget(q *Queue) {
	var t trash
	vh.mu.Lock()
	vh.removeQueue(q, &t)
	vh.mu.Unlock()
	vh.sweep(t)
}

// Exchange finds an exchange.
func (vh *Vhost) Exchange(name string) *Exchange {
	vh.mu.RLock()
	defer vh.mu.RUnlock()
	return vh.exchanges[name]
}

// Known finds a queue that this door has heard of.
func (vh *Vhost) Known(name string) *Queue {
	vh.mu.RLock()
	defer vh.mu.RUnlock()
	return vh.queues[name]
}

// Find finds a queue, also one that another door made; nil when there is none.
func (vh *Vhost) Find(name string) (*Queue, error) {
	if q := vh.Known(name); q != nil {
		return q, nil
	}
	// The name alone is checked: a full name in it would lead into another virtual host.
	if surgetank.ValidateName("queue", name) != nil {
		return nil, nil
	}
	full := surgetank.FullName(vh.Name, name)
	info, err := vh.env.Broker.Queue(vh.env.Context, full)
	switch surgetank.CodeOf(err) {
	case "":
		return vh.adopt(info), nil
	case surgetank.CodeNotFound:
		return nil, nil
	}
	return nil, err
}

// adopt takes note of a queue that another door made.
func (vh *Vhost) adopt(info surgetank.QueueInfo) *Queue {
	_, name := surgetank.SplitName(info.Name)
	a := translate.AttrsOf(info.Declared())
	a.Foreign = true
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

func (vh *Vhost) newQueue(name string, id uint64, a translate.QueueAttrs) *Queue {
	q := &Queue{Vhost: vh, Name: name, Full: surgetank.FullName(vh.Name, name), ID: id,
		bindings: map[string]*binding{}, consumers: map[*Consumer]struct{}{}, lastUse: vh.env.Clock.Passed()}
	q.give(&a)
	return q
}
