// Package memlog is a log in memory, for tests and for the simulator. It keeps all promises of
// commitlog.Log: the order of callbacks, a first failure that is final, and fencing. The caller of
// Crash decides which entries a crash loses.
//
// A Store represents the disk, and a Log one process's handle on the disk. Store.Open returns a Log
// with a goroutine of its own, which exists only while there is work. A log of Store.OpenStepped
// does nothing until its caller calls Pump.
//
// With Options.Latency the log behaves like a remote one: each append lasts that long, and any
// number of appends are in flight at the same time.
package memlog

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/surgetank/surgetank/internal/clock"
	"github.com/surgetank/surgetank/internal/commitlog"
)

// Store contains the durable data. It outlives the handles opened on it. Many goroutines may call
// its methods.
type Store struct {
	mu      sync.Mutex
	entries []entry          // durable entries, by ascending offset
	begin   commitlog.Offset // entries below this offset were trimmed
	last    commitlog.Offset // the newest offset; 0: there was no entry yet
	current *Log             // the handle that may append; nil after a crash
	fault   error            // the error of the next write
	snapAt  commitlog.Offset
	snap    []byte
}

type entry struct {
	at   commitlog.Offset
	data []byte // nil: damaged
}

// NewStore returns an empty store.
func NewStore() *Store { return &Store{begin: 1} }

// Options are the options of one opening.
type Options struct {
	// From is the offset after which the replay starts.
	From commitlog.Offset
	// Latency is the time from an append to its callback; 0 means none. Appends do not wait for
	// each other.
	Latency time.Duration
	// Gaps makes the log skip some offsets, always the same ones.
	Gaps bool
	// Pace is the log's answer to commitlog.Pacer.
	Pace commitlog.Pace
	// Clock is the clock of Latency; nil means the real clock.
	Clock clock.Clock
}

// Open opens the store, fences every older handle and returns a replay of the stored entries. The
// log works on a goroutine of its own.
func (s *Store) Open(opts Options) (commitlog.Replay, *Log, error) {
	r, l, err := s.open(opts)
	if err == nil {
		l.goroutine = true
	}
	return r, l, err
}

// open returns a log that nobody runs yet.
func (s *Store) open(opts Options) (commitlog.Replay, *Log, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if opts.From > s.last {
		return nil, nil, fmt.Errorf("memlog: replay from after offset %d, but the log ends before it: %w", opts.From, commitlog.ErrCorrupt)
	}
	if opts.From > 0 && opts.From+1 < s.begin {
		return nil, nil, fmt.Errorf("memlog: the entries after offset %d are needed, and the log begins with %d: %w", opts.From, s.begin, commitlog.ErrCorrupt)
	}
	if s.current != nil {
		s.current.err = commitlog.ErrFenced
	}
	if opts.Clock == nil {
		opts.Clock = clock.Real{}
	}
	l := &Log{store: s, o: opts, crash: make(chan struct{})}
	l.idle.L = &s.mu
	s.current = l
	return &replay{entries: slices.Clone(s.entries[s.index(opts.From+1):])}, l, nil
}

// index returns the index of the first entry at or after an offset. s.mu is held.
func (s *Store) index(at commitlog.Offset) int {
	i, _ := slices.BinarySearchFunc(s.entries, at, func(e entry, at commitlog.Offset) int {
		switch {
		case e.at < at:
			return -1
		case e.at > at:
			return 1
		}
		return 0
	})
	return i
}

// add stores an entry and returns its offset. s.mu is held.
func (s *Store) add(data []byte, gaps bool) commitlog.Offset {
	s.last++
	if gaps && s.last%3 == 0 {
		s.last += 1 + s.last%5
	}
	s.entries = append(s.entries, entry{s.last, data})
	return s.last
}

// Fail makes the next write fail. The entry of that write and all later entries are not stored, and
// the handle fails for good. Later handles are not affected.
func (s *Store) Fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault = err
}

// Crash ends the current handle like a power failure. The first keep entries that are not durable
// survive, because a disk can have written more than it reported. All later entries are lost, and
// no more callbacks are called.
func (s *Store) Crash(keep int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.current
	if l == nil {
		return
	}
	if l.err != nil {
		keep = 0 // entries after a failed entry are never written
	}
	for _, p := range l.queue[:min(max(keep, 0), len(l.queue))] {
		s.add(p.data, l.o.Gaps)
	}
	l.queue, l.err, l.crashed = nil, commitlog.ErrFenced, true
	close(l.crash)
	s.current, s.fault = nil, nil
}

// Len returns the number of stored entries.
func (s *Store) Len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.entries)
}

// Corrupt damages a stored entry. Reading or replaying that entry fails like a wrong checksum.
func (s *Store) Corrupt(at commitlog.Offset) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.entries[s.index(at)].data = nil
}

// Log is one handle. Only one goroutine at a time may call Append. Any goroutine may call the other
// methods.
type Log struct {
	store     *Store
	o         Options
	goroutine bool          // the log runs a goroutine of its own while there is work
	crash     chan struct{} // closed by a crash

	// store.mu guards the fields below.
	queue   []pending // appended entries that are not durable, in order
	err     error     // the error that later appends return
	running bool      // a caller is in pump, or the goroutine exists
	crashed bool      // a crash ended the handle: no more callbacks are called
	idle    sync.Cond // signals that running became false
}

type pending struct {
	data []byte
	done func(commitlog.Offset, error)
	due  time.Duration // by clock.Passed
}

var (
	_ commitlog.Log        = (*Log)(nil)
	_ commitlog.Freer      = (*Log)(nil)
	_ commitlog.Pacer      = (*Log)(nil)
	_ commitlog.PartReader = (*Log)(nil)
)

// Pace returns Options.Pace.
func (l *Log) Pace() commitlog.Pace { return l.o.Pace }

// Append queues an entry; see commitlog.Log.
func (l *Log) Append(data []byte, done func(commitlog.Offset, error)) {
	s := l.store
	s.mu.Lock()
	defer s.mu.Unlock()
	if l.crashed {
		return // a crash has ended the process, so its append has no effect
	}
	if data == nil {
		data = []byte{}
	}
	p := pending{data: data, done: done}
	if l.o.Latency > 0 {
		p.due = l.o.Clock.Passed() + l.o.Latency
	}
	l.queue = append(l.queue, p)
	l.start()
}

// pump stores the oldest entries that are due, at most n, and calls back. A negative n means all.
// The caller must set l.running to true first. It returns the number of entries.
func (l *Log) pump(n int) int {
	s := l.store
	s.mu.Lock()
	if n < 0 || n > len(l.queue) {
		n = len(l.queue)
	}
	if l.o.Latency > 0 {
		now := l.o.Clock.Passed()
		if i := slices.IndexFunc(l.queue[:n], func(p pending) bool { return p.due > now }); i >= 0 {
			n = i
		}
	}
	batch := slices.Clone(l.queue[:n])
	l.queue = slices.Delete(l.queue, 0, n)
	results := make([]error, n)
	at := make([]commitlog.Offset, n)
	for i, p := range batch {
		if l.err == nil && len(p.data) > commitlog.MaxEntry {
			l.err = fmt.Errorf("memlog: an entry of %d bytes is above the limit of %d: %w", len(p.data), commitlog.MaxEntry, commitlog.ErrFailed)
		}
		if l.err == nil && s.fault != nil {
			l.err = fmt.Errorf("memlog: writing failed: %w: %w", s.fault, commitlog.ErrFailed)
			s.fault = nil
		}
		if results[i] = l.err; l.err == nil {
			at[i] = s.add(p.data, l.o.Gaps)
		}
	}
	s.mu.Unlock()
	for i, p := range batch {
		if l.isDead() { // a callback crashed the store
			break
		}
		p.done(at[i], results[i])
	}
	return n
}

// isDead reports whether a crash has ended this handle.
func (l *Log) isDead() bool {
	l.store.mu.Lock()
	defer l.store.mu.Unlock()
	return l.crashed
}

// Read returns a durable entry.
func (l *Log) Read(at commitlog.Offset) ([]byte, error) {
	s := l.store
	s.mu.Lock()
	defer s.mu.Unlock()
	if l.err != nil && l.err == commitlog.ErrClosed {
		return nil, commitlog.ErrClosed
	}
	if at < s.begin && at > 0 {
		return nil, fmt.Errorf("memlog: entry %d: %w", at, commitlog.ErrTrimmed)
	}
	i := s.index(at)
	if i == len(s.entries) || s.entries[i].at != at {
		return nil, fmt.Errorf("memlog: entry %d is not stored: %w", at, commitlog.ErrCorrupt)
	}
	data := s.entries[i].data
	if data == nil {
		return nil, fmt.Errorf("memlog: entry %d: %w", at, commitlog.ErrCorrupt)
	}
	return data, nil
}

// ReadPart returns a part of a durable entry. See commitlog.PartReader.
func (l *Log) ReadPart(at commitlog.Offset, from, n int) ([]byte, error) {
	data, err := l.Read(at)
	if err != nil {
		return nil, err
	}
	return commitlog.Part(data, at, from, n)
}

// Trim drops the entries before an offset. The next offset stays known even if all entries are
// dropped.
func (l *Log) Trim(before commitlog.Offset) error {
	s := l.store
	s.mu.Lock()
	defer s.mu.Unlock()
	if l.err != nil {
		return l.err
	}
	if n := s.index(before); n > 0 {
		s.begin = s.entries[n-1].at + 1
		s.entries = slices.Clone(s.entries[n:])
	}
	return nil
}

// Freeable returns the bytes of the entries before an offset.
func (l *Log) Freeable(before commitlog.Offset) (bytes int64) {
	s := l.store
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.entries[:s.index(before)] {
		bytes += int64(len(e.data))
	}
	return bytes
}

// Room returns a very large number, because this log has no limit.
func (l *Log) Room() int64 { return 1 << 50 }

// KeepFree does nothing.
func (l *Log) KeepFree(int64) {}

// Close makes the appended entries durable, calls back and closes the handle. A callback must not
// call it.
func (l *Log) Close() error {
	s := l.store
	s.mu.Lock()
	defer s.mu.Unlock()
	for l.running {
		l.idle.Wait()
	}
	if l.err == commitlog.ErrClosed {
		return nil
	}
	err := l.err
	l.err = commitlog.ErrClosed
	if s.current == l {
		s.current = nil
	}
	if err == commitlog.ErrFenced {
		return nil
	}
	return err
}
