package queue

import (
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/breaker"
	"github.com/surgetank/surgetank/internal/door"
)

// Settle ends or extends leases, each on its own.
type Settle struct {
	Items   []surgetank.Settlement
	Results []error // as long as Items
	At      int64   // when the items arrived at the broker; 0: now

	next int
}

func (c *Settle) run(m *Machine) bool {
	for c.next < len(c.Items) {
		if c.next > 0 && m.turnFull() {
			return false
		}
		c.next += m.settleRun(c.Items[c.next:], c.Results[c.next:], c.At)
	}
	return true
}

// settleRun settles the first item. If it is an ack, it also settles the acks of the same queue
// that follow, as one record.
func (m *Machine) settleRun(items []surgetank.Settlement, results []error, at int64) int {
	q, err := m.leaseOf(&items[0])
	if results[0] = err; err != nil {
		return 1
	}
	if items[0].Op != surgetank.Ack {
		m.settleOne(q, &items[0], at)
		return 1
	}
	r := &m.rec
	r.Kind, r.Queue, r.Seqs = kindAcked, q.id, r.Seqs[:0]
	n := 0
	for n < len(items) && n < 4096 && items[n].Op == surgetank.Ack && items[n].Receipt.ID.Queue == q.id {
		_, err := m.leaseOf(&items[n])
		results[n] = err
		if err == nil {
			seq := items[n].Receipt.ID.Seq
			q.endLease(seq, leaseEnd{outcome: breaker.Success, at: at, elapsed: int64(items[n].Elapsed)})
			q.stats.acked++
			r.Seqs = append(r.Seqs, seq)
		}
		n++
	}
	m.emit(r)
	return n
}

// leaseOf returns the queue of a receipt's lease. It fails if the lease has ended.
func (m *Machine) leaseOf(s *surgetank.Settlement) (*Queue, error) {
	id := s.Receipt.ID
	if q := m.byID[id.Queue]; q != nil && s.Receipt.Epoch == m.epoch && s.Receipt.Incarnation == m.incarnation() {
		if l, ok := q.leases[id.Seq]; ok && l.no == s.Receipt.Lease {
			switch {
			case s.Op > surgetank.Extend:
				return nil, surgetank.FieldErrorf("op", "%d is not a way to settle a message", s.Op)
			case s.Target > surgetank.TargetBusy:
				return nil, surgetank.FieldErrorf("target", "%d is not a report about a target", s.Target)
			case s.Op == surgetank.Extend && (s.Lease <= 0 || s.Lease > surgetank.MaxLease):
				return nil, surgetank.FieldErrorf("lease", "a lease is extended by more than 0 and at most %v, not %v", surgetank.MaxLease, s.Lease)
			}
			return q, nil
		}
	}
	return nil, surgetank.Errorf(surgetank.CodeLeaseLost,
		"the lease on message %s has ended (its deadline passed, it was settled, or the broker restarted); the message is or will be delivered again unless it was settled", id)
}

func (m *Machine) settleOne(q *Queue, s *surgetank.Settlement, at int64) {
	seq := s.Receipt.ID.Seq
	end := leaseEnd{at: at, elapsed: int64(s.Elapsed)}
	switch s.Op {
	case surgetank.Ack:
		q.endLease(seq, end)
		m.acked(q, seq)
	case surgetank.Nack:
		q.stats.nacked++
		delay, counted := s.Delay, !s.Uncounted
		end.retryAfter = int64(min(max(0, s.RetryAfter), surgetank.MaxDuration))
		switch {
		case s.Target == surgetank.TargetDown:
			end.outcome = breaker.Down
		case s.Target == surgetank.TargetBusy:
			end.outcome, counted = breaker.Throttle, false
			if delay >= 0 {
				delay = max(delay, time.Duration(end.retryAfter))
			}
		case counted:
			end.outcome = breaker.Failed
		default:
			end.outcome = breaker.Returned
		}
		m.giveUp(q, seq, delay, counted, s.Reason, end)
	case surgetank.Reject:
		end.outcome = breaker.BadMessage
		q.endLease(seq, end)
		if attempts := int(q.slots.get(seq).attempts) + 1; !m.sendToDeadLetter(q, seq, reasonRejected, attempts, s.Reason) {
			m.putBack(q, seq, attempts)
		}
	case surgetank.Extend:
		l := q.leases[seq]
		l.deadline = m.now + int64(s.Lease)
		q.deadline(l.deadline, seq)
		if q.control != nil {
			q.control.extended(q, l)
		}
	}
}

// MaxTransaction is the most bytes that one transaction may publish and settle. A transaction must
// fit into one entry, and no message in it may start at or after MaxPosition.
const MaxTransaction = 12 << 20

// Transact publishes and settles: all or nothing.
type Transact struct {
	Publish Publish
	Settle  Settle
	Err     error
}

func (c *Transact) run(m *Machine) bool {
	m.published += len(c.Publish.Msgs)
	if c.Err = c.check(m); c.Err != nil {
		return true
	}
	for i := range c.Settle.Items {
		s := &c.Settle.Items[i]
		m.settleOne(m.byID[s.Receipt.ID.Queue], s, c.Settle.At)
	}
	for i := range c.Publish.Msgs {
		c.Publish.Results[i] = m.publish(&c.Publish.Msgs[i], true)
	}
	return true
}

// check refuses a transaction if any part of it would be refused. A refused transaction has changed
// nothing.
func (c *Transact) check(m *Machine) error {
	type room struct{ messages, bytes int64 }
	size, needs := int64(0), map[*Queue]room{}
	for i := range c.Publish.Msgs {
		in := &c.Publish.Msgs[i]
		if err := c.Publish.Results[i].Err; err != nil {
			return err
		}
		if in.Publisher != "" {
			return surgetank.FieldErrorf(surgetank.FieldPublisher, "a transaction cannot have a publisher id: its settlements cannot be repeated")
		}
		size += int64(len(in.Message.Body) + len(*door.Opaque(&in.Message)) + 64*len(in.Queues) + 256)
		for _, h := range in.Message.Headers {
			size += int64(len(h.Name) + len(h.Value))
		}
		for _, name := range in.Queues {
			q := m.byName[name]
			if q == nil {
				return noQueue(name)
			}
			if q.frozen {
				return q.movingError()
			}
			if _, dup := m.duplicate(q, in); dup {
				continue
			}
			n := needs[q]
			n.messages, n.bytes = n.messages+1, n.bytes+int64(len(in.Message.Body))
			needs[q] = n
			if err := m.admit(q, n.messages, n.bytes); err != nil {
				return err
			}
		}
	}
	seen := make(map[surgetank.MessageID]bool, len(c.Settle.Items))
	for i := range c.Settle.Items {
		s := &c.Settle.Items[i]
		size += int64(64 + len(s.Reason))
		if _, err := m.leaseOf(s); err != nil {
			return err
		}
		if seen[s.Receipt.ID] {
			return surgetank.FieldErrorf("receipts", "message %s is settled twice in one transaction", s.Receipt.ID)
		}
		seen[s.Receipt.ID] = true
	}
	if size > MaxTransaction && len(c.Publish.Msgs)+len(c.Settle.Items) > 1 {
		return surgetank.Errorf(surgetank.CodeTooLarge, "the transaction holds %d bytes, more than the %d that can become durable as one; commit more often", size, MaxTransaction)
	}
	return nil
}
