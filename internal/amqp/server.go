package amqp

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/amqp/management"
	"github.com/surgetank/surgetank/internal/amqp/session"
	"github.com/surgetank/surgetank/internal/amqp/topology"
	"github.com/surgetank/surgetank/internal/amqp/wire"
	"github.com/surgetank/surgetank/internal/auth"
	"github.com/surgetank/surgetank/internal/clock"
	"github.com/surgetank/surgetank/internal/door"
	"github.com/surgetank/surgetank/internal/lobby"
	"github.com/surgetank/surgetank/internal/policy"
	"github.com/surgetank/surgetank/internal/tally"
)

// Limits bound the memory and the number of things that clients can use. Zero fields have defaults.
type Limits = session.Limits

// Options configure a Server. Auth is required, and so is either Broker or Policies. All other
// fields can be zero.
type Options struct {
	Broker door.Broker
	// Policies is the broker that applies policies. The other doors share it. Nil: the server makes
	// one from Broker.
	Policies *policy.Broker
	Auth     *auth.Store
	Limits   Limits
	// Product and Version are sent in the server properties. Clients compare the product with
	// "RabbitMQ" and parse the version as dotted numbers, so the defaults have that form. Another
	// property has Surgetank's own name.
	Product, Version string
	OwnVersion       string
	Logger           *slog.Logger
	Clock            clock.Clock
	// HTTPPeer returns the address of the peer that sent a request to the management API. Nil: the
	// address of the HTTP connection's peer.
	HTTPPeer func(*http.Request) netip.Addr
	// Refused counts the refusals of limits, shared with the other doors. Nil: nothing is counted.
	Refused *tally.Counts
}

// Server is the AMQP door of one broker. Many goroutines may call its methods at once.
type Server struct {
	broker   door.Broker // the broker that applies policies
	policies *policy.Broker
	auth     *auth.Store
	limits   Limits
	log      *slog.Logger
	clock    clock.Clock
	vhosts   *topology.Registry
	shared   *session.Shared

	ctx     context.Context // ends with Shutdown
	cancel  context.CancelFunc
	unwatch func()
	workers sync.WaitGroup
	lobby   *lobby.Lobby // the connections that have not logged in
	turned  turned

	refused  *tally.Counts
	accepted atomic.Uint64 // number of accepted connections

	management http.Handler

	mu        sync.Mutex
	listeners map[net.Listener]struct{}
	conns     map[*session.Conn]struct{}
	closing   bool
	idle      chan struct{} // closed when the server is closing and its last connection has ended
}

// NewServer reads the durable topology and makes a Server. It starts background work for dead
// letters and expiry. Shutdown ends this work.
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
	limits := o.Limits.WithDefaults()
	s := &Server{broker: o.Policies, policies: o.Policies, auth: o.Auth, limits: limits, log: o.Logger, clock: o.Clock, refused: o.Refused,
		listeners: map[net.Listener]struct{}{}, conns: map[*session.Conn]struct{}{}, idle: make(chan struct{}),
		lobby: lobby.New(limits.MaxBeforeLogin, limits.MaxBeforeLoginPerPeer)}
	e := &topology.Env{Broker: o.Policies, Policies: o.Policies, Auth: o.Auth, Log: o.Logger, Clock: o.Clock, Refused: o.Refused, Background: s.background,
		MaxExchanges: limits.MaxExchanges, MaxBindings: limits.MaxBindings}
	s.ctx, s.cancel = context.WithCancel(context.WithoutCancel(ctx))
	e.Context = s.ctx
	var err error
	if s.vhosts, err = topology.Open(ctx, e); err != nil {
		s.cancel()
		s.workers.Wait()
		return nil, err
	}
	s.shared = session.NewShared(e, s.vhosts, limits, serverProperties(o))
	s.management = management.New(s, o.Auth, o.Policies, o.HTTPPeer)
	s.unwatch = s.policies.Watch(s.vhosts.PoliciesChanged)
	s.vhosts.PoliciesChanged() // apply policy changes that happened while the topology was read
	s.background(s.watchAuth)
	s.background(s.janitor)
	return s, nil
}

// Management returns the part of RabbitMQ's management API that client libraries use.
func (s *Server) Management() http.Handler { return s.management }

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

// background runs f in a new goroutine. Shutdown waits until f returns. After Shutdown no new
// function starts.
func (s *Server) background(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx.Err() != nil {
		return
	}
	s.workers.Go(f)
}

// Again completes the bindings after a shard of the broker was opened. If a queue's shard is still
// not open, the queue is completed by a later call.
func (s *Server) Again(ctx context.Context) error { return s.vhosts.Again(ctx) }

// Serve accepts connections from l until Shutdown, or until l fails. It closes l.
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
		// The process has no free file descriptor, or the peer gave up. Wait and continue.
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

// ServeConn serves an accepted connection in the background.
func (s *Server) ServeConn(nc net.Conn) { s.accept(nc) }

// Shutdown stops listening, closes every connection with reply code 320, and waits until all have
// ended. When ctx ends, Shutdown cuts off the remaining connections. The broker stays open.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	if s.closing {
		s.mu.Unlock()
		<-s.idle
		return nil
	}
	s.closing = true
	s.shared.Stop()
	for l := range s.listeners {
		l.Close()
	}
	conns := s.connsLocked()
	if len(conns) == 0 {
		close(s.idle)
	}
	s.mu.Unlock()
	for _, c := range conns {
		c.ShutDown()
	}
	var err error
	select {
	case <-s.idle:
	case <-ctx.Done():
		err = ctx.Err()
		for _, c := range conns {
			c.CutOff()
		}
		<-s.idle
	}
	s.unwatch()
	s.mu.Lock()
	s.cancel() // no background work starts after this
	s.mu.Unlock()
	s.workers.Wait()
	return err
}

func (s *Server) connsLocked() []*session.Conn {
	list := make([]*session.Conn, 0, len(s.conns))
	for c := range s.conns {
		list = append(list, c)
	}
	return list
}

func (s *Server) connections() []*session.Conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.connsLocked()
}

// SetAlarm turns a reason to block publishers on or off, such as "low on disk" or "low on memory".
// While any reason is on, the server sends connection.blocked to connections that publish, and
// stops reading from them.
func (s *Server) SetAlarm(reason string, on bool) { s.shared.SetAlarm(reason, on) }

// watchAuth ends connections whose user or virtual host was deleted. It forgets the topology of a
// deleted virtual host.
func (s *Server) watchAuth() {
	for {
		changed := s.auth.Changed()
		for _, c := range s.connections() {
			user, vh := c.Identity()
			if user == nil || vh == nil || c.Ended() {
				continue
			}
			switch err := s.auth.AuthorizeVhost(user, vh.Name); {
			case surgetank.CodeOf(err) == surgetank.CodeNotFound:
				c.Kick(wire.Errorf(wire.CodeConnectionForced, "vhost '%s' is down", vh.Name))
			case err != nil && !s.userExists(user.Name):
				c.Kick(wire.Errorf(wire.CodeConnectionForced, "user '%s' is deleted", user.Name))
			}
		}
		s.vhosts.DropDeleted()
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

// Connections lists the open connections by name.
func (s *Server) Connections() []session.ConnectionInfo {
	list := []session.ConnectionInfo{}
	for _, c := range s.connections() {
		if info, ok := c.Info(); ok {
			list = append(list, info)
		}
	}
	slices.SortFunc(list, func(a, b session.ConnectionInfo) int { return strings.Compare(a.Name, b.Name) })
	return list
}

// CloseConnection closes the connection with this name, with reply code 320. It returns false if
// there is none.
func (s *Server) CloseConnection(name, reason string) bool {
	for _, c := range s.connections() {
		if c.Name == name && !c.Ended() {
			if reason == "" {
				reason = "Closed via management plugin"
			}
			c.Kick(wire.Errorf(wire.CodeConnectionForced, "%s", strings.ToValidUTF8(reason, "?")))
			return true
		}
	}
	return false
}
