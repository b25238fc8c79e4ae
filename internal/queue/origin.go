package queue

import (
	"encoding/binary"
	"slices"

	"github.com/surgetank/surgetank/internal/door"
)

// origin is what a queue that moved here keeps of its earlier shards. It makes positions that other
// programs stored stay valid: the queue's numbers and openings go on as if its old log went on.
type origin struct {
	openings []door.Opening // of the earlier shards, with the entry numbers that users of the queue saw
	base     uint64         // what users of the queue see above the numbers of this log's entries
	// fence is added to the epoch in fencing tokens, so that tokens keep growing. Every opening of
	// this shard still has a higher number than the one before.
	fence uint64
}

// history returns the queue's openings and the number of an entry, as users of the queue see them.
func (q *Queue) history(entry uint64) ([]door.Opening, uint64) {
	o := &q.origin
	if o.base == 0 && len(o.openings) == 0 {
		return slices.Clone(q.m.openings), entry
	}
	all := slices.Clone(o.openings)
	for _, x := range q.m.openings {
		if n := len(all); n > 0 && x.First+o.base <= all[n-1].First {
			// The opening in which the queue arrived began before. From here on it has the queue.
			continue
		}
		all = append(all, door.Opening{Incarnation: x.Incarnation, First: x.First + o.base})
	}
	return all[max(0, len(all)-door.MaxOpenings):], entry + o.base
}

// EntrySeen returns the number of an entry as users of the queue see it.
func (q *Queue) EntrySeen(entry uint64) uint64 { return entry + q.origin.base }

// tokenEpoch is the epoch in the queue's fencing tokens.
func (q *Queue) tokenEpoch() uint64 { return q.m.epoch + q.origin.fence }

// pack returns the state of a frozen queue besides its messages.
func (c *MoveStep) pack(m *Machine, q *Queue) {
	c.Config, c.Frames = q.config, nil
	openings, entry := q.history(m.entry)
	b := appendUint([]byte{byte(kindSnapOrigin)}, q.id)
	for _, n := range [...]uint64{q.nextSeq, uint64(q.created), q.freshFrom, entry, q.tokenEpoch(), uint64(q.pausedAt)} {
		b = appendUint(b, n)
	}
	b = appendString(b, q.pausedBy)
	c.Frames = append(c.Frames, appendHistory(b, openings, q.spans))
	line := q.dedup.line.clone()
	for line.len() > 0 {
		n := min(line.len(), snapItems)
		b := appendUint([]byte{byte(kindSnapDedup)}, q.id)
		b = appendUint(b, uint64(n))
		for range n {
			x := line.first()
			b = append(b, x.key[:]...)
			b = appendUint(b, x.seq)
			b = appendUint(b, uint64(x.until))
			line.pop()
		}
		c.Frames = append(c.Frames, b)
	}
	for p := m.publishers.oldest; p != nil; p = p.newer {
		c.Frames = append(c.Frames, p.leaving(q.id).encode(p.id))
	}
	for _, box := range c.Outboxes {
		if v := m.meta.spaces[door.ArrivedNamespace][box].Value; v != nil {
			r := Record{Kind: kindMetaSet, Namespace: door.ArrivedNamespace, Name: box, Value: v}
			c.Frames = append(c.Frames, r.encode(nil))
		}
	}
}

func appendHistory(b []byte, openings []door.Opening, spans []door.Span) []byte {
	b = appendUint(b, uint64(len(openings)))
	for _, o := range openings {
		b = binary.LittleEndian.AppendUint64(b, o.Incarnation)
		b = appendUint(b, o.First)
	}
	b = appendUint(b, uint64(len(spans)))
	for _, x := range spans {
		b = binary.LittleEndian.AppendUint64(b, x.Incarnation)
		b = appendUint(b, x.First)
	}
	return b
}

// checkPart returns an error if a frame of another shard cannot be applied.
func (m *Machine) checkPart(frame []byte) error {
	d := &decoder{b: frame}
	switch kind := Kind(d.byte()); kind {
	case kindMetaSet:
		r := Record{Kind: kind}
		if r.decode(d); d.err == nil && r.Namespace != door.ArrivedNamespace {
			d.fail("a value of another namespace than " + door.ArrivedNamespace)
		}
	case kindSnapBefore:
		if id, _, _ := d.before(); id == "" {
			d.fail("a publisher has no name")
		}
	case kindSnapOrigin, kindSnapDedup:
		if q := m.byID[d.uint()]; q == nil || !q.arriving {
			d.fail("a part of a queue that does not arrive")
		}
		// The rest is read in full by a machine that has the same queue.
		if kind == kindSnapDedup {
			for n := d.count(); n > 0 && d.err == nil; n-- {
				_, _, _ = d.fixed16(), d.uint(), d.time()
			}
		} else {
			d.arrival()
		}
	default:
		d.fail("a part of a queue has an unknown kind")
	}
	return d.err
}

// part applies a frame of another shard. checkPart has accepted it.
func (m *Machine) part(r *Record) {
	d := &decoder{b: r.Value}
	switch kind := Kind(d.byte()); kind {
	case kindMetaSet:
		x := Record{Kind: kind, Ref: r.Ref, Time: r.Time}
		x.decode(d)
		m.meta.set(&x)
	case kindSnapBefore:
		m.publishers.learn(m, d, r.Time)
	case kindSnapDedup:
		if q := m.restoring(d); q != nil {
			q.restoreDedup(d)
		}
	case kindSnapOrigin:
		if q := m.restoring(d); q != nil {
			q.adopt(d.arrival())
			// The entries of this log come after those of the old one, and its tokens too.
			o := &q.origin
			o.base = max(o.base+1, r.Ref.Entry()) - r.Ref.Entry()
			o.fence = max(o.fence+1, m.epoch) - m.epoch
			if i := m.incarnation(); i != 0 {
				o.openings = append(o.openings, door.Opening{Incarnation: i, First: r.Ref.Entry() + o.base})
			}
		}
	}
}

func (q *Queue) restoreDedup(d *decoder) {
	for n := d.count(); n > 0 && d.err == nil; n-- {
		q.dedup.add(d.fixed16(), d.uint(), d.time())
	}
}

// arrival is the content of an origin frame after the queue's number. In a frame of pack, base is
// the newest entry of the old shard, and fence its epoch.
type arrival struct {
	next, freshFrom   uint64
	created, pausedAt int64
	pausedBy          string
	base, fence       uint64
	openings          []door.Opening
	spans             []door.Span
}

func (d *decoder) arrival() (a arrival) {
	a.next, a.created, a.freshFrom, a.base, a.fence = d.uint(), d.time(), d.uint(), d.uint(), d.uint()
	a.pausedAt, a.pausedBy = d.time(), d.string()
	for n := d.count(); n > 0 && d.err == nil; n-- {
		a.openings = append(a.openings, door.Opening{Incarnation: d.fixed64(), First: d.uint()})
	}
	for n := d.count(); n > 0 && d.err == nil; n-- {
		a.spans = append(a.spans, door.Span{Incarnation: d.fixed64(), First: d.uint()})
	}
	if a.next == 0 {
		d.fail("a queue has no next number")
	}
	return a
}

// adopt enters an origin frame.
func (q *Queue) adopt(a arrival) {
	q.nextSeq, q.created, q.freshFrom = a.next, a.created, a.freshFrom
	q.origin = origin{openings: a.openings, base: a.base, fence: a.fence}
	q.pausedAt, q.pausedBy, q.spans = a.pausedAt, a.pausedBy, a.spans
}

// encodeOrigin encodes a queue's origin for a snapshot; nil if it has none. An arriving queue can
// have one, too.
func (q *Queue) encodeOrigin() []byte {
	o := &q.origin
	if o.base == 0 && o.fence == 0 && len(o.openings) == 0 {
		return nil
	}
	b := appendUint([]byte{byte(kindSnapOrigin)}, q.id)
	for _, n := range [...]uint64{q.nextSeq, uint64(q.created), q.freshFrom, o.base, o.fence, uint64(q.pausedAt)} {
		b = appendUint(b, n)
	}
	b = appendString(b, q.pausedBy)
	return appendHistory(b, o.openings, q.spans)
}

// movedIn makes an arriving queue a queue.
func (m *Machine) movedIn(r *Record) {
	q := m.byID[r.Queue]
	delete(m.byName, q.name)
	q.name, q.arriving = r.Name, false
	m.byName[q.name] = q
	for seq, at := range q.expiry { // unordered: a heap
		q.ttl = append(q.ttl, timed{at, seq})
	}
	q.ttl.keep(func(timed) bool { return true })
	q.expiry, q.floor = nil, 1
	if i := m.incarnation(); i != 0 {
		q.span(i)
	}
	if !m.recovering {
		q.rebuild()
		q.recontrol()
	}
}
