package amqp

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/embedded"
	"github.com/surgetank/surgetank/internal/amqp/wire"
	"github.com/surgetank/surgetank/internal/auth"
	"github.com/surgetank/surgetank/internal/tally"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// bench is a whole server on a broker in memory, for one test.
type bench struct {
	t      testing.TB
	broker surgetank.Broker
	auth   *auth.Store
	server *Server
	addr   string
}

func start(t testing.TB, limits Limits) *bench {
	t.Helper()
	b, err := embedded.Memory(embedded.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return startOn(t, b, limits)
}

// startOn serves a broker, which it closes at the end.
func startOn(t testing.TB, b surgetank.Broker, limits Limits) *bench {
	t.Helper()
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

// url is where amqp091-go finds the server.
func (bn *bench) url() string { return "amqp://guest:guest@" + bn.addr + "/" }

// keepGuest lets guest go on with its public password beside other users, as an operator can who wants that.
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

// peer is a client that writes frames by hand.
type peer struct {
	t   testing.TB
	nc  net.Conn
	buf []byte
}

const patience = 10 * time.Second // for what must come; a test that needs it has failed

func dialRaw(t testing.TB, addr string) *peer {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	return &peer{t: t, nc: nc}
}

// connect opens a connection as a user, whose password is its name.
func (bn *bench) connect(user string) *peer {
	bn.t.Helper()
	p := dialRaw(bn.t, bn.addr)
	p.login(user, "/", wire.Tuning{ChannelMax: 2047, FrameMax: 131072})
	return p
}

var clientCaps = wire.Table(nil).AddTable("capabilities", wire.Table(nil).AddBool("authentication_failure_close", true).
	AddBool("consumer_cancel_notify", true).AddBool("connection.blocked", true).AddBool("basic.nack", true))

func (p *peer) login(user, vhost string, tune wire.Tuning) {
	p.t.Helper()
	p.raw([]byte(wire.ProtocolHeader))
	want[*wire.ConnectionStart](p, 0)
	p.send(0, &wire.ConnectionStartOk{ClientProperties: clientCaps, Mechanism: "PLAIN", Response: []byte("\x00" + user + "\x00" + user), Locale: "en_US"})
	want[*wire.ConnectionTune](p, 0)
	p.send(0, &wire.ConnectionTuneOk{Tuning: tune})
	p.send(0, &wire.ConnectionOpen{VirtualHost: vhost})
	want[*wire.ConnectionOpenOk](p, 0)
}

// channel opens a channel.
func (p *peer) channel(id uint16) {
	p.t.Helper()
	p.send(id, &wire.ChannelOpen{})
	want[*wire.ChannelOpenOk](p, id)
}

func (p *peer) raw(b []byte) {
	p.t.Helper()
	p.nc.SetWriteDeadline(time.Now().Add(patience))
	if _, err := p.nc.Write(b); err != nil {
		p.t.Fatalf("writing: %v", err)
	}
}

func (p *peer) send(ch uint16, m wire.Method) {
	p.t.Helper()
	p.raw(wire.AppendMethod(nil, ch, m))
}

// publish sends a message.
func (p *peer) publish(ch uint16, m *wire.BasicPublish, props wire.Properties, body string) {
	p.t.Helper()
	b := wire.AppendMethod(nil, ch, m)
	b = wire.AppendHeader(b, ch, len(body), props.Append(nil))
	p.raw(wire.AppendBody(b, ch, []byte(body), 4096))
}

// frame reads the next frame that is not a heartbeat; io.EOF when the server has closed.
func (p *peer) frame() (wire.Frame, error) {
	p.nc.SetReadDeadline(time.Now().Add(patience))
	for {
		f, n, err := wire.NextFrame(p.buf, 1<<20)
		if err != nil {
			return f, err
		}
		if n > 0 {
			f.Payload = append([]byte(nil), f.Payload...)
			p.buf = p.buf[n:]
			if f.Type == wire.FrameHeartbeat {
				continue
			}
			return f, nil
		}
		b := make([]byte, 64<<10)
		n, err = p.nc.Read(b)
		p.buf = append(p.buf, b[:n]...)
		if err != nil && n == 0 {
			return f, err
		}
	}
}

// method reads the next method.
func (p *peer) method() (uint16, wire.Method) {
	p.t.Helper()
	f, err := p.frame()
	if err != nil {
		p.t.Fatalf("reading a method: %v", err)
	}
	if f.Type != wire.FrameMethod {
		p.t.Fatalf("frame of type %d, want a method", f.Type)
	}
	m, err := wire.ParseMethod(f.Payload)
	if err != nil {
		p.t.Fatal(err)
	}
	return f.Channel, m
}

// want reads the next method, which must be a T on ch.
func want[T wire.Method](p *peer, ch uint16) T {
	p.t.Helper()
	got, m := p.method()
	v, ok := m.(T)
	if !ok || got != ch {
		p.t.Fatalf("got %T %+v on channel %d, want %T on %d", m, m, got, v, ch)
	}
	return v
}

// bare reads a method without arguments.
func (p *peer) bare(ch uint16, id wire.MethodID) {
	p.t.Helper()
	if m := want[wire.Bare](p, ch); m.ID() != id {
		p.t.Fatalf("got method %d.%d, want %d.%d", m.ID().Class(), m.ID().Method(), id.Class(), id.Method())
	}
}

// content reads header and body.
func (p *peer) content() (wire.Properties, string) {
	p.t.Helper()
	f, err := p.frame()
	if err != nil || f.Type != wire.FrameHeader {
		p.t.Fatalf("frame %d, %v; want a header", f.Type, err)
	}
	h, err := wire.ParseHeader(f.Payload)
	if err != nil {
		p.t.Fatal(err)
	}
	props, err := wire.ParseProperties(h.Block)
	if err != nil {
		p.t.Fatal(err)
	}
	var body []byte
	for uint64(len(body)) < h.BodySize {
		f, err := p.frame()
		if err != nil || f.Type != wire.FrameBody {
			p.t.Fatalf("frame %d, %v; want a body", f.Type, err)
		}
		body = append(body, f.Payload...)
	}
	return props, string(body)
}

// closed checks that the server has closed the socket.
func (p *peer) closed() {
	p.t.Helper()
	if f, err := p.frame(); err == nil {
		p.t.Errorf("frame of type %d after the end", f.Type)
	} else if !errors.Is(err, io.EOF) && !isReset(err) {
		p.t.Errorf("the socket is not closed: %v", err)
	}
}

func isReset(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && !op.Timeout()
}

// serveAgain puts a new door before the bench's broker.
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
		ctx, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			bn.t.Errorf("shutdown: %v", err)
		}
		if err := <-served; err != nil {
			bn.t.Errorf("serve: %v", err)
		}
	})
}
