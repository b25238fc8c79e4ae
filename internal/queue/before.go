package queue

import (
	"slices"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/seqset"
)

// A queue that moved here has messages with publishers' numbers that its old shard confirmed. This
// shard does not know these numbers. So each publisher keeps, for each queue that moved here, the
// numbers of the old shard. A number up to the horizon is decided for each queue of its message:
//
//	the queue moved here     its old shard confirmed the number     the queue has the message
//	                         nobody confirmed it                    the queue does not have it
//	                         only this shard confirmed it           not known if the message has other queues, too
//	any other queue          this shard confirmed the number        the queue has the message
//
// Higher numbers come after the move and have no such rule.

// before is what a publisher's numbers mean for one queue that moved here.
type before struct {
	queue   uint64
	horizon uint64     // higher numbers were not known to this shard when the queue came
	known   seqset.Set // the queue has these messages
	unsure  seqset.Set // forgotten numbers, and numbers that can belong to other queues only
}

// maxKnown limits the runs of known numbers of one queue. When there are more, the oldest numbers
// are forgotten.
const maxKnown = maxHoles

// known is what is known about a number.
type known uint8

const (
	isNew known = iota
	isUnsure
	isKnown
)

func (b *before) knows(n uint64) known {
	switch {
	case b.known.Has(n):
		return isKnown
	case b.unsure.Has(n):
		return isUnsure
	}
	return isNew
}

// of returns what a publisher's earlier numbers mean for a queue, or nil.
func (p *publisher) of(queue uint64) *before {
	if i := slices.IndexFunc(p.before, func(b before) bool { return b.queue == queue }); i >= 0 {
		return &p.before[i]
	}
	return nil
}

// horizon returns the highest number that a rule for queues that moved here decides.
func (p *publisher) horizon() (n uint64) {
	for i := range p.before {
		n = max(n, p.before[i].horizon)
	}
	return n
}

// leaving returns what the numbers mean for a queue that leaves this shard.
func (p *publisher) leaving(queue uint64) before {
	out := before{queue: queue, horizon: p.last}
	up := uint64(0) // up to here, numbers of this shard can belong to other queues only
	if b := p.of(queue); b != nil {
		out.horizon, out.known, out.unsure = max(p.last, b.horizon), slices.Clone(b.known), slices.Clone(b.unsure)
		up = b.horizon
	}
	if p.floor > 0 {
		out.unsure.Add(1, p.floor)
	}
	next := p.floor + 1
	confirmed := func(last uint64) { // from next on
		if next <= min(last, up) {
			out.unsure.Add(next, min(last, up))
		}
		if next = max(next, up+1); next <= last {
			out.known.Add(next, last)
		}
	}
	for _, h := range p.holes {
		confirmed(h.First - 1)
		next = h.Last + 1
	}
	confirmed(p.last)
	if n := len(out.known) - maxKnown; n > 0 {
		out.unsure = seqset.Set{{First: 1, Last: out.known[n-1].Last}}
		out.known = out.known[n:]
	}
	return out
}

// encode encodes a before, as a frame of a snapshot or of a move.
func (x before) encode(id string) []byte {
	b := appendString([]byte{byte(kindSnapBefore)}, id)
	b = appendUint(appendUint(b, x.queue), x.horizon)
	for _, set := range [...]seqset.Set{x.known, x.unsure} {
		b = appendUint(b, uint64(len(set)))
		for _, r := range set {
			b = appendUint(appendUint(b, r.First), r.Last)
		}
	}
	return b
}

// before decodes the output of encode, after its kind.
func (d *decoder) before() (id string, x before, ok bool) {
	id, x.queue, x.horizon = d.string(), d.uint(), d.uint()
	x.known, x.unsure = d.runs(), d.runs()
	return id, x, d.err == nil
}

// runs reads a set of numbers.
func (d *decoder) runs() (s seqset.Set) {
	at := uint64(0)
	for n := d.count(); n > 0 && d.err == nil; n-- {
		r := seqset.Run{First: d.uint(), Last: d.uint()}
		if r.First <= at || r.Last < r.First || r.Last > surgetank.MaxSequence {
			d.fail("the numbers of a publisher do not follow each other")
			return nil
		}
		s, at = append(s, r), r.Last
	}
	return s
}

// learn enters what a publisher's numbers mean for a queue that comes from another shard, or that a
// snapshot has.
func (ps *publishers) learn(m *Machine, d *decoder, now int64) {
	id, x, ok := d.before()
	if !ok {
		return
	}
	p := ps.byID[id]
	if p == nil {
		for len(ps.byID) >= MaxPublishers {
			ps.forget(ps.oldest)
		}
		p = &publisher{id: id}
		ps.insert(p)
		if p.used = now; ps.newest != nil {
			p.used = max(p.used, ps.newest.used)
		}
		ps.link(p)
	}
	if now != 0 { // not from a snapshot
		x.horizon = max(x.horizon, p.last)
	}
	p.before = slices.DeleteFunc(p.before, func(b before) bool { return b.queue == x.queue || m.byID[b.queue] == nil && now != 0 })
	if x.horizon > 0 {
		p.before = append(p.before, x)
	}
}

// numberedBefore decides about a message with a number up to the publisher's horizon.
func (m *Machine) numberedBefore(in *Incoming, p *publisher) (res surgetank.PublishResult) {
	here := in.Sequence <= p.floor
	stored := !here && p.free(in.Sequence) == 0
	p0 := *in.Publishing
	rest := Incoming{Publishing: &p0, Dedup: in.Dedup, DedupBy: in.DedupBy}
	p0.Queues = nil
	unsure := false
	for i, name := range in.Queues {
		q := m.byName[name]
		k := isNew
		var b *before
		if q != nil {
			b = p.of(q.id)
		}
		switch {
		case b != nil && in.Sequence <= b.horizon:
			if k = b.knows(in.Sequence); k == isNew && (stored || here) {
				if k = isUnsure; stored && len(in.Queues) == 1 {
					k = isKnown
				}
			}
		case here:
			k = isUnsure
		case stored:
			k = isKnown
		}
		switch k {
		case isUnsure:
			unsure = true
		case isNew:
			p0.Queues = append(p0.Queues, name)
			if in.Groups != nil {
				rest.Groups = append(rest.Groups, in.Groups[i])
			}
			if in.Keys != nil {
				rest.Keys = append(rest.Keys, in.Keys[i])
			}
		}
	}
	switch {
	case unsure:
		res.Err = forgotten("the broker does not know whether message %d of the publisher %.64q is stored in all its queues: a queue has moved to another shard since", in.Sequence, in.Publisher)
		return res
	case len(p0.Queues) == 0:
		return m.repeated(in, p)
	}
	if res = m.publish(&rest, false); res.Err != nil || stored {
		return res
	}
	run := numbers{id: in.Publisher, first: in.Sequence, count: 1, queue: res.ID.Queue, seq: res.ID.Seq}
	run.flush(m)
	return res
}
