package topology

import (
	"github.com/surgetank/surgetank/internal/amqp/wire"
)

// Routed is the result of routing a message: the broker names of its queues, each once.
type Routed struct {
	Queues  []string // broker names
	Fixed   bool     // the queues depend only on exchange and key, so they may be cached until the topology changes
	Refused bool     // one of the queues has a limit of 0 and refuses the message
}

// Route finds the queues of a message that was published to x with keys. p has the message's
// properties. It may be nil where only keys count. Route follows bindings between exchanges, and
// alternate exchanges. It visits each exchange once, so every cycle ends.
func (vh *Vhost) Route(x *Exchange, keys []string, p *wire.Properties) Routed {
	vh.mu.RLock()
	defer vh.mu.RUnlock()
	r := router{vh: vh, props: p, out: Routed{Fixed: true}}
	r.visit(x)
	for len(r.todo) > 0 {
		x := r.todo[len(r.todo)-1]
		r.todo = r.todo[:len(r.todo)-1]
		for _, k := range keys {
			r.from(x, k)
		}
		if !r.matched && x.alternate != "" {
			r.visit(vh.exchanges[x.alternate])
		}
		r.matched = false
	}
	return r.out
}

type router struct {
	vh      *Vhost
	props   *wire.Properties
	out     Routed
	todo    []*Exchange
	visited []*Exchange // a short list
	seen    map[string]struct{}
	matched bool // the present exchange has found a destination
}

func (r *router) visit(x *Exchange) {
	if x == nil {
		return
	}
	for _, v := range r.visited {
		if v == x {
			return
		}
	}
	r.visited = append(r.visited, x)
	r.todo = append(r.todo, x)
}

// from adds the destinations of one exchange for one key.
func (r *router) from(x *Exchange, key string) {
	switch {
	case x.Name == "":
		if q := r.vh.queues[key]; q != nil {
			r.queue(q)
		}
	case x.By == kindDirect:
		for _, b := range x.byKey[key] {
			r.follow(b)
		}
	case x.By == kindFanout:
		for _, b := range x.bindings {
			r.follow(b)
		}
	case x.By == KindTopic:
		x.topics.match(key, r.follow)
	case x.By == kindHeaders:
		r.out.Fixed = false
		var headers wire.Table
		if r.props != nil {
			headers = r.props.Headers
		}
		for _, b := range x.bindings {
			if b.match.matches(headers) {
				r.follow(b)
			}
		}
	case x.By == kindHash:
		r.out.Fixed = r.out.Fixed && x.hash == hashOn{}
		if b := pickByHash(x.bindings, x.hash.of(key, r.props)); b != nil {
			r.follow(b)
		}
	case x.By == kindRandom, x.By == kindLocalRandom:
		r.out.Fixed = false
		if b := x.pickAny(); b != nil {
			r.follow(b)
		}
	}
}

func (r *router) follow(b *binding) {
	r.matched = true
	if b.queue != nil {
		r.queue(b.queue)
	} else {
		r.visit(b.to)
	}
}

func (r *router) queue(q *Queue) {
	r.matched = true
	if q.Attrs().RefusesAll() {
		r.out.Refused = true
		return
	}
	if len(r.out.Queues) < 16 {
		for _, n := range r.out.Queues {
			if n == q.Full {
				return
			}
		}
	} else {
		if r.seen == nil {
			r.seen = make(map[string]struct{}, 64)
			for _, n := range r.out.Queues {
				r.seen[n] = struct{}{}
			}
		}
		if _, ok := r.seen[q.Full]; ok {
			return
		}
		r.seen[q.Full] = struct{}{}
	}
	r.out.Queues = append(r.out.Queues, q.Full)
}
