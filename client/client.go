// Package client reaches a Surgetank server over HTTP and is a surgetank.Broker like any other.
//
// Messages and settlements that are handed over while a request is under way go together in the
// next one, so that many callers of Publish (or one of PublishAsync) share round trips. A
// subscription is a long poll that the package keeps going. When the server loses it, as at a
// restart, the package attaches it again; see Client.Subscribe.
//
// What can be repeated safely is repeated while the server is away, for Options.RetryFor: requests
// that never left this machine, requests the server refused as busy, reads, and publishing. The
// client numbers its messages under a random publisher id, so a message that is sent again is
// stored once. What may have happened and cannot be repeated, or could not be repeated in time, is
// CodeUncertain. A request that did not reach the server in that time is CodeUnavailable. Both are
// passing errors (surgetank.Passing): they say nothing against the next request.
//
// A program that repeats messages by itself after CodeUncertain gives them a publisher and numbers
// of its own. See surgetank.Publishing.
package client

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/callback"
)

// Options are those of one client. The zero value is good for a server on this machine.
type Options struct {
	// User and Password log in with HTTP Basic; a URL may hold them instead. Without them the
	// server must have no users yet and run on this machine. With Password alone it is the token in
	// the server's data directory, local.token.
	User, Password string
	// Transport is what requests go through, for TLS settings or proxies; nil: a transport of the
	// client's own.
	Transport http.RoundTripper
	// RetryFor is how long requests that are safe to repeat are repeated while the server is away;
	// 0: 30 s; negative: not at all.
	RetryFor time.Duration
	// Timeout is how long one request may take, waiting for messages aside; 0: 60 s.
	Timeout time.Duration
	// MaxBatch and MaxBatchBytes bound the messages of one request; 0: 10,000 and 4 MiB. A larger
	// message goes alone.
	MaxBatch, MaxBatchBytes int
	// MaxPending is how many bytes of messages may wait here; beyond it PublishAsync blocks; 0: 64
	// MiB.
	MaxPending int64
	// Logger gets what happens beside the calls: a subscription that was lost and attached again, a
	// function of yours that failed. nil: nothing is logged.
	Logger *slog.Logger
}

// Client is a broker on a server. It implements surgetank.Broker.
type Client struct {
	opts Options
	base string // scheme and host, no slash at the end
	http *http.Client

	ctx    context.Context // ends when Close has finished
	cancel context.CancelFunc

	publisher publisher
	settler   settler
	pollers   sync.WaitGroup

	mu     sync.Mutex
	closed bool
	subs   map[*subscription]struct{}
	pools  string         // makes this client's pool names its own
	limits map[uint64]int // of pools, as they were set last

	calls callback.Calls
}

var _ surgetank.Broker = (*Client)(nil)

// Dial makes a client of the server at an address such as "http://127.0.0.1:8080" and asks it who
// we are, so that a wrong address, user or password shows now. It waits for a server that is not
// there yet as long as Options.RetryFor says.
func Dial(address string, opts Options) (*Client, error) {
	u, err := url.Parse(address)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https":
		return nil, surgetank.FieldErrorf("url", "the server's address must look like http://127.0.0.1:8080")
	case strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "":
		return nil, surgetank.FieldErrorf("url", "the server's address has a path or parameters; leave them out")
	}
	if u.User != nil && opts.User == "" {
		opts.User = u.User.Username()
		opts.Password, _ = u.User.Password()
	}
	opts.fill()
	c := &Client{opts: opts, base: u.Scheme + "://" + u.Host, subs: map[*subscription]struct{}{}, pools: newName(), limits: map[uint64]int{}}
	c.calls.Logger = opts.Logger
	var transport http.RoundTripper = &guarded{&c.calls, opts.Transport}
	if opts.Transport == nil {
		transport = &http.Transport{
			Proxy: http.ProxyFromEnvironment, DialContext: (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
			MaxIdleConnsPerHost: 64, IdleConnTimeout: time.Minute, TLSHandshakeTimeout: 10 * time.Second, DisableCompression: true,
		}
	}
	c.http = &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.publisher.init(c)
	c.settler.init(c)
	if err := c.call(c.ctx, request{method: "GET", path: "/v1/whoami", repeat: true}, nil); err != nil {
		_ = c.Close()
		return nil, plain(err)
	}
	return c, nil
}

func (o *Options) fill() {
	if o.RetryFor == 0 {
		o.RetryFor = 30 * time.Second
	}
	if o.Timeout <= 0 {
		o.Timeout = time.Minute
	}
	if o.MaxBatch <= 0 {
		o.MaxBatch = 10_000
	}
	o.MaxBatch = min(o.MaxBatch, 50_000)
	if o.MaxBatchBytes <= 0 {
		o.MaxBatchBytes = 4 << 20
	}
	if o.MaxPending <= 0 {
		o.MaxPending = 64 << 20
	}
	o.Logger = callback.Logger(o.Logger)
}

// Close sends what was accepted, closes the subscriptions, and ends the client. The server goes on.
func (c *Client) Close() error {
	if c == nil || c.http == nil {
		return nil
	}
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil
	}
	c.closed = true
	var subs []*subscription
	for s := range c.subs {
		subs = append(subs, s)
	}
	c.mu.Unlock()
	c.publisher.finish()
	for _, s := range subs {
		_ = s.Close() // a server that is away closes it by itself
	}
	c.settler.finish()
	c.cancel()
	c.pollers.Wait()
	if t, ok := c.http.Transport.(*http.Transport); ok && c.opts.Transport == nil {
		t.CloseIdleConnections()
	}
	return nil
}

// CallbackFailures counts the calls of users' functions that panicked or ended their goroutine.
func (c *Client) CallbackFailures() int64 { return c.calls.Failures() }

// guarded is a user's transport. One that fails makes an error.
type guarded struct {
	calls *callback.Calls
	inner http.RoundTripper
}

// RoundTrip sends a request.
func (g *guarded) RoundTrip(r *http.Request) (res *http.Response, err error) {
	if f := g.calls.Apart("Options.Transport", func() { res, err = g.inner.RoundTrip(r) }); f != nil {
		return nil, f
	}
	if res == nil && err == nil {
		err = errors.New("Options.Transport returned neither a response nor an error")
	}
	return res, err
}

// alive refuses calls after Close, and of a client that Dial did not make.
func (c *Client) alive() error {
	if c == nil || c.http == nil {
		return surgetank.Errorf(surgetank.CodeClosed, "the client was not dialled; make one with client.Dial")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return errClosed()
	}
	return nil
}

func noContext() error {
	return surgetank.FieldErrorf("ctx", "the context is nil; pass one, such as context.Background()")
}

func errClosed() error {
	return surgetank.Errorf(surgetank.CodeClosed, "the client was closed; dial again")
}
