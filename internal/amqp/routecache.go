package amqp

import (
	"strings"

	"github.com/surgetank/surgetank/internal/amqp/wire"
	"github.com/surgetank/surgetank/internal/auth"
)

// route is where messages of one exchange and key go, and that the connection's user may send them there.
type route struct {
	exchange *exchange
	key      string
	reply    bool // to a requester's channel
	routed
}

// routeCache remembers routes of a connection for as long as neither the topology nor anybody's rights change.
type routeCache struct {
	c          *conn
	version    uint64
	generation uint64
	routes     map[string]*route
	scratch    []byte
}

const maxRoutes = 4096

func (rc *routeCache) init(c *conn) { rc.c, rc.routes = c, map[string]*route{} }

// lookup finds where a message goes, or why it may not. Exchange and key alias the reader's buffers.
func (rc *routeCache) lookup(exchange, key []byte) (*route, error) {
	c := rc.c
	version, generation := c.vhost().version.Load(), c.srv.auth.Generation()
	if version != rc.version || generation != rc.generation {
		clear(rc.routes)
		rc.version, rc.generation = version, generation
	}
	// The length tells exchange and key apart, whatever bytes they have.
	rc.scratch = append(append(append(rc.scratch[:0], byte(len(exchange))), exchange...), key...)
	if r := rc.routes[string(rc.scratch)]; r != nil {
		return r, nil
	}
	r, err := c.findRoute(string(exchange), string(key))
	if err != nil {
		return nil, err
	}
	if !r.reply && (len(r.queues) > 0 || len(exchange) > 0) {
		if len(rc.routes) >= maxRoutes {
			clear(rc.routes)
		}
		rc.routes[string(rc.scratch)] = r
	}
	return r, nil
}

// findRoute is lookup without the memory.
func (c *conn) findRoute(exchange, key string) (*route, error) {
	vh := c.vhost()
	if err := c.authorize(auth.Write, "exchange", resourceName(exchange)); err != nil {
		return nil, err
	}
	x := vh.exchange(exchange)
	switch {
	case x == nil:
		return nil, vh.noExchange(exchange)
	case x.internal:
		return nil, wire.Errorf(wire.CodeAccessRefused, "cannot publish to internal %s", describeExchange(exchange, vh.name))
	}
	if err := c.authorizeTopic(auth.Write, x, key); err != nil {
		return nil, err
	}
	r := &route{exchange: x, key: key}
	if exchange == "" {
		if strings.HasPrefix(key, replyToPrefix) {
			r.reply = true
			return r, nil
		}
		if _, err := vh.find(key); err != nil {
			return nil, err
		}
	}
	r.routed = vh.route(x, []string{key}, nil)
	return r, nil
}
