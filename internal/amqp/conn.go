package amqp

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/amqp/wire"
	"github.com/surgetank/surgetank/internal/auth"
	"github.com/surgetank/surgetank/internal/lobby"
	"github.com/surgetank/surgetank/internal/policy"
)

// conn is one connection. Its reader goroutine (serve) owns every field that says nothing else; the writer goroutine owns what
// writer.go says; mu guards what both of them and the broker's callbacks touch.
type conn struct {
	srv   *Server
	nc    net.Conn
	name  string // "peer -> local", unique while it lives
	peer  netip.Addr
	port  uint16 // of the peer
	since time.Time
	guest *lobby.Guest // its place among the strangers until it has logged in, and among the departing after its end
	ctx   context.Context
	stop  context.CancelFunc

	id     atomic.Pointer[identity] // set once it is open
	seat   *auth.Admission          // set before it is open
	client wire.Table               // client properties
	tuned  wire.Tuning
	limit  int  // frame size for reading: the least before login, then the tuned one
	caps   caps // of the client

	buf   []byte // read buffer; buf[pos:end] is not parsed yet
	pos   int
	end   int
	quiet int // reads in a row that needed little of buf

	large atomic.Bool   // buf is larger than an idle connection's
	reads atomic.Uint32 // number of reads that brought something, for the janitor
	calm  uint32        // the janitor's: what reads was when it looked last
	asked bool          // the janitor's: the reader was asked to shrink buf, and nothing came since

	silence time.Time // the deadline of the socket's reads; zero when another may have been set

	arena   []byte // a copy of buf from arenaAt on, for the bodies of this read
	arenaAt int
	batch   *publishBatch
	settles []surgetank.Settlement
	routes  routeCache
	blocked bool        // the client was told so
	held    atomic.Bool // blocked, for others to read
	passing int64       // bytes of the server's budget that messages of the next flush have

	exclusives map[*queue]struct{}

	mu        sync.Mutex
	channels  map[uint16]*channel // written by the reader alone
	out       []byte              // frames for the writer, before deliveries
	confirms  []*channel          // with confirms to tell
	nacks     int                 // refused publishes among them, which one by one are remembered
	busy      []*consumer         // with messages to fetch
	consumers int                 // of all channels
	actions   []func() error      // for the reader to run
	room      sync.Cond           // out has room again, or the connection ends
	deleting  bool                // a queue of this connection's consumers is being deleted by it
	cancels   []byte              // their cancels, to be written behind delete-ok
	ending    bool                // no more is delivered
	finished  bool                // the writer writes what is in out, and ends
	hangUp    bool                // and half-closes the socket then
	broken    error               // the socket failed while writing

	wake    chan struct{} // for the writer; one token
	written chan struct{} // closed when the writer has ended
	kicked  chan struct{} // closed by kick
	forced  atomic.Pointer[wire.Error]
	over    atomic.Bool // it has ended; what is left is to see the client off
}

// identity is who a connection speaks for, and where.
type identity struct {
	user *auth.User
	vh   *vhost
}

// caps are the client's capabilities that change what the server does.
type caps struct {
	cancelNotify, blocked, authFailureClose bool
}

func newConn(s *Server, nc net.Conn) *conn {
	c := &conn{srv: s, nc: nc, since: s.clock.Now(), limit: wire.MinFrameMax,
		buf: make([]byte, smallBuffer), channels: map[uint16]*channel{}, exclusives: map[*queue]struct{}{},
		wake: make(chan struct{}, 1), written: make(chan struct{}), kicked: make(chan struct{})}
	c.room.L = &c.mu
	c.name = nc.RemoteAddr().String() + " -> " + nc.LocalAddr().String()
	if ap, err := netip.ParseAddrPort(nc.RemoteAddr().String()); err == nil {
		c.peer, c.port = ap.Addr().Unmap(), ap.Port()
	}
	c.ctx, c.stop = context.WithCancel(policy.WithOwner(s.ctx, c))
	return c
}

// identity gives user and virtual host, nil before the connection is open. Any goroutine may ask.
func (c *conn) identity() (*auth.User, *vhost) {
	if id := c.id.Load(); id != nil {
		return id.user, id.vh
	}
	return nil, nil
}

func (c *conn) user() *auth.User { return c.id.Load().user }
func (c *conn) vhost() *vhost    { return c.id.Load().vh }

// errClientClosed ends the reading of a connection that its client closed in good order.
var errClientClosed = errors.New("closed by the client")

// failure is an error with the method that raised it.
type failure struct {
	why    *wire.Error
	method wire.MethodID
}

func (f *failure) Error() string { return f.why.Text }

// serve runs the connection to its end.
func (c *conn) serve() {
	defer c.srv.ended(c)
	defer c.stop()
	defer c.nc.Close()
	defer func() { // one connection's defect is not another's end
		if p := recover(); p != nil {
			c.srv.log.Error("a defect ended an AMQP connection; please report it", "peer", c.name, "panic", p, "stack", string(debug.Stack()))
			c.abandon()
		}
	}()
	defer func() {
		if c.seat != nil {
			c.seat.Leave() // no matter if it has
		}
	}()
	if err := c.handshake(); err != nil {
		c.srv.log.Info("an AMQP connection was not opened", "peer", c.name, "err", err)
		return
	}
	c.srv.log.Debug("AMQP connection opened", "peer", c.name, "user", c.user().Name, "vhost", c.vhost().name)
	go c.writeLoop()
	err := c.readLoop()
	c.over.Store(true)
	c.cleanup()
	c.seat.Leave() // before the client can know that the connection has ended, and open another
	c.farewell(err)
	c.srv.log.Debug("AMQP connection ended", "peer", c.name, "err", err)
}

// abandon gives up a connection in whatever state it is.
func (c *conn) abandon() {
	defer func() {
		if p := recover(); p != nil {
			c.srv.log.Error("cleaning up after a defect failed as well", "peer", c.name, "panic", p)
		}
	}()
	c.nc.Close()
	if c.id.Load() != nil {
		c.over.Store(true)
		c.cleanup()
		c.finish(false)
		<-c.written
	}
}

// kick makes the connection close itself with an error. Any goroutine may call it; the first error stands, and kick gives false
// for every other.
func (c *conn) kick(err *wire.Error) bool {
	if !c.forced.CompareAndSwap(nil, err) {
		return false
	}
	close(c.kicked)
	c.stop()
	c.mu.Lock()
	c.room.Broadcast()
	c.mu.Unlock()
	c.nc.SetReadDeadline(time.Unix(1, 0))
	return true
}

// interrupt has the reader run f soon. Any goroutine may call it.
func (c *conn) interrupt(f func() error) {
	c.mu.Lock()
	c.actions = append(c.actions, f)
	c.mu.Unlock()
	c.nc.SetReadDeadline(time.Unix(1, 0))
}

// readLoop reads until the connection is to end, and says why: errClientClosed, a *failure, or the socket's error.
func (c *conn) readLoop() error {
	for {
		for {
			f, n, err := wire.NextFrame(c.buf[c.pos:c.end], c.limit)
			if err == nil && n > 0 {
				c.pos += n
				err = c.frame(f)
			}
			if err != nil {
				c.flush() // what came before the error counts
				return asFailure(err)
			}
			if n == 0 {
				break
			}
		}
		if err := c.flush(); err != nil {
			return asFailure(err)
		}
		if err := c.waitForRoom(); err != nil {
			return err
		}
		if err := c.read(); err != nil {
			return asFailure(err)
		}
	}
}

// asFailure gives an error of the protocol its final form; others pass.
func asFailure(err error) error {
	var f *failure
	if errors.As(err, &f) || errors.Is(err, errClientClosed) {
		return err
	}
	var w *wire.Error
	if errors.As(err, &w) {
		return &failure{why: w}
	}
	return err
}

// read waits for more bytes, for at most as long as the heartbeat allows, and runs what others ask the reader to do.
func (c *conn) read() error {
	for {
		c.allowSilence()
		// Whoever interrupts first leaves word and then moves the deadline: either is seen here.
		if f := c.forced.Load(); f != nil {
			return &failure{why: f}
		}
		c.mu.Lock()
		actions := c.actions
		c.actions = nil
		c.mu.Unlock()
		for _, a := range actions {
			if err := a(); err != nil {
				return err
			}
		}
		if len(actions) > 0 {
			continue
		}
		err := c.fill()
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
		over := c.tuned.Heartbeat > 0 && !time.Now().Before(c.silence)
		c.silence = time.Time{} // whoever interrupted has moved the deadline
		if over && c.forced.Load() == nil && !c.hasActions() {
			c.srv.log.Warn("an AMQP peer went silent: missed heartbeats", "peer", c.name, "heartbeat_seconds", c.tuned.Heartbeat)
			return err
		}
	}
}

// allowSilence moves the socket's deadline to where a silent peer is given up, two and a half intervals from now. A deadline
// that is nearly there stays: moving it for every little read costs as much as the read.
func (c *conn) allowSilence() {
	hb := time.Duration(c.tuned.Heartbeat) * time.Second
	if hb == 0 {
		c.nc.SetReadDeadline(time.Time{})
		return
	}
	deadline := time.Now().Add(hb * 5 / 2)
	if deadline.Sub(c.silence) < hb/8 {
		return
	}
	c.silence = deadline
	c.nc.SetReadDeadline(deadline)
}

func (c *conn) hasActions() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.actions) > 0
}

const (
	smallBuffer = 4 << 10
	largeBuffer = 256 << 10
	quietReads  = 64
)

// fill reads once into buf. A buffer that a read filled is doubled, so that it follows what arrives and never what was
// announced; one that has had little to do for a while shrinks. Before login it holds the largest frame that is allowed by
// then and does not grow, however much a stranger sends.
func (c *conn) fill() error {
	c.arena = nil
	if large := len(c.buf) > smallBuffer; large != c.large.Load() {
		c.large.Store(large)
	}
	if c.pos > 0 {
		c.end = copy(c.buf, c.buf[c.pos:c.end])
		c.pos = 0
	}
	switch {
	case c.end == len(c.buf):
		if len(c.buf) >= 2*(c.limit+largeBuffer) {
			return wire.Errorf(wire.CodeInternalError, "the read buffer is full")
		}
		grown := make([]byte, 2*len(c.buf))
		copy(grown, c.buf[:c.end])
		c.buf = grown
	case c.quiet >= quietReads && c.end <= smallBuffer/2 && len(c.buf) > smallBuffer:
		small := make([]byte, smallBuffer)
		copy(small, c.buf[:c.end])
		c.buf, c.quiet = small, 0
	}
	n, err := c.nc.Read(c.buf[c.end:])
	c.end += n
	switch {
	case c.end == len(c.buf) && len(c.buf) < largeBuffer && c.tuned.FrameMax > 0:
		// Filled to the brim: there is more to come, make room for it now.
		grown := make([]byte, 2*len(c.buf))
		copy(grown, c.buf[:c.end])
		c.buf, c.quiet = grown, 0
	case c.end > smallBuffer/2:
		c.quiet = 0
	default:
		c.quiet++
	}
	if n > 0 {
		c.reads.Add(1)
		return nil
	}
	if err == nil {
		err = io.ErrNoProgress
	}
	return err
}

// shrink gives a connection that has gone quiet the buffer of an idle one. The reader runs it.
func (c *conn) shrink() error {
	if held := c.buf[c.pos:c.end]; len(c.buf) > smallBuffer && len(held) <= smallBuffer/2 {
		small := make([]byte, smallBuffer)
		c.end, c.pos = copy(small, held), 0
		c.buf, c.quiet = small, 0
	}
	return nil
}

// watchIdle has the reader shrink its buffer when nothing was read since the last look: once, because each time the peer is given anew
// the time that it may be silent. The janitor calls it.
func (c *conn) watchIdle() {
	if !c.large.Load() {
		return
	}
	n := c.reads.Load()
	switch {
	case n != c.calm:
		c.calm, c.asked = n, false
	case !c.asked:
		c.asked = true
		c.interrupt(c.shrink)
	}
}

// maxOut is how many bytes of replies may wait for a client that does not read them before its requests wait too.
const maxOut = 1 << 20

// maxNacks is how many refused publishes may wait to be told before more is read.
const maxNacks = 1 << 15

func (c *conn) waitForRoom() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for (len(c.out) > maxOut || c.nacks > maxNacks) && c.broken == nil && c.forced.Load() == nil {
		c.room.Wait()
	}
	return c.broken
}
