package queue

import (
	"slices"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/breaker"
	"github.com/surgetank/surgetank/internal/door"
)

// Attach creates a subscription. With Once the subscription ends after the first turn that hands a
// message to it. With Now the subscription ends with this turn.
type Attach struct {
	Queue     string
	Opts      door.SubscribeOptions
	Once, Now bool
	Owner     any    // the caller's own value; the machine does not use it
	Consumer  uint64 // the subscription's number; 0 if the subscription was refused
	Err       error
}

func (c *Attach) run(m *Machine) bool {
	q := m.byName[c.Queue]
	if q == nil {
		c.Err = noQueue(c.Queue)
		return true
	}
	cons, err := m.attach(q, c.Opts, c.Once, c.Now)
	if c.Err = err; err != nil {
		return true
	}
	cons.once = c.Once
	c.Consumer = cons.id
	if c.Now {
		m.immediate = append(m.immediate, cons)
	}
	return true
}

// Detach ends a subscription. Return names messages that were handed out and never reached the
// user: they are returned, and the attempt does not count. With All, every other message that is
// leased to the subscription is returned, and the attempt counts.
type Detach struct {
	Consumer uint64
	Return   []surgetank.Receipt
	All      bool

	held []uint64
	q    *Queue
}

// byNumber returns a consumer that is attached, or that has left and still has leases.
func (m *Machine) byNumber(id uint64) *consumer {
	if c := m.consumers[id]; c != nil {
		return c
	}
	return m.left[id]
}

func (c *Detach) run(m *Machine) bool {
	cons := m.byNumber(c.Consumer)
	if cons != nil && cons.inQueue.in != nil {
		m.unlist(cons)
	}
	if c.All && c.held == nil && cons != nil {
		c.q, c.held = cons.q, cons.holds()
	}
	for len(c.Return) > 0 {
		if m.turnFull() {
			return false
		}
		s := surgetank.Settlement{Receipt: c.Return[0], Op: surgetank.Nack}
		c.Return = c.Return[1:]
		if q, err := m.leaseOf(&s); err == nil {
			m.giveUp(q, s.Receipt.ID.Seq, 0, false, "", leaseEnd{outcome: breaker.Returned})
		}
	}
	for len(c.held) > 0 {
		if m.turnFull() {
			return false
		}
		seq := c.held[0]
		c.held = c.held[1:]
		if l, ok := c.q.leases[seq]; ok && l.consumer.id == c.Consumer && !c.q.gone {
			m.giveUp(c.q, seq, 0, true, causeGone, leaseEnd{outcome: breaker.Returned})
		}
	}
	return true
}

// holds returns the messages that are leased to a consumer, oldest first.
func (c *consumer) holds() []uint64 {
	seqs := make([]uint64, 0, c.leases.n)
	for l := range c.leases.all {
		seqs = append(seqs, l.seq)
	}
	slices.Sort(seqs)
	return seqs
}

// Credit adds credit to a subscription. A negative N removes unused credit.
type Credit struct {
	Consumer uint64
	N        int
}

func (c *Credit) run(m *Machine) bool {
	if cons := m.consumers[c.Consumer]; cons != nil {
		cons.credited(c.N)
	}
	return true
}

// PoolLimit sets how many messages may be leased to the subscriptions of a pool together.
type PoolLimit struct {
	Pool  uint64
	Limit int  // 0: none
	Watch bool // report the pool's state in Output.Pools
}

func (c *PoolLimit) run(m *Machine) bool {
	m.poolLimit(c.Pool, c.Limit, c.Watch)
	return true
}

// Stop stops hand-outs to a subscription. The subscription still exists.
type Stop struct{ Consumer uint64 }

func (c *Stop) run(m *Machine) bool {
	if cons := m.consumers[c.Consumer]; cons != nil {
		cons.stopped = true
		cons.q.mark()
	}
	return true
}

// OpenEpoch is the first command of a broker. It voids the receipts of earlier openings.
// Incarnation must be random, so that a directory and its copy differ from this opening on.
type OpenEpoch struct {
	Epoch, Incarnation uint64
	// Continued means that the users of transient queues are still there, because the program opens
	// the log again after a failure. Transient queues are then kept.
	Continued bool
}

func (c *OpenEpoch) run(m *Machine) bool {
	// The record of an opening deletes transient queues. Kept queues are not transient for the time
	// of that record. All these records are in one entry, so no crash can come in between.
	var kept []*Queue
	for _, q := range m.order {
		if c.Continued && q.config.Transient {
			kept = append(kept, q)
			q.setTransient(false)
		}
	}
	m.emit(&Record{Kind: kindOpened, Epoch: c.Epoch, Incarnation: c.Incarnation})
	for _, q := range kept {
		q.setTransient(true)
	}
	for _, q := range m.order {
		q.recontrol()
	}
	return true
}

// setTransient records whether a queue is transient.
func (q *Queue) setTransient(is bool) {
	config := q.config
	config.Transient = is
	q.m.emit(&Record{Kind: kindQueueSet, Queue: q.id, Name: q.name, Config: config})
}

// Nop does nothing. When its result is confirmed, every earlier command is durable.
type Nop struct{}

func (Nop) run(*Machine) bool { return true }
