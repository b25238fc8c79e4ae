//go:build linux

package main

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"sync"

	"github.com/surgetank/surgetank/test/kit/proxy"
)

// wireProxy is a proxy between a sink and PostgreSQL that knows the boundaries of protocol messages
// (PostgreSQL's documentation, chapter "Frontend/Backend Protocol"). A message is a type byte, a
// length of four bytes that counts itself, and a body; the very first message has no type. The
// proxy counts the messages of both directions in the order it saw them, and runs a function after
// the n-th.
type wireProxy struct {
	listener net.Listener
	target   func() string

	mu     sync.Mutex
	conns  map[net.Conn]bool
	seen   int                         // number of messages since arm
	at     int                         // the fault comes after this message; 0: no fault
	begins func(w wire, m []byte) bool // counting begins with the first message for which this returns true
	strike func(on wire)               // runs once, while nothing is forwarded
	struck chan wire                   // receives the message after which strike ran
	wait   sync.WaitGroup
}

// wire is one message: its direction and type.
type wire struct {
	toServer bool
	kind     byte // 0 for the first message of a connection, which has no type
}

func (w wire) String() string {
	from := "answer"
	if w.toServer {
		from = "request"
	}
	if w.kind == 0 {
		return from + " startup"
	}
	return fmt.Sprintf("%s %q", from, w.kind)
}

// maxWire limits a message: COPY data comes in pieces of 64 KiB.
const maxWire = 64 << 20

func newWireProxy(target func() string) (*wireProxy, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &wireProxy{listener: l, target: target, conns: map[net.Conn]bool{}}
	p.wait.Go(p.accept)
	return p, nil
}

func (p *wireProxy) address() string { return p.listener.Addr().String() }

func (p *wireProxy) close() {
	_ = p.listener.Close()
	p.cut()
	p.wait.Wait()
}

// arm makes strike run after the n-th message. Counting begins with the first message for which
// begins returns true. The channel then receives that n-th message.
func (p *wireProxy) arm(n int, begins func(w wire, m []byte) bool, strike func(on wire)) <-chan wire {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seen, p.at, p.begins, p.strike, p.struck = 0, n, begins, strike, make(chan wire, 1)
	return p.struck
}

// disarm removes an armed fault.
func (p *wireProxy) disarm() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.at, p.strike = 0, nil
}

// cut resets every connection.
func (p *wireProxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.reset()
}

func (p *wireProxy) reset() {
	for c := range p.conns {
		proxy.Reset(c)
	}
}

func (p *wireProxy) accept() {
	for {
		in, err := p.listener.Accept()
		if err != nil {
			return
		}
		out, err := net.Dial("tcp", p.target())
		if err != nil {
			_ = in.Close()
			continue
		}
		p.mu.Lock()
		p.conns[in], p.conns[out] = true, true
		p.mu.Unlock()
		p.wait.Go(func() { p.pump(out, in, true) })
		p.wait.Go(func() { p.pump(in, out, false) })
	}
}

// pump forwards whole messages.
func (p *wireProxy) pump(to, from net.Conn, toServer bool) {
	defer func() {
		_ = to.Close()
		_ = from.Close()
		p.mu.Lock()
		delete(p.conns, to)
		delete(p.conns, from)
		p.mu.Unlock()
	}()
	first := toServer
	for {
		m, kind, err := readWire(from, first)
		if err != nil {
			return
		}
		first = false
		if _, err := to.Write(m); err != nil {
			return
		}
		p.passed(wire{toServer, kind}, m)
	}
}

// passed counts a forwarded message, and runs strike after the n-th.
func (p *wireProxy) passed(w wire, m []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.strike == nil || p.seen == 0 && !p.begins(w, m) || !w.toServer && (w.kind == 'S' || w.kind == 'N') {
		return // settings and notices do not matter, and are frequent
	}
	if p.seen++; p.seen != p.at {
		return
	}
	strike := p.strike
	p.strike = nil
	strike(w) // strike runs under the lock, so that nothing is forwarded
	p.struck <- w
}

// readWire reads one message; first says that it has no type.
func readWire(r io.Reader, first bool) (m []byte, kind byte, err error) {
	head := 5
	if first {
		head = 4
	}
	m = make([]byte, head, 512)
	if _, err := io.ReadFull(r, m); err != nil {
		return nil, 0, err
	}
	if !first {
		kind = m[0]
	}
	n := int(binary.BigEndian.Uint32(m[head-4:])) - 4
	if n < 0 || n > maxWire {
		return nil, 0, fmt.Errorf("a message of %d bytes", n)
	}
	m = append(m, make([]byte, n)...)
	_, err = io.ReadFull(r, m[head:])
	return m, kind, err
}
