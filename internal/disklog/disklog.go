// Package disklog is the log on files. One goroutine writes segments and syncs once for each batch.
// Checksums distinguish the traces of a crash from damage by the disk.
//
//	Append ──► queue ──► writer: one pwritev, one fdatasync ──► callbacks, in order
//	                        │ active segment is full
//	                        ▼
//	        seal (index + footer, synced) ──► next segment, prepared by maintenance
//
//	0000000000000007.seg   header │ frame │ frame │ … │ index │ footer      sealed, read only
//	0000000000000008.seg   header │ frame │ frame │ mark │ 0 0 0 …          active
//	0000000000000009.seg   header │ 0 0 0 …                                 next, empty
//	reserve.spare          room for acks on a full disk
//	log.state              the oldest segment that is not trimmed
//	LOCK                   locked by the process that has the log open
//
// Three rules make recovery decidable:
//
//  1. Every frame's checksum covers the frame's position and a random id. A segment file gets a new
//     id each time it is reused. So old, moved or published bytes never look like a valid frame.
//  2. Every frame contains the position up to which the segment was synced when the frame was
//     written. If a frame before such a position is missing, the disk lost it (ErrCorrupt). If a
//     frame after that position is missing, the crash came before the sync, and the entry was not
//     confirmed. The bytes from there on are a torn tail: Open cuts them and writes a line to the
//     server's log.
//  3. A segment's first frame is written only after everything in the previous segment was synced.
//
// Bytes after the last synced position may be in the page cache only, and a failed sync may have
// marked them clean there. So Open copies these bytes into a new segment and syncs the segment
// before it uses them.
//
// docs/format.md describes the files. docs/assumptions.md says what the log assumes of file
// systems.
package disklog

import (
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/clock"
	"github.com/surgetank/surgetank/internal/commitlog"
	"github.com/surgetank/surgetank/internal/vfs"
)

// Defaults and limits of Options.
const (
	DefaultSegmentBytes = 64 << 20
	MinSegmentBytes     = 16 << 10
	MaxSegmentBytes     = 1 << 30
	DefaultCacheBytes   = 64 << 20

	// DefaultFirstBytes is the size of a new log's first segment. Each further segment is larger by
	// the factor growth, up to SegmentBytes, so that a small log stays small.
	DefaultFirstBytes = 1 << 20
	growth            = 4
	// reserveBytes is how much disk space is reserved for acks on a full disk. A small log reserves
	// less.
	reserveBytes = 8 << 20
	// maxSpares is the number of trimmed segment files that are kept for reuse.
	maxSpares = 2
	// maxOpenFiles limits how many segment files are open for reading.
	maxOpenFiles = 128
	// retryFull is the time between two tries on a full disk.
	retryFull = time.Second
)

// Options describe where and how a log is stored. FS and Dir are required.
type Options struct {
	FS  vfs.FS
	Dir string
	// SegmentBytes is the size of a segment file; 0 means 64 MiB. An entry that is larger gets a
	// larger segment of its own.
	SegmentBytes int64
	// FirstBytes is the size of the first segment, and about the size of the segments of an idle
	// log. 0 means 1 MiB, or SegmentBytes if that is less.
	FirstBytes int64
	// From is the offset after which the replay starts. Sealed segments that end before it are not
	// read. If From is after the log's end, entries are missing, and Open returns ErrCorrupt.
	From commitlog.Offset
	// Only, if not zero, is the identity of the log that must be in Dir. Open then creates no log and
	// no directory.
	Only Identity
	// CacheBytes is how many bytes of the newest entries are kept in memory: 0 means 64 MiB, a
	// negative number means none.
	CacheBytes int64
	// MinFree is how many bytes of the file system stay free when a segment is created: 0 means
	// twice SegmentBytes, a negative number none. Only acks and snapshots use these bytes, when
	// there is no other room.
	MinFree int64
	// OnFull is called with true when the disk has no room for the next segment. Writing stops only
	// when the active segment and the reserve are full. OnFull is called with false when there is
	// room again. It is called by one goroutine at a time and must not block.
	OnFull func(full bool)
	// ScrubEvery is the time from the start of a scrub to the start of the next one. A scrub reads
	// all stored data. 0 means a day, a negative number never.
	ScrubEvery time.Duration
	// ScrubRate is the most bytes that a scrub reads in a second: 0 means 4 MiB.
	ScrubRate int64
	// Snapshots are the snapshots of this log, for the scrub to read; nil means none.
	Snapshots *Snapshots
	// OnDamage is called for each finding of each scrub pass, even if an earlier pass reported it.
	// It is called by one goroutine at a time and must not block.
	OnDamage func(commitlog.Damage)
	// OnEvent reports changes of files. It must not block.
	OnEvent func(Event)
	Logger  *slog.Logger
	Clock   clock.Clock
	// Rand is the source of random ids; nil means crypto/rand.
	Rand io.Reader
}

func (o Options) withDefaults() (Options, error) {
	if o.FS == nil || o.Dir == "" {
		return o, surgetank.FieldErrorf("dir", "a log needs a file system and a directory")
	}
	if o.SegmentBytes == 0 {
		o.SegmentBytes = DefaultSegmentBytes
	}
	if o.SegmentBytes < MinSegmentBytes || o.SegmentBytes > MaxSegmentBytes {
		return o, surgetank.FieldErrorf("segment_bytes", "a segment of %d bytes is outside %d to %d", o.SegmentBytes, MinSegmentBytes, int64(MaxSegmentBytes))
	}
	o.SegmentBytes = pageEnd(o.SegmentBytes)
	if o.FirstBytes <= 0 {
		o.FirstBytes = DefaultFirstBytes
	}
	o.FirstBytes = min(pageEnd(max(o.FirstBytes, MinSegmentBytes)), o.SegmentBytes)
	if o.CacheBytes == 0 {
		o.CacheBytes = DefaultCacheBytes
	}
	if o.MinFree == 0 {
		o.MinFree = 2 * o.SegmentBytes
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Clock == nil {
		o.Clock = clock.Real{}
	}
	if o.OnFull == nil {
		o.OnFull = func(bool) {}
	}
	if o.ScrubEvery == 0 {
		o.ScrubEvery = DefaultScrubEvery
	}
	if o.ScrubRate <= 0 {
		o.ScrubRate = DefaultScrubRate
	}
	if o.OnDamage == nil {
		o.OnDamage = func(commitlog.Damage) {}
	}
	if o.OnEvent == nil {
		o.OnEvent = func(Event) {}
	}
	return o, nil
}

// Event is a change of the log's files. String is stable, for tests.
type Event struct {
	Kind    string // created, prepared, reserved, sealed, ended, trimmed, recycled, cut, rescued, full, roomy, damaged
	Segment uint64
	Detail  string
}

// String returns the event as one line.
func (e Event) String() string {
	s := e.Kind
	if e.Segment != 0 {
		s += fmt.Sprintf(" %d", e.Segment)
	}
	if e.Detail != "" {
		s += " " + e.Detail
	}
	return s
}

// Log is an open log. commitlog.Log says which goroutines may call its methods.
//
// Lock order: mu, then segMu. handles and the caches lock only their own mutexes.
type Log struct {
	o     Options
	fs    vfs.FS
	files *files
	lock  vfs.Lock

	mu       sync.Mutex
	queue    []pending // appends that the writer has not received yet
	spare    []pending // memory for the next queue
	err      error     // the error that later appends return
	running  bool      // the writer runs
	blocked  bool      // the writer waits for room on the disk
	idle     sync.Cond // signals that running became false
	next     *ready    // the segment after the active one, if it is ready
	needSize int64     // the writer needs a next segment of at least this size; 0: of any size
	trimmed  []*segment
	wanted   uint64 // the newest Trim: entries before this one are not needed
	early    bool   // the writer must end the active segment now, before the segment is full
	full     bool

	segMu sync.RWMutex
	segs  []*segment // live segments, oldest first; the last is the active one

	placeMu sync.Mutex // locked by checkPlace, and while files are closed for good

	handles  handles
	recent   recentCache
	cold     coldCache
	durable  atomic.Uint64 // number of the newest durable entry
	closed   atomic.Bool
	ahead    atomic.Int64 // bytes of the reserve file and the spare files
	reserved atomic.Int64 // bytes of the reserve file
	resting  atomic.Bool  // little is being appended
	keep     atomic.Int64 // bytes that a snapshot needs
	short    atomic.Bool  // a snapshot needs the space of the spares

	writer writer
	keeper keeper
	stats  stats
	scrub  *scrubber
	runner runner
	kick   chan struct{} // wakes maintenance
	stop   chan struct{} // closed when the log closes
}

type pending struct {
	data []byte
	done func(commitlog.Offset, error)
	lost bool // in repair: a placeholder for an entry that could not be read
}

func (p *pending) kind() uint32 {
	if p.lost {
		return frameLost
	}
	return frameEntry
}

var (
	_ commitlog.Log   = (*Log)(nil)
	_ commitlog.Freer = (*Log)(nil)
)

// Open opens the log in a directory and returns a replay of the entries after Options.From. It
// creates a missing directory. It fails with ErrLocked while another handle or process has the log
// open. It fails with ErrCorrupt if stored entries are damaged; in that case no stored data is
// changed.
func Open(o Options) (commitlog.Replay, *Log, error) { return open(o, newGoroutines()) }

func open(o Options, r runner) (commitlog.Replay, *Log, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, nil, err
	}
	if o.Only != (Identity{}) {
		if err := o.Only.Check(o.FS, o.Dir); err != nil {
			return nil, nil, err
		}
	} else if err := o.FS.Mkdir(o.Dir); err != nil {
		return nil, nil, wrap(surgetank.CodeInternal, fmt.Sprintf("making the data directory %s failed: %v", o.Dir, err), err)
	}
	lock, err := lockDir(o.FS, o.Dir, o.Clock.Now())
	if err != nil {
		return nil, nil, err
	}
	l := &Log{o: o, fs: o.FS, lock: lock, runner: r, kick: make(chan struct{}, 1), stop: make(chan struct{})}
	l.idle.L = &l.mu
	l.handles = handles{fs: o.FS, max: maxOpenFiles}
	l.recent.limit = o.CacheBytes
	l.cold.init(max(o.CacheBytes/4, 0))
	l.files = &files{fs: o.FS, dir: o.Dir, random: o.Rand, now: func() int64 { return o.Clock.Now().Unix() }}
	l.scrub = newScrubber(l)
	if err := l.recover(); err != nil {
		return nil, nil, joinClose(err, l.closeFiles)
	}
	if s := o.Snapshots; s != nil {
		s.mu.Lock()
		s.place, s.short, s.random = l.checkPlace, l.dropSpares, o.Rand
		s.mu.Unlock()
	}
	replay, err := l.newReplay(o.From)
	if err != nil {
		return nil, nil, joinClose(err, l.closeFiles)
	}
	r.start(l)
	return replay, l, nil
}

// joinClose closes the files after an error. Errors of closing are ignored.
func joinClose(err error, closeAll func() error) error {
	_ = closeAll()
	return err
}

// Append queues an entry for the writer; see commitlog.Log. After Close, done is called with
// ErrClosed.
func (l *Log) Append(data []byte, done func(commitlog.Offset, error)) {
	l.mu.Lock()
	l.queue = append(l.queue, pending{data: data, done: done})
	l.startWriter()
	l.mu.Unlock()
}

// startWriter starts the writer if there is work to do. The caller holds mu.
func (l *Log) startWriter() {
	if !l.running && !l.blocked && (len(l.queue) > 0 || l.early) {
		l.runner.write(l)
	}
}

// fail ends the log: all appends that were not called back yet, and all later ones, get the error.
func (l *Log) fail(cause error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err == nil {
		l.err = failed(cause, false)
		l.o.Logger.Error("the log failed; it must be opened again", "dir", l.o.Dir, "error", cause)
	}
	l.blocked = false
	l.startWriter()
}

// Close writes the appended entries, if there is room, and closes and unlocks the log. A callback
// must not call it.
func (l *Log) Close() error {
	l.mu.Lock()
	if l.closed.Load() {
		l.mu.Unlock()
		return nil
	}
	for l.running {
		l.idle.Wait()
	}
	l.closed.Store(true)
	if l.blocked {
		l.err = failed(wrap(surgetank.CodeFull, "the disk is full and the log was closed before there was room"), false)
		l.blocked = false
	}
	result := l.err // appends that still wait return this error
	if result == nil {
		l.err = errClosed
	}
	l.running = true
	l.mu.Unlock()
	for l.turn() {
	}
	if result == nil {
		result = l.finishMark()
	}
	close(l.stop)
	l.runner.stop(l) // maintenance must stop first, because it uses the state file
	if k := &l.keeper; result == nil {
		if err := l.checkPlace(); err != nil {
			result = failed(err, false)
		} else if err := errorsJoin(l.freeTrimmed(), l.writeSlot(k.state.oldest, k.state.first)); err != nil {
			result = failed(err, false)
		}
	}
	l.mu.Lock()
	l.err = errClosed
	l.mu.Unlock()
	if err := l.closeFiles(); result == nil && err != nil {
		result = wrap(surgetank.CodeInternal, fmt.Sprintf("closing the log in %s failed: %v", l.o.Dir, err), err)
	}
	return result
}

// closeFiles closes every file and unlocks the directory.
func (l *Log) closeFiles() error {
	l.placeMu.Lock()
	errs := []error{l.writer.closeFile(), l.keeper.closeFile(), l.handles.closeAll()}
	l.placeMu.Unlock()
	l.mu.Lock()
	if l.next != nil {
		errs = append(errs, l.next.out.Close())
		l.next = nil
	}
	l.mu.Unlock()
	if err := l.lock.Close(); err != nil {
		errs = append(errs, err)
	}
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
