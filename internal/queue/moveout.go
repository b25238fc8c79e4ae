package queue

import (
	"encoding/binary"
	"hash/fnv"
	"slices"
	"strconv"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/breaker"
	"github.com/surgetank/surgetank/internal/door"
)

// passTimes are the times that a message's slot does not have, for one pass over a queue that
// leaves.
type passTimes struct{ due, expires map[uint64]int64 }

// moveSlots is how many slots one turn of a move looks at.
const moveSlots = 8192

// family returns the queue of the step and its own dead-letter queues: they are in one shard.
func (c *MoveStep) family(m *Machine) (all []*Queue) {
	for q := m.byName[c.Queue]; q != nil; q = m.byName[q.name+surgetank.DeadLetterSuffix] {
		all = append(all, q)
	}
	return all
}

// movingError refuses a change of a frozen queue. The caller tries again, and then finds the queue
// in its new shard.
func (q *Queue) movingError() error {
	return surgetank.Errorf(surgetank.CodeUnavailable, "queue %q is just moving to another shard; try again", shown(q.name))
}

// frozenError returns an error if there is a frozen queue with this name.
func (m *Machine) frozenError(name string) error {
	if q := m.byName[name]; q != nil && q.frozen {
		return q.movingError()
	}
	return nil
}

// hold stops or continues hand-outs.
func (c *MoveStep) hold(m *Machine) {
	c.Leased = 0
	for _, q := range c.family(m) {
		q.onHold = !c.Off
		if c.Off {
			q.pass = nil
		}
		c.Leased += q.leased
		q.mark()
	}
}

// outline lists messages and their states.
func (c *MoveStep) outline(m *Machine, q *Queue) {
	if c.From == 0 || q.pass == nil {
		q.pass = q.newPass()
	}
	c.Outline = nil
	next, n := q.slots.scan(c.From, min(moveSlots, m.share(costPeek)), func(seq uint64, s *slot) bool {
		if s.live() {
			due, expires := q.pass.of(q, seq, s)
			c.Outline = append(c.Outline, door.MoveItem{Seq: seq, Hash: q.stateHash(seq, s, due, expires)})
		}
		return true
	})
	m.spend(n, costPeek)
	if c.Next = next; next == 0 {
		c.Last = q.nextSeq
	} else {
		c.Last = next
	}
}

// newPass reads the times of all messages.
func (q *Queue) newPass() *passTimes {
	p := &passTimes{map[uint64]int64{}, map[uint64]int64{}}
	for _, x := range q.delayed {
		p.due[x.key] = x.at
	}
	for _, x := range q.retryTimes() {
		p.due[x.key] = x.at
	}
	for _, x := range q.ttl {
		if at, has := p.expires[x.key]; !has || x.at < at {
			p.expires[x.key] = x.at
		}
	}
	for seq, at := range q.lapsed { // unordered: each key is its own
		p.expires[seq] = at
	}
	return p
}

// of returns until when a message waits, and when it expires; 0: neither.
func (p *passTimes) of(q *Queue, seq uint64, s *slot) (due, expires int64) {
	if s.state() == slotDelayed || q.backsOff(seq) {
		due = p.due[seq]
	}
	return due, p.expires[seq]
}

// stateHash returns a hash of all state of a message that can change while it is in the queue.
func (q *Queue) stateHash(seq uint64, s *slot, due, expires int64) uint64 {
	h := fnv.New64a()
	var b [32]byte
	binary.LittleEndian.PutUint64(b[0:], uint64(due))
	binary.LittleEndian.PutUint64(b[8:], uint64(expires))
	binary.LittleEndian.PutUint32(b[16:], s.time)
	binary.LittleEndian.PutUint16(b[20:], s.attempts)
	b[22] = s.priority
	for i, f := range [...]slotFact{slotRedelivered, slotNoted, slotLate} {
		if s.has(f) {
			b[23] |= 1 << i
		}
	}
	_, _ = h.Write(b[:])
	_, _ = h.Write([]byte(q.failureOf(seq)))
	return h.Sum64()
}

// read returns messages for the other shard.
func (c *MoveStep) read(q *Queue) {
	if q.pass == nil {
		q.pass = q.newPass()
	}
	c.Read = nil
	for _, seq := range c.Seqs {
		s := q.slots.get(seq)
		if s == nil || !s.live() {
			continue
		}
		if why := q.damageOf(seq, s); why != "" {
			c.Err = surgetank.Errorf(surgetank.CodeInvalid, "message %s of queue %q is damaged (%s), so the queue does not move; drop its damaged messages first (surgetank queue purge --damaged)", q.idOf(seq), shown(q.name), why)
			return
		}
		due, expires := q.pass.of(q, seq, s)
		x := MoveRead{Handout{Queue: q, ID: q.idOf(seq), Seq: seq, Ref: s.ref(), Group: q.groupName(s.flow), Size: s.size},
			door.MoveCopied{Seq: seq, Since: s.nanos(), Due: due, Expires: expires, Attempts: int(s.attempts), Priority: s.priority,
				Redelivered: s.has(slotRedelivered), Late: s.has(slotLate), Failure: q.failureOf(seq)}}
		if s.has(slotNoted) {
			n := q.notes[seq]
			x.Notes, x.Redriven = slices.Clone(n.refs), n.trail == nil
		}
		c.Read = append(c.Read, x)
	}
}

// movable returns an error if a queue cannot move.
func (q *Queue) movable() error {
	switch {
	case q.config.Transient:
		return surgetank.Errorf(surgetank.CodeInvalid, "queue %q is transient: it ends with the broker, and does not move to another shard", shown(q.name))
	case q.coalesces() || q.slots.keys.used > 0:
		return surgetank.Errorf(surgetank.CodeInvalid, "queue %q coalesces messages, and such a queue cannot move to another shard yet", shown(q.name))
	case q.damagedN > 0 || len(q.suspect) > 0:
		return surgetank.Errorf(surgetank.CodeInvalid, "queue %q has damaged messages, so it does not move; drop them first (surgetank queue purge --damaged)", shown(q.name))
	}
	return nil
}

// freeze ends all leases, and stores that nothing changes any more. A lease that ends here counts
// no attempt, as with a restart.
func (c *MoveStep) freeze(m *Machine) error {
	all := c.family(m)
	for _, q := range all {
		if err := q.movable(); err != nil {
			return err
		}
	}
	c.Names = nil
	n := 0
	for _, q := range all {
		q.onHold = true // giving up a message can serve the consumers of its dead-letter queue
		n += len(q.leases)
	}
	if n > maxClosing {
		return surgetank.Errorf(surgetank.CodeBusy, "queue %q has %d leased messages, and a queue moves with at most %d; move it when it has fewer", shown(c.Queue), n, maxClosing)
	}
	for _, q := range all {
		for _, seq := range slices.Sorted(leased(q)) {
			m.giveUp(q, seq, 0, false, "", leaseEnd{outcome: breaker.Returned})
		}
	}
	for _, q := range c.family(m) { // a message whose TTL passed can have created the dead-letter queue
		m.emit(&Record{Kind: kindMetaSet, Namespace: door.MoveNamespace, Name: q.name, Value: strconv.AppendInt(nil, int64(c.To), 10)})
		c.Names = append(c.Names, q.name)
	}
	return nil
}

// thaw lets the queues work again.
func (c *MoveStep) thaw(m *Machine) {
	for _, q := range c.family(m) {
		q.onHold, q.pass = false, nil
		if q.frozen {
			m.emit(&Record{Kind: kindMetaSet, Namespace: door.MoveNamespace, Name: q.name})
		}
		q.mark()
		q.rearm()
	}
}

// depart removes the queues, which work in another shard by now.
func (c *MoveStep) depart(m *Machine) error {
	all := c.family(m)
	for _, q := range all {
		if !q.frozen {
			return surgetank.Errorf(surgetank.CodeInternal, "queue %q is not frozen, and was to leave its shard", shown(q.name))
		}
	}
	for _, q := range all {
		m.emit(&Record{Kind: kindMetaSet, Namespace: door.MoveNamespace, Name: q.name})
		m.emit(&Record{Kind: kindQueueGone, Queue: q.id})
		m.ending = append(m.ending, ending{q, q.movingError()})
	}
	m.endGone()
	return nil
}

// setFrozen applies the mark of a frozen queue.
func (m *Machine) setFrozen(r *Record) {
	if q := m.byName[r.Name]; q != nil {
		q.frozen = r.Value != nil
	}
}

// applicable tells whether a record of an arriving queue fits the state.
func (m *Machine) applicable(r *Record) bool {
	arriving := func(id uint64) bool { q := m.byID[id]; return q != nil && q.arriving }
	switch r.Kind {
	case kindCopied:
		return !slices.ContainsFunc(r.Targets, func(t Target) bool { return !arriving(t.Queue) || t.Seq == 0 })
	case kindPart:
		return m.checkPart(r.Value) == nil
	}
	return arriving(r.Queue) && m.byName[r.Name] == nil
}
