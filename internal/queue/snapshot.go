package queue

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/bits"
	"slices"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/door"
)

// snapshot is a copy of the durable state at one moment, taken while the machine keeps working.
// StartSnapshot encodes the small state and remembers the size of the rest. Each call of
// SnapshotNext then encodes some chunks. A chunk that is about to change is encoded before the
// change, so the whole copy is of one moment.
type snapshot struct {
	m      *Machine
	gen    uint32
	buf    []byte // encoded, not yet returned
	queues []*snapQueue
	chunks uint64
}

// snapQueue is the part of a queue that is not encoded yet.
type snapQueue struct {
	q       *Queue
	next    uint64 // index of the next chunk
	end     uint64 // chunks from this index on did not exist at the start
	delayed []timed
	ttl     []timed
	dedup   idLine
	failed  []failedMessage
}

// maxChunks limits the distance between the oldest and the newest message of a queue in a snapshot:
// 17 billion.
const maxChunks = 1 << 28

// snapLost is a flag of a slot in a snapshot: the message's body is lost.
const snapLost = 8

// snapItems is how many times or dedup ids one record of a snapshot contains at most.
const snapItems = 4096

// StartSnapshot begins a snapshot of the present state. Call it between two turns. at is the number
// of the last entry that the snapshot covers. No other snapshot may be under way.
func (m *Machine) StartSnapshot(at uint64) {
	m.snapGen++
	s := &snapshot{m: m, gen: m.snapGen}
	m.snap = s
	b := []byte{byte(kindSnapHead)}
	b = appendUint(b, at)
	b = appendUint(b, m.epoch)
	b = appendUint(b, m.nextQueue)
	b = appendUint(b, uint64(m.now))
	b = appendUint(b, uint64(len(m.extents.list)))
	for _, e := range m.extents.list {
		b = appendUint(b, e.first)
		b = appendUint(b, uint64(e.size))
	}
	s.frame(b)
	if len(m.losses) > 0 {
		s.frame(encodeLosses(m.losses))
	}
	if len(m.openings) > 0 {
		b := appendUint([]byte{byte(kindSnapOpens)}, uint64(len(m.openings)))
		for _, o := range m.openings {
			b = binary.LittleEndian.AppendUint64(b, o.Incarnation)
			b = appendUint(b, o.First)
		}
		s.frame(b)
	}
	for _, b := range m.meta.encode() {
		s.frame(b)
	}
	for p := m.publishers.oldest; p != nil; p = p.newer {
		s.frame(p.encode())
		for _, x := range p.before {
			s.frame(x.encode(p.id))
		}
	}
	for _, q := range m.sorted() {
		s.frame(q.encodeHead())
		if len(q.spans) > 0 {
			b := appendUint([]byte{byte(kindSnapSpans)}, q.id)
			b = appendUint(b, uint64(len(q.spans)))
			for _, x := range q.spans {
				b = binary.LittleEndian.AppendUint64(b, x.Incarnation)
				b = appendUint(b, x.First)
			}
			s.frame(b)
		}
		if b := q.encodeOrigin(); b != nil {
			s.frame(b)
		}
		if b := q.encodeTrails(); b != nil {
			s.frame(b)
		}
		q.slots.snap = s
		sq := &snapQueue{q: q, next: q.slots.first, end: q.slots.first + uint64(len(q.slots.chunks)),
			delayed: append(slices.Clone(q.delayed), q.retryTimes()...), failed: q.failedMessages(), ttl: slices.Clone(q.ttl), dedup: q.dedup.line.clone()}
		if len(q.lapsed) > 0 { // ttl contains the retry times of these messages; their expiry times are added below
			sq.ttl = slices.DeleteFunc(sq.ttl, func(x timed) bool { _, lapsed := q.lapsed[x.key]; return lapsed })
		}
		for _, seq := range slices.Sorted(maps.Keys(q.lapsed)) {
			sq.ttl = append(sq.ttl, timed{q.lapsed[seq], seq})
		}
		for _, seq := range slices.Sorted(maps.Keys(q.expiry)) {
			sq.ttl = append(sq.ttl, timed{q.expiry[seq], seq})
		}
		for _, seq := range slices.Sorted(maps.Keys(q.due)) { // of an arriving queue
			sq.delayed = append(sq.delayed, timed{q.due[seq], seq})
		}
		s.queues = append(s.queues, sq)
	}
	if b := m.encodeFresh(); b != nil {
		s.frame(b)
	}
}

// Snapshotting tells whether a snapshot is under way.
func (m *Machine) Snapshotting() bool { return m.snap != nil }

// SnapshotNext returns the next piece of the snapshot, of about size bytes, and whether it is the
// last.
func (m *Machine) SnapshotNext(size int) (piece []byte, last bool) {
	s := m.snap
	for len(s.buf) < size && len(s.queues) > 0 {
		if sq := s.queues[0]; !s.step(sq) {
			sq.q.slots.snap = nil
			s.queues = s.queues[1:]
		}
	}
	if last = len(s.queues) == 0; last {
		s.frame(appendUint([]byte{byte(kindSnapTail)}, s.chunks))
		m.snap = nil
	}
	piece, s.buf = s.buf, nil
	return piece, last
}

// AbandonSnapshot ends a snapshot that cannot be stored.
func (m *Machine) AbandonSnapshot() {
	if m.snap != nil {
		for _, sq := range m.snap.queues {
			sq.q.slots.snap = nil
		}
		m.snap = nil
	}
}

func (s *snapshot) frame(b []byte) { s.buf = appendBytes(s.buf, b) }

// step encodes the next part of a queue. It returns false if nothing is left.
func (s *snapshot) step(sq *snapQueue) bool {
	t := &sq.q.slots
	if sq.next < sq.end {
		sq.next = max(sq.next, t.first+uint64(t.lead))
		if i := sq.next - t.first; sq.next < sq.end && i < uint64(len(t.chunks)) {
			s.before(t, sq.next, &t.chunks[i])
			sq.next++
			return true
		}
		sq.next = sq.end
	}
	times := func(which byte, from *[]timed) bool {
		n := min(len(*from), snapItems)
		if n == 0 {
			return false
		}
		b := appendUint([]byte{byte(kindSnapTimes), which}, sq.q.id)
		b = appendUint(b, uint64(n))
		for _, x := range (*from)[:n] {
			b = appendUint(b, uint64(x.at))
			b = appendUint(b, x.key)
		}
		s.frame(b)
		*from = (*from)[n:]
		return true
	}
	if times(0, &sq.delayed) || times(1, &sq.ttl) {
		return true
	}
	if n := min(len(sq.failed), snapItems); n > 0 {
		s.frame(encodeFailures(sq.q.id, sq.failed[:n]))
		sq.failed = sq.failed[n:]
		return true
	}
	n := min(sq.dedup.len(), snapItems)
	if n == 0 {
		return false
	}
	b := appendUint([]byte{byte(kindSnapDedup)}, sq.q.id)
	b = appendUint(b, uint64(n))
	for range n {
		x := sq.dedup.first()
		b = append(b, x.key[:]...)
		b = appendUint(b, x.seq)
		b = appendUint(b, uint64(x.until))
		sq.dedup.pop()
	}
	s.frame(b)
	return true
}

// before encodes a chunk unless the snapshot already contains it. It is called before each change
// of a chunk.
func (s *snapshot) before(t *slots, index uint64, c *chunk) {
	if c.saved == s.gen {
		return
	}
	c.saved = s.gen
	if c.slots == nil {
		return // the chunk was created after the start of the snapshot
	}
	var mask uint64
	for i := range c.slots {
		if c.slots[i].live() {
			mask |= 1 << i
		}
	}
	if mask == 0 {
		return
	}
	s.chunks++
	b := make([]byte, 0, 32+24*bits.OnesCount64(mask))
	b = append(b, byte(kindSnapSlots))
	b = appendUint(b, t.queue)
	b = appendUint(b, index)
	b = binary.LittleEndian.AppendUint64(b, mask)
	for i := range c.slots {
		x := &c.slots[i]
		if mask&(1<<i) == 0 {
			continue
		}
		b = binary.LittleEndian.AppendUint32(b, x.refLo)
		b = binary.LittleEndian.AppendUint32(b, x.refHi)
		b = binary.LittleEndian.AppendUint32(b, x.size)
		b = binary.LittleEndian.AppendUint32(b, x.flow)
		b = binary.LittleEndian.AppendUint32(b, x.time)
		b = binary.LittleEndian.AppendUint16(b, x.attempts)
		flags := x.bits >> 3 & (uint8(slotRedelivered) | uint8(slotExpired) | uint8(slotNoted) | uint8(slotLate))
		if x.state() == slotLost {
			flags |= snapLost
		}
		b = append(b, x.priority, flags)
	}
	s.frame(b)
	if t.keys.used > 0 {
		if b := t.encodeKeys(index); b != nil {
			s.frame(b)
		}
	}
}

// encodeHead encodes a queue's settings and the small part of its state.
func (q *Queue) encodeHead() []byte {
	b := []byte{byte(kindSnapQueue)}
	b = appendUint(b, q.id)
	b = appendString(b, q.name)
	b = appendUint(b, uint64(q.created))
	b = appendUint(b, q.nextSeq)
	b = appendBytes(b, encodeConfig(&q.config, q.pauseNote()))
	b = appendUint(b, uint64(len(q.flows)))
	for i := range q.flows {
		f := &q.flows[i]
		if f.free {
			b = append(b, 0)
			continue
		}
		b = append(b, 1)
		b = appendString(b, f.name)
	}
	b = appendUint(b, uint64(len(q.notes)))
	for _, seq := range slices.Sorted(maps.Keys(q.notes)) {
		n := q.notes[seq]
		b = appendUint(b, seq)
		b = appendString(b, n.from)
		b = append(b, byte(n.reason))
		b = appendUint(b, uint64(len(n.refs)))
		for _, r := range n.refs {
			b = appendUint(b, uint64(r))
		}
	}
	return b
}

var errSnapshot = errors.New("the snapshot does not make sense")

// Restore reads a snapshot into a new machine and returns the number of the last entry that it
// covers. Replay the entries after that one, then call Recovered.
func (m *Machine) Restore(r io.ByteReader, read func(n int) ([]byte, error)) (at uint64, err error) {
	m.recovering = true
	var chunks uint64
	begun := false
	for {
		n, err := binary.ReadUvarint(r)
		if err != nil {
			return 0, fmt.Errorf("%w: it ends too early: %w", errSnapshot, err)
		}
		b, err := read(int(min(n, 1<<40)))
		if err != nil {
			return 0, fmt.Errorf("%w: it ends too early: %w", errSnapshot, err)
		}
		d := &decoder{b: b}
		kind := Kind(d.byte())
		if (kind == kindSnapHead) == begun {
			return 0, fmt.Errorf("%w: its head is missing, or is there twice", errSnapshot)
		}
		begun = true
		switch kind {
		case kindSnapHead:
			at = d.uint()
			m.epoch, m.nextQueue = d.uint(), d.uint()
			m.now = d.time()
			for n := d.count(); n > 0 && d.err == nil; n-- {
				e := extent{first: d.uint(), size: int64(d.uint())}
				if l := m.extents.list; len(l) > 0 && e.first <= l[len(l)-1].first {
					d.fail("the stretches of the log do not follow each other")
				}
				m.extents.list = append(m.extents.list, e)
			}
		case kindSnapOpens:
			for n := d.count(); n > 0 && d.err == nil; n-- {
				m.openings = append(m.openings, door.Opening{Incarnation: d.fixed64(), First: d.uint()})
			}
		case kindSnapSpans:
			if q := m.restoring(d); q != nil {
				q.spans = q.spans[:0]
				for n := d.count(); n > 0 && d.err == nil; n-- {
					x := door.Span{Incarnation: d.fixed64(), First: d.uint()}
					if l := len(q.spans); l > 0 && x.First <= q.spans[l-1].First {
						d.fail("the spans of a queue's messages do not follow each other")
					}
					q.spans = append(q.spans, x)
				}
			}
		case kindSnapOrigin:
			if q := m.restoring(d); q != nil {
				q.adopt(d.arrival())
			}
		case kindSnapBefore:
			m.publishers.learn(m, d, 0)
		case kindSnapFresh:
			m.restoreFresh(d)
		case kindSnapTrails:
			if q := m.restoring(d); q != nil {
				q.restoreTrails(d)
			}
		case kindSnapKeys:
			if q := m.restoring(d); q != nil {
				q.restoreKeys(d)
			}
		case kindSnapFailures:
			if q := m.restoring(d); q != nil {
				q.restoreFailures(d)
			}
		case kindSnapLoss:
			m.losses = d.losses()
		case kindMetaSet:
			rec := Record{Kind: kind}
			rec.decode(d)
			if d.err == nil {
				m.apply(&rec)
			}
		case kindSnapVersions:
			m.meta.restoreVersions(d)
		case kindSnapPublisher:
			m.publishers.restore(d)
		case kindSnapQueue:
			m.restoreQueue(d)
		case kindSnapSlots:
			chunks++
			m.restoreChunk(d)
		case kindSnapTimes:
			which := d.byte()
			if q := m.restoring(d); q != nil {
				for n := d.count(); n > 0 && d.err == nil; n-- {
					q.restoreTime(which, d.time(), d.uint())
				}
			}
		case kindSnapDedup:
			if q := m.restoring(d); q != nil {
				q.restoreDedup(d)
			}
		case kindSnapTail:
			if want := d.uint(); d.err == nil && want != chunks {
				return 0, fmt.Errorf("%w: %d of %d chunks are there", errSnapshot, chunks, want)
			}
			return at, d.err
		default:
			return 0, fmt.Errorf("%w: unknown record kind %d (a newer version wrote it?)", errSnapshot, kind)
		}
		if d.err != nil {
			return 0, d.err
		}
	}
}

// restoring reads the id of a queue and returns the queue, which must exist.
func (m *Machine) restoring(d *decoder) *Queue {
	q := m.byID[d.uint()]
	if q == nil {
		d.fail("a part of a queue that does not exist")
	}
	return q
}

func (m *Machine) restoreQueue(d *decoder) {
	r := Record{Kind: kindQueueSet, Queue: d.uint(), Name: d.string(), Time: d.time()}
	next := d.uint()
	r.Config, r.Pause = d.config()
	if m.byID[r.Queue] != nil || m.byName[r.Name] != nil || r.Queue == 0 || next == 0 {
		d.fail("a queue occurs twice, or has no number")
	}
	if d.err != nil {
		return
	}
	m.apply(&r)
	q := m.byID[r.Queue]
	q.spans = nil // if the queue has spans, a later frame contains them
	q.nextSeq = next
	n := d.count()
	if n > 0 {
		q.byGroup = map[string]uint32{}
	}
	for h := 0; h < n && d.err == nil; h++ {
		if d.byte() == 0 && h > 0 {
			q.flows = append(q.flows, flow{place: -1, free: true})
			q.freeFlows = append(q.freeFlows, uint32(h))
			continue
		}
		f := flow{name: d.string(), place: -1}
		if _, known := q.byGroup[f.name]; known || (h == 0) != (f.name == "") {
			d.fail("a group occurs twice, or has no name")
			return
		}
		q.byGroup[f.name] = uint32(h)
		q.flows = append(q.flows, f)
		if q.groupName(uint32(h)) == "" {
			q.unnamed++
		}
	}
	for n := d.count(); n > 0 && d.err == nil; n-- {
		seq := d.uint()
		nt := &note{from: d.string(), reason: reason(d.byte())}
		for n := d.count(); n > 0 && d.err == nil; n-- {
			ref := Ref(d.uint())
			nt.refs = append(nt.refs, ref)
			m.extents.add(ref, noteCost)
		}
		if q.notes == nil {
			q.notes = map[uint64]*note{}
		}
		q.notes[seq] = nt
	}
}

func (m *Machine) restoreChunk(d *decoder) {
	q := m.restoring(d)
	index := d.uint()
	if q == nil || len(d.b)-d.off < 8 || index > 1<<57 {
		d.fail("a chunk is cut short")
		return
	}
	mask := binary.LittleEndian.Uint64(d.b[d.off:])
	d.off += 8
	if len(d.b)-d.off != 24*bits.OnesCount64(mask) || (index+1)*chunkSlots > q.nextSeq+chunkSlots {
		d.fail("a chunk does not have the size its mask says")
		return
	}
	if t := &q.slots; len(t.chunks) > 0 && max(t.first+uint64(len(t.chunks)), index)-min(t.first, index) > maxChunks {
		d.fail("two messages of a queue are too far apart")
		return
	}
	c := q.slots.chunkAt(index)
	if c.slots != nil {
		d.fail("a chunk occurs twice")
		return
	}
	c.slots = new([chunkSlots]slot)
	for i := range c.slots {
		if mask&(1<<i) == 0 {
			continue
		}
		b := d.b[d.off : d.off+24]
		d.off += 24
		s := &c.slots[i]
		*s = slot{slotDurable: slotDurable{
			refLo: binary.LittleEndian.Uint32(b), refHi: binary.LittleEndian.Uint32(b[4:]), size: binary.LittleEndian.Uint32(b[8:]),
			flow: binary.LittleEndian.Uint32(b[12:]), time: binary.LittleEndian.Uint32(b[16:]),
			attempts: binary.LittleEndian.Uint16(b[20:]), priority: b[22], bits: b[23]&^snapLost<<3 | uint8(slotWaiting),
		}}
		if b[23]&snapLost != 0 {
			s.lose()
		}
		if seq := index*chunkSlots + uint64(i); seq == 0 || seq >= q.nextSeq {
			d.fail("a message has no number, or is not below the number of the next")
			return
		}
		if int(s.flow) >= len(q.flows) || q.flows[s.flow].free {
			d.fail("a message names a group that does not exist")
			return
		}
		if s.has(slotNoted) != (q.notes[index*chunkSlots+uint64(i)] != nil) {
			d.fail("a message and its dead-letter note do not agree")
			return
		}
		s.unmark(slotExpired) // the message is not leased now, so its entry in ttl expires it again
		c.used++
		q.waiting++
		q.bytes += int64(s.size)
		if s.state() != slotLost {
			m.extents.add(s.ref(), int64(s.size)+messageCost)
		}
	}
}

func (q *Queue) restoreTime(which byte, at int64, key uint64) {
	if s := q.slots.get(key); s == nil || !s.live() {
		return // settled before the snapshot; the heaps drop such entries when they are popped
	}
	if which == 1 {
		if q.arriving {
			q.expires(at, key)
			return
		}
		q.ttl.push(timed{at, key})
		return
	}
	if q.due == nil {
		q.due = map[uint64]int64{}
	}
	q.due[key] = at
}

// Infos returns settings and statistics of every queue.
func (m *Machine) Infos() []surgetank.QueueInfo {
	var infos []surgetank.QueueInfo
	for _, q := range m.sorted() {
		infos = append(infos, q.info())
	}
	return infos
}
