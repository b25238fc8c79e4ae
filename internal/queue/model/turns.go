package model

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/surgetank/surgetank"
)

// The order of groups. Each group that may deliver has a ticket: the group with the lowest ticket
// of a line is first. A line contains the groups of one priority that are fresh, or those that are
// not. It has a new part and an old part, each with its own order.

// newRun is how many hand-outs in a row the new part of a line has while the old part waits.
const newRun = 8

// turns is the state of one group in the order.
type turns struct {
	ticket   int // 0: the group is in no line
	old      bool
	seen     bool // the group was in the new part
	left     int  // hand-outs that are left of its turn
	front    uint64
	priority uint8
	fresh    bool
}

// order is the state of the whole queue in the order.
type order struct {
	tickets int
	credit  int64
	run     map[lineKey]int
	relined bool // the broker was opened, and the lines without a group were not made yet
}

type lineKey struct {
	priority uint8
	fresh    bool
}

// ordered tells whether the queue's groups have tickets. Otherwise the best front message is
// delivered next.
func (q *Queue) ordered() bool { return q.Config.Group.Fair || q.Config.Level.FreshShare > 0 }

// forgetOrder removes all tickets.
func (q *Queue) forgetOrder() {
	q.order = order{run: map[lineKey]int{}, relined: q.order.relined}
	for _, key := range slices.Sorted(maps.Keys(q.groups)) {
		q.forgetTurn(key)
	}
}

// seconds is the time from which a message's age counts.
func (x *Message) seconds() int64 { return x.since / int64(time.Second) * int64(time.Second) }

func (q *Queue) isFresh(x *Message) bool {
	l := q.Config.Level
	return l.FreshShare > 0 && x.seconds()+int64(l.FreshAge) > q.m.Now
}

// reline puts a message without a group into the line of its age.
func (q *Queue) reline(x *Message) {
	old := x.key()
	x.backlog = x.group == "" && q.Config.Level.FreshShare > 0 && !q.isFresh(x)
	if x.key() != old {
		q.tidy(old)
	}
	q.group(x.key())
}

// age moves messages without a group that are no longer fresh to the line of the backlog. It stops
// at the first message of a line that is fresh.
func (q *Queue) age() {
	if q.relined {
		q.relined = false
		for _, x := range q.msgs {
			q.reline(x)
		}
	}
	if q.Config.Level.FreshShare == 0 {
		return
	}
	for again := true; again; {
		again = false
		for _, key := range slices.Sorted(maps.Keys(q.groups)) {
			if x := q.front(key); x != nil && x.group == "" && !x.backlog && !q.isFresh(x) {
				x.backlog, again = true, true
				q.group(x.key())
				q.tidy(key)
			}
		}
	}
}

// tidy removes a group without messages. A group with a ticket stays until its turn.
func (q *Queue) tidy(key string) {
	g := q.groups[key]
	if g != nil && g.ticket == 0 && g.tat <= q.m.Now && key != plainLine && !slices.ContainsFunc(q.msgs, func(o *Message) bool { return o.key() == key }) {
		delete(q.groups, key)
	}
}

// any tells whether the queue has a group that may deliver now.
func (q *Queue) any() bool {
	for key := range q.groups {
		if q.groupMayGo(key) {
			return true
		}
	}
	return false
}

// settle adds tickets to the groups that may deliver now, and removes the tickets of other groups.
func (q *Queue) settle() {
	q.age()
	if !q.ordered() {
		return
	}
	fair := q.Config.Group.Fair
	var join []string
	for key, g := range q.groups {
		x := q.front(key)
		switch {
		case q.groupMayGo(key):
			switch {
			case g.ticket > 0 && g.front == x.seq:
				continue
			case g.ticket > 0 && fair && g.priority == x.priority && g.fresh == q.isFresh(x):
				g.front = x.seq
				continue
			}
			join = append(join, key)
		case x == nil && fair:
			g.seen = g.seen && g.ticket > 0
		default:
			g.ticket = 0
		}
	}
	slices.SortFunc(join, func(a, b string) int { return cmp.Compare(q.front(a).seq, q.front(b).seq) })
	for _, key := range join {
		q.join(key)
	}
	for _, key := range slices.Sorted(maps.Keys(q.groups)) {
		q.tidy(key)
	}
}

func (q *Queue) join(key string) {
	g, x := q.groups[key], q.front(key)
	g.front, g.priority, g.fresh = x.seq, x.priority, q.isFresh(x)
	g.old, g.seen = g.seen, true
	if g.left == 0 {
		g.left = q.weight(key)
	}
	q.ticket(g)
}

func (q *Queue) ticket(g *flow) {
	q.tickets++
	g.turns.ticket = q.tickets
}

func (q *Queue) weight(key string) int {
	w := q.Config.Group.Weights
	if n := w[key]; n > 0 {
		return n
	}
	return max(1, w[surgetank.OtherGroups])
}

// linePart returns the groups of one part of a line in their order.
func (q *Queue) linePart(k lineKey, old bool) []string {
	var keys []string
	for key, g := range q.groups {
		if g.turns.ticket > 0 && g.priority == k.priority && g.fresh == k.fresh && g.old == old {
			keys = append(keys, key)
		}
	}
	slices.SortFunc(keys, func(a, b string) int { return q.groups[a].turns.ticket - q.groups[b].turns.ticket })
	return keys
}

// skipEmpty ends the turns of the empty groups at the head of a line.
func (q *Queue) skipEmpty(k lineKey) {
	for _, key := range q.linePart(k, false) {
		if q.front(key) != nil {
			break
		}
		q.groups[key].old = true
		q.ticket(q.groups[key])
	}
	for _, key := range q.linePart(k, true) {
		if q.front(key) != nil {
			break
		}
		q.forgetTurn(key)
	}
}

func (q *Queue) forgetTurn(key string) {
	q.groups[key].turns = turns{}
	q.tidy(key)
}

// dropEmpty forgets the empty groups when no group may deliver.
func (q *Queue) dropEmpty() {
	for _, key := range slices.Sorted(maps.Keys(q.groups)) {
		if q.groups[key].turns.ticket > 0 {
			q.forgetTurn(key)
		}
	}
}

// first returns the group whose turn it is in a line, and whether it is in the new part.
func (q *Queue) first(k lineKey) (string, bool) {
	fresh, old := q.linePart(k, false), q.linePart(k, true)
	if len(fresh) > 0 && (len(old) == 0 || q.run[k] < newRun) {
		return fresh[0], true
	}
	return old[0], false
}

// lines returns the fresh lines, or the other ones, that have a group that may deliver, highest
// priority first.
func (q *Queue) lines(fresh bool) []lineKey {
	var list []lineKey
	for key, g := range q.groups {
		k := lineKey{g.priority, fresh}
		if g.turns.ticket > 0 && g.fresh == fresh && q.front(key) != nil && !slices.Contains(list, k) {
			list = append(list, k)
		}
	}
	slices.SortFunc(list, func(a, b lineKey) int { return int(b.priority) - int(a.priority) })
	return list
}

// aged returns the time by which priority ageing orders messages, lowest first: the message's own
// time, minus priority_step for each level of priority.
func (q *Queue) aged(x *Message) int64 {
	return x.seconds() - int64(x.priority)*int64(q.Config.PriorityStep)
}

// before tells whether front message a is delivered before front message b if turns do not matter.
func (q *Queue) before(a, b *Message) bool {
	if q.Config.PriorityStep > 0 && q.aged(a) != q.aged(b) {
		return q.aged(a) < q.aged(b)
	}
	if a.priority != b.priority || q.ordered() {
		return a.priority > b.priority || a.priority == b.priority && a.seq < b.seq
	}
	return a.rank() < b.rank() // a replacement keeps the rank of the message that it superseded
}

// tops returns the groups that can be next, among fresh groups or among the others. With turns,
// these are the first groups of the lines; otherwise, the group with the best front message.
func (q *Queue) tops(fresh bool) []string {
	if !q.Config.Group.Fair {
		best := ""
		for key, g := range q.groups {
			if g.turns.ticket > 0 && g.fresh == fresh && (best == "" || q.before(q.front(key), q.front(best))) {
				best = key
			}
		}
		if best == "" {
			return nil
		}
		return []string{best}
	}
	var keys []string
	for _, k := range q.lines(fresh) {
		q.skipEmpty(k)
		key, _ := q.first(k)
		if keys = append(keys, key); q.Config.PriorityStep == 0 {
			break
		}
	}
	return keys
}

// retire moves groups whose front message is no longer fresh to the backlog. It moves only groups
// that could be next.
func (q *Queue) retire() {
	for again := true; again; {
		again = false
		for _, key := range q.tops(true) {
			if !q.isFresh(q.front(key)) {
				q.groups[key].turns.ticket, again = 0, true
				q.join(key)
				break
			}
		}
	}
}

// nextGroup returns the group whose turn it is.
func (q *Queue) nextGroup() string {
	if !q.ordered() {
		best := ""
		for key := range q.groups {
			if q.groupMayGo(key) && (best == "" || q.before(q.front(key), q.front(best))) {
				best = key
			}
		}
		return best
	}
	if share := q.Config.Level.FreshShare; share > 0 {
		q.retire()
		q.credit += int64(share * 1e6)
	}
	step := q.Config.PriorityStep
	lowest := func(keys []string) *Message {
		var best *Message
		for _, key := range keys {
			x := q.front(key)
			if best == nil || step > 0 && q.aged(x) < q.aged(best) { // among equals, the group with the higher priority is first
				best = x
			}
		}
		return best
	}
	a, b := lowest(q.tops(false)), lowest(q.tops(true))
	fresh := false
	switch {
	case b == nil:
	case a == nil:
		fresh = true
	case step == 0 && a.priority != b.priority:
		fresh = b.priority > a.priority
	case q.credit >= 1e6:
		fresh = true
		q.credit -= 1e6
	case step > 0:
		fresh = q.aged(b) < q.aged(a) || q.aged(a) == q.aged(b) && b.priority > a.priority
	}
	q.credit = min(q.credit, 1e6)
	if fresh {
		a = b
	}
	if !q.Config.Group.Fair {
		return a.key()
	}
	k := lineKey{a.priority, fresh}
	key, isNew := q.first(k)
	if isNew && len(q.linePart(k, true)) > 0 {
		q.run[k]++
	} else {
		q.run[k] = 0
	}
	return key
}

// turnTaken counts a hand-out of a group.
func (q *Queue) turnTaken(key string) {
	if !q.Config.Group.Fair {
		return
	}
	g := q.groups[key]
	if g.left = min(g.left, q.weight(key)) - 1; g.left > 0 {
		return
	}
	g.left, g.old = q.weight(key), true
	q.ticket(g)
}
