package model

import (
	"slices"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/breaker"
)

// Why returns the reason, as explain reports it, why a queue's next message waits.
func (q *Queue) Why() string {
	var waits, damaged []*Message
	for _, x := range q.msgs {
		switch {
		case x.state == surgetank.StateDamaged:
			damaged = append(damaged, x)
		case x.state != surgetank.StateLeased:
			waits = append(waits, x)
		}
	}
	switch {
	case len(waits) == 0 && len(damaged) > 0:
		return "damaged"
	case len(waits) == 0:
		return "empty"
	case q.Config.Paused:
		return "paused"
	case q.shut():
		return q.whyShut()
	case q.any():
		if word := q.whyLevel(); word != "turn" || len(damaged) == 0 {
			return word
		}
		return "damaged"
	}
	// The next message is the one that has waited longest in a line. If no message waits in a line,
	// it is the message whose time comes first.
	first := func(list []*Message, time func(*Message) int64) *Message {
		return slices.MinFunc(list, func(a, b *Message) int {
			if time(a) != time(b) {
				return int(min(1, max(-1, time(a)-time(b))))
			}
			return int(int64(a.seq) - int64(b.seq))
		})
	}
	inLine := slices.DeleteFunc(slices.Clone(waits), func(x *Message) bool { return !x.waits(q.m.Now) || q.stuck(x) })
	if len(inLine) > 0 {
		return q.WhyMessage(first(inLine, (*Message).seconds).seq)
	}
	waits = slices.DeleteFunc(waits, q.stuck)
	if len(waits) == 0 {
		return "key_busy"
	}
	return q.WhyMessage(first(waits, func(x *Message) int64 { return x.notBefore }).seq)
}

// WhyMessage returns the reason, as explain reports it, why one message waits.
func (q *Queue) WhyMessage(seq uint64) string {
	x, now := q.Find(seq), q.m.Now
	group, front := x.group != "", q.front(x.key())
	damagedFirst := slices.ContainsFunc(q.msgs, func(o *Message) bool { return o.state == surgetank.StateDamaged && o.key() == x.key() })
	switch {
	case x.state == surgetank.StateDamaged || x.suspect:
		return "damaged"
	case x.state == surgetank.StateLeased:
		return "leased"
	case q.Config.Paused:
		return "paused"
	case q.shut():
		return q.whyShut()
	case q.stuck(x):
		return "key_busy"
	case x.state == surgetank.StateDelayed && !x.again && x.chain.id != "" && !x.chain.late:
		return "coalescing"
	case x.state == surgetank.StateDelayed && !x.again:
		return "delayed"
	case x.delayed(now) && q.budgetShare() > 0 && x.notBefore <= now+1:
		return "retry_budget"
	case x.delayed(now):
		return "back_off"
	case q.ahead(x) != nil:
		return "key_busy"
	case x.collects(now):
		return "coalescing"
	case !group:
		return q.whyLevel()
	}
	// The message is in its group's line.
	g := q.Config.Group
	full := g.MaxInFlight > 0 && q.inFlight(x.key()) >= q.groupLimit(x.key())
	switch {
	case full && damagedFirst:
		return "damaged"
	case front != x && !q.groupMayGo(x.key()):
		return "behind"
	case full:
		return "group_in_flight"
	case !q.groupMayGo(x.key()):
		return "group_rate"
	}
	if g.MaxInFlight > 0 && front != x {
		waiting := 0
		for _, o := range q.msgs {
			if o.key() == x.key() && o.waits(now) {
				waiting++
			}
		}
		if q.groupLimit(x.key())-q.inFlight(x.key()) < waiting {
			return "behind"
		}
	}
	return q.whyLevel()
}

// whyShut returns the reason, as explain reports it, when the breaker stops hand-outs.
func (q *Queue) whyShut() string {
	if q.Control.state() == breaker.Probing {
		return "probing"
	}
	return "breaker_open"
}

// whyLevel returns the reason for which the queue keeps back a message that its group permits.
func (q *Queue) whyLevel() string {
	l := q.Config.Level
	switch {
	case l.MaxInFlight > 0 && q.count(surgetank.StateLeased, "") >= l.MaxInFlight:
		return "level_in_flight"
	case l.Rate > 0 && due(q.tat, l.Rate, l.Burst) > q.m.Now:
		return "level_rate"
	case q.full():
		return "level_adaptive"
	}
	for _, c := range q.line {
		if c.willing() && c.active() && !c.kept() {
			return "turn"
		}
	}
	if len(q.consumers) == 0 {
		return "no_consumer"
	}
	return "no_credit"
}

// Numbers returns the numbers of all messages.
func (q *Queue) Numbers() (seqs []uint64) {
	for _, x := range q.msgs {
		seqs = append(seqs, x.seq)
	}
	return seqs
}
