package model

import (
	"slices"
	"time"

	"github.com/surgetank/surgetank"
)

// Messages whose bodies cannot be read. One that was handed out, or that is the first of its line,
// is held: it leaves the line and takes up its group's room until it is dropped, tried again, or
// the broker opens anew. One further back is suspect: it is held when its turn comes.

// Quarantine says that a message's body cannot be read; l is the lease under which it was handed
// out, if it was. It gives whether that changed anything.
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
		q.unlease(x)
		q.hold(x, at)
	case x.state == surgetank.StateReady && q.front(x.key()) == x:
		q.hold(x, at)
	default:
		x.suspect = true
	}
	return true
}

func (q *Queue) hold(x *Message, retry int64) {
	x.state, x.suspect, x.retry = surgetank.StateDamaged, false, retry
	q.group(x.key()).holder = 0
	q.m.mark(q)
}

// retry puts a held message back at its old place.
func (q *Queue) retry(x *Message) {
	x.state, x.retry, x.lapsed, x.fullUntil = surgetank.StateReady, 0, false, 0 // if it has expired, that comes next
	q.m.mark(q)
}

// DropDamaged drops what is known to be damaged.
func (m *Model) DropDamaged(q *Queue) (n int64) {
	for _, x := range slices.Clone(q.msgs) {
		if x.state == surgetank.StateDamaged || x.suspect {
			q.remove(x)
			n++
		}
	}
	return n
}
