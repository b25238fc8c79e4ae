package broker

import (
	"log/slog"
	"math"
	"sync/atomic"
	"time"

	"github.com/surgetank/surgetank/internal/commitlog"
	"github.com/surgetank/surgetank/internal/mutant"
	"github.com/surgetank/surgetank/internal/queue"
)

// Space comes back by what could be given back, not by what is logged: a disk that is full takes no
// messages, so nothing that waits for messages would ever happen. The loop looks at the log by the
// clock, as long as something may change:
//
//	what a snapshot and a trim would free now   is asked of the log (commitlog.Freer)
//	the disk is full, and it is anything        a snapshot at once; the trim goes to that snapshot
//	it is more than a snapshot costs            a snapshot, at most every reclaimEvery; the trim goes to the one before
//	nothing was logged after the newest one     a mark is logged first, so that there are two different ones
//	survivors are in the way                    they are moved (space.go)
//
// On a full disk the snapshot takes of the room that the log leaves free (disklog.Options.MinFree).
// If it does not fit, the older snapshot and the log's spares are removed, and it is tried again.
type reclaim struct {
	next   int64 // the loop's time of the next look; MaxInt64: there is nothing to look for
	last   int64 // of the last look
	seen   uint64
	logged int64 // bytes since the last look
	moved  int64 // of them copies of survivors
	quiet  bool  // next to nothing else was logged before the last look
	change int64 // the loop's time at which something was logged last, as far as looks tell

	storedAt int64 // the loop's time at which a snapshot was stored last
	retry    int64 // not before
	fails    int

	cost, costAt int64 // of a snapshot, and when that was estimated

	minGain int64 // reclaimBytes, or less for a small log

	since int64 // the loop's time at which the disk became full; 0: it is not
	told  int64 // at which that was logged last
	space atomic.Pointer[Space]
}

const (
	// lookEvery is how often the loop looks while something may change, and watchFor for how long
	// that is after the last entry: the log comes to rest by itself some seconds later.
	lookEvery = time.Second
	watchFor  = 30 * time.Second
	// reclaimEvery is the shortest time between two snapshots that are taken to free space, unless
	// the disk is full.
	reclaimEvery = 4 * time.Second
	// reclaimBytes is the least that is worth a snapshot.
	reclaimBytes = 2 << 20
	// quietBytes is how much may be logged between two looks of a quiet log.
	quietBytes = 64 << 10
	// snapshotBase is what a snapshot takes at least, with its blocks and its names.
	snapshotBase = 16 << 10
	// tellEvery is how often the log says that the disk is still full.
	tellEvery = time.Minute
	// insist is for how long a full disk may stay full before a snapshot is taken however little it
	// frees.
	insist = 10 * time.Second
)

// Space says how a broker's disk does.
type Space struct {
	// Full: messages are refused for lack of space. Acks are taken.
	Full  bool
	Since time.Time // when it became so
	// LogBytes are the log's, and NeededBytes those of messages that are still needed, both as of
	// the last look.
	LogBytes, NeededBytes int64
	// Freeable is what will be given back by itself soon.
	Freeable int64
}

// Space gives what the loop saw last.
func (b *Broker) Space() Space {
	if s := b.reclaim.space.Load(); s != nil {
		return *s
	}
	return Space{}
}

// housekeep looks at the log when it is time, and takes in what the log said about room, which no
// entry in flight may keep waiting.
func (b *Broker) housekeep() {
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

// lookBytes is how much is logged between two looks at most.
func (b *Broker) lookBytes() int64 { return min(b.opts.SnapshotBytes/4, 8<<20) }

// look frees what can be freed.
func (b *Broker) look(now int64) {
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
	if mutant.Is(mutant.FullForEver) && b.full {
		return
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
		if b.older == b.number { // the newest snapshot covers all: only the trim is missing
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

// snapshotCost estimates the size of a snapshot, at most once a lookEvery, and has the log leave
// room for one.
func (b *Broker) snapshotCost(now int64) int64 {
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

// gain is what a snapshot and a trim up to it would give back.
func (b *Broker) gain() int64 {
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

// stored takes in the outcome of a snapshot.
func (r *reclaim) stored(b *Broker, err error) {
	now := b.now()
	if err != nil {
		r.retry = now + min(int64(time.Second)<<min(r.fails, 6), int64(time.Minute))
		r.fails++
		return
	}
	r.storedAt, r.retry, r.fails = now, 0, 0
	r.next = min(r.next, now+int64(lookEvery))
}

// report keeps what Space gives, and says now and then that the disk is still full.
func (b *Broker) report(now, gain int64) {
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
