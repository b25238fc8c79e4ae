package history

import (
	"cmp"
	"slices"
	"sort"
	"time"
)

// slack is the largest difference between the server's deadlines and the journal's times. The
// server and the journal use one clock, but read it at different moments.
const slack = 20 * time.Millisecond

// held is the time in which a lease certainly existed: from the moment its receiver knew of the
// lease to the first moment at which the lease may have ended.
type held struct {
	op       *Op
	from, to time.Duration
}

// leases returns every lease that certainly existed for a while.
func leases(h *History) []held {
	ends := map[string]time.Duration{} // time of the first call that settles, by receipt, with any outcome
	later := map[string]time.Duration{}
	var downs []*Op
	for i := range h.Ops {
		op := &h.Ops[i]
		switch op.Kind {
		case Ack, Nack, Reject:
			if t, ok := ends[op.Receipt]; !ok || op.Call < t {
				ends[op.Receipt] = op.Call
			}
		case Extend:
			if op.Outcome == OK {
				later[op.Receipt] = max(later[op.Receipt], op.Deadline)
			}
		case Down:
			downs = append(downs, op)
		}
	}
	slices.SortFunc(downs, func(a, b *Op) int { return cmp.Compare(a.Return, b.Return) })
	var list []held
	for i := range h.Ops {
		op := &h.Ops[i]
		if op.Kind != Deliver || op.Receipt == "" {
			continue
		}
		x := held{op, op.Return, Never}
		if op.Deadline > 0 {
			x.to = max(op.Deadline, later[op.Receipt]) - slack
		}
		if t, ok := ends[op.Receipt]; ok {
			x.to = min(x.to, t)
		}
		// A lease ends with the server process that granted it. The answer came from that process
		// or a later one if the process's end (Down) returned after the receive began, because a
		// server that is asked to stop still answers for a while. So the lease may have ended at
		// the Call of the first such Down.
		if k := sort.Search(len(downs), func(k int) bool { return downs[k].Return >= op.Call }); k < len(downs) {
			x.to = min(x.to, downs[k].Call)
		}
		if x.to > x.from {
			list = append(list, x)
		}
	}
	return list
}

// OneLease checks that no message is certainly leased by two receivers at a time.
func OneLease(h *History) (bad []Finding) {
	return overlaps(leases(h), func(x held) (string, int) { m := x.op.message(); return m.queue + "\x00" + m.id, 1 }, "two leases")
}

// GroupInFlight checks that a group never certainly has more leased messages than its queue allows.
func GroupInFlight(h *History) (bad []Finding) {
	return overlaps(leases(h), func(x held) (string, int) {
		limit := h.Queues[x.op.Queue].GroupInFlight
		if x.op.Group == "" || limit == 0 {
			return "", 0
		}
		return x.op.Queue + "\x00" + x.op.Group, limit
	}, "group in flight")
}

// overlaps sweeps the leases of each key in order of their start, and reports each moment at which
// more leases of a key overlap than its limit allows.
func overlaps(all []held, key func(held) (string, int), check string) (bad []Finding) {
	slices.SortStableFunc(all, func(a, b held) int { return cmp.Compare(a.from, b.from) })
	live := map[string][]held{}
	for _, x := range all {
		k, limit := key(x)
		if limit == 0 {
			continue
		}
		now := slices.DeleteFunc(live[k], func(y held) bool { return y.to <= x.from })
		now = append(now, x)
		live[k] = now
		if len(now) > limit {
			y := now[0]
			bad = append(bad, finding(check, x.op.Value, "%s was leased at %s while %s (%s) was held from %s to at least %s; at most %d at a time",
				x.op.ID, at(x.from), y.op.Value, y.op.ID, at(y.from), at(y.to), limit))
		}
	}
	return bad
}
