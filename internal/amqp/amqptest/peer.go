// Package amqptest helps to test the AMQP door. It has a client that sends and reads single frames.
package amqptest

import (
	"bytes"
	"errors"
	"io"
	"net"
	"runtime"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/surgetank/surgetank/internal/amqp/wire"
)

// Peer is a client that writes single frames.
type Peer struct {
	T    testing.TB
	Conn net.Conn
	Buf  []byte // bytes that are read and not parsed yet
}

// Patience is the longest wait for an expected event. A test that waits longer has failed.
const Patience = 10 * time.Second

// Dial connects a peer. The end of the test closes it.
func Dial(t testing.TB, addr string) *Peer {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	return &Peer{T: t, Conn: nc}
}

// ClientCaps are the client properties that Login sends.
var ClientCaps = wire.Table(nil).AddTable("capabilities", wire.Table(nil).AddBool("authentication_failure_close", true).
	AddBool("consumer_cancel_notify", true).AddBool("connection.blocked", true).AddBool("basic.nack", true))

// Login opens the connection as a user. The user's password is its name.
func (p *Peer) Login(user, vhost string, tune wire.Tuning) {
	p.T.Helper()
	p.Raw([]byte(wire.ProtocolHeader))
	Want[*wire.ConnectionStart](p, 0)
	p.Send(0, &wire.ConnectionStartOk{ClientProperties: ClientCaps, Mechanism: "PLAIN", Response: []byte("\x00" + user + "\x00" + user), Locale: "en_US"})
	Want[*wire.ConnectionTune](p, 0)
	p.Send(0, &wire.ConnectionTuneOk{Tuning: tune})
	p.Send(0, &wire.ConnectionOpen{VirtualHost: vhost})
	Want[*wire.ConnectionOpenOk](p, 0)
}

// Channel opens a channel.
func (p *Peer) Channel(id uint16) {
	p.T.Helper()
	p.Send(id, &wire.ChannelOpen{})
	Want[*wire.ChannelOpenOk](p, id)
}

// Raw writes bytes.
func (p *Peer) Raw(b []byte) {
	p.T.Helper()
	p.Conn.SetWriteDeadline(time.Now().Add(Patience))
	if _, err := p.Conn.Write(b); err != nil {
		p.T.Fatalf("writing: %v", err)
	}
}

// Send writes a method.
func (p *Peer) Send(ch uint16, m wire.Method) {
	p.T.Helper()
	p.Raw(wire.AppendMethod(nil, ch, m))
}

// Publish sends a message.
func (p *Peer) Publish(ch uint16, m *wire.BasicPublish, props wire.Properties, body string) {
	p.T.Helper()
	b := wire.AppendMethod(nil, ch, m)
	b = wire.AppendHeader(b, ch, len(body), props.Append(nil))
	p.Raw(wire.AppendBody(b, ch, []byte(body), 4096))
}

// Frame reads the next frame that is not a heartbeat. It returns io.EOF if the server has closed
// the socket.
func (p *Peer) Frame() (wire.Frame, error) {
	p.Conn.SetReadDeadline(time.Now().Add(Patience))
	for {
		f, n, err := wire.NextFrame(p.Buf, 1<<20)
		if err != nil {
			return f, err
		}
		if n > 0 {
			f.Payload = append([]byte(nil), f.Payload...)
			p.Buf = p.Buf[n:]
			if f.Type == wire.FrameHeartbeat {
				continue
			}
			return f, nil
		}
		b := make([]byte, 64<<10)
		n, err = p.Conn.Read(b)
		p.Buf = append(p.Buf, b[:n]...)
		if err != nil && n == 0 {
			return f, err
		}
	}
}

// Method reads the next method.
func (p *Peer) Method() (uint16, wire.Method) {
	p.T.Helper()
	f, err := p.Frame()
	if err != nil {
		p.T.Fatalf("reading a method: %v", err)
	}
	if f.Type != wire.FrameMethod {
		p.T.Fatalf("frame of type %d, want a method", f.Type)
	}
	m, err := wire.ParseMethod(f.Payload)
	if err != nil {
		p.T.Fatal(err)
	}
	return f.Channel, m
}

// Want reads the next method. The test fails unless the method is a T on channel ch.
func Want[T wire.Method](p *Peer, ch uint16) T {
	p.T.Helper()
	got, m := p.Method()
	v, ok := m.(T)
	if !ok || got != ch {
		p.T.Fatalf("got %T %+v on channel %d, want %T on %d", m, m, got, v, ch)
	}
	return v
}

// Bare reads the next method. The test fails unless the method is id, which has no arguments.
func (p *Peer) Bare(ch uint16, id wire.MethodID) {
	p.T.Helper()
	if m := Want[wire.Bare](p, ch); m.ID() != id {
		p.T.Fatalf("got method %d.%d, want %d.%d", m.ID().Class(), m.ID().Method(), id.Class(), id.Method())
	}
}

// Content reads the header and the body of a message.
func (p *Peer) Content() (wire.Properties, string) {
	p.T.Helper()
	f, err := p.Frame()
	if err != nil || f.Type != wire.FrameHeader {
		p.T.Fatalf("frame %d, %v; want a header", f.Type, err)
	}
	h, err := wire.ParseHeader(f.Payload)
	if err != nil {
		p.T.Fatal(err)
	}
	props, err := wire.ParseProperties(h.Block)
	if err != nil {
		p.T.Fatal(err)
	}
	var body []byte
	for uint64(len(body)) < h.BodySize {
		f, err := p.Frame()
		if err != nil || f.Type != wire.FrameBody {
			p.T.Fatalf("frame %d, %v; want a body", f.Type, err)
		}
		body = append(body, f.Payload...)
	}
	return props, string(body)
}

// Closed checks that the server has closed the socket.
func (p *Peer) Closed() {
	p.T.Helper()
	if f, err := p.Frame(); err == nil {
		p.T.Errorf("frame of type %d after the end", f.Type)
	} else if !errors.Is(err, io.EOF) && !IsReset(err) {
		p.T.Errorf("the socket is not closed: %v", err)
	}
}

// IsReset reports whether err means a broken connection and not a time-out.
func IsReset(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && !op.Timeout()
}

// Begin announces a message of size bytes on a channel and sends part bytes of it.
func (p *Peer) Begin(channel uint16, queue string, size, part int) {
	p.T.Helper()
	b := wire.AppendMethod(nil, channel, &wire.BasicPublish{RoutingKey: queue})
	b = wire.AppendHeader(b, channel, size, []byte{0, 0})
	p.Raw(wire.AppendBody(b, channel, bytes.Repeat([]byte("x"), part), 131072))
}

// Ask sends a method and reads its answer.
func (p *Peer) Ask(ch uint16, m wire.Method, answer wire.MethodID) {
	p.T.Helper()
	p.Send(ch, m)
	if _, got := p.Method(); got.ID() != answer {
		p.T.Fatalf("%T was answered with %T %+v", m, got, got)
	}
}

// Declare declares the queue q on a channel.
func (p *Peer) Declare(ch uint16) {
	p.T.Helper()
	p.Ask(ch, &wire.QueueDeclare{Queue: "q"}, wire.IDQueueDeclareOk)
}

// HangUp half-closes the socket: the client writes nothing more.
func (p *Peer) HangUp() {
	p.T.Helper()
	if err := p.Conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		p.T.Fatal(err)
	}
}

// Args makes a table of names and values. Values are string, int, int16, int64, bool or []string.
// Other types panic.
func Args(pairs ...any) (t wire.Table) {
	for i := 0; i < len(pairs); i += 2 {
		name := pairs[i].(string)
		switch v := pairs[i+1].(type) {
		case string:
			t = t.AddString(name, v)
		case int:
			t = t.Add(name, wire.Value{Tag: 'I', Data: []byte{byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)}})
		case int16:
			t = t.Add(name, wire.Value{Tag: 's', Data: []byte{byte(v >> 8), byte(v)}})
		case int64:
			t = t.AddInt(name, v)
		case bool:
			t = t.AddBool(name, v)
		case []string:
			var a wire.Array
			for _, s := range v {
				a = a.AddString(s)
			}
			t = t.AddArray(name, a)
		default:
			panic(name)
		}
	}
	return t
}

// Declare returns the declaration of a queue with arguments in the form of Args.
func Declare(name string, pairs ...any) *wire.QueueDeclare {
	return &wire.QueueDeclare{Queue: name, Durable: true, Arguments: Args(pairs...)}
}

// Must returns a function that returns the value of a call. It ends the test if the call fails.
func Must[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// Until polls the server until f is true. It fails the test after Patience.
func Until(t testing.TB, what string, f func() bool) {
	t.Helper()
	deadline := time.Now().Add(Patience)
	for !f() {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
		runtime.Gosched() // each poll is a round trip, so no further pause is needed
	}
}

// Same fails the test if two values differ, and shows the difference.
func Same(t testing.TB, got, want any) {
	t.Helper()
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
}
