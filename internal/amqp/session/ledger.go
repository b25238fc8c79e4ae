package session

import (
	"sync"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/amqp/topology"
)

// ledger is a channel's account of what its client has and owes: delivery tags, deliveries that
// wait for their acknowledgement, and consumers. The reader, the writer and the janitor use it. The
// broker's loop never does, so its lock may be held for the length of a list; no blocking call is
// made under it.
type ledger struct {
	mu        sync.Mutex
	nextTag   uint64
	unacked   unackedList
	consumers map[string]*consumer
	left      func(n int) // gives back the places of n consumers; it does not wait
}

// find returns the consumer of a tag, nil if there is none.
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

// remove takes a consumer out and tells whether it was in.
func (l *ledger) remove(cons *consumer) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.take(cons)
}

// take is remove for callers that hold mu.
func (l *ledger) take(cons *consumer) bool {
	if l.consumers[cons.tag] != cons {
		return false
	}
	delete(l.consumers, cons.tag)
	l.left(1)
	return true
}

// cancel takes a consumer out whose client has cancelled it, and returns the number of its
// deliveries that are outstanding.
func (l *ledger) cancel(cons *consumer) (outstanding int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.take(cons)
	cons.cancelled = true
	return cons.outstanding
}

// acking returns one of the consumers that acknowledge, nil if there is none.
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

// tag returns the next delivery tag, for a delivery that nobody acknowledges.
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

// owed returns the credit that may be given back to a consumer now, and forgets it.
func (l *ledger) owed(cons *consumer, maxUnacked int) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return cons.takeOwed(maxUnacked)
}

// leave stops a consumer's credit.
func (l *ledger) leave(cons *consumer) {
	l.mu.Lock()
	cons.leaving = true
	l.mu.Unlock()
}

// clear empties the ledger. It returns the consumers and the deliveries that were outstanding.
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

// late tells whether a delivery has waited too long for its acknowledgement, and how long it might
// have waited.
func (l *ledger) late(now, limit time.Duration) (time.Duration, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.unacked.late(now, limit)
}
