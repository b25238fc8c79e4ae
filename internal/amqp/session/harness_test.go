package session

import (
	"context"
	"log/slog"
	"net"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/surgetank/surgetank/embedded"
	"github.com/surgetank/surgetank/internal/amqp/amqptest"
	"github.com/surgetank/surgetank/internal/amqp/topology"
	"github.com/surgetank/surgetank/internal/amqp/wire"
	"github.com/surgetank/surgetank/internal/auth"
	"github.com/surgetank/surgetank/internal/clock"
	"github.com/surgetank/surgetank/internal/door"
	"github.com/surgetank/surgetank/internal/policy"
	"github.com/surgetank/surgetank/internal/shards/shardstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// bench serves connections on a broker in memory. It has no listener and none of the server's
// limits.
type bench struct {
	t      testing.TB
	broker door.Broker
	shared *Shared

	mu    sync.Mutex
	conns []*Conn
	ends  sync.WaitGroup
	works sync.WaitGroup
}

// open makes a bench. The caller closes it.
func open(t testing.TB, limits Limits) *bench {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	b := amqptest.Must[*embedded.Broker](t)(embedded.Memory(embedded.Options{Shards: shardstest.N}))
	a := amqptest.Must[*auth.Store](t)(auth.Open(ctx, b))
	p := amqptest.Must[*policy.Broker](t)(policy.Open(ctx, b, a, slog.New(slog.DiscardHandler)))
	secret, elsewhere := auth.Secret("remote"), false // a pipe has no loopback address
	amqptest.Must[bool](t)(a.PutUser(ctx, "guest", auth.UserSpec{LoopbackOnly: &elsewhere}))
	amqptest.Must[bool](t)(a.PutUser(ctx, "remote", auth.UserSpec{Password: &secret}))
	if err := a.PutPermission(ctx, "remote", "/", auth.AllPermissions); err != nil {
		t.Fatal(err)
	}
	bn := &bench{t: t, broker: p}
	limits = limits.WithDefaults()
	e := &topology.Env{Broker: p, Policies: p, Auth: a, Log: slog.New(slog.DiscardHandler), Clock: clock.Real{}, Context: ctx, Background: bn.works.Go,
		MaxExchanges: limits.MaxExchanges, MaxBindings: limits.MaxBindings}
	bn.shared = NewShared(e, amqptest.Must[*topology.Registry](t)(topology.Open(ctx, e)), limits, nil)
	bn.works.Go(func() { // does the work of the server's janitor
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				for _, c := range bn.connections() {
					c.WatchIdle()
				}
			case <-ctx.Done():
				return
			}
		}
	})
	bn.ends.Add(1)
	go func() {
		bn.ends.Wait()
		cancel()
	}()
	return bn
}

// close ends all connections and waits for them.
func (bn *bench) close() {
	bn.shared.Stop()
	for _, c := range bn.connections() {
		c.ShutDown()
	}
	bn.ends.Done()
	bn.ends.Wait()
	bn.works.Wait()
	if err := bn.broker.Close(); err != nil {
		bn.t.Error(err)
	}
}

func start(t testing.TB, limits Limits) *bench {
	t.Helper()
	bn := open(t, limits)
	t.Cleanup(bn.close)
	return bn
}

// inBubble runs a test in a synctest bubble. Time passes only while every goroutine waits.
func inBubble(t *testing.T, limits Limits, f func(t *testing.T, bn *bench)) {
	synctest.Test(t, func(t *testing.T) {
		bn := open(t, limits)
		f(t, bn)
		bn.close()
	})
}

func (bn *bench) connections() []*Conn {
	bn.mu.Lock()
	defer bn.mu.Unlock()
	return slices.Clone(bn.conns)
}

// serve serves a connection.
func (bn *bench) serve(nc net.Conn) {
	c := NewConn(bn.shared, nc)
	bn.mu.Lock()
	bn.conns = append(bn.conns, c)
	bn.mu.Unlock()
	bn.ends.Go(func() { c.Serve(nil) })
}

// piped returns a peer at the other end of a pipe, logged in.
func (bn *bench) piped(t testing.TB, tune wire.Tuning) *amqptest.Peer {
	ours, theirs := net.Pipe()
	bn.serve(theirs)
	p := &amqptest.Peer{T: t, Conn: ours}
	p.Login("remote", "/", tune)
	return p
}

// connect returns a peer at the other end of a TCP connection, logged in.
func (bn *bench) connect() *amqptest.Peer {
	bn.t.Helper()
	l := amqptest.Must[net.Listener](bn.t)(net.Listen("tcp", "127.0.0.1:0"))
	defer l.Close()
	p := amqptest.Dial(bn.t, l.Addr().String())
	bn.serve(amqptest.Must[net.Conn](bn.t)(l.Accept()))
	p.Login("remote", "/", wire.Tuning{ChannelMax: 2047, FrameMax: 131072})
	return p
}
