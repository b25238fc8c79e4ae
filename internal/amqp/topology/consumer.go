package topology

import (
	"github.com/surgetank/surgetank/internal/amqp/translate"
	"github.com/surgetank/surgetank/internal/amqp/wire"
)

// Consumer is a queue's entry for one of its consumers.
type Consumer struct {
	Exclusive bool // no other consumer may be attached
}

// InExclusiveUse returns the error for a consumer that cannot attach, because the new consumer or
// an attached one is exclusive.
func (q *Queue) InExclusiveUse() error {
	return wire.Errorf(wire.CodeAccessRefused, "%s in exclusive use", translate.DescribeQueue(q.Name, q.Vhost.Name))
}

// Attach adds a consumer to the queue, or returns the error that forbids it.
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

// Detach removes a consumer. If it was the last one of an auto-delete queue, Detach deletes the
// queue.
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

// DropConsumer removes a consumer whose subscription ended by itself: the queue is gone, or the
// broker is closing. It reports whether the topology has already forgotten the queue.
func (q *Queue) DropConsumer(cons *Consumer) (forgotten bool) {
	q.Vhost.mu.Lock()
	defer q.Vhost.mu.Unlock()
	q.remove(cons)
	return q.gone
}

// remove removes a consumer. It returns false if the consumer was not attached. The caller holds
// the virtual host's lock.
func (q *Queue) remove(cons *Consumer) bool {
	_, was := q.consumers[cons]
	delete(q.consumers, cons)
	if was && cons.Exclusive {
		q.exclusiveUse = false // an exclusive consumer is the only one
	}
	return was
}
