package queue

import (
	"slices"

	"github.com/surgetank/surgetank"
)

// A message must not go round for ever among queues that dead-letter to each other. trail is how
// the machine knows: the queues that gave a message up by themselves (its TTL passed, or its queue
// overflowed) since a consumer last gave the message up, or since a redrive. A message that would
// come to a queue of its trail again is dropped instead.
//
// A trail is newest first, immutable, and shared by the messages that came the same way.
type trail struct {
	queue  string
	before *trail
}

// automatic tells whether a queue gave a message up without any consumer's doing.
func automatic(why reason) bool { return why == reasonExpired || why == reasonOverflow }

func (t *trail) has(queue string) bool {
	for ; t != nil; t = t.before {
		if t.queue == queue {
			return true
		}
	}
	return false
}

func (t *trail) names() (names []string) {
	for ; t != nil; t = t.before {
		names = append(names, t.queue)
	}
	return names
}

// step returns the trail of a message that the queue gives up by itself. A message that goes to its
// own queue makes no step, and no queue stands in a trail twice, so a trail is no longer than there
// are queues.
func (q *Queue) step(t *trail) *trail {
	if t.has(q.name) {
		return t
	}
	if q.lastStep == nil || q.lastStep.before != t {
		q.lastStep = &trail{q.name, t}
	}
	return q.lastStep
}

// trailOf returns the trail of a message; nil if it has none.
func (q *Queue) trailOf(seq uint64) *trail {
	if n := q.notes[seq]; n != nil {
		return n.trail
	}
	return nil
}

// circled drops a message that would go round.
func (m *Machine) circled(q *Queue, seq uint64, to string) {
	q.stats.dropped++
	q.stats.circled++
	m.notice(Circled, q, to, "")
	m.remove(q, seq, reasonCircled)
}

// refuseCircle refuses settings by which a queue gives its expired messages to itself.
func refuseCircle(name string, c *surgetank.QueueConfig) error {
	if c.TTL > 0 && c.DeadLetter == name {
		return surgetank.FieldErrorf("dead_letter", "queue %q has a TTL and is its own dead-letter queue, so expired messages would never leave it; name another queue, or %q to drop them",
			shown(name), surgetank.DeadLetterDrop)
	}
	return nil
}

// encodeTrails writes the trails of a queue's messages; nil if there are none.
func (q *Queue) encodeTrails() []byte {
	var seqs []uint64
	index := map[*trail]int{}
	var trails []*trail
	// unordered: sorted below
	for seq, n := range q.notes {
		if n.trail != nil {
			seqs = append(seqs, seq)
		}
	}
	if len(seqs) == 0 {
		return nil
	}
	slices.Sort(seqs)
	for _, seq := range seqs {
		if t := q.notes[seq].trail; index[t] == 0 {
			trails = append(trails, t)
			index[t] = len(trails)
		}
	}
	b := appendUint([]byte{byte(kindSnapTrails)}, q.id)
	b = appendUint(b, uint64(len(trails)))
	for _, t := range trails {
		names := t.names()
		b = appendUint(b, uint64(len(names)))
		for _, n := range names {
			b = appendString(b, n)
		}
	}
	b = appendUint(b, uint64(len(seqs)))
	for _, seq := range seqs {
		b = appendUint(b, seq)
		b = appendUint(b, uint64(index[q.notes[seq].trail]-1))
	}
	return b
}

// restoreTrails reads what encodeTrails wrote.
func (q *Queue) restoreTrails(d *decoder) {
	var trails []*trail
	for n := d.count(); n > 0 && d.err == nil; n-- {
		var names []string
		for n := d.count(); n > 0 && d.err == nil; n-- {
			names = append(names, d.string())
		}
		var t *trail
		for _, name := range slices.Backward(names) {
			t = &trail{name, t}
		}
		trails = append(trails, t)
	}
	for n := d.count(); n > 0 && d.err == nil; n-- {
		seq, i := d.uint(), d.uint()
		nt := q.notes[seq]
		if nt == nil || i >= uint64(len(trails)) {
			d.fail("a message's trail stands there without the message's note")
			return
		}
		nt.trail = trails[i]
	}
}
