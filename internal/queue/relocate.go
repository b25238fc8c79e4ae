package queue

import (
	"slices"
	"time"

	"github.com/surgetank/surgetank"
)

// Survivor is a message that is still needed and whose record, or a dead-letter note of it, is in a
// part of the log that is to be freed.
type Survivor struct {
	Queue, Seq uint64
	Ref        Ref
	Notes      []Ref
}

// Survivors lists the survivors of a range of entries. It looks at a limited number of slots in
// each turn. Send it again until Done.
type Survivors struct {
	First, End uint64 // entries
	Found      []Survivor
	Done       bool

	queue, seq uint64
}

func (c *Survivors) run(m *Machine) bool {
	in := func(r Ref) bool { return r.Entry() >= c.First && r.Entry() < c.End }
	budget := m.share(costPeek)
	defer func(all int) { m.spend(all-budget, costPeek) }(budget)
	for _, q := range m.from(c.queue) {
		if budget <= 0 {
			return true
		}
		if q.id > c.queue {
			c.queue, c.seq = q.id, 0
		}
		next, n := q.slots.scan(c.seq, budget, func(seq uint64, s *slot) bool {
			if !s.live() || s.state() == slotHeld || s.state() == slotLost || q.suspect[seq] != nil {
				return true // a message that cannot be read cannot be moved
			}
			hit := in(s.ref())
			if s.has(slotNoted) && !hit {
				hit = slices.ContainsFunc(q.notes[seq].refs, in)
			}
			if hit {
				v := Survivor{Queue: q.id, Seq: seq, Ref: s.ref()}
				if s.has(slotNoted) {
					v.Notes = slices.Clone(q.notes[seq].refs)
				}
				c.Found = append(c.Found, v)
			}
			return true
		})
		budget -= max(n, 1)
		if c.seq = next; next != 0 {
			return true
		}
		c.queue = q.id + 1
	}
	c.Done = true
	return true
}

// Relocate writes survivors again at the log's end. Survivors with the same record must follow each
// other; they are stored once.
type Relocate struct {
	Items []Relocation
	Moved int

	next int
}

// Relocation is one survivor and its content, read from the log.
type Relocation struct {
	Survivor
	Message *surgetank.Message
	Deaths  []surgetank.Death // the whole dead-letter history, newest first
	Time    time.Time
}

func (c *Relocate) run(m *Machine) bool {
	for c.next < len(c.Items) {
		if c.next > 0 && m.turnFull() {
			return false
		}
		first := &c.Items[c.next]
		r := &Record{Kind: kindMoved, BodySize: uint32(len(first.Message.Body)), Priority: first.Message.Priority}
		n := 0
		for ; c.next+n < len(c.Items); n++ {
			it := &c.Items[c.next+n]
			if it.Ref != first.Ref || n > 0 && (len(it.Deaths) > 0 || len(first.Deaths) > 0) {
				break
			}
			q := m.byID[it.Queue]
			if q == nil {
				continue
			}
			if s := q.slots.get(it.Seq); s != nil && s.live() && s.ref() == it.Ref {
				r.Targets = append(r.Targets, Target{Queue: it.Queue, Seq: it.Seq, Group: q.groupName(s.flow)})
			}
		}
		c.next += n
		if len(r.Targets) == 0 {
			continue
		}
		var position int
		r.Time = first.Time.UnixNano()
		if first.Message.Delay > 0 {
			r.NotBefore = r.Time + int64(first.Message.Delay) // for readers of the log; the queue's own state has the time for which the message waits
		}
		m.out.Entry, position = appendMessage(m.out.Entry, r, first.Message, first.Deaths)
		r.Ref = makeRef(m.entry, position)
		m.out.Records++
		m.apply(r)
		c.Moved += len(r.Targets)
	}
	return true
}
