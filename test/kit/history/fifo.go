package history

import (
	"cmp"
	"slices"
	"time"
)

// item is one value of a group, for the order checks.
type item struct {
	f          *fate
	call, done time.Duration // the publish: start of its first attempt, end of its first confirmation (Never without one)
	from       time.Duration // start of the last delivery
	to         time.Duration // end of the first delivery
	seen       bool
}

// groupItems collects the values of every group of queues with strict groups.
func groupItems(h *History) map[[2]string][]item {
	groups := map[[2]string][]item{}
	for _, f := range sorted(fates(h)) {
		if f.group == "" || f.ok+f.info == 0 || h.Queues[f.queue].GroupInFlight != 1 {
			continue
		}
		it := item{f: f, call: f.attempted, done: f.confirmed}
		for _, d := range f.deliveries {
			if d.Queue != f.queue {
				continue
			}
			if !it.seen {
				it.seen, it.from, it.to = true, d.Call, d.Return
			}
			it.from, it.to = max(it.from, d.Call), min(it.to, d.Return)
		}
		key := [2]string{f.queue, f.group}
		groups[key] = append(groups[key], it)
	}
	return groups
}

// GroupOrder checks the order inside each group of a queue with one message in flight per group. A
// message may be delivered for the first time only after all earlier messages of its group are
// finished, so nothing overtakes a message that waits for its next attempt.
//
// It is the order aspect of a FIFO queue (Henzinger, Sezgin, Vafeiadis: Aspect-oriented
// linearizability proofs, CONCUR 2013). The order is broken if and only if there are a and b with
// two properties: a's publish ended before b's began, and b's first delivery ended before a's last
// began. One sweep in publish order is enough: it keeps the latest start of a delivery, in O(n log
// n). The same sweep checks the order inside one batch, and the order of the server's own ids.
func GroupOrder(h *History) (checked int, bad []Finding) {
	groups := groupItems(h)
	keys := make([][2]string, 0, len(groups))
	for k := range groups {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b [2]string) int { return cmp.Or(cmp.Compare(a[0], b[0]), cmp.Compare(a[1], b[1])) })
	for _, k := range keys {
		items := groups[k]
		checked += len(items)
		bad = append(bad, realTimeOrder(k[1], items)...)
		bad = append(bad, batchOrder(k[1], items)...)
		bad = append(bad, idOrder(k[1], items)...)
	}
	return checked, bad
}

// realTimeOrder is the sweep over publishes that did not overlap.
func realTimeOrder(group string, items []item) (bad []Finding) {
	before := slices.Clone(items)
	slices.SortFunc(before, func(a, b item) int { return cmp.Compare(a.done, b.done) })
	after := slices.Clone(items)
	slices.SortFunc(after, func(a, b item) int { return cmp.Compare(a.call, b.call) })
	var latest, highest *item // of the publishes that ended before b's: by delivery, and by id
	i := 0
	for k := range after {
		b := &after[k]
		for i < len(before) && before[i].done < b.call {
			a := &before[i]
			if a.seen && (latest == nil || a.from > latest.from) {
				latest = a
			}
			if n, ok := Seq(a.f.id); ok {
				if highest == nil {
					highest = a
				} else if m, _ := Seq(highest.f.id); n > m {
					highest = a
				}
			}
			i++
		}
		if b.seen && latest != nil && b.to < latest.from {
			bad = append(bad, outOfOrder(group, latest, b, "confirmed before the other's publish began"))
		}
		if n, ok := Seq(b.f.id); ok && highest != nil {
			if m, _ := Seq(highest.f.id); m > n {
				bad = append(bad, finding("order", b.f.value, "group %s: got the id %s, though %s with %s was confirmed before its publish began",
					group, b.f.id, highest.f.value, highest.f.id))
			}
		}
	}
	return bad
}

// batchOrder is the sweep over the positions in each batch.
func batchOrder(group string, items []item) (bad []Finding) {
	inBatch := slices.DeleteFunc(slices.Clone(items), func(x item) bool { return x.f.ok == 0 || !x.seen })
	slices.SortFunc(inBatch, func(a, b item) int {
		return cmp.Or(cmp.Compare(a.f.batch, b.f.batch), cmp.Compare(a.f.index, b.f.index))
	})
	return sweep(group, inBatch, func(a, b *item) bool { return a.f.batch == b.f.batch && a.f.index != b.f.index }, "before it in one batch")
}

// idOrder is the sweep over the numbers that the server assigned in the order of confirmation.
func idOrder(group string, items []item) (bad []Finding) {
	numbered := slices.DeleteFunc(slices.Clone(items), func(x item) bool {
		_, ok := Seq(x.f.id)
		return !ok || !x.seen
	})
	slices.SortFunc(numbered, func(a, b item) int {
		m, _ := Seq(a.f.id)
		n, _ := Seq(b.f.id)
		return cmp.Compare(m, n)
	})
	return sweep(group, numbered, func(_, _ *item) bool { return true }, "with a lower id")
}

// sweep reports each item whose first delivery ended before an earlier item's last delivery began.
// Only items of one run are compared: together says whether b is in the run of a, its predecessor.
func sweep(group string, items []item, together func(a, b *item) bool, why string) (bad []Finding) {
	var latest *item
	for k := range items {
		b := &items[k]
		if k > 0 && !together(&items[k-1], b) {
			latest = nil
		}
		if latest != nil && b.to < latest.from {
			bad = append(bad, outOfOrder(group, latest, b, why))
		}
		if latest == nil || b.from > latest.from {
			latest = b
		}
	}
	return bad
}

func outOfOrder(group string, a, b *item, why string) Finding {
	return finding("order", b.f.value, "group %s: first delivered at %s, before a delivery of %s at %s, which is %s", group, at(b.to), a.f.value, at(a.from), why)
}
