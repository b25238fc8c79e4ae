package amqp

import (
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/surgetank/surgetank/internal/amqp/session"
	"github.com/surgetank/surgetank/internal/tally"
)

// The lobby is the list of connections that have not logged in. Its size is limited. When the lobby
// is full, a new connection is accepted, and the connection that has waited longest is closed. A
// connection whose credentials are being checked is not closed.

// accept enters a connection in the lobby and serves it.
func (s *Server) accept(nc net.Conn) {
	c := session.NewConn(s.shared, nc)
	s.mu.Lock()
	full := s.closing || len(s.conns) >= s.limits.MaxConnections
	if !full {
		s.conns[c] = struct{}{}
	}
	s.mu.Unlock()
	if full {
		s.refused.Add(tally.Connections)
		s.turn(c.Peer, "an AMQP connection was turned away: too many, or shutting down")
		nc.Close()
		return
	}
	guest, out := s.lobby.Enter(c.Peer, c.PutOut)
	if guest == nil {
		s.refused.Add(tally.BeforeLogin)
		s.turn(c.Peer, "an AMQP connection was turned away: all that have not logged in yet are being checked")
		nc.Close()
		s.ended(c)
		return
	}
	if out {
		s.refused.Add(tally.BeforeLogin)
		s.turn(c.Peer, "an AMQP connection that did not log in was closed to make room for another")
	}
	s.accepted.Add(1)
	go func() {
		defer s.ended(c)
		c.Serve(guest)
	}()
}

func (s *Server) ended(c *session.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
	if s.closing && len(s.conns) == 0 {
		close(s.idle)
	}
}

// turned counts the connections that were closed before login since the last log line about them.
// Peers can cause such closes as fast as they can connect, so the log gets at most one line in
// turnedEvery.
type turned struct {
	mu    sync.Mutex
	any   bool
	said  time.Duration // time of the last line, by the clock's passed time
	since int
}

const turnedEvery = 10 * time.Second

func (s *Server) turn(newcomer netip.Addr, what string) {
	t := &s.turned
	t.mu.Lock()
	defer t.mu.Unlock()
	t.since++
	now := s.clock.Passed()
	if t.any && now-t.said < turnedEvery {
		return
	}
	s.log.Warn(what, "newcomer", newcomer, "such_since_last", t.since)
	t.any, t.said, t.since = true, now, 0
}
