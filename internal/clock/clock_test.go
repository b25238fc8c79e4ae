package clock

import (
	"testing"
	"time"
)

// TestManualTellsTimeFromTheClock: Set sets the wall clock only. Timers and Passed follow Advance.
func TestManualTellsTimeFromTheClock(t *testing.T) {
	start := time.Unix(1e9, 0)
	m := NewManual(start)
	timer := m.NewTimer(time.Minute)
	fired := func() bool {
		select {
		case <-timer.C():
			return true
		default:
			return false
		}
	}
	for _, to := range []time.Time{start.AddDate(1, 0, 0), time.Unix(0, 0), start} {
		if m.Set(to); m.Passed() != 0 || !m.Now().Equal(to) || fired() {
			t.Errorf("set to %v: %v passed, the clock is at %v", to, m.Passed(), m.Now())
		}
	}
	m.Advance(time.Minute - 1)
	m.Set(start)
	if fired() {
		t.Error("a timer fired early")
	}
	if m.Advance(1); !fired() || m.Passed() != time.Minute || !m.Now().Equal(start.Add(1)) {
		t.Errorf("%v passed, the clock is at %v", m.Passed(), m.Now())
	}
	defer func() {
		if recover() == nil {
			t.Error("time passed backwards")
		}
	}()
	m.Advance(-1)
}

func TestRealGoesOn(t *testing.T) {
	before := Real{}.Passed()
	timer := Real{}.NewTimer(time.Nanosecond)
	<-timer.C()
	if d := (Real{}).Passed() - before; d <= 0 {
		t.Errorf("%v passed", d)
	}
}
