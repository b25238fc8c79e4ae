package session

import (
	"sync"

	"github.com/surgetank/surgetank/internal/amqp/wire"
	"github.com/surgetank/surgetank/internal/settings"
	"github.com/surgetank/surgetank/internal/tally"
)

// budget bounds what connections have the server hold that is no message in the broker yet: bodies
// that come in pieces, and transactions before their commit. Each alone is bounded by the size of a
// message or of a transaction, but a connection may have two thousand channels, and a server many
// connections.
//
// A body reserves its whole size with its first piece. Nothing is allocated by that. It means that
// publishers that have begun can finish, and that others wait with their sockets unread, instead of
// all of them stopping half-way. If a publisher has waited for longer than BodyWait, somebody began
// bodies or transactions and does not finish them. Then the connection of the largest holder, which
// may be the publisher's own, is closed with RESOURCE_ERROR.
//
// All methods may be called by many goroutines.
type budget struct {
	srv   *Shared
	mu    sync.Mutex
	used  int64
	by    map[*Conn]int64
	freed chan struct{} // closed when something was given back; nil when nobody waits
}

// take reserves n bytes for a connection, on its reader goroutine. An error ends the connection.
func (b *budget) take(c *Conn, n int64) error {
	limit := b.srv.limits.MaxBodies
	b.mu.Lock()
	for b.used+n > limit && b.used > 0 {
		if b.by[c]+n > limit {
			b.mu.Unlock()
			return b.refusal()
		}
		if b.freed == nil {
			b.freed = make(chan struct{})
		}
		freed := b.freed
		b.mu.Unlock()
		timer := b.srv.Clock.NewTimer(b.srv.limits.BodyWait)
		select {
		case <-freed:
		case <-c.asked.kicked:
		case <-timer.C():
			if b.srv.alarms.now.Load().reason != "" {
				break // while an alarm holds publishers back, unfinished messages are not their fault
			}
			if victim := b.largest(); victim == c {
				timer.Stop()
				return b.refusal()
			} else if victim != nil {
				victim.Kick(b.refusal())
			}
		}
		timer.Stop()
		if err := c.asked.failure(); err != nil {
			return err
		}
		b.mu.Lock()
	}
	if b.by == nil {
		b.by = map[*Conn]int64{}
	}
	b.used += n
	b.by[c] += n
	b.mu.Unlock()
	return nil
}

func (b *budget) refusal() *wire.Error {
	b.srv.Refused.Add(tally.Memory)
	return wire.Errorf(wire.CodeResourceError, "messages that are not complete and transactions that are not committed hold more than %s, and this "+
		"connection has the most of it; send fewer large messages at a time", settings.FormatSize(b.srv.limits.MaxBodies))
}

// largest finds the connection that holds the most and is not being closed yet; nil when all are.
func (b *budget) largest() (most *Conn) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for c, n := range b.by {
		if c.asked.forced.Load() == nil && (most == nil || n > b.by[most]) {
			most = c
		}
	}
	return most
}

// give returns n bytes.
func (b *budget) give(c *Conn, n int64) {
	if n == 0 {
		return
	}
	b.mu.Lock()
	b.used -= n
	if b.by[c] -= n; b.by[c] <= 0 {
		delete(b.by, c)
	}
	if b.freed != nil {
		close(b.freed)
		b.freed = nil
	}
	b.mu.Unlock()
}

// held is the bytes in use now, for tests and metrics.
func (b *budget) held() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.used
}
