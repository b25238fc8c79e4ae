// Package client connects to a Surgetank server over HTTP. A Client implements surgetank.Broker.
//
// The client sends one publish request and one settle request at a time. Calls that arrive during a
// request share the next one. Many callers of Publish, or one of PublishAsync, share round trips. A
// subscription is a long poll that the package repeats. If the server loses the subscription, as in
// a restart, the package attaches it again; see Client.Subscribe.
//
// While the server is away, the client repeats safe requests for Options.RetryFor. A request is
// safe if it never left this machine, if the server refused it as busy, if it only reads, or if it
// publishes. The client numbers its messages under a random publisher id, so the server stores a
// repeated message once.
//
// If a request may have been done and could not be repeated in time, the error is CodeUncertain. If
// a request did not reach the server in time, the error is CodeUnavailable. Both are passing errors
// (surgetank.Passing): the next request can succeed.
//
// A program that repeats messages itself after CodeUncertain sets its own publisher and numbers.
// See surgetank.Publishing.
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
	"github.com/surgetank/surgetank/internal/fullname"
)

// Options are the settings of one client. The zero value is valid for a server on this machine.
type Options struct {
	// User and Password log in with HTTP Basic. The URL can contain them instead. Without them, the
	// server must run on this machine and have no users. Password without User is the token in the
	// file local.token of the server's data directory.
	User, Password string
	// Transport sends the requests, for example with TLS settings or a proxy. nil: the client's own
	// transport.
	Transport http.RoundTripper
	// RetryFor is how long safe requests are repeated while the server is away; 0: 30 s; negative:
	// no repeats.
	RetryFor time.Duration
	// Timeout is how long one request may take, without the wait for messages; 0: 60 s.
	Timeout time.Duration
	// MaxBatch and MaxBatchBytes limit the messages of one request; 0: 10,000 and 4 MiB. A larger
	// message is sent alone.
	MaxBatch, MaxBatchBytes int
	// MaxPending limits the bytes of messages that wait to be sent; 0: 64 MiB. At the limit
	// PublishAsync waits.
	MaxPending int64
	// Logger gets events outside calls: a subscription that was attached again, a caller's function
	// that failed. nil: no log.
	Logger *slog.Logger
}

// Client is a connection to the broker of a server. It implements surgetank.Broker.
type Client struct {
	opts Options
	base string // scheme and host, without a slash at the end
	http *http.Client

	ctx    context.Context // ends when Close has finished
	cancel context.CancelFunc

	publisher publisher
	settler   settler
	pollers   sync.WaitGroup

	mu     sync.Mutex
	closed bool
	subs   map[*subscription]struct{}

	calls callback.Calls
}

var _ surgetank.Broker = (*Client)(nil)

// Dial makes a client for the server at an address such as "http://127.0.0.1:8080". It sends one
// request, so that a wrong address, user or password fails here. It waits up to Options.RetryFor
// for a server that is not there yet.
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
	c := &Client{opts: opts, base: u.Scheme + "://" + u.Host, subs: map[*subscription]struct{}{}}
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

// Close sends accepted messages and settlements, closes the subscriptions, and ends the client. The
// server continues.
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
		_ = s.Close() // a server that cannot be reached closes it by itself
	}
	c.settler.finish()
	c.cancel()
	c.pollers.Wait()
	if t, ok := c.http.Transport.(*http.Transport); ok && c.opts.Transport == nil {
		t.CloseIdleConnections()
	}
	return nil
}

// CallbackFailures counts the caller's functions that panicked or ended their goroutine.
func (c *Client) CallbackFailures() int64 { return c.calls.Failures() }

// guarded is the caller's transport. If the transport panics, the request fails with an error.
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

// alive returns CodeClosed after Close, and for a client that Dial did not make.
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

// QueueName returns the name of a virtual host's queue for the methods of a Client. Queues of the
// virtual host "/" have plain names, so most programs do not need it.
func QueueName(vhost, queue string) string { return fullname.Of(vhost, queue) }

// SplitQueueName splits the name of a queue, as QueueName makes it, into virtual host and queue.
func SplitQueueName(name string) (vhost, queue string) { return fullname.Split(name) }
