package session

import (
	"time"

	"github.com/surgetank/surgetank/internal/amqp/wire"
)

// CheckAcks closes each channel with a delivery whose acknowledgement is overdue.
func (c *Conn) CheckAcks(now time.Duration) {
	limit := c.srv.limits.AckTimeout
	var late []*channel
	var after []time.Duration
	for _, ch := range c.channels.list() {
		if d, is := ch.ledger.late(now, limit); is {
			late, after = append(late, ch), append(after, d)
		}
	}
	for i, ch := range late {
		c.asked.interrupt(func() error {
			if ch.closing || ch.closed {
				return nil
			}
			return ch.failed(wire.Errorf(wire.CodePreconditionFailed, "delivery acknowledgement on channel %d timed out. Timeout value used: %d ms. "+
				"This timeout value can be configured, see consumers doc guide to learn more", ch.id, after[i].Milliseconds()), 0)
		})
	}
}

// late reports whether a delivery has waited longer than the time-out of its queue. If the queue
// has no time-out, the server's time-out applies. Both times are whole seconds, rounded down: a
// difference of n seconds can be hardly more than n-1. So a delivery can last up to two seconds
// longer than the time-out, and never less.
func (l *unackedList) late(now, limit time.Duration) (time.Duration, bool) {
	sec := seconds(now)
	for i := range l.list[l.head:] {
		u := &l.list[l.head+i]
		if u.settled {
			continue
		}
		d := limit
		if u.q.Attrs().AckTimeout > 0 {
			d = u.q.Attrs().AckTimeout
		}
		if d > 0 && sec-u.at > int64((d+time.Second-1)/time.Second) {
			return d, true
		}
	}
	return 0, false
}

// seconds converts a passed time to the unit of unacked.at.
func seconds(passed time.Duration) int64 { return int64(passed / time.Second) }
