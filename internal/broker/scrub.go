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

// What the broker does about damage that the log finds by itself, before anybody needs what is
// damaged:
//
//	a snapshot                          a new one is taken at once: the state is in memory
//	an entry behind the newest snapshot the same, so that a start does not need the entry any more
//	an entry with messages              those that memory or the page cache still has are written again at the log's end; the others are
//	                                    known to be damaged from now on, as if somebody had tried to read them
//	all else                            nothing; the log has said it
//
// An entry that the disk does not give, but has not given wrong either, is left to whoever reads
// it: that may pass.

// LogHooks are what a log is to call, on any goroutine of its own. They do not block.
type LogHooks struct {
	// Full is told when the log runs out of room for messages, and when it has room again.
	Full func(bool)
	// Damage is told of what lies on the disk and is not what was written.
	Damage func(commitlog.Damage)
}

// harm is what the log has told. All but told is the loop's.
type harm struct {
	any  atomic.Bool // told is not empty
	mu   sync.Mutex
	told []commitlog.Damage

	renew   bool   // a snapshot is to be taken at once
	upTo    uint64 // the entry that it has to cover
	retry   int64  // the loop's time before which a try that failed is not repeated
	entries []entries
	looking bool // for messages in damaged entries
}

// entries is a range of them.
type entries struct{ first, last uint64 }

const (
	// retryRenew is how long after a snapshot could not be stored another one is tried.
	retryRenew = time.Minute
	// harmBatch is how many messages of damaged entries are looked at between two turns.
	harmBatch = 1024
)

// onDamage is called by the log, on any goroutine.
func (b *Broker) onDamage(d commitlog.Damage) {
	b.harm.mu.Lock()
	b.harm.told = append(b.harm.told, d)
	b.harm.mu.Unlock()
	b.harm.any.Store(true)
	b.mailbox.nudge()
}

// takeDamage takes in what the log has told.
func (b *Broker) takeDamage() {
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

// damagedSnapshot has the state stored anew. If it is the newest one that is damaged, the log must
// keep what the older one needs: the next snapshot frees nothing. Where it is the older one, and
// the newest has all there is, another one would be the same once more: the next one that is due
// takes the place of the damaged one.
func (b *Broker) damagedSnapshot(d *commitlog.Damage) {
	if at, ok := b.places.offset(b.older); ok && at == d.First {
		b.older = 0
	} else if b.older == b.number {
		return
	}
	b.renewSnapshot(0, d)
}

// damagedEntries has the state stored anew if it rests on them, and remembers them for a look at
// their messages.
func (b *Broker) damagedEntries(d *commitlog.Damage) {
	first, ok := b.places.number(d.First)
	last, ok2 := b.places.number(d.Last)
	if !ok || !ok2 {
		return // nobody can read them any more
	}
	if last > b.older {
		b.renewSnapshot(last, d)
	}
	if !d.Unreadable {
		b.harm.entries = append(b.harm.entries, entries{first, last})
	}
}

// renewSnapshot asks for a snapshot that covers an entry.
func (b *Broker) renewSnapshot(upTo uint64, d *commitlog.Damage) {
	if b.opts.Snapshots == nil {
		return
	}
	h := &b.harm
	if !h.renew {
		b.logger.Warn("the state is stored anew, because what a start would read is damaged", "file", d.File)
	}
	h.renew, h.upTo = true, max(h.upTo, upTo)
}

// snapshotDue tells whether damage asks for a snapshot now.
func (h *harm) snapshotDue(b *Broker) bool {
	return h.renew && (h.retry == 0 || b.now() >= h.retry)
}

// snapshotDone takes in the outcome of a snapshot up to an entry.
func (h *harm) snapshotDone(b *Broker, number uint64, err error) {
	switch {
	case !h.renew:
	case err != nil:
		h.retry = b.now() + int64(retryRenew)
	case number >= h.upTo:
		h.renew, h.upTo, h.retry = false, 0, 0
		b.logger.Info("the state was stored anew; a start does not read what was found damaged before", "entry", number)
	}
}

// lookForHarmed looks for the messages in damaged entries, one look at a time.
func (b *Broker) lookForHarmed() {
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

// scanHarmed asks the machine for messages, a part of its queues at a time, and keeps those whose
// bodies are in the wanted entries.
func (b *Broker) scanHarmed(c *queue.Survivors, wanted []entries) {
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
		s := &harmed{b: b, r: reader{b: b}, found: c.Found}
		b.background(s.save)
	})
}

// harmed is one look at messages of damaged entries. save runs beside the loop.
type harmed struct {
	b             *Broker
	r             reader
	found         []queue.Survivor
	bad           uint64 // the entry that could not be read last
	cause         error
	marked, again int
}

// save reads some messages. What can be read all the same, because the log has it in memory or the
// page cache is better than the disk, is written again; what cannot is marked.
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
				continue // moved, or its history is elsewhere and not to be had: whoever wants it finds out
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
			b.background(s.save)
		default:
			if s.marked+s.again > 0 {
				b.logger.Warn("looked for messages in damaged entries: those that memory still had were written again, the others are known as damaged from now on (queue peek --state damaged)",
					"written_again", s.again, "damaged", s.marked)
			}
			b.harm.looking = false
			b.lookForHarmed()
		}
	})
}

// readable reads an entry, a damaged one once for all of its messages.
func (s *harmed) readable(entry uint64) error {
	if s.cause != nil && s.bad == entry {
		return s.cause
	}
	_, err := s.r.load(entry)
	s.bad, s.cause = entry, err
	return err
}
