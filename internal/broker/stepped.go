package broker

import (
	"context"
	"io"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/door"
	"github.com/surgetank/surgetank/internal/queue"
)

// Stepped is a broker that its caller runs: no other goroutine takes part. It is for the simulator
// and for tests. Only one goroutine may use it. Users' functions run on that goroutine, and their
// failures are not handled.
type Stepped struct{ *Broker }

// Stepping contains the functions that a Stepped broker calls.
type Stepping struct {
	// Drive is called while a call waits for its outcome. It must call Tick and run the log, until
	// the call is complete. Without it no call may wait.
	Drive func()
	// Watch is called after every turn that the machine decided, before any output of the turn is
	// written. The simulator compares a model with the turn. Watch must not change its argument.
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

// OpenStepped recovers the state. The first Tick runs the first turn.
func OpenStepped(opts Options, s Stepping) (*Stepped, error) {
	c, err := newCore(opts.withDefaults(), inline{})
	if err != nil {
		return nil, err
	}
	c.drive, c.watch = s.Drive, s.Watch
	return &Stepped{&Broker{core: c}}, nil
}

// Tick does all work that can be done now, and one piece of a snapshot under way. It returns false
// when there was nothing to do.
func (b *Stepped) Tick() bool {
	worked := false
	for b.alive() && (b.arrive() || b.alive() && b.turn()) {
		worked = true
	}
	return b.alive() && b.snapPiece() || worked
}

// Due returns the time until Tick has something to do without a new command or answer.
func (b *Stepped) Due() time.Duration { return b.untilDue() }

// Close stores a snapshot and closes the log. It runs no further turn, and the waiting commands are
// answered with an error. It stores no snapshot while a turn's output is pending.
func (b *Stepped) Close() error {
	if b.alive() {
		if len(b.front)+len(b.pending)+len(b.flights) == 0 {
			b.finalSnapshot()
		}
		b.shutdown(errClosed())
	}
	return b.log.Close()
}

// Send puts a command into the mailbox without waiting. release gets the outcome.
func (b *Stepped) Send(cmd queue.Command, release func(error)) error {
	return b.put(context.Background(), &op{cmd: cmd, release: release}, false)
}

// SendQuiet is Send for a command whose entry can wait for the next entry, as if no caller waited
// for the outcome.
func (b *Stepped) SendQuiet(cmd queue.Command, release func(error)) error {
	return b.put(context.Background(), &op{cmd: cmd, release: release, quiet: true}, false)
}

// NewSubscription prepares a subscription for an Attach that the caller sends.
func (b *Stepped) NewSubscription(c *queue.Attach) door.Subscription { return b.newSubscription(c) }

// Drain ends a stopped subscription of NewSubscription. It returns the receipts of messages that
// were not received, for a Detach.
func (b *Stepped) Drain(s door.Subscription) []surgetank.Receipt { return s.(*subscription).drain() }

// inline is the executor of a Stepped broker. It does everything at once.
type inline struct{}

func (inline) background(task func()) { task() }

func (inline) store(save func(func(io.Writer) error) error, done func(error)) pieces {
	return &collected{save: save, done: done}
}

func (inline) each(n int, step func(i int)) {
	for i := range n {
		step(i)
	}
}

// collected collects the pieces of a snapshot and stores them after the last one.
type collected struct {
	save  func(func(io.Writer) error) error
	done  func(error)
	bytes []byte
}

func (c *collected) put(piece []byte, last bool) bool {
	c.bytes = append(c.bytes, piece...)
	if last {
		c.done(c.save(func(w io.Writer) error {
			_, err := w.Write(c.bytes)
			return err
		}))
	}
	return true
}

func (*collected) abandon() {}
func (*collected) wait()    {}
