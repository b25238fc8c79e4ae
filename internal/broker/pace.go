package broker

import (
	"math"
	"time"

	"github.com/surgetank/surgetank/internal/commitlog"
)

// maxFull is the most entries in flight for a log without a pace of its own. More than one is in
// flight only while more commands wait than fit into one entry, because syncing them together is
// cheaper. Otherwise such a log writes one entry at a time: a second entry would contain only a few
// commands, and its sync would delay all later commands.
const maxFull = 8

// pacing decides when the log gets the next entry. A log without a pace gets it when all earlier
// entries are durable, or at once if commands wait that the entry before had no room for. A log
// with a pace gets the next entry while others are in flight, too: when enough commands wait for a
// full entry, or when Pace.Gather has passed since the entry before.
type pacing struct {
	commitlog.Pace
	sizes []int // bytes of the entries in flight, oldest first
	bytes int64 // their sum
	last  int64 // the loop's time of the newest entry
}

func (p *pacing) set(pace commitlog.Pace, turnBytes int64) {
	p.Pace = pace
	if p.Entries <= 1 {
		p.Pace = commitlog.Pace{Entries: maxFull}
	}
	if p.Bytes <= 0 {
		p.Bytes = math.MaxInt64
	}
	if p.EntryBytes <= 0 || p.EntryBytes > turnBytes {
		p.EntryBytes = turnBytes
	}
}

// appended records an entry that the log gets.
func (p *pacing) appended(bytes int) {
	p.sizes = append(p.sizes, bytes)
	p.bytes += int64(bytes)
}

// answered records that the oldest entry in flight is durable.
func (p *pacing) answered() {
	if len(p.sizes) > 0 {
		p.bytes -= int64(p.sizes[0])
		p.sizes = p.sizes[1:]
	}
}

// mostHeld returns how many entries may be held. They go to the log together.
func (p *pacing) mostHeld() int {
	if p.Gather > 0 {
		return min(holdMax, p.Entries)
	}
	return holdMax
}

// crowded reports whether no further turn may run until an entry is durable or, with a Gather, until
// the time of gathered.
func (b *core) crowded() bool { return b.busy() || b.gathering() }

// busy reports whether the log must finish an entry before it gets another one.
func (b *core) busy() bool {
	p := &b.pacing
	n := len(p.sizes)
	return n >= p.Entries || p.bytes >= p.Bytes || n > 0 && p.Gather <= 0 && b.idle(b.now())
}

// gathering reports whether commands still gather for the next entry.
func (b *core) gathering() bool {
	p := &b.pacing
	if p.Gather <= 0 || len(p.sizes)+len(b.held.entries) == 0 {
		return false
	}
	now := b.now()
	return b.idle(now) && now < b.gathered() && b.mailbox.weight() < p.EntryBytes
}

// gathered returns the loop's time at which the next entry need not be full.
func (b *core) gathered() int64 { return b.pacing.last + int64(b.pacing.Gather) }

// idle reports whether no command that was removed from the mailbox can run now.
func (b *core) idle(now int64) bool {
	return len(b.front) == 0 && (len(b.pending) == 0 || b.machine.Held() > now)
}

// untilDue returns the time until step must be called without a new command or answer.
func (b *core) untilDue() time.Duration {
	at := b.reclaim.next
	if b.number != b.reclaim.seen {
		at = min(at, b.reclaim.last+int64(lookEvery))
	}
	switch {
	case b.busy(): // the next durable entry wakes the loop
	case b.gathering():
		due := b.due()
		if b.mailbox.waits(len(b.pending) == 0) {
			due = 0
		}
		at = min(at, max(due, b.gathered()))
	default:
		at = min(at, b.due())
	}
	at = min(at, b.digest.Due())
	return max(0, min(time.Duration(at-b.now()), time.Hour))
}

// due returns the loop's time at which the machine or the held entries need a turn.
func (b *core) due() int64 {
	if b.machine.Sweeping() {
		return 0
	}
	at := b.machine.NextDeadline()
	if held := b.machine.Held(); held > 0 && len(b.pending) > 0 {
		at = min(at, held)
	}
	if len(b.held.entries) > 0 {
		at = min(at, b.held.until)
	}
	return at
}
