package session

import (
	"slices"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/amqp/topology"
	"github.com/surgetank/surgetank/internal/amqp/wire"
	"github.com/surgetank/surgetank/internal/door"
)

// settle handles basic.ack, basic.nack and basic.reject.
func (ch *channel) settle(s wire.Settle) error {
	c := ch.c
	l := &ch.ledger
	l.mu.Lock()
	var few [8]unacked
	removed, ok := l.unacked.remove(few[:0], s.Tag, s.Multiple)
	if !ok {
		l.mu.Unlock()
		return wire.Errorf(wire.CodePreconditionFailed, "unknown delivery tag %d", s.Tag)
	}
	if ch.tx != nil {
		l.mu.Unlock()
		return ch.tx.settle(removed, s)
	}
	ch.uncount(removed)
	l.mu.Unlock()
	ch.settled = true
	for i := range removed {
		ch.phases.note(c.srv.Broker, removed[i].receipt.ID)
	}
	c.pubs.behind = c.pubs.behind || ch.published
	c.pubs.settles = appendSettlements(c.pubs.settles, removed, s)
	ch.follow()
	if len(c.pubs.settles) >= batchMax {
		return c.flush()
	}
	return nil
}

// appendSettlements translates an ack, nack or reject of deliveries for the broker. A requeued
// message returns to its old position at once, as in RabbitMQ. If the queue has a retry policy from
// another door, that policy sets the delay.
func appendSettlements(to []surgetank.Settlement, removed []unacked, s wire.Settle) []surgetank.Settlement {
	if to == nil {
		to = make([]surgetank.Settlement, 0, max(len(removed), 16))
	}
	var reported []*topology.Queue
	for i := range removed {
		st := surgetank.Settlement{Receipt: removed[i].receipt}
		switch {
		case s.Ack:
		case !s.Requeue:
			st.Op = surgetank.Reject
		default:
			st.Op = surgetank.Nack
			if removed[i].q.Attrs().Backoff {
				st.Delay = surgetank.RetryBackoff
			}
			if q := removed[i].q; s.Recover {
				st.Uncounted = true
				if q.Attrs().Breaker && !slices.Contains(reported, q) {
					st.Target = surgetank.TargetDown
					reported = append(reported, q)
				}
			}
		}
		to = append(to, st)
	}
	return to
}

// uncount subtracts settled deliveries from their consumers. It notes work for follow: credit that
// was withheld for too many unacknowledged deliveries, and the end of cancelled consumers without
// deliveries. The caller holds the ledger's lock.
func (ch *channel) uncount(removed []unacked) {
	for i := range removed {
		cons := removed[i].cons
		if cons == nil {
			continue
		}
		cons.outstanding--
		if cons.cancelled && cons.outstanding == 0 || cons.owed > 0 {
			ch.due = append(ch.due, cons)
		}
	}
}

// follow does the work that uncount has noted. It holds no lock, because the broker may make it
// wait.
func (ch *channel) follow() {
	if len(ch.due) == 0 {
		return
	}
	c := ch.c
	for _, cons := range ch.due {
		ch.ledger.mu.Lock()
		n := cons.collectOwed(c.srv.limits.MaxUnacked)
		end := cons.cancelled && cons.outstanding == 0
		ch.ledger.mu.Unlock()
		_, lingers := ch.lingering[cons]
		switch {
		case end && lingers:
			if err := c.flush(); err != nil { // the settlement is sent first
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

// lostText tells a client that closes its channel that its acknowledgements are not certain.
const lostText = "PRECONDITION_FAILED - the server's log failed since the channel's first acknowledgement: those from before may be lost, and their messages are delivered again"

// lostSettlements reports whether settlements of the channel can have been lost with an opening of
// the broker. Each settlement that is not lost is durable, because shut has waited for the broker.
func (ch *channel) lostSettlements() bool {
	return ch.phases.changed(ch.c.srv.Broker)
}

// phases has the phases of the broker's shards when a channel first settled a message of each.
type phases struct {
	known uint64 // the shards in list, as bits
	list  []phase
}

type phase struct {
	of    surgetank.MessageID // a message of the shard
	phase uint64
}

// note notes the phase of the shard of a message that is being settled.
func (p *phases) note(b door.Broker, id surgetank.MessageID) {
	if bit := uint64(1) << (id.Shard() - 1); p.known&bit == 0 {
		p.known |= bit
		p.list = append(p.list, phase{id, door.PhaseOfMessage(b, id)})
	}
}

// changed reports whether the log of one of the shards has failed since.
func (p *phases) changed(b door.Broker) bool {
	for _, x := range p.list {
		if x.phase%2 == 1 || x.phase != door.PhaseOfMessage(b, x.of) {
			return true
		}
	}
	return false
}

// recover returns all unacknowledged deliveries to their queues. Any consumer can get them then.
// The attempts do not count. For each queue with level.breaker, it is one report that the target is
// down.
func (ch *channel) recover(requeue bool) error {
	if !requeue {
		return wire.Errorf(wire.CodeNotImplemented, "requeue=false")
	}
	return ch.settle(wire.Settle{Multiple: true, Requeue: true, Recover: true})
}
