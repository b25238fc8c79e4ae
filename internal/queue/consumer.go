package queue

import (
	"slices"

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
	held     int    // leased to it
	queued   bool   // in q.avail
	stopped  bool   // gets nothing more
	received uint64 // hand-outs so far
}

// pool is a limit that consumers share. Under a limit they take turns: next goes to the member that was served longest ago.
type pool struct {
	limit   int // 0: none
	held    int
	members []*consumer // under a limit in the order of their turns, otherwise in the order of their coming
}

// next gives the member whose turn it is: of those that their queues would serve now, the first. c is one of those.
func (p *pool) next(c *consumer) *consumer {
	for _, o := range p.members {
		if o == c || o.credit > 0 && o.queued && o.q.wouldServe(o) {
			return o
		}
	}
	return c
}

// served moves a member behind the others.
func (p *pool) served(c *consumer) {
	if i := slices.Index(p.members, c); i >= 0 {
		copy(p.members[i:], p.members[i+1:])
		p.members[len(p.members)-1] = c
	}
}

// wouldServe tells whether the next message of the queue would go to c now.
func (q *Queue) wouldServe(c *consumer) bool {
	return !q.gone && len(q.ready) > 0 && q.queueVerdict() == mayGo && q.nextConsumer() == c
}

func (c *consumer) hungry() bool {
	return c.credit > 0 && !c.stopped && (c.pool == nil || c.pool.limit == 0 || c.pool.held < c.pool.limit)
}

// active says whether the consumer may be served at all: of single active consumers only the oldest is.
func (c *consumer) active() bool {
	if !c.opts.Single {
		return true
	}
	for _, o := range c.q.consumers {
		if o.opts.Single {
			return o == c
		}
	}
	return false
}

// offer puts a consumer in line for the next message, if it can take one. One that cannot any more leaves when the line is looked
// at and there is something to be had. So whatever takes a consumer's appetite marks its queue: otherwise it would hang on who
// looked in between whether it keeps its place.
func (q *Queue) offer(c *consumer) {
	if c.queued || !c.hungry() || !c.active() {
		return
	}
	c.queued = true
	i := len(q.avail)
	for i > 0 && q.avail[i-1].opts.Priority < c.opts.Priority {
		i--
	}
	q.avail = slices.Insert(q.avail, i, c)
	q.mark()
}

// nextConsumer gives whose turn it is, or nil, without taking it out of line.
func (q *Queue) nextConsumer() *consumer {
	for len(q.avail) > 0 {
		c := q.avail[0]
		if c.hungry() && c.active() {
			return c
		}
		q.dropFirst()
	}
	return nil
}

func (q *Queue) dropFirst() {
	q.avail[0].queued = false
	q.avail = slices.Delete(q.avail, 0, 1)
}

// rotate moves the consumer that was just served behind the others of its priority.
func (q *Queue) rotate(c *consumer) {
	if !c.hungry() {
		q.dropFirst()
		return
	}
	i := 1
	for i < len(q.avail) && q.avail[i].opts.Priority == c.opts.Priority {
		i++
	}
	copy(q.avail, q.avail[1:i])
	q.avail[i-1] = c
}

// consumerVerdict looks without taking anybody out of line: asking changes nothing.
func (q *Queue) consumerVerdict() verdict {
	if slices.ContainsFunc(q.avail, func(c *consumer) bool { return c.hungry() && c.active() }) {
		return mayGo
	}
	if len(q.consumers) == 0 {
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

// attach makes a consumer of a queue.
func (m *Machine) attach(q *Queue, opts surgetank.SubscribeOptions, once bool) (*consumer, error) {
	for _, c := range q.consumers {
		if !once && (opts.Exclusive || c.opts.Exclusive) {
			return nil, surgetank.Errorf(surgetank.CodeExists,
				"queue %q has an exclusive consumer or is to get one while it has others; wait until they are gone", shown(q.name))
		}
	}
	if opts.Lease > surgetank.MaxLease {
		return nil, surgetank.FieldErrorf("lease", "a lease lasts at most %v, not %v", surgetank.MaxLease, opts.Lease)
	}
	m.nextCons++
	c := &consumer{id: m.nextCons, q: q, opts: opts, credit: max(0, opts.Credit), once: once}
	if opts.Pool != 0 {
		p := m.pools[opts.Pool]
		if p == nil {
			p = &pool{}
			m.pools[opts.Pool] = p
		}
		c.pool = p
		p.members = append(p.members, c)
	}
	m.consumers[c.id] = c
	q.consumers = append(q.consumers, c)
	q.pickSole()
	q.offer(c)
	return c, nil
}

// pickSole notes whether the queue's only consumer wants runs of groups, which changes what groups may have in flight.
func (q *Queue) pickSole() {
	was := q.sole
	q.sole = nil
	if len(q.consumers) == 1 && q.consumers[0].opts.GroupRun > 1 {
		q.sole = q.consumers[0]
	}
	if q.sole != was && q.config.Group.MaxInFlight > 0 {
		q.reconfigured(true)
	}
}

// unlist takes a consumer off its queue. Its leases stay.
func (m *Machine) unlist(c *consumer) {
	delete(m.consumers, c.id)
	c.q.consumers = slices.DeleteFunc(c.q.consumers, func(o *consumer) bool { return o == c })
	c.q.pickSole()
	if i := slices.Index(c.q.avail, c); i >= 0 {
		c.q.avail = slices.Delete(c.q.avail, i, i+1)
		c.queued = false
	}
	if p := c.pool; p != nil {
		p.members = slices.DeleteFunc(p.members, func(o *consumer) bool { return o == c })
		if len(p.members) == 0 && p.held == 0 {
			delete(m.pools, c.opts.Pool)
		}
	}
	if c.opts.Single {
		for _, o := range c.q.consumers {
			c.q.offer(o) // the next one in order may have become the active one
		}
	}
}

// poolLimit changes what the members of a pool may hold together.
func (m *Machine) poolLimit(id uint64, limit int) {
	if p := m.pools[id]; p != nil {
		p.limit = limit
		p.refill()
		for _, c := range p.members {
			c.q.mark()
		}
	}
}

// refill puts the members in line again after somebody gave room back.
func (p *pool) refill() {
	if p.limit > 0 && p.held >= p.limit {
		return
	}
	for _, c := range p.members {
		c.q.offer(c)
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
