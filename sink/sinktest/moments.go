package sinktest

import (
	"slices"

	"github.com/surgetank/surgetank/sink"
)

// Moment is the content of a Memory at one time.
type Moment struct {
	states map[string]*sink.State
	rows   []Row
}

// Save returns the committed content. It leaves out commits whose connections were lost, because
// they can still happen or not.
func (m *Memory) Save() Moment {
	m.mu.Lock()
	defer m.mu.Unlock()
	return Moment{states: cloneStates(m.states), rows: slices.Clone(m.rows)}
}

// Restore sets the database back to a moment, like a restored dump or a promoted standby. Clients
// stay connected, and pending commits are dropped.
func (m *Memory) Restore(at Moment) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.states, m.rows, m.limbo = cloneStates(at.states), slices.Clone(at.rows), nil
}

// DropProgress deletes the progress of all sinks.
func (m *Memory) DropProgress() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.states = map[string]*sink.State{}
}

func cloneStates(from map[string]*sink.State) map[string]*sink.State {
	to := make(map[string]*sink.State, len(from))
	for k, s := range from {
		c := *s
		c.Lanes = slices.Clone(s.Lanes) // a lane replaces its stored values and never changes them
		to[k] = &c
	}
	return to
}

// Truncate deletes all rows, as a user does, and returns them. The progress stays.
func (m *Memory) Truncate() []Row {
	m.mu.Lock()
	defer m.mu.Unlock()
	gone := m.rows
	m.rows = nil
	return gone
}
