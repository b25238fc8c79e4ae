// Package clock provides the time. All code that waits or reads the time uses a Clock, so that
// tests and the simulator can control the time.
package clock

import (
	"sync"
	"time"
)

// Clock is the time and timers of one component. There are two kinds of time. Now is for users and
// other computers, and can be set to any value at any moment. Passed is for durations.
type Clock interface {
	// Now returns the wall clock's time.
	Now() time.Time
	// Passed returns the time since an arbitrary fixed moment, so only differences are useful. It
	// advances evenly even if the wall clock is set. Timers use this time.
	Passed() time.Duration
	// NewTimer returns a timer that fires once after d. Stop it when it is no longer needed.
	NewTimer(d time.Duration) Timer
}

// Timer is a time.Timer as an interface.
type Timer interface {
	C() <-chan time.Time
	Reset(d time.Duration)
	Stop()
}

// Real is the computer's clock.
type Real struct{}

// Now returns the wall clock's time with its monotonic reading.
func (Real) Now() time.Time { return time.Now() }

var began = time.Now()

// Passed returns the time since the start of the process, by the monotonic clock.
func (Real) Passed() time.Duration { return time.Since(began) }

// NewTimer returns a timer of the Go runtime.
func (Real) NewTimer(d time.Duration) Timer { return realTimer{time.NewTimer(d)} }

type realTimer struct{ t *time.Timer }

func (t realTimer) C() <-chan time.Time   { return t.t.C }
func (t realTimer) Reset(d time.Duration) { t.t.Reset(d) }
func (t realTimer) Stop()                 { t.t.Stop() }

// Manual is a clock that a test controls. Advance lets time pass. Set sets the wall clock, but no
// time passes. The zero value is not usable; call NewManual.
type Manual struct {
	mu     sync.Mutex
	now    time.Time
	passed time.Duration
	timers map[*manualTimer]struct{}
}

// NewManual returns a clock that shows start.
func NewManual(start time.Time) *Manual {
	return &Manual{now: start, timers: map[*manualTimer]struct{}{}}
}

// Now returns the wall clock's time.
func (m *Manual) Now() time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.now
}

// Passed returns the time passed by Advance.
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

// Advance lets time pass and fires the timers that are due. It panics for a negative d. Only the
// wall clock can go back, with Set.
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

// NewTimer returns a timer that Advance fires.
func (m *Manual) NewTimer(d time.Duration) Timer {
	t := &manualTimer{clock: m, c: make(chan time.Time, 1)}
	t.Reset(d)
	return t
}

type manualTimer struct {
	clock *Manual
	due   time.Duration // the value of passed at which the timer fires
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
