package memlog

import (
	"time"

	"github.com/surgetank/surgetank/internal/commitlog"
)

// Stepped is a log without a goroutine: only Pump makes entries durable and calls back.
type Stepped struct{ *Log }

// OpenStepped is Open for a caller that runs the log.
func (s *Store) OpenStepped(opts Options) (commitlog.Replay, *Stepped, error) {
	r, l, err := s.open(opts)
	if err != nil {
		return nil, nil, err
	}
	return r, &Stepped{l}, nil
}

// Pump makes all appended entries durable that are due, calls back, and returns their number.
func (l *Stepped) Pump() int { return l.PumpN(-1) }

// PumpN is Pump for the oldest n entries; a negative n means all. It does nothing when a callback
// calls it, because the outer Pump continues.
func (l *Stepped) PumpN(n int) int {
	if !l.enter() {
		return 0
	}
	defer l.leave()
	return l.pump(n)
}

// Due returns the time until the next entry is due, or false if none waits.
func (l *Stepped) Due() (time.Duration, bool) {
	l.store.mu.Lock()
	defer l.store.mu.Unlock()
	if len(l.queue) == 0 {
		return 0, false
	}
	return max(0, l.queue[0].due-l.o.Clock.Passed()), true
}

// InFlight returns the number of entries in flight.
func (l *Stepped) InFlight() int {
	l.store.mu.Lock()
	defer l.store.mu.Unlock()
	return len(l.queue)
}

// Close makes the appended entries durable without waiting for Options.Latency, calls back and
// closes the handle.
func (l *Stepped) Close() error {
	l.store.mu.Lock()
	for i := range l.queue {
		l.queue[i].due = 0
	}
	l.store.mu.Unlock()
	for l.Pump() > 0 {
	}
	return l.Log.Close()
}

func (l *Stepped) enter() bool {
	l.store.mu.Lock()
	defer l.store.mu.Unlock()
	if l.running {
		return false
	}
	l.running = true
	return true
}

func (l *Stepped) leave() {
	l.store.mu.Lock()
	defer l.store.mu.Unlock()
	l.running = false
}
