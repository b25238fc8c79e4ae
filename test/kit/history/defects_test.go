package history

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

const enough = 20 * time.Second

func TestLegalHistoriesPass(t *testing.T) {
	for seed := range uint64(150) {
		h := legal(seed, 60)
		if r := Check(h, enough); r.Verdict() != Pass {
			t.Fatalf("seed %d: %s: %v %v", seed, r.Verdict(), r.Findings, r.Unclear)
		}
	}
}

// Each defect changes a legal history as a defective server would. The named check must find it.
var defects = []struct {
	name  string
	check string
	put   func(h *History) bool // changes h; false if h has no suitable call
}{
	{"a confirmed message is forgotten", "lost", func(h *History) bool {
		v := victim(h, func(f *fate) bool { return f.ok > 0 && len(f.deliveries) > 0 })
		return v != nil && drop(h, func(op *Op) bool { return op.Value == v.value && op.Kind != Publish })
	}},
	{"a message on its way is forgotten by a crash", "unsettled", func(h *History) bool {
		v := victim(h, func(f *fate) bool { return f.ok > 0 && len(f.deliveries) > 0 })
		return v != nil && drop(h, func(op *Op) bool { return op.Value == v.value && op.Kind == Ack && op.Outcome != Fail })
	}},
	{"a message comes from nowhere", "unexpected", func(h *History) bool {
		h.Ops = append(h.Ops, Op{Kind: Deliver, Outcome: OK, Call: time.Hour, Return: time.Hour + 1, Queue: mainQueue, Value: "ghost-1", ID: "1-99999", Receipt: "x"})
		return true
	}},
	{"a message is delivered before it was sent", "unexpected", func(h *History) bool {
		return edit(h, func(op *Op) bool { return op.Kind == Deliver }, func(op *Op) { op.Call, op.Return = 0, 1 })
	}},
	{"a refused message was stored all the same", "refused", func(h *History) bool {
		v := victim(h, func(f *fate) bool { return len(f.deliveries) > 0 })
		return v != nil && each(h, func(op *Op) bool { return op.Kind == Publish && op.Value == v.value }, func(op *Op) { op.Outcome = Fail })
	}},
	{"a refused publish was stored beside the one that was confirmed", "refused", func(h *History) bool {
		for i := range h.Ops {
			if op := h.Ops[i]; op.Kind == Deliver && op.Queue == mainQueue {
				each(h, func(x *Op) bool { return x.Value == op.Value && x.Kind == Publish }, func(x *Op) { x.Dedup = "" })
				copies := 0
				for _, x := range h.Ops {
					if x.Value == op.Value && x.Kind == Publish && x.Outcome != Fail {
						copies++
					}
				}
				for k := range copies {
					op.ID, op.Receipt = fmt.Sprintf("1-5555%d", k), "copy"
					h.Ops = append(h.Ops, op)
				}
				return true
			}
		}
		return false
	}},
	{"bytes changed on the way", "damaged", func(h *History) bool {
		return edit(h, func(op *Op) bool { return op.Kind == Deliver }, func(op *Op) { op.Damaged = true })
	}},
	{"an acked message comes again", "redelivered", func(h *History) bool { return again(h, "late", false) }},
	{"a redelivery is not marked", "unmarked", func(h *History) bool {
		for i := range h.Ops {
			if op := &h.Ops[i]; op.Kind == Deliver && op.Again && op.Attempt == 1 {
				op.Again = false
				return true
			}
		}
		return again(h, "late", true)
	}},
	{"a group's later message overtakes", "order", func(h *History) bool { return overtake(h) }},
	{"a message that waits for its next attempt is overtaken", "order", func(h *History) bool {
		for _, items := range groupItems(h) {
			for i := range items {
				for j := range items {
					a, b := &items[i], &items[j]
					if a.seen && b.seen && a.done < b.call && len(a.f.deliveries) == 1 {
						d := *a.f.deliveries[0]
						d.Call, d.Return, d.Receipt, d.Again, d.Attempt = b.to+time.Minute, b.to+time.Minute+1, "retry", true, 2
						h.Ops = append(h.Ops, d)
						return true
					}
				}
			}
		}
		return false
	}},
	{"one message has two leases", "two leases", func(h *History) bool { return secondLease(h, true) }},
	{"one message has two leases, seen by its life", "life cycle", func(h *History) bool { return secondLease(h, true) }},
	{"a lost lease settles", "life cycle", func(h *History) bool {
		return edit(h, func(op *Op) bool { return op.Kind == Ack && op.Outcome == Fail }, func(op *Op) { op.Outcome, op.Code = OK, "" })
	}},
	{"a group has two messages out", "group in flight", func(h *History) bool { return secondLease(h, false) }},
	{"a dedup id is stored twice", "stored twice", func(h *History) bool {
		return edit(h, func(op *Op) bool { return op.Kind == Publish && op.Duplicate }, func(op *Op) { op.ID = "1-77777" })
	}},
	{"a dedup id is new twice", "stored twice", func(h *History) bool {
		for i := range h.Ops {
			if op := h.Ops[i]; op.Kind == Publish && op.Outcome == OK && !op.Duplicate {
				op.Call, op.Return = op.Return+1, op.Return+2
				h.Ops = append(h.Ops, op)
				return true
			}
		}
		return false
	}},
	{"a dedup copy is delivered too", "stored twice", func(h *History) bool {
		for i := range h.Ops {
			if op := h.Ops[i]; op.Kind == Deliver && op.Queue == mainQueue {
				op.ID, op.Receipt = "1-88888", "copy"
				h.Ops = append(h.Ops, op)
				return true
			}
		}
		return false
	}},
	{"an id is given again after a restart", "id reused", func(h *History) bool {
		v := victim(h, func(f *fate) bool { return f.ok > 0 })
		return edit(h, func(op *Op) bool { return op.Kind == Publish && op.Outcome == OK && op.Value != v.value }, func(op *Op) { op.ID = v.id })
	}},
	{"a queue's count does not come down", "counts", func(h *History) bool {
		return edit(h, func(op *Op) bool { return op.Kind == Count }, func(op *Op) { op.N = 3 })
	}},
	{"a rejected message does not reach the dead letters", "dead letter lost", func(h *History) bool {
		for _, op := range h.Ops {
			if op.Kind == Reject {
				return drop(h, func(x *Op) bool { return x.Value == op.Value && x.Queue == deadQueue })
			}
		}
		return false
	}},
}

func TestEachDefectIsCaught(t *testing.T) {
	for _, d := range defects {
		t.Run(d.name, func(t *testing.T) {
			caught := 0
			for seed := uint64(1); seed <= 40 && caught < 10; seed++ {
				h := legal(seed, 60)
				if !d.put(h) {
					continue
				}
				r := Check(h, enough)
				if !slices.ContainsFunc(r.Findings, func(f Finding) bool { return f.Check == d.check }) {
					t.Fatalf("seed %d: no %q among %v", seed, d.check, r.Findings)
				}
				if r.Verdict() != Broken {
					t.Fatalf("seed %d: verdict %s", seed, r.Verdict())
				}
				caught++
			}
			if caught < 3 {
				t.Fatalf("only %d histories could contain the defect", caught)
			}
		})
	}
}

func TestUndecidedIsNotPassed(t *testing.T) {
	h := legal(3, 60)
	h.Drained = false
	if r := Check(h, enough); r.Verdict() != Unknown {
		t.Errorf("not drained: %s", r.Verdict())
	}
	h = legal(3, 60)
	if r := Check(h, 0); r.Verdict() != Unknown {
		t.Errorf("no time for the life cycles: %s", r.Verdict())
	}
	if r := Check(&History{Drained: true}, enough); r.Verdict() != Unknown {
		t.Errorf("nothing happened: %s", r.Verdict())
	}
}

func TestLostIsSplitByPlace(t *testing.T) {
	h := &History{Drained: true}
	for i := 1; i <= 9; i++ {
		at := time.Duration(i) * time.Second
		h.Ops = append(h.Ops, Op{Kind: Publish, Outcome: OK, Call: at, Return: at + 1, Queue: "q", Value: Value("p", i), ID: fmt.Sprintf("1-%d", i)})
		if i == 3 || i == 6 {
			h.Ops = append(h.Ops,
				Op{Kind: Deliver, Outcome: OK, Call: at + 2, Return: at + 3, Queue: "q", Value: Value("p", i), ID: fmt.Sprintf("1-%d", i), Receipt: "r", Attempt: 1},
				Op{Kind: Ack, Outcome: OK, Call: at + 4, Return: at + 5, Queue: "q", Value: Value("p", i), ID: fmt.Sprintf("1-%d", i), Receipt: "r"})
		}
	}
	got, _ := TotalQueue(h)
	if got.LostPrefix != 2 || got.LostMiddle != 2 || got.LostTail != 3 || got.Lost != 7 {
		t.Errorf("prefix %d, middle %d, tail %d of %d", got.LostPrefix, got.LostMiddle, got.LostTail, got.Lost)
	}
}

func TestSinkRows(t *testing.T) {
	h := &History{Ops: []Op{
		{Kind: Publish, Outcome: OK, Value: "p-1"}, {Kind: Publish, Outcome: Info, Value: "p-2"},
		{Kind: Publish, Outcome: Fail, Value: "p-3"}, {Kind: Publish, Outcome: OK, Value: "p-4"},
	}}
	for _, c := range []struct {
		rows   []string
		parked map[string]bool
		want   string
	}{
		{[]string{"p-1", "p-4"}, nil, ""},
		{[]string{"p-4", "p-1", "p-2"}, nil, ""},
		{[]string{"p-1"}, map[string]bool{"p-4": true}, ""},
		{[]string{"p-1", "p-4", "p-1"}, nil, "row doubled"},
		{[]string{"p-1"}, nil, "row lost"},
		{[]string{"p-1", "p-4", "p-3"}, nil, "row unexpected"},
		{[]string{"p-1", "p-4", "x-1"}, nil, "row unexpected"},
		{[]string{"p-1", "p-4"}, map[string]bool{"p-4": true}, "row doubled"},
	} {
		_, bad := SinkRows(h, c.rows, c.parked)
		got := ""
		if len(bad) > 0 {
			got = bad[0].Check
		}
		if got != c.want || len(bad) > 1 {
			t.Errorf("rows %v, parked %v: %v, want %q", c.rows, c.parked, bad, c.want)
		}
	}
}

// victim returns the first value, in order, that fulfils a condition.
func victim(h *History, ok func(*fate) bool) *fate {
	for _, f := range sorted(fates(h)) {
		if ok(f) {
			return f
		}
	}
	return nil
}

func drop(h *History, which func(*Op) bool) bool {
	n := len(h.Ops)
	h.Ops = slices.DeleteFunc(h.Ops, func(op Op) bool { return which(&op) })
	return len(h.Ops) < n
}

func edit(h *History, which func(*Op) bool, change func(*Op)) bool {
	for i := range h.Ops {
		if which(&h.Ops[i]) {
			change(&h.Ops[i])
			return true
		}
	}
	return false
}

func each(h *History, which func(*Op) bool, change func(*Op)) (any bool) {
	for i := range h.Ops {
		if which(&h.Ops[i]) {
			change(&h.Ops[i])
			any = true
		}
	}
	return any
}

// again delivers a message once more after a confirmed ack. With unmarked, the delivery is not
// marked as repeated.
func again(h *History, receipt string, unmarked bool) bool {
	for _, op := range h.Ops {
		if op.Kind != Ack || op.Outcome != OK || op.Queue != mainQueue {
			continue
		}
		d := op
		d.Kind, d.Receipt, d.Call, d.Return, d.Again, d.Attempt = Deliver, receipt, time.Hour, time.Hour+1, !unmarked, 1
		h.Ops = append(h.Ops, d)
		return true
	}
	return false
}

// overtake exchanges the messages of two first deliveries of one group that do not overlap.
func overtake(h *History) bool {
	for _, items := range groupItems(h) {
		for i := range items {
			for j := range items {
				a, b := &items[i], &items[j]
				if a.f.ok > 0 && b.f.ok > 0 && len(a.f.deliveries) == 1 && len(b.f.deliveries) == 1 &&
					a.done < b.call && a.from > 0 && b.from > 0 && a.f.deliveries[0].Attempt == 1 && b.f.deliveries[0].Attempt == 1 {
					x, y := a.f.deliveries[0], b.f.deliveries[0]
					x.Call, x.Return, y.Call, y.Return = y.Call, y.Return, x.Call, x.Return
					return true
				}
			}
		}
	}
	return false
}

// secondLease delivers a message during a lease: the same message, or another of its group.
func secondLease(h *History, same bool) bool {
	for _, x := range leases(h) {
		if x.to-x.from < 4*time.Millisecond || x.op.Queue != mainQueue {
			continue
		}
		d := *x.op
		d.Call, d.Return, d.Receipt, d.Again = x.from+time.Millisecond, x.from+2*time.Millisecond, "second", true
		if !same {
			d.ID, d.Value = "1-66666", "other-1"
		}
		h.Ops = append(h.Ops, d)
		return true
	}
	return false
}
