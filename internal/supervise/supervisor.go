package supervise

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/callback"
	"github.com/surgetank/surgetank/internal/clock"
	"github.com/surgetank/surgetank/internal/commitlog"
	"github.com/surgetank/surgetank/internal/door"
)

// Instance is one opening of a broker. After its log has failed, Close must still be called, and
// must make another opening possible.
type Instance interface {
	door.Shard
	// Failed returns a channel that is closed when the log has failed. Err then returns the
	// failure.
	Failed() <-chan struct{}
	Err() error
}

// Options are the parts and limits of a Supervisor.
type Options struct {
	// Open opens the broker. The first call is made by the function Open, with again false. Later
	// calls must open the same data: a call must fail with CodeUnavailable if other data or no data
	// is there, and change nothing. CodeCorrupt and CodeInvalid are final: no further try is made.
	Open func(ctx context.Context, again bool) (Instance, error)
	// Wait is the longest time that a call waits for the next opening; 0: 10 s.
	Wait time.Duration
	// MaxWaiting and MaxWaitingBytes limit the calls that wait and the bodies of their messages; 0:
	// 16,384 and 32 MiB. Above a limit a call gets CodeBusy at once.
	MaxWaiting      int
	MaxWaitingBytes int64
	// ReopenFor limits the time of tries after a failure; 0: no limit. A negative time means that
	// the first failure is final.
	ReopenFor time.Duration
	// Shard is the number of the shard that the broker is; 0: the broker has one shard. Calls to a
	// shard wait until Wait after the failure, and not Wait each: later calls fail at once.
	Shard int
	// Optional: the broker continues without this shard. If the shard's first opening fails, Open
	// returns nevertheless, and further openings are tried. After the final failure calls get
	// CodeUnavailable, and settlements CodeLeaseLost.
	Optional bool
	// Fell is called after each failure of an opening, when no call reaches the opening any more
	// and before the next try. It must not block. nil: nothing is called.
	Fell   func()
	Clock  clock.Clock  // nil: the real clock
	Logger *slog.Logger // nil: discarded
}

const (
	defaultWait            = 10 * time.Second
	defaultMaxWaiting      = 16_384
	defaultMaxWaitingBytes = 32 << 20

	// asyncWait is how long after the failure of a shard PublishAsync waits for the next opening.
	// Its caller, for example a connection, also publishes to other shards.
	asyncWait = time.Second

	firstPause = 100 * time.Millisecond
	longPause  = 10 * time.Second
	// settled is how long an opening must serve until the pauses begin anew. A disk that fails at
	// each write must not cause an endless sequence of quick openings.
	settled = time.Minute
	// lockedFor is how long another process may have the lock on the data. After that time it
	// counts as the new owner.
	lockedFor = time.Minute
)

// Supervisor is a door.Broker that survives failures of the broker behind it. Open makes one. Many
// goroutines may call its methods. A nil Supervisor returns CodeClosed.
type Supervisor struct {
	opts   Options
	clock  clock.Clock
	logger *slog.Logger
	calls  callback.Calls

	cur atomic.Pointer[opening] // the opening that serves; nil: none

	mu      sync.Mutex
	status  Status
	change  chan struct{} // closed and replaced at each change of the state
	waiting int           // calls that wait for the next opening
	bytes   int64         // bytes of their bodies
	subs    map[*subscription]uint64
	watches map[*metaWatch]struct{}
	made    uint64 // number of subscriptions that were ever made
	pools   map[uint64]*pool
	loans   map[uint64]loan // by pool
	closing bool
	late    lateAnswers

	ctx    context.Context
	cancel context.CancelFunc
	done   chan struct{} // closed at the final failure and by Close
	ended  chan struct{} // closed when the loop has ended
	result error         // of Close; set before ended is closed
}

var _ door.Broker = (*Supervisor)(nil)

// pool is a pool of subscriptions.
type pool struct {
	limit int // 0: none
	users int // its subscriptions
}

// opening is an Instance with its channel of failure.
type opening struct {
	Instance
	gone <-chan struct{}
}

// failed reports whether the opening's log has failed.
func (o *opening) failed() bool {
	select {
	case <-o.gone:
		return true
	default:
		return false
	}
}

// Open opens the broker for the first time. If that fails, it returns the error and makes no
// further try. Options.Optional changes this.
func Open(ctx context.Context, opts Options) (*Supervisor, error) {
	if opts.Clock == nil {
		opts.Clock = clock.Real{}
	}
	opts.Logger = callback.Logger(opts.Logger)
	if opts.Wait == 0 {
		opts.Wait = defaultWait
	}
	if opts.MaxWaiting == 0 {
		opts.MaxWaiting = defaultMaxWaiting
	}
	if opts.MaxWaitingBytes == 0 {
		opts.MaxWaitingBytes = defaultMaxWaitingBytes
	}
	first, err := opts.Open(ctx, false)
	if err != nil && !opts.Optional {
		return nil, err
	}
	s := &Supervisor{opts: opts, clock: opts.Clock, logger: opts.Logger, calls: callback.Calls{Logger: opts.Logger},
		change: make(chan struct{}), subs: map[*subscription]uint64{}, watches: map[*metaWatch]struct{}{}, pools: map[uint64]*pool{}, loans: map[uint64]loan{}, done: make(chan struct{}), ended: make(chan struct{})}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	var o *opening
	if err == nil {
		o = &opening{first, first.Failed()}
		s.cur.Store(o)
		s.status = Status{State: Serving, Since: s.clock.Now(), Openings: 1}
	} else {
		s.status = Status{State: Opening, Since: s.clock.Now(), Reason: err, LastError: err}
		s.late.open()
	}
	go s.run(o, err)
	return s, nil
}

// run waits for the failure of each opening and opens the next one. If o is nil, the first opening
// has failed with err.
func (s *Supervisor) run(o *opening, err error) {
	defer close(s.ended)
	pause := firstPause
	if o == nil {
		if s.opts.ReopenFor < 0 {
			s.finish(Failed, err)
			return
		}
		if o = s.reopen(&pause, err); o == nil {
			return
		}
	}
	for {
		began := s.clock.Passed()
		select {
		case <-o.gone:
		case <-s.ctx.Done():
			s.result = o.Close()
			s.finish(Closed, nil)
			return
		}
		if s.clock.Passed()-began >= settled {
			pause = firstPause
		}
		s.fell(o.Err())
		if err := o.Close(); err != nil {
			s.logger.Debug("closing a failed broker failed", "error", err)
		}
		s.late.open() // the answers of the failed opening have been sent
		if s.opts.ReopenFor < 0 {
			s.finish(Failed, o.Err())
			return
		}
		if o = s.reopen(&pause, nil); o == nil {
			return
		}
	}
}

// fell handles the failure of the present opening.
func (s *Supervisor) fell(err error) {
	s.mu.Lock()
	s.cur.Store(nil)
	s.status.Tries = 0
	s.set(Opening, err)
	subs := s.inOrder()
	s.mu.Unlock()
	s.logger.Warn("broker", "state", Opening, "reason", err)
	for _, sub := range subs {
		sub.detach()
	}
	if s.opts.Fell != nil {
		s.opts.Fell()
	}
}

// reopen tries until an opening serves, and returns it. It returns nil after the final failure and
// after Close. err is the error of a try that was made already, or nil.
func (s *Supervisor) reopen(pause *time.Duration, err error) *opening {
	began := s.clock.Passed()
	var locked time.Duration // when another process was first found to have the lock; 0: it has not
	for ; ; err = nil {
		if err == nil {
			var o *opening
			if o, err = s.try(); err == nil {
				return s.serve(o)
			}
		}
		now := s.clock.Passed()
		if surgetank.CodeOf(err) != surgetank.CodeExists {
			locked = 0
		} else if locked == 0 {
			locked = now
		}
		switch {
		case s.ctx.Err() != nil:
			s.finish(Closed, nil)
			return nil
		case final(err), locked != 0 && now-locked >= lockedFor, s.opts.ReopenFor > 0 && now-began >= s.opts.ReopenFor:
			s.finish(Failed, err)
			return nil
		}
		if !s.pause(*pause, err) {
			s.finish(Closed, nil)
			return nil
		}
		*pause = min(2**pause, longPause)
	}
}

// try makes one opening and attaches everything to it.
func (s *Supervisor) try() (*opening, error) {
	s.mu.Lock()
	again := s.status.Openings > 0
	s.mu.Unlock()
	in, err := s.opts.Open(s.ctx, again)
	if err != nil {
		return nil, err
	}
	o := &opening{in, in.Failed()}
	if err := s.attachAll(o); err != nil {
		if e := o.Close(); e != nil {
			s.logger.Debug("closing a failed broker failed", "error", e)
		}
		return nil, err
	}
	return o, nil
}

// final reports whether no further opening can succeed before somebody acts: the data is damaged,
// or this build cannot read it.
func final(err error) bool {
	code := surgetank.CodeOf(err)
	return code == surgetank.CodeCorrupt || code == surgetank.CodeInvalid || errors.Is(err, commitlog.ErrCorrupt)
}

// pause records a failed try and waits for the time of the next one. It returns false after Close.
func (s *Supervisor) pause(d time.Duration, err error) bool {
	s.mu.Lock()
	first := s.status.Tries == 0
	same := !first && err.Error() == s.status.Reason.Error()
	s.status.Tries++
	s.status.Reason, s.status.LastError, s.status.Next = err, err, s.clock.Now().Add(d)
	s.mu.Unlock()
	if !same {
		s.logger.Warn("broker", "state", Opening, "reason", err, "next_try_in", d)
	}
	t := s.clock.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C():
	case <-s.ctx.Done():
		return false
	}
	s.mu.Lock()
	s.status.Next = time.Time{}
	s.mu.Unlock()
	return true
}

// serve lets the waiting calls continue with an opening.
func (s *Supervisor) serve(o *opening) *opening {
	s.mu.Lock()
	for busy := s.late.shut(); busy != nil; busy = s.late.shut() {
		s.mu.Unlock()
		<-busy
		s.mu.Lock()
	}
	s.status.Openings++
	down := s.clock.Now().Sub(s.status.Since)
	s.lendAgain(o) // loans can have changed while the subscriptions were attached
	s.cur.Store(o)
	s.set(Serving, nil)
	subs, openings := s.inOrder(), s.status.Openings
	s.mu.Unlock()
	for _, sub := range subs { // they deliver from now on
		sub.remind()
	}
	s.logger.Warn("broker", "state", Serving, "openings", openings, "subscriptions", len(subs), "after", down.Round(time.Millisecond))
	return o
}

// finish ends the Supervisor: it has failed or was closed.
func (s *Supervisor) finish(state State, reason error) {
	s.mu.Lock()
	if state == Failed {
		s.cur.Store(nil)
	}
	s.set(state, reason)
	err := s.refusal()
	subs := s.inOrder()
	s.mu.Unlock()
	if state == Failed {
		s.logger.Error("broker", "state", state, "reason", reason)
	}
	for _, sub := range subs {
		sub.finish(err)
	}
	s.late.open()
	close(s.done)
}

// Close finishes accepted calls and closes the broker. Every later call fails with CodeClosed.
func (s *Supervisor) Close() error {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	again := s.closing
	s.closing = true
	s.mu.Unlock()
	s.cancel()
	<-s.ended
	if again {
		return nil
	}
	return s.result
}
