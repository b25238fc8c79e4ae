package queue

import (
	"math"
	"slices"
	"strings"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/breaker"
)

// lease is a hand-out that is not settled. Leases are volatile: a crash of the broker ends all of
// them and counts no attempt.
type lease struct {
	seq      uint64
	no       uint64
	consumer *consumer
	since    int64       // when the message was handed out
	deadline int64       // 0: the lease lasts until its subscription ends
	released int64       // when the hand-out left the broker; 0: not known
	held     node[lease] // node in consumer.leases
}

// maxSpareLeases is how many ended leases are kept for reuse.
const maxSpareLeases = 16_384

// newLease creates the lease of a message that is handed to a consumer.
func (m *Machine) newLease(seq uint64, c *consumer) *lease {
	m.nextLease++
	var l *lease
	if n := len(m.spareLeases); n == 0 {
		l = &lease{}
		l.held.of = l
	} else {
		l = m.spareLeases[n-1]
		m.spareLeases = m.spareLeases[:n-1]
	}
	l.seq, l.no, l.consumer, l.since, l.deadline, l.released = seq, m.nextLease, c, m.now, 0, 0
	c.leases.push(&l.held)
	return l
}

// freeLease removes a lease from its consumer.
func (m *Machine) freeLease(l *lease) {
	c := l.consumer
	c.leases.remove(&l.held)
	if c.leases.n == 0 && c.inQueue.in == nil {
		delete(m.left, c.id)
	}
	l.consumer = nil
	if len(m.spareLeases) < maxSpareLeases {
		m.spareLeases = append(m.spareLeases, l)
	}
}

// handOut hands a flow's front message to a consumer under a lease. For a consumer without acks,
// the message is acked at once.
func (q *Queue) handOut(c *consumer, h uint32) {
	m := q.m
	f := &q.flows[h]
	seq := q.frontOf(h)
	s := q.slots.edit(seq)
	q.takeFront(h, seq, s)
	s.to(slotLeased)
	if f.inflight++; f.inflight == 1 {
		f.holder = c.id
	} else if f.holder != c.id {
		f.holder = 0
	}
	if q.sched != nil {
		q.turnTaken(h)
	}
	q.waiting--
	q.leased++
	q.leasedBytes += int64(s.size)
	q.stats.delivered++
	q.wakeGivers()
	if s.attempts == 0 && !s.has(slotRedelivered) {
		q.firstAttempt()
	}
	q.sample(h, seq)
	rateSpend(&q.tat, q.config.Level.Rate, m.now)
	rateSpend(&f.tat, q.config.Group.Rate, m.now)
	c.credit--
	c.received++

	out := Handout{
		Consumer: c.id, At: m.now, Queue: q, ID: q.idOf(seq), Seq: seq, Ref: s.ref(), Group: q.groupName(h), Size: s.size,
		Attempt: int(s.attempts) + 1, Redelivered: q.redelivered(seq, s),
	}
	if s.has(slotNoted) {
		out.Notes = slices.Clone(q.notes[seq].refs)
	}
	if c.opts.NoAck {
		if q.control != nil {
			q.control.passed(q, seq)
		}
		if !c.opts.ManualCredit {
			c.credit++
		}
		m.acked(q, seq)
	} else {
		l := m.newLease(seq, c)
		term := c.opts.Lease
		if term == 0 {
			term = q.config.Lease // the present setting, not the one at the time of subscribing
		}
		if term > 0 {
			l.deadline = m.now + int64(term)
			q.deadline(l.deadline, seq)
		}
		if c.pool != nil {
			c.pool.held++
		}
		if q.leases == nil {
			q.leases = map[uint64]*lease{}
		}
		q.leases[seq] = l
		out.Lease, out.Deadline = l.no, l.deadline
		out.Token = q.fencingToken(h, l.no)
		if q.control != nil {
			q.control.handed(q, seq, l)
		}
		q.touch(h)
	}
	if m.out.Handouts == nil {
		m.out.Handouts = make([]Handout, 0, max(1, min(m.handed, int(q.ready_)+1, c.credit+1)))
	}
	m.out.Handouts = append(m.out.Handouts, out)
}

// deadline schedules the end of a lease. It drops the stale entries of deadlines when they
// outnumber the leases.
func (q *Queue) deadline(at int64, seq uint64) {
	if len(q.deadlines) > 2*(len(q.leases)+len(q.held))+1024 {
		q.deadlines.keep(func(x timed) bool {
			l, d := q.leases[x.key], q.held[x.key]
			return l != nil && l.deadline == x.at || d != nil && d.retry == x.at
		})
	}
	q.deadlines.push(timed{at, seq})
	q.timerAt(at)
}

// endLease removes a lease, which must exist, and adds its credit to the consumer again. The caller
// logs the message's next state, and then calls refundAll. endLease returns true if a failure costs
// no attempt, because the target is down.
func (q *Queue) endLease(seq uint64, end leaseEnd) (uncounted bool) {
	l := q.leases[seq]
	if q.control == nil && end.outcome == breaker.Down && breakerMode(&q.config) != surgetank.BreakerOff {
		q.needControl()
	}
	if q.control != nil {
		uncounted = q.control.answered(q, l, end)
	}
	delete(q.leases, seq)
	q.meter.held += q.m.now - l.since
	q.meter.ended++
	c := l.consumer
	q.m.freeLease(l)
	if p := c.pool; p != nil {
		p.held--
		p.refill()
		q.m.forget(c.opts.Pool, p)
	}
	if !c.opts.ManualCredit && c.inQueue.in != nil {
		c.credited(1)
	}
	q.mark()
	return uncounted
}

// acked logs that one message is acked.
func (m *Machine) acked(q *Queue, seq uint64) {
	q.stats.acked++
	r := &m.rec
	r.Kind, r.Queue, r.Seqs = kindAcked, q.id, append(r.Seqs[:0], seq)
	m.emit(r)
}

// giveUp decides the next state of a leased message that was not acked: returned to its line,
// dead-lettered or removed. counted tells whether the attempt counts. A negative delay means the
// back-off of the queue's settings.
func (m *Machine) giveUp(q *Queue, seq uint64, delay time.Duration, counted bool, detail string, end leaseEnd) {
	s := q.slots.get(seq)
	uncounted := q.endLease(seq, end)
	defer m.refundAll()
	if next := q.successor(seq); next != 0 {
		m.supersede(q, seq, q, next)
		return
	}
	if uncounted {
		counted, delay = false, max(0, delay) // the breaker delays the retry, so no back-off is needed
	}
	attempts := int(s.attempts)
	retry := q.retryFor(detail)
	if counted {
		attempts++
		if limit := retry.MaxAttempts; limit > 0 && attempts >= limit {
			if wait := q.parkLater(seq); wait > 0 {
				m.putBackUntil(q, seq, attempts, m.now+wait, detail)
				return
			}
			if !m.sendToDeadLetter(q, seq, reasonAttempts, attempts, detail) {
				m.putBack(q, seq, attempts)
			}
			return
		}
	}
	if s.marked(slotExpired) {
		if !m.expired(q, seq) {
			m.putBack(q, seq, attempts)
		}
		return
	}
	var notBefore int64
	switch {
	case delay > 0:
		notBefore = m.now + int64(min(delay, surgetank.MaxDuration))
	case delay < 0:
		if d := m.backoff(retry, max(1, attempts)); d > 0 {
			notBefore = m.now + int64(d)
		}
	}
	if counted && notBefore == 0 && !q.payRetry() {
		notBefore = m.now + 1 // the message waits for the retry budget
	}
	m.putBackUntil(q, seq, attempts, notBefore, detail)
}

// putBackUntil returns a message whose lease has ended to its queue, to wait until notBefore.
// detail is the reason; "" if there is none.
func (m *Machine) putBackUntil(q *Queue, seq uint64, attempts int, notBefore int64, detail string) {
	r := &m.rec
	r.Kind, r.Queue, r.Seqs, r.Attempts, r.NotBefore, r.Detail = kindReturned, q.id, append(r.Seqs[:0], seq), uint32(attempts), notBefore, ""
	if detail != "" {
		r.Kind, r.Detail = kindFailed, clipTo(detail, maxFailure)
	}
	m.emit(r)
}

// backoff draws the delay before the next attempt of a message after n failed attempts.
func (m *Machine) backoff(c *surgetank.RetryConfig, n int) time.Duration {
	if c.Initial < 0 {
		return 0
	}
	d := float64(c.Initial) * math.Pow(c.Factor, float64(n-1))
	d = min(d, float64(c.Max))
	if c.Jitter > 0 {
		d -= d * c.Jitter * m.rng.Float64()
	}
	return time.Duration(d)
}

// sendToDeadLetter moves a message that is given up to the dead-letter queue, and creates this
// queue if necessary. The message is dropped instead if the settings say so, or if it would circle
// among queues. sendToDeadLetter returns false, and changes nothing, if the dead-letter queue is
// full. The message must not be leased.
func (m *Machine) sendToDeadLetter(q *Queue, seq uint64, why reason, attempts int, detail string) bool {
	to := q.deadLetter()
	if to == surgetank.DeadLetterDrop {
		q.stats.dropped++
		m.remove(q, seq, why)
		return true
	}
	if automatic(why) && to != q.name && q.trailOf(seq).has(to) {
		m.circled(q, seq, to)
		return true
	}
	dead, name := q.nextDead()
	if dead == nil {
		dead = m.made(name)
	} else if dead != q && !dead.accepts(int64(q.slots.get(seq).size)) {
		return false
	}
	q.stats.deadLettered++
	r := &m.rec
	r.Kind, r.Queue, r.Seqs, r.ToQueue, r.ToSeq = kindTransferred, q.id, append(r.Seqs[:0], seq), dead.id, dead.nextSeq
	r.Name = q.name
	r.Reason, r.Attempts, r.Detail, r.NotBefore = why, uint32(attempts), clip(q.stands(seq, detail)), 0
	if ttl := dead.config.TTL; ttl > 0 && dead != q {
		r.NotBefore = m.now + int64(ttl)
	}
	dead.stats.published++
	if why == reasonAttempts || why == reasonRejected {
		m.notice(Parked, q, to, r.Detail)
	}
	m.emit(r)
	return true
}

// deadLetter returns the name of the queue's dead-letter queue, or DeadLetterDrop.
func (q *Queue) deadLetter() string {
	switch {
	case q.config.DeadLetter != "":
		return q.config.DeadLetter
	case strings.HasSuffix(q.name, surgetank.DeadLetterSuffix):
		return q.name // a dead-letter queue keeps its messages
	}
	return q.name + surgetank.DeadLetterSuffix
}

// deadLetterConfig returns the settings of a dead-letter queue that was not declared. Such a queue
// never gives up a message by itself.
func deadLetterConfig(name string) surgetank.QueueConfig {
	return surgetank.QueueConfig{DeadLetter: name, Retry: surgetank.RetryConfig{MaxAttempts: -1, Initial: -1, Jitter: -1}}
}

// clip shortens a detail to maxDetail, for storage.
func clip(s string) string {
	if len(s) > maxDetail {
		s = s[:maxDetail-3] + "..."
	}
	return s
}

const maxDetail = 1024 // bytes

// remove drops a message.
func (m *Machine) remove(q *Queue, seq uint64, why reason) {
	r := &m.rec
	r.Kind, r.Queue, r.Seqs, r.Reason = kindRemoved, q.id, append(r.Seqs[:0], seq), why
	m.emit(r)
}

// expired gives up a message whose TTL passed. The message goes to the dead-letter queue if the
// settings name one, and is dropped otherwise. It returns false, and changes nothing, if the
// dead-letter queue is full.
func (m *Machine) expired(q *Queue, seq uint64) bool {
	if d := q.config.DeadLetter; d == "" || d == surgetank.DeadLetterDrop {
		m.remove(q, seq, reasonExpired)
	} else if !m.sendToDeadLetter(q, seq, reasonExpired, int(q.slots.get(seq).attempts), "") {
		return false
	}
	q.stats.expired++
	return true
}
