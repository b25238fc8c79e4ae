//go:build linux

package main

import (
	"context"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"github.com/surgetank/surgetank/test/kit/proxy"
	"github.com/surgetank/surgetank/test/kit/server"
)

// proxies forward to a server's doors: one proxy for HTTP, and one for AMQP if the load has AMQP
// clients.
type proxies []*proxy.Proxy

func (ps proxies) close() {
	for _, p := range ps {
		p.Close()
	}
}

// deafen makes every connection half-open and returns their number.
func (ps proxies) deafen() (n int) {
	for _, p := range ps {
		n += p.Deafen()
	}
	return n
}

// each calls a function for every proxy.
func (ps proxies) each(set func(*proxy.Proxy)) {
	for _, p := range ps {
		set(p)
	}
}

// behindProxy starts a run whose clients reach the server through proxies.
func (r *run) behindProxy(ctx context.Context, o loadOptions, prepare func(*proxy.Proxy)) (proxies, error) {
	if o.amqp > 0 {
		r.server.Listen("", server.AnyPort)
	}
	if err := r.server.Start(ctx); err != nil {
		return nil, err
	}
	if err := r.declare(ctx); err != nil {
		return nil, err
	}
	p, err := proxy.New(r.server.HTTP, r.rng.Uint64())
	if err != nil {
		return nil, err
	}
	ps := proxies{p}
	if o.amqp > 0 {
		if r.front, err = proxy.New(r.server.AMQP, r.rng.Uint64()); err != nil {
			p.Close()
			return nil, err
		}
		ps = append(ps, r.front)
	}
	ps.each(prepare)
	r.startLoad(ctx, o, p.URL)
	return ps, nil
}

// resets cuts connections in the middle of requests and answers.
func resets(ctx context.Context, r *run) error {
	var cuts atomic.Int64
	p, err := r.behindProxy(ctx, loadOptions{amqp: 2}, func(p *proxy.Proxy) {
		p.CutEvery.Store(1)
		p.OnCut = func() { cuts.Add(1) }
	})
	if err != nil {
		return err
	}
	defer p.close()
	r.until(ctx, time.Duration(r.times(10, 300))*time.Second, func() bool { return cuts.Load() >= int64(r.times(60, 5000)) })
	p.each(func(p *proxy.Proxy) { p.CutEvery.Store(0) })
	r.injected = int(cuts.Load())
	return r.end(ctx)
}

// halfOpen makes connections silently dead on both sides: the client waits for an answer that never
// comes, and the server waits for a missing client. The client's leases must end by their deadline.
func halfOpen(ctx context.Context, r *run) error {
	p, err := r.behindProxy(ctx, loadOptions{timeout: 600 * time.Millisecond, amqp: 2, heartbeat: time.Second}, func(*proxy.Proxy) {})
	if err != nil {
		return err
	}
	defer p.close()
	for range r.times(3, 50) {
		if err := r.sleep(ctx, r.between(100*time.Millisecond, 400*time.Millisecond)); err != nil {
			return err
		}
		n := p.deafen()
		r.inject(fmt.Sprintf("%d connections half-open", n))
		r.injected += max(0, n-1)
		if !r.progress(ctx, 20, 10*time.Second) {
			r.fail("progress", "nothing was confirmed for 10 s after connections went dead")
		}
	}
	return r.end(ctx)
}

// oneByteSegments sends every byte of requests and answers in a segment of its own.
func oneByteSegments(ctx context.Context, r *run) error {
	p, err := r.behindProxy(ctx, loadOptions{size: 60, batch: 3, amqp: 2}, func(p *proxy.Proxy) { p.OneByte.Store(true) })
	if err != nil {
		return err
	}
	defer p.close()
	r.inject("one-byte segments")
	if !r.progress(ctx, int64(r.times(60, 5000)), time.Duration(r.times(15, 600))*time.Second) {
		r.fail("progress", "byte by byte only %d messages were confirmed", r.load.confirmed.Load())
	}
	p.each(func(p *proxy.Proxy) { p.OneByte.Store(false) })
	return r.end(ctx)
}

// slowReaders ask for many messages and do not read the answer. Other clients must be served,
// memory must stay limited, and the leases must end.
func slowReaders(ctx context.Context, r *run) error {
	if err := r.begin(ctx, loadOptions{size: 8000, hold: true}); err != nil {
		return err
	}
	if !r.progress(ctx, 400, 20*time.Second) {
		return fmt.Errorf("only %d messages could be published", r.load.confirmed.Load())
	}
	before := r.server.RSS()
	var conns []net.Conn
	defer func() {
		for _, c := range conns {
			_ = c.Close()
		}
	}()
	for i := range r.times(20, 300) {
		c, err := net.DialTimeout("tcp", r.server.HTTP(), 2*time.Second)
		if err != nil {
			return err
		}
		conns = append(conns, c)
		if t, ok := c.(*net.TCPConn); ok {
			_ = t.SetReadBuffer(1024) // a hint; the kernel uses its minimum
		}
		req := `{"max":100,"wait":"1s","lease":"1s"}`
		queue := []string{plain, grouped}[i%2]
		if _, err := fmt.Fprintf(c, "POST /v1/queues/%s/receive HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", queue, len(req), req); err != nil {
			return err
		}
		r.inject("slow reader")
	}
	close(r.load.release)
	acked := r.load.acked.Load()
	if !r.until(ctx, 15*time.Second, func() bool { return r.load.acked.Load() >= acked+100 }) {
		r.fail("others served", "beside readers that do not read, only %d messages were acked in 15 s", r.load.acked.Load()-acked)
	}
	now := r.server.RSS()
	r.note("memory: %d MiB before, %d MiB with %d readers that do not read", before>>20, now>>20, len(conns))
	if now > before+256<<20 {
		r.fail("memory", "readers that do not read grew the server from %d to %d MiB", before>>20, now>>20)
	}
	return r.end(ctx)
}
