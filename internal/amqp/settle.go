package amqp

import (
	"slices"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/amqp/wire"
)

// settle handles basic.ack, basic.nack and basic.reject.
func (ch *channel) settle(s wire.Settle) error {
	c := ch.c
	c.mu.Lock()
	var few [8]unacked
	taken, ok := ch.unacked.take(few[:0], s.Tag, s.Multiple)
	if !ok {
		c.mu.Unlock()
		return wire.Errorf(wire.CodePreconditionFailed, "unknown delivery tag %d", s.Tag)
	}
	if ch.tx != nil {
		c.mu.Unlock()
		return ch.tx.settle(taken, s)
	}
	ch.release(taken)
	c.mu.Unlock()
	c.settles = appendSettlements(c.settles, taken, s)
	ch.follow()
	if len(c.settles) >= batchMax {
		return c.flush()
	}
	return nil
}

// appendSettlements says in the broker's words what became of deliveries. A refused message goes back to its old place at once,
// as RabbitMQ has it; in a queue that another door gave a retry policy, that policy says when.
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
			if taken[i].q.attrs().backoff {
				st.Delay = surgetank.RetryBackoff
			}
		}
		to = append(to, st)
	}
	return to
}

// release counts settled deliveries off their consumers. Credit that was held back for too many unacknowledged deliveries
// is due now, and so is the end of cancelled consumers that have no more of them; follow does both. The caller holds c.mu.
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

// follow does what release found due, without c.mu: the broker may make it wait, while it waits for c.mu itself.
func (ch *channel) follow() {
	if len(ch.due) == 0 {
		return
	}
	c := ch.c
	for _, cons := range ch.due {
		c.mu.Lock()
		n := cons.takeOwed(c.srv.limits.MaxUnacked)
		end := cons.cancelled && cons.outstanding == 0
		c.mu.Unlock()
		_, lingers := ch.lingering[cons]
		switch {
		case end && lingers:
			if err := c.flush(); err != nil { // the settlement goes first
				c.srv.log.Debug("settling failed", "peer", c.name, "err", err)
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

// recover gives all outstanding deliveries back, to be delivered again to anybody.
func (ch *channel) recover(requeue bool) error {
	if !requeue {
		return wire.Errorf(wire.CodeNotImplemented, "requeue=false")
	}
	return ch.settle(wire.Settle{Multiple: true, Requeue: true})
}

// transaction is what a channel in transaction mode has gathered since its last commit.
type transaction struct {
	ch      *channel
	msgs    []surgetank.Publishing
	taken   []unacked // in the order of their acknowledgement
	settles []surgetank.Settlement
	returns []returnedMessage
	bytes   int64
}

type returnedMessage struct {
	exchange, key string
	block, body   []byte
}

// Limits of one transaction, which lives in memory until it is committed.
const (
	maxTxMessages = 1 << 16
	maxTxBytes    = 256 << 20
)

func (t *transaction) publish(m surgetank.Publishing) error {
	t.msgs = append(t.msgs, m)
	return t.grown(len(m.Message.Body))
}

// giveBack returns a message at the commit.
func (t *transaction) giveBack(m returnedMessage) error {
	t.returns = append(t.returns, m)
	return t.grown(len(m.body))
}

// grown refuses a transaction that has become too large.
func (t *transaction) grown(bytes int) error {
	t.bytes += int64(bytes)
	if len(t.msgs)+len(t.returns) > maxTxMessages || t.bytes > maxTxBytes {
		return wire.Errorf(wire.CodePreconditionFailed, "the transaction has more than %d messages or %d bytes", maxTxMessages, maxTxBytes)
	}
	return nil
}

func (t *transaction) settle(taken []unacked, s wire.Settle) error {
	t.taken = append(t.taken, taken...)
	t.settles = appendSettlements(t.settles, taken, s)
	return nil
}

func (ch *channel) txSelect() error {
	if ch.mode == confirming {
		return wire.Errorf(wire.CodePreconditionFailed, "cannot switch from confirm to tx mode")
	}
	if ch.mode != transactional {
		ch.mode = transactional
		ch.tx = &transaction{ch: ch}
	}
	ch.answer(wire.Bare(wire.IDTxSelectOk))
	return nil
}

var errNotTransactional = wire.Errorf(wire.CodePreconditionFailed, "channel is not transactional")

// txCommit makes all of a transaction happen, durably and as one.
func (ch *channel) txCommit() error {
	t, c := ch.tx, ch.c
	if t == nil {
		return errNotTransactional
	}
	if err := c.holdWhileAlarmed(); err != nil {
		return err
	}
	ch.tx = &transaction{ch: ch}
	if len(t.msgs)+len(t.settles) > 0 {
		if err := ch.commit(t); err != nil {
			ch.tx = t // the channel is closed by the error, and with it everything goes back
			return err
		}
	}
	for _, r := range t.returns {
		c.mu.Lock()
		c.out = appendReturn(c.out, ch, r.exchange, r.key, r.block, r.body)
		c.mu.Unlock()
	}
	ch.answer(wire.Bare(wire.IDTxCommitOk))
	return nil
}

func (ch *channel) commit(t *transaction) error {
	c := ch.c
	if _, err := c.srv.broker.Transact(c.srv.ctx, t.msgs, t.settles); err != nil {
		// A queue that has gone since takes nothing; the rest of the transaction still holds.
		if surgetank.CodeOf(err) != surgetank.CodeNotFound || !ch.dropGoneTargets(t) {
			return wire.Errorf(wire.CodePreconditionFailed, "partial tx completion: %s", err)
		}
		if _, err := c.srv.broker.Transact(c.srv.ctx, t.msgs, t.settles); err != nil {
			return wire.Errorf(wire.CodePreconditionFailed, "partial tx completion: %s", err)
		}
	}
	c.mu.Lock()
	ch.release(t.taken)
	c.mu.Unlock()
	ch.follow()
	return nil
}

// dropGoneTargets takes queues that no longer exist out of a transaction, and tells whether there were any.
func (ch *channel) dropGoneTargets(t *transaction) bool {
	s, found := ch.c.srv, false
	gone := map[string]bool{}
	msgs := t.msgs[:0]
	for _, m := range t.msgs {
		left := make([]string, 0, len(m.Queues))
		for _, full := range m.Queues {
			is, asked := gone[full]
			if !asked {
				_, err := s.broker.Queue(s.ctx, full)
				is = surgetank.CodeOf(err) == surgetank.CodeNotFound
				gone[full] = is
				found = found || is
			}
			if !is {
				left = append(left, full)
			}
		}
		if m.Queues = left; len(left) > 0 {
			msgs = append(msgs, m)
		}
	}
	t.msgs = msgs
	return found
}

// txRollback forgets the publishes; the deliveries are outstanding again, as if they had never been acknowledged.
func (ch *channel) txRollback() error {
	t, c := ch.tx, ch.c
	if t == nil {
		return errNotTransactional
	}
	ch.tx = &transaction{ch: ch}
	slices.SortFunc(t.taken, func(a, b unacked) int { return int(int64(a.tag - b.tag)) })
	c.mu.Lock()
	ch.unacked.restore(t.taken)
	c.mu.Unlock()
	ch.answer(wire.Bare(wire.IDTxRollbackOk))
	return nil
}
