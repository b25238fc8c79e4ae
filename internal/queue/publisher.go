package queue

import (
	"math"
	"slices"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/seqset"
)

// A publisher may name itself and number its messages 1, 2, 3 and so on. The machine remembers
// which numbers are confirmed. A message that is sent again is confirmed again and not stored
// again, whatever its queues:
//
//	floor                       last
//	──┼────────────────────────────┼────────▶ numbers
//	??│■■■■■■■■□□■■■■■■■■■■■■□■■■■■■│ new
//
//	■ confirmed: a message with this number is a duplicate
//	□ a hole: this number was refused or has not arrived yet; its message is stored when it arrives
//	? forgotten: a message with this number is refused with CodeUncertain
//
// Holes keep the rule exact if single messages are refused and if requests overtake each other. A
// number is a hole exactly if this log confirms no message with that number, also after a repair.
// The record of the confirmed numbers is in the same entry as their messages, so the record and the
// messages become durable together.

const (
	// MaxPublishers is how many publishers a broker remembers. The broker first forgets the
	// publisher that was idle longest.
	MaxPublishers = 10_000
	// PublisherKeep is how long a publisher is remembered after its newest confirmed message.
	PublisherKeep = 7 * 24 * time.Hour
	// maxHoles is how many holes are kept for a publisher. When there are more, the oldest is
	// forgotten.
	maxHoles = 256
	// publisherCost and holeCost are the approximate bytes of a publisher and of a hole in a
	// snapshot.
	publisherCost, holeCost = 64, 8
)

// publishers is the state of all publishers.
type publishers struct {
	byID           map[string]*publisher
	oldest, newest *publisher // a list in the order of last use
	holes          int        // number of holes of all publishers
}

// publisher is the durable state of one publisher.
type publisher struct {
	id    string
	used  int64      // when a number was confirmed last
	last  uint64     // the highest confirmed number
	floor uint64     // numbers up to here are forgotten
	holes seqset.Set // above floor, below last

	// The newest run of confirmed numbers whose messages follow each other in one queue. The
	// message id of a duplicate is computed from the run. queue 0: none.
	first, count uint64
	queue, seq   uint64

	before []before // see before.go

	older, newer *publisher
}

// find returns the state of a publisher, or nil if it is unknown or expired.
func (ps *publishers) find(id string, now int64) *publisher {
	if p := ps.byID[id]; p != nil && p.used+int64(PublisherKeep) > now {
		return p
	}
	return nil
}

// confirm records confirmed numbers of a publisher. It is a part of apply. A record without numbers
// only makes the publisher known.
func (ps *publishers) confirm(r *Record) {
	for ps.oldest != nil && ps.oldest.used+int64(PublisherKeep) <= r.Time {
		ps.forget(ps.oldest)
	}
	p := ps.byID[r.Name]
	if p != nil {
		ps.unlink(p)
	} else {
		for len(ps.byID) >= MaxPublishers {
			ps.forget(ps.oldest)
		}
		p = &publisher{id: r.Name}
		ps.insert(p)
	}
	if p.used = r.Time; ps.newest != nil {
		p.used = max(p.used, ps.newest.used)
	}
	ps.link(p)
	if r.Count == 0 {
		return
	}
	had := len(p.holes)
	p.confirm(r.First, r.First+r.Count-1)
	ps.holes += len(p.holes) - had
	p.first, p.count, p.queue, p.seq = r.First, r.Count, r.Queue, r.ToSeq
}

func (ps *publishers) insert(p *publisher) {
	if ps.byID == nil {
		ps.byID = map[string]*publisher{}
	}
	ps.byID[p.id] = p
	ps.holes += len(p.holes)
}

// link moves a publisher to the end of the list: it was used last.
func (ps *publishers) link(p *publisher) {
	if p.older = ps.newest; p.older != nil {
		p.older.newer = p
	} else {
		ps.oldest = p
	}
	ps.newest = p
}

func (ps *publishers) unlink(p *publisher) {
	if p.older != nil {
		p.older.newer = p.newer
	} else {
		ps.oldest = p.newer
	}
	if p.newer != nil {
		p.newer.older = p.older
	} else {
		ps.newest = p.older
	}
	p.older, p.newer = nil, nil
}

func (ps *publishers) forget(p *publisher) {
	ps.unlink(p)
	delete(ps.byID, p.id)
	ps.holes -= len(p.holes)
}

func (p *publisher) confirm(first, last uint64) {
	if first > p.last {
		if first > p.last+1 {
			p.holes.Add(p.last+1, first-1)
		}
		p.last = last
	} else {
		p.holes = without(p.holes, first, last)
		p.last = max(p.last, last)
	}
	if n := len(p.holes) - maxHoles; n > 0 {
		p.floor = p.holes[n-1].Last
		p.holes = slices.Delete(p.holes, 0, n)
	}
}

// without returns the set without the numbers from first to last.
func without(s seqset.Set, first, last uint64) seqset.Set {
	out := make(seqset.Set, 0, len(s)+1)
	for _, x := range s {
		if x.First < first {
			out = append(out, seqset.Run{First: x.First, Last: min(x.Last, first-1)})
		}
		if x.Last > last {
			out = append(out, seqset.Run{First: max(x.First, last+1), Last: x.Last})
		}
	}
	return out
}

// free returns the last number of the unbroken run of unconfirmed numbers that starts at n. It
// returns 0 if n is confirmed.
func (p *publisher) free(n uint64) uint64 {
	if n > p.last {
		return math.MaxUint64
	}
	for _, x := range p.holes {
		if x.First <= n && n <= x.Last {
			return x.Last
		}
	}
	return 0
}

// numbers is a run of a publisher's numbers that this turn confirms and that is not a record yet.
type numbers struct {
	id           string
	first, count uint64
	limit        uint64 // the last number that the run may contain
	queue, seq   uint64 // queue and number of the first message; 0 if the messages do not follow each other in one queue
	fresh        bool   // the publisher is unknown: the record is needed even without a number
}

// flush emits the record of a run into the entry of the run's messages.
func (n *numbers) flush(m *Machine) {
	if n.count > 0 || n.fresh {
		r := &m.rec
		r.Kind, r.Name, r.First, r.Count, r.Queue, r.ToSeq = kindConfirmed, n.id, n.first, n.count, n.queue, n.seq
		m.emit(r)
	}
	*n = numbers{}
}

// numbered publishes a message with a publisher's number. The message is stored in all its queues
// or in none, because a number cannot be confirmed for a part of the queues. refused is the error
// of a message that was already refused.
func (m *Machine) numbered(in *Incoming, run *numbers, refused error) (res surgetank.PublishResult) {
	if next := run.first + run.count; in.Publisher != run.id || in.Sequence != next || next > run.limit {
		run.flush(m)
		p, limit := m.publishers.find(in.Publisher, m.now), uint64(math.MaxUint64)
		switch {
		case refused != nil && (p != nil && in.Sequence <= p.floor || p == nil && in.Sequence != 1):
			return surgetank.PublishResult{Err: refused}
		case p == nil && in.Sequence != 1:
			res.Err = forgotten("the broker does not know the publisher %.64q, which may have been idle for %d days; message %d may be stored from an earlier try. "+
				"A message that was never sent before can go under a new publisher id, numbered from 1", in.Publisher, PublisherKeep/(24*time.Hour), in.Sequence)
			return res
		case p != nil && refused == nil && in.Sequence <= p.horizon():
			return m.numberedBefore(in, p)
		case p != nil && in.Sequence <= p.floor:
			res.Err = forgotten("the broker no longer knows whether message %d of the publisher %.64q is stored: it remembers numbers from %d on", in.Sequence, in.Publisher, p.floor+1)
			return res
		case p != nil:
			if limit = p.free(in.Sequence); limit == 0 {
				return m.repeated(in, p)
			}
		}
		*run = numbers{id: in.Publisher, first: in.Sequence, limit: limit, fresh: p == nil}
	}
	if res.Err = refused; refused == nil {
		res = m.publish(in, false)
	}
	if res.Err != nil {
		run.flush(m)
		return res
	}
	switch at := res.ID; {
	case run.count == 0:
		run.queue, run.seq = at.Queue, at.Seq
	case at.Queue != run.queue || at.Seq != run.seq+run.count:
		run.queue, run.seq = 0, 0
	}
	run.count++
	return res
}

// repeated returns the result for a number that is already confirmed.
func (m *Machine) repeated(in *Incoming, p *publisher) (res surgetank.PublishResult) {
	res.Duplicate = true
	for _, name := range in.Queues {
		if q := m.byName[name]; q != nil {
			q.stats.duplicates++
		}
	}
	if q := m.byID[p.queue]; q != nil && in.Sequence >= p.first && in.Sequence-p.first < p.count {
		res.ID = q.idOf(p.seq + in.Sequence - p.first)
	}
	return res
}

func forgotten(format string, args ...any) error {
	e := surgetank.Errorf(surgetank.CodeUncertain, format, args...)
	e.Field = surgetank.FieldPublisher
	return e
}

// encode encodes a publisher for a snapshot.
func (p *publisher) encode() []byte {
	b := appendString([]byte{byte(kindSnapPublisher)}, p.id)
	for _, n := range [...]uint64{uint64(p.used), p.last, p.floor, p.first, p.count, p.queue, p.seq, uint64(len(p.holes))} {
		b = appendUint(b, n)
	}
	at := p.floor
	for _, x := range p.holes {
		b = appendUint(appendUint(b, x.First-at), x.Last-x.First)
		at = x.Last
	}
	return b
}

// restore reads a publisher from a snapshot. A snapshot contains publishers in the order of last
// use.
func (ps *publishers) restore(d *decoder) {
	p := &publisher{id: d.string(), used: d.time(), last: d.uint(), floor: d.uint(), first: d.uint(), count: d.uint(), queue: d.uint(), seq: d.uint()}
	at := p.floor
	for n := d.count(); n > 0 && d.err == nil; n-- {
		gap, length := d.uint(), d.uint()
		x := seqset.Run{First: at + gap}
		if x.Last = x.First + length; gap == 0 || x.First < at || x.Last < x.First || x.Last >= p.last {
			d.fail("the holes in a publisher's numbers do not follow each other")
			return
		}
		p.holes, at = append(p.holes, x), x.Last
	}
	switch {
	case d.err != nil:
	case p.id == "" || ps.byID[p.id] != nil || len(ps.byID) >= MaxPublishers || p.last > surgetank.MaxSequence || p.floor > p.last || len(p.holes) > maxHoles:
		d.fail("a publisher occurs twice, or its numbers are impossible")
	case ps.newest != nil && ps.newest.used > p.used:
		d.fail("publishers do not follow each other in the order of their use")
	default:
		ps.insert(p)
		ps.link(p)
	}
}
