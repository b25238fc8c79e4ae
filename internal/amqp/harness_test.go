package amqp

import (
	"context"
	"net"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/embedded"
	"github.com/surgetank/surgetank/internal/amqp/amqptest"
	"github.com/surgetank/surgetank/internal/amqp/wire"
	"github.com/surgetank/surgetank/internal/auth"
	"github.com/surgetank/surgetank/internal/door"
	"github.com/surgetank/surgetank/internal/door/doortest"
	"github.com/surgetank/surgetank/internal/shards/shardstest"
	"github.com/surgetank/surgetank/internal/tally"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// bench is a whole server on a broker in memory, for one test.
type bench struct {
	t      testing.TB
	broker door.Broker
	auth   *auth.Store
	server *Server
	addr   string
}

func start(t testing.TB, limits Limits) *bench {
	t.Helper()
	b, err := embedded.Memory(embedded.Options{Shards: shardstest.N})
	if err != nil {
		t.Fatal(err)
	}
	return startOn(t, b, limits)
}

// startOn serves a broker and closes it at the end of the test.
func startOn(t testing.TB, over surgetank.Broker, limits Limits) *bench {
	t.Helper()
	b := doortest.Of(t, over)
	ctx := context.Background()
	a, err := auth.Open(ctx, b)
	if err != nil {
		t.Fatal(err)
	}
	s, err := NewServer(ctx, Options{Broker: b, Auth: a, Limits: limits, Refused: new(tally.Counts)})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	bn := &bench{t: t, broker: b, auth: a, server: s, addr: l.Addr().String()}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			t.Errorf("shutdown: %v", err)
		}
		if err := <-served; err != nil {
			t.Errorf("serve: %v", err)
		}
		if err := b.Close(); err != nil {
			t.Errorf("closing the broker: %v", err)
		}
	})
	return bn
}

// url returns the server's address for amqp091-go.
func (bn *bench) url() string { return "amqp://guest:guest@" + bn.addr + "/" }

// keepGuest keeps guest and its public password valid beside other users, as an operator can
// choose.
func (bn *bench) keepGuest() {
	elsewhere := false
	if _, err := bn.auth.PutUser(context.Background(), "guest", auth.UserSpec{LoopbackOnly: &elsewhere}); err != nil {
		panic(err)
	}
}

// user makes a user with rights in the default virtual host.
func (bn *bench) user(name string, p auth.Permission) {
	bn.t.Helper()
	secret := auth.Secret(name)
	bn.keepGuest()
	if _, err := bn.auth.PutUser(context.Background(), name, auth.UserSpec{Password: &secret}); err != nil {
		bn.t.Fatal(err)
	}
	if err := bn.auth.PutPermission(context.Background(), name, "/", p); err != nil {
		bn.t.Fatal(err)
	}
}

// connect opens a connection as a user. The user's password is its name.
func (bn *bench) connect(user string) *amqptest.Peer {
	bn.t.Helper()
	p := amqptest.Dial(bn.t, bn.addr)
	p.Login(user, "/", wire.Tuning{ChannelMax: 2047, FrameMax: 131072})
	return p
}

// serveAgain starts a new door for the bench's broker.
func (bn *bench) serveAgain() {
	bn.t.Helper()
	ctx := context.Background()
	s, err := NewServer(ctx, Options{Broker: bn.broker, Auth: bn.auth})
	if err != nil {
		bn.t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		bn.t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	bn.server, bn.addr = s, l.Addr().String()
	bn.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(ctx, amqptest.Patience)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			bn.t.Errorf("shutdown: %v", err)
		}
		if err := <-served; err != nil {
			bn.t.Errorf("serve: %v", err)
		}
	})
}
