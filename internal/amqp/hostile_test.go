package amqp

import (
	"io"
	"net"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/surgetank/surgetank/internal/amqp/amqptest"
	"github.com/surgetank/surgetank/internal/amqp/wire"
	"github.com/surgetank/surgetank/test/hostile"
)

// target returns the server in the form that the hostile cases use.
func (bn *bench) target() hostile.AMQP {
	return hostile.AMQP{Dial: func() (net.Conn, error) { return net.Dial("tcp", bn.addr) }, User: "guest", Password: "guest", Patience: amqptest.Patience}
}

// watched runs a bystander, an ordinary client, until the test ends. The hostile cases must not
// disturb the bystander. At the end the server must keep nothing of the hostile connections.
func (bn *bench) watched(t *testing.T) {
	t.Helper()
	b, err := bn.target().Watch()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		n, err := b.Stop()
		if err != nil {
			t.Errorf("the bystander was disturbed: %v", err)
		}
		t.Logf("a bystander exchanged %d messages meanwhile", n)
		amqptest.Until(t, "all connections end", func() bool { return len(bn.server.connections()) == 0 })
	})
}

// TestHostileListIsComplete: each number of the list has a case.
func TestHostileListIsComplete(t *testing.T) {
	var have []int
	for _, c := range hostile.Cases() {
		have = append(have, c.Number)
	}
	for n := 1; n <= hostile.Last; n++ {
		if !slices.Contains(have, n) {
			t.Errorf("case %d is missing", n)
		}
	}
	t.Logf("%d cases for %d numbers", len(have), hostile.Last)
}

// TestHostile runs every case against a server. A bystander must not notice.
func TestHostile(t *testing.T) {
	bn := start(t, Limits{Handshake: 2 * time.Second})
	bn.watched(t)
	bn.play(t, false)
	bn.works(t)
}

func (bn *bench) play(t *testing.T, slow bool) {
	t.Run("cases", func(t *testing.T) { // returns when all cases have ended
		for _, c := range hostile.Cases() {
			t.Run(c.String(), func(t *testing.T) {
				t.Parallel()
				if err := bn.target().Play(c, slow); err != nil {
					t.Error(err)
				}
			})
		}
	})
}

// TestHostileByteByByte sends every case in segments of one byte. The answers must be the same.
func TestHostileByteByByte(t *testing.T) {
	bn := start(t, Limits{Handshake: 2 * time.Second})
	bn.watched(t)
	bn.play(t, true)
	bn.works(t)
}

// TestHostileCuts cuts every case after each byte, and then closes or resets the connection.
func TestHostileCuts(t *testing.T) {
	bn := start(t, Limits{})
	bn.watched(t)
	target := bn.target()
	var wg sync.WaitGroup
	slots := make(chan struct{}, 16)
	cuts := 0
	cases := hostile.Cases()
	for i, c := range cases {
		stream := c.Stream(target, 0)
		for _, at := range c.Places(target, cases[:i], false) {
			if testing.Short() && at%7 != 0 {
				continue
			}
			for _, e := range []hostile.Ending{hostile.FIN, hostile.RST} {
				cuts++
				slots <- struct{}{}
				wg.Go(func() {
					defer func() { <-slots }()
					if err := target.Cut(stream, at, e); err != nil {
						t.Errorf("%v: %v", c, err)
					}
				})
			}
		}
	}
	wg.Wait()
	t.Logf("%d cuts", cuts)
	bn.works(t)
}

// TestHostileSilence cuts every case after each byte, and then sends nothing. The server must end
// the connection by itself: at the limit of the handshake, or after missed heartbeats. The test
// controls the time.
func TestHostileSilence(t *testing.T) {
	inBubble(t, Limits{MaxBeforeLogin: 1 << 16, MaxBeforeLoginPerPeer: 1 << 16}, func(t *testing.T, bn *bench) {
		target := hostile.AMQP{Dial: func() (net.Conn, error) { return bn.pipe(), nil }, User: "remote", Password: "remote", Patience: time.Minute}
		cuts := 0
		cases := hostile.Cases()
		for i, c := range cases {
			stream := c.Stream(target, 1)
			var wg sync.WaitGroup
			for _, at := range c.Places(target, cases[:i], false) {
				if testing.Short() && at%7 != 0 {
					continue
				}
				cuts++
				wg.Go(func() {
					if err := target.Cut(stream, at, hostile.Silence); err != nil {
						t.Errorf("%v: %v", c, err)
					}
				})
			}
			wg.Wait()
			synctest.Wait()
			if n := len(bn.server.connections()); n != 0 {
				t.Fatalf("%v: %d connections are left", c, n)
			}
		}
		t.Logf("%d cuts", cuts)
	})
}

// TestPeersBeforeLoginAreSmall measures how much memory a connection can use in the server before
// login. It tries everything that the protocol allows before login: half frames, tables, endless
// heartbeats.
func TestPeersBeforeLoginAreSmall(t *testing.T) {
	bn := start(t, Limits{Handshake: time.Hour}) // a slow machine must not end the connections
	const n = 300
	measure := func() uint64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapInuse + m.StackInuse
	}
	beats := make([]byte, 0, 512<<10)
	for len(beats) < cap(beats)-8 {
		beats = wire.AppendHeartbeat(beats)
	}
	for name, in := range map[string][]byte{
		"half a frame": append([]byte(wire.ProtocolHeader), append([]byte{1, 0, 0, 0, 0, 0x0f, 0xf8}, make([]byte, 4000)...)...),
		"heartbeats":   append([]byte(wire.ProtocolHeader), beats...),
	} {
		t.Run(name, func(t *testing.T) {
			before := measure()
			var wg sync.WaitGroup
			conns := make([]net.Conn, n)
			for i := range conns {
				nc, theirs := net.Pipe() // a net.Pipe has no buffer: all written bytes have been read
				bn.server.ServeConn(addressed{theirs, &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1 + i}})
				conns[i] = nc
				go io.Copy(io.Discard, nc)
				wg.Go(func() {
					if _, err := nc.Write(in); err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			if got := len(bn.server.connections()); got != n {
				t.Errorf("%d of %d connections are left", got, n)
			}
			each := int64(measure()-before) / n
			t.Logf("a connection before login uses %d bytes", each)
			if each > 64<<10 {
				t.Errorf("a connection before login uses %d bytes, want at most 64 KiB", each)
			}
			for _, nc := range conns {
				nc.Close()
			}
			amqptest.Until(t, "all end", func() bool { return len(bn.server.connections()) == 0 })
		})
	}
}

// TestLoginsAreCheckedForTheRealPeer: only the peer's own address decides whether it is local. The
// peer's claims and the address of the listener prove nothing.
func TestLoginsAreCheckedForTheRealPeer(t *testing.T) {
	bn := start(t, Limits{})
	for _, tt := range []struct {
		peer net.Addr
		want string
	}{
		{&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1}, "tune"},
		{&net.TCPAddr{IP: net.IPv6loopback, Port: 1}, "tune"},
		{&net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 1}, "close"},
		{&net.UnixAddr{Name: "@", Net: "unix"}, "close"},
	} {
		ours, theirs := net.Pipe()
		bn.server.ServeConn(addressed{theirs, tt.peer})
		p := &amqptest.Peer{T: t, Conn: ours}
		p.Raw([]byte(wire.ProtocolHeader))
		amqptest.Want[*wire.ConnectionStart](p, 0)
		p.Send(0, plainAuth)
		_, m := p.Method()
		got := "close"
		if _, ok := m.(*wire.ConnectionTune); ok {
			got = "tune"
		}
		if got != tt.want {
			t.Errorf("guest from %v: %s, want %s", tt.peer, got, tt.want)
		}
		ours.Close()
	}
}

// addressed is a connection that was accepted on loopback but has a remote peer address.
type addressed struct {
	net.Conn
	peer net.Addr
}

func (a addressed) RemoteAddr() net.Addr { return a.peer }
func (a addressed) LocalAddr() net.Addr {
	return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 5672}
}
