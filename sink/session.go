package sink

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/door"
	"github.com/surgetank/surgetank/internal/hidden"
)

// errLeaseLost ends a session whose messages the broker took back during the work on them. That
// happens if the process was stopped for longer than a lease.
var errLeaseLost = errors.New("leases ended while the sink was working on their messages")

// errBrokerClosed ends the runner: there is no broker left to read from.
var errBrokerClosed = errors.New("the broker is closed")

// errReopened ends a session whose broker was opened again. The next session compares its claim as at
// a start.
var errReopened = surgetank.Errorf(surgetank.CodeUnavailable, "the broker was opened again while its sink was running; the sink begins again")

// errRemade ends a session whose queue was deleted and created again.
func errRemade(queue string) error {
	return surgetank.Errorf(surgetank.CodeNotFound, "the queue %s was made anew while its sink was running; the sink opens it again", queue)
}

// session is one opening of the target, from the claim to the first error. The first error ends the
// whole session: every lane stops and its messages go back to the queue. The next session reads
// from the target which messages were committed. So a lost connection, a commit of unknown outcome,
// a lost lease and a restart have one way of recovery.
type session struct {
	r      *Runner
	sub    door.Subscription
	queue  uint64
	state  State
	ledger *ledger
	lanes  []*lane
	credit int

	// ctx ends everything at once. drain ends the session after the current commits.
	ctx    context.Context
	cancel context.CancelCauseFunc
	drain  context.Context

	keyer  *keyer // used by the dispatcher only; nil: lanes do not depend on keys
	single bool   // messages without a group have one lane, because their keys cannot be compared

	// tick counts rows that failed alone. proof is the highest tick before which the writing of a
	// committed row began. If a row failed at proof or earlier, other rows could be written at that
	// time.
	tick, proof atomic.Uint64
	version     atomic.Uint64 // changes when messages leave lanes
	wroteAt     atomic.Int64  // when the last row was committed, in nanoseconds; 0: never

	mu      sync.Mutex
	held    map[uint64]*entry // by Seq: messages that were received and are not settled
	extra   int               // additional credit because of held-back messages
	reason  string            // why messages are held back
	bytes   int               // size of the bodies in memory
	room    chan struct{}     // has a token when bytes decreased
	current *lane             // lane for messages without order
	given   int               // number of messages assigned to current in sequence while current was busy
	// Until serialUntil, messages without order are added to one lane only, because rows of one
	// lane referred to rows of another.
	serialUntil time.Time
	serial      bool // whether serialUntil was in the future at the last call of take

	settledMu sync.Mutex
	settled   []answer // answers of the broker, for the settler
	answers   chan struct{}
	sent      sync.WaitGroup // settlements without an answer yet
}

// entry is one message that the session has leased.
type entry struct {
	d       surgetank.Delivery
	seq     uint64
	size    int
	arrived time.Time
	chain   uint64 // messages with the same chain (not 0) are written in order: a group or a conflict key
	lane    *lane  // its lane
	hold    *hold  // owned by the lane; nil unless the message is held back
	back    bool   // owned by the lane: the message is in back
	parked  string // why the message is rejected; empty: it is acked
	settled bool   // sent to the broker for settling; lanes no longer handle it
	lost    bool   // its lease has ended, and the message was not delivered again

	// The session's mu guards these fields.
	extra bool // the session got one more credit because this message is held back
	stuck bool // the message is held back for a reason that concerns it alone
}

// session runs one session and returns the error that ended it: an error of the target with a
// class, or an error of the broker. The end of ctx asks for an orderly stop and is no error; the
// end of alive interrupts commits too.
func (r *Runner) session(alive, ctx context.Context) error {
	written, err := readWritten(ctx, r.broker, r.instance)
	if surgetank.CodeOf(err) == surgetank.CodeClosed {
		return errBrokerClosed
	}
	if err != nil {
		return err
	}
	open, cancelOpen := context.WithTimeout(ctx, r.opts.CommitTimeout)
	var book *ledger
	claim := Claim{Instance: r.instance, Sink: r.name, Owner: r.owner, LastEpoch: r.lastEpoch, Lanes: r.spec.Lanes, Written: written, Way: r.opts.Way,
		Verify: func() func(State) error {
			if book == nil {
				return func(State) error { return nil } // still in Open, which has locked the progress
			}
			return book.verify()
		}}
	// The target compares its progress with the history of one opening of the broker. If the broker is
	// opened again, the session must end, also in the middle of the comparison.
	var opening uint64
	*hidden.Of(&claim) = func(count ...door.NumberRange) (door.History, error) {
		h, err := r.broker.History(open, r.spec.Queue, count...)
		if err != nil || len(h.Openings) == 0 {
			return h, err
		}
		now := h.Openings[len(h.Openings)-1].Incarnation
		if opening != 0 && opening != now {
			return h, errReopened
		}
		opening = now
		return h, nil
	}
	state, lanes, err := r.target.Open(open, claim)
	cancelOpen()
	if err != nil {
		r.reportDown(asError(err))
		return asError(err)
	}
	r.reportUp()
	r.lastEpoch, r.opts.Way = state.Epoch, "" // a way applies once, to the contradiction that the user saw
	r.stats.epoch.Store(state.Epoch)
	r.stats.opens.Add(1)
	if book, err = newLedger(state); err != nil {
		return &Error{Class: Refused, Row: -1, Reason: err.Error(), Err: err}
	}

	s := &session{r: r, queue: state.Queue, state: state, ledger: book, held: map[uint64]*entry{},
		credit: 3 * r.spec.Lanes * r.spec.Batch.Max, room: make(chan struct{}, 1), answers: make(chan struct{}, 1)}
	s.drain = ctx
	var cancel context.CancelCauseFunc
	s.ctx, cancel = context.WithCancelCause(alive)
	s.cancel = cancel
	defer cancel(nil)
	s.byKey()
	for i, conn := range lanes {
		s.lanes = append(s.lanes, newLane(s, i, conn))
	}
	s.sub, err = r.broker.Attach(ctx, r.spec.Queue, door.SubscribeOptions{
		SubscribeOptions: surgetank.SubscribeOptions{Credit: s.credit, ManualCredit: true, Lease: r.opts.Lease, Name: "sink " + r.name},
		GroupRun:         s.credit + r.opts.MaxHeldBack, OwnLevel: true, OnLevel: r.governor.follow, Opening: opening})
	if err != nil {
		return err
	}
	// The result of this opening must be stored before anything is acked because of it.
	s.mark(-1, mark{epoch: state.Epoch, applied: state.Base})
	r.set(StateRunning, nil)
	return s.run()
}

// mark sends the progress in the target to the broker. Call it before the settlements that depend
// on the progress.
func (s *session) mark(lane int, m mark) {
	m.time = s.r.opts.clock.Now().Unix()
	s.end(s.r.broker.SetMetaLater(s.r.spec.Queue, markName(s.r.instance, lane), m.encode()))
}

// run starts the session's goroutines and waits for all of them:
//
//	dispatch     broker → lanes            ends first, by a requested stop or an error
//	lanes        batch → target → acks     end when dispatch has ended, or by an error
//	settler      the broker's answers      ends when every settlement has its answer
//	keeper       extends leases            ends with the lanes
func (s *session) run() error {
	var lanes, tail sync.WaitGroup
	for _, l := range s.lanes {
		lanes.Go(func() { s.end(l.run()) })
	}
	working, idle := context.WithCancel(s.ctx)
	tail.Go(func() { s.keep(working) })
	tail.Go(func() { s.report(working) })
	over := make(chan struct{})
	tail.Go(func() { s.settle(over) })

	receiving, stop := context.WithCancel(s.drain)
	unlink := context.AfterFunc(s.ctx, stop)
	s.end(s.dispatch(receiving))
	unlink()
	stop()
	for _, l := range s.lanes {
		l.close()
	}
	lanes.Wait()
	idle()
	s.r.stats.heldBack.Store(0)
	s.r.stats.holding("", time.Time{})
	s.r.reportDown(context.Cause(s.ctx)) // before giveBack, because the sink can have the message that tests the target
	s.giveBack()
	s.sent.Wait()
	close(over)
	tail.Wait()
	s.r.stats.held.Store(0)
	return context.Cause(s.ctx)
}

// end records the session's error, if it is the first.
func (s *session) end(err error) {
	if err != nil {
		s.cancel(err)
	}
}

// giveBack returns all uncommitted messages to their old positions in the queue without counting an
// attempt. It then ends the subscription.
func (s *session) giveBack() {
	// These calls fail only if the broker is gone or a lease has ended. In both cases the messages
	// return to the queue anyway.
	_ = s.sub.Cancel()
	var back []surgetank.Settlement
	s.mu.Lock()
	for _, e := range s.held {
		if !e.settled {
			back = append(back, surgetank.Settlement{Receipt: e.d.Receipt, Op: surgetank.Nack, Uncounted: true, Reason: "the sink stopped"})
		}
	}
	s.mu.Unlock()
	if len(back) > 0 {
		ctx, cancel := context.WithTimeout(context.Background(), s.r.opts.Lease)
		defer cancel()
		_, _ = s.r.broker.Settle(ctx, back)
	}
	_ = s.sub.Close()
}
