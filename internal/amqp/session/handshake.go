package session

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/amqp/topology"
	"github.com/surgetank/surgetank/internal/amqp/translate"
	"github.com/surgetank/surgetank/internal/amqp/wire"
	"github.com/surgetank/surgetank/internal/auth"
	"github.com/surgetank/surgetank/internal/policy"
	"github.com/surgetank/surgetank/internal/tally"
)

// handshake runs the connection from its first byte to connection.open-ok:
//
//	client                         server
//	"AMQP" 0 0 9 1            ──▶
//	                          ◀──  start
//	start-ok (credentials)    ──▶
//	                          ◀──  tune
//	tune-ok, open (vhost)     ──▶
//	                          ◀──  open-ok
//
// It must end within Limits.Handshake. Its frames have at most the smallest frame size. There is no
// writer goroutine yet.
func (c *Conn) handshake() error {
	c.nc.SetDeadline(time.Now().Add(c.srv.limits.Handshake))
	err := c.protocolHeader()
	if err == nil {
		err = c.negotiate()
	}
	if err != nil {
		c.refuse(err)
		return err
	}
	c.nc.SetDeadline(time.Time{})
	return nil
}

// protocolHeader reads the client's protocol header. For another protocol or version it answers
// with the header of AMQP 0-9-1.
func (c *Conn) protocolHeader() error {
	for {
		got := c.in.buf[:c.in.end]
		if n := min(len(got), len(wire.ProtocolHeader)); string(got[:n]) != wire.ProtocolHeader[:n] {
			c.nc.Write([]byte(wire.ProtocolHeader))
			return errSilent{fmt.Errorf("the peer does not speak AMQP 0-9-1; it began with %q", got[:min(len(got), 16)])}
		}
		if len(got) >= len(wire.ProtocolHeader) {
			c.in.pos = len(wire.ProtocolHeader)
			return nil
		}
		if err := c.in.fill(); err != nil {
			return err
		}
	}
}

// errSilent ends a handshake without a close method, because the client would not understand one.
type errSilent struct{ error }

func (e errSilent) Unwrap() error { return e.error }

func (c *Conn) negotiate() error {
	start := &wire.ConnectionStart{VersionMinor: 9, ServerProperties: c.srv.props, Mechanisms: []byte("AMQPLAIN PLAIN"), Locales: []byte("en_US")}
	if err := c.writeNow(start); err != nil {
		return err
	}
	startOk, err := expect[*wire.ConnectionStartOk](c)
	if err != nil {
		return err
	}
	user, err := c.login(startOk)
	if err != nil {
		return err
	}
	if err := c.tune(); err != nil {
		return err
	}
	open, err := expect[*wire.ConnectionOpen](c)
	if err != nil {
		return err
	}
	vh, refused := c.enter(user, open.VirtualHost)
	if refused != nil {
		return &failure{refused, wire.IDConnectionOpen}
	}
	if c.seat, err = c.srv.Auth.Admit(user, vh.Name); err != nil {
		c.srv.Refused.Refused(err, tally.Connections)
		return &failure{noSeat(err, user.Name, vh.Name), wire.IDConnectionOpen}
	}
	c.id.Store(&identity{user, vh})
	c.pubs.routes.init(c)
	return c.writeNow(&wire.ConnectionOpenOk{})
}

func (c *Conn) writeNow(m wire.Method) error {
	_, err := c.nc.Write(wire.AppendMethod(nil, 0, m))
	return err
}

// expect reads the next method of the handshake. It must be a T.
func expect[T wire.Method](c *Conn) (m T, err error) {
	for {
		f, n, err := c.in.next()
		if err != nil {
			return m, err
		}
		switch {
		case n == 0:
			if err := c.in.fill(); err != nil {
				return m, err
			}
		case f.Type == wire.FrameHeartbeat:
		case f.Type != wire.FrameMethod:
			return m, wire.Errorf(wire.CodeUnexpectedFrame, "frame of type %d before the connection is open", f.Type)
		case f.Channel != 0:
			return m, wire.Errorf(wire.CodeChannelError, "method on channel %d before the connection is open", f.Channel)
		default:
			got, err := wire.ParseMethod(f.Payload)
			if err != nil {
				return m, err
			}
			if want, ok := got.(T); ok {
				return want, nil
			}
			if _, ok := got.(*wire.ConnectionClose); ok {
				c.writeNow(wire.Bare(wire.IDConnectionCloseOk))
				return m, errSilent{errClientClosed}
			}
			return m, &failure{wire.Errorf(wire.CodeCommandInvalid, "method %d of class %d while %T was expected",
				got.ID().Method(), got.ID().Class(), m), got.ID()}
		}
	}
}

// login checks the credentials of start-ok.
func (c *Conn) login(m *wire.ConnectionStartOk) (*auth.User, error) {
	c.client = m.ClientProperties
	if v, ok := c.client.Get("capabilities"); ok {
		t, _ := v.Table()
		is := func(name string) bool {
			v, _ := t.Get(name)
			b, _ := v.Bool()
			return b
		}
		c.caps = caps{is("consumer_cancel_notify"), is("connection.blocked"), is("authentication_failure_close")}
	}
	var name, password []byte
	var ok bool
	switch m.Mechanism {
	case "PLAIN":
		name, password, ok = parsePlain(m.Response)
	case "AMQPLAIN":
		name, password, ok = parseAMQPlain(m.Response)
	default:
		return nil, errSilent{fmt.Errorf("the client asked for the unknown mechanism %q", m.Mechanism)}
	}
	if ok {
		if !c.guest.Hold() {
			return nil, errSilent{errPutOut}
		}
		user, err := c.srv.Auth.Authenticate(c.ctx, string(name), string(password), c.Peer)
		if err == nil {
			c.guest.Leave() // a logged-in client is not in the lobby any more
			return user, nil
		}
		c.guest.Wait()
		switch surgetank.CodeOf(err) {
		case surgetank.CodeDenied:
			c.srv.refusedLogins.Add(1)
		case surgetank.CodeBusy:
			c.srv.Refused.Add(tally.Logins)
		default:
			return nil, translate.ToWire(err)
		}
	}
	refused := wire.Errorf(wire.CodeAccessRefused,
		"Login was refused using authentication mechanism %s. For details see the broker logfile.", m.Mechanism)
	if !c.caps.authFailureClose {
		return nil, errSilent{refused}
	}
	return nil, refused
}

// parsePlain parses the PLAIN response of RFC 4616: an authorisation identity, which is ignored,
// user and password.
func parsePlain(b []byte) (user, password []byte, ok bool) {
	parts := bytes.Split(b, []byte{0})
	if len(parts) != 3 {
		return nil, nil, false
	}
	return parts[1], parts[2], true
}

// parseAMQPlain parses the AMQPLAIN response: a table without its length.
func parseAMQPlain(b []byte) (user, password []byte, ok bool) {
	t := wire.Table(b)
	if t.Validate() != nil {
		return nil, nil, false
	}
	u, _ := t.Get("LOGIN")
	p, _ := t.Get("PASSWORD")
	user, ok1 := u.Str()
	password, ok2 := p.Str()
	return user, password, ok1 && ok2
}

// tune agrees on limits. A client may lower each limit, but not raise or remove it.
func (c *Conn) tune() error {
	l := c.srv.limits
	offer := wire.Tuning{ChannelMax: l.ChannelMax, FrameMax: max(l.FrameMax, wire.MinFrameMax), Heartbeat: uint16(min(max(l.Heartbeat, 0)/time.Second, 65535))}
	if err := c.writeNow(&wire.ConnectionTune{Tuning: offer}); err != nil {
		return err
	}
	m, err := expect[*wire.ConnectionTuneOk](c)
	if err != nil {
		return err
	}
	bad := func(format string, args ...any) error {
		return &failure{wire.Errorf(wire.CodeNotAllowed, format, args...), wire.IDConnectionTuneOk}
	}
	switch {
	case m.FrameMax == 0 || m.FrameMax > offer.FrameMax:
		return bad("negotiated frame_max = %d is higher than the maximum allowed value (%d)", m.FrameMax, offer.FrameMax)
	case m.FrameMax < wire.MinFrameMax:
		return bad("negotiated frame_max = %d is lower than the minimum allowed value (%d)", m.FrameMax, wire.MinFrameMax)
	case m.ChannelMax == 0 || m.ChannelMax > offer.ChannelMax:
		return bad("negotiated channel_max = %d is higher than the maximum allowed value (%d)", m.ChannelMax, offer.ChannelMax)
	}
	c.tuned = m.Tuning
	c.in.limit, c.in.served = int(m.FrameMax), m.FrameMax > 0
	return nil
}

// noSeat returns the error for a connection that a limit on connections refuses.
func noSeat(err error, user, vhost string) *wire.Error {
	var l *auth.LimitError
	switch {
	case !errors.As(err, &l):
		return translate.ToWire(err)
	case l.What == auth.UserConnections:
		return wire.Errorf(wire.CodeNotAllowed, "connection refused for user '%s': user connection limit (%d) is reached", user, l.Limit)
	}
	return wire.Errorf(wire.CodeNotAllowed, "access to vhost '%s' refused for user '%s': connection limit (%d) is reached", vhost, user, l.Limit)
}

// enter finds the virtual host that the client names.
func (c *Conn) enter(user *auth.User, name string) (*topology.Vhost, *wire.Error) {
	err := c.srv.Auth.AuthorizeVhost(user, name)
	switch surgetank.CodeOf(err) {
	case "":
		if name == policy.InternalVhost {
			break // no client may enter this virtual host, whatever rights the store has
		}
		if vh := c.srv.vhosts.Vhost(name); vh != nil {
			return vh, nil
		}
		fallthrough
	case surgetank.CodeNotFound:
		return nil, wire.Errorf(wire.CodeNotAllowed, "vhost %s not found", name)
	}
	return nil, wire.Errorf(wire.CodeNotAllowed, "access to vhost '%s' refused for user '%s'", name, user.Name)
}
