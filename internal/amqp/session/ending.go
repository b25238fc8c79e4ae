package session

import (
	"encoding/binary"
	"errors"
	"net"
	"os"
	"time"

	"github.com/surgetank/surgetank/internal/amqp/wire"
)

// The end of a connection.
//
// A client may still send frames when the connection ends. If bytes arrive at a closed socket, the
// kernel answers with a reset. The reset destroys everything that the client has not read yet,
// including the last frame. So the server continues to read, and discards every byte until the
// client hangs up:
//
//	who closes                     last frame   then
//	the client                     close-ok     read on; after a time half-close, read on for as long again
//	the server                     close        read on until close-ok, half-close, read on
//	the server, stream unreadable  close        half-close at once, read on: close-ok cannot be found any more
//
// A half-close tells the client that no more bytes come. After close-ok the server delays it,
// because clients report an end of the stream before their own hangup as an error. Decision 0140
// has the reasons and the bounds.

const (
	lingerMost  = 30 * time.Second // longest time of reading after the last frame
	lingerBytes = 1 << 30          // most bytes that are discarded
	lingerBlock = 16 << 10
)

// ending reads from a connection after its end. It discards every byte, so the client cannot
// increase its memory.
type ending struct {
	c      *Conn
	buf    []byte
	held   []byte // the part of buf that next has not parsed
	skip   uint64 // bytes of the current frame that are left to discard
	lost   bool   // frame boundaries are unknown
	budget int    // bytes that may still be read
}

// newEnding makes an ending that starts with the bytes that the connection has read and not
// handled.
func (c *Conn) newEnding() *ending {
	return &ending{c: c, held: c.in.drain(), budget: lingerBytes}
}

// next returns the next method on channel 0 and discards everything before it. It returns false if
// held has no further method. If the stream is not made of frames, it sets lost.
func (e *ending) next() (id wire.MethodID, found bool) {
	const header, trailer = 7, 1
	for !e.lost {
		n := min(e.skip, uint64(len(e.held)))
		e.held, e.skip = e.held[n:], e.skip-n
		if e.skip > 0 || len(e.held) < header {
			return 0, false
		}
		size := uint64(binary.BigEndian.Uint32(e.held[3:]))
		switch {
		case e.held[0] != wire.FrameMethod && e.held[0] != wire.FrameHeader && e.held[0] != wire.FrameBody && e.held[0] != wire.FrameHeartbeat:
			e.lost = true
			return 0, false
		case e.held[0] != wire.FrameMethod || e.held[1] != 0 || e.held[2] != 0 || size > wire.MinFrameMax:
			e.skip = header + size + trailer
			continue
		case uint64(len(e.held)) < header+size+trailer:
			return 0, false
		}
		id, _ := wire.MethodIDOf(e.held[header : header+size])
		e.held = e.held[header+size+trailer:]
		return id, true
	}
	return 0, false
}

// read reads once.
func (e *ending) read() error {
	if e.budget <= 0 {
		return errTooMuch
	}
	if e.lost {
		e.held = nil
	}
	if e.buf == nil {
		e.buf = make([]byte, lingerBlock) // next leaves less than one small frame in held
	}
	have := copy(e.buf, e.held)
	n, err := e.c.nc.Read(e.buf[have:])
	e.held = e.buf[:have+n]
	e.budget -= n
	if n > 0 {
		return nil
	}
	return err
}

var errTooMuch = errors.New("the client went on sending after the end of the connection")

// awaitCloseOk reads until the client has answered the server's close, and returns the method:
// close-ok, or close if the two crossed. It returns 0 if no answer can come: the client has hung
// up, the deadline has passed, or the stream is unreadable.
func (e *ending) awaitCloseOk(deadline time.Time) wire.MethodID {
	for {
		id, found := e.next()
		switch {
		case found && (id == wire.IDConnectionCloseOk || id == wire.IDConnectionClose):
			return id
		case found:
			continue
		case e.lost:
			return 0
		}
		e.c.nc.SetReadDeadline(deadline)
		if err := e.read(); err != nil && !(errors.Is(err, os.ErrDeadlineExceeded) && time.Now().Before(deadline)) { // the read failed, and not because of an interruption
			return 0
		}
	}
}

// discard reads until the client hangs up, is silent for longer than patience, or sends for longer
// than lingerMost. It returns false only if the client was silent.
func (e *ending) discard(patience time.Duration) (gone bool) {
	e.lost = true
	last := time.Now().Add(lingerMost)
	for {
		until := time.Now().Add(patience)
		if until.After(last) {
			until = last
		}
		e.c.nc.SetReadDeadline(until)
		if e.c.srv.stopping.Load() { // Shutdown sets stopping before it interrupts the reader
			return true
		}
		switch err := e.read(); {
		case err == nil:
			if !time.Now().Before(last) {
				return true
			}
		case !errors.Is(err, os.ErrDeadlineExceeded):
			return true
		case !time.Now().Before(until): // the time is over: this is not an interruption
			return false
		}
	}
}

// halfClose tells the client that no more bytes come. Reading is still possible.
func halfClose(nc net.Conn) {
	if h, ok := nc.(interface{ CloseWrite() error }); ok {
		_ = h.CloseWrite() // the next read notices if the client has gone
	}
}

// farewell ends an open connection. It writes the last frame that the reason requires, and closes
// the socket.
func (c *Conn) farewell(err error) {
	patience := c.srv.limits.CloseTimeout
	c.nc.SetWriteDeadline(time.Now().Add(patience))
	var f *failure
	switch {
	case errors.Is(err, errClientClosed):
		e := c.depart() // entered before the client knows of the end
		c.out.send(0, wire.Bare(wire.IDConnectionCloseOk))
		c.out.finish(false)
		if e != nil && !e.discard(patience) {
			<-c.written
			halfClose(c.nc)
			e.discard(patience)
		}
	case errors.As(err, &f):
		c.srv.Log.Warn("AMQP connection closed with an error", "peer", c.Name, "err", f.why.Text)
		e := c.depart()
		c.out.send(0, f.closeMethod())
		if e != nil && e.awaitCloseOk(time.Now().Add(patience)) == wire.IDConnectionClose {
			c.out.send(0, wire.Bare(wire.IDConnectionCloseOk))
		}
		c.out.finish(true)
		if e != nil {
			e.discard(patience)
		}
	default:
		c.out.finish(false)
	}
	<-c.written
	c.nc.Close()
}

// depart enters the connection in the list of ending connections. It returns nil if that list is
// full and no entry can be removed. Then the socket is closed without waiting for the client.
func (c *Conn) depart() *ending {
	if c.guest, _ = c.srv.departures.Enter(c.Peer, c.PutOut); c.guest == nil {
		return nil
	}
	return c.newEnding()
}

func (f *failure) closeMethod() *wire.ConnectionClose {
	return &wire.ConnectionClose{Closing: wire.Closing{ReplyCode: f.why.Code, ReplyText: f.why.Text, Class: f.method.Class(), Method: f.method.Method()}}
}

// refuse ends a connection that did not complete its handshake. It tells the client the reason, if
// the protocol allows it, and waits a moment so that the client can read it.
func (c *Conn) refuse(err error) {
	patience := min(c.srv.limits.CloseTimeout, time.Second)
	deadline := time.Now().Add(patience)
	c.nc.SetDeadline(deadline)
	e := c.newEnding()
	_, silent := err.(errSilent)
	f, failed := asFailure(err).(*failure)
	switch {
	case silent:
	case !failed:
		return // the socket failed, or the client was too slow
	default:
		if c.writeNow(f.closeMethod()) != nil {
			return
		}
		if e.awaitCloseOk(deadline) == wire.IDConnectionClose && c.writeNow(wire.Bare(wire.IDConnectionCloseOk)) != nil {
			return
		}
	}
	if !errors.Is(err, errClientClosed) {
		halfClose(c.nc)
	}
	e.discard(patience)
}
