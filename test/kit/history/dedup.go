package history

import (
	"cmp"
	"slices"
)

// DedupOnce checks that each dedup id was stored once. All confirmations of an id, and all
// deliveries of its value from that queue, must name one message. At most one confirmation may say
// that it stored something new.
func DedupOnce(h *History) (checked int, bad []Finding) {
	type entry struct {
		id, queue, value string
		attempts, fresh  int
		reported         bool
	}
	seen := map[string]*entry{} // entries by queue and dedup id
	byValue := map[string]*entry{}
	var order []*entry
	name := func(e *entry, id, how string) {
		switch {
		case id == "" || e.id == id:
		case e.id == "":
			e.id = id
		case !e.reported:
			e.reported = true
			bad = append(bad, finding("stored twice", e.value, "its dedup id stands for %s, and %s as %s", e.id, how, id))
		}
	}
	byCall := make([]*Op, 0, len(h.Ops))
	for i := range h.Ops {
		byCall = append(byCall, &h.Ops[i])
	}
	slices.SortStableFunc(byCall, func(a, b *Op) int { return cmp.Compare(a.Return, b.Return) })
	for _, op := range byCall {
		if op.Kind != Publish || op.Dedup == "" {
			continue
		}
		key := op.Queue + "\x00" + op.Dedup
		e := seen[key]
		if e == nil {
			e = &entry{queue: op.Queue, value: op.Value}
			seen[key], byValue[op.Value] = e, e
			order = append(order, e)
		}
		e.attempts++
		if op.Outcome != OK {
			continue
		}
		name(e, op.ID, "was confirmed again")
		if !op.Duplicate {
			e.fresh++
		}
	}
	for _, op := range byCall {
		if e := byValue[op.Value]; op.Kind == Deliver && e != nil && e.queue == op.Queue {
			name(e, op.ID, "was delivered")
		}
	}
	for _, e := range order {
		checked++
		if e.fresh > 1 && !e.reported {
			bad = append(bad, finding("stored twice", e.value, "%d publishes of its dedup id were confirmed as new", e.fresh))
		}
	}
	return checked, bad
}

// IDsUnique checks that no two values have the same message id. An id must never be used again,
// even after restarts.
func IDsUnique(h *History) (bad []Finding) {
	owner := map[message]string{}
	reported := map[message]bool{}
	for i := range h.Ops {
		op := &h.Ops[i]
		if op.ID == "" || op.Value == "" || op.Kind != Publish && op.Kind != Deliver || op.Kind == Publish && op.Outcome != OK {
			continue
		}
		m := op.message()
		switch was, ok := owner[m]; {
		case !ok:
			owner[m] = op.Value
		case was != op.Value && !reported[m]:
			reported[m] = true
			bad = append(bad, finding("id reused", op.Value, "%s of %s stood for %s before", op.ID, op.Queue, was))
		}
	}
	return bad
}
