package queue

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/surgetank/surgetank"
)

// tops finds the groups of a queue with the highest values of each figure. It reads every flow
// once, in each turn as many as the turn allows. Its memory does not depend on the number of
// groups.
type tops struct {
	next, until uint32 // flows
	by          [len(figures)][]leader
}

// leader is a group with one of its figures.
type leader struct {
	figure int64
	group  string
}

// topGroups is how many groups lead in each figure.
const topGroups = 64

// figures are the values by which groups are ranked. A group whose figure is 0 does not lead.
var figures = [...]func(q *Queue, h uint32, f *flow) int64{
	func(_ *Queue, _ uint32, f *flow) int64 { return int64(f.waiting + f.delayed) },
	func(_ *Queue, _ uint32, f *flow) int64 { return int64(f.inflight) },
	(*Queue).frontAge,
	func(q *Queue, h uint32, _ *flow) int64 {
		if len(q.rates.entries) == 0 {
			return 0
		}
		return int64(q.rates.rate(q.groupName(h), q.m.now) * 1e6)
	},
}

// frontAge returns how long a flow's first message has waited, plus 1; 0 if none waits.
func (q *Queue) frontAge(h uint32, f *flow) int64 {
	if f.waiting == 0 {
		return 0
	}
	s := q.slots.get(q.frontOf(h))
	return max(0, q.m.now-s.nanos()) + 1
}

// read continues to read the flows. It returns true when all flows are read.
func (t *tops) read(q *Queue) bool {
	if t.next == 0 {
		t.next, t.until = 1, uint32(len(q.flows)) // flow 0 has no group
	}
	n := uint32(q.m.share(costTop))
	for end := min(t.next+n, t.until, uint32(len(q.flows))); t.next < end; t.next++ {
		f := &q.flows[t.next]
		if f.free || f.waiting+f.inflight+f.delayed == 0 || q.groupName(t.next) == "" {
			continue
		}
		for i, figure := range figures {
			t.rank(i, leader{figure(q, t.next, f), f.name})
		}
	}
	q.m.spend(int(n), costTop)
	return t.next >= min(t.until, uint32(len(q.flows)))
}

// costTop is the cost of reading one flow (see pages.go).
const costTop = 1

// rank adds a group to the leaders of a figure if it is one of them.
func (t *tops) rank(i int, x leader) {
	list := t.by[i]
	if x.figure == 0 || len(list) == topGroups && x.figure <= list[topGroups-1].figure {
		return
	}
	at, _ := slices.BinarySearchFunc(list, x, func(a, b leader) int { return cmp.Compare(b.figure, a.figure) })
	list = slices.Insert(list, at, x)
	t.by[i] = list[:min(len(list), topGroups)]
}

// groups returns the leaders with their present figures: most waiting messages first.
func (t *tops) groups(q *Queue) (list []surgetank.GroupFigures) {
	seen := map[string]bool{}
	for _, leaders := range t.by {
		for _, x := range leaders {
			h, ok := q.byGroup[x.group]
			if !ok || seen[x.group] {
				continue
			}
			seen[x.group] = true
			f := &q.flows[h]
			list = append(list, surgetank.GroupFigures{Group: x.group, Waiting: int64(f.waiting + f.delayed), InFlight: int64(f.inflight),
				Rate: q.rates.rate(x.group, q.m.now), Age: time.Duration(max(0, q.frontAge(h, f)-1))})
		}
	}
	slices.SortFunc(list, func(a, b surgetank.GroupFigures) int {
		return cmp.Or(cmp.Compare(b.Waiting, a.Waiting), cmp.Compare(b.InFlight, a.InFlight), strings.Compare(a.Group, b.Group))
	})
	return list
}
