package queue

import (
	"slices"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/door"
	"github.com/surgetank/surgetank/internal/settings"
)

// A queue that moves to another shard exists in both shards for a while:
//
//	old shard                                     new shard
//	─────────                                     ─────────
//	the queue works                   stage       an arriving queue with a hidden name
//	                                  copy        its messages, under their own numbers
//	frozen: nothing changes           compare     the differences
//	                                  unpack      dedup ids, publishers' numbers, origin
//	                                  arrive      the queue works                ← decides
//	depart: the queue is removed
//
// The record of "arrive" decides. Before it the old shard has the queue, and after it the new one.
// An arriving queue is a list of facts only: it has no lines, timers and consumers. Its slots are
// as during a recovery, and "arrive" builds the indexes as an opening does.

// raw tells whether the queue has no indexes now: during recovery, or because it is arriving.
func (q *Queue) raw() bool { return q.m.recovering || q.arriving }

// MoveStep is a step of a move. See door.MoveStep.
type MoveStep struct {
	*door.MoveStep
	Read []MoveRead // of MoveRead: the caller reads the bodies
	Err  error

	next int
}

// MoveRead is a message that leaves, without its body, and where to read it.
type MoveRead struct {
	Handout
	door.MoveCopied
}

func (c *MoveStep) run(m *Machine) bool {
	name := c.Queue
	if c.Op >= door.MoveStage {
		name = door.Arriving(name)
	}
	q := m.byName[name]
	switch {
	case c.Op == door.MoveStage:
		c.Err = c.stage(m, q, name)
		return true
	case c.Op == door.MoveUnstage:
		if q != nil {
			m.emit(&Record{Kind: kindQueueGone, Queue: q.id})
		}
		return true
	case c.Op == door.MoveArrive:
		c.Err = c.arrive(m)
		return true
	case q == nil:
		c.Err = noQueue(c.Queue)
		return true
	}
	if c.ID != 0 && q.id != c.ID {
		c.Err = surgetank.Errorf(surgetank.CodeNotFound, "the queue %q that was to move was deleted meanwhile", shown(c.Queue))
		return true
	}
	switch c.Op {
	case door.MoveHold:
		c.hold(m)
	case door.MoveOutline:
		c.outline(m, q)
	case door.MoveRead:
		c.read(q)
	case door.MoveFreeze:
		c.Err = c.freeze(m)
	case door.MoveThaw:
		c.thaw(m)
	case door.MovePack:
		c.pack(m, q)
	case door.MoveDepart:
		c.Err = c.depart(m)
	case door.MoveCompare:
		c.compare(m, q)
	case door.MoveCopy:
		return c.copy(m, q)
	case door.MoveUnpack:
		return c.unpack(m)
	default:
		c.Err = surgetank.FieldErrorf("op", "there is no step %d of a move", c.Op)
	}
	return true
}

// stage creates an empty arriving queue.
func (c *MoveStep) stage(m *Machine, q *Queue, name string) error {
	switch {
	case m.byName[c.Queue] != nil:
		return surgetank.Errorf(surgetank.CodeExists, "queue %q exists in this shard already", shown(c.Queue))
	case m.byID[c.ID] != nil && m.byID[c.ID] != q || c.ID == 0:
		return surgetank.Errorf(surgetank.CodeExists, "the number %d of queue %q belongs to another queue of this shard", c.ID, shown(c.Queue))
	case q == nil && len(m.byID) >= m.limits.MaxQueues:
		e := surgetank.Errorf(surgetank.CodeTooLarge, "there are %d queues in this shard, the most it is set to have; remove some", len(m.byID))
		e.Limit = surgetank.LimitQueues
		return e
	}
	if q != nil {
		m.emit(&Record{Kind: kindQueueGone, Queue: q.id})
	}
	m.emit(&Record{Kind: kindQueueSet, Queue: c.ID, Name: name, Config: settings.WithDefaults(c.Config)})
	return nil
}

// compare removes messages that the old shard does not have any more, and lists those to copy.
func (c *MoveStep) compare(m *Machine, q *Queue) {
	var surplus []uint64
	want := c.Outline
	c.Seqs = nil
	q.slots.ascend(c.From, func(seq uint64, s *slot) bool {
		if seq >= c.Last {
			return false
		}
		if !s.live() {
			return true
		}
		for len(want) > 0 && want[0].Seq < seq {
			c.Seqs, want = append(c.Seqs, want[0].Seq), want[1:]
		}
		switch {
		case len(want) == 0 || want[0].Seq > seq:
			surplus = append(surplus, seq)
		default:
			if q.stateHash(seq, s, q.due[seq], q.expiry[seq]) != want[0].Hash {
				c.Seqs = append(c.Seqs, seq)
			}
			want = want[1:]
		}
		return true
	})
	for _, x := range want {
		c.Seqs = append(c.Seqs, x.Seq)
	}
	for part := range slices.Chunk(surplus, 4096) {
		m.emit(&Record{Kind: kindRemoved, Queue: q.id, Reason: reasonPurged, Seqs: part})
	}
}

// copy stores messages with their state.
func (c *MoveStep) copy(m *Machine, q *Queue) bool {
	for first := true; c.next < len(c.Copies); first = false {
		if !first && m.turnFull() {
			return false
		}
		if c.Err = m.diskFull(q); c.Err != nil {
			return true
		}
		m.copyIn(q, &c.Copies[c.next])
		c.next++
	}
	return true
}

// copyIn stores one message of an arriving queue.
func (m *Machine) copyIn(q *Queue, x *door.MoveCopied) {
	r := &m.pub
	*r = Record{Kind: kindCopied, Time: m.now, Born: x.Time.UnixNano(), Priority: x.Message.Priority, BodySize: uint32(len(x.Message.Body)),
		Deaths: x.Deaths[:min(len(x.Deaths), MaxDeaths)], Redriven: x.Redriven, Attempts: uint32(x.Attempts), Detail: clipTo(x.Failure, maxFailure),
		Copied: copied{Since: x.Since, Due: x.Due, Priority: x.Priority, Redelivered: x.Redelivered, Late: x.Late}, Targets: r.Targets[:0]}
	if x.Message.Delay > 0 {
		r.NotBefore = r.Born + int64(x.Message.Delay) // for readers of the log
	}
	r.Targets = append(r.Targets, Target{Queue: q.id, Seq: x.Seq, Group: x.Message.Group, Expires: x.Expires})
	var position int
	m.out.Entry, position = appendMessage(m.out.Entry, r, &x.Message, r.Deaths)
	r.Ref = makeRef(m.entry, position)
	m.out.Records++
	m.apply(r)
	r.Deaths = nil
}

// unpack stores frames of the old shard. A frame that cannot be read is refused before it is
// logged.
func (c *MoveStep) unpack(m *Machine) bool {
	for first := true; c.next < len(c.Frames); first = false {
		if !first && m.turnFull() {
			return false
		}
		r := &Record{Kind: kindPart, Value: c.Frames[c.next]}
		if c.Err = m.checkPart(r.Value); c.Err != nil {
			return true
		}
		m.emit(r)
		c.next++
	}
	return true
}

// arrive turns arriving queues into queues.
func (c *MoveStep) arrive(m *Machine) error {
	all := make([]*Queue, len(c.Names))
	for i, name := range c.Names {
		if all[i] = m.byName[door.Arriving(name)]; all[i] == nil || i >= len(c.Configs) {
			return noQueue(name)
		}
		if m.byName[name] != nil {
			return surgetank.Errorf(surgetank.CodeExists, "queue %q exists in this shard already", shown(name))
		}
	}
	for i, q := range all {
		m.emit(&Record{Kind: kindQueueSet, Queue: q.id, Name: q.name, Config: settings.WithDefaults(c.Configs[i]), Pause: q.pauseNote()})
		m.emit(&Record{Kind: kindMovedIn, Queue: q.id, Name: c.Names[i]})
	}
	return nil
}
