package queue

import (
	"slices"
	"time"

	"github.com/surgetank/surgetank"
)

// consumer is a subscription as the machine sees it: a queue and credit.
type consumer struct {
	id       uint64
	q        *Queue
	opts     surgetank.SubscribeOptions
	credit   int
	pool     *pool
	once     bool   // ends with the turn in which it got something
	stopped  bool   // gets nothing more
	received uint64 // hand-outs so far

	leases   list[lease] // held by it, also after it has left
	seat     *seat
	spot     spot           // in seat.line
	inQueue  node[consumer] // of q.consumers; in none once it has left
	inSingle node[consumer] // of q.singles
	inPool   node[consumer] // of pool.members
}

// queued says that the consumer is in the line of its seat.
func (c *consumer) queued() bool { return c.spot.at > 0 }

// wouldServe tells whether the next message of the queue would go to c now.
func (q *Queue) wouldServe(c *consumer) bool {
	return !q.gone && len(q.ready) > 0 && q.queueVerdict() == mayGo && q.nextConsumer() == c
}

// willing says that the consumer itself would take a message.
func (c *consumer) willing() bool { return c.credit > 0 && !c.stopped }

func (c *consumer) hungry() bool { return c.willing() && (c.pool == nil || !c.pool.full()) }

// active says whether the consumer may be served at all: of single active consumers only the oldest
// is.
func (c *consumer) active() bool { return !c.opts.Single || c.q.singles.front() == c }

// offer puts a consumer in line for the next message, if it wants one. One that does not any more
// leaves when the line is looked at and there is something to be had. So whatever takes a
// consumer's appetite marks its queue: otherwise it would hang on who looked in between whether it
// keeps its place.
func (q *Queue) offer(c *consumer) {
	if q.gone || c.queued() || !c.willing() || !c.active() {
		return
	}
	c.seat.put(c)
	q.mark()
}

// nextConsumer gives whose turn it is, or nil, without taking it out of line.
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

// rotate moves the consumer that was just served behind the others of its priority.
func (q *Queue) rotate(c *consumer) {
	if c.willing() {
		c.seat.put(c)
	} else {
		c.seat.drop(c)
	}
}

// consumerVerdict looks without taking anybody out of line: asking changes nothing.
func (q *Queue) consumerVerdict() verdict {
	if slices.ContainsFunc(q.line.heap, func(p place) bool { return p.of.seat.canServe() }) {
		return mayGo
	}
	if q.consumers.n == 0 {
		return noConsumer
	}
	return noCredit
}

// credited gives a consumer credit and puts it in line, or takes credit back.
func (c *consumer) credited(n int) {
	c.credit = max(0, c.credit+n)
	c.q.offer(c)
	c.q.mark() // see offer: who has no credit left gives up its place now
}

// attach makes a consumer of a queue. A consumer for this turn only (now) does not count against
// the queue's limit of consumers, because it does not stay.
func (m *Machine) attach(q *Queue, opts surgetank.SubscribeOptions, once, now bool) (*consumer, error) {
	if most := q.config.MaxConsumers; most > 0 && q.consumers.n >= most && !now {
		return nil, fullUp(time.Second, "queue %q has %d consumers, and max_consumers allows %d; close some, or raise max_consumers",
			shown(q.name), q.consumers.n, most)
	}
	if !once && !now && q.consumers.n > 0 && (opts.Exclusive || q.exclusives > 0) {
		return nil, surgetank.Errorf(surgetank.CodeExists,
			"queue %q has an exclusive consumer or is to get one while it has others; wait until they are gone", shown(q.name))
	}
	if opts.Lease > surgetank.MaxLease {
		return nil, surgetank.FieldErrorf("lease", "a lease lasts at most %v, not %v", surgetank.MaxLease, opts.Lease)
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
	if opts.Single {
		q.singles.push(&c.inSingle)
	}
	q.pickSole()
	q.offer(c)
	return c, nil
}

// pickSole notes whether the queue's only consumer wants runs of groups, which changes what groups
// may have in flight.
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
		q.reconfigured(true)
	}
}

// unlist takes a consumer off its queue. Its leases stay.
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
			q.offer(next) // it may have become the active one
		}
	}
}

// shown gives a queue's name as its users know it, for messages.
func shown(full string) string {
	vhost, name := surgetank.SplitName(full)
	if vhost == surgetank.DefaultVhost {
		return name
	}
	return vhost + "/" + name
}
