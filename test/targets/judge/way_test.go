package judge

import (
	"slices"
	"testing"
)

// TestAfter: a way that does not have its announced effect must be reported.
func TestAfter(t *testing.T) {
	// Before the way, messages 38 and 39 are missing in the target. Messages 40 and 41 wait, and
	// the target has 40.
	before := func() *History {
		h := legal(Insert, 1)
		h.forget(38, 39)
		s := h.Servers[0]
		h.Messages[41] = &Message{N: 41, Key: "k41"}
		s.Holds[41], s.Waiting[40], s.Waiting[41] = Sure, true, true
		s.State, s.Reason, h.Causes = "refused", "2 are missing", TargetBack
		return h
	}
	after := func(written ...int) *History {
		h := before()
		s := h.Servers[0]
		s.Waiting, s.State, s.Reason = map[int]bool{}, "running", ""
		for _, n := range written {
			h.Applied = append(h.Applied, n)
			h.Rows = append(h.Rows, Row{N: n, Key: h.Messages[n].Key})
			h.Messages[n].Cells = nil
		}
		return h
	}
	still := after(41)
	still.Servers[0].State, still.Servers[0].Reason = "refused", "2 are missing"
	for _, c := range []struct {
		name  string
		after *History
		way   Way
		kind  string
	}{
		{"accept-loss as said", after(41), Way{"accept-loss", 0, 0, 2}, ""},
		{"from target as said", after(41), Way{"target", 0, 1, 2}, ""},
		{"from queue as said", after(40, 41), Way{"queue", 1, 0, 2}, ""},
		{"from target writes again", after(40, 41), Way{"target", 0, 1, 2}, Doubled},
		{"from target skips more", after(), Way{"target", 0, 1, 2}, Lost},
		{"from target names another number", after(41), Way{"target", 0, 2, 2}, Words},
		{"from queue does not write again", after(41), Way{"queue", 1, 0, 2}, Words},
		{"from queue doubles more than it said", after(40, 41), Way{"queue", 0, 0, 2}, Words},
		{"still refused", still, Way{"accept-loss", 0, 0, 2}, FalseAlarm},
	} {
		got := kinds(Report{Findings: After(before(), c.after, c.way)})
		if c.kind == "" && len(got) > 0 || c.kind != "" && !slices.Contains(got, c.kind) {
			t.Errorf("%s: want %q, got %v", c.name, c.kind, got)
		}
	}
}
