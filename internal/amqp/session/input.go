package session

import (
	"io"
	"net"
	"sync/atomic"
	"time"

	"github.com/surgetank/surgetank/internal/amqp/wire"
)

// input is what a connection has read and not handled yet. The reader goroutine owns it; large and
// reads are for the janitor.
type input struct {
	nc     net.Conn
	limit  int  // frame size: the least before login, then the tuned one
	served bool // the client has logged in: the buffer may grow before it is needed

	buf   []byte // buf[pos:end] is not parsed yet
	pos   int
	end   int
	quiet int // reads in a row that needed little of buf

	arena   []byte // a copy of buf from arenaAt on, for the bodies of this read
	arenaAt int

	silence time.Time // the deadline of the socket's reads; zero when another may have been set

	large atomic.Bool   // buf is larger than an idle connection's
	reads atomic.Uint32 // number of reads that brought something
}

// idleWatch is the janitor's memory of one connection's input.
type idleWatch struct {
	calm  uint32 // number of reads at the last look
	asked bool   // the reader was asked to shrink its buffer, and nothing came since
}

const (
	smallBuffer = 4 << 10
	largeBuffer = 256 << 10
	quietReads  = 64
)

// next cuts the next frame off. n is 0 when the frame is not complete yet.
func (in *input) next() (f wire.Frame, n int, err error) {
	f, n, err = wire.NextFrame(in.buf[in.pos:in.end], in.limit)
	in.pos += n
	return f, n, err
}

// fill reads once into buf. A buffer that a read filled is doubled, so that it follows what arrives
// and never what was announced; one that has had little to do for a while shrinks. Before login it
// holds the largest frame that is allowed by then and does not grow, however much a stranger sends.
func (in *input) fill() error {
	in.arena = nil
	if large := len(in.buf) > smallBuffer; large != in.large.Load() {
		in.large.Store(large)
	}
	if in.pos > 0 {
		in.end = copy(in.buf, in.buf[in.pos:in.end])
		in.pos = 0
	}
	switch {
	case in.end == len(in.buf):
		if len(in.buf) >= 2*(in.limit+largeBuffer) {
			return wire.Errorf(wire.CodeInternalError, "the read buffer is full")
		}
		grown := make([]byte, 2*len(in.buf))
		copy(grown, in.buf[:in.end])
		in.buf = grown
	case in.quiet >= quietReads && in.end <= smallBuffer/2 && len(in.buf) > smallBuffer:
		small := make([]byte, smallBuffer)
		copy(small, in.buf[:in.end])
		in.buf, in.quiet = small, 0
	}
	n, err := in.nc.Read(in.buf[in.end:])
	in.end += n
	switch {
	case in.end == len(in.buf) && len(in.buf) < largeBuffer && in.served:
		// Filled to the brim: there is more to come, make room for it now.
		grown := make([]byte, 2*len(in.buf))
		copy(grown, in.buf[:in.end])
		in.buf, in.quiet = grown, 0
	case in.end > smallBuffer/2:
		in.quiet = 0
	default:
		in.quiet++
	}
	if n > 0 {
		in.reads.Add(1)
		return nil
	}
	if err == nil {
		err = io.ErrNoProgress
	}
	return err
}

// shrink gives a connection that has gone quiet the buffer of an idle one. The reader runs it.
func (in *input) shrink() error {
	if held := in.buf[in.pos:in.end]; len(in.buf) > smallBuffer && len(held) <= smallBuffer/2 {
		small := make([]byte, smallBuffer)
		in.end, in.pos = copy(small, held), 0
		in.buf, in.quiet = small, 0
	}
	return nil
}

// allowSilence moves the socket's deadline to where a silent peer is given up, two and a half
// intervals from now. A deadline that is nearly there stays: moving it for every little read costs
// as much as the read.
func (in *input) allowSilence(heartbeat time.Duration) {
	if heartbeat == 0 {
		in.nc.SetReadDeadline(time.Time{})
		return
	}
	deadline := time.Now().Add(heartbeat * 5 / 2)
	if deadline.Sub(in.silence) < heartbeat/8 {
		return
	}
	in.silence = deadline
	in.nc.SetReadDeadline(deadline)
}

// keep returns a body that is still there when the read buffer is not. The first body of a read
// copies all that the read brought from there on, and the others of it are found in that copy: one
// allocation, and one copy that needs no clearing first.
func (in *input) keep(p []byte) []byte {
	at := in.pos - len(p) - 1 // the frame that was just taken off ends with its end octet
	if in.arena == nil || at < in.arenaAt {
		in.arena = append([]byte(nil), in.buf[at:in.end]...)
		in.arenaAt = at
	}
	at -= in.arenaAt
	return in.arena[at : at+len(p) : at+len(p)]
}

// expected guesses from what is left of a read how many more messages it holds.
func (in *input) expected() int { return min(max((in.end-in.pos)/512, 1), 256) }

// take returns what was read and not handled, and leaves nothing.
func (in *input) take() []byte {
	held := in.buf[in.pos:in.end]
	in.buf, in.pos, in.end, in.arena = nil, 0, 0, nil
	return held
}

// look tells whether the reader should shrink its buffer, because nothing was read since the last
// look: once, because each time the peer is given anew the time that it may be silent.
func (w *idleWatch) look(in *input) bool {
	if !in.large.Load() {
		return false
	}
	n := in.reads.Load()
	switch {
	case n != w.calm:
		w.calm, w.asked = n, false
	case !w.asked:
		w.asked = true
		return true
	}
	return false
}
