package model

import (
	"slices"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/breaker"
)

// Messages whose bodies cannot be read. A message that was handed out, or that is the first of its
// line, becomes damaged. It leaves the line and counts as in flight in its group until it is
// dropped, it is read again, or the broker is opened again. A message further back is suspect: it
// becomes damaged when it becomes the first.

// Quarantine reports that a message's body cannot be read. l is the lease under which the message
// was handed out, or the zero value. Quarantine returns whether anything changed.
func (m *Model) Quarantine(queue string, seq uint64, l Lease, retry time.Duration) bool {
	q := m.Queues[queue]
	if q == nil {
		return false
	}
	x := q.Find(seq)
	at := int64(0)
	if retry > 0 {
		at = m.Now + int64(retry)
	}
	switch {
	case x == nil || x.state == surgetank.StateDamaged:
		return false
	case x.state == surgetank.StateLeased:
		if l.x != x || !m.Lives(l) {
			return false
		}
		q.unlease(x, End{outcome: breaker.Returned})
		q.hold(x, at)
	case x.state == surgetank.StateReady && q.front(x.key()) == x:
		q.hold(x, at)
	default:
		x.suspect, x.suspectUntil = true, at
	}
	return true
}

func (q *Queue) hold(x *Message, retry int64) {
	x.state, x.suspect, x.retry = surgetank.StateDamaged, false, retry
	q.group(x.key()).holder = 0
	q.m.mark(q)
}

// retry returns a damaged message to its old position in line.
func (q *Queue) retry(x *Message) {
	x.state, x.retry, x.lapsed, x.fullUntil = surgetank.StateReady, 0, false, 0 // if the message has expired, it is given up next
	q.m.mark(q)
}

// DropDamaged drops the messages that are known to be damaged.
func (m *Model) DropDamaged(q *Queue) (n int64) {
	for _, x := range slices.Clone(q.msgs) {
		if x.state == surgetank.StateDamaged || x.suspect {
			q.remove(x)
			n++
		}
	}
	return n
}
