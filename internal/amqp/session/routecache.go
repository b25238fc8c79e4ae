package session

import (
	"strings"

	"github.com/surgetank/surgetank/internal/amqp/topology"
	"github.com/surgetank/surgetank/internal/amqp/translate"
	"github.com/surgetank/surgetank/internal/amqp/wire"
	"github.com/surgetank/surgetank/internal/auth"
)

// route has the queues for one exchange and key. It also says that the connection's user may
// publish with this exchange and key.
type route struct {
	exchange *topology.Exchange
	key      string
	reply    bool // the message goes to a requester's channel
	topology.Routed
}

// routeCache caches a connection's routes until the topology or any user's rights change.
type routeCache struct {
	c          *Conn
	version    uint64
	generation uint64
	routes     map[string]*route
	scratch    []byte
}

const maxRoutes = 4096

func (rc *routeCache) init(c *Conn) { rc.c, rc.routes = c, map[string]*route{} }

// lookup returns the route of a message, or the error that forbids it. exchange and key alias the
// reader's buffers.
func (rc *routeCache) lookup(exchange, key []byte) (*route, error) {
	c := rc.c
	version, generation := c.vhost().Version(), c.srv.Auth.Generation()
	if version != rc.version || generation != rc.generation {
		clear(rc.routes)
		rc.version, rc.generation = version, generation
	}
	// The length separates exchange and key, whatever bytes they have.
	rc.scratch = append(append(append(rc.scratch[:0], byte(len(exchange))), exchange...), key...)
	if r := rc.routes[string(rc.scratch)]; r != nil {
		return r, nil
	}
	r, err := c.findRoute(string(exchange), string(key))
	if err != nil {
		return nil, err
	}
	if !r.reply && (len(r.Queues) > 0 || len(exchange) > 0) {
		if len(rc.routes) >= maxRoutes {
			clear(rc.routes)
		}
		rc.routes[string(rc.scratch)] = r
	}
	return r, nil
}

// findRoute is lookup without the cache.
func (c *Conn) findRoute(exchange, key string) (*route, error) {
	vh := c.vhost()
	if err := c.authorize(auth.Write, "exchange", translate.ResourceName(exchange)); err != nil {
		return nil, err
	}
	x := vh.Exchange(exchange)
	switch {
	case x == nil:
		return nil, vh.NoExchange(exchange)
	case x.Internal:
		return nil, wire.Errorf(wire.CodeAccessRefused, "cannot publish to internal %s", translate.DescribeExchange(exchange, vh.Name))
	}
	if err := c.authorizeTopic(auth.Write, x, key); err != nil {
		return nil, err
	}
	r := &route{exchange: x, key: key}
	if exchange == "" {
		if strings.HasPrefix(key, translate.ReplyToPrefix) {
			r.reply = true
			return r, nil
		}
		if _, err := vh.Find(key); err != nil {
			return nil, err
		}
	}
	r.Routed = vh.Route(x, []string{key}, nil)
	return r, nil
}
