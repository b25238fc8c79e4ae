package history

import (
	"cmp"
	"slices"
	"time"
)

// fate is everything that happened to one value.
type fate struct {
	value             string
	group             string
	queue             string // the queue that it was published to
	attempted         time.Duration
	confirmed         time.Duration // the first ok's Return; Never if there was none
	batch             int64         // number of the confirmed publish call
	index             int
	id                string
	ok, info, refused int // publishes by outcome
	deliveries        []*Op
	acked             bool // an ack was, or may have been, carried out
}

// fates groups the records by value, in order of Call.
func fates(h *History) map[string]*fate {
	all := map[string]*fate{}
	get := func(v string) *fate {
		f := all[v]
		if f == nil {
			f = &fate{value: v, attempted: Never, confirmed: Never}
			all[v] = f
		}
		return f
	}
	for i := range h.Ops {
		op := &h.Ops[i]
		switch op.Kind {
		case Publish:
			f := get(op.Value)
			f.queue, f.group = op.Queue, op.Group
			f.attempted = min(f.attempted, op.Call)
			switch op.Outcome {
			case OK:
				f.ok++
				if op.Return < f.confirmed {
					f.confirmed, f.id, f.batch, f.index = op.Return, op.ID, op.Batch, op.Index
				}
			case Info:
				f.info++
			default:
				f.refused++
			}
		case Deliver:
			get(op.Value).deliveries = append(get(op.Value).deliveries, op)
		case Ack:
			if op.Outcome != Fail {
				get(op.Value).acked = true
			}
		}
	}
	for _, f := range all {
		slices.SortStableFunc(f.deliveries, func(a, b *Op) int { return cmp.Compare(a.Return, b.Return) })
	}
	return all
}

// copies returns how many different messages of the publish queue delivered the value.
func (f *fate) copies() int {
	ids := map[string]bool{}
	for _, d := range f.deliveries {
		if d.Queue == f.queue && d.ID != "" {
			ids[d.ID] = true
		}
	}
	return len(ids)
}

// sorted orders fates by publisher and sequence, so reports do not depend on map order.
func sorted(all map[string]*fate) []*fate {
	list := make([]*fate, 0, len(all))
	for _, f := range all {
		list = append(list, f)
	}
	slices.SortFunc(list, func(a, b *fate) int {
		pa, na := SplitValue(a.value)
		pb, nb := SplitValue(b.value)
		return cmp.Or(cmp.Compare(pa, pb), cmp.Compare(na, nb), cmp.Compare(a.value, b.value))
	})
	return list
}

// Totals are the counts of TotalQueue.
type Totals struct {
	Attempted, Confirmed, Unknown, Refused int // values by their best outcome
	Delivered, Deliveries                  int // values, and deliveries of them
	Lost, LostPrefix, LostMiddle, LostTail int // Lost is the sum of the other three
	Recovered                              int // delivered although no publish of it was confirmed
	Redelivered                            int // values delivered more than once, which is allowed
	Unsettled                              int
}

// TotalQueue compares deliveries with publishes. No confirmed value may be missing (lost). No
// delivered value may be one that was never sent (unexpected) or that the server refused (refused).
// No byte may differ (damaged). A message that was delivered and not settled must be delivered
// again. Otherwise it is lost, too (unsettled).
//
// The position of lost values shows the kind of defect. At a publisher's beginning (prefix), an old
// segment or snapshot is gone. At its end (tail), values were confirmed before they were durable.
// All others are in the middle.
func TotalQueue(h *History) (t Totals, bad []Finding) {
	list := sorted(fates(h))
	first, last := map[string]int{}, map[string]int{} // delivered sequence numbers by publisher
	for _, f := range list {
		if p, n := SplitValue(f.value); len(f.deliveries) > 0 {
			if _, ok := first[p]; !ok {
				first[p] = n
			}
			last[p] = n
		}
	}
	for _, f := range list {
		t.Deliveries += len(f.deliveries)
		if len(f.deliveries) > 0 {
			t.Delivered++
		}
		if len(f.deliveries) > 1 {
			t.Redelivered++
		}
		for _, d := range f.deliveries {
			if d.Damaged {
				bad = append(bad, finding("damaged", f.value, "delivered at %s with other bytes than were published", at(d.Return)))
			}
			if d.Return < f.attempted && f.attempted != Never {
				bad = append(bad, finding("unexpected", f.value, "delivered at %s, before its first publish began at %s", at(d.Return), at(f.attempted)))
			}
		}
		switch {
		case f.ok+f.info+f.refused == 0:
			bad = append(bad, finding("unexpected", f.value, "delivered, but nobody published it"))
			continue
		case f.ok > 0:
			t.Confirmed++
		case f.info > 0:
			t.Unknown++
		default:
			t.Refused++
		}
		t.Attempted++
		if len(f.deliveries) > 0 && f.ok == 0 {
			t.Recovered++
			if f.info == 0 {
				bad = append(bad, finding("refused", f.value, "delivered, though every publish of it was refused"))
			}
		}
		if n := f.copies(); n > f.ok+f.info && f.ok+f.info > 0 {
			bad = append(bad, finding("refused", f.value, "delivered as %d messages, though only %d publishes of it were not refused", n, f.ok+f.info))
		}
		if !h.Drained {
			continue
		}
		if f.ok > 0 && len(f.deliveries) == 0 {
			t.Lost++
			p, n := SplitValue(f.value)
			where := "middle"
			switch from, any := first[p]; {
			case any && n < from:
				where = "prefix"
				t.LostPrefix++
			case !any || n > last[p]:
				where = "tail"
				t.LostTail++
			default:
				t.LostMiddle++
			}
			bad = append(bad, finding("lost", f.value, "confirmed at %s as %s, never delivered (%s of its publisher's)", at(f.confirmed), f.id, where))
		}
		if len(f.deliveries) > 0 && !f.acked {
			t.Unsettled++
			d := f.deliveries[len(f.deliveries)-1]
			bad = append(bad, finding("unsettled", f.value, "last delivered at %s from %s as %s, never acked, and the queues are empty", at(d.Return), d.Queue, d.ID))
		}
	}
	return t, bad
}

// AckedFinal checks that no receive that began after a message's confirmed ack delivers the
// message.
func AckedFinal(h *History) (bad []Finding) {
	final := map[message]*Op{}
	for i := range h.Ops {
		op := &h.Ops[i]
		if (op.Kind == Ack || op.Kind == Reject) && op.Outcome == OK {
			if was := final[op.message()]; was == nil || op.Return < was.Return {
				final[op.message()] = op
			}
		}
	}
	for i := range h.Ops {
		op := &h.Ops[i]
		if op.Kind != Deliver {
			continue
		}
		if a := final[op.message()]; a != nil && op.Call > a.Return {
			bad = append(bad, finding("redelivered", op.Value, "%s was settled for good at %s, and delivered again at %s", op.ID, at(a.Return), at(op.Return)))
		}
	}
	return bad
}

// Marked checks that every delivery of a message after its first says that it may not be the first.
func Marked(h *History) (bad []Finding) {
	earliest := map[message]*Op{}
	for i := range h.Ops {
		if op := &h.Ops[i]; op.Kind == Deliver {
			if was := earliest[op.message()]; was == nil || op.Return < was.Return {
				earliest[op.message()] = op
			}
		}
	}
	for i := range h.Ops {
		op := &h.Ops[i]
		if op.Kind != Deliver || op.Again || op.Attempt > 1 {
			continue
		}
		if e := earliest[op.message()]; e != op && op.Call > e.Return {
			bad = append(bad, finding("unmarked", op.Value, "%s was delivered at %s and again at %s, which was not marked as a redelivery", op.ID, at(e.Return), at(op.Return)))
		}
	}
	return bad
}
