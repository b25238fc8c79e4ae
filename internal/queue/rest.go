package queue

import (
	"slices"
)

// A consumer is told whether a message was possibly delivered before. After a crash this is
// possible for every message, because the log does not contain leases. A clean stop logs one record
// (kindClosed) that names the messages leased at that moment. All other messages were either
// returned, which is a record of its own, or never handed out. So the next opening knows which
// messages were delivered, at no cost for a waiting message.

// maxClosing is how many leases a clean stop records at most. If there are more leases, the next
// opening treats every message as after a crash.
const maxClosing = 1 << 18

// CloseEpoch is the last command of a broker that stops cleanly. After it the machine hands nothing
// out and does nothing by itself. Named is how many messages were leased.
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

// close applies a clean stop: leased messages are delivered again, and no other message was handed
// out.
func (m *Machine) close(r *Record) {
	for _, t := range r.Targets {
		m.byID[t.Queue].slots.edit(t.Seq).set(slotRedelivered)
	}
	m.rested = true
}

// encodeFresh encodes, for each queue, the number below which messages were possibly delivered
// before. It returns nil if no queue has such a number.
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

// redelivered tells whether a message was possibly delivered before.
func (q *Queue) redelivered(seq uint64, s *slot) bool {
	return s.has(slotRedelivered) || seq < q.freshFrom
}
