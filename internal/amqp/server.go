package amqp

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/amqp/wire"
	"github.com/surgetank/surgetank/internal/auth"
	"github.com/surgetank/surgetank/internal/clock"
	"github.com/surgetank/surgetank/internal/lobby"
	"github.com/surgetank/surgetank/internal/policy"
	"github.com/surgetank/surgetank/internal/tally"
)

// Options are what a Server is made of. Broker (or Policies) and Auth are required; every other zero value works.
type Options struct {
	Broker surgetank.Broker
	// Policies is the broker with policies in front, shared with the other doors. Nil: the server puts it in front of Broker itself.
	Policies *policy.Broker
	Auth     *auth.Store
	Limits   Limits
	// Product and Version are what the server properties say. Clients switch on "RabbitMQ" and parse the version as
	// dotted numbers, so those are the defaults' form; Surgetank's own name stands beside them.
	Product, Version string
	OwnVersion       string
	Logger           *slog.Logger
	Clock            clock.Clock
	// HTTPPeer gives the address that a request of the management interface comes from. Nil: the connection's peer.
	HTTPPeer func(*http.Request) netip.Addr
	// Refused counts what limits refused, shared with the other doors. Nil: it is not counted.
	Refused *tally.Counts
}

// Server is the AMQP door of one broker. All methods may be called by many goroutines.
type Server struct {
	broker surgetank.Broker // with policies in front
	auth   *auth.Store
	limits Limits
	log    *slog.Logger
	clock  clock.Clock
	props  wire.Table

	httpPeer func(*http.Request) netip.Addr

	policies *policy.Broker
	unwatch  func()

	ctx     context.Context // ends with Shutdown
	cancel  context.CancelFunc
	workers sync.WaitGroup
	replies replyTable
	lobby   *lobby.Lobby // has the connections that have not logged in

	departures *lobby.Lobby // has the connections that wait for their clients to hang up
	stopping   atomic.Bool  // Shutdown has begun

	turned  turned
	refused *tally.Counts
	counted counted
	budget  budget
	alarm   atomic.Pointer[alarm]

	mu        sync.Mutex
	vhosts    map[string]*vhost
	listeners map[net.Listener]struct{}
	conns     map[*conn]struct{}
	closing   bool
	idle      chan struct{} // closed when the last connection ended after closing
	alarms    map[string]struct{}
}

// alarm is why publishers are held back; over is closed when it changes.
type alarm struct {
	reason string // "" when nobody is held back
	over   chan struct{}
}

// NewServer reads the durable topology and makes a Server. It starts work of its own (dead letters, expiry) that ends with Shutdown.
func NewServer(ctx context.Context, o Options) (*Server, error) {
	if o.Broker == nil && o.Policies == nil || o.Auth == nil {
		return nil, surgetank.Errorf(surgetank.CodeInvalid, "the AMQP server needs a broker and an auth store")
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Clock == nil {
		o.Clock = clock.Real{}
	}
	if o.Policies == nil {
		var err error
		if o.Policies, err = policy.Open(ctx, o.Broker, o.Auth, o.Logger); err != nil {
			return nil, err
		}
		o.Policies.Refused = o.Refused
	}
	s := &Server{
		broker: o.Policies, policies: o.Policies, auth: o.Auth, limits: o.Limits.withDefaults(), log: o.Logger, clock: o.Clock, props: serverProperties(o), httpPeer: o.HTTPPeer, refused: o.Refused,
		vhosts: map[string]*vhost{}, listeners: map[net.Listener]struct{}{}, conns: map[*conn]struct{}{},
		idle: make(chan struct{}), alarms: map[string]struct{}{},
	}
	s.budget.srv = s
	s.lobby = lobby.New(s.limits.MaxStrangers, s.limits.MaxStrangersPerPeer)
	s.departures = lobby.New(s.limits.MaxStrangers, s.limits.MaxStrangers)
	s.alarm.Store(&alarm{over: make(chan struct{})})
	s.ctx, s.cancel = context.WithCancel(context.WithoutCancel(ctx))
	if err := s.load(ctx); err != nil {
		s.cancel()
		return nil, err
	}
	if err := s.typesKnown(ctx); err != nil {
		s.cancel()
		return nil, err
	}
	for _, vh := range s.vhosts {
		if err := vh.resumeDeadLetters(ctx); err != nil {
			s.cancel()
			s.workers.Wait()
			return nil, err
		}
	}
	s.unwatch = s.policies.Watch(s.policiesChanged)
	s.policiesChanged() // what changed while the topology was read
	s.background(s.watchAuth)
	s.background(s.janitor)
	return s, nil
}

func serverProperties(o Options) wire.Table {
	if o.Product == "" {
		o.Product = "RabbitMQ"
	}
	if o.Version == "" {
		o.Version = "3.13.0"
	}
	caps := wire.Table(nil)
	for _, c := range []string{"publisher_confirms", "exchange_exchange_bindings", "basic.nack", "consumer_cancel_notify",
		"connection.blocked", "consumer_priorities", "authentication_failure_close", "per_consumer_qos", "direct_reply_to"} {
		caps = caps.AddBool(c, true)
	}
	return wire.Table(nil).AddTable("capabilities", caps).
		AddString("cluster_name", "surgetank").
		AddString("copyright", "The Surgetank authors").
		AddString("information", "Licensed under the Apache License 2.0. This is Surgetank, which speaks RabbitMQ's protocol.").
		AddString("platform", "Go").
		AddString("product", o.Product).
		AddString("version", o.Version).
		AddString("surgetank", o.OwnVersion)
}

// background runs f until it ends; Shutdown waits for it. After Shutdown nothing new starts.
func (s *Server) background(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx.Err() != nil {
		return
	}
	s.workers.Go(f)
}

// Serve takes connections from l until Shutdown or until l fails. It closes l.
func (s *Server) Serve(l net.Listener) error {
	s.mu.Lock()
	if s.closing {
		s.mu.Unlock()
		l.Close()
		return surgetank.Errorf(surgetank.CodeClosed, "the AMQP server is shut down")
	}
	s.listeners[l] = struct{}{}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.listeners, l)
		s.mu.Unlock()
		l.Close()
	}()
	var pause time.Duration
	for {
		nc, err := l.Accept()
		if err == nil {
			pause = 0
			s.accept(nc)
			continue
		}
		s.mu.Lock()
		closing := s.closing
		s.mu.Unlock()
		if closing {
			return nil
		}
		if errors.Is(err, net.ErrClosed) {
			return err
		}
		// Out of file descriptors, or a peer that gave up: wait, and go on.
		pause = min(max(2*pause, 5*time.Millisecond), time.Second)
		s.log.Warn("an AMQP connection could not be accepted", "err", err, "retry_in", pause)
		t := s.clock.NewTimer(pause)
		select {
		case <-t.C():
		case <-s.ctx.Done():
			t.Stop()
			return nil
		}
	}
}

// ServeConn serves one connection that was accepted elsewhere, in the background.
func (s *Server) ServeConn(nc net.Conn) { s.accept(nc) }

// Shutdown stops listening, closes every connection with reply code 320, and waits for all of it; what still
// runs when ctx ends is cut off. The broker stays open.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	if s.closing {
		s.mu.Unlock()
		<-s.idle
		return nil
	}
	s.closing = true
	s.stopping.Store(true)
	for l := range s.listeners {
		l.Close()
	}
	conns := s.connsLocked()
	if len(conns) == 0 {
		close(s.idle)
	}
	s.mu.Unlock()
	for _, c := range conns {
		if !c.kick(wire.Errorf(wire.CodeConnectionForced, "broker forced connection closure with reason 'shutdown'")) {
			c.nc.SetReadDeadline(time.Unix(1, 0)) // it may be waiting for its client to hang up
		}
	}
	var err error
	select {
	case <-s.idle:
	case <-ctx.Done():
		err = ctx.Err()
		for _, c := range conns {
			c.nc.Close()
		}
		<-s.idle
	}
	s.unwatch()
	s.mu.Lock()
	s.cancel() // no background work starts from here on
	s.mu.Unlock()
	s.workers.Wait()
	return err
}

func (s *Server) connsLocked() []*conn {
	list := make([]*conn, 0, len(s.conns))
	for c := range s.conns {
		list = append(list, c)
	}
	return list
}

func (s *Server) connections() []*conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.connsLocked()
}

// SetAlarm turns a reason to hold publishers back on or off, as "low on disk" or "low on memory". While any is on,
// connections that publish are told (connection.blocked) and not read further.
func (s *Server) SetAlarm(reason string, on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, is := s.alarms[reason]; is == on {
		return
	}
	if on {
		s.alarms[reason] = struct{}{}
	} else {
		delete(s.alarms, reason)
	}
	reasons := make([]string, 0, len(s.alarms))
	for r := range s.alarms {
		reasons = append(reasons, r)
	}
	sort.Strings(reasons)
	old := s.alarm.Swap(&alarm{reason: strings.Join(reasons, " & "), over: make(chan struct{})})
	close(old.over)
}

// vhost gives the topology of a virtual host that exists.
func (s *Server) vhost(name string) *vhost {
	s.mu.Lock()
	defer s.mu.Unlock()
	vh := s.vhosts[name]
	if vh == nil && s.auth.VhostExists(name) {
		vh = newVhost(s, name)
		s.vhosts[name] = vh
	}
	return vh
}

// watchAuth ends connections whose user or virtual host is deleted, and forgets the topology of the latter.
func (s *Server) watchAuth() {
	for {
		changed := s.auth.Changed()
		for _, c := range s.connections() {
			user, vh := c.identity()
			if user == nil || vh == nil || c.over.Load() {
				continue
			}
			switch err := s.auth.AuthorizeVhost(user, vh.name); {
			case surgetank.CodeOf(err) == surgetank.CodeNotFound:
				c.kick(wire.Errorf(wire.CodeConnectionForced, "vhost '%s' is down", vh.name))
			case err != nil && !s.userExists(user.Name):
				c.kick(wire.Errorf(wire.CodeConnectionForced, "user '%s' is deleted", user.Name))
			}
		}
		s.mu.Lock()
		var gone []*vhost
		for name, vh := range s.vhosts {
			if !s.auth.VhostExists(name) {
				delete(s.vhosts, name)
				gone = append(gone, vh)
			}
		}
		s.mu.Unlock()
		for _, vh := range gone {
			vh.drop()
		}
		select {
		case <-changed:
		case <-s.ctx.Done():
			return
		}
	}
}

func (s *Server) userExists(name string) bool {
	_, err := s.auth.GetUser(name)
	return err == nil
}

// drop forgets the topology of a virtual host that was deleted; its queues are already gone.
func (vh *vhost) drop() {
	var t trash
	vh.mu.Lock()
	vh.gone = true
	for _, q := range vh.queues {
		vh.removeQueue(q, &t)
	}
	for _, x := range vh.exchanges {
		vh.removeExchange(x, &t)
	}
	vh.mu.Unlock()
	vh.deadLetters.stop()
	vh.sweep(t)
	if _, err := vh.srv.broker.DeleteQueue(vh.srv.ctx, deadLetterQueue(vh.name), surgetank.DeleteOptions{}); err != nil &&
		surgetank.CodeOf(err) != surgetank.CodeNotFound {
		vh.srv.log.Warn("the dead-letter passage of a deleted virtual host could not be removed", "vhost", vh.name, "err", err)
	}
}
