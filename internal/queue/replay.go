package queue

import (
	"fmt"
	"math"
	"slices"
	"strconv"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/door"
	"github.com/surgetank/surgetank/internal/settings"
)

// Replay applies one logged entry at recovery. Between New (or Restore) and Recovered, call no
// other method.
func (m *Machine) Replay(entry []byte) (EntryHeader, error) {
	m.recovering = true
	h, _, err := ParseHeader(entry)
	if err != nil {
		return h, err
	}
	m.now = max(m.now, h.Time)
	m.extents.grow(h.Number, len(entry))
	err = Records(entry, func(_ EntryHeader, r *Record) error { return m.applyChecked(r) })
	return h, err
}

// applyChecked applies a record, or returns an error if the record contradicts the state. A log
// that passes its checksums and contradicts itself was written by a defect. Guessing would make the
// damage worse.
func (m *Machine) applyChecked(r *Record) error {
	bad := func(what string, id uint64) error {
		return fmt.Errorf("record kind %d names %s %d, which does not exist: %w", r.Kind, what, id, errDecode)
	}
	switch r.Kind {
	case kindEnqueued, kindArrived:
		for i := range r.Targets {
			t := &r.Targets[i]
			q := m.byID[t.Queue]
			if q == nil {
				return bad("queue", t.Queue)
			}
			if t.Seq != q.nextSeq {
				return fmt.Errorf("message %d of queue %d is not the next, which is %d: %w", t.Seq, t.Queue, q.nextSeq, errDecode)
			}
			if i > 0 && slices.ContainsFunc(r.Targets[:i], func(o Target) bool { return o.Queue == t.Queue }) {
				return fmt.Errorf("message %d goes to queue %d twice: %w", t.Seq, t.Queue, errDecode)
			}
			if t.Supersedes != 0 && (t.Key == CoalesceKey{} || !live(q, t.Supersedes)) {
				return bad("message", t.Supersedes)
			}
		}
	case kindCopied, kindPart, kindMovedIn:
		if !m.applicable(r) {
			return fmt.Errorf("record kind %d is about an arriving queue that does not exist, or whose name another queue has: %w", r.Kind, errDecode)
		}
	case kindCoalesced:
		if err := m.checkCoalesced(r); err != nil {
			return err
		}
	case kindConfirmed:
		if p := m.publishers.find(r.Name, r.Time); p != nil && r.Count > 0 && (r.First <= p.floor || p.free(r.First) < r.First+r.Count-1) {
			return fmt.Errorf("numbers from %d of the publisher %q are confirmed twice: %w", r.First, r.Name, errDecode)
		}
	case kindClosed:
		for _, t := range r.Targets {
			q := m.byID[t.Queue]
			if q == nil {
				return bad("queue", t.Queue)
			}
			if s := q.slots.get(t.Seq); s == nil || !s.live() {
				return bad("message", t.Seq)
			}
		}
	case kindQueueSet:
		if r.Queue == 0 {
			return bad("queue", 0)
		}
		if q := m.byName[r.Name]; q != nil && q.id != r.Queue {
			return fmt.Errorf("queue %q is to be made as number %d, it exists as number %d: %w", shown(r.Name), r.Queue, q.id, errDecode)
		}
		if q := m.byID[r.Queue]; q != nil && q.name != r.Name {
			return fmt.Errorf("queue number %d is %q and is to become %q: %w", r.Queue, shown(q.name), shown(r.Name), errDecode)
		}
	case kindAcked, kindRemoved, kindReturned, kindFailed, kindTransferred, kindPurged, kindQueueGone:
		q := m.byID[r.Queue]
		if q == nil {
			return bad("queue", r.Queue)
		}
		if r.Kind == kindPurged || r.Kind == kindQueueGone {
			break // the record names no message that must exist; Seqs can be left over from another record
		}
		for _, seq := range r.Seqs {
			if s := q.slots.get(seq); s == nil || !s.live() {
				return bad("message", seq)
			}
		}
		if twice(r.Seqs) {
			return fmt.Errorf("record kind %d names a message of queue %d twice: %w", r.Kind, r.Queue, errDecode)
		}
		if r.Kind == kindTransferred {
			to := m.byID[r.ToQueue]
			if to == nil {
				return bad("queue", r.ToQueue)
			}
			if r.ToSeq != to.nextSeq {
				return fmt.Errorf("message %d moves to %d of queue %d, where %d is next: %w", r.Seqs[0], r.ToSeq, r.ToQueue, to.nextSeq, errDecode)
			}
		}
	}
	m.apply(r)
	return nil
}

// twice tells whether a list contains a number more than once. Most lists ascend.
func twice(seqs []uint64) bool {
	for i := 1; i < len(seqs); i++ {
		if seqs[i] <= seqs[i-1] {
			sorted := slices.Sorted(slices.Values(seqs))
			return len(slices.Compact(sorted)) != len(seqs)
		}
	}
	return false
}

// apply is the only function that changes durable state. emit calls it for new records, and Replay
// calls it at recovery. It must not decide: every value that depends on a rule or on the time is in
// the record.
func (m *Machine) apply(r *Record) {
	rested := m.rested
	m.rested = false
	switch r.Kind {
	case kindEnqueued:
		for i := range r.Targets {
			m.byID[r.Targets[i].Queue].enqueue(r, &r.Targets[i])
		}
	case kindArrived:
		for i := range r.Targets {
			m.byID[r.Targets[i].Queue].arrive(r, &r.Targets[i])
		}
	case kindCopied:
		for i := range r.Targets {
			m.byID[r.Targets[i].Queue].copied(r, &r.Targets[i])
		}
	case kindPart:
		m.part(r)
	case kindMovedIn:
		m.movedIn(r)
	case kindMoved:
		for i := range r.Targets {
			if q := m.byID[r.Targets[i].Queue]; q != nil {
				q.moved(r, r.Targets[i].Seq)
			}
		}
	case kindAcked, kindRemoved:
		q := m.byID[r.Queue]
		for _, seq := range r.Seqs {
			q.erase(seq)
		}
	case kindReturned, kindFailed:
		m.byID[r.Queue].returnedTo(r)
	case kindCoalesced:
		m.coalesced(r)
	case kindTransferred:
		m.byID[r.Queue].transfer(r, m.byID[r.ToQueue])
	case kindPurged:
		m.byID[r.Queue].purge(r)
	case kindQueueSet:
		m.queueSet(r)
	case kindQueueGone:
		m.queueGone(m.byID[r.Queue])
	case kindMetaSet:
		if r.Namespace == door.ShardNamespace && r.Name == door.ShardIndex {
			if index, err := strconv.ParseUint(string(r.Value), 10, 64-surgetank.ShardBits); err == nil {
				m.nextQueue = max(m.nextQueue, index<<surgetank.ShardBits|1)
			}
		}
		if r.Namespace == door.ShardNamespace && r.Name == door.ShardNext {
			if next, err := strconv.ParseUint(string(r.Value), 10, 64); err == nil && next>>surgetank.ShardBits == m.nextQueue>>surgetank.ShardBits {
				m.nextQueue = max(m.nextQueue, next)
			}
		}
		m.meta.set(r)
		if r.Namespace == door.MoveNamespace {
			m.setFrozen(r)
		}
	case kindEpoch, kindOpened:
		m.epoch = r.Epoch
		// A restart loses the consumers of transient queues, and deletes these queues.
		for _, q := range m.sorted() {
			if q.config.Transient {
				m.queueGone(q)
			}
			if !rested {
				q.freshFrom = q.nextSeq
			}
		}
		if r.Kind == kindOpened {
			m.open(r.Incarnation, r.Ref.Entry())
		}
	case kindConfirmed:
		m.publishers.confirm(r)
	case kindClosed:
		m.close(r)
	}
}

// enqueue adds a confirmed message to one of its queues.
func (q *Queue) enqueue(r *Record, t *Target) {
	hasKey, notBefore, left := t.Key != CoalesceKey{}, r.NotBefore, -1
	var k keyed
	if hasKey {
		k, left = q.enqueueKeyed(r, t)
		notBefore = t.Due
	}
	s := q.insert(t.Seq, t.Group, min(r.Priority, q.config.MaxPriority), r.BodySize, r.Time)
	s.setRef(r.Ref)
	if r.NotBefore > r.Time && notBefore > r.Time {
		s.setTime(notBefore)
		s.set(slotLate)
	}
	q.m.extents.add(r.Ref, int64(r.BodySize)+messageCost)
	if hasKey {
		q.setKey(t.Seq, k)
	}
	q.place(t.Seq, s, notBefore, r.Time)
	if left >= 0 && !q.m.recovering {
		q.idle(uint32(left))
	}
	if t.Expires != 0 {
		q.expires(t.Expires, t.Seq)
	}
	if t.DedupUntil != 0 {
		q.dedup.add(r.DedupKey, t.Seq, t.DedupUntil)
	}
}

// insert creates the slot of a message that is new to the queue.
func (q *Queue) insert(seq uint64, group string, priority uint8, size uint32, now int64) *slot {
	q.nextSeq = max(q.nextSeq, seq+1)
	if len(q.slots.chunks) == 0 {
		q.floor = max(q.floor, seq)
	}
	h := q.flowOf(group, priority)
	s := q.slots.add(seq)
	*s = slot{slotDurable: slotDurable{size: size, flow: h, priority: priority}}
	s.setTime(now)
	q.bytes += int64(size)
	return s
}

// place puts a message that is in no line into its flow, or among the delayed messages until
// notBefore.
func (q *Queue) place(seq uint64, s *slot, notBefore, now int64) {
	h := s.flow
	if q.raw() {
		s.to(slotWaiting)
		if q.due == nil {
			q.due = map[uint64]int64{}
		}
		if notBefore > now {
			q.due[seq] = notBefore
		} else {
			delete(q.due, seq)
		}
		q.waiting++
		return
	}
	if q.sched != nil || q.flows[h].isBacklog() {
		if line := q.lineOf(s); line != h {
			s.moveTo(line)
			q.idle(h)
			h = line
		}
	}
	switch {
	case q.follows(seq) && q.groupName(h) == "":
		q.waiting++
		s.to(slotBehind)
		q.flows[h].delayed++
	case notBefore <= now || q.collects(seq, s, notBefore):
		q.waiting++
		if seq == q.nextSeq-1 && s.attempts == 0 && !s.has(slotRedelivered) {
			q.link(h, seq, s)
		} else {
			q.giveBack(h, seq, s)
		}
	case q.strict(h) && s.has(slotRedelivered):
		// The group waits for the message, because order matters more than progress. A delay that
		// the message's publisher asked for is different: it blocks no message.
		q.waiting++
		q.giveBack(h, seq, s)
		q.backOff(h, seq, notBefore)
	default:
		q.delayedN++
		s.to(slotDelayed)
		q.flows[h].delayed++
		if s.has(slotRedelivered) {
			q.retriesN++
			q.retryAt(notBefore, seq)
			break
		}
		if int64(len(q.delayed)) > 2*q.delayedN+1024 {
			q.delayed.keep(func(x timed) bool {
				s := q.slots.get(x.key)
				return s != nil && s.state() == slotDelayed && !s.has(slotRedelivered)
			})
		}
		q.delayed.push(timed{notBefore, seq})
		q.timerAt(notBefore)
	}
	q.touch(h)
	q.mark()
}

// strict tells whether a flow's messages must never overtake each other, not even a failed one.
func (q *Queue) strict(h uint32) bool {
	return q.config.Group.MaxInFlight == 1 && q.groupName(h) != ""
}

// detach removes a live message from its list or heap and from the queue's counts. If it returns
// true, the caller sets the slot's next state. If it returns false, the message was in the middle
// of a line and stays there as a dead slot.
func (q *Queue) detach(seq uint64, s *slot) bool {
	h := s.flow
	q.bytes -= int64(s.size)
	delete(q.parking, seq)
	if q.raw() {
		delete(q.due, seq)
		delete(q.expiry, seq)
		q.waiting--
		return true
	}
	f := &q.flows[h]
	switch s.state() {
	case slotLeased:
		q.leased--
		q.leasedBytes -= int64(s.size)
		f.inflight--
		q.unlapse(seq)
	case slotHeld:
		q.unhold(seq, s)
		delete(q.backing, seq)
		q.unlapse(seq)
	case slotLost:
		q.damagedN--
		q.leasedBytes -= int64(s.size)
		f.delayed--
	case slotDelayed:
		q.delayedN--
		if s.has(slotRedelivered) {
			q.retriesN--
		}
		f.delayed--
		delete(q.suspect, seq)
		q.unlapse(seq)
	case slotBehind:
		q.waiting--
		f.delayed--
		delete(q.suspect, seq)
		q.unlapse(seq)
	case slotWaiting:
		q.waiting--
		q.unback(h, seq)
		delete(q.suspect, seq)
		q.unlapse(seq)
		if q.frontOf(h) != seq {
			f.waiting--
			unlinked := q.unlink(h, seq, s)
			if !unlinked {
				s.kill()
			}
			q.touch(h)
			return unlinked
		}
		q.takeFront(h, seq, s)
	}
	q.touch(h)
	return true
}

// drop removes a message for good. Its flow stays, even if the flow is idle now.
func (q *Queue) drop(seq uint64, s *slot) {
	if s.state() != slotLost {
		q.m.extents.sub(s.ref(), int64(s.size)+messageCost)
	}
	q.dropNotes(seq, s)
	q.forgetFailure(seq)
	key := q.slots.keyRow(seq)
	if q.detach(seq, s) {
		q.slots.free(seq)
	}
	q.dropKey(key)
}

// erase removes a message for good.
func (q *Queue) erase(seq uint64) {
	s := q.slots.edit(seq)
	h := s.flow
	q.drop(seq, s)
	if !q.raw() {
		q.idle(h)
		q.mark()
	}
}

// returnedTo returns a leased message to its queue.
func (q *Queue) returnedTo(r *Record) {
	seq := r.Seqs[0]
	s := q.slots.edit(seq)
	h := s.flow
	if q.inPlace(seq, s) {
		s.attempts = uint16(r.Attempts)
		return
	}
	if !q.m.recovering {
		q.leased--
		q.leasedBytes -= int64(s.size)
		q.flows[h].inflight--
	} else {
		q.waiting--
	}
	switch {
	case r.Kind == kindFailed:
		q.setFailure(seq, r.Detail)
	case r.Attempts > uint32(s.attempts):
		q.forgetFailure(seq) // this record has no reason
	}
	s.attempts = uint16(min(r.Attempts, math.MaxUint16))
	s.set(slotRedelivered)
	q.place(seq, s, r.NotBefore, r.Time)
}

// note is the part of a message's dead-letter history that is in memory.
type note struct {
	from   string // the queue that gave the message up last
	reason reason
	trail  *trail
	refs   []Ref // transfers, newest first; empty after a moved record has the history itself
}

const (
	// messageCost and noteCost are the approximate bytes of a message's and a note's record without
	// the body. Only the share of live bytes is computed from them.
	messageCost = 32
	noteCost    = 64
	// MaxDeaths is how many events of a dead-letter history are kept, the newest ones.
	MaxDeaths = 16
)

func (q *Queue) dropNotes(seq uint64, s *slot) {
	if !s.has(slotNoted) {
		return
	}
	for _, ref := range q.notes[seq].refs {
		q.m.extents.sub(ref, noteCost)
	}
	delete(q.notes, seq)
}

// transfer moves a message to the end of another queue, or to the end of its own queue.
func (q *Queue) transfer(r *Record, to *Queue) {
	seq := r.Seqs[0]
	s := q.slots.edit(seq)
	old, group, h := *s, q.groupName(s.flow), s.flow
	n := q.notes[seq]
	delete(q.notes, seq)
	q.forgetFailure(seq)
	key := q.slots.keyRow(seq)
	if q.detach(seq, s) {
		q.slots.free(seq)
	}
	k, hasKey := q.dropKey(key)
	if !q.m.recovering {
		q.idle(h)
		q.mark()
	}
	t := to.insert(r.ToSeq, group, old.priority, old.size, r.Time)
	t.setRef(old.ref())
	if r.Reason == reasonRedriven {
		t.set(slotRedelivered) // its newest event is still the one before
		if n != nil {
			n.trail = nil // a redrive clears the trail
		}
	} else {
		if n == nil {
			n = &note{}
		}
		n.from, n.reason = q.name, r.Reason
		if automatic(r.Reason) {
			n.trail = q.step(n.trail)
		} else {
			n.trail = nil
		}
		q.m.extents.add(r.Ref, noteCost)
		n.refs = append([]Ref{r.Ref}, n.refs...)
		if len(n.refs) > MaxDeaths {
			q.m.extents.sub(n.refs[MaxDeaths], noteCost)
			n.refs = n.refs[:MaxDeaths]
		}
	}
	if n != nil {
		t.set(slotNoted)
		if to.notes == nil {
			to.notes = map[uint64]*note{}
		}
		to.notes[r.ToSeq] = n
	}
	if hasKey {
		to.setKey(r.ToSeq, keyed{k.key, keyFacts{since: r.Time, count: k.count, dead: r.Reason != reasonRedriven}})
	}
	to.place(r.ToSeq, t, 0, r.Time)
	if r.Expires() != 0 {
		to.expires(r.Expires(), r.ToSeq)
	}
}

// arrive adds a message that comes from another shard.
func (q *Queue) arrive(r *Record, t *Target) {
	s := q.insert(t.Seq, t.Group, min(r.Priority, q.config.MaxPriority), r.BodySize, r.Time)
	s.setRef(r.Ref)
	q.m.extents.add(r.Ref, int64(r.BodySize)+messageCost)
	if r.Redriven {
		s.set(slotRedelivered)
	}
	if len(r.Deaths) > 0 {
		s.set(slotNoted)
		if q.notes == nil {
			q.notes = map[uint64]*note{}
		}
		q.notes[t.Seq] = noteOf(r.Deaths, r.Redriven) // the record itself has the history, so refs stays empty
	}
	q.place(t.Seq, s, 0, r.Time)
	if t.Expires != 0 {
		q.expires(t.Expires, t.Seq)
	}
}

// copied adds or replaces a message of an arriving queue.
func (q *Queue) copied(r *Record, t *Target) {
	if s := q.slots.edit(t.Seq); s != nil && s.live() {
		q.erase(t.Seq)
	}
	s := q.insert(t.Seq, t.Group, r.Copied.Priority, r.BodySize, r.Copied.Since)
	s.setRef(r.Ref)
	q.m.extents.add(r.Ref, int64(r.BodySize)+messageCost)
	s.attempts = uint16(min(r.Attempts, math.MaxUint16))
	if r.Copied.Redelivered {
		s.set(slotRedelivered)
	}
	if r.Copied.Late {
		s.set(slotLate)
	}
	if len(r.Deaths) > 0 {
		s.set(slotNoted)
		if q.notes == nil {
			q.notes = map[uint64]*note{}
		}
		q.notes[t.Seq] = noteOf(r.Deaths, r.Redriven)
	}
	q.setFailure(t.Seq, r.Detail)
	q.place(t.Seq, s, r.Copied.Due, 0)
	if t.Expires != 0 {
		q.expires(t.Expires, t.Seq)
	}
}

// noteOf makes the note of a message from its history, newest event first.
func noteOf(deaths []surgetank.Death, redriven bool) *note {
	n := &note{from: deaths[0].Queue, reason: reasonNamed(deaths[0].Reason)}
	last := 0 // events that belong to the trail
	for !redriven && last < len(deaths) && automatic(reasonNamed(deaths[last].Reason)) {
		last++
	}
	for _, x := range slices.Backward(deaths[:last]) {
		if !n.trail.has(x.Queue) {
			n.trail = &trail{x.Queue, n.trail}
		}
	}
	return n
}

// expires schedules the end of a message's TTL. It drops the entries of settled messages when they
// outnumber the other entries, so a long TTL costs no memory for settled messages.
func (q *Queue) expires(at int64, seq uint64) {
	if q.arriving {
		if q.expiry == nil {
			q.expiry = map[uint64]int64{}
		}
		q.expiry[seq] = at
		return
	}
	if int64(len(q.ttl)) > 2*(q.waiting+q.delayedN+q.leased)+1024 {
		q.ttl.keep(func(x timed) bool {
			s := q.slots.get(x.key)
			return s != nil && s.live()
		})
	}
	q.ttl.push(timed{at, seq})
	q.timerAt(at)
}

// moved sets a message's new position near the log's end.
func (q *Queue) moved(r *Record, seq uint64) {
	s := q.slots.get(seq)
	if s == nil || !s.live() {
		return
	}
	s = q.slots.edit(seq)
	q.m.extents.sub(s.ref(), int64(s.size)+messageCost)
	s.setRef(r.Ref)
	q.m.extents.add(r.Ref, int64(s.size)+messageCost)
	if s.has(slotNoted) {
		n := q.notes[seq]
		for _, ref := range n.refs {
			q.m.extents.sub(ref, noteCost)
		}
		n.refs = nil
	}
}

// purge removes every message below a number, except the named messages, which were leased at the
// time of the purge.
func (q *Queue) purge(r *Record) {
	keep := make(map[uint64]bool, len(r.Seqs))
	for _, seq := range r.Seqs {
		keep[seq] = true
	}
	var gone []uint64
	q.slots.ascend(0, func(seq uint64, s *slot) bool {
		if seq >= r.Below {
			return false
		}
		if s.live() && !keep[seq] {
			gone = append(gone, seq)
		}
		return true
	})
	for _, seq := range gone {
		q.erase(seq)
	}
}

func (m *Machine) queueSet(r *Record) {
	q := m.byID[r.Queue]
	if q == nil {
		q = &Queue{m: m, queueDurable: queueDurable{id: r.Queue, name: r.Name, created: r.Time, nextSeq: 1, freshFrom: 1}, queueVolatile: queueVolatile{floor: 1}}
		q.slots.queue, q.slots.keys.salt, q.dedup.ids.salt = q.id, m.salt, m.salt
		m.byID[q.id], m.byName[q.name] = q, q
		at, _ := m.rank(q.id)
		m.order = slices.Insert(m.order, at, q)
		if q.id>>surgetank.ShardBits == m.nextQueue>>surgetank.ShardBits { // otherwise the queue comes from another shard
			m.nextQueue = max(m.nextQueue, q.id+1)
		}
		_, q.arriving = door.ArrivingOf(r.Name)
		if i := m.incarnation(); i != 0 {
			q.span(i)
		}
	}
	was := q.config
	q.config, q.pausedBy, q.pausedAt = settings.WithDefaults(r.Config), r.Pause.by, r.Pause.at
	if !q.raw() {
		q.reconfigured(&was)
	}
}

func (m *Machine) queueGone(q *Queue) {
	q.gone = true
	q.leaveControl()
	q.forgetFailures()
	q.wakeGivers()
	delete(m.byID, q.id)
	delete(m.byName, q.name)
	if at, ok := m.rank(q.id); ok {
		m.order = slices.Delete(m.order, at, at+1)
	}
	m.remains = append(m.remains, remains{q: q})
	if m.recovering {
		m.sweep(math.MaxInt)
	}
}

// Recovered ends recovery at the time when the broker opens. It builds the indexes from the durable
// state. OpenEpoch must be the first command.
func (m *Machine) Recovered(now int64) {
	m.now = max(m.now, now)
	m.recovering = false
	for _, q := range m.sorted() {
		q.rebuild()
	}
}

// rebuild creates flows, heaps and counts from the slots, in the order of seq, which is the order
// of confirmation.
func (q *Queue) rebuild() {
	if q.arriving {
		return
	}
	q.frozen = q.m.meta.spaces[door.MoveNamespace][q.name].Value != nil
	due := q.due
	q.due = nil
	for i := range q.flows {
		f := &q.flows[i]
		*f = flow{name: f.name, free: f.free, place: -1}
	}
	q.reweigh(nil, q.config.Group.Weights)
	if c := &q.config; c.Group.Fair || c.Level.FreshShare > 0 {
		q.sched = &sched{fair: c.Group.Fair}
	}
	q.waiting, q.delayedN, q.leased, q.ready_ = 0, 0, 0, 0
	q.backsN, q.retriesN = 0, 0
	q.slots.ascend(0, func(seq uint64, s *slot) bool {
		if s.state() == slotLost {
			q.damagedN++
			q.leasedBytes += int64(s.size)
			q.flows[s.flow].delayed++ // so that the flow and its name are kept
			return true
		}
		s.moveTo(q.lineOf(s)) // before place, which would free the old line: later messages can still be in it
		if at := q.rebuildKeyed(seq, s, due[seq]); at > q.m.now && !q.collects(seq, s, at) || q.groupName(s.flow) == "" && q.follows(seq) {
			q.place(seq, s, at, q.m.now)
			return true
		}
		q.waiting++
		q.link(s.flow, seq, s)
		return true
	})
	for h := range q.flows {
		q.touch(uint32(h))
		q.idle(uint32(h))
	}
	if len(q.ttl) > 0 {
		q.timerAt(q.ttl[0].at)
	}
	if end := q.pauseEnds(); end != 0 {
		q.timerAt(end)
	}
	q.dedup.expire(q.m.now)
	q.mark()
}
