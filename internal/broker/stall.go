package broker

import "time"

// A disk that hangs gives no error: the loop waits, callers wait, and from outside all looks well. So the loop notes since
// when the log has owed it an answer, for whoever says whether the server is ready.

// owes notes that the log got work, if it had none. The loop calls it before an entry is appended.
func (b *Broker) owes() {
	if b.number == b.durable {
		t := b.clock.Now()
		b.owed.Store(&t)
	}
}

// answered notes that the log made progress. The loop calls it after an entry became durable.
func (b *Broker) answered() {
	if b.number == b.durable {
		b.owed.Store(nil)
		return
	}
	t := b.clock.Now()
	b.owed.Store(&t)
}

// Stalled tells how long the log has had entries to store without storing one; 0 when it has none. On a healthy disk
// that is the time of one write and sync, some milliseconds.
func (b *Broker) Stalled() time.Duration {
	if since := b.owed.Load(); since != nil {
		return max(0, b.clock.Now().Sub(*since))
	}
	return 0
}
