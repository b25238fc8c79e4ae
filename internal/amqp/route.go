package amqp

import (
	"github.com/surgetank/surgetank/internal/amqp/wire"
)

// routed is where a message goes: the broker's names of its queues, each once.
type routed struct {
	queues  []string
	fixed   bool // it depends on exchange and key alone, and may be kept until the topology changes
	refused bool // one of the queues keeps nothing and says so
}

// route finds the queues of a message published to x under keys; p, its properties, may be nil where only keys count. It follows bindings between exchanges and alternate
// exchanges; an exchange is visited once, which ends every cycle.
func (vh *vhost) route(x *exchange, keys []string, p *wire.Properties) routed {
	vh.mu.RLock()
	defer vh.mu.RUnlock()
	r := router{vh: vh, props: p, out: routed{fixed: true}}
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
	vh      *vhost
	props   *wire.Properties
	out     routed
	todo    []*exchange
	visited []*exchange // few
	seen    map[string]struct{}
	matched bool // by the exchange that is being asked
}

func (r *router) visit(x *exchange) {
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

// from adds what one exchange gives for one key.
func (r *router) from(x *exchange, key string) {
	switch {
	case x.name == "":
		if q := r.vh.queues[key]; q != nil {
			r.queue(q)
		}
	case x.by == kindDirect:
		for _, b := range x.byKey[key] {
			r.follow(b)
		}
	case x.by == kindFanout:
		for _, b := range x.bindings {
			r.follow(b)
		}
	case x.by == kindTopic:
		x.topics.match(key, r.follow)
	case x.by == kindHeaders:
		r.out.fixed = false
		var headers wire.Table
		if r.props != nil {
			headers = r.props.Headers
		}
		for _, b := range x.bindings {
			if b.match.matches(headers) {
				r.follow(b)
			}
		}
	case x.by == kindHash:
		r.out.fixed = r.out.fixed && x.hash == hashOn{}
		if b := pickByHash(x.bindings, x.hash.of(key, r.props)); b != nil {
			r.follow(b)
		}
	case x.by == kindRandom, x.by == kindLocalRandom:
		r.out.fixed = false
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

func (r *router) queue(q *queue) {
	r.matched = true
	if q.attrs().refusesAll() {
		r.out.refused = true
		return
	}
	if len(r.out.queues) < 16 {
		for _, n := range r.out.queues {
			if n == q.full {
				return
			}
		}
	} else {
		if r.seen == nil {
			r.seen = make(map[string]struct{}, 64)
			for _, n := range r.out.queues {
				r.seen[n] = struct{}{}
			}
		}
		if _, ok := r.seen[q.full]; ok {
			return
		}
		r.seen[q.full] = struct{}{}
	}
	r.out.queues = append(r.out.queues, q.full)
}
