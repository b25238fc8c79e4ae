package broker

import (
	"time"

	"github.com/surgetank/surgetank/internal/commitlog"
	"github.com/surgetank/surgetank/internal/failpoint"
)

// held are the newest entries, which nobody waits for and the log does not have yet. They go to it
// before the next entry that somebody waits for, or when their time is up, so that an ack without
// an answer rarely costs a sync of its own. What is decided behind them is parked behind them like
// behind any entry: holding back changes when they become durable, and nothing else.
type held struct {
	entries []heldEntry
	bytes   int
	until   int64 // the loop's time at which the first of them must go
}

type heldEntry struct {
	number uint64
	data   []byte
}

const (
	// defaultHold is how long an entry that nobody waits for may be held.
	defaultHold = 5 * time.Millisecond
	// holdMax and holdBytes bound what is held.
	holdMax   = 64
	holdBytes = 64 << 10
)

func (h *held) add(number uint64, data []byte, now int64, hold time.Duration) {
	if len(h.entries) == 0 {
		h.until = now + int64(hold)
	}
	h.entries = append(h.entries, heldEntry{number, data})
	h.bytes += len(data)
}

func (h *held) full() bool { return len(h.entries) >= holdMax || h.bytes >= holdBytes }

// quiet says that nobody waits for any of a turn's outputs.
func (f *flight) quiet() bool {
	if len(f.outs) > 0 || len(f.ended) > 0 {
		return false
	}
	for _, o := range f.ops {
		if !o.quiet {
			return false
		}
	}
	return true
}

// heldDue sends held entries to the log when their time is up, or the broker closes, and tells
// whether it did.
func (b *Broker) heldDue(now int64) bool {
	if len(b.held.entries) == 0 || now < b.held.until && !b.mailbox.closing() {
		return false
	}
	b.appendHeld(now)
	return true
}

// appendHeld gives the log all that is held.
func (b *Broker) appendHeld(now int64) {
	for _, e := range b.held.entries {
		b.busyAt.CompareAndSwap(0, now)
		b.log.Append(e.data, func(at commitlog.Offset, err error) { b.tickets <- ticket{e.number, at, err} })
		failpoint.Reach(failpoint.TurnAppended)
	}
	clear(b.held.entries)
	b.held.entries, b.held.bytes = b.held.entries[:0], 0
}
