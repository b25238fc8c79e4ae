// Package broker runs the queue machine on a log. It implements surgetank.Broker for the doors.
//
//	callers ──▶ mailbox ──▶ turn: machine.Step ──▶ one entry ──▶ log: write, sync ─┐
//	   ▲                          │ outputs, pending                               │ ticket
//	   └──────── release ◀────────┴────────────────◀───────────────────────────────┘
//
// The core owns the machine. It starts no goroutine and never waits: its method step does all work
// that can be done now, and an executor does the rest. Open runs a core on goroutines: one of them,
// the loop, calls step. OpenStepped leaves the calls to its caller, such as the simulator.
//
// A turn runs the commands in the mailbox and makes one entry of their records. Every output of a
// turn is pending, even if its command wrote nothing. The output waits for the newest entry at the
// time of the decision, and is sent when that entry is durable. So no caller ever sees a fact that a
// crash could erase.
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
	"log/slog"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/clock"
	"github.com/surgetank/surgetank/internal/commitlog"
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
	// After, if not 0, is the incarnation of an opening whose facts the caller still has. Open fails
	// with CodeInvalid if the log does not contain that opening. Transient queues are kept, because
	// their users are still there.
	After  uint64
	Limits queue.Limits

	MailboxBytes  int64 // bytes of waiting commands; 0: 32 MiB
	MailboxOps    int   // number of waiting commands; 0: 16,384
	SnapshotBytes int64 // the fewest bytes logged between two snapshots; 0: 128 MiB
	SnapshotPiece int   // bytes of a snapshot that are encoded between two turns; 0: 256 KiB
	QuickReplay   int64 // Close stores no snapshot if at most this many bytes follow the newest one; 0: 1 MiB
	// Hold is the longest time that an entry for which no caller waits is kept, to share the sync
	// of the next entry. 0 means 5 ms, or not at all in a Stepped broker.
	Hold time.Duration
}

// withDefaults returns the options with the defaults that all brokers have.
func (o Options) withDefaults() Options {
	def := func(v *int64, d int64) {
		if *v == 0 {
			*v = d
		}
	}
	def(&o.MailboxBytes, 32<<20)
	def(&o.SnapshotBytes, 128<<20)
	def(&o.QuickReplay, defaultQuickReplay)
	if o.Clock == nil {
		o.Clock = clock.Real{}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.SnapshotPiece == 0 {
		o.SnapshotPiece = defaultPiece
	}
	if o.MailboxOps == 0 {
		o.MailboxOps = 16_384
	}
	for o.Incarnation == 0 {
		var b [8]byte
		_, _ = rand.Read(b[:]) // never fails, by its documentation
		o.Incarnation = binary.LittleEndian.Uint64(b[:])
	}
	return o
}

// publishHold is queue.Limits.Hold of a broker with goroutines.
const publishHold = 5 * time.Millisecond

// Broker is a broker on a log. It implements surgetank.Broker. Its methods are the callers' side:
// they put commands into the core's mailbox and wait. Any goroutine may call them.
type Broker struct {
	*core
	goroutines *goroutines // nil in a Stepped broker, which its caller runs
}

// Open recovers the state and starts the loop.
func Open(opts Options) (*Broker, error) {
	if opts.Limits.Hold == 0 {
		opts.Limits.Hold = publishHold
	}
	if opts.Hold == 0 {
		opts.Hold = defaultHold
	}
	g := &goroutines{}
	c, err := newCore(opts.withDefaults(), g)
	if err != nil {
		return nil, err
	}
	if err := g.start(c); err != nil {
		return nil, err
	}
	return &Broker{core: c, goroutines: g}, nil
}

// Epoch returns the epoch of this opening.
func (b *Broker) Epoch() uint64 { return b.epoch }

// Incarnation returns the random number of this opening.
func (b *Broker) Incarnation() uint64 { return b.opening }

// Failed returns a channel that is closed when the log has failed. Afterwards Err returns the
// failure.
func (b *Broker) Failed() <-chan struct{} { return b.failed }

// Err returns the failure of the log, or nil.
func (b *core) Err() error {
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

// CallbackFailures returns how many calls of users' functions panicked or ended their goroutine.
func (b *Broker) CallbackFailures() int64 {
	if b == nil {
		return 0
	}
	return b.calls.Failures()
}

// Close finishes the accepted commands, stores a snapshot so that the next opening is quick, and
// closes the log.
func (b *Broker) Close() error {
	if b == nil {
		return nil
	}
	return b.goroutines.close(b.core)
}

var _ surgetank.Broker = (*Broker)(nil)

func errClosed() error {
	return surgetank.Errorf(surgetank.CodeClosed, "the broker is closed")
}

// do sends a command through the loop and waits for its outcome.
func (b *Broker) do(ctx context.Context, cmd queue.Command, weight int64) error {
	return b.doOp(ctx, &op{cmd: cmd, weight: weight + opWeight})
}

// doOp is do for an op whose release is not set.
func (b *Broker) doOp(ctx context.Context, o *op) error {
	done := make(chan error, 1)
	o.release = func(err error) { done <- err }
	if err := b.put(ctx, o, true); err != nil {
		return err
	}
	await(b.core, done)
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return surgetank.Errorf(surgetank.CodeUncertain, "the call was given up before its outcome was known: %w", ctx.Err())
	}
}

// await runs a Stepped broker until an answer is there.
func await[T any](b *core, answer <-chan T) {
	for b.drive != nil && len(answer) == 0 {
		b.drive()
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
