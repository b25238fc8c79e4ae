package queue

import (
	"slices"

	"github.com/surgetank/surgetank"
)

// A message must not circle for ever among queues that dead-letter to each other. A trail prevents
// this. It lists the queues that gave the message up without a consumer, because the TTL passed or
// the queue overflowed. A reject, a failed last attempt or a redrive clears the trail. A message
// that would come to a queue of its trail again is dropped instead.
//
// A trail lists the newest queue first and is immutable. Messages with the same trail share it.
type trail struct {
	queue  string
	before *trail
}

// automatic tells whether a queue gave a message up without a consumer.
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

// step returns the trail of a message that the queue gives up by itself. A queue that is already in
// the trail is not added again, so a trail is never longer than the number of queues.
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

// circled drops a message that would come to a queue of its trail again.
func (m *Machine) circled(q *Queue, seq uint64, to string) {
	q.stats.dropped++
	q.stats.circled++
	m.notice(Circled, q, to, "")
	m.remove(q, seq, reasonCircled)
}

// refuseCircle refuses settings with which a queue would dead-letter expired messages to itself.
func refuseCircle(name string, c *surgetank.QueueConfig) error {
	if c.TTL > 0 && c.DeadLetter == name {
		return surgetank.FieldErrorf("dead_letter", "queue %q has a TTL and is its own dead-letter queue, so expired messages would never leave it; name another queue, or %q to drop them",
			shown(name), surgetank.DeadLetterDrop)
	}
	return nil
}

// encodeTrails encodes the trails of a queue's messages for a snapshot. It returns nil if there are
// none.
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

// restoreTrails decodes the output of encodeTrails.
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
			d.fail("a trail belongs to a message that has no note")
			return
		}
		nt.trail = trails[i]
	}
}
