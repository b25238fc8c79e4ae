package queue

import (
	"slices"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/breaker"
	"github.com/surgetank/surgetank/internal/door"
	"github.com/surgetank/surgetank/internal/fullname"
	"github.com/surgetank/surgetank/internal/settings"
)

// Declare creates a queue or changes its settings.
type Declare struct {
	Name    string
	Config  surgetank.QueueConfig
	Mode    surgetank.DeclareMode
	By      string // name of the user; "" if there is none
	Info    surgetank.QueueInfo
	Created bool
	Err     error
}

func (c *Declare) run(m *Machine) bool {
	hidden := m.limits.Shards > 1 && door.Hidden(c.Name)
	if c.Err = fullname.Validate(c.Name); c.Err != nil && !hidden {
		return true
	}
	if hidden {
		c.Config = m.outboxConfig(c.Name)
	}
	if c.Err = settings.Validate(c.Config); c.Err != nil && !hidden {
		return true
	}
	// A policy can set the TTL of many queues at once. Some of these queues can be dead-letter
	// queues that keep their own messages, so an update is not checked.
	if c.Mode != surgetank.DeclareUpdate {
		if c.Err = refuseCircle(c.Name, &c.Config); c.Err != nil {
			return true
		}
	}
	q := m.byName[c.Name]
	if q != nil && q.frozen {
		c.Err = q.movingError()
		return true
	}
	config := settings.WithDefaults(c.Config)
	switch {
	case q == nil && c.Config.Shard > m.limits.Shards:
		c.Err = surgetank.FieldErrorf("shard", "there is no shard %d; this broker has %d", c.Config.Shard, m.limits.Shards)
		return true
	case q == nil && c.Mode == surgetank.DeclareUpdate:
		c.Err = noQueue(c.Name)
		return true
	case q != nil && c.Mode == surgetank.DeclareNew:
		c.Err = surgetank.Errorf(surgetank.CodeExists, "queue %q exists already", shown(c.Name))
		return true
	case q == nil && len(m.byID) >= m.limits.MaxQueues:
		e := surgetank.Errorf(surgetank.CodeTooLarge, "there are %d queues, the most this broker is set to have; remove some", len(m.byID))
		e.Limit = surgetank.LimitQueues
		c.Err = e
		return true
	case q == nil || c.Mode != surgetank.DeclareIfAbsent && !settings.Equal(q.config, config):
		r := Record{Kind: kindQueueSet, Queue: m.nextQueue, Name: c.Name, Config: config, Pause: m.notePause(q, config.Paused, c.By)}
		if q != nil {
			r.Queue = q.id
		}
		c.Created = q == nil
		m.emit(&r)
		q = m.byName[c.Name]
	}
	c.Info = q.info()
	return true
}

// Delete removes a queue.
type Delete struct {
	Name    string
	Opts    surgetank.DeleteOptions
	Removed int64
	Err     error
}

func (c *Delete) run(m *Machine) bool {
	q := m.byName[c.Name]
	switch {
	case q == nil:
		c.Err = noQueue(c.Name)
	case q.frozen:
		c.Err = q.movingError()
	case c.Opts.IfUnused && q.consumers.n > 0:
		c.Err = surgetank.Errorf(surgetank.CodeExists, "queue %q is in use: it has %d consumers", shown(c.Name), q.consumers.n)
	case c.Opts.IfEmpty && q.waiting+q.delayedN+q.damagedN > 0:
		c.Err = surgetank.Errorf(surgetank.CodeExists, "queue %q is not empty: it holds %d messages", shown(c.Name), q.waiting+q.delayedN+q.damagedN)
	default:
		c.Removed = q.waiting + q.delayedN + q.damagedN
		for _, seq := range slices.Sorted(leased(q)) {
			q.endLease(seq, leaseEnd{outcome: breaker.Returned})
		}
		m.emit(&Record{Kind: kindQueueGone, Queue: q.id})
		m.ending = append(m.ending, ending{q, surgetank.Errorf(surgetank.CodeNotFound, "queue %q was deleted", shown(c.Name))})
		m.endGone()
	}
	return true
}

func leased(q *Queue) func(yield func(uint64) bool) {
	return func(yield func(uint64) bool) {
		// unordered: both callers sort
		for seq := range q.leases {
			if !yield(seq) {
				return
			}
		}
	}
}

func (q *Queue) info() surgetank.QueueInfo {
	st := &q.stats
	i := surgetank.QueueInfo{
		Name: q.name, ID: q.id, Config: q.config, Created: time.Unix(0, q.created).UTC(),
		Ready: q.ready_, Blocked: q.waiting - q.ready_ - q.backsN, Delayed: q.delayedN + q.backsN, Leased: q.leased, Damaged: q.damagedN, Bytes: q.bytes,
		Groups: int64(len(q.byGroup) - q.unnamed), Consumers: int64(q.consumers.n),
		Published: st.published, Duplicates: st.duplicates, Refused: st.refused, Delivered: st.delivered, Acked: st.acked,
		Nacked: st.nacked, Expired: st.expired, DeadLettered: st.deadLettered, Dropped: st.dropped, Circled: st.circled, LeasesLost: st.leasesLost, Coalesced: st.coalesced,
		Refusals: q.refusals(), Waiting: q.whyQueue().text(), OldestAge: q.oldestAge(), Level: q.levelInfo(),
	}
	*door.QueueFloor(&i) = q.Floor()
	if q.config.Paused {
		i.PausedBy, i.PausedAt = q.pausedBy, timeAt(q.pausedAt)
	}
	q.backOffInfo(&i)
	q.rateInfo(&i)
	return i
}

// stateOf returns a message's state in the terms of the API.
func (q *Queue) stateOf(seq uint64, s *slot) surgetank.State {
	if q.suspect[seq] != nil {
		return surgetank.StateDamaged // although the message's line still counts it
	}
	switch s.state() {
	case slotHeld, slotLost:
		return surgetank.StateDamaged
	case slotLeased:
		return surgetank.StateLeased
	case slotDelayed:
		return surgetank.StateDelayed
	}
	if q.backsOff(seq) {
		return surgetank.StateDelayed
	}
	if s.state() == slotBehind {
		return surgetank.StateBlocked
	}
	f := &q.flows[s.flow]
	if f.open == f.waiting-f.backs || f.open > 0 && q.firstOf(s.flow) == seq {
		return surgetank.StateReady
	}
	return surgetank.StateBlocked
}

// Redrive moves messages to another queue, as many as the turn allows. Send it again while Next is
// not 0.
type Redrive struct {
	From   string
	Opts   surgetank.RedriveOptions
	Next   uint64 // where to continue; 0 at first, and at the end
	Result surgetank.RedriveResult
	Err    error

	// Elsewhere reports whether a queue exists in another shard; nil: there are no other shards.
	Elsewhere func(queue string) bool
	// Waits is set if the next message waits for room in an outbox. With Skip, the message counts
	// as skipped.
	Waits, Skip bool

	until uint64 // messages above this number are ignored
}

func (c *Redrive) isElsewhere(queue string) bool { return c.Elsewhere != nil && c.Elsewhere(queue) }

func (c *Redrive) run(m *Machine) bool {
	q := m.byName[c.From]
	if q == nil {
		c.Err = noQueue(c.From)
		return true
	}
	if q.frozen {
		c.Err = q.movingError()
		return true
	}
	if c.Opts.To != "" && m.byName[c.Opts.To] == nil && !c.isElsewhere(c.Opts.To) {
		c.Err = noQueue(c.Opts.To)
		return true
	}
	c.Waits = false
	if c.until == 0 {
		c.until = q.nextSeq
	}
	var found, skipped []uint64
	next, batch := uint64(0), m.limits.TurnHandout
	q.slots.ascend(c.Next, func(seq uint64, s *slot) bool {
		if seq >= c.until {
			return false
		}
		if batch--; batch < 0 || c.Opts.Max > 0 && c.Result.Matched >= c.Opts.Max {
			next = seq
			return false
		}
		if st := s.state(); st != slotWaiting && st != slotDelayed && st != slotBehind {
			return true
		}
		n := q.notes[seq]
		if c.Opts.Reason != "" && (n == nil || n.reason.String() != c.Opts.Reason) || c.Opts.Queue != "" && (n == nil || n.from != c.Opts.Queue) {
			return true
		}
		c.Result.Matched++
		if c.target(m, n) == nil {
			c.Result.Skipped++
			skipped = append(skipped, seq)
			return true
		}
		if !c.Opts.DryRun {
			found = append(found, seq)
		}
		return true
	})
	for i, seq := range found {
		to := c.target(m, q.notes[seq])
		if m.redriveMeets(q, seq, to) {
			c.Result.Moved++
			continue
		}
		if to != q && !to.fits(int64(q.slots.get(seq).size)) {
			if door.Hidden(to.name) && !c.Skip { // the outbox empties by itself
				c.Waits, next = true, seq
				skipped = slices.DeleteFunc(skipped, func(s uint64) bool { return s < seq })
				c.Result.Matched -= int64(len(found) - i + len(skipped))
				c.Result.Skipped -= int64(len(skipped))
				break
			}
			c.Skip = false
			c.Result.Skipped++
			c.Result.Full++
			continue
		}
		r := &m.rec
		r.Kind, r.Queue, r.Seqs, r.ToQueue, r.ToSeq = kindTransferred, q.id, append(r.Seqs[:0], seq), to.id, to.nextSeq
		r.Name = q.name
		r.Reason, r.Attempts, r.Detail, r.NotBefore = reasonRedriven, 0, "", 0
		if ttl := to.config.TTL; ttl > 0 {
			r.NotBefore = m.now + int64(ttl)
		}
		m.emit(r)
		c.Result.Moved++
		to.stats.published++
	}
	c.Next = next
	return true
}

// target returns the queue that gets a message with this note, or nil if there is none.
func (c *Redrive) target(m *Machine, n *note) *Queue {
	name := c.Opts.To
	if name == "" {
		if n == nil {
			return nil
		}
		name = n.from
	}
	to, at := m.next(name, false, true)
	if at == name || !c.isElsewhere(name) {
		return m.byName[name]
	}
	if to == nil && c.Opts.DryRun {
		return m.byName[c.From] // nothing moves; the caller only needs to know that there is a queue
	}
	if to == nil {
		to = m.made(at)
	}
	return to
}
