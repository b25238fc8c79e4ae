//go:build linux

package main

import (
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// proxy is between clients and the server and causes network faults. Any goroutine may change its
// fields while it runs. A connection's faults are drawn when it is made, unless stated otherwise.
type proxy struct {
	listener net.Listener
	target   func() string

	cutEvery atomic.Int32 // one of this many connections is reset after some bytes; 0: none
	oneByte  atomic.Bool  // every byte is a segment of its own
	delay    atomic.Int64 // each piece waits for a random time up to this, in nanoseconds
	onCut    func()

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

func newProxy(target func() string, seed uint64) (*proxy, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &proxy{listener: l, target: target, rng: rand.New(rand.NewPCG(seed, 3)), conns: map[*pair]bool{}, onCut: func() {}}
	p.wait.Go(p.accept)
	return p, nil
}

func (p *proxy) address() string { return p.listener.Addr().String() }

func (p *proxy) url() string { return "http://" + p.address() }

func (p *proxy) close() {
	_ = p.listener.Close()
	p.mu.Lock()
	for c := range p.conns {
		c.reset()
	}
	p.mu.Unlock()
	p.wait.Wait()
}

// deafen makes every open connection half-open and returns their number.
func (p *proxy) deafen() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		c.deaf.Store(true)
	}
	return len(p.conns)
}

func (p *proxy) accept() {
	for {
		c, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.wait.Go(func() { p.serve(c) })
	}
}

func (p *proxy) serve(client net.Conn) {
	server, err := net.DialTimeout("tcp", p.target(), time.Second)
	if err != nil {
		_ = client.Close()
		return
	}
	c := &pair{client: client, server: server}
	up, down := int64(-1), int64(-1) // bytes until the reset; negative: no reset
	p.mu.Lock()
	p.conns[c] = true
	if n := p.cutEvery.Load(); n > 0 && p.rng.IntN(int(n)) == 0 {
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
func (p *proxy) pump(c *pair, to, from net.Conn, left int64) {
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
			p.onCut()
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
func (p *proxy) wander(n int) {
	d := p.delay.Load()
	if d <= 0 || n == 0 {
		return
	}
	p.mu.Lock()
	d = p.rng.Int64N(d)
	p.mu.Unlock()
	time.Sleep(time.Duration(d))
}

func (p *proxy) write(to net.Conn, b []byte) error {
	if !p.oneByte.Load() {
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

// reset ends both connections with RST instead of FIN.
func (c *pair) reset() {
	for _, one := range []net.Conn{c.client, c.server} {
		if t, ok := one.(*net.TCPConn); ok {
			_ = t.SetLinger(0) // makes Close reset the connection, which may already be gone
		}
		_ = one.Close()
	}
}
