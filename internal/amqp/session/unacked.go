package session

import (
	"sort"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/amqp/topology"
)

// unacked is one delivery that waits for its acknowledgement.
type unacked struct {
	tag     uint64
	at      int64 // time of the hand-out, in passed seconds of the server's clock
	receipt surgetank.Receipt
	cons    *consumer // nil: the delivery is from basic.get
	q       *topology.Queue
	settled bool
}

// unackedList has a channel's deliveries in order of their tags. A settled delivery leaves a gap.
// Gaps are removed at the head, and everywhere when they outnumber the deliveries. So the list is
// at most about twice as long as needed.
type unackedList struct {
	list []unacked
	head int
	live int
}

func (l *unackedList) push(u unacked) {
	if l.head > 0 && len(l.list) == cap(l.list) {
		l.compact()
	}
	l.list = append(l.list, u)
	l.live++
}

func (l *unackedList) compact() {
	keep := l.list[:0]
	for _, u := range l.list[l.head:] {
		if !u.settled {
			keep = append(keep, u)
		}
	}
	clear(l.list[len(keep):])
	l.list, l.head = keep, 0
}

// all calls f for each unacknowledged delivery, lowest tag first.
func (l *unackedList) all(f func(unacked)) {
	for _, u := range l.list[l.head:] {
		if !u.settled {
			f(u)
		}
	}
}

// remove removes a tag. With multiple it removes every tag up to the given one (0: all). It appends
// the removed deliveries to to. If the tag itself is not outstanding, it removes nothing and
// returns false.
func (l *unackedList) remove(to []unacked, tag uint64, multiple bool) ([]unacked, bool) {
	rest := l.list[l.head:]
	if multiple && tag == 0 {
		if len(rest) == 0 {
			return to, true
		}
		for _, u := range rest {
			if !u.settled {
				to = append(to, u)
			}
		}
		l.reset()
		return to, true
	}
	i := 0
	if len(rest) == 0 || rest[0].tag != tag {
		i = sort.Search(len(rest), func(i int) bool { return rest[i].tag >= tag })
	}
	if i == len(rest) || rest[i].tag != tag || rest[i].settled {
		return to, false
	}
	first := i
	if multiple {
		first = 0
	}
	for j := first; j <= i; j++ {
		if !rest[j].settled {
			to = append(to, rest[j])
			rest[j].settled = true
			rest[j].cons, rest[j].q = nil, nil
			l.live--
		}
	}
	for l.head < len(l.list) && l.list[l.head].settled {
		l.head++
	}
	switch {
	case l.head == len(l.list):
		l.reset()
	case len(l.list)-l.head > 2*l.live+64:
		l.compact()
	}
	return to, true
}

// reset empties the list and keeps a limited amount of its memory.
func (l *unackedList) reset() {
	if cap(l.list) > 4096 {
		l.list = nil
	}
	l.list, l.head, l.live = l.list[:0], 0, 0
}

// restore enters deliveries again that a rolled-back transaction had removed. list is in order of
// tags.
func (l *unackedList) restore(list []unacked) {
	merged := make([]unacked, 0, l.live+len(list))
	l.all(func(u unacked) {
		for len(list) > 0 && list[0].tag < u.tag {
			merged, list = append(merged, list[0]), list[1:]
		}
		merged = append(merged, u)
	})
	l.list = append(merged, list...)
	l.head, l.live = 0, len(l.list)
}
