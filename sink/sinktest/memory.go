package sinktest

import (
	"context"
	"math/rand/v2"
	"strconv"
	"sync"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/jsonpath"
	"github.com/surgetank/surgetank/sink"
)

// Memory is a database in memory with the suite's one table and real transactions. It can do what tests need and real
// databases do rarely: finish a commit after its connection was lost.
type Memory struct {
	// Hint makes errors name the row at fault.
	Hint bool

	mu     sync.Mutex
	states map[string]*sink.State
	rows   []Row
	limbo  []func()
	rng    *rand.Rand
}

// NewMemory makes an empty database.
func NewMemory(seed uint64) *Memory {
	return &Memory{states: map[string]*sink.State{}, rng: rand.New(rand.NewPCG(seed, 1)), Hint: seed%2 == 0}
}

// Spec gives a sink into the table.
func (m *Memory) Spec() sink.Spec { return tableSpec("sqlite", "memory", "t") }

// Target opens nothing; it is a handle.
func (m *Memory) Target(sink.Spec) (sink.Target, error) { return &memoryTarget{m: m}, nil }

// Rows gives what is committed.
func (m *Memory) Rows() ([]Row, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]Row(nil), m.rows...), nil
}

// finishLimbo lets each commit whose connection was lost come to its end now with probability one half.
// Called with mu held.
func (m *Memory) finishLimbo() {
	rest := m.limbo[:0]
	for _, f := range m.limbo {
		if m.rng.IntN(2) == 0 {
			f()
		} else {
			rest = append(rest, f)
		}
	}
	m.limbo = rest
}

type memoryTarget struct {
	m *Memory
}

func (t *memoryTarget) Check(context.Context) error { return nil }
func (t *memoryTarget) Close()                      {}

func (t *memoryTarget) Open(_ context.Context, c sink.Claim) (sink.State, []sink.Lane, error) {
	m := t.m
	m.mu.Lock()
	defer m.mu.Unlock()
	m.finishLimbo()
	next, err := c.Next(m.states[c.Instance])
	if err != nil {
		return sink.State{}, nil, err
	}
	stored := next
	stored.Lanes = append([]sink.LaneState(nil), next.Lanes...)
	m.states[c.Instance] = &stored
	m.finishLimbo()
	spec := m.Spec()
	lanes := make([]sink.Lane, c.Lanes)
	for i := range lanes {
		lanes[i] = &memoryLane{m: m, instance: c.Instance, number: i, x: sink.NewExtractor(spec.Table.Columns)}
	}
	return next, lanes, nil
}

type memoryLane struct {
	m        *Memory
	instance string
	number   int
	x        *sink.Extractor
	added    []Row
	tx       []Row
}

func (l *memoryLane) Reset() { l.added = l.added[:0] }

func (l *memoryLane) Add(d *surgetank.Delivery) error {
	cells, err := l.x.Cells(d)
	if err != nil {
		return err
	}
	v := cells[2]
	if v.Kind == sink.CellMissing {
		return sink.BadRowf("v is missing")
	}
	n := int64(-2)
	if v.Kind == sink.CellJSON && v.JSON.Kind == jsonpath.Number {
		if n, err = strconv.ParseInt(string(v.JSON.Raw), 10, 64); err != nil {
			return sink.BadRowf("v is not an integer")
		}
	}
	l.added = append(l.added, Row{ID: cells[0].Text, Group: cells[1].Text, V: n})
	return nil
}

func (l *memoryLane) check(from, to int) error {
	for i, r := range l.added[from:to] {
		if r.V < 0 {
			row := -1
			if l.m.Hint {
				row = from + i
			}
			return &sink.Error{Class: sink.BadRow, Row: row, Reason: "v must not be negative"}
		}
	}
	return nil
}

// store is the commit: rows and progress, if the progress is what the lane left. Called with mu held.
func (l *memoryLane) store(rows []Row, p sink.Progress) error {
	st := l.m.states[l.instance]
	if st == nil || st.Epoch != p.Epoch || l.number >= len(st.Lanes) || st.Lanes[l.number].Batch != p.Batch {
		return &sink.Error{Class: sink.Stale, Row: -1, Reason: "the progress has moved"}
	}
	st.Lanes[l.number] = sink.LaneState{Batch: p.Batch + 1, Watermark: p.Watermark, Entry: p.Entry, Applied: p.Applied, IDs: p.IDs}
	if p.Settled != nil {
		st.Settled = p.Settled
	}
	l.m.rows = append(l.m.rows, rows...)
	return nil
}

func (l *memoryLane) Commit(_ context.Context, p sink.Progress) error {
	if err := l.check(0, len(l.added)); err != nil {
		return err
	}
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	return l.store(l.added, p)
}

// Limbo commits at some later time, or never.
func (l *memoryLane) Limbo(p sink.Progress) {
	if l.check(0, len(l.added)) != nil {
		return
	}
	rows := append([]Row(nil), l.added...)
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	l.m.limbo = append(l.m.limbo, func() { _ = l.store(rows, p) })
}

func (l *memoryLane) Fresh(context.Context) (bool, error) { return false, nil }
func (l *memoryLane) Rest()                               {}

func (l *memoryLane) Begin(context.Context) error    { l.tx = l.tx[:0]; return nil }
func (l *memoryLane) Rollback(context.Context) error { l.tx = l.tx[:0]; return nil }

func (l *memoryLane) Write(_ context.Context, from, to int) error {
	if err := l.check(from, to); err != nil {
		return err
	}
	l.tx = append(l.tx, l.added[from:to]...)
	return nil
}

func (l *memoryLane) Finish(_ context.Context, p sink.Progress) error {
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	return l.store(l.tx, p)
}
