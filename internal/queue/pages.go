package queue

import (
	"slices"

	"github.com/surgetank/surgetank"
)

// Pages: a command that looks at every message of a queue, or at every queue, does a part of its
// work in one turn and continues in a later one. So it does not keep other queues waiting. Such a
// command has a field Next, which is 0 at first and 0 again at the end. The sender sends the
// command again until Next is 0. The sender must queue the command after the other waiting
// commands, so that the other commands run in between.
//
// All commands of a turn share a budget of slots. Each command uses half of the rest, and at least
// a chunk. Ten such commands cost little more than one, and all of them make progress.
//
// Each message is reported as it was when the command looked at the message. The result is not a
// snapshot of one moment. Messages published after the command's first turn are ignored; otherwise
// the command might never end.

// The cost of looking at one thing. The unit is one slot that is only read.
const (
	costPeek   = 1
	costDrop   = 4  // a message that may have to be removed from lists, heaps and maps
	costQueue  = 32 // all statistics of a queue
	costRemain = 2  // a message of a deleted queue

	leastQueues = 16 // queues read in one turn at least, so that a short list is of one moment
)

// share returns how many things with this cost the command may look at now.
func (m *Machine) share(cost int) int {
	return max(1, max(m.scan/2, min(chunkSlots, m.limits.TurnScan))/cost)
}

// spend subtracts n things with this cost from the turn's budget.
func (m *Machine) spend(n, cost int) { m.scan = max(0, m.scan-n*cost) }

// remains is a deleted queue whose messages the extents of the log still count. Nothing changes the
// queue any more, so a snapshot that began before the deletion can continue to read the queue.
type remains struct {
	q    *Queue
	next uint64
}

// Sweeping tells whether the machine needs more turns to remove deleted queues, although no timer
// is due.
func (m *Machine) Sweeping() bool { return len(m.remains) > 0 || len(m.ending) > 0 }

// ending is a deleted queue that still has consumers, and the error that ends their subscriptions.
type ending struct {
	q   *Queue
	err error
}

// endGone ends subscriptions to deleted queues, as many as the turn allows.
func (m *Machine) endGone() {
	for len(m.ending) > 0 {
		e := &m.ending[0]
		for c := range e.q.consumers.all {
			if m.ends--; m.ends < 0 {
				return
			}
			m.end(c, e.err)
		}
		m.ending = slices.Delete(m.ending, 0, 1)
	}
}

// sweep removes at most n messages of deleted queues from the extents. Until a message is swept,
// the log keeps its entry; nothing else depends on the time of the sweep.
func (m *Machine) sweep(n int) (looked int) {
	for looked < n && len(m.remains) > 0 {
		r := &m.remains[0]
		next, more := r.q.slots.scan(r.next, n-looked, func(seq uint64, s *slot) bool {
			if !s.live() {
				return true
			}
			if s.state() != slotLost {
				m.extents.sub(s.ref(), int64(s.size)+messageCost)
			}
			if s.has(slotNoted) {
				for _, ref := range r.q.notes[seq].refs {
					m.extents.sub(ref, noteCost)
				}
			}
			return true
		})
		looked += more
		if r.next = next; next == 0 {
			m.remains = slices.Delete(m.remains, 0, 1)
		}
	}
	return looked
}

// Peek shows messages without leasing them. Send it again while Next is not 0. Each message is
// shown at most once, in the order of the numbers. All messages that are in the requested state
// from the first turn to the last are shown, up to Max.
type Peek struct {
	Queue string
	Opts  surgetank.PeekOptions
	Next  uint64 // where to continue; 0 at first, and at the end
	Found []Peeked
	Err   error

	queue, until uint64 // the queue of the first turn; messages above until are ignored
}

// Peeked is one message of a peek. The caller reads its body.
type Peeked struct {
	Handout
	State  surgetank.State
	Damage string // why the body cannot be read; empty: it can
	Time   int64  // when the message was confirmed or, if later, when its publisher's delay ends; whole seconds
	// Due is when a message that backs off is tried next, or when the window of a message with a
	// coalescing key ends; 0 for other messages.
	Due     int64
	Failure string // why the message was returned last; "" if not known
	Waits   string // why a blocked or ready message waits
}

func (c *Peek) run(m *Machine) bool {
	q := m.byName[c.Queue]
	if q == nil || c.Next != 0 && q.id != c.queue {
		c.Err, c.Next = noQueue(c.Queue), 0
		return true
	}
	if id := c.Opts.ID; id.Seq != 0 {
		if s := q.slots.get(id.Seq); s != nil && id.Queue == q.id && (id.Incarnation == 0 || id == q.idOf(id.Seq)) {
			c.look(q, id.Seq, s)
			c.dues(q, 0)
		}
		return true
	}
	shown := len(c.Found)
	if c.Next == 0 {
		c.queue, c.until, c.Next = q.id, q.nextSeq, max(c.Opts.After+1, q.Floor())
	}
	next, n := q.slots.scan(c.Next, m.share(costPeek), func(seq uint64, s *slot) bool {
		return seq < c.until && c.look(q, seq, s)
	})
	m.spend(n, costPeek)
	if c.Next = next; next >= c.until || len(c.Found) >= c.Opts.Max {
		c.Next = 0
	}
	c.dues(q, shown)
	return true
}

// look adds a message if its state is the requested one. It returns false if Found is full.
func (c *Peek) look(q *Queue, seq uint64, s *slot) bool {
	if len(c.Found) >= c.Opts.Max {
		return false
	}
	if !s.live() {
		return true
	}
	if st := q.stateOf(seq, s); c.Opts.State == "" || c.Opts.State == st {
		p := Peeked{Handout: Handout{Queue: q, ID: q.idOf(seq), Seq: seq, Ref: s.ref(), Group: q.groupName(s.flow), Size: s.size, Attempt: int(s.attempts),
			Redelivered: s.has(slotRedelivered)}, State: st, Damage: q.damageOf(seq, s), Time: s.nanos(), Failure: q.failureOf(seq)}
		if st == surgetank.StateBlocked || st == surgetank.StateReady {
			p.Waits = q.waits(seq)
		}
		if k := q.slots.key(seq); k != nil && st == surgetank.StateDelayed && !s.has(slotRedelivered) {
			p.Due = k.due
		}
		if s.has(slotNoted) {
			p.Notes = slices.Clone(q.notes[seq].refs)
		}
		c.Found = append(c.Found, p)
	}
	return true
}

// Purge drops all messages that are not leased. Send it again while Next is not 0. At the end,
// every message is dropped that existed at the first turn and was not leased in between. If one
// turn is enough, the purge is one record.
type Purge struct {
	Name   string
	Next   uint64 // where to continue; 0 at first, and at the end
	Purged int64
	Err    error

	Last         Purged // the work of the last turn; the simulator reads it
	queue, until uint64
}

// Purged is one turn of a purge. Dropped is the number of dropped messages: those from From to
// below Below that were not leased.
type Purged struct {
	From, Below uint64
	Dropped     int64
}

func (c *Purge) run(m *Machine) bool {
	q := m.byName[c.Name]
	first := c.Next == 0
	switch {
	case first && q == nil:
		c.Err = noQueue(c.Name)
		return true
	case q != nil && q.frozen:
		c.Err, c.Next = q.movingError(), 0
		return true
	case first:
		c.queue, c.until, c.Next = q.id, q.nextSeq, q.Floor()
	case q == nil || q.id != c.queue:
		c.Next, c.Last = 0, Purged{} // the queue was deleted with all its messages
		return true
	}
	var seqs, kept []uint64
	next, n := q.slots.scan(c.Next, m.share(costDrop), func(seq uint64, s *slot) bool {
		switch {
		case seq >= c.until:
			return false
		case !s.live():
		case s.state() == slotLeased:
			kept = append(kept, seq)
		default:
			seqs = append(seqs, seq)
		}
		return true
	})
	m.spend(n, costDrop)
	if next >= c.until {
		next = 0
	}
	c.Last = Purged{c.Next, next, int64(len(seqs))}
	if c.Next = next; next == 0 {
		c.Last.Below = c.until
	}
	c.Purged += c.Last.Dropped
	switch {
	case len(seqs) == 0:
	case first && next == 0:
		m.emit(&Record{Kind: kindPurged, Queue: q.id, Below: c.until, Seqs: kept})
	default:
		m.emit(&Record{Kind: kindRemoved, Queue: q.id, Reason: reasonPurged, Seqs: seqs})
	}
	return true
}

// DropDamaged drops the messages of a queue that are known to be damaged, at the operator's
// request. Their groups continue. Send it again while Next is not 0.
type DropDamaged struct {
	Name    string
	Next    uint64 // where to continue; 0 at first, and at the end
	Dropped int64
	Err     error

	queue, until uint64
}

func (c *DropDamaged) run(m *Machine) bool {
	q := m.byName[c.Name]
	first := c.Next == 0
	switch {
	case first && q == nil:
		c.Err = noQueue(c.Name)
		return true
	case q != nil && q.frozen:
		c.Err, c.Next = q.movingError(), 0
		return true
	case first:
		c.queue, c.until, c.Next = q.id, q.nextSeq, q.Floor()
	case q == nil || q.id != c.queue:
		c.Next = 0
		return true
	}
	var seqs []uint64
	next, n := q.slots.scan(c.Next, m.share(costDrop), func(seq uint64, s *slot) bool {
		if seq >= c.until {
			return false
		}
		if st := s.state(); st == slotHeld || st == slotLost || s.live() && q.suspect[seq] != nil {
			seqs = append(seqs, seq)
		}
		return true
	})
	m.spend(n, costDrop)
	if c.Next = next; next >= c.until {
		c.Next = 0
	}
	if len(seqs) > 0 {
		c.Dropped += int64(len(seqs))
		q.stats.dropped += uint64(len(seqs))
		m.emit(&Record{Kind: kindRemoved, Queue: q.id, Reason: reasonDamaged, Seqs: seqs})
	}
	return true
}

// Info reads settings and statistics of one queue. With an empty name it reads all queues: send it
// again while Next is not 0.
type Info struct {
	Name  string
	Next  uint64                // the queue to continue with; 0 at first, and at the end
	Infos []surgetank.QueueInfo // only the queues of the last turn, because copying all earlier ones would make turns long
	Err   error

	until uint64 // queues created later are left out
}

func (c *Info) run(m *Machine) bool {
	if c.Name != "" {
		if q := m.byName[c.Name]; q != nil {
			c.Infos = []surgetank.QueueInfo{q.info()}
		} else {
			c.Err = noQueue(c.Name)
		}
		return true
	}
	if c.Next == 0 {
		c.until = m.nextQueue
	}
	rest := m.from(c.Next)
	n := min(len(rest), max(leastQueues, m.share(costQueue)))
	m.spend(n, costQueue)
	c.Infos = make([]surgetank.QueueInfo, 0, n)
	for _, q := range rest[:n] {
		if !m.newer(q.id, c.until) {
			c.Infos = append(c.Infos, q.info())
		}
	}
	if c.Next = 0; n < len(rest) && c.older(m, rest[n:]) {
		c.Next = rest[n].id
	}
	return true
}

// newer tells whether a queue was created when the next number was until, or later. A queue that
// came from another shard is not newer.
func (m *Machine) newer(id, until uint64) bool {
	return id >= until && id>>surgetank.ShardBits == m.nextQueue>>surgetank.ShardBits
}

// older tells whether a list has a queue that the command has to read.
func (c *Info) older(m *Machine, rest []*Queue) bool {
	return !m.newer(rest[0].id, c.until) || m.newer(rest[0].id, c.until) && !m.newer(rest[len(rest)-1].id, c.until)
}
