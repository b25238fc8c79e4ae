package httpapi

import (
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/auth"
)

// access is what a route asks of its caller before its handler runs. There is no zero value that
// lets somebody in: a route without an access cannot be registered.
type access uint8

const (
	public    access = iota + 1 // anybody, logged in or not
	loggedIn                    // any user; the handler checks what each item needs
	inVhost                     // a user with any permission in the path's virtual host
	configure                   // … who may configure the path's queue
	write                       // … who may write to it
	read                        // … who may read from it
	see                         // … who may do any of the three, or monitors
	monitor                     // a user with the tag monitoring or administrator
	admin                       // a user with the tag administrator
)

// handler serves one route. An error becomes a problem; nothing may be written before it is
// returned.
type handler func(c *call) error

// route is one method on one path. Segments in braces are parameters.
type route struct {
	method, pattern string
	access          access
	handle          handler
}

// router finds routes. It matches the escaped path segment by segment, so that a name may hold any
// character, a slash as %2F among them, and it never redirects.
type router struct {
	routes []*route
	byLen  map[int][]*compiledRoute
}

type compiledRoute struct {
	*route
	segments []string
}

func (rt *router) add(method, pattern string, a access, h handler) {
	if a < public || a > admin {
		panic("the route " + method + " " + pattern + " declares no access")
	}
	r := &route{method, pattern, a, h}
	segments := strings.Split(pattern[1:], "/")
	rt.routes = append(rt.routes, r)
	if rt.byLen == nil {
		rt.byLen = map[int][]*compiledRoute{}
	}
	rt.byLen[len(segments)] = append(rt.byLen[len(segments)], &compiledRoute{r, segments})
}

// find gives the route for a method and escaped path with the values of its parameters; nil when no
// route has the path. When only other methods have it, route is nil and allowed names them.
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

// authorize checks a route's access for the call's user; the handler runs only when it gives nil.
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
		return nil // authenticate has refused those who are not
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

// maySee lets those see a queue who may do anything to it, and those who monitor.
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
