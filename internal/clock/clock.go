// Package clock gives the time. Everything that waits or reads the time takes a Clock, so that
// tests and the simulator own it.
package clock

import (
	"sync"
	"time"
)

// Clock is the time and timers of one component. There are two kinds of time, and each has its use:
// Now is for what people and other machines read, and may be set to anything at any moment; Passed
// is for how long something took or may take.
type Clock interface {
	// Now gives the wall clock.
	Now() time.Time
	// Passed gives the time since some moment that never changes; only differences mean something.
	// It goes on evenly, whatever the wall clock is set to. Timers go by it.
	Passed() time.Duration
	// NewTimer gives a timer that fires once after d; stop it when it is no longer needed.
	NewTimer(d time.Duration) Timer
}

// Timer is a time.Timer behind an interface.
type Timer interface {
	C() <-chan time.Time
	Reset(d time.Duration)
	Stop()
}

// Real is the machine's clock.
type Real struct{}

// Now gives the wall clock with its monotonic reading.
func (Real) Now() time.Time { return time.Now() }

var began = time.Now()

// Passed gives the time since the process began, by the monotonic clock.
func (Real) Passed() time.Duration { return time.Since(began) }

// NewTimer makes a timer of the runtime's.
func (Real) NewTimer(d time.Duration) Timer { return realTimer{time.NewTimer(d)} }

type realTimer struct{ t *time.Timer }

func (t realTimer) C() <-chan time.Time   { return t.t.C }
func (t realTimer) Reset(d time.Duration) { t.t.Reset(d) }
func (t realTimer) Stop()                 { t.t.Stop() }

// Manual is a clock that a test moves: Advance lets time pass, Set sets the wall clock and lets
// none pass. The zero value is not usable; call NewManual.
type Manual struct {
	mu     sync.Mutex
	now    time.Time
	passed time.Duration
	timers map[*manualTimer]struct{}
}

// NewManual makes a clock that stands at start.
func NewManual(start time.Time) *Manual {
	return &Manual{now: start, timers: map[*manualTimer]struct{}{}}
}

// Now gives the time the test has set.
func (m *Manual) Now() time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.now
}

// Passed gives the time that Advance let pass.
func (m *Manual) Passed() time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.passed
}

// Set sets the wall clock, forwards or backwards. No time passes, and no timer fires.
func (m *Manual) Set(to time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.now = to
}

// Advance lets time pass and fires the timers that became due. It panics for a negative d: only a
// wall clock can be stepped back, by Set.
func (m *Manual) Advance(d time.Duration) {
	if d < 0 {
		panic("time does not pass backwards")
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.now, m.passed = m.now.Add(d), m.passed+d
	for t := range m.timers {
		if t.due <= m.passed {
			delete(m.timers, t)
			select {
			case t.c <- m.now:
			default:
			}
		}
	}
}

// NewTimer makes a timer that Advance fires.
func (m *Manual) NewTimer(d time.Duration) Timer {
	t := &manualTimer{clock: m, c: make(chan time.Time, 1)}
	t.Reset(d)
	return t
}

type manualTimer struct {
	clock *Manual
	due   time.Duration // of what passed
	c     chan time.Time
}

func (t *manualTimer) C() <-chan time.Time { return t.c }

func (t *manualTimer) Reset(d time.Duration) {
	t.clock.mu.Lock()
	defer t.clock.mu.Unlock()
	t.due = t.clock.passed + d
	if d <= 0 {
		select {
		case t.c <- t.clock.now:
		default:
		}
		return
	}
	t.clock.timers[t] = struct{}{}
}

func (t *manualTimer) Stop() {
	t.clock.mu.Lock()
	defer t.clock.mu.Unlock()
	delete(t.clock.timers, t)
}
