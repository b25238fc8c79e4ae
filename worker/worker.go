// Package worker runs Go handlers over any surgetank.Broker: it takes messages from a queue, calls
// a handler for each (or for each batch), and tells the broker what became of them.
//
// A handler that returns nil has its message acked. One that returns an error, panics or ends its
// goroutine (runtime.Goexit, as testing's FailNow does) has it tried again after the queue's own
// back-off, up to its attempt limit, and then dead-lettered with the error's words; RetryAfter,
// Reject and Release say otherwise. While a handler runs its lease is extended, however long it
// takes.
//
// A worker goes on through passing errors (surgetank.Passing): over package client it outlives
// restarts of the server. It subscribes again, with growing pauses, until its context ends or an
// error is final.
//
// A message may be delivered more than once: when a handler's ack is lost, or its lease ended
// although it still ran (the process was stopped, the broker restarted). Handlers should be
// idempotent; a handler's context ends when its lease is known to be lost.
package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/callback"
)

// Handler handles one message. ctx ends when the lease on the message is lost, and
// Options.StopTimeout after the worker was told to stop.
type Handler func(ctx context.Context, d *surgetank.Delivery) error

// BatchHandler handles several messages at once. It returns nil when all are done, one error for
// all of them, or Errors to say which are not.
type BatchHandler func(ctx context.Context, batch []surgetank.Delivery) error

// Options say how a worker works. The zero value is good.
type Options struct {
	// Concurrency is how many handlers run at a time; 0: 1. Messages of one group run together only
	// as far as the queue allows.
	Concurrency int
	// Lease is how long a message is leased for; it is extended after each half of that time while
	// its handler runs; 0: 30 s.
	Lease time.Duration
	// MaxBatch is how many messages RunBatches gives a handler at most; 0: 100.
	MaxBatch int
	// MaxBatchBytes is how many bytes of bodies, about, a batch has at most; 0: 4 MiB.
	MaxBatchBytes int
	// StopTimeout is how long running handlers may go on after ctx of Run has ended, before their
	// own contexts end; 0: 30 s. Run waits for a handler that does not heed its context.
	StopTimeout time.Duration
	// Name is shown in the queue's statistics.
	Name string
	// Logger gets panics and what the broker refused; nil: nothing is logged.
	Logger *slog.Logger
}

func (o Options) withDefaults() Options {
	if o.Concurrency <= 0 {
		o.Concurrency = 1
	}
	if o.Lease <= 0 {
		o.Lease = surgetank.DefaultLease
	}
	if o.MaxBatch <= 0 {
		o.MaxBatch = 100
	}
	if o.MaxBatchBytes <= 0 {
		o.MaxBatchBytes = 4 << 20
	}
	if o.StopTimeout <= 0 {
		o.StopTimeout = 30 * time.Second
	}
	o.Logger = callback.Logger(o.Logger)
	return o
}

// Run calls handler for each message of a queue until ctx ends or an error is final. Then it takes
// no more messages, gives back, uncounted, those no handler has begun, waits for the handlers that
// run, and settles what they did. When it returns, no handler runs.
//
// It returns nil when ctx ended and every handler finished within Options.StopTimeout, and
// a *CutError when handlers had to be cut off. It returns the broker's error when that is final:
// the queue was deleted, the broker closed, the user may not.
func Run(ctx context.Context, b surgetank.Broker, queue string, handler Handler, opts Options) error {
	if handler == nil {
		return noHandler()
	}
	opts.MaxBatch = 1
	return RunBatches(ctx, b, queue, func(ctx context.Context, batch []surgetank.Delivery) error {
		return handler(ctx, &batch[0])
	}, opts)
}

func noHandler() error {
	return surgetank.FieldErrorf("handler", "the handler is nil; pass the function that handles a message")
}

// RunBatches is Run for a handler that takes several messages at once: as many as wait, up to
// Options.MaxBatch; it never waits for a batch to fill.
func RunBatches(ctx context.Context, b surgetank.Broker, queue string, handler BatchHandler, opts Options) error {
	switch {
	case handler == nil:
		return noHandler()
	case ctx == nil:
		return surgetank.FieldErrorf("ctx", "the context is nil; pass one, such as context.Background()")
	case b == nil:
		return surgetank.FieldErrorf("broker", "the broker is nil; open one, or dial a server")
	}
	opts = opts.withDefaults()
	w := &worker{broker: b, queue: queue, handler: handler, opts: opts}
	if err := w.attach(ctx, nil); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	// Handlers outlive ctx by StopTimeout: what is running is finished, not broken off.
	running, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	stop := context.AfterFunc(ctx, func() {
		t := time.AfterFunc(opts.StopTimeout, func() {
			w.cut.Store(w.handling.Load())
			cut()
		})
		context.AfterFunc(running, func() { t.Stop() })
	})
	defer stop()
	var wg sync.WaitGroup
	errs := make([]error, opts.Concurrency)
	for i := range opts.Concurrency {
		wg.Go(func() { errs[i] = w.loop(ctx, running) })
	}
	wg.Wait()
	if n := w.cut.Load(); n > 0 {
		errs = append([]error{&CutError{Messages: int(n), After: opts.StopTimeout}}, errs...)
	}
	if sub := w.subscription(); sub != nil {
		errs = append(errs, sub.Close())
	}
	for _, err := range errs {
		if err != nil && !(ctx.Err() != nil && surgetank.Passing(err)) {
			return err
		}
	}
	return nil
}

// CutError says that handlers had not finished Options.StopTimeout after the worker was told to
// stop. Their contexts ended then. What they returned was settled all the same.
type CutError struct {
	Messages int // how many messages they had
	After    time.Duration
}

func (e *CutError) Error() string {
	return fmt.Sprintf("the handlers of %d messages had not finished %v after the worker was told to stop, and were cut off", e.Messages, e.After)
}

// worker is one call of Run.
type worker struct {
	broker  surgetank.Broker
	queue   string
	handler BatchHandler
	opts    Options

	handling atomic.Int64 // messages whose handlers run
	cut      atomic.Int64 // of these when StopTimeout was over

	attaching sync.Mutex // held while a subscription is made, so that one loop makes it for all
	mu        sync.Mutex
	sub       surgetank.Subscription
}

func (w *worker) subscription() surgetank.Subscription {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.sub
}

// attach subscribes in place of old, unless another loop did. It tries again after passing errors,
// until ctx ends.
func (w *worker) attach(ctx context.Context, old surgetank.Subscription) error {
	w.attaching.Lock()
	defer w.attaching.Unlock()
	if w.subscription() != old {
		return nil
	}
	if old != nil {
		_ = old.Close() // it has ended by an error, and its leases end by themselves if they have not
	}
	for pause := firstPause; ; pause = min(2*pause, longPause) {
		sub, err := w.broker.Subscribe(ctx, w.queue, surgetank.SubscribeOptions{Credit: w.opts.Concurrency * w.opts.MaxBatch, Lease: w.opts.Lease, Name: w.opts.Name})
		if err == nil {
			w.mu.Lock()
			w.sub = sub
			w.mu.Unlock()
			return nil
		}
		if !surgetank.Passing(err) {
			return err
		}
		w.opts.Logger.Warn("the worker cannot subscribe now and tries again", "queue", w.queue, "error", err)
		if !sleep(ctx, pause) {
			return err
		}
	}
}

const (
	firstPause = 50 * time.Millisecond
	longPause  = 5 * time.Second
)

// sleep pauses for half of d to d; it is false when ctx ended.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d/2 + rand.N(d/2))
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// loop takes batches and handles them, one after the other.
func (w *worker) loop(ctx, running context.Context) error {
	var buf []surgetank.Delivery
	for ctx.Err() == nil {
		var err error
		sub := w.subscription()
		buf, err = sub.Receive(ctx, buf[:0], w.opts.MaxBatch, w.opts.MaxBatchBytes)
		switch {
		case ctx.Err() != nil:
			w.giveBack(buf)
			return nil
		case surgetank.Passing(err):
			w.opts.Logger.Warn("the worker's subscription ended; it subscribes again", "queue", w.queue, "error", err)
			if err := w.attach(ctx, sub); err != nil {
				return err
			}
			continue
		case err != nil:
			return err
		}
		// A handler may keep what it was given, so each batch has memory of its own.
		batch := append([]surgetank.Delivery(nil), buf...)
		if err := w.handle(running, batch); err != nil {
			return err
		}
	}
	return nil
}

// giveBack returns messages that no handler has begun.
func (w *worker) giveBack(list []surgetank.Delivery) {
	s := make([]surgetank.Settlement, len(list))
	for i := range list {
		s[i] = surgetank.Settlement{Receipt: list[i].Receipt, Op: surgetank.Nack, Uncounted: true}
	}
	if len(s) > 0 {
		if err := w.broker.SettleAsync(context.Background(), s, nil); err != nil {
			w.opts.Logger.Warn("messages could not be given back; their leases end by themselves", "queue", w.queue, "count", len(s), "error", err)
		}
	}
}

// handle runs the handler under leases that are kept alive, and settles what came of it.
func (w *worker) handle(running context.Context, batch []surgetank.Delivery) error {
	ctx, cancel := context.WithCancelCause(running)
	defer cancel(nil)
	kept := w.keepLeases(ctx, batch, cancel)
	w.handling.Add(int64(len(batch)))
	err := w.call(ctx, batch)
	w.handling.Add(-int64(len(batch)))
	cancel(nil)
	<-kept // so that no extension comes behind the settlement
	return w.settle(batch, err)
}

// call runs the handler, on a goroutine that it may end; a failure of it is an error.
func (w *worker) call(ctx context.Context, batch []surgetank.Delivery) (err error) {
	if f := callback.Apart(func() { err = w.handler(ctx, batch) }); f != nil {
		w.opts.Logger.Error("a handler failed", "queue", w.queue, "message", batch[0].ID.String(), "failure", f.Error(), "stack", string(f.Stack))
		return fmt.Errorf("the handler failed: %w", f)
	}
	return err
}

// ErrLeaseLost is the cause of a handler's context when the lease on all its messages was lost.
var ErrLeaseLost = errors.New("the leases on the messages were lost; somebody else may be handling them")

// keepLeases extends the leases after each half of their time until ctx ends. When none is left it
// cancels the handler.
func (w *worker) keepLeases(ctx context.Context, batch []surgetank.Delivery, cancel context.CancelCauseFunc) <-chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		list := make([]surgetank.Settlement, 0, len(batch))
		for i := range batch {
			if !batch[i].Deadline.IsZero() {
				list = append(list, surgetank.Settlement{Receipt: batch[i].Receipt, Op: surgetank.Extend, Lease: w.opts.Lease})
			}
		}
		if len(list) == 0 {
			return
		}
		tick := time.NewTicker(w.opts.Lease / 2)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
			results, err := w.broker.Settle(ctx, list)
			if ctx.Err() != nil {
				return
			}
			if err != nil { // perhaps the next one works, before the lease ends
				w.opts.Logger.Warn("leases could not be extended", "queue", w.queue, "error", err)
				continue
			}
			kept := list[:0]
			for i, err := range results {
				if err == nil {
					kept = append(kept, list[i])
				}
			}
			if list = kept; len(list) == 0 {
				cancel(ErrLeaseLost)
				return
			}
		}
	}()
	return done
}

// settle tells the broker what became of a batch. Lost leases are no error: the messages come
// again.
func (w *worker) settle(batch []surgetank.Delivery, err error) error {
	var each Errors
	if err != nil && !errors.As(err, &each) {
		each = make(Errors, len(batch))
		for i := range each {
			each[i] = err
		}
	}
	list := make([]surgetank.Settlement, len(batch))
	for i := range batch {
		var one error
		if i < len(each) {
			one = each[i]
		}
		list[i] = verdict(one)
		list[i].Receipt = batch[i].Receipt
	}
	// Without a context that ends: what was done is worth telling, also while stopping.
	results, err := w.broker.Settle(context.Background(), list)
	if err != nil {
		w.opts.Logger.Warn("messages could not be settled; they will be delivered again", "queue", w.queue, "count", len(list), "error", err)
		if surgetank.Passing(err) {
			return nil
		}
		return err
	}
	for i, err := range results {
		if err != nil {
			w.opts.Logger.Warn("a message could not be settled; it will be delivered again", "queue", w.queue, "message", batch[i].ID.String(), "error", err)
		}
	}
	return nil
}
