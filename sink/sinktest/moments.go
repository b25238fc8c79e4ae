package sinktest

import (
	"slices"

	"github.com/surgetank/surgetank/sink"
)

// Moment is what a Memory held at one time.
type Moment struct {
	states map[string]*sink.State
	rows   []Row
}

// Save gives what is committed now. Commits whose connections were lost and that may still come are
// not in it.
func (m *Memory) Save() Moment {
	m.mu.Lock()
	defer m.mu.Unlock()
	return Moment{states: cloneStates(m.states), rows: slices.Clone(m.rows)}
}

// Restore puts the database back to a moment, as a restored dump or a promoted standby does: beside
// those who are connected, and without the commits that were still to come.
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
		c.Lanes = slices.Clone(s.Lanes) // what a lane stores is replaced, never changed
		to[k] = &c
	}
	return to
}

// Truncate deletes all rows, as a user does, and gives those that were there. The progress stays.
func (m *Memory) Truncate() []Row {
	m.mu.Lock()
	defer m.mu.Unlock()
	gone := m.rows
	m.rows = nil
	return gone
}
