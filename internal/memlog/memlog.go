// Package memlog is a log in memory, for tests and for the simulator. It keeps the promises of
// commitlog.Log to the letter (order of callbacks, first failure final, fencing) and lets its
// driver decide what a crash loses.
//
// A Store stands for the disk, a Log for one process's handle on it. A Log runs on a goroutine of
// its own that exists only while there is work, or, with Options.Manual, does nothing until Pump is
// called.
package memlog

import (
	"fmt"
	"io"
	"slices"
	"sync"

	"github.com/surgetank/surgetank/internal/commitlog"
)

// Store holds what is durable. It outlives the handles that are opened on it. Its methods may be
// called by many goroutines.
type Store struct {
	mu      sync.Mutex
	entries [][]byte         // durable entries from first on, without gaps
	first   commitlog.Offset // the offset of entries[0]
	current *Log             // the handle that may append; nil after a crash
	fault   error            // what the next Pump fails with
	snapAt  commitlog.Offset
	snap    []byte
}

// NewStore makes an empty store.
func NewStore() *Store { return &Store{first: 1} }

// Options are those of one Open.
type Options struct {
	// From leaves out of the replay the entries up to and including this offset.
	From commitlog.Offset
	// Manual makes Pump the only thing that makes entries durable and calls back.
	Manual bool
}

// Open opens the store, fences every older handle and gives the stored entries.
func (s *Store) Open(opts Options) (commitlog.Replay, *Log, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if opts.From >= s.first+commitlog.Offset(len(s.entries)) {
		return nil, nil, fmt.Errorf("memlog: replay from behind offset %d, but the log ends before it: %w", opts.From, commitlog.ErrCorrupt)
	}
	if opts.From > 0 && opts.From+1 < s.first {
		return nil, nil, fmt.Errorf("memlog: the entries behind offset %d are wanted, and the log begins with %d: %w", opts.From, s.first, commitlog.ErrCorrupt)
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

// Fail lets the next write fail: its entry and all after it are not stored, and the handle is done
// for. A handle opened later is not touched.
func (s *Store) Fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault = err
}

// Crash ends the current handle as a power failure would: of the appended entries that were not
// made durable the first keep survive (a disk may have written more than it said), the others are
// gone. No callback is called any more.
func (s *Store) Crash(keep int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.current
	if l == nil {
		return
	}
	if l.err != nil {
		keep = 0 // an entry behind one that failed is never written
	}
	for _, p := range l.queue[:min(max(keep, 0), len(l.queue))] {
		s.entries = append(s.entries, p.data)
	}
	l.queue, l.err, l.crashed = nil, commitlog.ErrFenced, true
	s.current, s.fault = nil, nil
}

// Len gives the number of entries that are stored.
func (s *Store) Len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.entries)
}

// Corrupt changes a stored entry; reading or replaying it then fails as a checksum would.
func (s *Store) Corrupt(at commitlog.Offset) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.entries[at-s.first] = nil
}

// Log is one handle. Append is for one goroutine, everything else for any.
type Log struct {
	store  *Store
	manual bool

	// The rest is guarded by store.mu.
	queue   []pending // appended, not durable, in order
	err     error     // why later appends fail
	running bool      // somebody is in pump, or the goroutine exists
	crashed bool      // callbacks are no longer wanted
	idle    sync.Cond // running became false
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
		return // the process that appends is dead and only does not know yet
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

// Pump makes everything that was appended durable, calls back, and gives the number of entries it
// did. It is for logs opened with Manual.
func (l *Log) Pump() int { return l.PumpN(-1) }

// PumpN is Pump for the oldest n entries; a negative n means all.
func (l *Log) PumpN(n int) int {
	s := l.store
	s.mu.Lock()
	if l.running {
		s.mu.Unlock()
		return 0 // a callback pumps: the outer Pump goes on
	}
	l.running = true
	s.mu.Unlock()
	return l.pump(n)
}

// pump stores up to n entries and calls back. Its caller has set running; it ends that when nothing
// is left to do.
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

// isDead tells whether a crash has ended the process that this handle stands for.
func (l *Log) isDead() bool {
	l.store.mu.Lock()
	defer l.store.mu.Unlock()
	return l.crashed
}

// rest says that nobody pumps any more. An append that came in between starts its own goroutine,
// because the queue is looked at under the same lock that running is cleared under.
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

// Read gives a durable entry.
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

// Trim drops the entries before an offset. The newest entry's place is remembered even when all are
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

// Freeable gives the bytes of the entries before an offset.
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

// Room gives as much as an address space holds: memory ends otherwise.
func (l *Log) Room() int64 { return 1 << 50 }

// KeepFree does nothing.
func (l *Log) KeepFree(int64) {}

// Close makes durable what was appended, calls back and releases the handle. It must not be called
// from a callback.
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

// Next gives the next entry.
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
