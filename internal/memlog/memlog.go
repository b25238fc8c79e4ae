// Package memlog is a log in memory, for tests and for the simulator. It keeps all promises of
// commitlog.Log: the order of callbacks, a first failure that is final, and fencing. The caller of
// Crash decides which entries a crash loses.
//
// A Store represents the disk, and a Log one process's handle on the disk. A Log runs on its own
// goroutine, which exists only while there is work. With Options.Manual it does nothing until Pump
// is called.
package memlog

import (
	"fmt"
	"io"
	"slices"
	"sync"

	"github.com/surgetank/surgetank/internal/commitlog"
)

// Store contains the durable data. It outlives the handles opened on it. Many goroutines may call
// its methods.
type Store struct {
	mu      sync.Mutex
	entries [][]byte         // durable entries from first on, without gaps
	first   commitlog.Offset // the offset of entries[0]
	current *Log             // the handle that may append; nil after a crash
	fault   error            // the error of the next Pump
	snapAt  commitlog.Offset
	snap    []byte
}

// NewStore returns an empty store.
func NewStore() *Store { return &Store{first: 1} }

// Options are the options of one Open.
type Options struct {
	// From is the offset after which the replay starts.
	From commitlog.Offset
	// Manual means that only Pump makes entries durable and calls back.
	Manual bool
}

// Open opens the store, fences every older handle and returns a replay of the stored entries.
func (s *Store) Open(opts Options) (commitlog.Replay, *Log, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if opts.From >= s.first+commitlog.Offset(len(s.entries)) {
		return nil, nil, fmt.Errorf("memlog: replay from after offset %d, but the log ends before it: %w", opts.From, commitlog.ErrCorrupt)
	}
	if opts.From > 0 && opts.From+1 < s.first {
		return nil, nil, fmt.Errorf("memlog: the entries after offset %d are needed, and the log begins with %d: %w", opts.From, s.first, commitlog.ErrCorrupt)
	}
	if s.current != nil {
		s.current.err = commitlog.ErrFenced
	}
	start := max(opts.From+1, s.first)
	l := &Log{store: s, manual: opts.Manual}
	l.idle.L = &s.mu
	s.current = l
	return &replay{entries: slices.Clone(s.entries[start-s.first:]), next: start}, l, nil
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
		s.entries = append(s.entries, p.data)
	}
	l.queue, l.err, l.crashed = nil, commitlog.ErrFenced, true
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
	s.entries[at-s.first] = nil
}

// Log is one handle. Only one goroutine at a time may call Append. Any goroutine may call the other
// methods.
type Log struct {
	store  *Store
	manual bool

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
}

var (
	_ commitlog.Log   = (*Log)(nil)
	_ commitlog.Freer = (*Log)(nil)
)

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
	l.queue = append(l.queue, pending{data, done})
	if !l.manual && !l.running {
		l.running = true
		go func() {
			for l.pump(-1) > 0 {
			}
		}()
	}
}

// Pump makes all appended entries durable, calls back, and returns their number. It is for logs
// opened with Manual.
func (l *Log) Pump() int { return l.PumpN(-1) }

// PumpN is Pump for the oldest n entries; a negative n means all.
func (l *Log) PumpN(n int) int {
	s := l.store
	s.mu.Lock()
	if l.running {
		s.mu.Unlock()
		return 0 // a callback called Pump: the outer Pump continues
	}
	l.running = true
	s.mu.Unlock()
	return l.pump(n)
}

// pump stores up to n entries and calls back. The caller must set l.running to true first. pump
// sets it to false when nothing is left to do.
func (l *Log) pump(n int) int {
	s := l.store
	s.mu.Lock()
	if n < 0 || n > len(l.queue) {
		n = len(l.queue)
	}
	batch := slices.Clone(l.queue[:n])
	l.queue = slices.Delete(l.queue, 0, n)
	results := make([]error, n)
	at := s.first + commitlog.Offset(len(s.entries))
	for i, p := range batch {
		if l.err == nil && len(p.data) > commitlog.MaxEntry {
			l.err = fmt.Errorf("memlog: an entry of %d bytes is above the limit of %d: %w", len(p.data), commitlog.MaxEntry, commitlog.ErrFailed)
		}
		if l.err == nil && s.fault != nil {
			l.err = fmt.Errorf("memlog: writing failed: %w: %w", s.fault, commitlog.ErrFailed)
			s.fault = nil
		}
		if results[i] = l.err; l.err == nil {
			s.entries = append(s.entries, p.data)
		}
	}
	if n == 0 || l.manual {
		defer l.rest()
	}
	s.mu.Unlock()
	for i, p := range batch {
		switch {
		case l.isDead(): // a callback crashed the store
		case results[i] != nil:
			p.done(0, results[i])
		default:
			p.done(at+commitlog.Offset(i), nil)
		}
	}
	return n
}

// isDead reports whether a crash has ended this handle.
func (l *Log) isDead() bool {
	l.store.mu.Lock()
	defer l.store.mu.Unlock()
	return l.crashed
}

// rest sets l.running to false, or starts the next goroutine if entries were appended meanwhile.
// One lock guards the queue and l.running, so no appended entry is overlooked.
func (l *Log) rest() {
	s := l.store
	s.mu.Lock()
	defer s.mu.Unlock()
	l.running = false
	l.idle.Broadcast()
	if !l.manual && len(l.queue) > 0 {
		l.running = true
		go func() {
			for l.pump(-1) > 0 {
			}
		}()
	}
}

// Read returns a durable entry.
func (l *Log) Read(at commitlog.Offset) ([]byte, error) {
	s := l.store
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case l.err != nil && l.err == commitlog.ErrClosed:
		return nil, commitlog.ErrClosed
	case at < s.first:
		return nil, fmt.Errorf("memlog: entry %d: %w", at, commitlog.ErrTrimmed)
	case at >= s.first+commitlog.Offset(len(s.entries)):
		return nil, fmt.Errorf("memlog: entry %d is not stored: %w", at, commitlog.ErrCorrupt)
	}
	data := s.entries[at-s.first]
	if data == nil {
		return nil, fmt.Errorf("memlog: entry %d: %w", at, commitlog.ErrCorrupt)
	}
	return data, nil
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
	if before > s.first {
		n := min(before-s.first, commitlog.Offset(len(s.entries)))
		s.entries = slices.Clone(s.entries[n:])
		s.first += n
	}
	return nil
}

// Freeable returns the bytes of the entries before an offset.
func (l *Log) Freeable(before commitlog.Offset) (bytes int64) {
	s := l.store
	s.mu.Lock()
	defer s.mu.Unlock()
	if before <= s.first {
		return 0
	}
	for _, data := range s.entries[:min(before-s.first, commitlog.Offset(len(s.entries)))] {
		bytes += int64(len(data))
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
	for l.manual && l.Pump() > 0 {
	}
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

// replay iterates over the entries that were stored at Open.
type replay struct {
	entries [][]byte
	next    commitlog.Offset
	closed  bool
}

// Next returns the next entry.
func (r *replay) Next() (commitlog.Entry, error) {
	if r.closed {
		return commitlog.Entry{}, commitlog.ErrClosed
	}
	if len(r.entries) == 0 {
		return commitlog.Entry{}, io.EOF
	}
	if r.entries[0] == nil {
		return commitlog.Entry{}, fmt.Errorf("memlog: entry %d: %w", r.next, commitlog.ErrCorrupt)
	}
	e := commitlog.Entry{Offset: r.next, Data: r.entries[0]}
	r.entries, r.next = r.entries[1:], r.next+1
	return e, nil
}

// Close ends the replay.
func (r *replay) Close() error {
	r.closed, r.entries = true, nil
	return nil
}
