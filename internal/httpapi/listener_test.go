package httpapi

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// fakeConn comes from a chosen address.
type fakeConn struct {
	net.Conn
	from   string
	closed bool
}

func (c *fakeConn) RemoteAddr() net.Addr {
	return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(c.from))
}
func (c *fakeConn) Close() error { c.closed = true; return nil }

type fakeListener struct {
	net.Listener
	conns []*fakeConn
}

func (l *fakeListener) Accept() (net.Conn, error) {
	if len(l.conns) == 0 {
		return nil, net.ErrClosed
	}
	c := l.conns[0]
	l.conns = l.conns[1:]
	return c, nil
}

// TestLimitListener: when all places, or those of one address, are used, a newcomer gets the place
// of a waiting connection of the address with the most waiting ones. When no connection waits, the
// newcomer is rejected.
func TestLimitListener(t *testing.T) {
	var all []*fakeConn
	for _, from := range []string{"192.0.2.1:1", "192.0.2.1:2", "192.0.2.1:3", "[::ffff:192.0.2.1]:4", "127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3", "192.0.2.2:1"} {
		all = append(all, &fakeConn{from: from})
	}
	l := LimitListener(&fakeListener{conns: all}, ServerLimits{MaxConns: 5, MaxConnsPerIP: 2})
	var conns []net.Conn
	for {
		c, err := l.Accept()
		if err != nil {
			break
		}
		conns = append(conns, c)
		for i, f := range all { // does what the server of each connection would do
			if f.closed && i < len(conns) {
				conns[i].Close()
			}
		}
	}
	var closed []string
	for _, c := range all {
		if c.closed {
			closed = append(closed, c.from)
		}
	}
	if got := strings.Join(closed, " "); len(conns) != 8 || got != "192.0.2.1:1 192.0.2.1:2 127.0.0.1:1" {
		t.Fatalf("%d of 8 connections were accepted, and these were closed for others: %s", len(conns), got)
	}
	for _, c := range conns {
		guestOf(c).Hold()
	}
	more := []*fakeConn{{from: "192.0.2.3:1"}, {from: "192.0.2.3:2"}}
	l.(*limitListener).Listener = &fakeListener{conns: more}
	conns[7].Close()
	conns[7].Close() // frees its place once
	if c, err := l.Accept(); err != nil || c.RemoteAddr().String() != "192.0.2.3:1" {
		t.Fatal("the ended connection still counts")
	} else {
		guestOf(c).Hold()
	}
	if c, err := l.Accept(); err == nil || !more[1].closed {
		t.Fatalf("all connections are busy, but %v was accepted", c.RemoteAddr())
	}
}

// TestIdleConnectionsMakeRoom fills a server's places with four connections. One is idle, one sends
// half a request, one was refused and sends no body, and one has an accepted request that waits.
// Newcomers get the places of all but the last.
func TestIdleConnectionsMakeRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(o *Options) { o.Limits.BodyGrace = time.Hour }) // so long that only the limit of connections can close them, never this deadline
		p := &pipes{conns: make(chan net.Conn), closed: make(chan struct{})}
		limits := ServerLimits{MaxConns: 4, HeaderTimeout: time.Hour}
		srv := NewServer(r.api, limits, nil)
		l := LimitListener(p, limits)
		done := make(chan struct{})
		go func() { defer close(done); srv.Serve(l) }()
		r.queue("q", "{}")
		dial := func(request string) net.Conn {
			nc, err := p.dial()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.WriteString(nc, request); err != nil {
				t.Errorf("%.20q: %v", request, err)
			}
			synctest.Wait()
			return nc
		}
		answer := func(nc net.Conn) int {
			res, err := http.ReadResponse(bufio.NewReader(nc), nil)
			if err != nil {
				return 0
			}
			io.Copy(io.Discard, res.Body)
			synctest.Wait()
			return res.StatusCode
		}
		open := func(nc net.Conn) bool {
			nc.SetReadDeadline(time.Now().Add(time.Nanosecond))
			_, err := nc.Read(make([]byte, 1))
			nc.SetReadDeadline(time.Time{})
			return !errors.Is(err, io.EOF)
		}
		const host = " HTTP/1.1\r\nHost: localhost\r\n"
		busy := dial("POST /v1/queues/q/receive" + host + "Content-Type: application/json\r\nContent-Length: 14\r\n\r\n{\"wait\":\"50s\"}")
		half := dial("GET /v1/queues" + host)
		refused := dial("POST /v1/queues" + host + "Authorization: none\r\nContent-Length: 100\r\n\r\n")
		kept := dial("GET /v1/queues" + host + "\r\n")
		if got := answer(kept); got != 200 {
			t.Fatalf("the first request was answered with %d", got)
		}
		waiting := []net.Conn{kept, half, refused} // in the order in which they must be closed
		var newcomer net.Conn
		for i := range 4 {
			newcomer = dial("GET /v1/queues" + host) // the newcomer is slow, too
			waiting = append(waiting, newcomer)
			for k, nc := range waiting {
				if open(nc) != (k > i) {
					t.Errorf("after new connection %d, connection %d is open: %v", i, k, k <= i)
				}
			}
		}
		if io.WriteString(newcomer, "\r\n"); answer(newcomer) != 200 {
			t.Error("the last new connection got no answer")
		}
		r.want(201, "POST", "/v1/queues/q/messages", `{"body":"m"}`)
		if got := answer(busy); got != 200 {
			t.Errorf("the waiting request was answered with %d", got)
		}
		srv.Close()
		<-done
		r.api.Close()
		r.broker.Close()
	})
}
