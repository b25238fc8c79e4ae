package queue

import (
	"slices"
	"time"

	"github.com/surgetank/surgetank"
)

// A message enters a queue in three ways: a publisher sends it, another queue dead-letters it, or a
// redrive moves it. Each way respects the limits of the queue (max_messages, max_bytes):
//
//	source       | overflow: reject                          | drop_oldest, dead_letter
//	-------------+-------------------------------------------+----------------------------------------------
//	publish      | is refused                                | the oldest messages make room; refused if the
//	             |                                           | oldest message cannot be dead-lettered
//	dead letter  | stays in its queue, and is tried again    | the oldest messages make room
//	redrive      | stays in its queue                        | stays in its queue
//
// A message that stays because its dead-letter queue is full is not lost. If a consumer rejected
// the message or its last attempt failed, it returns to its line with the retry back-off. If its
// TTL passed, it keeps its position and can still be delivered.

// fullRetry is the shortest time before a message is given up again after its dead-letter queue was
// full.
const fullRetry = time.Second

// fits tells whether one more message of this size is within the queue's limits. It first serves a
// waiting consumer, because a hand-out can make room.
func (q *Queue) fits(size int64) bool {
	if q.frozen {
		return false
	}
	if !q.over(1, size) {
		return true
	}
	if !q.dispatch() {
		q.mark()
	}
	return !q.over(1, size)
}

// accepts tells whether the queue accepts a dead letter of this size.
func (q *Queue) accepts(size int64) bool {
	return !q.frozen && q.config.Overflow != surgetank.OverflowReject || q.fits(size)
}

// sheds tells whether the queue can make room by giving up its oldest message.
func (q *Queue) sheds() bool {
	if q.config.Overflow != surgetank.OverflowDeadLetter || q.deadLetter() == q.name {
		return true // the queue drops its oldest message
	}
	dead, _ := q.nextDead()
	oldest := q.oldest()
	return dead == nil || oldest == 0 || q.trailOf(oldest).has(q.deadLetter()) || dead.accepts(int64(q.slots.get(oldest).size))
}

// oldest returns the oldest message that is not handed out, or 0 if there is none.
func (q *Queue) oldest() (oldest uint64) {
	q.slots.ascend(q.Floor(), func(seq uint64, s *slot) bool {
		if st := s.state(); st == slotWaiting || st == slotDelayed || st == slotBehind {
			oldest = seq
			return false
		}
		return true
	})
	return oldest
}

// makeRoom brings a queue under its limits in the turn that accepted a message, so that no one sees
// the queue above its limits. It first hands out messages to waiting consumers.
func (q *Queue) makeRoom() {
	if q.config.Overflow != surgetank.OverflowReject && q.over(0, 0) {
		q.dispatch()
		q.enforce()
	}
}

// waitForRoom requests a look at the queue when its dead-letter queue changes.
func (q *Queue) waitForRoom() {
	if dead, _ := q.nextDead(); dead != nil && !slices.Contains(dead.givers, q) {
		dead.givers = append(dead.givers, q)
	}
}

// wakeGivers requests a look at the queues that wait for room in this one.
func (q *Queue) wakeGivers() {
	if len(q.givers) > 0 {
		givers := q.givers
		q.givers = nil
		for _, g := range givers {
			g.mark()
		}
	}
}

// putBack returns a message to its line after its dead-letter queue was full.
func (m *Machine) putBack(q *Queue, seq uint64, attempts int) {
	expired := q.slots.get(seq).marked(slotExpired)
	wait := max(m.backoff(q.retryFor(causeNoRoom), max(1, attempts)), fullRetry)
	m.putBackUntil(q, seq, attempts, m.now+int64(wait), causeNoRoom)
	if expired {
		q.retryExpiry(seq)
	}
}

// overdue keeps an expired message in line because its dead-letter queue is full. at is the time
// when the message's TTL passed.
func (q *Queue) overdue(seq uint64, at int64) {
	q.lapse(seq, at)
	q.retryExpiry(seq)
}

// retryExpiry schedules the next look at an expired message. It replaces an earlier time.
func (q *Queue) retryExpiry(seq uint64) {
	if q.overdueAt == nil {
		q.overdueAt = map[uint64]int64{}
	}
	at := q.m.now + int64(fullRetry)
	q.overdueAt[seq] = at
	q.expires(at, seq)
}

// unlapse removes the record that a message expired.
func (q *Queue) unlapse(seq uint64) {
	delete(q.lapsed, seq)
	delete(q.overdueAt, seq)
}

// lapse records when a message expired that is still in the queue.
func (q *Queue) lapse(seq uint64, at int64) {
	s := q.slots.edit(seq)
	if s.marked(slotExpired) {
		return // at is the time of a retry, not of the expiry
	}
	s.mark(slotExpired)
	if q.lapsed == nil {
		q.lapsed = map[uint64]int64{}
	}
	q.lapsed[seq] = at
}
