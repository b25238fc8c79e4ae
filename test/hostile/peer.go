package hostile

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"time"
)

// AMQP is a server that receives the cases. Its methods are safe for use by many goroutines.
type AMQP struct {
	Dial           func() (net.Conn, error)
	User, Password string
	// Patience limits the wait for a required answer. A passing test never waits so long.
	Patience time.Duration
}

// Every case negotiates these limits when it opens a connection.
const (
	channelMax = 64
	frameMax   = 131072
)

// login returns the bytes of a normal client up to connection.open. All of them can be sent before
// the first answer is read.
func (s AMQP) login(heartbeat uint16) []byte {
	return join([]byte(protocolHeader), startOk(capable, "PLAIN", plain(s.User, s.Password)), tuneOk(channelMax, frameMax, heartbeat), connectionOpen("/"))
}

// Peer is one connection with its own frame encoder. It is for one goroutine.
type Peer struct {
	conn     net.Conn
	patience time.Duration
	slow     bool   // if true, send writes one byte at a time
	own      string // replaces the name of the cases' queue, so connections do not disturb each other
	buf      []byte
}

// peers counts connections, for names.
var peers atomic.Int64

func (s AMQP) dial() (*Peer, error) {
	conn, err := s.Dial()
	if err != nil {
		return nil, err
	}
	if tc, ok := conn.(*net.TCPConn); ok {
		if err := tc.SetNoDelay(true); err != nil {
			return nil, errors.Join(err, conn.Close())
		}
	}
	return &Peer{conn: conn, patience: s.Patience, own: fmt.Sprintf("h%06d", peers.Add(1)%1e6)}, nil
}

// open returns a logged-in connection.
func (s AMQP) open() (*Peer, error) {
	p, err := s.dial()
	if err != nil {
		return nil, err
	}
	if err := errors.Join(p.send(s.login(0)), p.opened()); err != nil {
		return nil, errors.Join(err, p.conn.Close())
	}
	return p, nil
}

// opened reads the server's half of the opening.
func (p *Peer) opened() error {
	for _, id := range []uint16{10, 30, 41} {
		if _, err := p.expect(0, connection, id); err != nil {
			return err
		}
	}
	return nil
}

// send writes bytes to the connection, with the name of its own queue.
func (p *Peer) send(b []byte) error {
	if err := p.conn.SetWriteDeadline(time.Now().Add(p.patience)); err != nil {
		return err
	}
	b = p.named(b)
	step := len(b)
	if p.slow {
		step = 1
	}
	for ; len(b) > 0; b = b[step:] {
		if _, err := p.conn.Write(b[:step]); err != nil {
			return fmt.Errorf("writing: %w", err)
		}
	}
	return nil
}

// named inserts the name of the connection's own queue.
func (p *Peer) named(b []byte) []byte { return bytes.ReplaceAll(b, []byte(q), []byte(p.own)) }

// reply is a frame that the server sent.
type reply struct {
	typ       byte
	ch        uint16
	class, id uint16 // class and id of a method
	payload   []byte // the bytes after class and id, or of another frame
}

func (r reply) String() string {
	if r.typ != frameMethod {
		return fmt.Sprintf("a frame of type %d on channel %d", r.typ, r.ch)
	}
	s := fmt.Sprintf("method %d.%d on channel %d", r.class, r.id, r.ch)
	if code, text, ok := r.closing(); ok {
		s += fmt.Sprintf(" (%d %s)", code, text)
	}
	return s
}

// closing decodes a connection.close or channel.close. ok is false for another frame.
func (r reply) closing() (code uint16, text string, ok bool) {
	if r.typ != frameMethod || !(r.class == connection && r.id == 50) && !(r.class == channel && r.id == 40) || len(r.payload) < 3 {
		return 0, "", false
	}
	n := int(r.payload[2])
	if len(r.payload) < 3+n+4 {
		return 0, "", false
	}
	return binary.BigEndian.Uint16(r.payload), string(r.payload[3 : 3+n]), true
}

// fill reads more bytes into the buffer.
func (p *Peer) fill() error {
	if err := p.conn.SetReadDeadline(time.Now().Add(p.patience)); err != nil {
		return err
	}
	b := make([]byte, 16<<10)
	n, err := p.conn.Read(b)
	p.buf = append(p.buf, b[:n]...)
	if n > 0 {
		return nil
	}
	return err
}

// next reads a frame that is not a heartbeat. io.EOF says that the server has closed the connection
// between two frames.
func (p *Peer) next() (reply, error) {
	for {
		for len(p.buf) < 7 {
			if err := p.fill(); err != nil {
				return reply{}, ended(err, len(p.buf) == 0)
			}
		}
		size := binary.BigEndian.Uint32(p.buf[3:])
		if size > frameMax {
			return reply{}, fmt.Errorf("the server sent a frame of %d bytes", size)
		}
		for len(p.buf) < 8+int(size) {
			if err := p.fill(); err != nil {
				return reply{}, ended(err, false)
			}
		}
		r := reply{typ: p.buf[0], ch: binary.BigEndian.Uint16(p.buf[1:]), payload: append([]byte(nil), p.buf[7:7+size]...)}
		if p.buf[7+size] != frameEnd {
			return reply{}, errors.New("the server sent a frame without an end octet")
		}
		p.buf = p.buf[8+size:]
		if r.typ == frameHeartbeat {
			continue
		}
		if r.typ == frameMethod {
			if size < 4 {
				return reply{}, errors.New("the server sent a method without an id")
			}
			r.class, r.id, r.payload = binary.BigEndian.Uint16(r.payload), binary.BigEndian.Uint16(r.payload[2:]), r.payload[4:]
		}
		return r, nil
	}
}

// ended returns io.EOF if the connection ended between frames, for any reason.
func ended(err error, clean bool) error {
	if clean && (errors.Is(err, io.EOF) || reset(err)) {
		return io.EOF
	}
	return err
}

// reset reports whether the other end reset the connection. A timeout is not a reset.
func reset(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && !op.Timeout() || errors.Is(err, io.ErrClosedPipe)
}

// expect reads the next method and returns an error if it is another one.
func (p *Peer) expect(ch, class, id uint16) (reply, error) {
	r, err := p.next()
	if err != nil {
		return r, fmt.Errorf("waiting for method %d.%d on channel %d: %w", class, id, ch, err)
	}
	if r.typ != frameMethod || r.ch != ch || r.class != class || r.id != id {
		return r, fmt.Errorf("got %s, want method %d.%d on channel %d", r, class, id, ch)
	}
	return r, nil
}

// ask sends a method and reads its answer, the next method of its class.
func (p *Peer) ask(ch uint16, m []byte, class, id uint16) error {
	if err := p.send(m); err != nil {
		return err
	}
	_, err := p.expect(ch, class, id)
	return err
}

// content reads a header and a body.
func (p *Peer) content() (properties []byte, text string, err error) {
	r, err := p.next()
	if err != nil {
		return nil, "", err
	}
	if r.typ != frameHeader || len(r.payload) < 14 {
		return nil, "", fmt.Errorf("got %s, want a content header", r)
	}
	properties, size := r.payload[12:], binary.BigEndian.Uint64(r.payload[4:])
	for uint64(len(text)) < size {
		r, err := p.next()
		if err != nil {
			return nil, "", err
		}
		if r.typ != frameBody {
			return nil, "", fmt.Errorf("got %s, want a body", r)
		}
		text += string(r.payload)
	}
	return properties, text, nil
}

// get receives a message from a queue without acknowledgement.
func (p *Peer) get(ch uint16, name string) (properties []byte, text string, err error) {
	if err := p.ask(ch, method(ch, basic, 70, uint16(0), name, uint8(1)), basic, 71); err != nil {
		return nil, "", err
	}
	return p.content()
}

// works checks that a channel can still be opened and closed on the connection.
func (p *Peer) works() error {
	const ch = 33
	if err := p.send(channelOpen(ch)); err != nil {
		return err
	}
	for {
		r, err := p.next()
		if err != nil {
			return err
		}
		if _, _, closing := r.closing(); closing {
			return fmt.Errorf("got %s, want no offence taken", r)
		}
		if r.ch == ch {
			break // answers to earlier requests are skipped
		}
	}
	return p.ask(ch, method(ch, channel, 40, uint16(200), "", uint16(0), uint16(0)), channel, 41)
}

// goodbye closes the connection in order.
func (p *Peer) goodbye() error {
	if err := p.ask(0, connectionClose(), connection, 51); err != nil {
		return err
	}
	return p.hangUp()
}

// hangUp closes the socket after an orderly close, because the server waits until the client closes
// first.
func (p *Peer) hangUp() error {
	if c, ok := p.conn.(interface{ CloseWrite() error }); ok {
		if err := c.CloseWrite(); err != nil {
			return err
		}
	}
	return p.closed()
}

// closed checks that the server has closed the socket and sends nothing more.
func (p *Peer) closed() error {
	r, err := p.next()
	switch {
	case err == nil:
		return fmt.Errorf("got %s, want a closed connection", r)
	case errors.Is(err, io.EOF):
		return nil
	}
	return fmt.Errorf("the connection is not closed: %w", err)
}

// refused reads until the server closes the connection or the channel, and compares the reason.
func (p *Peer) refused(want Answer) error {
	for {
		r, err := p.next()
		if errors.Is(err, io.EOF) {
			if want.kind == silent {
				return nil
			}
			return fmt.Errorf("the connection was closed without a word, want %s", want)
		}
		if err != nil {
			return err
		}
		code, text, ok := r.closing()
		if !ok {
			if r.typ == frameMethod && r.class == connection && r.id == 41 && want.kind == silent {
				return errors.New("the connection was opened")
			}
			continue // answers to earlier requests
		}
		kind := onChannel
		if r.class == connection {
			kind = onConnection
		}
		if kind != want.kind || code != want.Code || !strings.Contains(text, want.Text) {
			return fmt.Errorf("got %s, want %s", r, want)
		}
		return nil
	}
}
