// Package embedded runs a broker inside the caller's process, without a server. Open stores
// messages durably in a directory. Memory keeps them in memory, for tests. The Broker type
// implements surgetank.Broker, so package worker and all other code for this interface work with
// it.
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
	"github.com/surgetank/surgetank/internal/vfs"
)

// Options are the settings of one broker. The zero value is valid.
type Options struct {
	// Logger gets events outside calls: recovery, a torn tail that was cut, a full disk. nil: no
	// log.
	Logger *slog.Logger
	// MaxMessage is the largest body in bytes; 0: 16 MiB, at most 128 MiB.
	MaxMessage int
	// MaxQueues limits the number of queues; 0: 100,000.
	MaxQueues int
	// CacheBytes is the part of the newest log that stays in memory, for consumers that keep up; 0:
	// 16 MiB. Other consumers read from the files. These reads cost little while the system's page
	// cache has the files.
	CacheBytes int64
	// SegmentBytes is the size of the log's files; 0: 64 MiB. The files of a small or idle log are
	// smaller. Under load, the log needs about five files in addition to the stored messages.
	// docs/configuration.md has the exact bound.
	SegmentBytes int64
	// SnapshotBytes is how many bytes are logged between two snapshots under load; 0: 128 MiB.
	// About this many bytes of the log can be dead.
	SnapshotBytes int64
	// ScrubEvery is the time from the start of one scrub to the start of the next. A scrub slowly
	// reads everything on the disk, reports damage, and repairs it where possible. 0: 24 hours;
	// negative: never.
	ScrubEvery time.Duration
	// ScrubRate limits how many bytes a second a scrub reads; 0: 4 MiB.
	ScrubRate int64

	// ReopenWait is how long a call waits for the next opening after the log has failed. Then the
	// call gets CodeUnavailable. 0: 10 seconds.
	ReopenWait time.Duration
	// ReopenFor limits the time in which the broker tries to open its log again. Afterwards the
	// failure is final. 0: no limit, because a full disk or a lost mount can last for hours. A
	// negative time: the broker does not try, and each failure of the log is final.
	ReopenFor time.Duration

	// Shards is the number of shards: logs with one loop each. 0: as many as ShardDirs has, or 1.
	// docs/shards.md says when several are useful. The directory of shard n is DIR/shard-n, and DIR
	// itself for the first one.
	Shards int
	// ShardDirs has the directories of all shards in their order, for example on different disks.
	// Empty text: as above. The first is empty or DIR.
	ShardDirs []string

	shards int   // number of shards that the machine knows of
	link   *link // of a shard; nil: the broker has one

	// Tests of this module replace these parts.
	clock clock.Clock
	fs    vfs.FS
	store *memlog.Store
}

// LogStats describes the state of a broker's log.
type LogStats struct {
	DiskBytes int64 // bytes of all files of the log
	Segments  int
	Syncs     int64 // syncs since the broker was opened
	SyncP50   time.Duration
	SyncP99   time.Duration
	Full      bool // messages are refused for lack of space; acks are accepted
	Scrub     ScrubStats
}

// ScrubStats describes what scrubs have read and found since the broker was opened. The kinds of
// damage are entry, index, header, state and snapshot.
type ScrubStats struct {
	Bytes    int64            // bytes that were read
	Passes   int64            // scrubs that have read everything
	LastPass time.Time        // end of the last pass; zero: there was none
	Found    map[string]int64 // damaged things by kind, each counted once
	Damaged  map[string]int64 // the part of Found that is still damaged
	Errors   int64            // files whose reads failed, or returned different bytes the next time
}

// LogStats returns figures of the log. They are zero for a broker in memory.
func (b *Broker) LogStats() LogStats {
	if b != nil && b.router != nil {
		return b.statsOfAll()
	}
	if b == nil || b.at.Load() == nil || b.at.Load().log == nil {
		return LogStats{}
	}
	s := b.at.Load().log.Stats()
	return LogStats{DiskBytes: s.Bytes, Segments: s.Segments, Syncs: s.Syncs, SyncP50: s.SyncP50, SyncP99: s.SyncP99, Full: s.Full,
		Scrub: ScrubStats{Bytes: s.Scrub.Bytes, Passes: s.Scrub.Passes, LastPass: s.Scrub.LastPass, Errors: s.Scrub.Errors,
			Found: byKind(s.Scrub.Found), Damaged: byKind(s.Scrub.Damaged)}}
}

// byKind adds the kinds with no damage, so that a 0 is visible.
func byKind(counts map[commitlog.DamageKind]int64) map[string]int64 {
	all := make(map[string]int64, len(commitlog.DamageKinds))
	for _, kind := range commitlog.DamageKinds {
		all[string(kind)] = counts[kind]
	}
	return all
}

func (o *Options) check() error {
	o.Logger = callback.Logger(o.Logger)
	if o.ReopenWait < 0 {
		return surgetank.FieldErrorf("reopen_wait", "reopen_wait must not be negative, and is %v", o.ReopenWait)
	}
	if err := o.checkShards(); err != nil {
		return err
	}
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
	_, _ = rand.Read(seed[:]) // documented never to fail
	return broker.Options{
		Clock: o.clock, Logger: o.Logger, Seed: binary.LittleEndian.Uint64(seed[:]), SnapshotBytes: o.SnapshotBytes,
		Limits: o.limits(),
	}
}

// Memory opens a broker that keeps everything in memory, for tests of programs that use a Broker.
// All messages are gone after Close.
func Memory(opts Options) (*Broker, error) {
	if err := opts.check(); err != nil {
		return nil, err
	}
	if opts.Shards > 1 {
		return opts.several(make([]string, opts.Shards), func(_ string, o Options) (*Broker, error) { return memory(o) })
	}
	return memory(opts)
}

// memory opens one shard in memory.
func memory(opts Options) (*Broker, error) {
	store := opts.store
	if store == nil {
		store = memlog.NewStore()
	}
	return opts.open("", func(after uint64) (*instance, error) {
		o := opts.broker()
		o.Snapshots, o.After = store.Snapshots(), after
		o.OpenLog = func(from commitlog.Offset, _ broker.LogHooks) (commitlog.Replay, commitlog.Log, error) {
			return wrap(store.Open(memlog.Options{From: from}))
		}
		b, err := broker.Open(o)
		if err != nil {
			return nil, err
		}
		return &instance{b, nil}, nil
	})
}

// wrap returns a nil interface on an error, and not an interface with a nil pointer.
func wrap[L commitlog.Log](r commitlog.Replay, l L, err error) (commitlog.Replay, commitlog.Log, error) {
	if err != nil {
		return nil, nil, err
	}
	return r, l, nil
}
