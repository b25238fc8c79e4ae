package queue

import (
	"slices"
)

// A consumer is told whether a message may have been delivered before. After a crash every message
// may have been: who had a lease is not on record. A clean stop puts it on record, in one fact that
// names the messages that are leased at that moment (kindClosed). All others either came back,
// which is a fact of its own, or were never handed out. So the next opening knows, and a waiting
// message costs nothing.

// maxClosing is how many leases a clean stop puts on record at most. With more, the next opening is
// as after a crash.
const maxClosing = 1 << 18

// CloseEpoch is the last command of a broker that stops cleanly. The machine hands nothing out
// afterwards and does nothing by itself. Named is how many messages were leased.
type CloseEpoch struct{ Named int }

func (c *CloseEpoch) run(m *Machine) bool {
	m.closed = true
	r := &Record{Kind: kindClosed}
	for _, q := range m.sorted() {
		if len(r.Targets)+len(q.leases) > maxClosing {
			return true
		}
		for _, seq := range slices.Sorted(leased(q)) {
			r.Targets = append(r.Targets, Target{Queue: q.id, Seq: seq})
		}
	}
	c.Named = len(r.Targets)
	m.emit(r)
	return true
}

// close applies a clean stop: what is leased will come again, and nothing else was handed out.
func (m *Machine) close(r *Record) {
	for _, t := range r.Targets {
		m.byID[t.Queue].slots.edit(t.Seq).set(slotRedelivered)
	}
	m.rested = true
}

// encodeFresh writes below which numbers messages may have been delivered before without its being
// on record; nil if there is nothing to say.
func (m *Machine) encodeFresh() []byte {
	var queues []*Queue
	for _, q := range m.order {
		if q.freshFrom > q.Floor() {
			queues = append(queues, q)
		}
	}
	if !m.rested && len(queues) == 0 {
		return nil
	}
	b := []byte{byte(kindSnapFresh), 0}
	if m.rested {
		b[1] = 1
	}
	b = appendUint(b, uint64(len(queues)))
	for _, q := range queues {
		b = appendUint(b, q.id)
		b = appendUint(b, q.freshFrom)
	}
	return b
}

func (m *Machine) restoreFresh(d *decoder) {
	m.rested = d.byte() != 0
	for n := d.count(); n > 0 && d.err == nil; n-- {
		if q := m.restoring(d); q != nil {
			q.freshFrom = d.uint()
		}
	}
}

// redelivered says whether a message may have been delivered before.
func (q *Queue) redelivered(seq uint64, s *slot) bool {
	return s.has(slotRedelivered) || seq < q.freshFrom
}
