// Package broker runs the queue machine on a log. It implements surgetank.Broker for the doors.
//
//	callers ──▶ mailbox ──▶ turn: machine.Step ──▶ one entry ──▶ log: write, sync ─┐
//	   ▲                          │ outputs, pending                               │ ticket
//	   └──────── release ◀────────┴────────────────◀───────────────────────────────┘
//
// One goroutine, the loop, owns the machine. A turn runs the commands in the mailbox and makes one
// entry of their records. Every output of a turn is pending, even if its command wrote nothing. The
// output waits for the newest entry at the time of the decision, and is sent when that entry is
// durable. So no caller ever sees a fact that a crash could erase.
//
// This gives group commit: the log writes one entry at a time, and new commands gather in the
// mailbox meanwhile. If commands wait for several full entries, the log gets more than one. An
// entry for which no caller waits, such as acks without an answer, is kept for a moment and written
// with the next entry.
//
// The first failure of the log is final. Nothing is rolled back. Every pending command is answered
// with CodeUncertain, and the broker must be opened again.
package broker

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/callback"
	"github.com/surgetank/surgetank/internal/clock"
	"github.com/surgetank/surgetank/internal/commitlog"
	"github.com/surgetank/surgetank/internal/digest"
	"github.com/surgetank/surgetank/internal/queue"
)

// Options are the components and limits of a broker.
type Options struct {
	// OpenLog opens the log for a replay of the entries after from. The log calls the hooks.
	OpenLog   func(from commitlog.Offset, hooks LogHooks) (commitlog.Replay, commitlog.Log, error)
	Snapshots commitlog.Snapshots // nil: the broker stores no snapshots
	Clock     clock.Clock         // nil: the real clock
	Logger    *slog.Logger        // nil: discarded
	Seed      uint64              // seed of the random part of back-off delays
	// Incarnation is the incarnation of this opening, random and never used before. If it is 0,
	// Open draws it from crypto/rand.
	Incarnation uint64
	Limits      queue.Limits

	MailboxBytes  int64 // bytes of waiting commands; 0: 32 MiB
	MailboxOps    int   // number of waiting commands; 0: 16,384
	SnapshotBytes int64 // the fewest bytes logged between two snapshots; 0: 128 MiB
	SnapshotPiece int   // bytes of a snapshot that are encoded between two turns; 0: 256 KiB
	QuickReplay   int64 // Close stores no snapshot if at most this many bytes follow the newest one; 0: 1 MiB
	// Hold is the longest time that an entry for which no caller waits is kept, to share the sync
	// of the next entry. 0 means 5 ms, or with Manual not at all.
	Hold time.Duration
	// Manual means that the broker starts no goroutine. The caller runs the broker with Tick, and
	// the log with Pump.
	Manual bool
	// Drive is for callers with only one goroutine, with Manual. It is called while a call waits
	// for its outcome. It must call Tick and the log's Pump until the call is complete.
	Drive func()
	// Watch, with Manual, is called after every turn that the machine decided, before any output of
	// the turn is written. The simulator compares a model with it. Watch must not change its
	// argument.
	Watch func(Turn)
}

// Turn contains the decisions of one turn of the loop. Its commands are finished and have their
// results.
type Turn struct {
	Number   uint64 // number of the newest entry; it is this turn's entry if Output has records
	Now      int64  // the machine's time, in nanoseconds since 1970
	Commands []queue.Command
	Split    bool // the turn ran a part of a command, and a later turn continues it
	Output   *queue.Output
	Machine  *queue.Machine
	Left     []Left // hand-outs that left since the turn before
}

// Left says that the hand-outs up to a turn of the machine left the broker.
type Left struct {
	Turn uint64
	At   int64
}

// Broker is a broker on a log. It implements surgetank.Broker.
type Broker struct {
	opts      Options
	clock     clock.Clock
	log       commitlog.Log
	logger    *slog.Logger
	mailbox   *mailbox
	epoch     uint64
	opening   uint64   // the incarnation of this opening
	groups    groupers // finds groups by group_by
	dedups    groupers // finds dedup ids by dedup.by
	coalesces groupers // finds coalescing keys by coalesce.by
	places    places
	busyAt    atomic.Int64 // the loop's time of the oldest write that the log has not answered; 0: none
	fill      atomic.Int32 // the log's newest report about room: 0 none, 1 full, 2 room again
	ahead     int64        // the loop's time minus the time passed on the clock; set at the opening
	failed    chan struct{}
	failure   error // set before the channel failed is closed
	calls     callback.Calls

	// Only the loop uses the fields below.
	machine  *queue.Machine
	number   uint64 // number of the newest entry
	durable  uint64 // number of the newest entry that is known to be durable
	front    []*op  // commands of the front lane that were removed from the mailbox and not run yet
	pending  []*op  // commands of the back lane that were removed from the mailbox and not run yet, because the turn was full
	taken    []*op  // result of the newest mailbox.take; its memory is reused
	spare    []*op
	cmds     []queue.Command
	flights  []flight
	held     held
	tickets  chan ticket
	subs     map[uint64]*subscription
	lent     map[uint64]func(limit, leased int, waits bool) // see LendPool
	snap     snapState
	left     []Left // for Watch
	freed    freed
	closed   chan struct{}
	opened   chan error // receives the outcome of the first entry
	onceDown sync.Once
	ticking  sync.Mutex // locked by Tick and by Close with Manual, which exclude each other
	work     sync.WaitGroup
	space    spaceState
	older    uint64 // the last entry that the newest stored snapshot covers; 0: none
	full     bool   // the log has no room for messages
	harm     harm
	reclaim  reclaim
	digest   digest.Lines
	rested   bool // the last turn of a clean stop was requested
}

// flight is a turn whose outputs wait for an entry to be durable.
type flight struct {
	entry uint64
	turn  uint64 // of the machine
	ops   []*op
	outs  []pendingRun
	ended []queue.Ended
	pools []poolReport
}

// pendingRun is a run of hand-outs for one subscription, which waits for its entry.
type pendingRun struct {
	handouts []queue.Handout
	floor    uint64
	entry    uint64 // the newest entry at the time of the decision
}

type ticket struct {
	entry  uint64
	offset commitlog.Offset
	err    error
}

// maxFull is the most entries that the log writes at a time while more commands wait than fit into
// one entry, because syncing them together is cheaper. Otherwise the log writes one entry at a
// time: a second entry would contain only a few commands, and its sync would delay all later
// commands.
const maxFull = 8

// publishHold is queue.Limits.Hold of a broker with a loop of its own.
const publishHold = 5 * time.Millisecond

// crowded reports whether the log must finish an entry before it gets another one.
func (b *Broker) crowded() bool {
	n := b.number - b.durable - uint64(len(b.held.entries))
	return n >= maxFull || n >= 1 && b.idle(b.now())
}

// idle reports whether no waiting command can run now.
func (b *Broker) idle(now int64) bool {
	return len(b.front) == 0 && (len(b.pending) == 0 || b.machine.Held() > now)
}

// Open recovers the state and starts the loop.
func Open(opts Options) (*Broker, error) {
	if opts.Clock == nil {
		opts.Clock = clock.Real{}
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	def := func(v *int64, d int64) {
		if *v == 0 {
			*v = d
		}
	}
	def(&opts.MailboxBytes, 32<<20)
	def(&opts.SnapshotBytes, 128<<20)
	if opts.Limits.Hold == 0 && !opts.Manual {
		opts.Limits.Hold = publishHold
	}
	def(&opts.QuickReplay, defaultQuickReplay)
	if opts.Hold == 0 && !opts.Manual {
		opts.Hold = defaultHold
	}
	if opts.SnapshotPiece == 0 {
		opts.SnapshotPiece = defaultPiece
	}
	if opts.MailboxOps == 0 {
		opts.MailboxOps = 16_384
	}
	for opts.Incarnation == 0 {
		var b [8]byte
		_, _ = rand.Read(b[:]) // never fails, by its documentation
		opts.Incarnation = binary.LittleEndian.Uint64(b[:])
	}
	b := &Broker{
		opts: opts, clock: opts.Clock, logger: opts.Logger, calls: callback.Calls{Logger: opts.Logger},
		mailbox: newMailbox(opts.MailboxBytes, opts.MailboxOps),
		failed:  make(chan struct{}), closed: make(chan struct{}), opened: make(chan error, 1),
		tickets: make(chan ticket, maxFull+holdMax+1), subs: map[uint64]*subscription{},
	}
	b.reclaim.minGain = min(reclaimBytes, opts.SnapshotBytes/64)
	if err := b.recover(); err != nil {
		if b.log != nil {
			err = errors.Join(err, b.log.Close())
		}
		return nil, err
	}
	if !opts.Manual {
		b.work.Add(1)
		go b.run()
		if err := <-b.opened; err != nil {
			b.work.Wait()
			return nil, errors.Join(err, b.log.Close())
		}
	}
	return b, nil
}

// recover restores the state: the newest snapshot, then every later entry, then the first entry of
// a new epoch.
func (b *Broker) recover() error {
	start, passed := b.clock.Now(), b.clock.Passed()
	b.machine = queue.New(b.opts.Limits, b.opts.Seed)
	from, err := b.restore()
	if err != nil {
		return err
	}
	replay, log, err := b.opts.OpenLog(from, LogHooks{Full: b.onFull, Damage: b.onDamage})
	if err != nil {
		return err
	}
	b.log = log
	entries, err := b.replay(replay)
	if err := errors.Join(err, replay.Close()); err != nil {
		return err
	}
	b.startTime(start, passed)
	b.machine.Recovered(b.now())
	b.epoch, b.durable = b.machine.Epoch()+1, b.number
	b.opening = b.opts.Incarnation
	// The first entry opens the epoch. All other outputs are pending until this entry is durable.
	b.front = []*op{{cmd: &queue.OpenEpoch{Epoch: b.epoch, Incarnation: b.opening}, release: func(err error) { b.opened <- err }}}
	for _, info := range b.machine.Infos() {
		b.groups.set(info.Name, info.Config.GroupBy)
		b.dedups.set(info.Name, info.Config.DedupBy)
		b.coalesces.set(info.Name, info.Config.Coalesce.By)
	}
	for _, l := range b.machine.Losses() {
		b.logger.Warn("this log was repaired: these entries are lost with their content", "first", l.First, "last", l.Last, "and_all_behind", l.Tail, "bodies_only", l.Known, "repaired", l.At())
	}
	b.logger.Info("recovered", "from_snapshot", from > 0, "entries", entries, "took", b.clock.Passed()-passed)
	return nil
}

func (b *Broker) replay(replay commitlog.Replay) (entries int, err error) {
	for {
		e, err := replay.Next()
		if errors.Is(err, io.EOF) {
			return entries, nil
		}
		if err != nil {
			return entries, err
		}
		if e.Lost {
			return entries, surgetank.Errorf(surgetank.CodeCorrupt,
				"the entry at offset %d was lost, and no snapshot says what became of its messages; run surgetank repair on the data directory", e.Offset)
		}
		h, err := b.machine.Replay(e.Data)
		if err != nil {
			return entries, surgetank.Errorf(surgetank.CodeCorrupt, "the log's entry at offset %d cannot be understood: %w", e.Offset, err)
		}
		if h.Number != b.number+1 {
			return entries, surgetank.Errorf(surgetank.CodeCorrupt,
				"the log has a gap: entry %d is followed by entry %d (offset %d), or the snapshot before it is missing; run surgetank verify on the data directory", b.number, h.Number, e.Offset)
		}
		b.number = h.Number
		b.snap.since += int64(len(e.Data))
		b.places.add(h.Number, e.Offset)
		entries++
	}
}

// onFull is called by the log, on any goroutine.
func (b *Broker) onFull(full bool) {
	if full {
		b.fill.Store(1)
	} else {
		b.fill.Store(2)
	}
	b.mailbox.nudge()
}

// Epoch returns the epoch of this opening.
func (b *Broker) Epoch() uint64 { return b.epoch }

// Failed returns a channel that is closed when the log has failed. Afterwards Err returns the
// failure.
func (b *Broker) Failed() <-chan struct{} { return b.failed }

// Err returns the failure of the log, or nil.
func (b *Broker) Err() error {
	select {
	case <-b.failed:
		return b.failure
	default:
		return nil
	}
}

// Stalled returns the age of the oldest unanswered write to the log. More than some seconds mean
// that the disk hangs, so nothing is confirmed.
func (b *Broker) Stalled() time.Duration {
	at := b.busyAt.Load()
	if at == 0 {
		return 0
	}
	return time.Duration(b.now() - at)
}

// fail ends the broker after its log failed.
func (b *Broker) fail(err error) {
	b.failure = &surgetank.Error{Code: surgetank.CodeUncertain, Err: err, Message: fmt.Sprintf(
		"the log failed, so what was not confirmed is uncertain and the broker has stopped (%v); check the disk, then start it again", err)}
	b.logger.Error("the log failed; the broker stops", "error", err)
	close(b.failed)
	b.shutdown(b.failure)
}

// shutdown answers all waiting commands and ends all subscriptions.
func (b *Broker) shutdown(err error) {
	ops := append(append(b.mailbox.close(err), b.front...), b.pending...)
	for _, f := range b.flights {
		ops = append(ops, f.ops...)
	}
	b.front, b.pending, b.flights = nil, nil, nil
	b.each(len(ops), true, func(i int) { ops[i].release(err) })
	subs := slices.Collect(maps.Values(b.subs))
	b.each(len(subs), true, func(i int) { subs[i].end(err) })
	b.machine.AbandonSnapshot()
	b.snap.abandon(err)
	b.onceDown.Do(func() { close(b.closed) })
}

// Close finishes the accepted commands, stores a snapshot so that the next opening is quick, and
// closes the log. With Manual it runs no further turn, and the waiting commands are answered with
// an error. It stores no snapshot while a turn's output is pending.
func (b *Broker) Close() error {
	if b == nil {
		return nil
	}
	if b.opts.Manual {
		b.ticking.Lock()
		defer b.ticking.Unlock()
		select {
		case <-b.closed:
		default:
			if len(b.front)+len(b.pending)+len(b.flights) == 0 {
				b.finalSnapshot()
			}
			b.shutdown(errClosed())
		}
		return b.log.Close()
	}
	closeOp := &op{cmd: queue.Nop{}, release: func(error) {}}
	b.mailbox.mu.Lock()
	first := b.mailbox.closed == nil
	if first {
		b.mailbox.closed = errClosed()
		b.mailbox.ops = append(b.mailbox.ops, closeOp)
	}
	b.mailbox.mu.Unlock()
	b.mailbox.nudge()
	<-b.closed
	b.work.Wait()
	if !first {
		return nil
	}
	if err := b.log.Close(); err != nil && b.Err() == nil {
		return surgetank.Errorf(surgetank.CodeInternal, "closing the log: %w", err)
	}
	return nil
}

func errClosed() error {
	return surgetank.Errorf(surgetank.CodeClosed, "the broker is closed")
}

// run is the loop's goroutine.
func (b *Broker) run() {
	defer b.work.Done()
	timer := b.clock.NewTimer(time.Hour)
	defer timer.Stop()
	for b.alive() {
		worked := b.turn()
		if !b.alive() {
			return
		}
		piece, pieces := b.snapPiece()
		if worked {
			select {
			case pieces <- piece:
				b.snap.sent()
			default:
			}
			continue
		}
		if b.finished() && !b.rested { // one more turn records which messages are leased
			b.rested = true
			b.pending = []*op{{cmd: &queue.CloseEpoch{}, release: func(error) {}}}
			continue
		}
		if b.finished() {
			b.sayRest()
			b.finalSnapshot()
			b.shutdown(errClosed())
			return
		}
		timer.Reset(b.untilDue())
		select {
		case <-b.mailbox.wake:
		case t := <-b.tickets:
			b.landed(t)
		case pieces <- piece:
			b.snap.sent()
		case r := <-b.snap.results:
			b.snapDone(r)
		case <-timer.C():
		}
	}
}

func (b *Broker) alive() bool {
	select {
	case <-b.closed:
		return false
	default:
		return true
	}
}

// finished reports whether Close was called and all accepted commands are done.
func (b *Broker) finished() bool {
	return b.mailbox.finished() && len(b.front)+len(b.pending)+len(b.flights) == 0
}

// untilDue returns the time until the loop must run without a new command.
func (b *Broker) untilDue() time.Duration {
	at := b.reclaim.next
	if b.number != b.reclaim.seen {
		at = min(at, b.reclaim.last+int64(lookEvery))
	}
	if !b.crowded() { // if the log is busy, the next durable entry wakes the loop
		at = min(at, b.machine.NextDeadline())
		if held := b.machine.Held(); held > 0 && len(b.pending) > 0 {
			at = min(at, held)
		}
		if b.machine.Sweeping() {
			at = 0
		}
		if len(b.held.entries) > 0 {
			at = min(at, b.held.until)
		}
	}
	at = min(at, b.digest.Due())
	d := time.Duration(at - b.now())
	return max(0, min(d, time.Hour))
}

// do sends a command through the loop and waits for its outcome.
func (b *Broker) do(ctx context.Context, cmd queue.Command, weight int64) error {
	done := make(chan error, 1)
	if err := b.put(ctx, &op{cmd: cmd, weight: weight + opWeight, release: func(err error) { done <- err }}, true); err != nil {
		return err
	}
	for b.opts.Drive != nil && len(done) == 0 {
		b.opts.Drive()
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return surgetank.Errorf(surgetank.CodeUncertain, "the call was given up before its outcome was known: %w", ctx.Err())
	}
}

// pages runs a command that works in several turns. It sends the command again until more returns
// false. Each part is put into the mailbox again, so other commands run in between. It ends when
// ctx ends.
func (b *Broker) pages(ctx context.Context, cmd queue.Command, more func() bool) error {
	for {
		if err := b.do(ctx, cmd, 0); err != nil {
			return err // the loop possibly still uses cmd
		}
		if !more() {
			return nil
		}
		if err := ctx.Err(); err != nil {
			return surgetank.Errorf(surgetank.CodeUncertain, "the call was stopped before it was finished: %w", err)
		}
	}
}

// Send puts a command into the mailbox without waiting. It is for callers that use Manual.
func (b *Broker) Send(cmd queue.Command, release func(error)) error {
	return b.put(context.Background(), &op{cmd: cmd, release: release}, false)
}

// SendQuiet is Send for a command whose entry can wait for the next entry, as if no caller waited
// for the outcome.
func (b *Broker) SendQuiet(cmd queue.Command, release func(error)) error {
	return b.put(context.Background(), &op{cmd: cmd, release: release, quiet: true}, false)
}
