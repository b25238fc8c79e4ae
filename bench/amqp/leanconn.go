//go:build linux

package main

import (
	"bufio"
	"net"
	"sync"
)

// leanConn makes a connection cheaper for its client. It reads from the socket in large pieces.
// While the kernel handles one write, it gathers later writes into one piece. amqp091-go alone
// makes a system call for every publish, every ack and every 4 KiB read. On a machine with few
// cores, these calls cost the measured server time.
//
// Many goroutines may write, and one may read. A write is never delayed to gather more data: an
// idle connection sends at once.
type leanConn struct {
	net.Conn
	in *bufio.Reader

	mu     sync.Mutex
	room   sync.Cond // signalled when the gathered data is being written, or a write failed
	work   sync.Cond // signalled when data was gathered, or the connection closes
	out    []byte
	closed bool
	err    error // error of the first write that failed
	done   chan struct{}
}

// leanBuffer is the number of gathered bytes at which writers wait, and the size of a read.
const leanBuffer = 64 << 10

func newLeanConn(c net.Conn) *leanConn {
	l := &leanConn{Conn: c, in: bufio.NewReaderSize(c, leanBuffer), done: make(chan struct{})}
	l.room.L, l.work.L = &l.mu, &l.mu
	go l.flush()
	return l
}

func (l *leanConn) Read(b []byte) (int, error) { return l.in.Read(b) }

// Write stores the bytes for sending. If sending fails, a later Write returns the error.
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

// Close sends the gathered data and closes the connection.
func (l *leanConn) Close() error {
	l.mu.Lock()
	l.closed = true
	l.work.Signal()
	l.room.Broadcast()
	l.mu.Unlock()
	<-l.done
	return l.Conn.Close()
}
