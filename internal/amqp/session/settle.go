package session

import (
	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/amqp/wire"
)

// settle handles basic.ack, basic.nack and basic.reject.
func (ch *channel) settle(s wire.Settle) error {
	c := ch.c
	l := &ch.ledger
	l.mu.Lock()
	var few [8]unacked
	taken, ok := l.unacked.take(few[:0], s.Tag, s.Multiple)
	if !ok {
		l.mu.Unlock()
		return wire.Errorf(wire.CodePreconditionFailed, "unknown delivery tag %d", s.Tag)
	}
	if ch.tx != nil {
		l.mu.Unlock()
		return ch.tx.settle(taken, s)
	}
	ch.release(taken)
	l.mu.Unlock()
	ch.settled = true
	c.pubs.settles = appendSettlements(c.pubs.settles, taken, s)
	ch.follow()
	if len(c.pubs.settles) >= batchMax {
		return c.flush()
	}
	return nil
}

// appendSettlements translates an ack, nack or reject of deliveries for the broker. A requeued
// message returns to its old position at once, as in RabbitMQ. If the queue has a retry policy from
// another door, that policy sets the delay.
func appendSettlements(to []surgetank.Settlement, taken []unacked, s wire.Settle) []surgetank.Settlement {
	if to == nil {
		to = make([]surgetank.Settlement, 0, max(len(taken), 16))
	}
	for i := range taken {
		st := surgetank.Settlement{Receipt: taken[i].receipt}
		switch {
		case s.Ack:
		case !s.Requeue:
			st.Op = surgetank.Reject
		default:
			st.Op = surgetank.Nack
			if taken[i].q.Attrs().Backoff {
				st.Delay = surgetank.RetryBackoff
			}
		}
		to = append(to, st)
	}
	return to
}

// release subtracts settled deliveries from their consumers. It notes work for follow: credit that
// was withheld for too many unacknowledged deliveries, and the end of cancelled consumers without
// deliveries. The caller holds the ledger's lock.
func (ch *channel) release(taken []unacked) {
	for i := range taken {
		cons := taken[i].cons
		if cons == nil {
			continue
		}
		cons.outstanding--
		if cons.cancelled && cons.outstanding == 0 || cons.owed > 0 {
			ch.due = append(ch.due, cons)
		}
	}
}

// follow does the work that release has noted. It holds no lock, because the broker may make it
// wait.
func (ch *channel) follow() {
	if len(ch.due) == 0 {
		return
	}
	c := ch.c
	for _, cons := range ch.due {
		ch.ledger.mu.Lock()
		n := cons.takeOwed(c.srv.limits.MaxUnacked)
		end := cons.cancelled && cons.outstanding == 0
		ch.ledger.mu.Unlock()
		_, lingers := ch.lingering[cons]
		switch {
		case end && lingers:
			if err := c.flush(); err != nil { // the settlement goes first
				c.srv.Log.Debug("settling failed", "peer", c.Name, "err", err)
			}
			delete(ch.lingering, cons)
			cons.end()
		case n > 0:
			cons.sub.AddCredit(n)
		}
	}
	clear(ch.due)
	ch.due = ch.due[:0]
}

// recover returns all unacknowledged deliveries to their queues. Any consumer can get them then.
func (ch *channel) recover(requeue bool) error {
	if !requeue {
		return wire.Errorf(wire.CodeNotImplemented, "requeue=false")
	}
	return ch.settle(wire.Settle{Multiple: true, Requeue: true})
}
