package digest

import (
	"fmt"
	"math"
	"testing"
	"time"
)

// TestLines: the first event makes a line at once. Later events make one line in each period, with
// the sum and the newest reason. Rest returns the line of the last events.
func TestLines(t *testing.T) {
	var l Lines
	k := Key{Kind: "parked", Queue: "q", To: "q.dead"}
	var got []string
	for s := range 300 {
		now := int64(s) * int64(time.Second)
		if s <= 90 {
			l.Note(k, 2, fmt.Sprint("reason ", s), now)
		}
		for now >= l.Due() {
			for _, x := range l.Take(now) {
				got = append(got, fmt.Sprintf("at %d: %s %s %d %s", s, x.Kind, x.Queue, x.Count, x.Reason))
			}
		}
	}
	want := []string{"at 0: parked q 2 reason 0", "at 60: parked q 120 reason 60", "at 120: parked q 60 reason 90"}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("said\n%q, want\n%q", got, want)
	}
	if l.Due() != math.MaxInt64 || len(l.keys) != 0 || l.kinds["parked"] != 0 {
		t.Errorf("a quiet key is still remembered: %+v", l)
	}
}

// TestFloodOfKeys: events of many different queues make a limited number of lines and use limited
// memory. The sums count every event.
func TestFloodOfKeys(t *testing.T) {
	var l Lines
	sum, lines, periods := int64(0), 0, 0
	for i := range 100_000 {
		now := int64(i) * int64(10*time.Millisecond)
		l.Note(Key{Kind: "refused", Queue: fmt.Sprint("q", i)}, 1, "full", now)
		for _, x := range l.Take(now) {
			sum += x.Count
			lines++
		}
		if len(l.keys) > MaxKeys+1 {
			t.Fatalf("%d keys are remembered", len(l.keys))
		}
		periods = 1 + int(now/int64(Period))
	}
	for _, x := range l.Rest() {
		sum += x.Count
	}
	if sum != 100_000 || lines > (MaxKeys+1)*(periods+1) {
		t.Errorf("%d of 100000 events were said in %d lines of %d minutes", sum, lines, periods)
	}
}

// TestKindsAreApart: events of one kind do not use up the lines of another kind.
func TestKindsAreApart(t *testing.T) {
	var l Lines
	for i := range MaxKeys + 10 {
		l.Note(Key{Kind: "a", Queue: fmt.Sprint(i)}, 1, "", 0)
	}
	l.Note(Key{Kind: "b", Queue: "q"}, 1, "r", 0)
	lines := l.Take(0)
	if n := len(lines); n != MaxKeys+2 || lines[0] != (Line{Key{Kind: "a"}, 10, ""}) || lines[n-1] != (Line{Key{"b", "q", ""}, 1, "r"}) {
		t.Errorf("%d lines: %+v", n, lines)
	}
}
