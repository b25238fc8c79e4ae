package sink

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/door"
	"github.com/surgetank/surgetank/internal/metacache"
)

// Namespace is the namespace of sinks in the broker's metadata. Each sink has one value, under its
// name.
const Namespace = "sink"

// Factory makes the target of a spec without opening it. Examples are postgres.New and sqlite.New.
type Factory func(Spec) (Target, error)

// Manager runs the sinks of one broker. Their settings are stored in the broker, so they survive a
// restart and move with the data directory. A Manager follows these settings, also if another
// Manager over the same broker changes them: both then run the sink, and the target's claim decides
// which of the two writes. Its methods are safe for use by many goroutines. Errors
// are *surgetank.Error.
type Manager struct {
	broker    door.Broker
	factories map[string]Factory
	opts      Options

	ops    chan struct{}   // contains a token while no change is in progress
	life   context.Context // Close ends this context, and with it a change in progress
	end    context.CancelFunc
	mu     sync.Mutex
	sinks  map[string]*managed
	closed bool

	values  *metacache.Cache[[]byte]
	changed map[string]bool // sinks whose values must be compared with the running sinks
	follows bool            // a goroutine does this
}

// managed is one sink. Only the holder of the manager's token changes its fields, with mu held.
type managed struct {
	version uint64 // of the stored value
	stored  stored
	spec    Spec
	broken  error   // why the stored settings cannot be run; if set, runner is nil
	runner  *Runner // nil: paused or broken
	stopped Status  // final status of the paused runner
}

// stored is the metadata value of a sink.
type stored struct {
	Version  int             `json:"version"`
	Instance string          `json:"instance"` // see Claim
	Paused   bool            `json:"paused,omitempty"`
	Spec     json.RawMessage `json:"spec"`
	Choices  []Choice        `json:"choices,omitempty"`
}

// Choice is a user's decision about a queue and a target that contradicted each other. The newest
// maxChoices are kept. They explain later which rows are missing or doubled in the target.
type Choice struct {
	Time          time.Time     `json:"time"`
	Contradiction Contradiction `json:"contradiction"`
	Text          string        `json:"text"`
	WayOut
}

const maxChoices = 16

const storedVersion = 1

// checkWait limits the check of a live target.
const checkWait = 30 * time.Second

// Info describes a sink: its settings without secrets, its state, and the backlog of its queue.
type Info struct {
	Name   string          `json:"name"`
	Queue  string          `json:"queue"`
	Kind   string          `json:"kind"`
	Paused bool            `json:"paused"`
	Spec   json.RawMessage `json:"spec"`
	// Choices are the users' decisions about contradictions of queue and target, oldest first.
	Choices []Choice `json:"choices,omitempty"`
	Status
	Waiting   int64   `json:"waiting"`            // messages in the queue that are not settled
	OldestAge float64 `json:"oldest_age_seconds"` // of the longest-waiting message; while messages are held back, of the oldest message that the sink has
}

// NewManager starts the sinks stored in the broker, whether their targets are up or not. A sink
// whose settings this program cannot run is listed as refused; the other sinks run.
//
// broker is an embedded.Broker. Any other broker is CodeInvalid.
func NewManager(ctx context.Context, broker surgetank.Broker, factories map[string]Factory, opts Options) (*Manager, error) {
	inner, err := door.Of(broker)
	if err != nil {
		return nil, err
	}
	m := &Manager{broker: inner, factories: factories, opts: opts.withDefaults(), ops: make(chan struct{}, 1), sinks: map[string]*managed{}}
	m.life, m.end = context.WithCancel(context.Background())
	m.ops <- struct{}{}
	<-m.ops
	defer func() { m.ops <- struct{}{} }()
	m.values, err = metacache.Open(ctx, inner, metacache.Options[[]byte]{Namespace: Namespace, Apply: m.follow,
		Decode: func(_ string, value []byte) ([]byte, error) { return value, nil }, Log: m.opts.Logger})
	if err != nil {
		return nil, err
	}
	for _, name := range slices.Sorted(maps.Keys(m.values.All())) {
		if err := m.renew(ctx, name); err != nil {
			m.values.Close()
			return nil, err
		}
	}
	return m, nil
}

func (m *Manager) load(ctx context.Context, name string, s *managed, value []byte) error {
	if err := json.Unmarshal(value, &s.stored); err != nil {
		return fmt.Errorf("the stored settings cannot be read: %w; delete the sink and set it again", err)
	}
	if s.stored.Version != storedVersion || s.stored.Instance == "" {
		return fmt.Errorf("the settings were stored by another version of Surgetank (%d); run that one, or delete the sink and set it again", s.stored.Version)
	}
	var err error
	if s.spec, err = ParseSpec(s.stored.Spec); err != nil || !s.spec.relative() {
		return err
	}
	if s.spec, err = s.spec.adopt(m.opts.Dir); err != nil {
		return err
	}
	s.stored.Spec = s.spec.Encode()
	m.opts.Logger.Info("a sink's relative path is stored as an absolute one", slog.String("sink", name), slog.String("path", s.spec.Address))
	s.version, err = m.store(ctx, name, &s.stored, s.version)
	return err
}

// start makes a runner for a sink that is not paused. way is the user's choice about a
// contradiction, or empty.
func (m *Manager) start(name string, s *managed, way Way) error {
	if s.stored.Paused {
		return nil
	}
	target, err := m.target(s.spec)
	if err != nil {
		return err
	}
	opts := m.opts
	opts.Way = way
	r := newRunner(m.broker, target, name, s.stored.Instance, s.spec, opts)
	m.mu.Lock()
	s.runner = r
	m.mu.Unlock()
	r.Start()
	return nil
}

func (m *Manager) target(spec Spec) (Target, error) {
	f := m.factories[spec.Kind]
	if f == nil {
		return nil, surgetank.FieldErrorf(spec.Kind, "this program has no %s target", spec.Kind)
	}
	return f(spec)
}

// begin takes the token for one change. The change must use the returned context, which Close ends,
// and must call done when finished.
func (m *Manager) begin(ctx context.Context) (_ context.Context, done func(), err error) {
	select {
	case <-m.ops:
	case <-ctx.Done():
		return nil, nil, surgetank.Errorf(surgetank.CodeBusy, "another change of the sinks is under way; try again")
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		m.ops <- struct{}{}
		return nil, nil, surgetank.Errorf(surgetank.CodeClosed, "the sinks are stopped; the server is shutting down")
	}
	ctx, cancel := context.WithCancel(ctx)
	unlink := context.AfterFunc(m.life, cancel)
	return ctx, func() {
		unlink()
		cancel()
		m.ops <- struct{}{}
	}, nil
}

func (m *Manager) get(name string) (*managed, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.sinks[name]
	if s == nil {
		return nil, surgetank.Errorf(surgetank.CodeNotFound, "there is no sink %.100q", name)
	}
	return s, nil
}

// store writes a sink's value; nil removes it. version is the version of the value on which the
// change depends. If another Manager has changed the value, the error is a conflict.
func (m *Manager) store(ctx context.Context, name string, v *stored, version uint64) (uint64, error) {
	var value []byte
	if v != nil {
		var err error
		if value, err = json.Marshal(v); err != nil {
			return 0, surgetank.Errorf(surgetank.CodeInternal, "the settings of sink %s could not be encoded: %w", name, err)
		}
	}
	version, err := m.values.Set(ctx, name, value, version)
	if surgetank.CodeOf(err) == surgetank.CodeExists {
		err = conflict{err}
	}
	return version, err
}

// Put creates a sink or changes its settings. spec is JSON that ParseSpec reads. The queue must
// exist, and Put checks the live target before it stores anything. Unchanged settings store nothing
// and skip the check. In an address, *** for the password means the stored password.
func (m *Manager) Put(ctx context.Context, name string, spec json.RawMessage) (json.RawMessage, bool, error) {
	if err := surgetank.ValidateName("sink", name); err != nil {
		return nil, false, err
	}
	next, err := ParseSpec(spec)
	if err != nil {
		return nil, false, err
	}
	ctx, done, err := m.begin(ctx)
	if err != nil {
		return nil, false, err
	}
	defer done()
	var info json.RawMessage
	created := false
	err = m.change(ctx, name, func() error {
		info, created, err = m.put(ctx, name, next)
		return err
	})
	return info, created, err
}

func (m *Manager) put(ctx context.Context, name string, next Spec) (json.RawMessage, bool, error) {
	old, err := m.get(name)
	created := err != nil
	if created {
		old = &managed{}
	} else {
		next = next.Beside(old.spec)
	}
	if next, err = next.absolute(m.opts.Dir); err != nil {
		return nil, false, err
	}
	if !created && old.broken == nil {
		if next.Kind == old.spec.Kind && next.Address == old.spec.Redacted().Address {
			next.Address = old.spec.Address
		}
		if string(next.Encode()) == string(old.spec.Encode()) {
			info, err := m.Get(ctx, name)
			return info, false, err
		}
	}
	if next.Address == next.Redacted().Address && hasHidden(next.Address) {
		return nil, false, surgetank.FieldErrorf("postgres.dsn", "postgres.dsn has %s for its password; write the password itself", mask)
	}
	target, err := m.check(ctx, next)
	if err != nil {
		return nil, false, err
	}
	defer target.Close()

	s := &managed{spec: next, stored: stored{Version: storedVersion, Instance: NewInstance(m.opts.Rand), Spec: next.Encode()}}
	if !created && old.stored.Instance != "" {
		s.stored.Instance, s.stored.Paused, s.stored.Choices = old.stored.Instance, old.stored.Paused, old.stored.Choices
	}
	if s.version, err = m.store(ctx, name, &s.stored, old.version); err != nil {
		return nil, false, err
	}
	if !created {
		m.pause(ctx, old)
	}
	m.mu.Lock()
	m.sinks[name] = s
	m.mu.Unlock()
	if err := m.start(name, s, ""); err != nil {
		return nil, false, err
	}
	info, err := m.Get(ctx, name)
	return info, created, err
}

// check checks that the queue exists and that the live target accepts the settings.
func (m *Manager) check(ctx context.Context, spec Spec) (Target, error) {
	if _, err := m.broker.Queue(ctx, spec.Queue); err != nil {
		if surgetank.CodeOf(err) == surgetank.CodeNotFound {
			return nil, surgetank.FieldErrorf("queue", "the queue %s does not exist; create it first", spec.Queue)
		}
		return nil, err
	}
	target, err := m.target(spec)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, checkWait)
	defer cancel()
	if err := target.Check(ctx); err != nil {
		target.Close()
		return nil, err
	}
	return target, nil
}

// halt stops a sink's runner, if it has one. An error says that its commits were interrupted.
func (m *Manager) halt(ctx context.Context, s *managed) error {
	m.mu.Lock()
	r := s.runner
	m.mu.Unlock()
	if r == nil {
		return nil
	}
	err := r.Stop(ctx)
	m.mu.Lock()
	s.stopped, s.runner = r.Status(), nil
	m.mu.Unlock()
	return err
}

// pause stops a sink's runner before a change of the sink. It logs interrupted commits, because the
// next opening finds out their outcome.
func (m *Manager) pause(ctx context.Context, s *managed) {
	if err := m.halt(ctx, s); err != nil {
		m.opts.Logger.Warn("a sink was interrupted", slog.String("reason", err.Error()))
	}
}

// Delete stops and removes a sink. It also removes the sink's progress from the target if the
// target can be reached. Queue and rows stay.
func (m *Manager) Delete(ctx context.Context, name string) error {
	ctx, done, err := m.begin(ctx)
	if err != nil {
		return err
	}
	defer done()
	return m.change(ctx, name, func() error { return m.remove(ctx, name) })
}

func (m *Manager) remove(ctx context.Context, name string) error {
	s, err := m.get(name)
	if err != nil {
		return err
	}
	m.pause(ctx, s) // first: committed messages must be acked before the progress is removed
	if _, err := m.store(ctx, name, nil, s.version); err != nil {
		if s.broken == nil {
			return errors.Join(err, m.start(name, s, ""))
		}
		return err
	}
	if err := forgetWritten(ctx, m.broker, s.stored.Instance); err != nil {
		m.opts.Logger.Warn("marks of a deleted sink stay in the data directory; they are never used again", slog.String("sink", name), slog.String("reason", err.Error()))
	}
	m.mu.Lock()
	delete(m.sinks, name)
	m.mu.Unlock()
	if s.broken == nil {
		m.forget(ctx, name, s)
	}
	return nil
}

// forget removes a sink's progress. Progress that cannot be removed does no harm: it belongs to an
// instance that is never used again.
func (m *Manager) forget(ctx context.Context, name string, s *managed) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	target, err := m.target(s.spec)
	if err == nil {
		defer target.Close()
		if f, ok := target.(interface {
			Forget(ctx context.Context, instance string) error
		}); ok {
			err = f.Forget(ctx, s.stored.Instance)
		}
	}
	if err != nil {
		m.opts.Logger.Warn("the progress of a deleted sink stays in surgetank_progress", slog.String("sink", name), slog.String("reason", err.Error()))
	}
}

// Pause stops a sink after its current batches. The sink stays paused through restarts.
func (m *Manager) Pause(ctx context.Context, name string) error { return m.setPaused(ctx, name, true) }

// Resume starts a paused sink, or a sink that stopped because another process took over. A sink
// stopped by the brake parks messages again. A sink whose queue and target contradict each other
// compares them again if way is empty, because a user may have corrected one of the two. Otherwise
// it continues in the way that the user chose. way must be one of the ways that the sink's status
// offers.
func (m *Manager) Resume(ctx context.Context, name string, way string) error {
	if way == "" {
		return m.setPaused(ctx, name, false)
	}
	ctx, done, err := m.begin(ctx)
	if err != nil {
		return err
	}
	defer done()
	return m.change(ctx, name, func() error { return m.choose(ctx, name, way) })
}

// choose resumes a sink in the way that the user chose.
func (m *Manager) choose(ctx context.Context, name string, way string) error {
	s, err := m.get(name)
	if err != nil {
		return err
	}
	m.mu.Lock()
	status, runner := s.stopped, s.runner
	m.mu.Unlock()
	if runner != nil {
		status = runner.Status()
	}
	r := status.Refusal
	if status.State != StateRefused || r == nil {
		return surgetank.Errorf(surgetank.CodeInvalid, "sink %s is %s: its queue and its target do not contradict each other, so there is no way to choose; resume it without one", name, status.State)
	}
	i := slices.IndexFunc(r.Ways, func(w WayOut) bool { return w.Way == Way(way) })
	if i < 0 {
		var offered []string
		for _, w := range r.Ways {
			offered = append(offered, "`"+w.Command+"`")
		}
		return surgetank.Errorf(surgetank.CodeInvalid, "sink %s cannot continue in the way %.40q; its ways are %s", name, way, strings.Join(offered, " and "))
	}
	next := s.stored
	next.Paused = false
	next.Choices = append(slices.Clone(s.stored.Choices), Choice{Time: m.opts.clock.Now().UTC(), Contradiction: r.Kind, Text: r.Text, WayOut: r.Ways[i]})
	next.Choices = next.Choices[max(0, len(next.Choices)-maxChoices):]
	version, err := m.store(ctx, name, &next, s.version)
	if err != nil {
		return err
	}
	m.mu.Lock()
	s.stored, s.version = next, version
	m.mu.Unlock()
	m.opts.Logger.Warn("a user chose how a sink goes on", slog.String("sink", name), slog.String("contradiction", r.Text), slog.String("effect", r.Ways[i].Effect))
	m.pause(ctx, s)
	return m.start(name, s, Way(way))
}

func (m *Manager) setPaused(ctx context.Context, name string, paused bool) error {
	ctx, done, err := m.begin(ctx)
	if err != nil {
		return err
	}
	defer done()
	return m.change(ctx, name, func() error { return m.runs(ctx, name, paused) })
}

// runs stores whether a sink is paused, and stops or starts it.
func (m *Manager) runs(ctx context.Context, name string, paused bool) error {
	s, err := m.get(name)
	if err != nil {
		return err
	}
	if s.broken != nil {
		return surgetank.Errorf(surgetank.CodeInvalid, "sink %s cannot be run: %w", name, s.broken)
	}
	if s.stored.Paused != paused {
		next := s.stored
		next.Paused = paused
		version, err := m.store(ctx, name, &next, s.version)
		if err != nil {
			return err
		}
		m.mu.Lock()
		s.stored, s.version = next, version
		m.mu.Unlock()
	}
	if paused {
		m.pause(ctx, s)
		return nil
	}
	if r := s.runner; r != nil {
		select {
		case <-r.Done():
			m.pause(ctx, s)
		default:
			r.ResetBrake()
			return nil
		}
	}
	return m.start(name, s, "")
}

// Info describes one sink.
func (m *Manager) Info(ctx context.Context, name string) (Info, error) {
	s, err := m.get(name)
	if err != nil {
		return Info{}, err
	}
	m.mu.Lock()
	i := Info{Name: name, Queue: s.spec.Queue, Kind: s.spec.Kind, Paused: s.stored.Paused, Status: s.stopped}
	i.Choices = s.stored.Choices
	runner, broken := s.runner, s.broken
	m.mu.Unlock()
	switch {
	case broken != nil:
		i.State, i.Error, i.Spec = StateRefused, broken.Error(), json.RawMessage("null")
		return i, nil
	case runner != nil:
		i.Status = runner.Status()
	default:
		i.State, i.Error = StatePaused, ""
	}
	i.Spec = s.spec.Redacted().Encode()
	q, err := m.broker.Queue(ctx, s.spec.Queue)
	switch {
	case err == nil:
		i.Waiting, i.OldestAge = q.Ready+q.Blocked+q.Delayed+q.Leased, q.OldestAge.Seconds()
		if !i.OldestHeld.IsZero() {
			i.OldestAge = max(i.OldestAge, m.opts.clock.Now().Sub(i.OldestHeld).Seconds())
		}
	case surgetank.CodeOf(err) != surgetank.CodeNotFound:
		return Info{}, err
	}
	return i, nil
}

// Get returns Info as JSON.
func (m *Manager) Get(ctx context.Context, name string) (json.RawMessage, error) {
	i, err := m.Info(ctx, name)
	if err != nil {
		return nil, err
	}
	b, err := json.Marshal(i)
	if err != nil {
		return nil, surgetank.Errorf(surgetank.CodeInternal, "the description of sink %s could not be encoded: %w", name, err)
	}
	return b, nil
}

// List returns the Info of all sinks as JSON, ordered by name.
func (m *Manager) List(ctx context.Context) ([]json.RawMessage, error) {
	m.mu.Lock()
	names := slices.Sorted(maps.Keys(m.sinks))
	m.mu.Unlock()
	var list []json.RawMessage
	for _, name := range names {
		b, err := m.Get(ctx, name)
		if surgetank.CodeOf(err) == surgetank.CodeNotFound {
			continue // deleted meanwhile
		}
		if err != nil {
			return nil, err
		}
		list = append(list, b)
	}
	return list, nil
}

// Close stops all sinks at once. Batches that lanes are committing are finished and acked, until
// ctx ends. The error names the sinks that were interrupted at that time. A change in progress is
// ended. After Close no sink runs, even if it returned an error. Close the manager before the
// broker.
func (m *Manager) Close(ctx context.Context) error {
	m.mu.Lock()
	again := m.closed
	m.closed = true
	m.mu.Unlock()
	m.end()
	m.values.Close()
	<-m.ops // a change in progress ends with its context
	defer func() { m.ops <- struct{}{} }()
	if again {
		return nil
	}
	m.mu.Lock()
	all := slices.Collect(maps.Values(m.sinks))
	m.mu.Unlock()
	errs := make([]error, len(all))
	var wg sync.WaitGroup
	for i, s := range all {
		wg.Go(func() { errs[i] = m.halt(ctx, s) })
	}
	wg.Wait()
	return errors.Join(errs...)
}
