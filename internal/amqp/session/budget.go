package session

import (
	"sync"

	"github.com/surgetank/surgetank/internal/amqp/wire"
	"github.com/surgetank/surgetank/internal/settings"
	"github.com/surgetank/surgetank/internal/tally"
)

// budget bounds the memory for data that is not yet a message in the broker: bodies that arrive in
// pieces, and transactions before their commit. The limits on messages and transactions bound each
// of these alone. But a connection may have two thousand channels, and a server many connections.
//
// A body reserves its whole size with its first piece. A reservation allocates nothing. So
// publishers that have begun can finish. Other publishers wait, and the server does not read from
// their sockets. Without reservations, all of them could stop half-way. If a publisher has waited
// longer than BodyWait, some connection began bodies or transactions and does not finish them. Then
// the connection with the largest reservation is closed with RESOURCE_ERROR. This can be the
// connection of the publisher that waits.
//
// Many goroutines may call the methods at once.
type budget struct {
	srv   *Shared
	mu    sync.Mutex
	used  int64
	by    map[*Conn]int64
	freed chan struct{} // closed when bytes are freed; nil while no connection waits
}

// reserve reserves n bytes for a connection. The connection's reader calls it. An error ends the
// connection.
func (b *budget) reserve(c *Conn, n int64) error {
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
				break // while an alarm blocks publishers, unfinished messages are not their fault
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
	return wire.Errorf(wire.CodeResourceError, "incomplete messages and uncommitted transactions use more than %s, and this "+
		"connection uses the most; send fewer large messages at a time", settings.FormatSize(b.srv.limits.MaxBodies))
}

// largest returns the connection that reserves the most, of the connections that are not closing;
// nil if there is none.
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

// free ends a connection's reservation of n bytes.
func (b *budget) free(c *Conn, n int64) {
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

// reserved returns the number of reserved bytes, for tests and metrics.
func (b *budget) reserved() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.used
}
