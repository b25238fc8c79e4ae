package queue

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"time"

	"github.com/surgetank/surgetank"
)

// Coalescing: messages of a queue with the same key become one delivery. The key includes the
// group.
//
// The messages of a key form a chain in the order of their numbers. Only the first message of a
// chain can be leased. So a key has at most one lease, and its messages are delivered in order. The
// last message of the chain decides what happens to a new message:
//
//	the last message is              | keep: last                      | keep: first
//	---------------------------------+---------------------------------+--------------------------------
//	waiting or delayed, never leased | is superseded                   | the new one joins it
//	waiting or delayed, leased before| is superseded                   | the new one is stored
//	leased, or cannot be read        | the new one is stored           | the new one is stored
//	older than max_wait (closed)     | the new one is stored           | the new one is stored
//	a dead letter                    | is in no chain                  | is in no chain
//
// With keep: last, a lease that ends without an ack supersedes its message if another one follows
// in the chain. A redriven message is superseded by, or joins, the waiting message that it meets.
//
// A superseded message leaves the queue in the entry that makes its successor durable. The
// successor counts the superseded message and inherits its due time and its age for max_wait. If
// the key is the group, the successor also inherits the rank among the groups' front messages.
//
//	the first message of a chain, before its window ends:
//	without a group: slotDelayed, in the delayed heap          a follower without a group: slotBehind
//	with a group:    slotWaiting, its group waits for it       a follower with a group: slotWaiting
//
// Durable: keyFacts. Volatile: keyLinks and the index of slots.keys, which rebuild creates.

// CoalesceKey represents a coalescing key: 16 bytes of a SHA-256 of the queue's rule, the group and
// the value. The zero value is no key.
type CoalesceKey [16]byte

// MakeCoalesceKey hashes a key. rule is the queue's coalesce.by.
func MakeCoalesceKey(rule, group, value string) (k CoalesceKey) {
	b := make([]byte, 0, 128)
	for _, s := range [...]string{rule, group, value} {
		b = appendString(b, s)
	}
	h := sha256.Sum256(b)
	copy(k[:], h[:])
	return k
}

// Key is a message's coalescing key in one queue.
type Key struct {
	Hash  CoalesceKey
	Group bool // the value is the message's group
}

// keyed is the coalescing state of a message that enters or leaves a queue.
type keyed struct {
	key CoalesceKey
	keyFacts
}

// keyFacts is the durable coalescing state of a stored message, besides its key.
type keyFacts struct {
	due   int64  // earliest time of its first delivery; 0: at once. No meaning after a lease
	since int64  // when the first message that it stands for was confirmed
	place uint64 // its rank among the groups' front messages; 0: its own number
	count uint32 // confirmed messages that it stands for, without itself
	dead  bool   // a dead letter, which is in no chain
}

// keyLinks contains the neighbors of a message; 0: none.
type keyLinks struct {
	seq           uint64 // the message itself
	ahead, behind uint64 // in its chain
	before        uint64 // in its flow's list
}

// keyState is the coalescing state of a stored message, in its row of slots.keys.
type keyState struct {
	keyFacts
	keyLinks
}

// keyRow returns the number of a message's row in keys; 0: the message has no coalescing key.
func (t *slots) keyRow(seq uint64) uint32 {
	i := seq/chunkSlots - t.first
	if seq/chunkSlots < t.first || i >= uint64(len(t.chunks)) || t.chunks[i].keys == nil {
		return 0
	}
	return t.chunks[i].keys[seq%chunkSlots]
}

// key returns the coalescing state of a message, or nil.
func (t *slots) key(seq uint64) *keyState {
	if i := t.keyRow(seq); i != 0 {
		return &t.keys.at(i).v
	}
	return nil
}

// setKeyRow sets the number of a message's row. 0 removes it, even if the slot is free already.
func (t *slots) setKeyRow(seq uint64, row uint32) {
	i := seq/chunkSlots - t.first
	if seq/chunkSlots < t.first || i >= uint64(len(t.chunks)) {
		return
	}
	c := &t.chunks[i]
	if c.keys == nil {
		if row == 0 {
			return
		}
		c.keys = new([chunkSlots]uint32)
	}
	c.keys[seq%chunkSlots] = row
}

// newest returns the last message of the chain of a key; 0: there is no chain.
func (q *Queue) newest(key CoalesceKey) uint64 {
	if i := q.slots.keys.find(key); i != 0 {
		return q.slots.keys.at(i).v.seq
	}
	return 0
}

// coalesces tells whether the queue's settings ask for coalescing.
func (q *Queue) coalesces() bool { return q.config.Coalesce.By != "" }

// meets returns the waiting message that a new message with a key joins, or the waiting message
// that it supersedes. 0 means none.
func (q *Queue) meets(key CoalesceKey) (joins, supersedes uint64) {
	seq := q.newest(key)
	if seq == 0 || !q.waitsForAny(seq) {
		return 0, 0
	}
	c := &q.config.Coalesce
	if c.MaxWait > 0 && q.m.now >= q.slots.key(seq).since+int64(c.MaxWait) {
		return 0, 0
	}
	if c.Keep != surgetank.KeepFirst {
		return 0, seq
	}
	if q.slots.get(seq).has(slotRedelivered) || q.suspect[seq] != nil {
		return 0, 0 // the last message was possibly handled before, or cannot be read
	}
	return seq, 0
}

// waitsForAny tells whether a message is stored and neither leased nor unreadable.
func (q *Queue) waitsForAny(seq uint64) bool {
	switch q.slots.get(seq).state() {
	case slotWaiting, slotDelayed, slotBehind:
		return true
	}
	return false
}

// admitKeyed decides whether a new message with a key joins or supersedes a waiting message. It
// fills in the target t, and returns an error if the queue has no room.
func (m *Machine) admitKeyed(q *Queue, t *Target, size int64, admitted bool) (joins uint64, err error) {
	for {
		joins, t.Supersedes = q.meets(t.Key)
		if admitted {
			return joins, nil
		}
		if joins != 0 {
			return joins, m.diskFull(q)
		}
		n, more := int64(1), size
		if t.Supersedes != 0 {
			n, more = 0, size-int64(q.slots.get(t.Supersedes).size)
		}
		handouts, records := len(m.out.Handouts), m.out.Records
		if err := m.admit(q, n, more); err != nil {
			return 0, err
		}
		if len(m.out.Handouts) == handouts && m.out.Records == records {
			return joins, nil
		}
		// admit may have handed the message out
		if j, s := q.meets(t.Key); j == joins && s == t.Supersedes {
			return joins, nil
		}
	}
}

// dueOf returns the earliest time of the first delivery of a new message with a key; 0: at once.
// delay is the delay that its publisher asked for.
func (q *Queue) dueOf(t *Target, delay time.Duration) int64 {
	now := q.m.now
	due := now + max(int64(delay), int64(q.config.Coalesce.Window))
	if old := t.Supersedes; old != 0 && !q.slots.get(old).has(slotRedelivered) {
		due = min(due, q.slots.key(old).due)
	}
	if due <= now {
		return 0
	}
	return due
}

// join logs that a new message joined a waiting one. The message itself is not stored.
func (m *Machine) join(q *Queue, seq uint64, in *Incoming, dedupUntil int64) {
	q.stats.coalesced++
	r := &m.rec
	r.Kind, r.Queue, r.Seqs, r.ToQueue, r.ToSeq = kindCoalesced, q.id, r.Seqs[:0], q.id, seq
	r.DedupKey, r.DedupUntil = in.Dedup, dedupUntil
	m.emit(r)
}

// supersede logs that a message leaves its queue because another message stands for it.
func (m *Machine) supersede(q *Queue, seq uint64, to *Queue, by uint64) {
	q.stats.coalesced++
	r := &m.rec
	r.Kind, r.Queue, r.Seqs, r.ToQueue, r.ToSeq = kindCoalesced, q.id, append(r.Seqs[:0], seq), to.id, by
	r.DedupUntil = 0
	m.emit(r)
}

// coalesced applies kindCoalesced.
func (m *Machine) coalesced(r *Record) {
	n := uint32(1)
	if len(r.Seqs) > 0 {
		q := m.byID[r.Queue]
		if k := q.slots.key(r.Seqs[0]); k != nil {
			n += k.count
		}
		q.erase(r.Seqs[0])
	}
	to := m.byID[r.ToQueue]
	to.slots.edit(r.ToSeq)
	if k := to.slots.key(r.ToSeq); k != nil {
		k.count += n
	}
	if r.DedupUntil != 0 {
		to.dedup.add(r.DedupKey, r.ToSeq, r.DedupUntil)
	}
}

// successor returns the message that supersedes a message whose lease has ended without an ack; 0
// if there is none.
func (q *Queue) successor(seq uint64) uint64 {
	if !q.coalesces() || q.config.Coalesce.Keep == surgetank.KeepFirst {
		return 0
	}
	if k := q.slots.key(seq); k != nil {
		return k.behind
	}
	return 0
}

// redriveMeets handles a redriven message if its new queue has a waiting message with the same key.
// It returns false if there is no such message. The redriven message then moves as usual.
func (m *Machine) redriveMeets(q *Queue, seq uint64, to *Queue) bool {
	i := q.slots.keyRow(seq)
	if i == 0 || !to.coalesces() {
		return false
	}
	key := CoalesceKey(q.slots.keys.at(i).key)
	by := to.newest(key)
	if by == 0 || by == seq && to == q || !to.waitsForAny(by) {
		return false
	}
	if to.config.Coalesce.Keep == surgetank.KeepFirst {
		if by, _ = to.meets(key); by == 0 {
			return false
		}
	}
	m.supersede(q, seq, to, by)
	return true
}

// enqueueKeyed prepares the coalescing state of a new message, and removes the message that the new
// one supersedes. It returns the flow of the removed message, or -1. The caller must check whether
// this flow is idle.
func (q *Queue) enqueueKeyed(r *Record, t *Target) (k keyed, flow int) {
	k, flow = keyed{t.Key, keyFacts{due: t.Due, since: r.Time}}, -1
	if t.Supersedes == 0 {
		return k, flow
	}
	s := q.slots.edit(t.Supersedes)
	old, again := keyFacts{}, s.has(slotRedelivered)
	if x := q.slots.key(t.Supersedes); x != nil {
		old = x.keyFacts
	}
	flow = int(s.flow)
	q.drop(t.Supersedes, s)
	k.count = old.count + 1
	if !again {
		k.since = old.since
		if t.GroupKey {
			k.place = cmp.Or(old.place, t.Supersedes)
		}
	}
	return k, flow
}

// setKey records the coalescing state of a message that is new to the queue. Its slot exists, and
// the message is in no line yet.
func (q *Queue) setKey(seq uint64, k keyed) {
	i := q.slots.keys.add(k.key, keyState{k.keyFacts, keyLinks{seq: seq}})
	q.slots.setKeyRow(seq, i)
	if !q.m.recovering && !k.dead {
		q.chain(i)
	}
}

// dropKey removes the coalescing state of a message that left the queue. If this message was the
// first of its chain, the next one can be delivered. i is the message's row, which the caller reads
// before it frees the slot.
func (q *Queue) dropKey(i uint32) (k keyed, ok bool) {
	if i == 0 {
		return k, false
	}
	t := &q.slots.keys
	r := t.at(i)
	k, l := keyed{r.key, r.v.keyFacts}, r.v.keyLinks
	q.slots.setKeyRow(l.seq, 0)
	last := r.state == rowIndexed
	if last && l.ahead != 0 {
		t.put(q.slots.keyRow(l.ahead))
	}
	t.remove(i)
	if l.ahead != 0 {
		q.slots.key(l.ahead).behind = l.behind
	}
	if l.behind != 0 {
		q.slots.key(l.behind).ahead = l.ahead
		if l.ahead == 0 {
			q.isFirst(l.behind)
		}
	}
	return k, true
}

// chain appends a message to the chain of its key.
func (q *Queue) chain(i uint32) {
	t := &q.slots.keys
	if before := t.put(i); before != 0 {
		last, k := &t.at(before).v, &t.at(i).v
		last.behind, k.ahead = k.seq, last.seq
	}
}

// isFirst ends the wait of a message that has become the first of its chain.
func (q *Queue) isFirst(seq uint64) {
	s := q.slots.edit(seq)
	if s.state() == slotBehind {
		q.waiting--
		q.flows[s.flow].delayed--
		q.place(seq, s, q.slots.key(seq).due, q.m.now)
		return
	}
	q.touch(s.flow)
	q.mark()
}

// follows tells whether a message waits for an earlier one of its chain.
func (q *Queue) follows(seq uint64) bool {
	k := q.slots.key(seq)
	if k == nil {
		return false
	}
	return k.ahead != 0
}

// collects tells whether a message with a group waits in its line for the end of its window. A
// delay that its publisher asked for keeps a message out of its line instead.
func (q *Queue) collects(seq uint64, s *slot, at int64) bool {
	if q.slots.keys.used == 0 || at <= q.m.now || s.has(slotRedelivered|slotLate) || q.groupName(s.flow) == "" {
		return false
	}
	k := q.slots.key(seq)
	return k != nil && k.due == at
}

// keyVerdict tells whether its coalescing key lets the front message of a group be delivered.
func (q *Queue) keyVerdict(front uint64) verdict {
	k := q.slots.key(front)
	switch {
	case k == nil:
	case q.follows(front):
		return keyBusy
	case q.collects(front, q.slots.get(front), k.due):
		return keyCollects
	}
	return mayGo
}

// placeOf returns the rank of a message with a group among the groups' front messages. A queue with
// a sched has no such ranks.
func (q *Queue) placeOf(seq uint64) uint64 {
	if k := q.slots.key(seq); k != nil && k.place != 0 {
		return k.place
	}
	return seq
}

// rebuildKeyed is a part of rebuild. It adds a message to its chain, and returns the earliest time
// of the message's first delivery. at is the time in the record or snapshot.
func (q *Queue) rebuildKeyed(seq uint64, s *slot, at int64) int64 {
	k := q.slots.key(seq)
	if k == nil || k.dead {
		return at
	}
	q.chain(q.slots.keyRow(seq))
	if !s.has(slotRedelivered) {
		return k.due
	}
	return at
}

// unlink removes a message with a key from the middle of its flow's list, so that the slots of
// superseded messages are free at once. It returns false if the message is in the heap, or has no
// key.
func (q *Queue) unlink(h uint32, seq uint64, s *slot) bool {
	k := q.slots.key(seq)
	if k == nil || s.marked(slotInHeap) {
		return false
	}
	f := &q.flows[h]
	next := q.after(seq, s)
	s.next = 0
	if f.head == seq {
		f.head = next
		if next == 0 {
			f.tail = 0
		}
	} else {
		q.setNext(k.before, next)
		if next == 0 {
			f.tail = k.before
		}
	}
	if n := q.slots.key(next); n != nil {
		n.before = k.before
	}
	return true
}

// stands adds to a dead letter's reason the number of other messages that the dead letter stands
// for.
func (q *Queue) stands(seq uint64, detail string) string {
	k := q.slots.key(seq)
	if k == nil || k.count == 0 {
		return detail
	}
	n := k.count
	text := fmt.Sprintf("it stands for %d coalesced messages", n)
	if n == 1 {
		text = "it stands for 1 coalesced message"
	}
	if detail == "" {
		return text
	}
	return clipTo(detail, maxDetail-len(text)-2) + "; " + text
}

// encodeKeys encodes the coalescing state of a chunk's messages for a snapshot. It returns nil if
// no message of the chunk has a key.
func (t *slots) encodeKeys(index uint64) []byte {
	var seqs []uint64
	for i := range uint64(chunkSlots) {
		if t.keyRow(index*chunkSlots+i) != 0 {
			seqs = append(seqs, index*chunkSlots+i)
		}
	}
	if seqs == nil {
		return nil
	}
	b := appendUint([]byte{byte(kindSnapKeys)}, t.queue)
	b = appendUint(b, uint64(len(seqs)))
	for _, seq := range seqs {
		r := t.keys.at(t.keyRow(seq))
		k := &r.v
		b = appendUint(b, seq)
		b = append(b, r.key[:]...)
		b = appendUint(b, uint64(k.due))
		b = appendUint(b, uint64(k.since))
		b = appendUint(b, k.place)
		b = appendUint(b, uint64(k.count))
		dead := byte(0)
		if k.dead {
			dead = 1
		}
		b = append(b, dead)
	}
	return b
}

// restoreKeys decodes the output of encodeKeys. The queue's messages must have been restored.
func (q *Queue) restoreKeys(d *decoder) {
	for n := d.count(); n > 0 && d.err == nil; n-- {
		seq := d.uint()
		k := keyed{d.fixed16(), keyFacts{due: d.time(), since: d.time(), place: d.uint(), count: d.u32()}}
		k.dead = d.byte() != 0
		if s := q.slots.get(seq); d.err == nil && (q.slots.keyRow(seq) != 0 || s == nil || !s.live() || k.place >= max(seq, 1)) {
			d.fail("a coalescing key has no message, or a message has two")
			return
		}
		q.setKey(seq, k)
	}
}

// fixed16 reads 16 bytes.
func (d *decoder) fixed16() (b [16]byte) {
	if len(d.b)-d.off < len(b) {
		d.fail("a hash is cut off")
		return b
	}
	d.off += copy(b[:], d.b[d.off:])
	return b
}

// encodeTargetKey encodes the coalescing state in a target of an enqueued record.
func encodeTargetKey(b []byte, t *Target, notBefore int64) []byte {
	flags := byte(0)
	if t.Key != (CoalesceKey{}) {
		flags |= targetKeyed
	}
	if t.GroupKey {
		flags |= targetGroupKey
	}
	if t.Supersedes != 0 {
		flags |= targetSupersedes
	}
	if flags&targetKeyed != 0 && t.Due != notBefore {
		flags |= targetDue
	}
	b = append(b, flags)
	if flags&targetKeyed != 0 {
		b = append(b, t.Key[:]...)
	}
	if t.Supersedes != 0 {
		b = appendUint(b, t.Seq-t.Supersedes)
	}
	if flags&targetDue != 0 {
		b = appendUint(b, uint64(t.Due))
	}
	return b
}

// Flags of a target with coalescing state.
const (
	targetKeyed      = 1 << iota
	targetGroupKey   // the key is the group
	targetSupersedes // the message supersedes another one
	targetDue        // the earliest time of the first delivery is not the record's not-before
	targetKnown      = 1<<iota - 1
)

// targetKey decodes the coalescing state of a target. It returns whether the due time is the
// record's not-before.
func (d *decoder) targetKey(t *Target) (asRecord bool) {
	flags := d.byte()
	if flags&^targetKnown != 0 || flags&targetKeyed == 0 && flags != 0 {
		d.fail("a target has unknown flags (a newer version wrote it?)")
		return false
	}
	if flags&targetKeyed != 0 {
		t.Key = d.fixed16()
	}
	t.GroupKey = flags&targetGroupKey != 0
	if flags&targetSupersedes != 0 {
		n := d.uint()
		if n == 0 || n >= t.Seq {
			d.fail("a message supersedes a later one")
			return false
		}
		t.Supersedes = t.Seq - n
	}
	if flags&targetDue != 0 {
		t.Due = d.time()
		return false
	}
	return true
}

// checkCoalesced rejects a record that contradicts the state.
func (m *Machine) checkCoalesced(r *Record) error {
	from, to := m.byID[r.Queue], m.byID[r.ToQueue]
	if from == nil || to == nil {
		return fmt.Errorf("a coalesced message names queues %d and %d, which do not both exist: %w", r.Queue, r.ToQueue, errDecode)
	}
	if !live(to, r.ToSeq) || len(r.Seqs) > 0 && (!live(from, r.Seqs[0]) || from == to && r.Seqs[0] == r.ToSeq) {
		return fmt.Errorf("a coalesced message of queue %d joins message %d of queue %d; one of them does not exist: %w", r.Queue, r.ToSeq, r.ToQueue, errDecode)
	}
	return nil
}

// compactKeys frees the unused memory of the rows.
func (q *Queue) compactKeys() {
	q.slots.keys.compact(func(i uint32, k *keyState) { q.slots.setKeyRow(k.seq, i) })
}
