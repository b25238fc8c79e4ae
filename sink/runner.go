package sink

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/callback"
	"github.com/surgetank/surgetank/internal/clock"
	"github.com/surgetank/surgetank/internal/door"
)

// Options are the limits of a runner, and the parts that tests replace. The zero value is for
// production.
type Options struct {
	Rand  func() uint64 // nil: the runtime's random numbers; used for jitter and the owner's id
	Lease time.Duration // lease of the messages that a sink has; 0: one minute. The sink extends it while it works on them
	// MaxBytes limits the bodies that a sink has in memory; 0: 64 MiB. A single message may be
	// larger.
	MaxBytes int
	// Dir is the start of relative paths of SQLite files; empty: the working directory. A manager
	// stores the absolute path.
	Dir string
	// MaxHeldBack limits the messages that are held back while other messages are written; 0:
	// 10,000.
	MaxHeldBack int
	// Logger receives changes of state; nil: nothing is logged.
	Logger *slog.Logger
	// Way is the user's choice about a target and a queue that contradict each other. It applies to
	// one opening.
	Way Way
	// CommitTimeout limits one statement or transaction at the target; 0: one minute. After it the
	// connection counts as lost.
	CommitTimeout time.Duration

	clock clock.Clock
}

func (o Options) withDefaults() Options {
	if o.clock == nil {
		o.clock = clock.Real{}
	}
	if o.Rand == nil {
		o.Rand = rand.Uint64
	}
	o.Logger = callback.Logger(o.Logger)
	if o.Lease == 0 {
		o.Lease = time.Minute
	}
	if o.MaxBytes == 0 {
		o.MaxBytes = 64 << 20
	}
	if o.MaxHeldBack == 0 {
		o.MaxHeldBack = 10_000
	}
	if o.CommitTimeout == 0 {
		o.CommitTimeout = time.Minute
	}
	return o
}

// Pauses between tries. Each pause is drawn from [half, whole] of the current step.
const (
	firstPause = 50 * time.Millisecond
	longPause  = 2 * time.Second
	retryTries = 8 // number of tries of one batch after Retry errors, before the target counts as down
)

// Runner writes the messages of one queue to one target. Start runs it in a goroutine of its own;
// Stop ends it.
type Runner struct {
	broker   door.Broker
	target   Target
	spec     Spec
	name     string
	instance string
	owner    string
	opts     Options

	lastEpoch uint64 // used by run only: the epoch of the newest opening
	// reported is how many parked messages have been logged. The session's reporter owns it.
	reported uint64
	stats    stats
	limits   []*limit // by lane
	governor *governor
	isDown   bool // used by run and sessions only: a report that the target is down was the last report
	brake    brake
	bell     chan struct{} // has a token when messages were parked and must be logged

	stop context.CancelFunc // ends the sink after the current commits
	kill context.CancelFunc // ends the sink and interrupts current commits
	done chan struct{}
}

// NewRunner makes a runner. instance is the sink's identity (see Claim). spec must be valid and
// have its defaults. broker is an embedded.Broker. Any other broker is CodeInvalid.
func NewRunner(broker surgetank.Broker, target Target, name, instance string, spec Spec, opts Options) (*Runner, error) {
	inner, err := door.Of(broker)
	if err != nil {
		return nil, err
	}
	return newRunner(inner, target, name, instance, spec, opts), nil
}

func newRunner(broker door.Broker, target Target, name, instance string, spec Spec, opts Options) *Runner {
	opts = opts.withDefaults()
	r := &Runner{broker: broker, target: target, spec: spec, name: name, instance: instance, opts: opts,
		owner: NewInstance(opts.Rand), done: make(chan struct{}), bell: make(chan struct{}, 1)}
	for range spec.Lanes {
		r.limits = append(r.limits, newLimit(spec.Batch.Max))
	}
	r.governor = &governor{opts: &r.opts, lanes: spec.Lanes, most: spec.Batch.Max}
	r.brake.limit = spec.Brake
	r.set(StateStarting, nil)
	return r
}

// Start runs the sink until Stop, until the broker closes, or until another process takes it over.
func (r *Runner) Start() {
	var alive, ctx context.Context
	alive, r.kill = context.WithCancel(context.Background())
	ctx, r.stop = context.WithCancel(alive)
	go r.run(alive, ctx)
}

// Stop ends the sink. Current commits of lanes are finished and acked; other messages go back to
// the queue without counting an attempt. If ctx ends first, commits are interrupted too, and the
// error says so. The next opening of the target finds out whether they succeeded. When Stop
// returns, nothing of the sink runs and the target is closed.
func (r *Runner) Stop(ctx context.Context) error {
	r.stop()
	select {
	case <-r.done:
		return nil
	default:
	}
	select {
	case <-r.done:
		return nil
	case <-ctx.Done():
	}
	held := r.stats.held.Load()
	r.kill()
	<-r.done
	return surgetank.Errorf(surgetank.CodeUncertain, "sink %s was interrupted when the time to stop was over, with %d messages in progress; the rows of its last commit may or may not be in the target, which the sink checks at its next start", r.name, held)
}

// Done is closed when the sink has ended for any reason; Status has the reason.
func (r *Runner) Done() <-chan struct{} { return r.done }

// ResetBrake lets a sink that the brake stopped park messages again, until a message is written.
func (r *Runner) ResetBrake() { r.brake.reset() }

// set changes the state and logs the change.
func (r *Runner) set(state RunState, err error) {
	if r.stats.set(state, err, r.opts.clock.Now()) != same {
		r.log(state, err)
	}
}

// setCalm changes the state like set, for states that can change with every attempt. At most once
// per reportTime it logs that the sink waits, and later that it runs again. Parked messages have
// log lines of their own.
func (r *Runner) setCalm(state RunState, err error) {
	now := r.opts.clock.Now()
	if r.stats.set(state, err, now) == changed && r.stats.loud(state, now) {
		r.log(state, err)
	}
}

func (r *Runner) log(state RunState, err error) {
	level := slog.LevelInfo
	if err != nil {
		level = slog.LevelWarn
	}
	attrs := []slog.Attr{slog.String("sink", r.name), slog.String("state", string(state))}
	if err != nil {
		attrs = append(attrs, slog.String("reason", err.Error()))
	}
	r.opts.Logger.LogAttrs(context.Background(), level, "sink", attrs...)
}

// run opens one session after the other. When ctx ends, run stops in order. When alive ends, run
// stops at once.
func (r *Runner) run(alive, ctx context.Context) {
	defer close(r.done)
	defer r.kill()
	pause := r.backoff()
	for {
		before := r.stats.batches.Load()
		err := r.session(alive, ctx)
		r.target.Close()
		if r.stats.batches.Load() != before {
			pause = r.backoff() // the session made progress
		}
		if ctx.Err() != nil {
			r.set(StateStopped, nil)
			return
		}
		var e *Error
		switch {
		case errors.As(err, &e) && e.Class == Fenced:
			r.set(StateFenced, err)
			return
		case errors.As(err, &e) && e.Class == Refused:
			var refusal *Refusal
			if errors.As(err, &refusal) {
				r.stats.refusal.Store(refusal)
			}
			r.set(StateRefused, err)
			return
		case errors.Is(err, errBrokerClosed):
			r.set(StateStopped, err)
			return
		case errors.As(err, &e) && e.Class == Stale || errors.Is(err, errLeaseLost):
			// The next opening reads the true state, so a long wait is useless. A short pause
			// prevents a busy loop.
		default:
			r.set(StateWaiting, err)
		}
		if !pause.wait(ctx) {
			r.set(StateStopped, nil)
			return
		}
	}
}

// backoff returns growing pauses with jitter.
func (r *Runner) backoff() *backoff { return &backoff{opts: &r.opts, next: firstPause} }

type backoff struct {
	opts *Options
	next time.Duration
}

// wait pauses. It returns false when ctx ended.
func (b *backoff) wait(ctx context.Context) bool {
	half := b.next / 2
	d := half + time.Duration(b.opts.Rand()%uint64(half+1))
	b.next = min(2*b.next, longPause)
	t := b.opts.clock.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C():
		return true
	case <-ctx.Done():
		return false
	}
}

// NewInstance draws a random identity for a sink.
func NewInstance(random func() uint64) string {
	const hex = "0123456789abcdef"
	b := make([]byte, 32)
	for i := 0; i < len(b); i += 16 {
		n := random()
		for j := range 16 {
			b[i+j] = hex[n>>(4*j)&15]
		}
	}
	return string(b)
}
