package hostile

import (
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"time"
)

// Answer is the required answer to a case.
type Answer struct {
	kind kind
	Code uint16 // reply code of connection.close or channel.close
	Text string // a part of the reply text
}

type kind uint8

const (
	onConnection kind = iota // connection.close, then the connection ends
	onChannel                // channel.close; the connection continues
	silent                   // the connection ends without a close method
	header                   // the protocol header, then the connection ends
	goesOn                   // no close: the bytes are no offence
)

func (a Answer) String() string {
	switch a.kind {
	case onConnection:
		return fmt.Sprintf("connection.close with %d %q", a.Code, a.Text)
	case onChannel:
		return fmt.Sprintf("channel.close with %d %q", a.Code, a.Text)
	case silent:
		return "the connection's end without a word"
	case header:
		return "the protocol header and the connection's end"
	}
	return "no offence"
}

func closes(code uint16, text string) Answer  { return Answer{onConnection, code, text} }
func refuses(code uint16, text string) Answer { return Answer{onChannel, code, text} }

// Case is one offence.
type Case struct {
	Number int // number in the list of 85; variants share a number
	Name   string
	stage  stage
	in     func(s AMQP) []byte
	want   Answer
	talk   func(s AMQP, p *Peer) error // if set, plays the case as a dialogue; in is then only used for cuts
}

// stage is the state of the connection when the offence begins.
type stage uint8

const (
	first stage = iota // nothing was sent
	early              // the protocol header was sent
	open               // the connection is open
)

func (c Case) String() string { return fmt.Sprintf("%02d %s", c.Number, c.Name) }

// Cases returns every case, ordered by number.
func Cases() []Case {
	all := slices.Concat(beforeOpen, onOpen, talks)
	slices.SortStableFunc(all, func(a, b Case) int { return a.Number - b.Number })
	return all
}

// Last is the highest number of the list. Numbers 71 (cuts) and 72 (segments) are ways of sending
// the other cases.
const Last = 85

// Stream returns everything that the client sends in a case, from the first byte. It returns nil
// for a dialogue without fixed bytes. heartbeat, in seconds, makes the server end an open
// connection after which nothing is sent.
func (c Case) Stream(s AMQP, heartbeat uint16) []byte {
	if c.in == nil {
		return nil
	}
	return append(c.opening(s, heartbeat), c.in(s)...)
}

func (c Case) opening(s AMQP, heartbeat uint16) []byte {
	switch c.stage {
	case first:
		return nil
	case early:
		return []byte(protocolHeader)
	}
	return s.login(heartbeat)
}

// Play sends the offence once and compares the answer. If slow is true, it sends segments of one
// byte.
func (s AMQP) Play(c Case, slow bool) error {
	p, err := s.dial()
	if err != nil {
		return err
	}
	defer p.conn.Close()
	if c.stage == open {
		if err := errors.Join(p.send(s.login(0)), p.opened()); err != nil {
			return fmt.Errorf("logging in: %w", err)
		}
	}
	p.slow = slow
	if c.talk != nil {
		return c.talk(s, p)
	}
	in := c.in(s)
	if c.stage == early {
		in = append([]byte(protocolHeader), in...)
	}
	// The server can close the connection during a slow write, so a reset is no error. Only the
	// server's answer counts.
	if err := p.send(in); err != nil && !reset(err) {
		return err
	}
	switch c.want.kind {
	case header:
		return p.helloed()
	case goesOn:
		if err := p.works(); err != nil {
			return err
		}
		return p.goodbye()
	case onChannel:
		return errors.Join(p.refused(c.want), p.works())
	}
	return p.refused(c.want)
}

// helloed checks that the server sent its protocol header and closed the connection.
func (p *Peer) helloed() error {
	for {
		if err := p.fill(); err != nil {
			if string(p.buf) != protocolHeader || !errors.Is(err, io.EOF) && !reset(err) {
				return fmt.Errorf("the answer was %q, %v; want the protocol header and the end", p.buf, err)
			}
			return nil
		}
	}
}

// Ending is the way in which a peer ends after a cut.
type Ending string

// The ways in which a peer can end.
const (
	FIN     Ending = "FIN"     // the peer closes in order
	RST     Ending = "RST"     // the peer resets the connection
	Silence Ending = "silence" // the peer sends nothing more and stays connected
)

// Cut sends the first bytes of a stream and then ends in one of the ways. The server must always
// close the connection by itself. After Silence it must do so within its time limit for an opening,
// or the heartbeat's.
func (s AMQP) Cut(stream []byte, at int, e Ending) error {
	p, err := s.dial()
	if err != nil {
		return err
	}
	if err := p.conn.SetDeadline(time.Now().Add(p.patience)); err != nil {
		return errors.Join(err, p.conn.Close())
	}
	stream = p.named(stream)
	drained := make(chan error, 1)
	go func() { // write and read at the same time, because a pipe has no buffer
		_, err := io.Copy(io.Discard, p.conn)
		drained <- err
	}()
	_, err = p.conn.Write(stream[:at])
	if err != nil && reset(err) {
		err = nil // the server closed during the write, which is allowed
	}
	switch tc, isTCP := p.conn.(*net.TCPConn); {
	case err != nil:
	case e == RST && isTCP:
		err = errors.Join(tc.SetLinger(0), tc.Close())
	case e == FIN && isTCP:
		if err = tc.CloseWrite(); err != nil && reset(err) {
			err = nil
		}
	case e != Silence:
		err = p.conn.Close()
	}
	if end := <-drained; err == nil && end != nil && !reset(end) {
		err = fmt.Errorf("the server does not let go: %w", end)
	}
	if cerr := p.conn.Close(); err == nil && e == Silence {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("cut after %d bytes, then %s: %w", at, e, err)
	}
	return nil
}

// Places returns the positions at which to cut the stream of a case. A short stream is cut after
// every byte. A long stream is cut after every byte of its beginning and end, and at some positions
// between; if all is true, after every byte. The beginning that a stream shares with an earlier
// case is left out.
func (c Case) Places(s AMQP, before []Case, all bool) []int {
	stream := string(c.Stream(s, 0))
	n, from := len(stream), 0
	dense, spread := density(n)
	if n == 0 {
		return nil
	}
	for _, b := range before {
		from = max(from, common(string(b.Stream(s, 0)), stream)+1)
	}
	var at []int
	for i := from; i <= n; i++ {
		if all || i <= from+dense || i >= n-dense/2 || i%spread == 0 {
			at = append(at, i)
		}
	}
	return at
}

// density returns, for a stream of n bytes, the number of bytes at its beginning that are each cut
// after, and the distance between later cuts.
func density(n int) (dense, spread int) {
	if n > 32<<10 {
		return 16, n / 16
	}
	return 300, 997
}

// Offence returns a case's bytes after the opening, or nil for a case before or without it.
func (c Case) Offence() []byte {
	if c.stage != open || c.in == nil {
		return nil
	}
	return c.in(AMQP{})
}

// Admitted checks that a client can log in: it opens a connection and closes it.
func (s AMQP) Admitted() error {
	p, err := s.open()
	if err != nil {
		return err
	}
	return p.conn.Close()
}

// Refused tries to log in. It returns an error unless the server refuses.
func (s AMQP) Refused() error {
	p, err := s.dial()
	if err != nil {
		return err
	}
	defer p.conn.Close()
	if err := p.send(join([]byte(protocolHeader), startOk(capable, "PLAIN", plain(s.User, s.Password)))); err != nil {
		return err
	}
	return p.refused(closes(403, refusedLogin))
}
