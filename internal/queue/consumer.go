package queue

import (
	"slices"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/door"
	"github.com/surgetank/surgetank/internal/fullname"
)

// consumer is the machine's state of one subscription.
type consumer struct {
	id       uint64
	q        *Queue
	opts     door.SubscribeOptions
	credit   int
	pool     *pool
	once     bool   // the consumer ends with the turn in which it receives a message
	stopped  bool   // the consumer receives no more messages
	received uint64 // number of messages handed out to the consumer so far

	leases   list[lease] // its leases, also after it has left
	seat     *seat
	spot     spot           // in seat.line
	inQueue  node[consumer] // in q.consumers; in no list after it has left
	inSingle node[consumer] // of q.singles
	inPool   node[consumer] // of pool.members
}

// queued tells whether the consumer is in the line of its seat.
func (c *consumer) queued() bool { return c.spot.at > 0 }

// wouldServe tells whether the queue would hand its next message to c now.
func (q *Queue) wouldServe(c *consumer) bool {
	return !q.gone && q.anyReady() && q.queueVerdict() == mayGo && q.nextConsumer() == c
}

// willing tells whether the consumer has credit and is not stopped. The limit of its pool does not
// matter.
func (c *consumer) willing() bool { return c.credit > 0 && !c.stopped }

func (c *consumer) hungry() bool { return c.willing() && (c.pool == nil || !c.pool.full()) }

// active tells whether the consumer may be served at all. Among single active consumers, only the
// oldest is active.
func (c *consumer) active() bool { return !c.opts.Single || c.q.singles.front() == c }

// offer puts a consumer that wants a message in line. A consumer that stops wanting messages keeps
// its position until dispatch looks at the line with a message to hand out. Code that makes a
// consumer unwilling must therefore mark its queue. Otherwise the consumer's position would depend
// on whether something else made dispatch look at the line meanwhile.
func (q *Queue) offer(c *consumer) {
	if q.gone || c.queued() || !c.willing() || !c.active() {
		return
	}
	c.seat.put(c)
	q.mark()
}

// nextConsumer returns the consumer whose turn it is, or nil. It does not remove that consumer from
// the line.
func (q *Queue) nextConsumer() *consumer {
	for {
		first := q.line.front()
		if first == nil {
			return nil
		}
		s := first.of.seat
		if s.full() {
			s.park()
			continue
		}
		c := s.line.front().of.c
		if c.willing() && c.active() {
			return c
		}
		s.drop(c)
	}
}

// rotate moves the consumer that was just served to the end of the line of its priority.
func (q *Queue) rotate(c *consumer) {
	if c.willing() {
		c.seat.put(c)
	} else {
		c.seat.drop(c)
	}
}

// consumerVerdict tells whether the queue has a consumer to serve. It changes nothing: no consumer
// leaves the line.
func (q *Queue) consumerVerdict() verdict {
	if slices.ContainsFunc(q.line.heap, func(p place) bool { return p.of.seat.canServe() }) {
		return mayGo
	}
	if q.consumers.n == 0 {
		return noConsumer
	}
	return noCredit
}

// credited adds credit to a consumer and puts it in line. A negative n reduces the credit.
func (c *consumer) credited(n int) {
	c.credit = max(0, c.credit+n)
	c.q.offer(c)
	c.q.mark() // as offer demands, because the consumer can be without credit now
}

// attach adds a consumer to a queue. A consumer for this turn only (now) does not count towards
// max_consumers.
func (m *Machine) attach(q *Queue, opts door.SubscribeOptions, once, now bool) (*consumer, error) {
	if most := q.config.MaxConsumers; most > 0 && q.consumers.n >= most && !now {
		return nil, q.refuse(limitConsumers, surgetank.CodeFull, time.Second, "queue %q has %d consumers, and max_consumers allows %d; close some, or raise max_consumers",
			shown(q.name), q.consumers.n, most)
	}
	if !once && !now && q.consumers.n > 0 && (opts.Exclusive || q.exclusives > 0) {
		return nil, surgetank.Errorf(surgetank.CodeExists,
			"queue %q has consumers, and one of them or the new one is exclusive; wait until they have left", shown(q.name))
	}
	if opts.Lease > surgetank.MaxLease {
		return nil, surgetank.FieldErrorf("lease", "a lease lasts at most %v, not %v", surgetank.MaxLease, opts.Lease)
	}
	if err := q.refuseNoAck(&opts); err != nil {
		return nil, err
	}
	m.nextCons++
	c := &consumer{id: m.nextCons, q: q, opts: opts, credit: max(0, opts.Credit), once: once}
	c.spot.c, c.inQueue.of, c.inSingle.of, c.inPool.of = c, c, c, c
	if opts.Pool != 0 {
		m.poolOf(opts.Pool).join(c)
	} else {
		if q.poolless == nil {
			q.poolless = newSeat(q, nil)
		}
		c.seat = q.poolless
	}
	c.seat.members++
	m.consumers[c.id] = c
	q.consumers.push(&c.inQueue)
	if opts.Exclusive {
		q.exclusives++
	}
	q.joined(c, 1)
	if opts.Single {
		q.singles.push(&c.inSingle)
	}
	q.pickSole()
	q.offer(c)
	return c, nil
}

// pickSole records whether the queue's only consumer asked for runs of groups. Such a consumer
// changes how many messages of a group may be in flight.
func (q *Queue) pickSole() {
	if q.gone {
		return
	}
	was := q.sole
	q.sole = nil
	if c := q.consumers.front(); q.consumers.n == 1 && c.opts.GroupRun > 1 {
		q.sole = c
	}
	if q.sole != was && q.config.Group.MaxInFlight > 0 {
		q.touchAll()
	}
}

// unlist removes a consumer from its queue. The consumer's leases stay.
func (m *Machine) unlist(c *consumer) {
	q := c.q
	delete(m.consumers, c.id)
	if c.leases.n > 0 {
		m.left[c.id] = c
	}
	q.consumers.remove(&c.inQueue)
	if c.opts.Exclusive {
		q.exclusives--
	}
	q.joined(c, -1)
	q.pickSole()
	c.seat.drop(c)
	c.seat.members--
	if c.pool != nil {
		c.pool.leave(c)
		m.forget(c.opts.Pool, c.pool)
	}
	if c.opts.Single {
		q.singles.remove(&c.inSingle)
		if next := q.singles.front(); next != nil {
			q.offer(next) // next is perhaps the active consumer now
		}
	}
}

// shown returns a queue's name as users know it, for texts.
func shown(full string) string {
	vhost, name := fullname.Split(full)
	if vhost == fullname.DefaultVhost {
		return name
	}
	return vhost + "/" + name
}
