package history

import (
	"cmp"
	"slices"
	"time"

	"github.com/anishathalye/porcupine"
)

// The life of one message, as a sequential machine. Porcupine searches for an order of all calls on
// one message that this machine allows and that agrees with the times. Messages are independent, so
// each is searched alone.
//
//	absent ──stored──▶ ready ──deliver r──▶ leased r ──ack r, reject r──▶ gone
//	                     ▲                     │
//	                     └──nack r, expiry of r, end of the server──┘
//
// Events with an unknown outcome have no end (Return is Never): an ack whose answer was lost, and
// the expiry of an unsettled lease. So the search can put these events last, where they have no
// effect.
type phase uint8

const (
	absent phase = iota
	ready
	leased
	gone
)

type life struct {
	phase   phase
	receipt string
}

type event uint8

const (
	evStored event = iota
	evDeliver
	evAck    // ack or reject: gone, if the lease is live
	evNack   // ready again, if the lease is live
	evLost   // a settlement that was refused: the lease was not live
	evExtend // done: the lease was live
	evExpire // may happen any time after the deadline
	evEnd    // the server ended: every lease is over
)

type step struct {
	event   event
	receipt string
	sure    bool // the settlement was confirmed, so the lease must have been live
}

var lifeModel = porcupine.Model{
	Init: func() any { return life{} },
	Step: func(s, in, _ any) (bool, any) {
		now, do := s.(life), in.(step)
		live := now.phase == leased && now.receipt == do.receipt
		switch do.event {
		case evStored:
			return now.phase == absent, life{phase: ready}
		case evDeliver:
			return now.phase == ready, life{leased, do.receipt}
		case evAck:
			if live {
				return true, life{phase: gone}
			}
			return !do.sure, now
		case evNack:
			if live {
				return true, life{phase: ready}
			}
			return !do.sure, now
		case evLost:
			return !live, now
		case evExtend:
			return live || !do.sure, now
		case evExpire:
			if live {
				return true, life{phase: ready}
			}
			return true, now
		case evEnd:
			if now.phase == leased {
				return true, life{phase: ready}
			}
			return true, now
		}
		return false, now
	},
	Equal: func(a, b any) bool { return a == b },
}

// LifeCycle checks with Porcupine that the calls on each message fit the machine above. unknown
// counts messages whose search did not end in time.
func LifeCycle(h *History, timeout time.Duration) (checked, unknown int, bad []Finding) {
	var ends []porcupine.Operation
	for _, d := range outages(h) {
		ends = append(ends, porcupine.Operation{Call: int64(d[0]), Return: int64(d[1]), Input: step{event: evEnd}})
	}
	lives := gather(h)
	names := make([]message, 0, len(lives))
	for m := range lives {
		names = append(names, m)
	}
	slices.SortFunc(names, func(a, b message) int { return cmp.Or(cmp.Compare(a.queue, b.queue), cmp.Compare(a.id, b.id)) })
	limit := time.Now().Add(timeout)
	for _, m := range names {
		l := lives[m]
		if l.delivered == 0 {
			continue // TotalQueue reports undelivered messages
		}
		checked++
		ops := l.operations()
		last := l.last
		for _, e := range ends {
			if e.Return > int64(l.first) && e.Call < int64(last) {
				ops = append(ops, e)
			}
		}
		for i := range ops {
			ops[i].ClientId = i // Porcupine allows a client one call at a time
		}
		left := time.Until(limit)
		if left <= 0 {
			unknown++
			continue
		}
		switch porcupine.CheckOperationsTimeout(lifeModel, ops, left) {
		case porcupine.Illegal:
			bad = append(bad, finding("life cycle", l.value, "no order of the %d calls on %s of %s is the life of one message: %s", len(ops), m.id, m.queue, l.story()))
		case porcupine.Unknown:
			unknown++
		}
	}
	return checked, unknown, bad
}

// outages returns the periods from each end of the server until it was ready again.
func outages(h *History) (list [][2]time.Duration) {
	var downs, ups []*Op
	for i := range h.Ops {
		switch op := &h.Ops[i]; op.Kind {
		case Down:
			downs = append(downs, op)
		case Up:
			ups = append(ups, op)
		}
	}
	byCall := func(a, b *Op) int { return cmp.Compare(a.Call, b.Call) }
	slices.SortFunc(downs, byCall)
	slices.SortFunc(ups, byCall)
	for _, d := range downs {
		until := Never
		for _, u := range ups {
			if u.Call >= d.Call && u.Return >= d.Return {
				until = u.Return
				break
			}
		}
		list = append(list, [2]time.Duration{d.Call, until})
	}
	return list
}

// record is the calls on one message.
type record struct {
	value       string
	stored      [2]time.Duration
	ops         []*Op
	delivered   int
	first, last time.Duration
}

// gather groups the records by message. A message of a dead-letter queue is stored by the server
// itself, at any time.
func gather(h *History) map[message]*record {
	lives := map[message]*record{}
	byValue := map[string]*fate{}
	for v, f := range fates(h) {
		byValue[v] = f
	}
	for i := range h.Ops {
		op := &h.Ops[i]
		switch op.Kind {
		case Deliver, Ack, Nack, Reject, Extend:
		default:
			continue
		}
		l := lives[op.message()]
		if l == nil {
			l = &record{value: op.Value, stored: [2]time.Duration{0, Never}, first: Never}
			if f := byValue[op.Value]; f != nil && f.queue == op.Queue && f.attempted != Never {
				l.stored = [2]time.Duration{f.attempted, f.confirmed}
			}
			lives[op.message()] = l
		}
		l.ops = append(l.ops, op)
		if op.Kind == Deliver {
			l.delivered++
		}
		l.first = min(l.first, op.Call)
		l.last = max(l.last, op.Return)
	}
	return lives
}

// operations returns the calls in Porcupine's form.
func (l *record) operations() []porcupine.Operation {
	ops := []porcupine.Operation{{Call: int64(l.stored[0]), Return: int64(l.stored[1]), Input: step{event: evStored}}}
	settled := map[string]bool{} // receipts whose lease certainly ended by a settlement
	extended := map[string]time.Duration{}
	for _, op := range l.ops {
		switch op.Kind {
		case Ack, Nack, Reject:
			settled[op.Receipt] = settled[op.Receipt] || op.Outcome == OK
		case Extend:
			if op.Outcome == OK {
				extended[op.Receipt] = max(extended[op.Receipt], op.Deadline)
			}
		}
	}
	for _, op := range l.ops {
		s := step{receipt: op.Receipt, sure: op.Outcome == OK}
		switch op.Kind {
		case Deliver:
			s.event = evDeliver
			if op.Deadline > 0 && !settled[op.Receipt] {
				from := max(op.Call, max(op.Deadline, extended[op.Receipt])-slack)
				ops = append(ops, porcupine.Operation{Call: int64(from), Return: int64(Never), Input: step{event: evExpire, receipt: op.Receipt}})
			}
		case Ack, Reject:
			s.event = evAck
		case Nack:
			s.event = evNack
		case Extend:
			s.event = evExtend
		}
		if op.Outcome == Fail {
			if op.Code != CodeLeaseLost { // the whole request was refused, which says nothing about the lease
				continue
			}
			s.event = evLost
		}
		ops = append(ops, porcupine.Operation{Call: int64(op.Call), Return: int64(op.end()), Input: s})
	}
	return ops
}

// CodeLeaseLost is the code of a settlement whose lease had ended.
const CodeLeaseLost = "lease_lost"

// story summarizes the calls for the report.
func (l *record) story() string {
	list := slices.Clone(l.ops)
	slices.SortStableFunc(list, func(a, b *Op) int { return cmp.Compare(a.Call, b.Call) })
	s := ""
	for i, op := range list {
		if i == 12 {
			return s + " …"
		}
		if i > 0 {
			s += ", "
		}
		s += string(op.Kind) + " " + string(op.Outcome) + " [" + at(op.Call) + " " + at(op.end()) + "] " + op.Receipt
	}
	return s
}
