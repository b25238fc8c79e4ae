package broker

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/callback"
	"github.com/surgetank/surgetank/internal/clock"
	"github.com/surgetank/surgetank/internal/commitlog"
	"github.com/surgetank/surgetank/internal/digest"
	"github.com/surgetank/surgetank/internal/queue"
)

// core is a broker without goroutines. Callers put commands into its mailbox, and the log and the
// storage of snapshots put their answers into its arrivals. Any goroutine may do both. One
// goroutine at a time calls step, which does all work. The core needs the executor for everything
// that can last or that can fail in a user's code.
type core struct {
	opts      Options
	exec      executor
	clock     clock.Clock
	log       commitlog.Log
	logger    *slog.Logger
	mailbox   *mailbox
	arrivals  arrivals
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
	users     *callback.Calls // calls users' functions while outputs are sent: calls, or nil in a Stepped broker
	drive     func()          // see Stepping; nil: other goroutines run the broker
	closed    chan struct{}   // closed when the broker has ended
	opened    chan error      // receives the outcome of the first entry

	// Only the goroutine that calls step uses the fields below.
	machine   *queue.Machine
	number    uint64 // number of the newest entry
	durable   uint64 // number of the newest entry that is known to be durable
	front     []*op  // commands of the front lane that were removed from the mailbox and not run yet
	pending   []*op  // commands of the back lane that were removed from the mailbox and not run yet, because the turn was full
	taken     []*op  // result of the newest mailbox.take; its memory is reused
	spare     []*op
	cmds      []queue.Command
	flights   []flight
	held      held
	pacing    pacing
	subs      map[uint64]*subscription
	lent      map[uint64]func(limit, leased int, waits bool) // see LendPool
	levelSubs map[uint64]*subscription                       // those with OnLevel
	levels    uint64                                         // Machine.LevelChanges, when Levels were told last
	snap      snapState
	watch     func(Turn) // see Stepping; nil: no function
	left      []Left     // for watch
	freed     freed
	space     spaceState
	older     uint64 // the last entry that the newest stored snapshot covers; 0: none
	full      bool   // the log has no room for messages
	harm      harm
	reclaim   reclaim
	digest    digest.Lines
	watches   watches
	rested    bool // the last turn of a clean stop was requested
}

// executor does what a core does not do itself. Broker has one with goroutines, and Stepped one that
// does everything at once.
type executor interface {
	// background runs a task that can last, such as a trim.
	background(task func())
	// store begins to store a snapshot. save stores the bytes that its argument writes; done gets
	// the outcome of save.
	store(save func(write func(io.Writer) error) error, done func(error)) pieces
	// each calls step with 0 to n-1 in order and returns after all of them. The steps call users'
	// functions.
	each(n int, step func(i int))
}

// pieces receives the encoded pieces of a snapshot.
type pieces interface {
	// put passes on the next piece. It returns false if the piece must be offered again later; the
	// core is woken for it.
	put(piece []byte, last bool) bool
	// abandon ends the storing without a snapshot. The core does not call it after the last piece.
	abandon()
	// wait returns when the storing has ended.
	wait()
}

// ticket is the log's answer to an append.
type ticket struct {
	entry  uint64
	offset commitlog.Offset
	err    error
}

// arrivals are answers that the core has not handled yet. Any goroutine adds to them.
type arrivals struct {
	mu      sync.Mutex
	tickets []ticket
	spare   []ticket // memory for the next tickets
	stored  []snapResult
}

// answered adds an answer of the log.
func (b *core) answered(t ticket) {
	a := &b.arrivals
	a.mu.Lock()
	first := len(a.tickets) == 0
	a.tickets = append(a.tickets, t)
	a.mu.Unlock()
	if first {
		b.mailbox.nudge()
	}
}

// stored adds the outcome of a snapshot.
func (b *core) stored(r snapResult) {
	a := &b.arrivals
	a.mu.Lock()
	a.stored = append(a.stored, r)
	a.mu.Unlock()
	b.mailbox.nudge()
}

// arrive handles all arrivals. It reports whether there were any.
func (b *core) arrive() bool {
	a := &b.arrivals
	a.mu.Lock()
	tickets, stored := a.tickets, a.stored
	a.tickets, a.spare, a.stored = a.spare[:0], nil, nil
	a.mu.Unlock()
	for _, t := range tickets {
		b.landed(t)
	}
	for _, r := range stored {
		if b.alive() {
			b.snapDone(r)
		}
	}
	a.mu.Lock()
	a.spare = tickets[:0]
	a.mu.Unlock()
	return len(tickets)+len(stored) > 0
}

// newCore recovers the state. Its first turn opens a new epoch.
func newCore(opts Options, exec executor) (*core, error) {
	b := &core{
		opts: opts, exec: exec, clock: opts.Clock, logger: opts.Logger, calls: callback.Calls{Logger: opts.Logger},
		mailbox: newMailbox(opts.MailboxBytes, opts.MailboxOps),
		failed:  make(chan struct{}), closed: make(chan struct{}), opened: make(chan error, 1),
		subs: map[uint64]*subscription{}, levelSubs: map[uint64]*subscription{},
	}
	b.reclaim.minGain = min(reclaimBytes, opts.SnapshotBytes/64)
	if err := b.recover(); err != nil {
		if b.log != nil {
			err = errors.Join(err, b.log.Close())
		}
		return nil, err
	}
	return b, nil
}

// step does a part of the work that can be done now. It returns false if there is nothing to do
// until a command or an answer arrives, or until the time of untilDue.
func (b *core) step() bool {
	b.arrive()
	if !b.alive() {
		return false
	}
	worked := b.turn()
	if !b.alive() {
		return false
	}
	return b.snapPiece() || worked || b.ending()
}

// ending ends the broker when Close was called and all accepted commands are done. It reports
// whether there is more work before the end.
func (b *core) ending() bool {
	if !b.finished() {
		return false
	}
	if !b.rested { // one more turn records which messages are leased
		b.rested = true
		b.pending = []*op{{cmd: &queue.CloseEpoch{}, release: func(error) {}}}
		return true
	}
	b.sayRest()
	b.finalSnapshot()
	b.shutdown(errClosed())
	return false
}

// flight is a turn whose outputs wait for an entry to be durable.
type flight struct {
	entry uint64
	turn  uint64 // of the machine
	ops   []*op
	outs  []pendingRun
	ended []queue.Ended
	told  []told
	pools []poolReport
	metas []queue.MetaChange
}

// pendingRun is a run of hand-outs for one subscription, which waits for its entry.
type pendingRun struct {
	handouts []queue.Handout
	floor    uint64
	entry    uint64 // the newest entry at the time of the decision
}

func (b *core) alive() bool {
	select {
	case <-b.closed:
		return false
	default:
		return true
	}
}

// finished reports whether Close was called and all accepted commands are done.
func (b *core) finished() bool {
	return b.mailbox.finished() && len(b.front)+len(b.pending)+len(b.flights) == 0
}

// fail ends the broker after its log failed.
func (b *core) fail(err error) {
	b.failure = &surgetank.Error{Code: surgetank.CodeUncertain, Err: err, Message: fmt.Sprintf(
		"the log failed, so what was not confirmed is uncertain: %v; check the disk", err)}
	b.logger.Error("the log failed; it must be opened again", "error", err)
	close(b.failed)
	b.shutdown(b.failure)
}

// shutdown answers all waiting commands and ends all subscriptions.
func (b *core) shutdown(err error) {
	ops := append(append(b.mailbox.close(err), b.front...), b.pending...)
	for _, f := range b.flights {
		ops = append(ops, f.ops...)
	}
	b.front, b.pending, b.flights = nil, nil, nil
	b.each(len(ops), true, func(i int) { ops[i].release(err) })
	subs := slices.Collect(maps.Values(b.subs))
	b.each(len(subs), true, func(i int) { subs[i].end(err) })
	b.machine.AbandonSnapshot()
	b.snap.abandon()
	if b.alive() {
		close(b.closed)
	}
}

// onFull is called by the log, on any goroutine.
func (b *core) onFull(full bool) {
	if full {
		b.fill.Store(1)
	} else {
		b.fill.Store(2)
	}
	b.mailbox.nudge()
}
