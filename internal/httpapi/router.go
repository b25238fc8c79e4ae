package httpapi

import (
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/auth"
)

// access is the right that a route requires before its handler runs. The zero value lets nobody in:
// a route without an access cannot be registered.
type access uint8

const (
	public    access = iota + 1 // every client, logged in or not
	loggedIn                    // any user; the handler checks what each item needs
	inVhost                     // a user with any permission in the path's virtual host
	configure                   // … with permission to configure the path's queue
	write                       // … with permission to write to it
	read                        // … with permission to read from it
	see                         // … with any of the three, or a monitor
	monitor                     // a user with the tag monitoring or administrator
	admin                       // a user with the tag administrator
)

// handler serves one route. Its error becomes a problem object; it must not write anything before
// it returns an error.
type handler func(c *call) error

// router finds routes. It matches the escaped path segment by segment, so a name may contain any
// character, including a slash as %2F. It never redirects.
type router struct {
	routes []*route
	byLen  map[int][]*compiledRoute
}

type compiledRoute struct {
	*route
	segments []string
}

func (rt *router) add(r route) {
	if r.access < public || r.access > admin {
		panic("the route " + r.method + " " + r.pattern + " declares no access")
	}
	segments := strings.Split(r.pattern[1:], "/")
	rt.routes = append(rt.routes, &r)
	if rt.byLen == nil {
		rt.byLen = map[int][]*compiledRoute{}
	}
	rt.byLen[len(segments)] = append(rt.byLen[len(segments)], &compiledRoute{&r, segments})
}

// find returns the route for a method and an escaped path, and the values of its parameters. If no
// route has the path, it returns nil. If the path has routes for other methods only, route is nil
// and allowed names these methods.
func (rt *router) find(method, escapedPath string) (r *route, params map[string]string, allowed []string) {
	if len(escapedPath) == 0 || escapedPath[0] != '/' {
		return nil, nil, nil
	}
	raw := strings.Split(escapedPath[1:], "/")
	segments := make([]string, len(raw))
	for i, s := range raw {
		plain, err := url.PathUnescape(s)
		if err != nil || plain == "" {
			return nil, nil, nil
		}
		segments[i] = plain
	}
	for _, c := range rt.byLen[len(segments)] {
		values, ok := c.match(segments)
		switch {
		case !ok:
		case c.method == method || method == http.MethodHead && c.method == http.MethodGet:
			return c.route, values, nil
		case !slices.Contains(allowed, c.method):
			allowed = append(allowed, c.method)
		}
	}
	return nil, nil, allowed
}

func (c *compiledRoute) match(segments []string) (map[string]string, bool) {
	var values map[string]string
	for i, want := range c.segments {
		if name, isParam := strings.CutPrefix(want, "{"); isParam {
			if values == nil {
				values = make(map[string]string, 2)
			}
			values[strings.TrimSuffix(name, "}")] = segments[i]
		} else if want != segments[i] {
			return nil, false
		}
	}
	return values, true
}

// authorize checks a route's access for the call's user. The handler runs only if it returns nil.
func (c *call) authorize(a access) error {
	store := c.api.opts.Auth
	vhost, queue := c.vhost(), c.params["q"]
	if queue != "" {
		if err := surgetank.ValidateName("queue", queue); err != nil {
			return err
		}
	}
	switch a {
	case public:
		return nil
	case loggedIn:
		return nil // authenticate has rejected everyone else
	case inVhost:
		return store.AuthorizeVhost(c.user, vhost)
	case configure:
		return store.Authorize(c.user, vhost, auth.Configure, queue)
	case write:
		return store.Authorize(c.user, vhost, auth.Write, queue)
	case read:
		return store.Authorize(c.user, vhost, auth.Read, queue)
	case see:
		return c.maySee(vhost, queue)
	case monitor:
		return store.AuthorizeMonitor(c.user)
	case admin:
		return store.AuthorizeAdmin(c.user)
	}
	return surgetank.Errorf(surgetank.CodeInternal, "the route declares no access")
}

// maySee returns nil for users with any permission on the queue, and for monitors.
func (c *call) maySee(vhost, queue string) error {
	store := c.api.opts.Auth
	if store.AuthorizeMonitor(c.user) == nil && store.VhostExists(vhost) {
		return nil
	}
	err := store.Authorize(c.user, vhost, auth.Read, queue)
	if surgetank.CodeOf(err) == surgetank.CodeDenied &&
		(store.Authorize(c.user, vhost, auth.Write, queue) == nil || store.Authorize(c.user, vhost, auth.Configure, queue) == nil) {
		return nil
	}
	return err
}
