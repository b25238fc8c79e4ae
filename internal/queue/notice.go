package queue

import "slices"

// Notice counts the messages of a queue to which something happened in a turn that an operator
// should know.
type Notice struct {
	What      What
	Queue, To string // To is the dead-letter queue
	Messages  int64
	Reason    string // reason of the last message; can be empty
}

// What is the kind of a notice.
type What string

const (
	Circled   What = "circled"    // dropped, because they would circle among queues
	Parked    What = "parked"     // moved to a dead-letter queue: rejected, or at their attempt limit
	LeaseLost What = "lease_lost" // their lease ended without an ack
	Refused   What = "refused"    // refused at publish, because the queue was at its limit
)

// maxNotices is how many notices one turn makes. Further messages of a kind are counted in one
// notice without a queue.
const maxNotices = 64

// notice counts one message.
func (m *Machine) notice(what What, q *Queue, to, reason string) {
	list := m.out.Notices
	name := q.name
	find := func() int {
		return slices.IndexFunc(list, func(n Notice) bool { return n.What == what && n.Queue == name && n.To == to })
	}
	i := find()
	if i < 0 && len(list) >= maxNotices {
		name, to = "", ""
		i = find()
	}
	if i < 0 {
		i = len(list)
		m.out.Notices = append(list, Notice{What: what, Queue: name, To: to})
	}
	n := &m.out.Notices[i]
	n.Messages++
	n.Reason = reason
}
