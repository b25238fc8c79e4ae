package session

import (
	"io"
	"net"
	"sync/atomic"
	"time"

	"github.com/surgetank/surgetank/internal/amqp/wire"
)

// input has the bytes that a connection has read and not handled yet. The reader owns it. The
// janitor reads large and reads.
type input struct {
	nc     net.Conn
	limit  int  // largest frame: the protocol's minimum before login, then the tuned size
	served bool // the client has logged in, so the buffer can grow ahead of need

	buf   []byte // buf[pos:end] is not parsed yet
	pos   int
	end   int
	quiet int // number of reads in a row that used little of buf

	arena   []byte // a copy of buf from arenaAt on, for the bodies of this read
	arenaAt int

	silence time.Time // read deadline of the socket; zero if another goroutine can have set another deadline

	large atomic.Bool   // buf is larger than an idle connection's
	reads atomic.Uint32 // number of reads that returned bytes
}

// idleWatch is the janitor's state for one connection's input.
type idleWatch struct {
	calm  uint32 // number of reads at the last look
	asked bool   // the reader was asked to shrink its buffer, and nothing was read since
}

const (
	smallBuffer = 4 << 10
	largeBuffer = 256 << 10
	quietReads  = 64
)

// next returns the next frame and its length n. n is 0 if the frame is not complete yet.
func (in *input) next() (f wire.Frame, n int, err error) {
	f, n, err = wire.NextFrame(in.buf[in.pos:in.end], in.limit)
	in.pos += n
	return f, n, err
}

// fill reads once into buf. If a read fills the buffer, the buffer doubles. So its size depends on
// received bytes, not on announced sizes. A buffer that was little used for a while shrinks. Before
// login the buffer has room for the largest frame allowed then, and does not grow.
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
		// The buffer is full, so more bytes probably wait. Make room for them now.
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

// shrink replaces the buffer of an idle connection by a small one. The reader calls it.
func (in *input) shrink() error {
	if held := in.buf[in.pos:in.end]; len(in.buf) > smallBuffer && len(held) <= smallBuffer/2 {
		small := make([]byte, smallBuffer)
		in.end, in.pos = copy(small, held), 0
		in.buf, in.quiet = small, 0
	}
	return nil
}

// allowSilence sets the socket's read deadline to two and a half heartbeat intervals from now. A
// deadline close to that time is left as it is, because setting it costs as much as a small read.
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

// keep returns a copy of a body that stays valid when the read buffer is reused. The first body of
// a read copies all bytes of the read from there on. Later bodies are slices of that copy. So a
// read needs one allocation and one copy, without clearing memory first.
func (in *input) keep(p []byte) []byte {
	at := in.pos - len(p) - 1 // the frame that was just parsed ends with its end octet
	if in.arena == nil || at < in.arenaAt {
		in.arena = append([]byte(nil), in.buf[at:in.end]...)
		in.arenaAt = at
	}
	at -= in.arenaAt
	return in.arena[at : at+len(p) : at+len(p)]
}

// expected guesses the number of further messages in the read from its remaining bytes.
func (in *input) expected() int { return min(max((in.end-in.pos)/512, 1), 256) }

// drain returns the bytes that were read and not handled, and removes them.
func (in *input) drain() []byte {
	held := in.buf[in.pos:in.end]
	in.buf, in.pos, in.end, in.arena = nil, 0, 0, nil
	return held
}

// look reports whether the reader should shrink its buffer, because nothing was read since the last
// look. It returns true once for each quiet time, because each request to shrink renews the time
// that the peer may be silent.
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
