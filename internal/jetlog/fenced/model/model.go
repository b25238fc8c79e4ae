// Package model is a replicated stream in memory for tests and simulation. It behaves like a real
// one on a bad day: appends arrive late, in another order or not at all, answers are lost, sources
// lag behind or have holes, and leaders change. A seed decides everything.
//
//	Port A ──► ┌──────────── net: appends on their way ───────────┐      ┌─ stored ─┐
//	Port B ──► │ delivered in any order, or lost, or much later    │ ───► │ 1 2 3 4… │
//	           └───────────────────────────────────────────────────┘      └──────────┘
//	Port A ◄── answers: delivered in any order, or lost  ◄──────────────────────┘
//
// Nothing happens by itself. Step delivers one append or answer.
package model

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/surgetank/surgetank/internal/clock"
	"github.com/surgetank/surgetank/internal/jetlog/fenced"
)

// Faults are probabilities from 0 to 1.
type Faults struct {
	Lose       float64 // an append is lost on its way
	LoseAnswer float64 // an answer is lost
	Late       float64 // a synchronous append has no answer and is delivered later, or never
	Reorder    float64 // the next append or answer is not the oldest one
	Fail       float64 // a read or a question has no answer
	Stale      float64 // a leader or source does not know the newest records
}

// Stream is the replicated stream. Ports are safe for use by several goroutines, but only one
// goroutine makes the result depend on the seed alone.
type Stream struct {
	Faults Faults
	Rand   *rand.Rand
	Clock  *clock.Manual
	// Between is called before each operation that waits. Others can act there.
	Between func()
	// Data is the most bytes of data in one record.
	Data int
	// Sent, if not nil, gets a signal after each Send. It must have a buffer of one.
	Sent chan struct{}

	mu      sync.Mutex // guards the fields below, Rand and Clock
	first   uint64
	records [][]byte // the first one is at position first
	net     []sending
	answers []answer
	ports   []*Port
	snaps   map[string][]byte
	holes   map[hole]bool
	fail    error // the answer to the next Send
}

type sending struct {
	from     *Port
	epoch, n uint64
	after    uint64
	record   []byte
	silent   bool // nobody waits for the answer
}

type answer struct {
	to *Port
	a  fenced.Answer
}

// hole is a record that a source lacks.
type hole struct {
	source int
	at     uint64
}

// New returns an empty stream.
func New(seed uint64, c *clock.Manual) *Stream {
	return &Stream{Rand: rand.New(rand.NewPCG(seed, 1)), Clock: c, Between: func() {}, Data: 64 << 10, first: 1, snaps: map[string][]byte{}, holes: map[hole]bool{}}
}

// Last returns the position of the newest record.
func (s *Stream) Last() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last()
}

func (s *Stream) last() uint64 { return s.first + uint64(len(s.records)) - 1 }

// First returns the position of the first record.
func (s *Stream) First() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.first
}

// Waiting returns the number of appends and answers on their way.
func (s *Stream) Waiting() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.net) + len(s.answers)
}

// Fail makes the next Send fail with a final error.
func (s *Stream) Fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail = err
}

// Hole removes a record from what a source returns.
func (s *Stream) Hole(source int, at uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.holes[hole{source, at}] = true
}

func (s *Stream) chance(p float64) bool { return p > 0 && s.Rand.Float64() < p }

// pick returns the index of the next of n messages.
func (s *Stream) pick(n int) int {
	if n > 1 && s.chance(s.Faults.Reorder) {
		return s.Rand.IntN(n)
	}
	return 0
}

// Step delivers or loses one append or answer. It reports whether there was one.
func (s *Stream) Step() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, m := len(s.net), len(s.answers)
	switch {
	case n+m == 0:
		return false
	case s.Rand.IntN(n+m) < n:
		i := s.pick(n)
		a := s.net[i]
		s.net = slices.Delete(s.net, i, i+1)
		if s.chance(s.Faults.Lose) {
			return true
		}
		at, err := s.store(a.after, a.record)
		if !a.silent {
			s.answers = append(s.answers, answer{a.from, fenced.Answer{Epoch: a.epoch, N: a.n, At: at, Err: err}})
		}
	default:
		i := s.pick(m)
		a := s.answers[i]
		s.answers = slices.Delete(s.answers, i, i+1)
		if !s.chance(s.Faults.LoseAnswer) {
			a.to.answer(a.a)
		}
	}
	return true
}

func (s *Stream) store(after uint64, record []byte) (uint64, error) {
	if after != fenced.Any && after != s.last() {
		return 0, fenced.ErrMoved
	}
	s.records = append(s.records, record)
	return s.last(), nil
}

// NewLeader changes the leader. Some appends and answers on their way are lost without a word.
func (s *Stream) NewLeader() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.net = slices.DeleteFunc(s.net, func(sending) bool { return s.Rand.IntN(2) == 0 })
	s.answers = slices.DeleteFunc(s.answers, func(answer) bool { return s.Rand.IntN(2) == 0 })
	for _, p := range s.ports {
		if s.Rand.IntN(4) > 0 {
			p.disturbed()
		}
	}
}

// Port is one process's connection to the stream.
type Port struct {
	s         *Stream
	answer    func(fenced.Answer)
	disturbed func()
}

var _ fenced.Stream = (*Port)(nil)

// Port returns a new connection.
func (s *Stream) Port() *Port {
	p := &Port{s: s, answer: func(fenced.Answer) {}, disturbed: func() {}}
	s.ports = append(s.ports, p)
	return p
}

// Cut ends a connection like the death of its process. Appends on their way are delivered.
func (p *Port) Cut() {
	p.answer, p.disturbed = func(fenced.Answer) {}, func() {}
	p.s.ports = slices.DeleteFunc(p.s.ports, func(q *Port) bool { return p == q })
}

var errSilence = errors.New("no answer in time")

// wait lets the time of an operation without an answer pass.
func (s *Stream) wait() error {
	s.Clock.Advance(2 * time.Second)
	return errSilence
}

// Listen sets the receivers of answers.
func (p *Port) Listen(answer func(fenced.Answer), disturbed func()) {
	p.answer, p.disturbed = answer, disturbed
}

// Send puts an append into the net.
func (p *Port) Send(epoch, n, after uint64, record []byte) error {
	s := p.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.fail; err != nil {
		s.fail = nil
		return &fenced.FinalError{Err: err}
	}
	s.net = append(s.net, sending{from: p, epoch: epoch, n: n, after: after, record: slices.Clone(record)})
	select {
	case s.Sent <- struct{}{}:
	default:
	}
	return nil
}

// Append stores a record now, later or never. Only in the first case does the caller learn of it.
func (p *Port) Append(_ context.Context, after uint64, record []byte) (uint64, error) {
	s := p.s
	s.Between()
	s.mu.Lock()
	defer s.mu.Unlock()
	record = slices.Clone(record)
	if s.chance(s.Faults.Late) {
		s.net = append(s.net, sending{from: p, after: after, record: record, silent: true})
		return 0, s.wait()
	}
	if s.chance(s.Faults.Lose) {
		return 0, s.wait()
	}
	at, err := s.store(after, record)
	if s.chance(s.Faults.LoseAnswer) {
		return 0, s.wait()
	}
	return at, err
}

// Bounds returns the bounds that the leader knows.
func (p *Port) Bounds(context.Context) (fenced.Bounds, error) {
	s := p.s
	s.Between()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.chance(s.Faults.Fail) {
		return fenced.Bounds{}, s.wait()
	}
	b := fenced.Bounds{First: s.first, Last: s.known()}
	return b, nil
}

// known returns the newest position that a replica knows.
func (s *Stream) known() uint64 {
	last := s.last()
	if s.chance(s.Faults.Stale) {
		return max(last-min(last, s.Rand.Uint64N(4)), s.first-1)
	}
	return last
}

// Sources returns 3: the nearest replica, the leader and another one.
func (p *Port) Sources() int { return 3 }

// Read returns a few records.
func (p *Port) Read(_ context.Context, source int, from, to uint64) ([]fenced.Stored, error) {
	s := p.s
	s.Between()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.chance(s.Faults.Fail) {
		return nil, s.wait()
	}
	last := s.last()
	if source != 1 {
		last = s.known()
	}
	var out []fenced.Stored
	for at := max(from, s.first); at <= min(to, last) && len(out) < 8; at++ {
		if !s.holes[hole{source, at}] {
			out = append(out, fenced.Stored{At: at, Data: slices.Clone(s.records[at-s.first])})
		}
	}
	if len(out) == 0 {
		return nil, fenced.ErrMissing
	}
	return out, nil
}

// Purge removes the records before a position.
func (p *Port) Purge(_ context.Context, before uint64) error {
	s := p.s
	s.Between()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.chance(s.Faults.Fail) {
		return s.wait()
	}
	if before > s.first {
		n := min(before-s.first, uint64(len(s.records)))
		s.records, s.first = slices.Clone(s.records[n:]), s.first+n
	}
	return nil
}

// MaxData returns Stream.Data.
func (p *Port) MaxData() int { return p.s.Data }

// Wait lets time pass and delivers what is on its way.
func (p *Port) Wait(_ context.Context, d time.Duration) {
	p.s.Clock.Advance(d)
	p.s.Between()
	p.s.Step()
}

// PutSnapshot stores a piece.
func (p *Port) PutSnapshot(_ context.Context, name string, data []byte) error {
	s := p.s
	s.Between()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.chance(s.Faults.Lose) {
		return s.wait()
	}
	s.snaps[name] = slices.Clone(data)
	if s.chance(s.Faults.LoseAnswer) {
		return s.wait()
	}
	return nil
}

// GetSnapshot returns a piece.
func (p *Port) GetSnapshot(_ context.Context, _ int, name string) ([]byte, error) {
	s := p.s
	s.Between()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.chance(s.Faults.Fail) {
		return nil, s.wait()
	}
	data, ok := s.snaps[name]
	if !ok {
		return nil, fenced.ErrMissing
	}
	return slices.Clone(data), nil
}

// SnapshotNames returns the names of all pieces.
func (p *Port) SnapshotNames(context.Context) ([]string, error) {
	s := p.s
	s.Between()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.chance(s.Faults.Fail) {
		return nil, s.wait()
	}
	var names []string
	for name := range s.snaps { // unordered: sorted below
		names = append(names, name)
	}
	slices.Sort(names)
	return names, nil
}

// DropSnapshot removes pieces.
func (p *Port) DropSnapshot(_ context.Context, prefix string) error {
	s := p.s
	s.Between()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.chance(s.Faults.Fail) {
		return s.wait()
	}
	for name := range s.snaps { // unordered: all matching ones are removed
		if name == prefix || strings.HasPrefix(name, prefix+".") {
			delete(s.snaps, name)
		}
	}
	return nil
}
