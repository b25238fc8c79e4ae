package sink

import (
	"context"
	"errors"
	"log/slog"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/metacache"
)

// follow notes the changed values. It is called for the changes of every Manager over the broker,
// including this one, and must not wait. A goroutine then compares the values with the sinks.
func (m *Manager) follow(changes []metacache.Change[[]byte]) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.changed == nil { // the first call, by NewManager, which starts all sinks itself
		m.changed = map[string]bool{}
		return
	}
	for i := range changes {
		m.changed[changes[i].Name] = true
	}
	if !m.follows && !m.closed && len(m.changed) > 0 {
		m.follows = true
		go m.followAll()
	}
}

// followAll renews the sinks whose values were changed, until none is left.
func (m *Manager) followAll() {
	for {
		ctx, done, err := m.begin(m.life)
		if err != nil { // the manager is closed
			m.mu.Lock()
			m.follows = false
			m.mu.Unlock()
			return
		}
		m.mu.Lock()
		names := m.changed
		m.changed = map[string]bool{}
		if len(names) == 0 {
			m.follows = false
		}
		m.mu.Unlock()
		for name := range names {
			if err := m.renew(ctx, name); err != nil {
				m.opts.Logger.Error("a changed sink could not be started again; set it once more, or restart the server", slog.String("sink", name), slog.String("reason", err.Error()))
			}
		}
		done()
		if len(names) == 0 {
			return
		}
	}
}

// change runs a change of one sink. If another Manager has changed the sink at the same time, the
// change is decided again with the newer settings. The caller holds the token.
func (m *Manager) change(ctx context.Context, name string, f func() error) error {
	for try := 1; ; try++ {
		if err := m.renew(ctx, name); err != nil {
			return err
		}
		err := f()
		if !conflicts(err) || ctx.Err() != nil {
			return err
		}
		if try == metacache.Tries {
			return surgetank.Errorf(surgetank.CodeBusy, "sink %s is changed by many programs at once; try again: %w", name, err)
		}
	}
}

// renew makes a sink follow its stored value, if another Manager has changed it. The caller holds
// the token.
func (m *Manager) renew(ctx context.Context, name string) error {
	m.values.Refresh()
	value, exists := m.values.Get(name)
	m.mu.Lock()
	old := m.sinks[name]
	m.mu.Unlock()
	switch {
	case !exists && old == nil, exists && old != nil && old.version == value.Version:
		return nil
	case old != nil:
		m.pause(ctx, old)
	}
	if !exists {
		m.mu.Lock()
		delete(m.sinks, name)
		m.mu.Unlock()
		return nil
	}
	s := &managed{version: value.Version}
	if s.broken = m.load(ctx, name, s, value.V); conflicts(s.broken) {
		return m.renew(ctx, name) // another Manager has stored the sink at the same time
	}
	m.mu.Lock()
	m.sinks[name] = s
	m.mu.Unlock()
	if s.broken != nil {
		m.opts.Logger.Error("a stored sink cannot be run", slog.String("sink", name), slog.String("reason", s.broken.Error()))
		return nil
	}
	if err := m.start(name, s, ""); err != nil {
		m.mu.Lock()
		s.broken = err
		m.mu.Unlock()
	}
	return nil
}

// conflict is the error of a change that was refused because another Manager was faster.
type conflict struct{ error }

func (c conflict) Unwrap() error { return c.error }

func conflicts(err error) bool {
	var c conflict
	return errors.As(err, &c)
}
