package fenced

import (
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/clock"
	"github.com/surgetank/surgetank/internal/commitlog"
)

// Defaults of Options.
const (
	DefaultWindow     = 1 << 20
	DefaultSilence    = 2 * time.Second
	DefaultGiveUp     = 30 * time.Second
	DefaultCacheBytes = 64 << 20

	// maxFlight is the most blobs in flight.
	maxFlight = 256
	// gather is how long commands gather while blobs are in flight.
	gather = time.Millisecond
	// fullEntry is the size from which on a blob is its own write on each replica.
	fullEntry = 256 << 10
	// firstPause and longPause limit the pauses between tries while the stream does not answer.
	firstPause = 20 * time.Millisecond
	longPause  = 500 * time.Millisecond
)

// Options describe a log. Stream and Name are required.
type Options struct {
	Stream Stream
	// Name is the log's name. All checksums contain it.
	Name string
	// Window is how many bytes of blobs may be in flight when one more is sent; 0: 1 MiB.
	Window int64
	// Silence is the time without an answer after which the log reads what was stored; 0: 2 s.
	Silence time.Duration
	// GiveUp is the time without progress after which the log fails, and after which an opening
	// fails; 0: 30 s.
	GiveUp time.Duration
	// CacheBytes is how many bytes of the newest entries are kept in memory; 0: 64 MiB.
	CacheBytes int64
	Logger     *slog.Logger // nil: discarded
	Clock      clock.Clock  // nil: the real clock
	Rand       io.Reader    // source of random ids; nil: crypto/rand
}

// Log is an open log, and the owner of its stream until another process opens it. commitlog.Log
// says which goroutines may call its methods.
//
// A Log is made by Acquire. Then Snapshots can be read, and Open begins the replay. The first
// append comes after the replay.
type Log struct {
	o      Options
	s      Stream
	name   uint32 // checksum of the name
	owner  Owner
	fence  uint64 // position of the F record with which this log was opened
	runner runner
	ctx    context.Context // ends when the log is closed
	cancel context.CancelFunc

	mu        sync.Mutex
	queue     []*item  // appends that turn has not received yet
	answers   []Answer // answers that turn has not received yet
	disturbed bool
	err       error // the error that later appends return
	closed    bool
	waiting   int  // appends that were not called back
	running   bool // turn is running, or the goroutine exists
	idle      sync.Cond

	w      writer
	known  known
	recent cache
	snaps  Snapshots

	trimMu sync.Mutex
	wanted uint64 // the newest Trim
	cover  uint64 // the newest snapshot whose S record is durable; 0: none
}

var (
	_ commitlog.Log   = (*Log)(nil)
	_ commitlog.Pacer = (*Log)(nil)
)

// Acquire makes the caller the owner of the log. From its return on, no other owner's append
// becomes valid.
func Acquire(ctx context.Context, o Options) (*Log, error) { return acquire(ctx, o, newGoroutine()) }

func acquire(ctx context.Context, o Options, r runner) (*Log, error) {
	if o.Stream == nil || o.Name == "" {
		return nil, surgetank.FieldErrorf("name", "a log needs a stream and a name")
	}
	o.Window = cmp.Or(o.Window, DefaultWindow)
	o.Silence = cmp.Or(o.Silence, DefaultSilence)
	o.GiveUp = cmp.Or(o.GiveUp, DefaultGiveUp)
	o.CacheBytes = cmp.Or(o.CacheBytes, DefaultCacheBytes)
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Clock == nil {
		o.Clock = clock.Real{}
	}
	if o.Rand == nil {
		o.Rand = rand.Reader
	}
	l := &Log{o: o, s: o.Stream, name: nameSum(o.Name), runner: r}
	l.idle.L = &l.mu
	l.recent.limit = o.CacheBytes
	l.snaps.l = l
	if _, err := io.ReadFull(o.Rand, l.owner[:]); err != nil {
		return nil, wrap(surgetank.CodeInternal, fmt.Sprintf("a random id for the owner of the log %s could not be made: %v", o.Name, err), err)
	}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	l.s.Listen(l.answer, l.disturb)
	if err := l.fenceOthers(ctx); err != nil {
		l.cancel()
		return nil, err
	}
	return l, nil
}

// fenceOthers appends an F record without a condition. A try without an answer may be stored later.
// Several F records of one owner do no harm.
func (l *Log) fenceOthers(ctx context.Context) error {
	at, err := l.appendFence(ctx)
	if err != nil {
		return err
	}
	var b Bounds
	if err := l.retry(ctx, "reading the state of", func() (err error) { b, err = l.s.Bounds(ctx); return err }); err != nil {
		return err
	}
	l.fence = at
	l.w.begin(at)
	l.known.opened(b.First, at)
	return nil
}

func (l *Log) appendFence(ctx context.Context) (at uint64, err error) {
	record := appendRecord(nil, l.name, Header{Kind: Fence, Owner: l.owner}, nil)
	err = l.retry(ctx, "opening", func() (err error) {
		at, err = l.s.Append(ctx, Any, record)
		return err
	})
	return at, err
}

// retry calls f until it succeeds, fails for good, or GiveUp has passed.
func (l *Log) retry(ctx context.Context, doing string, f func() error) error {
	pause, began := firstPause, l.o.Clock.Passed()
	for {
		err := f()
		if err == nil {
			return nil
		}
		if _, final := asFinal(err); final || ctx.Err() != nil || l.o.Clock.Passed()-began >= l.o.GiveUp {
			return l.unavailable(doing, err)
		}
		l.s.Wait(ctx, pause)
		pause = min(2*pause, longPause)
	}
}

// Pace tells the broker to keep several entries in flight.
func (l *Log) Pace() commitlog.Pace {
	return commitlog.Pace{Entries: 16, Bytes: l.o.Window, EntryBytes: fullEntry, Gather: gather}
}

// Append queues an entry; see commitlog.Log.
func (l *Log) Append(data []byte, done func(commitlog.Offset, error)) {
	l.enqueue(&item{kind: Blob, data: data, done: func(at uint64, err error) { done(commitlog.Offset(at), err) }})
}

func (l *Log) enqueue(it *item) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.queue = append(l.queue, it)
	l.waiting++
	l.runner.work(l)
}

// answer receives an answer of the stream.
func (l *Log) answer(a Answer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.waiting > 0 { // otherwise nothing is in flight
		l.answers = append(l.answers, a)
		l.runner.work(l)
	}
}

// disturb is called by the stream when answers may have been lost.
func (l *Log) disturb() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.waiting > 0 {
		l.disturbed = true
		l.runner.work(l)
	}
}

// Failure returns the error with which the log ended, or nil.
func (l *Log) Failure() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

// Close waits for the appended entries and closes the log. While the stream does not answer, it
// waits for Options.GiveUp. A callback must not call it. The stream stays open.
func (l *Log) Close() error {
	l.mu.Lock()
	for l.waiting > 0 || l.running {
		l.idle.Wait()
	}
	if l.closed {
		l.mu.Unlock()
		return nil
	}
	l.closed = true
	result := l.err
	l.err = errClosed
	l.mu.Unlock()
	l.cancel()
	if result != nil && isFenced(result) {
		return nil
	}
	return result
}

// Epoch returns the position of the F record with which this log was opened. It is higher for a
// later owner.
func (l *Log) Epoch() uint64 { return l.fence }
