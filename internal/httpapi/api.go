// Package httpapi is the HTTP door: JSON handlers over the Broker interface, and the server around
// them.
//
// A request passes, in this order: the headers of every answer, the Host and Origin checks, the
// router, login, the route's declared access, the handler. A handler reads and checks its whole
// input before it calls the broker, so a rejected request has no effect.
//
// The files routes_*.go say everything about a route: its path, right, parameters, body, answers
// and errors. The router, the handlers and openapi.json use them. The schema of a request's body
// comes from the function that reads the body (see fields), the schema of an answer from its Go
// type (see schemas).
package httpapi

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"runtime/debug"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/auth"
	"github.com/surgetank/surgetank/internal/door"
	"github.com/surgetank/surgetank/internal/fullname"
	"github.com/surgetank/surgetank/internal/policy"
	"github.com/surgetank/surgetank/internal/settings"
	"github.com/surgetank/surgetank/internal/tally"
)

// Sinks manages the consumers inside Surgetank that write to targets. Specs and descriptions are
// JSON objects whose fields the manager defines. Errors are *surgetank.Error.
type Sinks interface {
	// List describes all sinks, ordered by name.
	List(ctx context.Context) ([]json.RawMessage, error)
	// Get describes one sink: its spec without secrets, and its state.
	Get(ctx context.Context, name string) (json.RawMessage, error)
	// Put creates a sink or replaces its spec, and describes the result. The calling user is
	// auth.UserOf(ctx).
	Put(ctx context.Context, name string, spec json.RawMessage) (info json.RawMessage, created bool, err error)
	Delete(ctx context.Context, name string) error
	Pause(ctx context.Context, name string) error
	// Resume starts a sink again. way is the user's choice about a queue and a target that
	// contradict each other, or empty.
	Resume(ctx context.Context, name, way string) error
	// OnQueue describes the sinks that read a queue, ordered by name.
	OnQueue(queue string) []settings.QueueSink
	// LevelHistory returns the changes of the limits of a queue's sinks, the newest first.
	LevelHistory(queue string) []surgetank.LevelChange
}

// Options are the parts and settings of the API. Broker and Auth are required.
type Options struct {
	Broker door.Broker
	// Policies is the Broker with policies. If it is set, Broker need not be set. Nil: requests
	// about policies are answered with an error.
	Policies *policy.Broker
	Auth     *auth.Store
	Sinks    Sinks // nil: requests about sinks are answered with an error
	Version  string
	Logger   *slog.Logger // nil: no log
	// Collectors are further metrics for /metrics, for example of the log or the AMQP door.
	Collectors []prometheus.Collector
	// Ready returns why the server cannot serve now. Nil: the server can always serve.
	Ready func() error
	// State returns the state of the broker for /readyz, such as "opening". Every client may see it.
	// Nil: it is not shown.
	State func() string
	// Refusing returns why messages are refused while everything else works, as on a full disk.
	// Empty: messages are accepted. Every client may see the reason.
	Refusing func() string
	// TrustLoopback reports whether loopback counts as a login now. If so, requests without
	// credentials from loopback peers run as the local administrator, and all requests must name a
	// loopback host, against DNS rebinding. The function is called for each request. It may return
	// true only while the server listens on loopback alone and has no users of its own. Nil: never.
	TrustLoopback func() bool
	// LocalToken reports whether a text is the token of this machine's programs. A request from
	// loopback with an empty user name and the token as its password runs as the local
	// administrator. Nil: there is no token.
	LocalToken func(string) bool
	// TrustedProxies are the proxies whose headers about their client's address are trusted.
	TrustedProxies []netip.Prefix
	// Hosts are further Host names that are accepted under TrustLoopback.
	Hosts  []string
	Limits Limits
	// Refused counts refusals by limits. Other doors share it. Nil: refusals are not counted.
	Refused *tally.Counts
	Now     func() time.Time // nil: time.Now
}

// Limits limit requests. A zero field means its default, which is the last part of its comment.
type Limits struct {
	MaxBody       int64         // bytes of one publishing request; 64 MiB
	MaxBodies     int64         // bytes of all bodies in memory at a time; 512 MiB; beyond it: busy
	MaxAnswers    int64         // bytes of all messages in unsent answers; 256 MiB; beyond it: busy
	MaxMessage    int           // bytes of one message's body; surgetank.DefaultMaxMessage
	MaxLines      int           // messages of one request; 50,000
	MaxReceive    int           // messages of one receive; 1,000
	MaxReceipts   int           // receipts of one ack, nack or extend; 50,000
	MaxWait       time.Duration // longest wait of a long poll; 60 s
	MinBodyRate   int64         // bytes a second at which a body must arrive, after BodyGrace; 16 KiB/s
	BodyGrace     time.Duration // time before MinBodyRate applies; 10 s
	AcceptWait    time.Duration // how long a publish waits for room in the broker before the answer is busy; 2 s
	Subscriptions int           // open subscriptions over HTTP; 4,096
	SubscriberTTL time.Duration // a subscription without requests for this time is closed; 30 s
}

func (l Limits) withDefaults() Limits {
	def := func(p *int64, v int64) {
		if *p == 0 {
			*p = v
		}
	}
	defInt := func(p *int, v int) {
		if *p == 0 {
			*p = v
		}
	}
	defDur := func(p *time.Duration, v time.Duration) {
		if *p == 0 {
			*p = v
		}
	}
	def(&l.MaxBody, 64<<20)
	def(&l.MaxBodies, 512<<20)
	def(&l.MaxAnswers, 256<<20)
	defInt(&l.MaxMessage, surgetank.DefaultMaxMessage)
	defInt(&l.MaxLines, 50_000)
	defInt(&l.MaxReceive, 1000)
	defInt(&l.MaxReceipts, 50_000)
	defDur(&l.MaxWait, time.Minute)
	def(&l.MinBodyRate, 16<<10)
	defDur(&l.BodyGrace, 10*time.Second)
	defDur(&l.AcceptWait, 2*time.Second)
	defInt(&l.Subscriptions, 4096)
	defDur(&l.SubscriberTTL, 30*time.Second)
	return l
}

// Limits of the JSON in requests.
const (
	maxControlBody = 4 << 20 // bytes of a request that publishes nothing
	maxBodyDepth   = 256     // nesting of a message's JSON body
	maxJSONDepth   = 32      // nesting of a request's own JSON
)

//go:embed openapi.json
var openAPI []byte

// API is the handler of every route. Its fields do not change after New.
type API struct {
	opts    Options
	limits  Limits
	router  router
	origins *http.CrossOriginProtection
	bodies  budget
	answers budget
	names   queueNames
	subs    subscribers
	metrics *metrics
	hideout sync.Once       // the log gets one line about an untrusted proxy
	base    context.Context // ended by Close
	close   context.CancelFunc
}

// Close ends long polls and subscriptions, so a server can shut down without waiting for them. Call
// it before closing the broker. Later requests are served if they need neither.
func (a *API) Close() {
	a.close()
	a.subs.closeAll()
}

// New makes the handler of all routes.
func New(o Options) *API {
	if o.Policies != nil {
		o.Broker = o.Policies
	}
	if o.Broker == nil || o.Auth == nil {
		panic("httpapi: Options.Broker and Options.Auth must be set")
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	a := &API{opts: o, limits: o.Limits.withDefaults(), origins: http.NewCrossOriginProtection()}
	a.bodies.max, a.answers.max = a.limits.MaxBodies, a.limits.MaxAnswers
	a.base, a.close = context.WithCancel(context.Background())
	a.metrics = newMetrics(a)
	a.routes()
	return a
}

// routes defines all routes. The files routes_*.go have them, and openapi.json is made from them.
func (a *API) routes() {
	for _, r := range allRoutes(&a.limits) {
		a.router.add(r)
	}
}

func allRoutes(l *Limits) []route {
	return slices.Concat(healthRoutes(), inEveryVhost(queueRoutes()), inEveryVhost(messageRoutes(l)), sharedRoutes(), sinkRoutes(), accessRoutes(), policyRoutes())
}

// call is one request.
type call struct {
	api    *API
	w      *response
	r      *http.Request
	route  *route
	params map[string]string
	user   *auth.User
	looked bool // queueNames has asked the broker during this request
}

func (c *call) vhost() string {
	if v, ok := c.params["v"]; ok {
		return v
	}
	return fullname.DefaultVhost
}

// queue returns the full name of the path's queue.
func (c *call) queue() string { return fullname.Of(c.vhost(), c.params["q"]) }

// broker returns the broker with the rights of the call's user. Without policies, only the access
// checks of the routes protect the broker.
func (c *call) broker() door.Broker {
	if p := c.api.opts.Policies; p != nil {
		return p.For(c.user)
	}
	return c.api.opts.Broker
}

// response records whether something was written.
type response struct {
	http.ResponseWriter
	status int
}

func (w *response) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *response) Write(b []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	return w.ResponseWriter.Write(b)
}

// Unwrap lets http.ResponseController reach the connection.
func (w *response) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// ServeHTTP serves one request. The package comment has the order of the steps.
func (a *API) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	c := &call{api: a, w: &response{ResponseWriter: rw}, r: r}
	started := a.opts.Now()
	defer func() {
		if p := recover(); p != nil {
			if p == http.ErrAbortHandler {
				panic(p)
			}
			a.opts.Logger.Error("a request failed", "panic", p, "route", c.pattern(), "stack", string(debug.Stack()))
			c.fail(surgetank.Errorf(surgetank.CodeInternal, "an internal error happened; the server's log has the details"))
		}
		a.metrics.observe(c, a.opts.Now().Sub(started))
	}()
	if err := c.serve(); err != nil {
		c.fail(err)
	}
}

func (c *call) serve() error {
	securityHeaders(c.w.Header())
	if c.r.ContentLength != 0 {
		// net/http reads an unread body of a refused request before and after the answer. Without a
		// deadline a silent peer would keep the connection open for ever. readBody removes the
		// deadline when the whole body is read.
		_ = http.NewResponseController(c.w).SetReadDeadline(time.Now().Add(c.api.limits.BodyGrace)) // only a test's writer has no deadlines
	}
	if len(c.r.TransferEncoding) > 0 {
		// The request may have had a Content-Length, too, which net/http does not show. A proxy in
		// front may then see another end of the body. Bytes after the body must not be read as
		// another request (RFC 9112, section 6.1).
		c.w.Header().Set("Connection", "close")
	}
	if err := c.checkOrigin(); err != nil {
		return err
	}
	found, params, allowed := c.api.router.find(c.r.Method, c.r.URL.EscapedPath())
	c.route, c.params = found, params
	if found == nil || found.access != public {
		var err error
		if c.user, err = c.authenticate(); err != nil {
			return err
		}
	}
	if found == nil {
		return c.notRouted(allowed)
	}
	if err := c.authorize(found.access); err != nil {
		return err
	}
	if v, ok := params["v"]; ok {
		if err := surgetank.ValidateName("virtual host", v); err != nil {
			return err
		}
	}
	return found.handle(c)
}

func (c *call) notRouted(allowed []string) error {
	if len(allowed) == 0 {
		return surgetank.Errorf(surgetank.CodeNotFound, "this path does not exist; /v1/openapi.json lists all paths")
	}
	var list bytes.Buffer
	for i, m := range allowed {
		if i > 0 {
			list.WriteString(", ")
		}
		list.WriteString(m)
	}
	c.w.Header().Set("Allow", list.String())
	return withStatus(http.StatusMethodNotAllowed, surgetank.Errorf(surgetank.CodeInvalid, "this path allows only the methods %s", list.String()))
}

// pattern is the route's name in metrics and logs. The path itself comes from the client and has no
// limit.
func (c *call) pattern() string {
	if c.route == nil {
		return "none"
	}
	return c.route.pattern
}

// fail answers with a problem, unless an answer has begun.
func (c *call) fail(err error) {
	if c.w.status != 0 {
		return
	}
	p := problemOf(err)
	c.countRefusal(p.Code, err)
	if p.Status >= 500 && p.Code != surgetank.CodeClosed {
		c.api.opts.Logger.Error("a request failed", "route", c.pattern(), "code", p.Code, "error", err)
	}
	var partly *partialError
	if errors.As(err, &partly) {
		p.partial = &partly.partial
	}
	p.write(c.w)
}

// countRefusal counts a request that a limit refused. It skips refusals that are counted elsewhere
// (queues, logins, subscriptions).
func (c *call) countRefusal(code surgetank.Code, err error) {
	switch {
	case code == surgetank.CodeTooLarge && c.r.Method != http.MethodPut:
		c.api.opts.Refused.Add(tally.MessageSize)
	case errors.Is(err, errMemory):
		c.api.opts.Refused.Add(tally.Memory)
	}
}

// respond sends v as JSON.
func (c *call) respond(status int, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return surgetank.Errorf(surgetank.CodeInternal, "the answer could not be encoded: %w", err)
	}
	return c.respondRaw(status, append(b, '\n'))
}

// respondRaw sends JSON text. The error is an error of the connection; a caller with leases for the
// client then returns the leases.
func (c *call) respondRaw(status int, b []byte) error {
	c.w.Header().Set("Content-Type", "application/json")
	return send(c.w, status, b)
}

// send writes a whole answer, with enough time for a slow but living client.
func send(w http.ResponseWriter, status int, b []byte) error {
	deadline := time.Now().Add(30*time.Second + time.Duration(len(b))*time.Second/(16<<10))
	_ = http.NewResponseController(w).SetWriteDeadline(deadline) // not every writer has a deadline, and then none is needed
	w.Header().Set("Content-Length", strconv.Itoa(len(b)))
	w.WriteHeader(status)
	_, err := w.Write(b)
	return err
}
