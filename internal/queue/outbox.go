package queue

import (
	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/door"
)

// A dead letter or a redriven message can have its new queue in another shard. It then moves to an
// outbox, which is a queue of this machine with a hidden name:
//
//	this shard's log                          the other shard's log
//	────────────────                          ─────────────────────
//	1 transferred: orders → outbox of jobs
//	                                          2 arrived: in jobs, and the outbox's position
//	3 acked in the outbox
//
// The outbox is the memory of the transfer: a message is in it from step 1 to step 3. After a crash
// between 2 and 3, the message is sent again. The other machine compares its number with the
// position and does not store it twice. A second outbox for the same queue has the redriven
// messages, because a redrive leaves another trace in the message's history.

// outboxBytes limits the messages that wait in one outbox, and so does Limits.OutboxMessages. A queue
// whose outbox is full behaves as with a full dead-letter queue.
const outboxBytes = 256 << 20

// outboxConfig returns the settings of an outbox. It never gives up a message.
func (m *Machine) outboxConfig(name string) surgetank.QueueConfig {
	c := deadLetterConfig(name)
	c.MaxMessages, c.MaxBytes = int64(m.limits.OutboxMessages), outboxBytes
	return c
}

// next returns the queue of this machine to which a message for the queue `to` moves: the queue
// itself or an outbox. It returns nil if that queue must be created first, under the returned name.
// own means that `to` is the own dead-letter queue of the message's queue, which is in the same
// shard.
func (m *Machine) next(to string, own, redriven bool) (*Queue, string) {
	q := m.byName[to]
	if m.limits.Shards < 2 || own {
		return q, to
	}
	name := door.Outbox(to, redriven)
	box := m.byName[name]
	if q != nil && (box == nil || box.empty()) {
		return q, to
	}
	return box, name // also if the queue is here by now: earlier messages are still in the outbox
}

// empty tells whether the queue has no message.
func (q *Queue) empty() bool { return q.waiting+q.delayedN+q.leased+q.damagedN == 0 }

// nextDead returns the queue that gets the dead letters of q, as next does.
func (q *Queue) nextDead() (*Queue, string) {
	to := q.deadLetter()
	own := q.config.DeadLetter == "" || to == q.name || door.OwnDeadLetters(to) == q.name
	return q.m.next(to, own, false)
}

// made creates a queue for dead letters or an outbox.
func (m *Machine) made(name string) *Queue {
	c := deadLetterConfig(name)
	if door.Hidden(name) {
		c = m.outboxConfig(name)
	}
	m.emit(&Record{Kind: kindQueueSet, Queue: m.nextQueue, Name: name, Config: c})
	return m.byName[name]
}
