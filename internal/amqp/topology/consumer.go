package topology

import (
	"github.com/surgetank/surgetank/internal/amqp/translate"
	"github.com/surgetank/surgetank/internal/amqp/wire"
)

// Consumer is what a queue knows of one of its consumers.
type Consumer struct {
	Exclusive bool // it is alone
}

// InExclusiveUse is the error for a consumer that cannot be beside those that the queue has.
func (q *Queue) InExclusiveUse() error {
	return wire.Errorf(wire.CodeAccessRefused, "%s in exclusive use", translate.DescribeQueue(q.Name, q.Vhost.Name))
}

// Attach enters a consumer, or says why it may not consume.
func (q *Queue) Attach(cons *Consumer) error {
	q.Vhost.mu.Lock()
	defer q.Vhost.mu.Unlock()
	if q.gone {
		return q.Vhost.NoQueue(q.Name)
	}
	if cons.Exclusive && (len(q.consumers) > 0 || q.Attrs().Single) {
		return q.InExclusiveUse()
	}
	if q.exclusiveUse {
		return q.InExclusiveUse()
	}
	q.consumers[cons] = struct{}{}
	q.exclusiveUse = cons.Exclusive
	q.lastUse = q.Vhost.env.Clock.Passed()
	return nil
}

// Detach takes a consumer off, and with the last one an auto-delete queue away.
func (q *Queue) Detach(cons *Consumer) {
	vh := q.Vhost
	vh.mu.Lock()
	was := q.remove(cons)
	q.lastUse = vh.env.Clock.Passed()
	unused := was && q.Attrs().AutoDelete && len(q.consumers) == 0 && !q.gone
	vh.mu.Unlock()
	if unused {
		if err := vh.DeleteQueue(q); err != nil {
			vh.env.Log.Warn("an auto-delete queue could not be deleted", "queue", q.Name, "vhost", vh.Name, "err", err)
		}
	}
}

// DropConsumer takes off a consumer whose subscription has ended by itself: the queue is gone, or
// the broker closes. It tells whether the queue is forgotten already.
func (q *Queue) DropConsumer(cons *Consumer) (forgotten bool) {
	q.Vhost.mu.Lock()
	defer q.Vhost.mu.Unlock()
	q.remove(cons)
	return q.gone
}

// remove takes a consumer off. It returns false if the consumer was not there. The caller holds the
// virtual host's lock.
func (q *Queue) remove(cons *Consumer) bool {
	_, was := q.consumers[cons]
	delete(q.consumers, cons)
	if was && cons.Exclusive {
		q.exclusiveUse = false // an exclusive one is alone
	}
	return was
}
