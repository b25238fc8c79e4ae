package queue

import (
	"slices"
	"strconv"
	"strings"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/door"
	"github.com/surgetank/surgetank/internal/seqset"
)

// Arrive stores messages from an outbox of another shard; see outbox.go and door.Shard. Stored is
// how many messages are stored, from the first on. Known of them were stored before. Err is about the
// next message.
type Arrive struct {
	door.Arrivals
	Stored int
	Known  int
	Err    error
}

func (c *Arrive) run(m *Machine) bool {
	if c.Err != nil {
		return true
	}
	q := m.byName[c.Queue]
	if q == nil {
		c.Err = noQueue(c.Queue)
		return true
	}
	if q.frozen {
		c.Err = q.movingError()
		return true
	}
	at := m.positions(c.Outbox)
	moved := false
	defer func() {
		if moved {
			at.settle(c.Floor)
			m.emit(&Record{Kind: kindMetaSet, Namespace: door.ArrivedNamespace, Name: c.Outbox, Value: at.encode()})
		}
	}()
	for first := true; c.Stored < len(c.Msgs); first = false {
		if !first && m.turnFull() {
			return false
		}
		a := &c.Msgs[c.Stored]
		if at.has(a) {
			c.Stored++
			c.Known++
			continue
		}
		if c.Err = m.diskFull(q); c.Err != nil {
			return true
		}
		if !q.accepts(int64(len(a.Message.Body))) {
			c.Err = surgetank.Errorf(surgetank.CodeFull, "queue %q is at its limit, so it accepts no message from another shard", shown(q.name))
			return true
		}
		m.published++
		m.arrive(q, a, c.Redriven)
		at.add(a)
		moved = true
		c.Stored++
	}
	return true
}

// arrive stores one message.
func (m *Machine) arrive(q *Queue, a *door.Arrival, redriven bool) {
	r := &m.pub
	*r = Record{Kind: kindArrived, Time: m.now, Born: a.Time.UnixNano(), Priority: a.Message.Priority, BodySize: uint32(len(a.Message.Body)),
		Deaths: a.Deaths[:min(len(a.Deaths), MaxDeaths)], Redriven: redriven, Targets: r.Targets[:0]}
	t := Target{Queue: q.id, Seq: q.nextSeq, Group: a.Message.Group}
	if ttl := q.config.TTL; ttl > 0 {
		t.Expires = m.now + int64(ttl)
	}
	r.Targets = append(r.Targets, t)
	var position int
	m.out.Entry, position = appendMessage(m.out.Entry, r, &a.Message, r.Deaths)
	r.Ref = makeRef(m.entry, position)
	m.out.Records++
	m.apply(r)
	r.Deaths = nil
	q.stats.published++
	q.makeRoom()
}

// positions says which messages of an outbox are stored here: their numbers for each incarnation,
// oldest incarnation first. Numbers below the outbox's floor are joined, so a set has few runs.
type positions []position

type position struct {
	incarnation uint32
	seqs        seqset.Set
}

// maxPositions limits the incarnations that are remembered of one outbox. Messages of older
// incarnations left the outbox long ago.
const maxPositions = 32

// positions reads the positions of an outbox.
func (m *Machine) positions(outbox string) (ps positions) {
	for text := range strings.FieldsSeq(string(m.meta.spaces[door.ArrivedNamespace][outbox].Value)) {
		i, runs, _ := strings.Cut(text, ":")
		incarnation, err := strconv.ParseUint(i, 36, 32)
		if err != nil {
			continue
		}
		p := position{incarnation: uint32(incarnation)}
		for run := range strings.SplitSeq(runs, ",") {
			a, b, _ := strings.Cut(run, "-")
			first, err1 := strconv.ParseUint(a, 10, 64)
			last, err2 := strconv.ParseUint(b, 10, 64)
			if err1 == nil && err2 == nil && first <= last {
				p.seqs.Add(first, last)
			}
		}
		ps = append(ps, p)
	}
	return ps
}

func (ps positions) encode() (b []byte) {
	for i, p := range ps {
		if i > 0 {
			b = append(b, ' ')
		}
		b = append(strconv.AppendUint(b, uint64(p.incarnation), 36), ':')
		for j, run := range p.seqs {
			if j > 0 {
				b = append(b, ',')
			}
			b = append(strconv.AppendUint(b, run.First, 10), '-')
			b = strconv.AppendUint(b, run.Last, 10)
		}
	}
	return b
}

func (ps positions) index(incarnation uint32) int {
	return slices.IndexFunc(ps, func(p position) bool { return p.incarnation == incarnation })
}

// has tells whether a message is stored.
func (ps positions) has(a *door.Arrival) bool {
	i := ps.index(a.Incarnation)
	return i >= 0 && ps[i].seqs.Has(a.Seq)
}

// add notes that a message is stored.
func (ps *positions) add(a *door.Arrival) {
	i := ps.index(a.Incarnation)
	if i < 0 {
		*ps = append(*ps, position{incarnation: a.Incarnation})
		i = len(*ps) - 1
	}
	(*ps)[i].seqs.Add(a.Seq, a.Seq)
	if n := len(*ps) - maxPositions; n > 0 {
		*ps = slices.Delete(*ps, 0, n)
	}
}

// settle joins the runs below a floor.
func (ps positions) settle(floor uint64) {
	for i := range ps {
		s := ps[i].seqs
		n := 0
		for n < len(s) && s[n].Last < floor {
			n++
		}
		if n > 1 {
			ps[i].seqs.Add(s[0].First, s[n-1].Last)
		}
	}
}
