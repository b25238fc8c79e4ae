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

// LimitListener gives every connection a place, of those that all peers share and of those of its
// address, so that one peer cannot take all of them and all peers cannot take all memory. Where
// there is none left, a connection without a request that was let in is closed for the newcomer:
// those kept alive between two requests first, then whoever has not shown who it is for longest.
// Loopback peers and trusted proxies share one address and count towards the total only.
//
//	            accepted           request read         its login is checked, or was right
//	newcomer ──────────▶ waits ───────────────▶ waits ────────────────────────────────────▶ stays
//	                       ▲                                                                  │ answered
//	                       └────────────────── goes first ◀───────────────────────────────────┘
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

// Accept gives the next connection that gets a place.
func (l *limitListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		guest, out := l.lobby.Enter(l.addressOf(conn), func() { _ = conn.Close() }) // its server finds it closed
		switch {
		case guest == nil:
			l.refused.Add(tally.Connections)
		case out:
			l.refused.Add(tally.Strangers)
		}
		if guest != nil {
			return &limitedConn{conn, guest}, nil
		}
		_ = conn.Close() // nothing was sent; the peer learns by the closing
	}
}

// addressOf is the address that a connection's place is counted for. A trusted proxy speaks for
// many clients: like loopback peers, its connections count towards the total only.
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

// Close closes the connection and gives its place back.
func (c *limitedConn) Close() error {
	err := c.Conn.Close()
	c.guest.Leave()
	return err
}

// guestOf gives a connection's place; nil where it was not accepted by a LimitListener.
func guestOf(c net.Conn) *lobby.Guest {
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn()
	}
	if l, ok := c.(*limitedConn); ok {
		return l.guest
	}
	return nil
}

// connContext lets the requests of a connection know its place: whoever finds out who sent one
// holds it.
func connContext(ctx context.Context, c net.Conn) context.Context {
	return lobby.With(ctx, guestOf(c))
}

// connState tells a connection's place what its connection does.
func connState(c net.Conn, s http.ConnState) {
	switch s {
	case http.StateActive:
		guestOf(c).Wait()
	case http.StateIdle:
		guestOf(c).Rest()
	}
}
