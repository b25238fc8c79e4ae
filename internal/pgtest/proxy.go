package pgtest

import (
	"net"
	"sync"
	"testing"
)

// Proxy is a TCP proxy in front of a server, for network faults between client and server.
type Proxy struct {
	listener net.Listener
	target   string

	mu      sync.Mutex
	conns   map[net.Conn]bool
	bytes   int           // bytes forwarded to the server
	changed chan struct{} // closed and replaced when bytes grow
	hold    chan struct{} // not nil while nothing is forwarded; closed when forwarding resumes
	wg      sync.WaitGroup
}

// NewProxy listens on a free port and forwards to target until the test ends.
func NewProxy(t testing.TB, target string) *Proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{listener: l, target: target, conns: map[net.Conn]bool{}, changed: make(chan struct{})}
	p.wg.Go(p.accept)
	t.Cleanup(func() {
		_ = l.Close()
		p.Release()
		p.Cut()
		p.wg.Wait()
	})
	return p
}

// Addr returns the proxy's listening address.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

func (p *Proxy) accept() {
	for {
		in, err := p.listener.Accept()
		if err != nil {
			return
		}
		out, err := net.Dial("tcp", p.target)
		if err != nil {
			_ = in.Close()
			continue
		}
		p.mu.Lock()
		p.conns[in], p.conns[out] = true, true
		p.mu.Unlock()
		p.wg.Go(func() { p.copy(out, in, true) })
		p.wg.Go(func() { p.copy(in, out, false) })
	}
}

func (p *Proxy) copy(to, from net.Conn, count bool) {
	defer func() {
		_ = to.Close()
		_ = from.Close()
		p.mu.Lock()
		delete(p.conns, to)
		delete(p.conns, from)
		p.mu.Unlock()
	}()
	buf := make([]byte, 16<<10)
	for {
		n, err := from.Read(buf)
		p.mu.Lock()
		hold := p.hold
		p.mu.Unlock()
		if hold != nil {
			<-hold
		}
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
			if count {
				p.mu.Lock()
				p.bytes += n
				close(p.changed)
				p.changed = make(chan struct{})
				p.mu.Unlock()
			}
		}
		if err != nil {
			return
		}
	}
}

// Await waits until bytes more bytes were forwarded to the server, or done is closed. It reports
// whether the bytes were forwarded.
func (p *Proxy) Await(bytes int, done <-chan struct{}) bool {
	p.mu.Lock()
	until := p.bytes + bytes
	for p.bytes < until {
		changed := p.changed
		p.mu.Unlock()
		select {
		case <-changed:
		case <-done:
			return false
		}
		p.mu.Lock()
	}
	p.mu.Unlock()
	return true
}

// Cut resets every connection.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		if tcp, ok := c.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0)
		}
		_ = c.Close()
	}
}

// Hold stops forwarding without closing connections, like a broken network. Release ends it.
func (p *Proxy) Hold() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.hold == nil {
		p.hold = make(chan struct{})
	}
}

// Release forwards the delayed bytes and all later bytes.
func (p *Proxy) Release() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.hold != nil {
		close(p.hold)
		p.hold = nil
	}
}
