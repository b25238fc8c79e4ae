package broker

import (
	"time"

	"github.com/surgetank/surgetank/internal/commitlog"
)

// held contains the newest entries, for which no caller waits. They are appended to the log before
// the next entry for which a caller waits, or after the time Options.Hold. So an ack without an
// answer seldom costs a sync of its own. Later outputs are pending as after any entry: holding
// entries changes only when they become durable.
type held struct {
	entries []heldEntry
	bytes   int
	until   int64 // the loop's time at which the first entry must be appended
}

type heldEntry struct {
	number uint64
	data   []byte
}

const (
	// defaultHold is how long an entry may be held.
	defaultHold = 5 * time.Millisecond
	// holdMax and holdBytes limit the number and the bytes of held entries.
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

func (h *held) full(most int) bool { return len(h.entries) >= most || h.bytes >= holdBytes }

// quiet reports whether no caller waits for any of a turn's outputs.
func (f *flight) quiet() bool {
	if len(f.outs) > 0 || len(f.ended) > 0 || len(f.told) > 0 {
		return false
	}
	for _, o := range f.ops {
		if !o.quiet {
			return false
		}
	}
	return true
}

// heldDue appends the held entries to the log if their time has passed or the broker closes. It
// reports whether it did.
func (b *core) heldDue(now int64) bool {
	if len(b.held.entries) == 0 || now < b.held.until && !b.mailbox.closing() {
		return false
	}
	b.appendHeld(now)
	return true
}

// appendHeld appends all held entries to the log.
func (b *core) appendHeld(now int64) {
	for _, e := range b.held.entries {
		b.busyAt.CompareAndSwap(0, now)
		b.pacing.appended(len(e.data))
		b.log.Append(e.data, func(at commitlog.Offset, err error) { b.answered(ticket{e.number, at, err}) })
	}
	clear(b.held.entries)
	b.held.entries, b.held.bytes = b.held.entries[:0], 0
}
