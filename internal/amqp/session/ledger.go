package session

import (
	"sync"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/amqp/topology"
)

// ledger has a channel's delivery tags, unacknowledged deliveries, and consumers. The reader, the
// writer and the janitor use it. The broker's loop never does, so a goroutine may hold its lock
// while it goes through a list. No blocking call is made under the lock.
type ledger struct {
	mu        sync.Mutex
	nextTag   uint64
	unacked   unackedList
	consumers map[string]*consumer
	left      func(n int) // subtracts n consumers from the counts; must not block
}

// find returns the consumer with a tag, or nil.
func (l *ledger) find(tag string) *consumer {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.consumers[tag]
}

// count returns the number of consumers, and whether one of them has the tag.
func (l *ledger) count(tag string) (n int, taken bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, taken = l.consumers[tag]
	return len(l.consumers), taken
}

func (l *ledger) add(cons *consumer) {
	l.mu.Lock()
	l.consumers[cons.tag] = cons
	l.mu.Unlock()
}

// remove removes a consumer and reports whether it was there.
func (l *ledger) remove(cons *consumer) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.removeLocked(cons)
}

// removeLocked is remove for callers that hold mu.
func (l *ledger) removeLocked(cons *consumer) bool {
	if l.consumers[cons.tag] != cons {
		return false
	}
	delete(l.consumers, cons.tag)
	l.left(1)
	return true
}

// cancel removes a consumer that its client has cancelled. It returns the number of its
// unacknowledged deliveries.
func (l *ledger) cancel(cons *consumer) (outstanding int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.removeLocked(cons)
	cons.cancelled = true
	return cons.outstanding
}

// acking returns one of the consumers that acknowledge, or nil.
func (l *ledger) acking() *consumer {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, cons := range l.consumers {
		if !cons.noAck {
			return cons
		}
	}
	return nil
}

// enter enters deliveries of a consumer, and returns the tag of the first.
func (l *ledger) enter(cons *consumer, got []surgetank.Delivery, at int64) (first uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	first = l.nextTag
	l.nextTag += uint64(len(got))
	if !cons.noAck {
		for i := range got {
			l.unacked.push(unacked{tag: first + uint64(i), receipt: got[i].Receipt, cons: cons, q: cons.q, at: at})
		}
		cons.outstanding += len(got)
	}
	if cons.manual {
		cons.owed += len(got)
	}
	return first
}

// tag returns the next delivery tag, for a delivery without acknowledgement.
func (l *ledger) tag() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.nextTag++
	return l.nextTag - 1
}

// enterOne enters the delivery of a basic.get and returns its tag.
func (l *ledger) enterOne(d *surgetank.Delivery, q *topology.Queue, at int64, noAck bool) (tag uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	tag = l.nextTag
	l.nextTag++
	if !noAck {
		l.unacked.push(unacked{tag: tag, receipt: d.Receipt, q: q, at: at})
	}
	return tag
}

// owed returns the credit that may be added to a consumer now, and subtracts it.
func (l *ledger) owed(cons *consumer, maxUnacked int) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return cons.collectOwed(maxUnacked)
}

// leave stops a consumer's credit.
func (l *ledger) leave(cons *consumer) {
	l.mu.Lock()
	cons.leaving = true
	l.mu.Unlock()
}

// clear empties the ledger. It returns the consumers and the unacknowledged deliveries.
func (l *ledger) clear() (consumers []*consumer, left []unacked) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, cons := range l.consumers {
		consumers = append(consumers, cons)
	}
	l.left(len(l.consumers))
	clear(l.consumers)
	l.unacked.all(func(u unacked) { left = append(left, u) })
	l.unacked = unackedList{}
	return consumers, left
}

// late reports whether a delivery's acknowledgement is overdue, and returns the time-out.
func (l *ledger) late(now, limit time.Duration) (time.Duration, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.unacked.late(now, limit)
}
