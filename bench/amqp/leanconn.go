//go:build linux

package main

import (
	"bufio"
	"net"
	"sync"
)

// leanConn makes a connection cheaper for its client: it reads from the socket in large pieces, and
// while one write is in the kernel it gathers what comes next into one piece. amqp091-go by itself
// makes a system call for every publish, every ack and every 4 KiB read, which on few cores takes
// from the server what is to be measured.
//
// Any number of goroutines may write, one may read. Nothing waits for more to come: an idle
// connection sends at once.
type leanConn struct {
	net.Conn
	in *bufio.Reader

	mu     sync.Mutex
	room   sync.Cond // signalled when the writer took what was gathered, or failed
	work   sync.Cond // signalled when something was gathered, or the connection closes
	out    []byte
	closed bool
	err    error // of the first write that failed
	done   chan struct{}
}

// leanBuffer is how much is gathered before writers wait, and the size of a read.
const leanBuffer = 64 << 10

func newLeanConn(c net.Conn) *leanConn {
	l := &leanConn{Conn: c, in: bufio.NewReaderSize(c, leanBuffer), done: make(chan struct{})}
	l.room.L, l.work.L = &l.mu, &l.mu
	go l.flush()
	return l
}

func (l *leanConn) Read(b []byte) (int, error) { return l.in.Read(b) }

// Write takes the bytes; an error of the socket shows at a later call.
func (l *leanConn) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.out) >= leanBuffer && l.err == nil && !l.closed {
		l.room.Wait()
	}
	switch {
	case l.err != nil:
		return 0, l.err
	case l.closed:
		return 0, net.ErrClosed
	}
	l.out = append(l.out, b...)
	l.work.Signal()
	return len(b), nil
}

func (l *leanConn) flush() {
	defer close(l.done)
	var piece []byte
	l.mu.Lock()
	defer l.mu.Unlock()
	for {
		for len(l.out) == 0 && !l.closed {
			l.work.Wait()
		}
		if len(l.out) == 0 {
			return
		}
		piece, l.out = l.out, piece[:0]
		l.room.Broadcast()
		l.mu.Unlock()
		_, err := l.Conn.Write(piece)
		l.mu.Lock()
		if err != nil {
			l.err, l.out = err, nil
			l.room.Broadcast()
			return
		}
	}
}

// Close sends what was gathered and closes the connection.
func (l *leanConn) Close() error {
	l.mu.Lock()
	l.closed = true
	l.work.Signal()
	l.room.Broadcast()
	l.mu.Unlock()
	<-l.done
	return l.Conn.Close()
}
