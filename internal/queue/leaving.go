package queue

// leaving contains the leases whose hand-outs have not left the broker, in the order of their
// turns. Its memory is used again, because it becomes empty after almost every turn.
type leaving struct {
	list []departure
	head int // list[:head] has left
}

type departure struct {
	l    *lease
	no   uint64
	turn uint64
}

const (
	// maxLeaving bounds the list. Further hand-outs count as sent at the time when they were
	// decided.
	maxLeaving = 1 << 16

	// spareLeaving is the size up to which an empty list keeps its memory.
	spareLeaving = 1 << 13
)

func (x *leaving) add(l *lease, turn uint64) {
	if len(x.list)-x.head >= maxLeaving {
		return
	}
	if len(x.list) == cap(x.list) && x.head > len(x.list)/2 {
		n := copy(x.list, x.list[x.head:])
		clear(x.list[n:])
		x.list, x.head = x.list[:n], 0
	}
	x.list = append(x.list, departure{l, l.no, turn})
}

// Released tells the machine that the hand-outs of turn and of all earlier turns left the broker at
// now. The measured latency of a target begins at this time, so that a slow disk of the broker does
// not count as a slow target.
func (m *Machine) Released(turn uint64, now int64) {
	x := &m.leaving
	for ; x.head < len(x.list) && x.list[x.head].turn <= turn; x.head++ {
		if d := &x.list[x.head]; d.l.no == d.no && d.l.consumer != nil {
			d.l.released = now
		}
	}
	if x.head < len(x.list) {
		return
	}
	if x.head = 0; cap(x.list) > spareLeaving {
		x.list = nil
	}
	x.list = x.list[:0]
}
