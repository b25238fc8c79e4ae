package amqp

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/surgetank/surgetank/internal/amqp/amqptest"
	"github.com/surgetank/surgetank/internal/amqp/wire"
	"github.com/surgetank/surgetank/internal/auth"
)

// TestEndIsNoReset: a connection can end for any reason while the client still writes. The client
// reads the last frame and then the end of the stream, never an error.
func TestEndIsNoReset(t *testing.T) {
	bn := start(t, Limits{CloseTimeout: amqptest.Patience})
	cert := certificate(t)
	open := func(p *amqptest.Peer) {
		p.Login("guest", "/", wire.Tuning{ChannelMax: 2047, FrameMax: 4096})
		p.Channel(1)
	}
	started := func(p *amqptest.Peer) {
		p.Raw([]byte(wire.ProtocolHeader))
		amqptest.Want[*wire.ConnectionStart](p, 0)
	}
	closing := func(code wire.Code) func(p *amqptest.Peer) {
		return func(p *amqptest.Peer) {
			if m := amqptest.Want[*wire.ConnectionClose](p, 0); m.ReplyCode != code {
				t.Errorf("closed with %d, want %d", m.ReplyCode, code)
			}
		}
	}
	answered := func(code wire.Code) func(p *amqptest.Peer) {
		return func(p *amqptest.Peer) {
			closing(code)(p)
			p.Send(0, wire.Bare(wire.IDConnectionCloseOk))
		}
	}
	publish := wire.AppendMethod(nil, 1, &wire.BasicPublish{RoutingKey: "nobody"})
	publish = wire.AppendHeader(publish, 1, 1000, (&wire.Properties{}).Append(nil))
	publish = wire.AppendBody(publish, 1, make([]byte, 1000), 4096)
	startOk := func(password, mechanism string) []byte {
		return wire.AppendMethod(nil, 0, &wire.ConnectionStartOk{ClientProperties: amqptest.ClientCaps, Mechanism: mechanism, Response: []byte("\x00guest\x00" + password), Locale: "en_US"})
	}
	for _, c := range []struct {
		name    string
		before  func(*amqptest.Peer)
		trigger []byte
		more    []byte // bytes that the client writes after the trigger
		last    func(*amqptest.Peer)
	}{
		{"the client closes", open, wire.AppendMethod(nil, 0, &wire.ConnectionClose{}), publish, func(p *amqptest.Peer) {
			p.Bare(0, wire.IDConnectionCloseOk)
			p.HangUp()
		}},
		{"frame too large", open, wire.AppendFrame(nil, wire.FrameBody, 1, make([]byte, 200000)), publish, answered(wire.CodeFrameError)},
		{"frame too large, no answer", open, wire.AppendFrame(nil, wire.FrameBody, 1, make([]byte, 200000)), []byte("no frames, and none to come"), closing(wire.CodeFrameError)},
		{"frame without an end", open, []byte{1, 0, 1, 0, 0, 0, 4, 0, 20, 0, 10, 0}, publish, answered(wire.CodeFrameError)},
		{"no frame", open, []byte("GET / HTTP/1.1\r\n\r\n"), []byte("Host: localhost\r\n"), closing(wire.CodeFrameError)},
		{"the method of a closed channel", open, wire.AppendMethod(nil, 9, &wire.BasicQos{}), publish, answered(wire.CodeChannelError)},
		{"both close", open, append(wire.AppendMethod(nil, 9, &wire.BasicQos{}), wire.AppendMethod(nil, 0, &wire.ConnectionClose{})...), publish, func(p *amqptest.Peer) {
			answered(wire.CodeChannelError)(p)
			p.Bare(0, wire.IDConnectionCloseOk)
		}},
		{"another protocol", func(*amqptest.Peer) {}, []byte("GET / HTTP/1.1\r\n"), []byte("Host: localhost\r\n"), func(p *amqptest.Peer) {
			got := make([]byte, len(wire.ProtocolHeader))
			if _, err := io.ReadFull(p.Conn, got); err != nil || string(got) != wire.ProtocolHeader {
				t.Errorf("got %q, %v; want the protocol header", got, err)
			}
		}},
		{"wrong password", started, startOk("wrong", "PLAIN"), publish, answered(wire.CodeAccessRefused)},
		{"unknown mechanism", started, startOk("guest", "NONE"), publish, func(*amqptest.Peer) {}},
		{"close before open", started, append(startOk("guest", "PLAIN"), wire.AppendMethod(nil, 0, &wire.ConnectionClose{})...), publish, func(p *amqptest.Peer) {
			amqptest.Want[*wire.ConnectionTune](p, 0)
			p.Bare(0, wire.IDConnectionCloseOk)
			p.HangUp()
		}},
	} {
		for _, over := range []string{"TCP", "TLS"} {
			t.Run(c.name+" over "+over, func(t *testing.T) {
				p := amqptest.Dial(t, bn.addr)
				if over == "TLS" {
					p = bn.dialTLS(t, cert)
				}
				c.before(p)
				// The client sends everything before it reads. It sends more than the server reads
				// at once.
				p.Raw(append(bytes.Clone(c.trigger), bytes.Repeat(c.more, 300_000/len(c.more))...))
				c.last(p)
				if f, err := p.Frame(); !errors.Is(err, io.EOF) {
					t.Errorf("after the last frame: %v %+v, want the end of the stream", err, f)
				}
			})
		}
	}
}

func certificate(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// pair makes a TCP connection. The caller serves its server end.
func pair(t *testing.T) (client, server net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err = net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	server, err = l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return client, server
}

func (bn *bench) dialTLS(t *testing.T, cert tls.Certificate) *amqptest.Peer {
	t.Helper()
	client, server := pair(t)
	bn.server.ServeConn(tls.Server(server, &tls.Config{Certificates: []tls.Certificate{cert}}))
	return &amqptest.Peer{T: t, Conn: tls.Client(client, &tls.Config{InsecureSkipVerify: true})}
}

// orderly is the server's end of a connection. It records which side closed first.
type orderly struct {
	net.Conn
	heard, early atomic.Bool
}

func (o *orderly) Read(b []byte) (int, error) {
	n, err := o.Conn.Read(b)
	if errors.Is(err, io.EOF) {
		o.heard.Store(true)
	}
	return n, err
}

func (o *orderly) CloseWrite() error {
	o.early.Store(o.early.Load() || !o.heard.Load())
	return o.Conn.(*net.TCPConn).CloseWrite()
}

func (o *orderly) Close() error {
	o.early.Store(o.early.Load() || !o.heard.Load())
	return o.Conn.Close()
}

// TestClientHangsUpFirst: until a client has closed its socket, it reads nothing after close-ok,
// not even the end of the stream. Clients report an earlier end as an error, and some never return
// from Close then.
func TestClientHangsUpFirst(t *testing.T) {
	bn := start(t, Limits{CloseTimeout: time.Hour})
	client, server := pair(t)
	o := &orderly{Conn: server}
	bn.server.ServeConn(o)
	p := &amqptest.Peer{T: t, Conn: client}
	p.Login("guest", "/", wire.Tuning{ChannelMax: 2047, FrameMax: 131072})
	p.Send(0, &wire.ConnectionClose{})
	p.Bare(0, wire.IDConnectionCloseOk)
	p.HangUp()
	p.Closed()
	amqptest.Until(t, "the connection ends", func() bool { return len(bn.server.connections()) == 0 })
	if o.early.Load() {
		t.Error("the server closed the socket before the client")
	}
}

// TestNobodyHangsUp: if the client does not hang up, the server closes the connection after a time.
func TestNobodyHangsUp(t *testing.T) {
	bn := start(t, Limits{CloseTimeout: 10 * time.Millisecond})
	p := bn.connect("guest")
	p.Send(0, &wire.ConnectionClose{})
	p.Bare(0, wire.IDConnectionCloseOk)
	p.Closed()
	amqptest.Until(t, "the connection ends", func() bool { return len(bn.server.connections()) == 0 })
}

// TestDepartingHoldNothing: a client can stay connected after its close-ok. Its connection is then
// not listed, does not count for the user's limit, and does not delay Shutdown.
func TestDepartingHoldNothing(t *testing.T) {
	bn := start(t, Limits{CloseTimeout: time.Hour})
	bn.user("one", auth.Permission{Configure: ".*", Write: ".*", Read: ".*"})
	most := 1
	if err := bn.auth.PutUserLimits(context.Background(), "one", auth.UserLimits{MaxConnections: &most}); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		p := bn.connect("one")
		if n := len(bn.server.Connections()); n != 1 {
			t.Errorf("%d connections are listed, want 1", n)
		}
		p.Send(0, &wire.ConnectionClose{})
		p.Bare(0, wire.IDConnectionCloseOk)
	}
	if n := len(bn.server.Connections()); n != 0 {
		t.Errorf("%d connections are listed, want none", n)
	}
	if n := bn.server.shared.Departing(); n != 3 {
		t.Errorf("%d connections wait for their clients, want 3", n)
	}
}

// TestDepartingMakeRoom: few connections may wait for their clients to hang up. One more closes the
// connection that has waited longest.
func TestDepartingMakeRoom(t *testing.T) {
	bn := start(t, Limits{CloseTimeout: time.Hour, MaxBeforeLogin: 2})
	var peers []*amqptest.Peer
	for range 4 {
		p := bn.connect("guest")
		p.Send(0, &wire.ConnectionClose{})
		p.Bare(0, wire.IDConnectionCloseOk)
		peers = append(peers, p)
	}
	peers[0].Closed()
	peers[1].Closed()
	amqptest.Until(t, "two connections are left", func() bool { return len(bn.server.connections()) == 2 })
}
