package judge

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// legal returns the history of a correct server: 40 messages in 4 groups with 10 keys. Message 7 is
// poison.
func legal(mode Mode, seed uint64) *History {
	rng := rand.New(rand.NewPCG(seed, 1))
	h := &History{Mode: mode, Messages: map[int]*Message{}, Removed: map[int]bool{}}
	s := &Server{Name: "a", Holds: map[int]Presence{}, Waiting: map[int]bool{}, Parked: map[int]string{}, State: "running"}
	h.Servers = []*Server{s}
	latest := map[string]Row{}
	for n := 1; n <= 40; n++ {
		m := &Message{N: n, Group: fmt.Sprint("g", n%4), Key: fmt.Sprint("k", rng.IntN(10)), Poison: n == 7,
			Cells: map[string][]string{"v": {fmt.Sprintf("%d.00", n), fmt.Sprint(n)}}}
		if mode != Update {
			m.Key = fmt.Sprint("k", n)
		}
		h.Messages[n], s.Holds[n] = m, Sure
		if m.Poison {
			s.Parked[n] = "SQLSTATE 23514"
			continue
		}
		h.Applied = append(h.Applied, n)
		latest[m.Key] = Row{N: n, Key: m.Key, Cells: map[string]string{"v": m.Cells["v"][rng.IntN(2)]}}
	}
	for _, r := range latest {
		h.Rows = append(h.Rows, r)
	}
	slices.SortFunc(h.Rows, func(a, b Row) int { return a.N - b.N })
	return h
}

func kinds(r Report) []string {
	var list []string
	for _, f := range r.Findings {
		if !slices.Contains(list, f.Kind) {
			list = append(list, f.Kind)
		}
	}
	return list
}

// forget removes all traces of messages from the target, as if the target was put back in time.
func (h *History) forget(list ...int) {
	gone := func(n int) bool { return slices.Contains(list, n) }
	h.Applied = slices.DeleteFunc(h.Applied, gone)
	h.Rows = slices.DeleteFunc(h.Rows, func(r Row) bool { return gone(r.N) })
	if h.Mode != Update {
		return
	}
	latest := map[string]Row{} // a key shows its earlier row again
	for _, n := range h.Applied {
		m := h.Messages[n]
		latest[m.Key] = Row{N: n, Key: m.Key, Cells: map[string]string{"v": m.Cells["v"][0]}}
	}
	h.Rows = nil
	for _, r := range latest {
		h.Rows = append(h.Rows, r)
	}
}

func TestLegalHistoriesPass(t *testing.T) {
	histories := map[string]func(h *History){
		"as it is":                          func(*History) {},
		"a publish without an answer":       func(h *History) { h.Servers[0].Holds[5] = Maybe },
		"one that was stored nowhere":       func(h *History) { h.Servers[0].Holds[5] = Maybe; h.forget(5) },
		"written, then the directory fell":  func(h *History) { h.Servers[0].Holds[40] = Absent; h.Causes = DirectoryBack },
		"unwritten, then the directory too": func(h *History) { h.Servers[0].Holds[40] = Absent; h.forget(40); h.Causes = DirectoryBack },
		"the user emptied the table": func(h *History) {
			for _, r := range h.Rows { // only the newest message of a key has a row to delete
				h.Removed[r.N] = true
			}
			h.Rows = nil
		},
		"the target fell, and the words say so": func(h *History) {
			h.forget(38, 39, 40)
			h.Causes = TargetBack
			h.Servers[0].State, h.Servers[0].Reason = "refused", "rows of 3 messages are missing"
		},
		"the target fell with messages waiting": func(h *History) {
			h.forget(37, 38, 39, 40)
			h.Causes, h.Servers[0].Waiting[40] = TargetBack, true
			h.Servers[0].State, h.Servers[0].Reason = "refused", "rows of 3 messages are missing"
		},
		"the directory fell, and waits": func(h *History) {
			h.Causes, h.Servers[0].Waiting[40] = DirectoryBack, true
			h.Servers[0].State, h.Servers[0].Reason = "refused", "the directory is older than the target"
		},
		"a copy is fenced": func(h *History) {
			copied := &Server{Name: "b", Holds: map[int]Presence{1: Sure, 41: Sure}, Waiting: map[int]bool{41: true}, State: "fenced", Reason: "another process"}
			h.Messages[41] = &Message{N: 41, Key: "k41"}
			h.Servers, h.Causes = append(h.Servers, copied), Copied
		},
		"a loss that was accepted": func(h *History) {
			h.forget(40)
			h.Causes, h.Forgiven = TargetBack, map[int]bool{40: true}
		},
	}
	for name, change := range histories {
		for _, mode := range []Mode{Insert, Nothing, Update} {
			for seed := range uint64(5) {
				if mode == Update && strings.Contains(name, "fell") && strings.Contains(name, "words") {
					continue // the number of missing messages depends on their keys
				}
				h := legal(mode, seed)
				change(h)
				if r := Check(h); len(r.Findings) > 0 {
					t.Errorf("%s, %s, seed %d: %v", name, mode, seed, r.Findings)
				}
			}
		}
	}
}

// Each defect changes a legal history as a defective sink would. The judge must report the right
// kind of finding.
var defects = []struct {
	name string
	kind string
	mode Mode
	put  func(h *History)
}{
	{"an acked message was never written", Lost, Insert, func(h *History) { h.forget(12) }},
	{"the newest message of a key was never written", Lost, Update, func(h *History) { h.forget(40) }},
	{"the target fell, and the sink runs on", Lost, Insert, func(h *History) { h.Causes = TargetBack; h.forget(38, 39, 40) }},
	{"the directory fell, and new messages were taken for old ones", Lost, Insert, func(h *History) { h.Causes = DirectoryBack; h.forget(40) }},
	{"a directory that fell refuses, and a message is gone all the same", Lost, Insert, func(h *History) {
		h.Causes = DirectoryBack
		h.forget(40)
		h.Servers[0].State, h.Servers[0].Reason = "refused", "older"
	}},
	{"a copy acked its own message unwritten", Lost, Insert, func(h *History) {
		h.Messages[41] = &Message{N: 41, Key: "k41"}
		h.Servers = append(h.Servers, &Server{Name: "b", Holds: map[int]Presence{41: Sure}, State: "running"})
		h.Causes = Copied
	}},
	{"a row vanished", Lost, Insert, func(h *History) { h.Rows = h.Rows[1:] }},
	{"a message was written twice", Doubled, Insert, func(h *History) { h.Applied = append(h.Applied, 40); h.Rows = append(h.Rows, h.Rows[len(h.Rows)-1]) }},
	{"a message was written twice, and the key hid it", Doubled, Update, func(h *History) { h.Applied = append(h.Applied, 40) }},
	{"a message that nobody knows any more was written twice", Doubled, Insert, func(h *History) {
		h.Servers[0].Holds[40] = Absent
		h.Causes = DirectoryBack
		h.Applied = append(h.Applied, 40)
	}},
	{"a parked message was written", Doubled, Insert, func(h *History) { h.Servers[0].Parked[3] = "x" }},
	{"a message from nowhere", Unexpected, Insert, func(h *History) { h.Applied = append(h.Applied, 99) }},
	{"a row that nobody wrote", Unexpected, Insert, func(h *History) { h.forget(9); h.Rows = append(h.Rows, Row{N: 9, Key: "k9"}) }},
	{"a value was rounded", Misplaced, Insert, func(h *History) { h.Rows[4].Cells["v"] = "4.1" }},
	{"a default was that of before", Misplaced, Nothing, func(h *History) { h.Messages[5].Cells["d"] = []string{"new"}; h.Rows[4].Cells["d"] = "old" }},
	{"an older value won", Misplaced, Update, func(h *History) {
		key := h.Messages[40].Key
		for i := range h.Rows {
			if h.Rows[i].Key == key {
				h.Messages[41] = &Message{N: 41, Key: key}
				h.Servers[0].Holds[41] = Sure
				h.Applied = append(h.Applied, 41)
			}
		}
	}},
	{"a good message was parked", Parked, Insert, func(h *History) { h.forget(20); h.Servers[0].Parked[20] = "no partition" }},
	{"a bad message was written", Parked, Insert, func(h *History) { h.Applied = append(h.Applied, 7); h.Rows = append(h.Rows, Row{N: 7, Key: "k7"}) }},
	{"a group out of order", Disorder, Insert, func(h *History) {
		h.Applied = slices.DeleteFunc(h.Applied, func(n int) bool { return n == 20 })
		h.Applied = append(h.Applied, 20)
	}},
	{"a message waits for ever", Stuck, Insert, func(h *History) { h.forget(40); h.Servers[0].Waiting[40] = true; h.Servers[0].State = "waiting" }},
	{"refused after a crash", FalseAlarm, Insert, func(h *History) { h.Servers[0].State, h.Servers[0].Reason = "refused", "older" }},
	{"fenced without a rival", FalseAlarm, Insert, func(h *History) {
		h.Causes = TargetBack
		h.forget(40)
		h.Servers[0].State, h.Servers[0].Reason = "fenced", "1 other process"
	}},
	{"refused for a target that misses nothing", FalseAlarm, Insert, func(h *History) {
		h.Causes = TargetBack
		h.Servers[0].State, h.Servers[0].Reason = "refused", "rows of 0 messages are missing"
	}},
	{"refused without words", Words, Insert, func(h *History) {
		h.Causes = DirectoryBack
		h.Servers[0].State = "refused"
	}},
	{"a wrong number of missing messages", Words, Insert, func(h *History) {
		h.Causes = TargetBack
		h.forget(38, 39, 40)
		h.Servers[0].State, h.Servers[0].Reason = "refused", "rows of 2 messages are missing since 2026-11-30T03:03:03Z"
	}},
	{"a wrong number of messages that the target has", Words, Insert, func(h *History) {
		h.Causes = DirectoryBack
		s := h.Servers[0]
		s.State, s.Reason, s.Waiting[39], s.Waiting[40] = "refused", "older", true, true
		s.Numbers = &Numbers{Known: 1, Waiting: 2}
	}},
	{"a wrong number of messages that wait", Words, Insert, func(h *History) {
		h.Causes = DirectoryBack
		s := h.Servers[0]
		s.State, s.Reason, s.Waiting[40] = "refused", "older", true
		s.Numbers = &Numbers{Known: 1, Waiting: 2}
	}},
	{"a missing row that only the words name", Words, Insert, func(h *History) {
		h.Causes = TargetBack
		h.forget(40)
		s := h.Servers[0]
		s.State, s.Reason, s.Numbers = "refused", "1 is missing", &Numbers{}
	}},
	{"a way on doubled more than it said", Doubled, Insert, func(h *History) {
		h.Twice = map[int]bool{40: true}
		h.Applied = append(h.Applied, 39, 40)
	}},
	{"a way on doubled less than it said", Words, Insert, func(h *History) { h.Twice = map[int]bool{40: true} }},
	{"a way on lost more than it said", Lost, Insert, func(h *History) {
		h.Causes, h.Forgiven = TargetBack, map[int]bool{40: true}
		h.forget(39, 40)
	}},
}

func TestDefectsAreNamed(t *testing.T) {
	for _, d := range defects {
		h := legal(d.mode, 1)
		d.put(h)
		if r := Check(h); !slices.Contains(kinds(r), d.kind) {
			t.Errorf("%s: want %s, got %v", d.name, d.kind, r.Findings)
		}
	}
}

// TestCounts tests the numbers of the result table.
func TestCounts(t *testing.T) {
	h := legal(Insert, 1)
	h.forget(38, 39)
	h.Causes = TargetBack
	s := h.Servers[0]
	s.State, s.Reason = "refused", "rows of 1 message are missing"
	s.Waiting[38], s.Waiting[40] = true, true
	s.Holds[39] = Maybe
	r := Check(h)
	if r.Confirmed != 39 || r.Applied != 37 || r.Waiting != 2 || r.Parked != 1 || !r.Refused || r.MissingLeast != 0 ||
		!slices.Equal(r.Missing, []int{39}) || !slices.Equal(r.Again, []int{40}) || len(r.Findings) > 0 {
		t.Errorf("%+v", r)
	}
}
