package sink

import (
	"context"
	"maps"
	"slices"

	"github.com/surgetank/surgetank"
)

// Brief is the part of a sink's state that the status of a queue shows.
type Brief struct {
	Name   string
	State  RunState
	Reason string
	Level  *Level // the adaptive limit; nil if there is none
}

// OnQueue returns the sinks that read a queue, ordered by name. It calls neither the broker nor a
// target.
func (m *Manager) OnQueue(queue string) []Brief {
	m.mu.Lock()
	defer m.mu.Unlock()
	var list []Brief
	for _, name := range slices.Sorted(maps.Keys(m.sinks)) {
		s := m.sinks[name]
		if s.spec.Queue != queue {
			continue
		}
		b := Brief{Name: name, State: StatePaused}
		switch {
		case s.broken != nil:
			b.State, b.Reason = StateRefused, s.broken.Error()
		case s.runner != nil:
			st := s.runner.Status()
			b.Level = st.Level
			if b.State, b.Reason = st.State, st.Error; b.Reason == "" {
				b.Reason = st.heldBack()
			}
		}
		list = append(list, b)
	}
	return list
}

// Infos returns the Info of all sinks, ordered by name.
func (m *Manager) Infos(ctx context.Context) ([]Info, error) {
	m.mu.Lock()
	names := slices.Sorted(maps.Keys(m.sinks))
	m.mu.Unlock()
	var list []Info
	for _, name := range names {
		i, err := m.Info(ctx, name)
		if surgetank.CodeOf(err) == surgetank.CodeNotFound {
			continue // deleted meanwhile
		}
		if err != nil {
			return nil, err
		}
		if i.Level != nil {
			i.Level.History = nil
		}
		list = append(list, i)
	}
	return list, nil
}
