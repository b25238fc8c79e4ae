package topology

import (
	"hash/maphash"
	"sync"
	"sync/atomic"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/amqp/translate"
	"github.com/surgetank/surgetank/internal/amqp/wire"
	"github.com/surgetank/surgetank/internal/fullname"
)

// Vhost is the topology of one virtual host: exchanges, bindings, and AMQP's settings of its
// queues.
//
// mu guards all of it. Routing locks mu for reading, and only if a connection's route cache has no
// answer. version counts changes (see Version). Some operations make a change durable before they
// make it visible. They hold lock(names) from the check to the end, so that two of them on one name
// run one after the other. They never hold mu while they wait for the broker.
type Vhost struct {
	Name     string // never changes
	env      *Env
	registry *Registry
	version  atomic.Uint64

	mu        sync.RWMutex
	exchanges map[string]*Exchange
	queues    map[string]*Queue
	retired   map[string]translate.QueueAttrs // deleted queues whose dead letters can still arrive, by broker name
	making    map[string]bool                 // names of queues whose records makeQueue is storing
	doomed    []*Queue                        // queues to delete as soon as the broker can
	assumed   map[*Queue]bool                 // see assume
	gone      bool                            // the virtual host was deleted

	stripes [64]sync.Mutex

	deadLetters deadLetterer
	refusals    refusals
	circles     circles
}

// Version counts the changes of the topology. A cache whose version differs is out of date.
func (vh *Vhost) Version() uint64 { return vh.version.Load() }

// Types of exchanges.
const (
	kindDirect  = "direct"
	kindFanout  = "fanout"
	KindTopic   = "topic" // its binding keys are patterns, and topic permissions apply to its keys
	kindHeaders = "headers"
	// KindDelayed is the type of a widely used plug-in. Every exchange here obeys x-delay. So this
	// type only names, in an argument, the other type that it routes as.
	KindDelayed    = "x-delayed-message"
	argDelayedType = "x-delayed-type"
)

// Exchange is an exchange and its bindings. Name, By and Internal never change. The virtual host's
// lock guards all other fields.
type Exchange struct {
	Name, kind                    string
	By                            string // the kind by which it routes
	durable, autoDelete, Internal bool
	args                          wire.Table
	alternate                     string // "" if there is none
	// id differs for each exchange with this name. A binding has the ids of its exchanges, so
	// bindings of a deleted exchange stay invalid.
	id uint64

	// Bindings with this exchange as the source: all of them, and indexes for its kind.
	bindings map[string]*binding
	byKey    map[string]map[string]*binding
	topics   *topicTrie
	list     []*binding          // all bindings, if the kind picks one at random
	hash     hashOn              // the hashed part of a message, if the kind picks by hash
	incoming map[string]*binding // bindings with this exchange as the destination
}

// binding is the 4-tuple of source, destination, key and arguments. Exactly one of queue and to is
// set.
type binding struct {
	id      string // unique within the virtual host
	source  *Exchange
	queue   *Queue
	to      *Exchange
	key     string
	args    wire.Table
	match   headersMatch
	weight  float64 // weight, if the source picks by hash
	at      int     // index in the source's list
	durable bool
}

// Queue is AMQP's view of one broker queue. The exported fields never change after the queue is in
// its virtual host.
type Queue struct {
	Vhost *Vhost
	Name  string                               // name within the virtual host
	Full  string                               // the broker's name
	ID    uint64                               // the broker's number
	set   atomic.Pointer[translate.QueueAttrs] // settings in force: the declared ones under the queue's policy
	said  atomic.Pointer[translate.QueueAttrs] // settings as declared
	Owner any                                  // the connection of an exclusive queue

	delivered uint64 // owned by the janitor: the broker's count of deliveries at the last look

	// The virtual host's lock guards these fields.
	bindings     map[string]*binding
	consumers    map[*Consumer]struct{}
	exclusiveUse bool          // its only consumer is exclusive
	lastUse      time.Duration // passed time of the server's clock
	gone         bool
}

// Attrs returns the queue's settings in force.
func (q *Queue) Attrs() *translate.QueueAttrs { return q.set.Load() }

// own returns the settings that the queue was declared with. They change at most once: when a
// declaration shows that a queue, so far treated as another door's, is this door's.
func (q *Queue) own() *translate.QueueAttrs { return q.said.Load() }

// setDeclared sets the declared settings of the queue and applies its policy. If the queue is
// visible to others, the caller holds vh.mu. Otherwise a change of policies could be missed.
func (q *Queue) setDeclared(own *translate.QueueAttrs) {
	q.said.Store(own)
	a := q.Vhost.under(q.Name, *own)
	q.set.Store(&a)
}

var stripeSeed = maphash.MakeSeed()

// lock locks the stripes of names and returns the function that unlocks them. It locks stripes in a
// fixed order, so that two callers cannot deadlock.
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

// Exchanges and queues with the same name have different stripe names.
func exchangeStripe(name string) string { return "x" + name }
func queueStripe(name string) string    { return "q" + name }

func newVhost(r *Registry, name string) *Vhost {
	vh := &Vhost{Name: name, env: r.Env, registry: r, making: map[string]bool{}, assumed: map[*Queue]bool{}, exchanges: map[string]*Exchange{}, queues: map[string]*Queue{}, retired: map[string]translate.QueueAttrs{}}
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
		x.hash, _ = parseHashOn(args, name) // it was checked at the declaration
	}
	return x
}

// alternateArg returns the alternate exchange in an exchange's arguments.
func alternateArg(args wire.Table) (name string, ok bool) {
	v, ok := args.Get(translate.ArgAlternate)
	if !ok {
		return "", false
	}
	s, ok := v.Str()
	return string(s), ok
}

// addExchange makes an exchange visible. The caller holds mu, or the virtual host is not visible
// yet.
func (vh *Vhost) addExchange(x *Exchange) {
	x.alternate = vh.alternateOf(x)
	vh.exchanges[x.Name] = x
	vh.changed()
}

// changed makes route caches out of date. The caller holds mu.
func (vh *Vhost) changed() { vh.version.Add(1) }

// addBinding makes a binding visible. The caller holds mu.
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

// removeBinding removes a binding. If it was the last binding of an auto-delete source, it removes
// the source too. It adds the records to remove to trash. The caller holds mu.
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

// removeExchange removes an exchange and all bindings from and to it. The caller holds mu.
func (vh *Vhost) removeExchange(x *Exchange, trash *trash) {
	if vh.exchanges[x.Name] != x {
		return
	}
	delete(vh.exchanges, x.Name)
	vh.changed()
	if x.durable {
		trash.exchanges = append(trash.exchanges, x)
	}
	x.autoDelete = false // it is removed already
	for _, b := range x.bindings {
		vh.removeBinding(b, trash)
	}
	for _, b := range x.incoming {
		vh.removeBinding(b, trash)
	}
}

// removeQueue removes a queue and its bindings. The caller holds mu.
func (vh *Vhost) removeQueue(q *Queue, trash *trash) {
	if vh.queues[q.Name] == q {
		delete(vh.queues, q.Name)
		vh.env.Policies.SetQuorum(q.Full, false)
		if !q.Attrs().HasDLX { // the record is needed while dead letters of the queue can be in the passage
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

// Forget removes a queue that the broker no longer has.
func (vh *Vhost) Forget(q *Queue) {
	var t trash
	vh.mu.Lock()
	vh.removeQueue(q, &t)
	vh.mu.Unlock()
	vh.sweep(t)
}

// Exchange returns an exchange, or nil.
func (vh *Vhost) Exchange(name string) *Exchange {
	vh.mu.RLock()
	defer vh.mu.RUnlock()
	return vh.exchanges[name]
}

// Known returns a queue that this door knows, or nil.
func (vh *Vhost) Known(name string) *Queue {
	vh.mu.RLock()
	defer vh.mu.RUnlock()
	return vh.queues[name]
}

// Find returns a queue of this or another door, or nil if there is none.
func (vh *Vhost) Find(name string) (*Queue, error) {
	if q := vh.Known(name); q != nil {
		return q, nil
	}
	// Check the name alone, because a full name would reach another virtual host.
	if surgetank.ValidateName("queue", name) != nil {
		return nil, nil
	}
	full := fullname.Of(vh.Name, name)
	info, err := vh.env.Broker.Queue(vh.env.Context, full)
	switch surgetank.CodeOf(err) {
	case "":
		return vh.adopt(info), nil
	case surgetank.CodeNotFound:
		return nil, nil
	}
	return nil, err
}

// adopt adds a queue that another door declared.
func (vh *Vhost) adopt(info surgetank.QueueInfo) *Queue {
	_, name := fullname.Split(info.Name)
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
	q := &Queue{Vhost: vh, Name: name, Full: fullname.Of(vh.Name, name), ID: id,
		bindings: map[string]*binding{}, consumers: map[*Consumer]struct{}{}, lastUse: vh.env.Clock.Passed()}
	q.setDeclared(&a)
	return q
}
