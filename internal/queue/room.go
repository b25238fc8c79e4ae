package queue

import (
	"slices"
	"time"

	"github.com/surgetank/surgetank"
)

// A message comes into a queue in three ways: a publisher sends it, another queue gives it up, a
// redrive moves it. Each respects the limits of the queue (max_messages, max_bytes):
//
//	who comes    | overflow: reject                          | drop_oldest, dead_letter
//	-------------+-------------------------------------------+----------------------------------------------
//	publish      | is refused                                | the oldest make room; where they are to be
//	             |                                           | dead-lettered and cannot be, it is refused
//	dead letter  | stays in its queue, and is tried again    | the oldest make room
//	redrive      | stays where it is                         | stays where it is: it would only push others out
//
// A message that stays because its dead-letter queue is full is late, and never lost. One that a
// consumer gave up goes back into its line with the retry back-off. One whose TTL passed keeps its
// place and can still be delivered.

// fullRetry is when a message is given up again, at the earliest, after its dead-letter queue had
// no room.
const fullRetry = time.Second

// fits says whether one more message of a size is within the queue's limits. A waiting consumer may
// make room.
func (q *Queue) fits(size int64) bool {
	if !q.over(1, size) {
		return true
	}
	if !q.dispatch() {
		q.mark()
	}
	return !q.over(1, size)
}

// takes says whether the queue takes a dead letter of a size.
func (q *Queue) takes(size int64) bool {
	return q.config.Overflow != surgetank.OverflowReject || q.fits(size)
}

// sheds says whether the queue can make room by giving up its oldest message.
func (q *Queue) sheds() bool {
	if q.config.Overflow != surgetank.OverflowDeadLetter || q.deadLetter() == q.name {
		return true // it drops them
	}
	dead := q.m.byName[q.deadLetter()]
	oldest := q.oldest()
	return dead == nil || oldest == 0 || q.trailOf(oldest).has(dead.name) || dead.takes(int64(q.slots.get(oldest).size))
}

// oldest returns the oldest message that is not handed out; 0: there is none.
func (q *Queue) oldest() (oldest uint64) {
	q.slots.ascend(q.Floor(), func(seq uint64, s *slot) bool {
		if st := s.state(); st == slotWaiting || st == slotDelayed {
			oldest = seq
			return false
		}
		return true
	})
	return oldest
}

// makeRoom brings a queue under its limits within the turn that took a message, so that nobody sees
// it above them. What waiting consumers can take is not given up.
func (q *Queue) makeRoom() {
	if q.config.Overflow != surgetank.OverflowReject && q.over(0, 0) {
		q.dispatch()
		q.enforce()
	}
}

// waitForRoom has the queue looked at again when its dead-letter queue changes.
func (q *Queue) waitForRoom() {
	if dead := q.m.byName[q.deadLetter()]; dead != nil && !slices.Contains(dead.givers, q) {
		dead.givers = append(dead.givers, q)
	}
}

// wakeGivers has the queues looked at that wait for room in this one.
func (q *Queue) wakeGivers() {
	if len(q.givers) > 0 {
		givers := q.givers
		q.givers = nil
		for _, g := range givers {
			g.mark()
		}
	}
}

// putBack returns a message to its line that a consumer gave up and that its dead-letter queue had
// no room for.
func (m *Machine) putBack(q *Queue, seq uint64, attempts int) {
	expired := q.slots.get(seq).has(slotExpired)
	wait := max(m.backoff(&q.config.Retry, max(1, attempts)), fullRetry)
	m.putBackUntil(q, seq, attempts, m.now+int64(wait), causeNoRoom)
	if expired {
		q.retryExpiry(seq)
	}
}

// overdue keeps a message in line whose TTL passed at a time, and that its dead-letter queue had no
// room for.
func (q *Queue) overdue(seq uint64, at int64) {
	q.lapse(seq, at)
	q.retryExpiry(seq)
}

// retryExpiry has an expired message looked at again. An earlier time that was noted for it does
// not count any more.
func (q *Queue) retryExpiry(seq uint64) {
	if q.overdueAt == nil {
		q.overdueAt = map[uint64]int64{}
	}
	at := q.m.now + int64(fullRetry)
	q.overdueAt[seq] = at
	q.expires(at, seq)
}

// unlapse forgets that a message expired.
func (q *Queue) unlapse(seq uint64) {
	delete(q.lapsed, seq)
	delete(q.overdueAt, seq)
}

// lapse notes that a message that is still here has expired, and when.
func (q *Queue) lapse(seq uint64, at int64) {
	s := q.slots.edit(seq)
	if s.has(slotExpired) {
		return // at is when it was to be tried again
	}
	s.set(slotExpired)
	if q.lapsed == nil {
		q.lapsed = map[uint64]int64{}
	}
	q.lapsed[seq] = at
}
