package sinktest

import (
	"context"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/sink"
)

// Memory is an in-memory database with the suite's one table and real transactions. It can do what
// real databases rarely do: finish a commit after its connection was lost.
type Memory struct {
	// Hint makes errors name the row at fault.
	Hint bool

	mu     sync.Mutex
	states map[string]*sink.State
	rows   []Row
	limbo  []func()
	rng    *rand.Rand
	rules
}

// NewMemory makes an empty database.
func NewMemory(seed uint64) *Memory {
	return &Memory{states: map[string]*sink.State{}, rng: rand.New(rand.NewPCG(seed, 1)), Hint: seed%2 == 0}
}

// Spec returns a sink that writes to the table.
func (m *Memory) Spec() sink.Spec { return tableSpec("sqlite", "memory", "t") }

// Target returns a handle without opening it.
func (m *Memory) Target(sink.Spec) (sink.Target, error) { return &memoryTarget{m: m}, nil }

// Rows returns the committed rows.
func (m *Memory) Rows() ([]Row, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]Row(nil), m.rows...), nil
}

// finishLimbo ends each commit whose connection was lost, with probability one half. Call with mu
// held.
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

// KeyForms declares that the key column v contains whole numbers.
func (t *memoryTarget) KeyForms() map[string]sink.KeyForm {
	return map[string]sink.KeyForm{"v": sink.KeyInteger}
}

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
		lanes[i] = &memoryLane{m: m, wide: m.wide, instance: c.Instance, owner: c.Owner, number: i, x: sink.NewExtractor(spec.Table.Columns)}
	}
	return next, lanes, nil
}

type memoryLane struct {
	m        *Memory
	instance string
	owner    string
	number   int
	x        *sink.Extractor
	wide     bool // whether v accepts text, as the lane last read the table
	added    []Row
	tx       []Row
	open     bool // a transaction is open
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
	if s, ok := v.JSON.Text(); ok && v.Kind == sink.CellJSON && strings.HasPrefix(s, "w") {
		if !l.wide {
			return sink.BadRowf("v is wide, and the table is narrow")
		}
		n, _ = strconv.ParseInt(s[1:], 10, 64) // the tests write numbers
	} else if v.Kind == sink.CellJSON && v.JSON.Kind() == sink.JSONNumber {
		if n, err = strconv.ParseInt(strings.TrimSuffix(string(v.JSON.Raw()), ".0"), 10, 64); err != nil {
			return sink.BadRowf("v is not an integer")
		}
	}
	l.added = append(l.added, Row{ID: cells[0].Text, Group: cells[1].Text, V: n})
	return nil
}

// check returns the error for the first rejected row of rows. The rows in before are already
// written. Call with mu held.
func (l *memoryLane) check(before, rows []Row) error {
	for i, r := range rows {
		if e := l.m.rejects(r, slices.Concat(before, rows), rows); e != nil {
			e.Row = -1
			if l.m.Hint {
				e.Row = i
			}
			return e
		}
	}
	return nil
}

// store commits rows and progress, if the lane itself wrote the stored progress. Call with mu held.
func (l *memoryLane) store(rows []Row, p sink.Progress) error {
	st := l.m.states[l.instance]
	if st == nil || st.Owner != l.owner || st.Epoch != p.Epoch || l.number >= len(st.Lanes) || st.Lanes[l.number].Batch != p.Batch {
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
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	if err := l.learn(); err != nil {
		return err
	}
	if err := l.check(nil, l.added); err != nil {
		return err
	}
	if err := l.m.late(l.added); err != nil {
		return err
	}
	return l.store(l.added, p)
}

// Limbo ends the connection during a commit. The commit happens at some later time, or never.
func (l *memoryLane) Limbo(p sink.Progress) {
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	if l.wide != l.m.wide || l.check(nil, l.added) != nil || l.m.late(l.added) != nil {
		return
	}
	rows := append([]Row(nil), l.added...)
	l.m.limbo = append(l.m.limbo, func() { _ = l.store(rows, p) })
}

// Fresh makes the lane read the table again.
func (l *memoryLane) Fresh(context.Context) (bool, error) {
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	return l.learn() != nil, nil
}

// Rest counts its calls.
func (l *memoryLane) Rest() {
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	l.m.rests++
}

// learn returns an error of the class Changed if the table has changed since the lane last read it,
// and then reads it. Call with mu held.
func (l *memoryLane) learn() error {
	if l.wide == l.m.wide {
		return nil
	}
	l.wide = l.m.wide
	return &sink.Error{Class: sink.Changed, Row: -1, Reason: "the table changed"}
}

// Begin opens a transaction.
func (l *memoryLane) Begin(context.Context) error {
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	if err := l.learn(); err != nil {
		return err
	}
	if l.open {
		return errProtocol("Begin in a transaction")
	}
	l.tx, l.open = l.tx[:0], true
	return nil
}

// Rollback rolls back the transaction, if there is one.
func (l *memoryLane) Rollback(context.Context) error {
	l.tx, l.open = l.tx[:0], false
	return nil
}

// Write writes rows into the transaction.
func (l *memoryLane) Write(_ context.Context, from, to int) error {
	if !l.open {
		return errProtocol("Write without a transaction")
	}
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	if err := l.check(l.tx, l.added[from:to]); err != nil {
		e := err.(*sink.Error) // check returns no other type
		if e.Row >= 0 {
			e.Row += from
		}
		if e.Lost {
			l.tx, l.open = l.tx[:0], false
		}
		return e
	}
	l.tx = append(l.tx, l.added[from:to]...)
	return nil
}

// Finish commits the transaction.
func (l *memoryLane) Finish(_ context.Context, p sink.Progress) error {
	if !l.open {
		return errProtocol("Finish without a transaction")
	}
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	if err := l.m.late(l.tx); err != nil {
		return err // the transaction stays open, as in SQLite
	}
	l.open = false
	return l.store(l.tx, p)
}

func errProtocol(what string) error {
	return &sink.Error{Class: sink.Refused, Row: -1, Reason: "the runner broke the contract of Lane: " + what}
}
