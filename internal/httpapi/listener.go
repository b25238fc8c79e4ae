package httpapi

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"net/netip"

	"github.com/surgetank/surgetank/internal/lobby"
	"github.com/surgetank/surgetank/internal/tally"
)

// LimitListener gives every connection a place in a lobby (package lobby). All peers share a number
// of places, and each address has a number of places, so one peer cannot use all places and all
// peers cannot use all memory. If no place is free, the newcomer gets the place of a connection
// whose request was not let in, and that connection is closed. Idle connections between two
// requests are closed first, then the connection that has been unidentified for longest. Loopback
// peers and trusted proxies share addresses and count towards the total only.
//
//	            accepted           request read         its login is checked, or was right
//	newcomer ──────────▶ waits ───────────────▶ waits ────────────────────────────────────▶ stays
//	                       ▲                                                                  │ answered
//	                       └────────────────── closed first ◀─────────────────────────────────┘
func LimitListener(ln net.Listener, l ServerLimits) net.Listener {
	l = l.withDefaults()
	return &limitListener{ln, lobby.New(l.MaxConns, l.MaxConnsPerIP), l.TrustedProxies, l.Refused}
}

type limitListener struct {
	net.Listener
	lobby   *lobby.Lobby
	proxies []netip.Prefix
	refused *tally.Counts
}

// Accept returns the next connection that gets a place.
func (l *limitListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		guest, out := l.lobby.Enter(l.addressOf(conn), func() { _ = conn.Close() }) // its server finds the connection closed
		switch {
		case guest == nil:
			l.refused.Add(tally.Connections)
		case out:
			l.refused.Add(tally.BeforeLogin)
		}
		if guest != nil {
			return &limitedConn{conn, guest}, nil
		}
		_ = conn.Close() // nothing was sent; the peer only sees the close
	}
}

// addressOf returns the address whose places a connection uses. A trusted proxy has many clients,
// so like loopback peers its connections count towards the total only.
func (l *limitListener) addressOf(conn net.Conn) netip.Addr {
	a := remoteIP(conn)
	if within(l.proxies, a.Unmap()) {
		return netip.IPv6Loopback()
	}
	return a
}

func remoteIP(conn net.Conn) netip.Addr {
	ap, err := netip.ParseAddrPort(conn.RemoteAddr().String())
	if err != nil {
		return netip.Addr{}
	}
	return ap.Addr()
}

type limitedConn struct {
	net.Conn
	guest *lobby.Guest
}

// Close closes the connection and frees its place.
func (c *limitedConn) Close() error {
	err := c.Conn.Close()
	c.guest.Leave()
	return err
}

// guestOf returns a connection's place. It is nil if the connection was not accepted by a
// LimitListener.
func guestOf(c net.Conn) *lobby.Guest {
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn()
	}
	if l, ok := c.(*limitedConn); ok {
		return l.guest
	}
	return nil
}

// connContext passes the place of a connection to its requests. The code that identifies the user
// marks the place as busy.
func connContext(ctx context.Context, c net.Conn) context.Context {
	return lobby.With(ctx, guestOf(c))
}

// connState updates a connection's place when the state of the connection changes.
func connState(c net.Conn, s http.ConnState) {
	switch s {
	case http.StateActive:
		guestOf(c).Wait()
	case http.StateIdle:
		guestOf(c).Rest()
	}
}
