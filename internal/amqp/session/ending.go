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
// A client may have frames under way when the connection ends. A kernel answers bytes that arrive
// at a closed socket with a reset, and the reset destroys everything that the client has not read
// yet, the last frame among it. So the server reads on and discards until the client hangs up:
//
//	who closes                     last frame   then
//	the client                     close-ok     read on; after a time half-close, read on for as long again
//	the server                     close        read on until close-ok, half-close, read on
//	the server, stream unreadable  close        half-close at once, read on: close-ok cannot be found any more
//
// A half-close tells the client that nothing more comes. After close-ok it has to wait: clients
// report a hangup that arrives before they have hung up themselves as an error. Decision 0140 has
// the reasons and the bounds.

const (
	lingerMost  = 30 * time.Second // all of the reading after the last frame
	lingerBytes = 1 << 30          // and the bytes that it discards
	lingerBlock = 16 << 10
)

// ending reads a connection after its end. It forgets every byte, so its memory does not depend on
// the client.
type ending struct {
	c      *Conn
	buf    []byte
	held   []byte // of buf: read and not looked at yet
	skip   uint64 // bytes of the current frame that are left to discard
	lost   bool   // frames cannot be told apart any more
	budget int    // bytes that may still be read
}

// newEnding takes over what the connection has read and not handled.
func (c *Conn) newEnding() *ending {
	return &ending{c: c, held: c.in.take(), budget: lingerBytes}
}

// next gives the next method on channel 0 and discards everything before it. It returns false when
// the next bytes are not in held. A stream that is not made of frames sets lost.
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

// awaitCloseOk reads until the client has answered the server's close, and gives its method:
// close-ok, or close when the two crossed. It gives 0 when no answer can be expected any more: the
// client has hung up, the deadline has passed, or the stream is unreadable.
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
		if err := e.read(); err != nil && !(errors.Is(err, os.ErrDeadlineExceeded) && time.Now().Before(deadline)) { // not an interruption
			return 0
		}
	}
}

// discard reads until the client hangs up, is silent for longer than patience, or sends for longer
// than lingerMost. It returns false only when the client was silent.
func (e *ending) discard(patience time.Duration) (gone bool) {
	e.lost = true
	last := time.Now().Add(lingerMost)
	for {
		until := time.Now().Add(patience)
		if until.After(last) {
			until = last
		}
		e.c.nc.SetReadDeadline(until)
		if e.c.srv.stopping.Load() { // Shutdown sets it before it interrupts the reader
			return true
		}
		switch err := e.read(); {
		case err == nil:
			if !time.Now().Before(last) {
				return true
			}
		case !errors.Is(err, os.ErrDeadlineExceeded):
			return true
		case !time.Now().Before(until): // not an interruption
			return false
		}
	}
}

// halfClose tells the client that nothing more comes, and keeps reading possible.
func halfClose(nc net.Conn) {
	if h, ok := nc.(interface{ CloseWrite() error }); ok {
		_ = h.CloseWrite() // reading finds out whether the client has gone
	}
}

// farewell ends an open connection: it writes the last frame that the reason asks for, and closes
// the socket.
func (c *Conn) farewell(err error) {
	patience := c.srv.limits.CloseTimeout
	c.nc.SetWriteDeadline(time.Now().Add(patience))
	var f *failure
	switch {
	case errors.Is(err, errClientClosed):
		e := c.depart() // has its place before the client knows
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

// depart gives the connection a place among those that are ending. It returns nil when all places
// are taken by connections that are on their way out: then the socket is closed without waiting for
// the client.
func (c *Conn) depart() *ending {
	if c.guest, _ = c.srv.departures.Enter(c.Peer, c.PutOut); c.guest == nil {
		return nil
	}
	return c.newEnding()
}

func (f *failure) closeMethod() *wire.ConnectionClose {
	return &wire.ConnectionClose{Closing: wire.Closing{ReplyCode: f.why.Code, ReplyText: f.why.Text, Class: f.method.Class(), Method: f.method.Method()}}
}

// refuse ends a connection that did not complete its handshake. It tells the client why, where the
// client can be told, and gives it a moment to read that.
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
