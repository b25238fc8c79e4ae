package queue

import (
	"slices"

	"github.com/surgetank/surgetank"
)

// Pages: what looks at every message of a queue, or at every queue, does a part of it in one turn
// and goes on in a later one, so that no other queue waits for it. Such a command has a field Next:
// 0 at first, and 0 again when it is done; until then whoever sent it sends it again. It must go to
// the end of the line for that, not stay at its head: what came meanwhile is served in between.
//
// A turn has a budget of slots for all its commands. Each takes half of what is left, and never
// less than a chunk: a crowd of such commands takes hardly more than one of them, and all of them
// get on.
//
// What a command finds is true for each message at the moment it was looked at, not for all at one
// moment. Messages that came after the command's first turn are left alone: otherwise it might
// never end.

// What looking at one thing costs, in slots that are only read.
const (
	costPeek   = 1
	costDrop   = 4  // a message that may have to go from lists, heaps and maps
	costQueue  = 32 // all figures of a queue
	costRemain = 2  // a message of a queue that is gone

	leastQueues = 16 // whose figures are read in one turn, so that few queues are read as of one moment
)

// share gives how many things of a cost may be looked at now.
func (m *Machine) share(cost int) int {
	return max(1, max(m.scan/2, min(chunkSlots, m.limits.TurnScan))/cost)
}

// spend takes what was looked at off the turn's budget.
func (m *Machine) spend(n, cost int) { m.scan = max(0, m.scan-n*cost) }

// remains is a queue that is gone, whose messages the extents of the log still count. Nothing
// changes it any more, so a snapshot that began before can go on reading it.
type remains struct {
	q    *Queue
	next uint64
}

// Sweeping says that queues which are gone are not all accounted for, so that turns have work
// though nothing is due.
func (m *Machine) Sweeping() bool { return len(m.remains) > 0 || len(m.ending) > 0 }

// ending is a queue that is gone and still has consumers, and why their subscriptions end.
type ending struct {
	q   *Queue
	err error
}

// endGone ends subscriptions of queues that are gone, as many as the turn allows.
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

// sweep takes messages of queues that are gone off the extents, at most n; what is not swept yet
// only keeps the log longer.
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

// Peek shows messages without leasing them. Give it again while Next is not 0: each message is
// shown at most once, in the order of their numbers, and those that were in the state asked for
// from the first turn to the last are shown, as far as Max goes.
type Peek struct {
	Queue string
	Opts  surgetank.PeekOptions
	Next  uint64 // where to go on; 0 at first, and when done
	Found []Peeked
	Err   error

	queue, until uint64 // the queue of the first turn; messages that came later are not looked at
}

// Peeked is one message of a peek; its body is read by the caller.
type Peeked struct {
	Handout
	State  surgetank.State
	Damage string // not empty: the body cannot be read, and this is why
	Time   int64  // when it was confirmed or, if later, its publisher's delay ends, to the second
	// Due is when a message is tried next that backs off; 0: it does not.
	Due     int64
	Failure string // why it came back last; "" if nobody said
	Waits   string // of a blocked message: what it waits for
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

// look takes a message if it is asked for; false: there is no room for more.
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
		if st == surgetank.StateBlocked {
			p.Waits = q.waitsFor(s.flow)
		}
		if s.has(slotNoted) {
			p.Notes = slices.Clone(q.notes[seq].refs)
		}
		c.Found = append(c.Found, p)
	}
	return true
}

// Purge drops what is not leased. Give it again while Next is not 0: when it is done, every message
// that was there at its first turn and that nobody held in between is dropped. A queue that fits
// one turn is purged by one fact.
type Purge struct {
	Name   string
	Next   uint64 // where to go on; 0 at first, and when done
	Purged int64
	Err    error

	Last         Purged // what the last turn did, for whoever follows the machine
	queue, until uint64
}

// Purged is one turn of a purge: the messages from one number to below another that were not
// leased, and how many they were.
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
	case first:
		c.queue, c.until, c.Next = q.id, q.nextSeq, q.Floor()
	case q == nil || q.id != c.queue:
		c.Next, c.Last = 0, Purged{} // it was deleted, and all that was left with it
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

// DropDamaged drops the messages of a queue that are known to be damaged, by the operator's choice.
// Their groups go on. Give it again while Next is not 0.
type DropDamaged struct {
	Name    string
	Next    uint64 // where to go on; 0 at first, and when done
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

// Info reads settings and figures of one queue, or with an empty name of all: then give it again
// while Next is not 0.
type Info struct {
	Name  string
	Next  uint64                // the queue to go on with; 0 at first, and when done
	Infos []surgetank.QueueInfo // of the last turn: to copy those before would take longer than the turn
	Err   error

	until uint64 // queues that are made later are left out
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
		if q.id < c.until {
			c.Infos = append(c.Infos, q.info())
		}
	}
	if c.Next = 0; n < len(rest) && rest[n].id < c.until {
		c.Next = rest[n].id
	}
	return true
}
