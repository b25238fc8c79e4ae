package broker

import (
	"log/slog"
	"math"
	"sync/atomic"
	"time"

	"github.com/surgetank/surgetank/internal/commitlog"
	"github.com/surgetank/surgetank/internal/queue"
)

// Snapshots and trims are started by the space that they would free, not only by new entries. On a
// full disk no message is logged, so a rule that waits for messages would wait for ever. The loop
// checks the log regularly, as long as something can change:
//
//	how much a snapshot and a trim would free   the log knows (commitlog.Freer)
//	the disk is full, and it is not zero        a snapshot at once, and a trim up to that snapshot
//	it is more than a snapshot costs            a snapshot, at most every reclaimEvery, and a trim up to the one before
//	the newest snapshot covers everything       a mark is logged first, so that the two snapshots differ
//	survivors prevent it                        they are moved (space.go)
//
// On a full disk the snapshot uses the space that the log leaves free (disklog.Options.MinFree). If
// the snapshot does not fit, the older snapshot and the log's spare segments are removed, and it is
// tried again.
type reclaim struct {
	next   int64 // the loop's time of the next check (look); MaxInt64: none is needed
	last   int64 // the loop's time of the last look
	seen   uint64
	logged int64 // bytes since the last look
	moved  int64 // the part of logged that is copies of survivors
	quiet  bool  // little except copies was logged before the last look
	change int64 // the loop's time of the last look that found new entries

	storedAt int64 // the loop's time at which the last snapshot was stored
	retry    int64 // the loop's time before which no snapshot is tried again
	fails    int

	cost, costAt int64 // bytes of a snapshot, and the time of that estimate

	minGain int64 // reclaimBytes, or less for a small log

	since int64 // the loop's time at which the disk became full; 0: it is not full
	told  int64 // the loop's time of the last log line about the full disk
	space atomic.Pointer[Space]
}

const (
	// lookEvery is the time between two looks while something can change. Something can change
	// until watchFor after the last entry, because the log frees space by itself some seconds after
	// the last append.
	lookEvery = time.Second
	watchFor  = 30 * time.Second
	// reclaimEvery is the shortest time between two snapshots to free space, except on a full disk.
	reclaimEvery = 4 * time.Second
	// reclaimBytes is the least space to be freed for which a snapshot is stored.
	reclaimBytes = 2 << 20
	// quietBytes is the most bytes that a quiet log grows between two looks.
	quietBytes = 64 << 10
	// snapshotBase is the smallest size of a snapshot on disk, with its blocks and names.
	snapshotBase = 16 << 10
	// tellEvery is the time between two log lines that the disk is still full.
	tellEvery = time.Minute
	// insist is how long a disk is full before a snapshot is stored even to free little.
	insist = 10 * time.Second
)

// Space is the state of a broker's disk.
type Space struct {
	// Full means that publishes are refused for lack of space. Acks are accepted.
	Full  bool
	Since time.Time // when the disk became full
	// LogBytes is the size of the log. NeededBytes is the size of the messages in the log that are
	// still needed. Both numbers are from the last look.
	LogBytes, NeededBytes int64
	// Freeable is the number of bytes that the broker will free by itself soon.
	Freeable int64
}

// Space returns the result of the last look.
func (b *core) Space() Space {
	if s := b.reclaim.space.Load(); s != nil {
		return *s
	}
	return Space{}
}

// housekeep calls look when its time has come. It also handles the log's reports about room, which
// must not wait for an entry under way.
func (b *core) housekeep() {
	r := &b.reclaim
	now := b.now()
	switch b.fill.Swap(0) {
	case 1:
		b.full, r.since, r.told = true, now, now
		r.space.Store(&Space{Full: true, Since: time.Unix(0, now)})
		b.machine.SetFull(true)
		b.logger.Warn("the disk is nearly full: messages are refused until there is room; acks are taken")
		r.next = now
	case 2:
		b.full, r.since = false, 0
		r.space.Store(&Space{})
		b.machine.SetFull(false)
		b.logger.Info("the disk has room again: messages are taken")
		r.next = now
	}
	if b.number != r.seen {
		r.next = min(r.next, r.last+int64(lookEvery))
		if r.logged >= b.lookBytes() {
			r.next = now
		}
	}
	if now < r.next {
		return
	}
	b.look(now)
}

// lookBytes is the most bytes that are logged between two looks.
func (b *core) lookBytes() int64 { return min(b.opts.SnapshotBytes/4, 8<<20) }

// look checks the log and starts freeing the space that can be freed.
func (b *core) look(now int64) {
	r := &b.reclaim
	if b.number != r.seen {
		r.change = now
	}
	r.quiet = r.logged-r.moved < quietBytes && now-r.last >= int64(lookEvery)
	r.seen, r.logged, r.moved, r.last = b.number, 0, 0, now
	r.next = now + int64(lookEvery)
	if !b.full && now-r.change > int64(watchFor) {
		r.next = math.MaxInt64
	}
	cost := b.snapshotCost(now)
	if r.quiet {
		b.machine.Compact()
	}
	b.freeSpace(r.quiet)
	gain := b.gain()
	b.report(now, gain)
	if b.opts.Snapshots == nil || b.snap.active || gain == 0 || now < r.retry {
		return
	}
	switch {
	case b.full:
		if gain < cost/8 && now-r.since < int64(insist) {
			return
		}
		if b.older == b.number { // the newest snapshot covers everything, so only a trim is needed
			b.trim(b.older)
			return
		}
	case gain < max(r.minGain, 2*cost) || now-r.storedAt < int64(reclaimEvery):
		return
	case b.older == b.number:
		b.internal(queue.Mark{}, func(error) {})
		r.next = now
		return
	}
	b.beginSnapshot()
}

// snapshotCost estimates the size of a snapshot, at most once in lookEvery. It asks the log to
// leave room for a snapshot.
func (b *core) snapshotCost(now int64) int64 {
	r := &b.reclaim
	if r.cost > 0 && now-r.costAt < int64(lookEvery) {
		return r.cost
	}
	r.cost, r.costAt = b.machine.Survey(), now
	if f, ok := b.log.(commitlog.Freer); ok && b.opts.Snapshots != nil {
		f.KeepFree(r.cost + r.cost/4 + snapshotBase)
	}
	return r.cost
}

// gain returns how many bytes a snapshot and a trim up to it would free.
func (b *core) gain() int64 {
	f, ok := b.log.(commitlog.Freer)
	if !ok {
		return 0
	}
	before := min(b.number+1, b.machine.Needed())
	at, ok := b.places.offset(min(before-1, b.durable))
	if !ok {
		return 0
	}
	return f.Freeable(at + 1)
}

// stored handles the outcome of storing a snapshot.
func (r *reclaim) stored(b *core, err error) {
	now := b.now()
	if err != nil {
		r.retry = now + min(int64(time.Second)<<min(r.fails, 6), int64(time.Minute))
		r.fails++
		return
	}
	r.storedAt, r.retry, r.fails = now, 0, 0
	r.next = min(r.next, now+int64(lookEvery))
}

// report stores the result of a look for Space. While the disk is full, it also writes a log line
// once in tellEvery.
func (b *core) report(now, gain int64) {
	r := &b.reclaim
	size, live := b.machine.LogShare()
	s := &Space{Full: b.full, LogBytes: size, NeededBytes: live, Freeable: gain}
	if b.full {
		s.Since = time.Unix(0, r.since)
	}
	r.space.Store(s)
	if b.full && now-r.told >= int64(tellEvery) {
		r.told = now
		b.logger.Warn("the disk is still nearly full, and messages are refused: free space on it, or consume and drop messages; acked messages give their space back by themselves",
			slog.Duration("for", time.Duration(now-r.since).Round(time.Second)), "log_bytes", size, "needed_bytes", live, "freeable_bytes", gain)
	}
}
