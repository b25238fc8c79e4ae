package broker

import (
	"cmp"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/commitlog"
	"github.com/surgetank/surgetank/internal/queue"
)

// The log finds damage by itself, before a reader needs the damaged data. The broker reacts like
// this:
//
//	a snapshot                          takes a new one at once: the state is in memory
//	an entry after the newest snapshot  the same, so that a start does not need the entry any more
//	an entry with messages              writes messages that memory or the page cache still has again, at the log's end;
//	                                    the others are known to be damaged from now on
//	anything else                       nothing; the log has reported it
//
// If the disk failed to read an entry, the broker does not react, because the error can be passing.
// The entry's readers will read it again.

// LogHooks are functions that a log calls, on any goroutine of its own. They do not block.
type LogHooks struct {
	// Full reports that the log has no room for messages, or has room again.
	Full func(bool)
	// Damage reports data on the disk that differs from what was written.
	Damage func(commitlog.Damage)
}

// harm is the damage that the log has reported. Only the loop uses the fields after told.
type harm struct {
	any  atomic.Bool // told is not empty
	mu   sync.Mutex
	told []commitlog.Damage

	renew   bool   // a snapshot must be stored at once
	upTo    uint64 // the entry that the snapshot must cover
	retry   int64  // the loop's time before which the snapshot is not tried again
	entries []entries
	looking bool // a search for messages in damaged entries is under way
}

// entries is a range of entries.
type entries struct{ first, last uint64 }

const (
	// retryRenew is the time between two tries to store a snapshot after damage.
	retryRenew = time.Minute
	// harmBatch is how many messages of damaged entries are read between two turns.
	harmBatch = 1024
)

// onDamage is called by the log, on any goroutine.
func (b *core) onDamage(d commitlog.Damage) {
	b.harm.mu.Lock()
	b.harm.told = append(b.harm.told, d)
	b.harm.mu.Unlock()
	b.harm.any.Store(true)
	b.mailbox.nudge()
}

// takeDamage handles the damage that the log reported.
func (b *core) takeDamage() {
	h := &b.harm
	if !h.any.Swap(false) {
		return
	}
	h.mu.Lock()
	told := h.told
	h.told = nil
	h.mu.Unlock()
	for i := range told {
		switch d := &told[i]; d.Kind {
		case commitlog.DamagedSnapshot:
			b.damagedSnapshot(d)
		case commitlog.DamagedEntry:
			b.damagedEntries(d)
		}
	}
	b.maintain()
	b.lookForHarmed()
}

// damagedSnapshot requests a new snapshot. If the newest snapshot is damaged, the log must keep all
// entries after the older one, so the next snapshot frees nothing. If the older snapshot is damaged
// and the newest covers everything, a new snapshot would be a copy of the newest. In that case the
// next regular snapshot replaces the damaged one.
func (b *core) damagedSnapshot(d *commitlog.Damage) {
	if at, ok := b.places.offset(b.older); ok && at == d.First {
		b.older = 0
	} else if b.older == b.number {
		return
	}
	b.renewSnapshot(0, d)
}

// damagedEntries requests a new snapshot if an opening would read the entries. It remembers the
// entries, to search for their messages later.
func (b *core) damagedEntries(d *commitlog.Damage) {
	first, ok := b.places.number(d.First)
	last, ok2 := b.places.number(d.Last)
	if !ok || !ok2 {
		return // the entries were trimmed, so no reader needs them
	}
	if last > b.older {
		b.renewSnapshot(last, d)
	}
	if !d.Unreadable {
		b.harm.entries = append(b.harm.entries, entries{first, last})
	}
}

// renewSnapshot requests a snapshot that covers an entry.
func (b *core) renewSnapshot(upTo uint64, d *commitlog.Damage) {
	if b.opts.Snapshots == nil {
		return
	}
	h := &b.harm
	if !h.renew {
		b.logger.Warn("the state is stored again, because data that a start reads is damaged", "file", d.File)
	}
	h.renew, h.upTo = true, max(h.upTo, upTo)
}

// snapshotDue reports whether damage requires a snapshot now.
func (h *harm) snapshotDue(b *core) bool {
	return h.renew && (h.retry == 0 || b.now() >= h.retry)
}

// snapshotDone handles the outcome of a snapshot up to an entry.
func (h *harm) snapshotDone(b *core, number uint64, err error) {
	switch {
	case !h.renew:
	case err != nil:
		h.retry = b.now() + int64(retryRenew)
	case number >= h.upTo:
		h.renew, h.upTo, h.retry = false, 0, 0
		b.logger.Info("the state was stored again; a start no longer reads the damaged data", "entry", number)
	}
}

// lookForHarmed starts a search for the messages in damaged entries, one search at a time.
func (b *core) lookForHarmed() {
	h := &b.harm
	if h.looking || len(h.entries) == 0 {
		return
	}
	h.looking = true
	wanted := h.entries
	h.entries = nil
	c := &queue.Survivors{First: wanted[0].first}
	for _, e := range wanted {
		c.First, c.End = min(c.First, e.first), max(c.End, e.last+1)
	}
	b.scanHarmed(c, wanted)
}

// scanHarmed asks the machine for messages, a part of the queues at a time. It collects the
// messages whose bodies are in the wanted entries.
func (b *core) scanHarmed(c *queue.Survivors, wanted []entries) {
	b.internal(c, func(err error) {
		if err != nil {
			return // the broker is closed
		}
		c.Found = slices.DeleteFunc(c.Found, func(v queue.Survivor) bool {
			n := v.Ref.Entry()
			return !slices.ContainsFunc(wanted, func(e entries) bool { return e.first <= n && n <= e.last })
		})
		if !c.Done {
			b.scanHarmed(c, wanted)
			return
		}
		slices.SortStableFunc(c.Found, func(x, y queue.Survivor) int { return cmp.Compare(x.Ref, y.Ref) })
		s := &harmed{b: b, r: entryReader{b: b}, found: c.Found}
		b.exec.background(s.save)
	})
}

// harmed is one search for messages in damaged entries. save runs in the background.
type harmed struct {
	b             *core
	r             entryReader
	found         []queue.Survivor
	bad           uint64 // the last entry that could not be read
	cause         error
	marked, again int
}

// save reads some messages. A message that is still in memory or in the page cache is written
// again. A message that cannot be read is marked as damaged.
func (s *harmed) save() {
	b := s.b
	c := &queue.Relocate{}
	for n, bytes := 0, 0; len(s.found) > 0 && n < harmBatch && bytes < moveBytes; n++ {
		v := s.found[0]
		s.found = s.found[1:]
		err := s.readable(v.Ref.Entry())
		switch {
		case err == nil:
			m, err := s.r.survivor(&v)
			if err != nil {
				continue // the message was moved, or its history cannot be read; its next reader will report the damage
			}
			c.Items = append(c.Items, m)
			bytes += len(m.Message.Body) + 256
		case !b.alive() || surgetank.CodeOf(err) == surgetank.CodeClosed:
			return
		case !errors.Is(err, commitlog.ErrTrimmed) && retryAfter(err) == 0:
			s.marked++
			b.internal(&queue.Quarantine{ID: surgetank.MessageID{Queue: v.Queue, Seq: v.Seq}, What: err.Error()}, func(error) {})
		}
	}
	b.internal(c, func(err error) {
		s.again += c.Moved
		switch {
		case err != nil:
		case len(s.found) > 0:
			b.exec.background(s.save)
		default:
			if s.marked+s.again > 0 {
				b.logger.Warn("looked for messages in damaged entries: those that memory still had were written again, the others are listed as damaged from now on (queue peek --state damaged)",
					"written_again", s.again, "damaged", s.marked)
			}
			b.harm.looking = false
			b.lookForHarmed()
		}
	})
}

// readable returns an error if an entry cannot be read. It reads a damaged entry only once for all
// its messages.
func (s *harmed) readable(entry uint64) error {
	if s.cause != nil && s.bad == entry {
		return s.cause
	}
	_, err := s.r.load(entry)
	s.bad, s.cause = entry, err
	return err
}
