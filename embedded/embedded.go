// Package embedded runs a broker inside the caller's process: durable, on a directory of its own,
// with no server.
package embedded

import (
	"crypto/rand"
	"encoding/binary"
	"log/slog"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/broker"
	"github.com/surgetank/surgetank/internal/callback"
	"github.com/surgetank/surgetank/internal/clock"
	"github.com/surgetank/surgetank/internal/commitlog"
	"github.com/surgetank/surgetank/internal/memlog"
	"github.com/surgetank/surgetank/internal/queue"
)

// Options are those of one broker. The zero value is good.
type Options struct {
	// Logger gets what happens beside the calls: recovery, a torn tail that was cut, a full disk.
	// nil: nothing is logged.
	Logger *slog.Logger
	// MaxMessage is the largest body in bytes; 0: 16 MiB, at most 128 MiB.
	MaxMessage int
	// MaxQueues is how many queues there may be; 0: 100,000.
	MaxQueues int
	// CacheBytes is how much of the newest log stays in memory for consumers that keep up; 0: 16
	// MiB. Others read from the files, which costs little more as long as the system's page cache
	// has them.
	CacheBytes int64
	// SegmentBytes is the size of the log's files; 0: 64 MiB. Files of a small log, or of one at
	// rest, are smaller. What the log keeps beside messages under load is about five of them. See
	// docs/configuration.md for the bound.
	SegmentBytes int64
	// SnapshotBytes is how much is logged between snapshots, and about how much of the log may be
	// dead, under load; 0: 128 MiB.
	SnapshotBytes int64
	// ScrubEvery is how long after a scrub has begun the next one does: it reads everything on the
	// disk, slowly and beside all else, so that what has rotted is told, and mended where it can
	// be, before anybody needs it. 0: 24 hours; negative: never.
	ScrubEvery time.Duration
	// ScrubRate is how many bytes a second it reads at most; 0: 4 MiB.
	ScrubRate int64

	// clock is the time, for tests of this module.
	clock clock.Clock
}

// LogStats says how a broker's log does.
type LogStats struct {
	DiskBytes int64 // of all its files
	Segments  int
	Syncs     int64 // since it was opened
	SyncP50   time.Duration
	SyncP99   time.Duration
	Full      bool // messages are refused for lack of space; acks are taken
	Scrub     ScrubStats
}

// ScrubStats says what the scrub has read and found since the broker was opened. Kinds of damage
// are entry, index, header, state and snapshot.
type ScrubStats struct {
	Bytes    int64            // read
	Passes   int64            // that read everything
	LastPass time.Time        // when the last of them ended; zero: none has
	Found    map[string]int64 // damaged things by kind, each counted once
	Damaged  map[string]int64 // those that are still there
	Errors   int64            // files for which the disk gave errors, or other bytes than the next time
}

// LogStats gives figures of the log; zero for one in memory.
func (b *Broker) LogStats() LogStats {
	if b == nil || b.log == nil {
		return LogStats{}
	}
	s := b.log.Stats()
	return LogStats{DiskBytes: s.Bytes, Segments: s.Segments, Syncs: s.Syncs, SyncP50: s.SyncP50, SyncP99: s.SyncP99, Full: s.Full,
		Scrub: ScrubStats{Bytes: s.Scrub.Bytes, Passes: s.Scrub.Passes, LastPass: s.Scrub.LastPass, Errors: s.Scrub.Errors,
			Found: byKind(s.Scrub.Found), Damaged: byKind(s.Scrub.Damaged)}}
}

// byKind gives every kind its figure, so that one that is 0 is seen to be.
func byKind(counts map[commitlog.DamageKind]int64) map[string]int64 {
	all := make(map[string]int64, len(commitlog.DamageKinds))
	for _, kind := range commitlog.DamageKinds {
		all[string(kind)] = counts[kind]
	}
	return all
}

func (o *Options) check() error {
	o.Logger = callback.Logger(o.Logger)
	if o.CacheBytes == 0 {
		o.CacheBytes = 16 << 20
	}
	if o.MaxMessage < 0 || o.MaxMessage > surgetank.CeilingMaxMessage {
		return surgetank.FieldErrorf("max_message", "max_message must be between 0 and %d bytes, not %d", surgetank.CeilingMaxMessage, o.MaxMessage)
	}
	return nil
}

func (o *Options) broker() broker.Options {
	var seed [8]byte
	_, _ = rand.Read(seed[:]) // never fails, by its documentation
	return broker.Options{
		Clock: o.clock, Logger: o.Logger, Seed: binary.LittleEndian.Uint64(seed[:]), SnapshotBytes: o.SnapshotBytes,
		Limits: queue.Limits{MaxMessage: o.MaxMessage, MaxQueues: o.MaxQueues},
	}
}

// Memory opens a broker that keeps everything in memory, for tests of programs that use a Broker.
// Nothing survives Close.
func Memory(opts Options) (*Broker, error) {
	if err := opts.check(); err != nil {
		return nil, err
	}
	o := opts.broker()
	store := memlog.NewStore()
	o.Snapshots = store.Snapshots()
	o.OpenLog = func(from commitlog.Offset, _ broker.LogHooks) (commitlog.Replay, commitlog.Log, error) {
		return wrap(store.Open(memlog.Options{From: from}))
	}
	b, err := broker.Open(o)
	if err != nil {
		return nil, err
	}
	return &Broker{b: b}, nil
}

// wrap keeps a nil *Log from becoming a Log that is not nil.
func wrap[L commitlog.Log](r commitlog.Replay, l L, err error) (commitlog.Replay, commitlog.Log, error) {
	if err != nil {
		return nil, nil, err
	}
	return r, l, nil
}
