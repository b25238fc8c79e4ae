// Package worker runs Go handlers over any surgetank.Broker. A worker receives messages from a
// queue, calls a handler for each message or batch, and settles the messages.
//
// If the handler returns nil, its message is acked. If the handler returns an error, the message is
// tried again after the queue's back-off. A handler that panics or ends its goroutine
// (runtime.Goexit, as testing's FailNow does) has failed, too. At the queue's attempt limit the
// message becomes a dead letter with the error's text. Errors from RetryAfter, Return and Reject
// choose another settlement. While a handler runs, its lease is extended without limit.
//
// A worker survives passing errors (surgetank.Passing), such as a restart of a client's server. The
// worker subscribes again, with growing pauses, until its context ends or an error is final.
//
// A message can be delivered more than once. This happens if a handler's ack is lost, or if the
// lease ends while the handler runs, because the process was stopped or the broker restarted.
// Handlers should be idempotent. When a lease is known to be lost, the handler's context ends.
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

// Handler handles one message. ctx ends when the lease on the message is lost. It also ends
// Options.StopTimeout after the worker was told to stop.
type Handler func(ctx context.Context, d *surgetank.Delivery) error

// BatchHandler handles several messages at once. It returns nil if all messages are handled, one
// error for all messages, or Errors with one error for each message.
type BatchHandler func(ctx context.Context, batch []surgetank.Delivery) error

// Options are the settings of a worker. The zero value is valid.
type Options struct {
	// Concurrency is how many handlers run in parallel; 0: 1. The queue's settings limit how many
	// messages of one group run in parallel.
	Concurrency int
	// Lease is how long a message is leased; 0: 30 s. While a handler runs, the lease is extended
	// after each half of this time.
	Lease time.Duration
	// MaxBatch is the largest number of messages in a batch of RunBatches; 0: 100.
	MaxBatch int
	// MaxBatchBytes is the approximate limit of the bodies in a batch, in bytes; 0: 4 MiB.
	MaxBatchBytes int
	// StopTimeout is the time for running handlers after the context of Run has ended; 0: 30 s.
	// After this time the handlers' contexts end. Run still waits for each handler to return.
	StopTimeout time.Duration
	// Name is shown in the queue's statistics.
	Name string
	// Logger gets panics and refused settlements; nil: no log.
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

// Run calls handler for each message of a queue until ctx ends or an error is final. To stop, Run
// receives no more messages. It returns messages that no handler has begun to the queue, and their
// attempts do not count. Run waits for the running handlers and settles their messages. After Run
// returns, no handler runs.
//
// Run returns nil if ctx ended and every handler finished within Options.StopTimeout. If the
// contexts of handlers ended at StopTimeout, Run returns a *CutError. If the broker returns a final
// error, Run returns this error: the queue was deleted, the broker was closed, or the user lacks
// the right.
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

// RunBatches is Run for a handler of several messages. A batch has all messages that wait, up to
// Options.MaxBatch. RunBatches never waits for a batch to fill.
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
	// The handlers' context ends StopTimeout later than ctx, so that handlers can finish.
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

// CutError says that handlers were still running Options.StopTimeout after the worker was told to
// stop. At that moment their contexts ended. The result of each handler settled its messages.
type CutError struct {
	Messages int // number of messages of these handlers
	After    time.Duration
}

func (e *CutError) Error() string {
	return fmt.Sprintf("the handlers of %d messages had not finished %v after the worker was told to stop, and were cut off", e.Messages, e.After)
}

// worker is the state of one call of Run.
type worker struct {
	broker  surgetank.Broker
	queue   string
	handler BatchHandler
	opts    Options

	handling atomic.Int64 // number of messages in running handlers
	cut      atomic.Int64 // value of handling at the end of StopTimeout

	attaching sync.Mutex // locked while a loop subscribes, so that only one loop subscribes for all loops
	mu        sync.Mutex
	sub       surgetank.Subscription
}

func (w *worker) subscription() surgetank.Subscription {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.sub
}

// attach replaces the subscription old, unless another loop has replaced it. After a passing error
// attach tries again, until ctx ends.
func (w *worker) attach(ctx context.Context, old surgetank.Subscription) error {
	w.attaching.Lock()
	defer w.attaching.Unlock()
	if w.subscription() != old {
		return nil
	}
	if old != nil {
		_ = old.Close() // an error of Close does not matter: the leases end at their deadlines
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

// sleep waits for a random time from d/2 to d. It returns false if ctx ended.
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

// loop receives batches and handles them one after the other.
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
		// Handlers are allowed to keep a batch, so each batch has its own memory.
		batch := append([]surgetank.Delivery(nil), buf...)
		if err := w.handle(running, batch); err != nil {
			return err
		}
	}
	return nil
}

// giveBack returns messages that no handler has begun to the queue.
func (w *worker) giveBack(list []surgetank.Delivery) {
	s := make([]surgetank.Settlement, len(list))
	for i := range list {
		s[i] = surgetank.Settlement{Receipt: list[i].Receipt, Op: surgetank.Nack, Uncounted: true}
	}
	if len(s) > 0 {
		if err := w.broker.SettleAsync(context.Background(), s, nil); err != nil {
			w.opts.Logger.Warn("messages could not be returned to the queue; their leases end by time", "queue", w.queue, "count", len(s), "error", err)
		}
	}
}

// handle runs the handler, extends the leases meanwhile, and settles the messages.
func (w *worker) handle(running context.Context, batch []surgetank.Delivery) error {
	ctx, cancel := context.WithCancelCause(running)
	defer cancel(nil)
	kept := w.keepLeases(ctx, batch, cancel)
	w.handling.Add(int64(len(batch)))
	began := time.Now()
	err := w.call(ctx, batch)
	took := max(1, time.Since(began))
	w.handling.Add(-int64(len(batch)))
	cancel(nil)
	<-kept // the last extension must end before the settlement
	return w.settle(batch, err, took)
}

// call runs the handler on a goroutine of its own, because the handler can end its goroutine. A
// panic becomes an error.
func (w *worker) call(ctx context.Context, batch []surgetank.Delivery) (err error) {
	if f := callback.Apart(func() { err = w.handler(ctx, batch) }); f != nil {
		w.opts.Logger.Error("a handler failed", "queue", w.queue, "message", batch[0].ID.String(), "failure", f.Error(), "stack", string(f.Stack))
		return fmt.Errorf("the handler failed: %w", f)
	}
	return err
}

// ErrLeaseLost is the cause of a handler's context if the leases of all its messages were lost.
var ErrLeaseLost = errors.New("the leases on the messages were lost; another consumer may have the messages")

// keepLeases extends the leases after each half of their time, until ctx ends. If all leases are
// lost, it cancels the handler.
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
			if err != nil { // the next try may succeed before the lease ends
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

// settle sends the settlements of a batch, for which the handler took a time. The broker measures
// the target by this time. Otherwise messages that wait for a free handler would look like a slow
// target. A lost lease is no error: the message is delivered again.
func (w *worker) settle(batch []surgetank.Delivery, err error, took time.Duration) error {
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
		list[i].Receipt, list[i].Elapsed = batch[i].Receipt, took
	}
	// This context never ends, because finished work is settled even while the worker stops.
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
