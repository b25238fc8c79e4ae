package session

import (
	"cmp"
	"slices"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/amqp/topology"
	"github.com/surgetank/surgetank/internal/amqp/translate"
	"github.com/surgetank/surgetank/internal/amqp/wire"
	"github.com/surgetank/surgetank/internal/door"
)

// transaction has the publishes and settlements of a channel in transaction mode since its last
// commit.
type transaction struct {
	ch      *channel
	msgs    []surgetank.Publishing
	asked   []mandatory // asked[i] belongs to msgs[i]
	seen    int         // number of messages that the client has published
	removed []unacked   // acknowledged deliveries, in the order of their acknowledgement
	settles []surgetank.Settlement
	from    []*topology.Queue // from[i] is the queue of settles[i]
	returns []returnedMessage
	bytes   int64 // bytes of the server's budget that the transaction reserves
}

// mandatory says whether a message must be returned if its queues are gone at the commit. It also
// has the message's position among those that the client has published.
type mandatory struct {
	is bool
	at int
}

type returnedMessage struct {
	exchange, key string
	block, body   []byte
	at            int // position among the messages of the transaction
}

// Limits of one transaction. A transaction is in memory until its commit.
const (
	maxTxMessages = 1 << 16
	maxTxBytes    = 256 << 20
	txOverhead    = 256 // added to body and properties for each message
)

func (t *transaction) publish(m surgetank.Publishing, isMandatory bool) error {
	t.seen++
	t.msgs = append(t.msgs, m)
	t.asked = append(t.asked, mandatory{isMandatory, t.seen})
	bytes := len(m.Message.Body) + len(*door.Opaque(&m.Message))
	for i := range m.Message.Headers {
		bytes += len(m.Message.Headers[i].Name) + len(m.Message.Headers[i].Value)
	}
	return t.grown(bytes)
}

// addReturned notes a message to return at the commit.
func (t *transaction) addReturned(m returnedMessage) error {
	t.seen++
	m.at = t.seen
	t.returns = append(t.returns, m)
	return t.grown(len(m.body) + len(m.block))
}

// grown refuses a transaction that has become too large.
func (t *transaction) grown(bytes int) error {
	n := int64(bytes + txOverhead)
	if err := t.ch.c.srv.budget.reserve(t.ch.c, n); err != nil {
		return err
	}
	t.bytes += n
	if len(t.msgs)+len(t.returns) > maxTxMessages || t.bytes > maxTxBytes {
		return wire.Errorf(wire.CodePreconditionFailed, "the transaction has more than %d messages or %d bytes", maxTxMessages, maxTxBytes)
	}
	return nil
}

// free frees the transaction's share of the server's budget. The caller has passed its messages to
// the broker, or dropped them.
func (t *transaction) free() {
	t.ch.c.srv.budget.free(t.ch.c, t.bytes)
	t.bytes = 0
}

func (t *transaction) settle(removed []unacked, s wire.Settle) error {
	t.removed = append(t.removed, removed...)
	t.settles = appendSettlements(t.settles, removed, s)
	for i := range removed {
		t.from = append(t.from, removed[i].q)
	}
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

// txCommit applies all of a transaction in one durable step.
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
			ch.tx = t // the error closes the channel, which returns the deliveries
			return err
		}
	}
	defer t.free()
	for _, r := range t.returns {
		if err := c.waitForRoom(); err != nil {
			return err
		}
		ch.returned(r.exchange, r.key, r.block, r.body)
	}
	ch.answer(wire.Bare(wire.IDTxCommitOk))
	return nil
}

func (ch *channel) commit(t *transaction) error {
	c := ch.c
	for {
		_, err := c.srv.Broker.Transact(c.srv.Context, t.msgs, t.settles)
		if err == nil {
			break
		}
		// A queue was deleted since the publish. It stores nothing, and its deliveries are gone
		// too. The rest of the transaction is still valid. Each round has fewer queues, so the loop
		// ends.
		switch surgetank.CodeOf(err) {
		case surgetank.CodeNotFound:
			if ch.dropGoneTargets(t) {
				continue
			}
		case surgetank.CodeLeaseLost:
			if ch.dropGoneSettlements(t) {
				continue
			}
		}
		return wire.Errorf(wire.CodePreconditionFailed, "partial tx completion: %s", err)
	}
	ch.ledger.mu.Lock()
	ch.uncount(t.removed)
	ch.ledger.mu.Unlock()
	ch.follow()
	return nil
}

// dropGoneTargets removes from a transaction the queues that no longer exist, and reports whether
// there were any. A mandatory message without a queue left is returned, as if it had been routed
// now.
func (ch *channel) dropGoneTargets(t *transaction) bool {
	s, found := ch.c.srv, false
	gone := map[string]bool{}
	isGone := func(full string) bool {
		is, known := gone[full]
		if !known {
			_, err := s.Broker.Queue(s.Context, full)
			is = surgetank.CodeOf(err) == surgetank.CodeNotFound
			gone[full] = is
			found = found || is
		}
		return is
	}
	msgs, asked := t.msgs[:0], t.asked[:0]
	for i, m := range t.msgs {
		left := make([]string, 0, len(m.Queues))
		for _, full := range m.Queues {
			if !isGone(full) {
				left = append(left, full)
			}
		}
		m.Queues = left
		switch a := t.asked[i]; {
		case len(left) > 0:
			msgs, asked = append(msgs, m), append(asked, a)
		case a.is:
			f, _, _ := translate.ReadStored(&m.Message, nil)
			t.returns = append(t.returns, returnedMessage{string(f.Exchange), m.Message.Key, f.Block, m.Message.Body, a.at})
		}
	}
	t.msgs, t.asked = msgs, asked
	slices.SortFunc(t.returns, func(a, b returnedMessage) int { return cmp.Compare(a.at, b.at) })
	return found
}

// dropGoneSettlements removes from a transaction the acknowledgements of messages whose queue is
// gone. It reports whether there were any.
func (ch *channel) dropGoneSettlements(t *transaction) bool {
	s := ch.c.srv
	alive := map[*topology.Queue]uint64{} // the number of the present queue with this name; 0: there is none
	kept, from := t.settles[:0], t.from[:0]
	for i, st := range t.settles {
		q := t.from[i]
		id, asked := alive[q]
		if !asked {
			if info, err := s.Broker.Queue(s.Context, q.Full); surgetank.CodeOf(err) != surgetank.CodeNotFound {
				if id = info.ID; err != nil {
					id = st.Receipt.ID.Queue // the queue is unknown, so it is treated as present
				}
			}
			alive[q] = id
		}
		if id == st.Receipt.ID.Queue {
			kept, from = append(kept, st), append(from, q)
		}
	}
	found := len(kept) < len(t.settles)
	t.settles, t.from = kept, from
	return found
}

// txRollback drops the publishes. The deliveries are unacknowledged again.
func (ch *channel) txRollback() error {
	t := ch.tx
	if t == nil {
		return errNotTransactional
	}
	ch.tx = &transaction{ch: ch}
	t.free()
	slices.SortFunc(t.removed, func(a, b unacked) int { return cmp.Compare(a.tag, b.tag) })
	ch.ledger.mu.Lock()
	ch.ledger.unacked.restore(t.removed)
	ch.ledger.mu.Unlock()
	ch.answer(wire.Bare(wire.IDTxRollbackOk))
	return nil
}
