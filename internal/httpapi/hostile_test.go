package httpapi

import (
	"net"
	"net/http"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/surgetank/surgetank/test/hostile"
)

// hostileLimits are short, for tests that wait until they expire.
func hostileLimits() (Limits, ServerLimits) {
	return Limits{MaxMessage: 1 << 20, BodyGrace: 500 * time.Millisecond, MinBodyRate: 1 << 20}, ServerLimits{HeaderTimeout: time.Second}
}

func hostileTarget(t *testing.T) hostile.HTTP {
	t.Helper()
	l, sl := hostileLimits()
	_, addr := served(t, l, sl)
	s := hostile.HTTP{Dial: func() (net.Conn, error) { return net.Dial("tcp", addr) }, Patience: 20 * time.Second, MaxBody: l.MaxMessage}
	if err := s.Prepare(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Works(); err != nil {
			t.Error(err)
		}
		if err := s.Untouched(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// TestHostileListIsComplete: each number of the list has a case.
func TestHostileListIsComplete(t *testing.T) {
	var have []int
	for _, c := range hostile.HTTPCases() {
		have = append(have, c.Number)
	}
	for n := 1; n <= hostile.LastHTTP; n++ {
		if !slices.Contains(have, n) {
			t.Errorf("the table lacks case %d", n)
		}
	}
	t.Logf("%d cases for %d numbers", len(have), hostile.LastHTTP)
}

// TestHostile sends every bad request over a real socket.
func TestHostile(t *testing.T) { playHostile(t, false) }

// TestHostileByteByByte sends each request in segments of one byte. The answers must be the same.
func TestHostileByteByByte(t *testing.T) { playHostile(t, true) }

func playHostile(t *testing.T, slow bool) {
	s := hostileTarget(t)
	t.Run("cases", func(t *testing.T) {
		for _, c := range hostile.HTTPCases() {
			if slow && len(c.Request()) > 64<<10 {
				continue // single bytes are slower than the lowest rate of a body
			}
			t.Run(c.String(), func(t *testing.T) {
				t.Parallel()
				if err := s.Play(c, slow); err != nil {
					t.Error(err)
				}
			})
		}
	})
}

// TestHostileCuts cuts every bad request after each byte and then closes or resets the connection.
func TestHostileCuts(t *testing.T) {
	s := hostileTarget(t)
	var wg sync.WaitGroup
	slots := make(chan struct{}, 16)
	cuts := 0
	cases := hostile.HTTPCases()
	for i, c := range cases {
		for _, at := range c.Places(cases[:i], false) {
			if testing.Short() && at%7 != 0 {
				continue
			}
			for _, e := range []hostile.Ending{hostile.FIN, hostile.RST} {
				cuts++
				slots <- struct{}{}
				wg.Go(func() {
					defer func() { <-slots }()
					if err := s.Cut(c, at, e); err != nil {
						t.Errorf("%v: %v", c, err)
					}
				})
			}
		}
	}
	wg.Wait()
	t.Logf("%d cuts", cuts)
}

// near is an in-memory connection whose peer has a loopback address.
type near struct{ net.Conn }

func (near) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1} }

// pipes is a listener for in-memory connections.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (p *pipes) dial() (net.Conn, error) {
	ours, theirs := net.Pipe()
	select {
	case p.conns <- near{theirs}:
		return ours, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { p.once.Do(func() { close(p.closed) }); return nil }
func (p *pipes) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 8080} }

// TestHostileSilence cuts every bad request after each byte and then sends nothing more. The server
// must close the connection by itself at its default limits. The test runs in simulated time.
func TestHostileSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		l := &pipes{conns: make(chan net.Conn), closed: make(chan struct{})}
		srv := NewServer(r.api, ServerLimits{}, nil)
		var open sync.Map
		srv.ConnState = func(c net.Conn, st http.ConnState) {
			if st == http.StateClosed || st == http.StateHijacked {
				open.Delete(c)
			} else {
				open.Store(c, st)
			}
		}
		done := make(chan struct{})
		go func() { defer close(done); srv.Serve(l) }()
		s := hostile.HTTP{Dial: l.dial, Patience: 5 * time.Minute}
		if err := s.Prepare(); err != nil {
			t.Error(err)
		}
		cuts := 0
		cases := hostile.HTTPCases()
		for i, c := range cases {
			var wg sync.WaitGroup
			for _, at := range c.Places(cases[:i], false) {
				if testing.Short() && at%7 != 0 {
					continue
				}
				cuts++
				wg.Go(func() {
					if err := s.Cut(c, at, hostile.Silence); err != nil {
						t.Errorf("%v: %v", c, err)
					}
				})
			}
			wg.Wait()
		}
		if err := s.Untouched(); err != nil {
			t.Error(err)
		}
		t.Logf("%d cuts", cuts)
		<-time.After(5 * time.Minute) // longer than any limit
		open.Range(func(_, st any) bool { t.Errorf("a connection was not closed; its state is %v", st); return true })
		srv.Close()
		<-done
		r.api.Close()
		r.broker.Close()
	})
}
