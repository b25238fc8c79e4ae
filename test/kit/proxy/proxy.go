// Package proxy forwards connections between clients and a server, and causes network faults.
package proxy

import (
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Proxy forwards connections. Any goroutine may change its fields while it runs. A connection's
// faults are drawn when it is made, unless stated otherwise.
type Proxy struct {
	listener net.Listener
	target   func() string

	CutEvery atomic.Int32 // one of this many connections is reset after some bytes; 0: none
	OneByte  atomic.Bool  // every byte is a segment of its own
	Delay    atomic.Int64 // each piece waits for a random time up to this, in nanoseconds
	OnCut    func()

	mu    sync.Mutex
	rng   *rand.Rand
	conns map[*pair]bool
	wait  sync.WaitGroup
}

// pair is a client's connection and the matching connection to the server.
type pair struct {
	client, server net.Conn
	deaf           atomic.Bool // data from either side is silently dropped: a half-open connection
}

// New starts a proxy on a free loopback port. Before each connection it calls target, which returns
// the server's address. The seed decides the faults.
func New(target func() string, seed uint64) (*Proxy, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &Proxy{listener: l, target: target, rng: rand.New(rand.NewPCG(seed, 3)), conns: map[*pair]bool{}, OnCut: func() {}}
	p.wait.Go(p.accept)
	return p, nil
}

// Address returns the address for clients, HOST:PORT.
func (p *Proxy) Address() string { return p.listener.Addr().String() }

// URL returns the URL for clients of HTTP.
func (p *Proxy) URL() string { return "http://" + p.Address() }

// Close ends the proxy and its connections.
func (p *Proxy) Close() {
	_ = p.listener.Close()
	p.mu.Lock()
	for c := range p.conns {
		c.reset()
	}
	p.mu.Unlock()
	p.wait.Wait()
}

// Deafen makes every open connection half-open and returns their number.
func (p *Proxy) Deafen() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		c.deaf.Store(true)
	}
	return len(p.conns)
}

func (p *Proxy) accept() {
	for {
		c, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.wait.Go(func() { p.serve(c) })
	}
}

func (p *Proxy) serve(client net.Conn) {
	server, err := net.DialTimeout("tcp", p.target(), time.Second)
	if err != nil {
		_ = client.Close()
		return
	}
	c := &pair{client: client, server: server}
	up, down := int64(-1), int64(-1) // bytes until the reset; negative: no reset
	p.mu.Lock()
	p.conns[c] = true
	if n := p.CutEvery.Load(); n > 0 && p.rng.IntN(int(n)) == 0 {
		if p.rng.IntN(2) == 0 {
			up = p.rng.Int64N(20_000)
		} else {
			down = p.rng.Int64N(5_000)
		}
	}
	p.mu.Unlock()
	var both sync.WaitGroup
	both.Go(func() { p.pump(c, server, client, up) })
	both.Go(func() { p.pump(c, client, server, down) })
	both.Wait()
	p.mu.Lock()
	delete(p.conns, c)
	p.mu.Unlock()
}

// pump copies from one side to the other until either ends, or until the cut.
func (p *Proxy) pump(c *pair, to, from net.Conn, left int64) {
	defer func() {
		if !c.deaf.Load() {
			_ = to.Close()
		}
		_ = from.Close()
	}()
	buf := make([]byte, 16<<10)
	for {
		n, err := from.Read(buf)
		b := buf[:n]
		cut := left >= 0 && int64(n) >= left
		if cut {
			b = b[:left]
		} else if left >= 0 {
			left -= int64(n)
		}
		p.wander(n)
		if !c.deaf.Load() {
			if werr := p.write(to, b); werr != nil {
				err = werr
			}
		}
		if cut {
			p.OnCut()
			c.reset()
			return
		}
		if err != nil {
			if err == io.EOF && c.deaf.Load() {
				_ = c.server.SetReadDeadline(time.Now().Add(3 * time.Second)) // the other side gets no notice and may wait
			}
			return
		}
	}
}

// wander delays a piece of n bytes.
func (p *Proxy) wander(n int) {
	d := p.Delay.Load()
	if d <= 0 || n == 0 {
		return
	}
	p.mu.Lock()
	d = p.rng.Int64N(d)
	p.mu.Unlock()
	time.Sleep(time.Duration(d))
}

func (p *Proxy) write(to net.Conn, b []byte) error {
	if !p.OneByte.Load() {
		_, err := to.Write(b)
		return err
	}
	for i := range b {
		if _, err := to.Write(b[i : i+1]); err != nil { // Go sets TCP_NODELAY by default
			return err
		}
	}
	return nil
}

// reset ends both connections.
func (c *pair) reset() {
	Reset(c.client)
	Reset(c.server)
}

// Reset ends a connection with RST instead of FIN.
func Reset(c net.Conn) {
	if t, ok := c.(*net.TCPConn); ok {
		_ = t.SetLinger(0) // makes Close reset the connection, which may already be gone
	}
	_ = c.Close()
}
