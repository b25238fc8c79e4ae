package session

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"os"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/amqp/topology"
	"github.com/surgetank/surgetank/internal/amqp/wire"
	"github.com/surgetank/surgetank/internal/auth"
	"github.com/surgetank/surgetank/internal/inorder"
	"github.com/surgetank/surgetank/internal/lobby"
	"github.com/surgetank/surgetank/internal/policy"
)

// Conn is one connection. The comment of each field names its owner. Fields without an owner are
// set during the handshake and constant afterwards.
type Conn struct {
	srv   *Shared
	nc    net.Conn
	Name  string     // "peer -> local", unique while the connection lives
	Peer  netip.Addr // the client's address
	port  uint16     // the client's port
	since time.Time
	guest *lobby.Guest // the connection's entry in the lobby before login, and in departures while its client has not hung up
	ctx   context.Context
	// ordered is ctx for publishes, and for commands that must not overtake them.
	ordered context.Context
	stop    context.CancelFunc

	id     atomic.Pointer[identity] // set when the connection is open
	seat   *auth.Admission          // set before the connection is open
	client wire.Table               // properties that the client sent
	tuned  wire.Tuning
	caps   caps // the client's capabilities

	in         input                        // owned by the reader
	pubs       intake                       // owned by the reader
	exclusives map[*topology.Queue]struct{} // owned by the reader

	out      outbox     // shared; its own lock guards it
	asked    interrupts // shared; its own lock guards it
	channels channels   // shared; its own lock guards it
	idle     idleWatch  // owned by the janitor

	consumers atomic.Int64 // number of all channels' consumers

	written chan struct{} // closed when the writer has ended
	over    atomic.Bool   // the connection has ended and only waits for the client to hang up

	// appendBody is wire.AppendBody. Tests replace it.
	appendBody func(dst []byte, channel uint16, body []byte, frameMax int) []byte
}

// intake collects publishes and settlements for the next flush. The reader owns it, except for
// held.
type intake struct {
	batch     *publishBatch
	settles   []surgetank.Settlement
	behind    bool // some of settles are from channels that published: the broker applies them after the publishes
	routes    routeCache
	blocked   bool         // the client got connection.blocked
	isBlocked atomic.Bool  // equals blocked; any goroutine may read it
	late      atomic.Int64 // number of batches with late nacks
	passing   int64        // bytes of the server's budget that messages of the next flush reserve
}

// identity is the user and the virtual host of a connection.
type identity struct {
	user *auth.User
	vh   *topology.Vhost
}

// caps are the client's capabilities that change what the server does.
type caps struct {
	cancelNotify, blocked, authFailureClose bool
}

// NewConn makes a connection for an accepted socket. Serve runs it.
func NewConn(s *Shared, nc net.Conn) *Conn {
	c := &Conn{srv: s, nc: nc, since: s.Clock.Now(), exclusives: map[*topology.Queue]struct{}{}, written: make(chan struct{}), appendBody: wire.AppendBody}
	c.in.nc, c.in.limit, c.in.buf = nc, wire.MinFrameMax, make([]byte, smallBuffer)
	c.asked.nc, c.asked.kicked = nc, make(chan struct{})
	c.channels.byID = map[uint16]*channel{}
	c.out.init()
	c.Name = nc.RemoteAddr().String() + " -> " + nc.LocalAddr().String()
	if ap, err := netip.ParseAddrPort(nc.RemoteAddr().String()); err == nil {
		c.Peer, c.port = ap.Addr().Unmap(), ap.Port()
	}
	c.ctx, c.stop = context.WithCancel(policy.WithOwner(s.Context, c))
	c.ordered = inorder.With(c.ctx)
	return c
}

// Identity returns the user and the virtual host, or nil before the connection is open. Any
// goroutine may call it.
func (c *Conn) Identity() (*auth.User, *topology.Vhost) {
	if id := c.id.Load(); id != nil {
		return id.user, id.vh
	}
	return nil, nil
}

func (c *Conn) user() *auth.User       { return c.id.Load().user }
func (c *Conn) vhost() *topology.Vhost { return c.id.Load().vh }

// errClientClosed ends the read loop after the client has closed the connection in good order.
var errClientClosed = errors.New("closed by the client")

// failure is an error with the method that raised it.
type failure struct {
	why    *wire.Error
	method wire.MethodID
}

func (f *failure) Error() string { return f.why.Text }

// Serve runs the connection until it ends. guest is its entry in the lobby.
func (c *Conn) Serve(guest *lobby.Guest) {
	c.guest = guest
	defer func() { c.guest.Leave() }()
	defer c.stop()
	defer c.nc.Close()
	defer func() { // a panic ends this connection only
		if p := recover(); p != nil {
			c.srv.Log.Error("a defect ended an AMQP connection; please report it", "peer", c.Name, "panic", p, "stack", string(debug.Stack()))
			c.abandon()
		}
	}()
	defer func() {
		if c.seat != nil {
			c.seat.Leave() // a second call does nothing
		}
	}()
	if err := c.handshake(); err != nil {
		c.srv.Log.Info("an AMQP connection was not opened", "peer", c.Name, "err", err)
		return
	}
	c.srv.Log.Debug("AMQP connection opened", "peer", c.Name, "user", c.user().Name, "vhost", c.vhost().Name)
	go c.writeLoop()
	err := c.readLoop()
	c.over.Store(true)
	c.cleanup()
	c.seat.Leave() // before the client can know of the end and open another connection
	c.farewell(err)
	c.srv.Log.Debug("AMQP connection ended", "peer", c.Name, "err", err)
}

// abandon ends a connection in any state after a panic.
func (c *Conn) abandon() {
	defer func() {
		if p := recover(); p != nil {
			c.srv.Log.Error("the cleanup after a defect failed too", "peer", c.Name, "panic", p)
		}
	}()
	c.nc.Close()
	if c.id.Load() != nil {
		c.over.Store(true)
		c.cleanup()
		c.out.finish(false)
		<-c.written
	}
}

// Kick makes the connection close itself with an error. Any goroutine may call it. Only the first
// error counts: Kick returns false for each later one.
func (c *Conn) Kick(err *wire.Error) bool {
	if !c.asked.kick(err) {
		return false
	}
	c.stop()
	c.out.mu.Lock()
	c.out.room.Broadcast()
	c.out.mu.Unlock()
	c.asked.wakeReader()
	return true
}

// readLoop reads until the connection must end, and returns the reason: errClientClosed,
// a *failure, or the socket's error.
func (c *Conn) readLoop() error {
	for {
		for {
			f, n, err := c.in.next()
			if err == nil && n > 0 {
				err = c.frame(f)
			}
			if err != nil {
				c.flush() // publishes before the error are valid
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

// asFailure wraps an error of the protocol in a failure. It returns other errors unchanged.
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

// read waits for more bytes, as long as the heartbeat allows. It also runs the actions that other
// goroutines have left for the reader.
func (c *Conn) read() error {
	heartbeat := time.Duration(c.tuned.Heartbeat) * time.Second
	for {
		c.in.allowSilence(heartbeat)
		// An interruption is stored before it moves the deadline. So either this check or the read
		// below notices it.
		if err := c.asked.failure(); err != nil {
			return err
		}
		ran, err := c.asked.run()
		if err != nil {
			return err
		}
		if ran {
			continue
		}
		err = c.in.fill()
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
		over := heartbeat > 0 && !time.Now().Before(c.in.silence)
		c.in.silence = time.Time{} // the interruption has moved the deadline
		if over && !c.asked.pending() {
			c.srv.Log.Warn("an AMQP peer went silent: missed heartbeats", "peer", c.Name, "heartbeat_seconds", c.tuned.Heartbeat)
			return err
		}
	}
}

// WatchIdle makes the reader shrink its buffer when the connection has become idle. The janitor
// calls it.
func (c *Conn) WatchIdle() {
	if c.idle.look(&c.in) {
		c.asked.interrupt(c.in.shrink)
	}
}

// maxOut bounds the bytes of replies that the client has not read. Above it, the server stops
// reading requests.
const maxOut = 1 << 20

// maxNacks bounds the refused publishes of which the client has not been told. Above it, the server
// stops reading.
const maxNacks = 1 << 15

func (c *Conn) waitForRoom() error {
	c.out.mu.Lock()
	defer c.out.mu.Unlock()
	for c.out.full() && c.out.broken == nil && c.asked.forced.Load() == nil {
		c.out.room.Wait()
	}
	return c.out.broken
}

// frames encodes the header and the body of a message. The caller must not hold a lock. Bodies are
// large, and the broker's loop waits for the outbox's lock.
func (c *Conn) frames(channel uint16, block, body []byte) []byte {
	frameMax := int(c.tuned.FrameMax)
	frames := 2 + len(body)/(frameMax-wire.FrameOverhead)
	dst := make([]byte, 0, 12+len(block)+len(body)+frames*wire.FrameOverhead)
	dst = wire.AppendHeader(dst, channel, len(body), block)
	return c.appendBody(dst, channel, body, frameMax)
}

// PutOut closes a connection that has not logged in. It does not wait for the peer, as an orderly
// close of TLS would.
func (c *Conn) PutOut() {
	c.stop()
	if t, ok := c.nc.(*tls.Conn); ok {
		t.NetConn().Close()
		return
	}
	c.nc.Close()
}

// ShutDown closes a connection because the server shuts down. It wakes a connection that waits for
// its client to hang up.
func (c *Conn) ShutDown() {
	if !c.Kick(wire.Errorf(wire.CodeConnectionForced, "broker forced connection closure with reason 'shutdown'")) {
		c.asked.wakeReader()
	}
}

// Ended reports whether the connection has ended. It may still wait for its client to hang up.
func (c *Conn) Ended() bool { return c.over.Load() }

// consumersLeft subtracts ended consumers from the counts of the connection and its user.
func (c *Conn) consumersLeft(n int) {
	c.consumers.Add(-int64(n))
	c.seat.EndConsumers(n)
}

// Blocked reports whether an alarm blocks the connection.
func (c *Conn) Blocked() bool { return c.pubs.isBlocked.Load() }

// Count returns the numbers of open channels and of their consumers.
func (c *Conn) Count() (channels, consumers int) {
	list := c.channels.list()
	for _, ch := range list {
		n, _ := ch.ledger.count("")
		consumers += n
	}
	return len(list), consumers
}

// CutOff closes the socket of a connection that does not end by itself.
func (c *Conn) CutOff() { c.nc.Close() }

// errPutOut ends the handshake of a connection that was closed to make room.
var errPutOut = errors.New("closed to make room for another connection, as it had not logged in")
