package server

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/embedded"
	"github.com/surgetank/surgetank/internal/amqp"
	"github.com/surgetank/surgetank/internal/auth"
	"github.com/surgetank/surgetank/internal/config"
	"github.com/surgetank/surgetank/internal/httpapi"
	"github.com/surgetank/surgetank/internal/localtoken"
	"github.com/surgetank/surgetank/internal/policy"
	"github.com/surgetank/surgetank/internal/tally"
)

// Options are the parts and settings of a server. The zero value serves the default data directory
// on the default addresses.
type Options struct {
	Config  config.Server
	File    *config.File // its queues and sinks are declared at the start; nil: none
	Logger  *slog.Logger // nil: no log
	Version string
	// Broker is a broker that is open already; Config.Data is ignored. The caller closes it after
	// Stop. nil: the server opens Config.Data, and closes it.
	Broker *embedded.Broker
}

// Server is a running server. Start makes one; Stop ends it. Call both from one goroutine.
type Server struct {
	opts Options
	cfg  config.Server
	log  *slog.Logger

	broker *embedded.Broker
	users  *auth.Store
	doored *policy.Broker // the broker for the doors, which applies policies
	sinks  *sinks
	http   *http.Server
	api    *httpapi.API
	amqp   *amqp.Server
	doors  []doorServer
	tls    *tls.Config
	token  *localtoken.Token

	handler  atomic.Pointer[http.Handler]
	ready    atomic.Bool
	stopping atomic.Bool

	listeners listeners
	requests  requests
	serving   sync.WaitGroup
	quit      chan struct{}
	once      sync.Once

	refused tally.Counts // counts refusals by limits

	seen     []uint64 // openings of the shards that the start has seen; then followShards uses it
	declared bool     // the configuration file was declared completely; as seen
}

// listeners are the open sockets; nil if a door is off.
type listeners struct{ http, amqp, amqps net.Listener }

func (l listeners) all() []net.Listener {
	var open []net.Listener
	for _, one := range []net.Listener{l.http, l.amqp, l.amqps} {
		if one != nil {
			open = append(open, one)
		}
	}
	return open
}

// Addresses are the server's listening addresses, as HOST:PORT; empty if a door is off.
type Addresses struct {
	HTTP, AMQP, AMQPS string
	TLS               bool // HTTP is HTTPS
}

// Start starts a server and returns when every door is open. After an error nothing is left
// running.
func Start(ctx context.Context, o Options) (_ *Server, err error) {
	if err := o.Config.Validate(); err != nil {
		return nil, err
	}
	s := &Server{opts: o, cfg: o.Config.WithDefaults(), log: o.Logger, quit: make(chan struct{})}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	defer func() {
		if err != nil {
			s.abandon()
		}
	}()
	if err := s.listen(); err != nil {
		return nil, err
	}
	s.serveHTTP()
	if err := s.open(ctx); err != nil {
		return nil, err
	}
	if err := s.openDoors(ctx); err != nil {
		return nil, err
	}
	if s.broker.Shards() > 1 {
		s.serving.Go(s.followShards)
	}
	if s.opts.Broker == nil { // otherwise the program that opened the broker decides about its memory
		s.serving.Go(func() { lookAfterMemory(s.log, s.quit) })
	}
	s.ready.Store(true)
	return s, nil
}

// listen binds every address.
func (s *Server) listen() (err error) {
	if s.cfg.TLSCert != "" {
		pair, err := tls.LoadX509KeyPair(s.cfg.TLSCert, s.cfg.TLSKey)
		if err != nil {
			return surgetank.Errorf(surgetank.CodeInvalid, "cannot load the TLS certificate %s with the key %s: %w", s.cfg.TLSCert, s.cfg.TLSKey, err)
		}
		s.tls = &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	}
	bind := func(name, address string) (net.Listener, error) {
		if address == "" || address == config.Off {
			return nil, nil
		}
		l, err := net.Listen("tcp", address)
		if err != nil {
			return nil, surgetank.Errorf(surgetank.CodeInvalid, "cannot listen on %s for %s: %w; is another server running there? Choose another address with --%[2]s, or off", address, name, err)
		}
		return l, nil
	}
	if s.listeners.http, err = bind("http", s.cfg.HTTP); err != nil {
		return err
	}
	if s.listeners.amqp, err = bind("amqp", s.cfg.AMQP); err != nil {
		return err
	}
	s.listeners.amqps, err = bind("amqps", s.cfg.AMQPS)
	return err
}

// open opens the data directory, the users and the sinks, and declares the file's queues and sinks.
func (s *Server) open(ctx context.Context) (err error) {
	if s.opts.Broker != nil {
		s.broker, s.cfg.Data = s.opts.Broker, s.opts.Broker.Dir()
		return s.openParts(ctx)
	}
	dir, err := filepath.Abs(s.cfg.Data)
	if err != nil {
		return surgetank.Errorf(surgetank.CodeInvalid, "the data directory %q has no absolute path: %w", s.cfg.Data, err)
	}
	s.cfg.Data = dir
	if err := private(dir); err != nil {
		return err
	}
	began := time.Now()
	if s.broker, err = embedded.Open(dir, embedded.Options{Logger: s.log, MaxMessage: int(s.cfg.MaxMessage), SegmentBytes: s.cfg.SegmentBytes, SnapshotBytes: s.cfg.WasteBytes,
		ScrubEvery: s.cfg.ScrubEvery, ScrubRate: s.cfg.ScrubRate, ReopenFor: s.cfg.ReopenFor, Shards: s.cfg.Shards, ShardDirs: s.cfg.ShardDirs}); err != nil {
		return fmt.Errorf("opening the data directory %s: %w", dir, err)
	}
	s.log.Info("data directory open", "dir", dir, "epoch", s.broker.Health().Openings, "took", time.Since(began).Round(time.Millisecond))
	return s.openParts(ctx)
}

// openParts opens the users, policies and sinks, which are stored in the broker.
func (s *Server) openParts(ctx context.Context) (err error) {
	s.seen = s.openings()
	if s.cfg.SQLiteDir == "" {
		s.cfg.SQLiteDir = filepath.Join(s.cfg.Data, "sqlite")
	}
	if s.cfg.SQLiteDir != config.AnyPath {
		if s.cfg.SQLiteDir, err = filepath.Abs(s.cfg.SQLiteDir); err != nil {
			return surgetank.Errorf(surgetank.CodeInvalid, "server.sqlite_dir %q has no absolute path: %w", s.cfg.SQLiteDir, err)
		}
	}
	if s.users, err = auth.Open(ctx, s.broker, auth.WithLogger(s.log)); err != nil {
		return fmt.Errorf("loading users and virtual hosts: %w", err)
	}
	if s.doored, err = policy.Open(ctx, s.broker, s.users, s.log); err != nil {
		return fmt.Errorf("loading policies: %w", err)
	}
	s.doored.Refused = &s.refused
	if err := checkExposure(s.users.Users(), s.listeners.all()); err != nil {
		return err
	}
	if s.sinks, err = openSinks(ctx, s.broker, s.doored, filepath.Dir(s.cfg.Data), s.cfg.SQLiteDir, s.log); err != nil {
		return fmt.Errorf("starting sinks: %w", err)
	}
	_, err = s.declare(ctx)
	return err
}

// declare makes the server's queues and sinks match the file. A sink whose target cannot be reached
// does not stop the start: an existing sink waits for its target, and a new one is reported. A
// queue or sink that needs a shard that is not open is declared later; complete is then false.
func (s *Server) declare(ctx context.Context) (complete bool, err error) {
	complete = true
	if s.opts.File == nil {
		return complete, nil
	}
	later := func(err error) bool {
		if s.broker.Shards() == 1 || surgetank.CodeOf(err) != surgetank.CodeUnavailable {
			return false
		}
		if complete {
			s.log.Warn("a part of the configuration file is declared later, because a shard is not open", "error", err)
		}
		complete = false
		return true
	}
	for _, p := range s.opts.File.Policies {
		if now, err := s.doored.GetPolicy(p.Vhost, p.Name); err == nil && policy.Same(now, p) {
			continue
		}
		if _, err := s.doored.PutPolicy(ctx, p); later(err) {
			continue
		} else if err != nil {
			return false, fmt.Errorf("setting the policy %s of %s: %w", p.Name, s.opts.File.Path, err)
		}
	}
	for _, q := range s.opts.File.Queues {
		_, created, err := s.doored.Change(ctx, q.Name, func(now *surgetank.QueueInfo) (surgetank.QueueConfig, error) {
			if now == nil {
				return q.Config, nil
			}
			return q.Over(now.Declared()), nil
		})
		if later(err) {
			continue
		} else if err != nil {
			return false, fmt.Errorf("declaring the queue %s of %s: %w", q.Name, s.opts.File.Path, err)
		} else if created {
			s.log.Info("queue created", "queue", q.Name)
		}
	}
	for _, k := range s.opts.File.Sinks {
		if err := s.sinks.declare(ctx, k); later(err) {
			continue
		} else if err != nil {
			return false, fmt.Errorf("setting the sink %s of %s: %w", k.Name, s.opts.File.Path, err)
		}
	}
	s.declared = complete
	return complete, nil
}

// Addresses returns the server's listening addresses.
func (s *Server) Addresses() Addresses {
	a := Addresses{TLS: s.tls != nil}
	for _, one := range []struct {
		l    net.Listener
		into *string
	}{{s.listeners.http, &a.HTTP}, {s.listeners.amqp, &a.AMQP}, {s.listeners.amqps, &a.AMQPS}} {
		if one.l != nil {
			*one.into = one.l.Addr().String()
		}
	}
	return a
}

// Data is the absolute path of the data directory.
func (s *Server) Data() string { return s.cfg.Data }

// OnlyGuest reports whether guest is the only user.
func (s *Server) OnlyGuest() bool {
	for _, u := range s.users.Users() {
		if u.Name != "guest" {
			return false
		}
	}
	return true
}

// Done is closed when the server cannot continue because its broker has failed for good. Err then
// has the reason. Stop must still be called.
func (s *Server) Done() <-chan struct{} { return s.broker.Done() }

// Err says why the server failed for good, and what to do. It is nil while the broker opens its log
// again by itself.
func (s *Server) Err() error {
	if h := s.broker.Health(); h.State == embedded.StateFailed {
		return fmt.Errorf("the server stops because its log failed: %w. Nothing was confirmed after the failure. Fix the cause (a disk error, or a file that was removed or changed), run surgetank verify --data %s, and start again", h.Err, s.cfg.Data)
	}
	return nil
}

// stallLimit: if the disk has not answered for this long, the server is not ready.
const stallLimit = 2 * time.Second

// notReady returns the answer of /readyz.
func (s *Server) notReady() error {
	switch {
	case s.stopping.Load():
		return surgetank.Errorf(surgetank.CodeClosed, "the server is stopping")
	case !s.ready.Load():
		return surgetank.Errorf(surgetank.CodeClosed, "the server is starting")
	}
	h := s.broker.Shard(1).Health() // without it no user can log in; refusing tells about the others
	switch {
	case h.State == embedded.StateOpening:
		return surgetank.Errorf(surgetank.CodeUnavailable, "the log failed, and the broker opens it again by itself, for %v now: %w", time.Since(h.Since).Round(time.Second), h.Err)
	case h.Stalled > stallLimit:
		return surgetank.Errorf(surgetank.CodeBusy, "the disk has not answered for %v: nothing is confirmed until it does", h.Stalled.Round(100*time.Millisecond))
	}
	return h.Err
}

// everyShard reports whether is returns true for every shard.
func (s *Server) everyShard(is func(*embedded.Broker) bool) bool {
	for n := 1; n <= s.broker.Shards(); n++ {
		if !is(s.broker.Shard(n)) {
			return false
		}
	}
	return true
}

// state returns the broker's state for readiness.
func (s *Server) state() string { return string(s.broker.Health().State) }

// abandon reverses a start that failed.
func (s *Server) abandon() {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	_ = s.Stop(ctx) // only the failure of the start is reported
	for _, l := range s.listeners.all() {
		_ = l.Close() // listeners that no door owns yet
	}
}
