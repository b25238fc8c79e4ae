package session

import (
	"bytes"
	"io"
	"net"
	"testing"
	"time"

	"github.com/surgetank/surgetank/internal/amqp/wire"
)

// TestDiscardingForgets: frames after the end use no memory, whatever size they announce.
func TestDiscardingForgets(t *testing.T) {
	frame := wire.AppendFrame(nil, wire.FrameBody, 1, make([]byte, 1<<20))
	in := bytes.NewReader(append(append(frame, frame...), wire.AppendMethod(nil, 0, wire.Bare(wire.IDConnectionCloseOk))...))
	e := &ending{c: &Conn{nc: readOnly{Reader: in}}, budget: lingerBytes}
	if id := e.awaitCloseOk(time.Time{}); id != wire.IDConnectionCloseOk {
		t.Errorf("got method %v, want close-ok", id)
	}
	if len(e.buf) > lingerBlock {
		t.Errorf("the buffer has %d bytes", len(e.buf))
	}
	e = &ending{c: &Conn{nc: readOnly{Reader: bytes.NewReader(frame)}}, budget: 100_000}
	if id := e.awaitCloseOk(time.Time{}); id != 0 || e.budget > 0 {
		t.Errorf("got method %v with %d bytes left to read, want none", id, e.budget)
	}
}

type readOnly struct {
	net.Conn
	io.Reader
}

func (r readOnly) Read(b []byte) (int, error)    { return r.Reader.Read(b) }
func (readOnly) SetReadDeadline(time.Time) error { return nil }
