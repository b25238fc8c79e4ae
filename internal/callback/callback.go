// Package callback calls users' functions. A mistake in such a function does not end a goroutine of
// Surgetank.
//
// A function can fail in two ways: it panics, or it ends its goroutine (runtime.Goexit, which
// testing's FailNow and Fatal call). A panic is recovered. An ended goroutine cannot be restored.
// So Apart and Each run functions on a separate goroutine. Each failure is logged with its stack
// and counted.
package callback

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync/atomic"
)

// Failure describes how a user's function failed.
type Failure struct {
	Panic any // the value of the panic; nil: the function ended its goroutine
	Stack []byte
}

func (f *Failure) Error() string {
	if f.Panic == nil {
		return "it ended its goroutine (runtime.Goexit, as testing's FailNow and Fatal do)"
	}
	return fmt.Sprintf("it panicked: %v", f.Panic)
}

// catch calls f. It recovers a panic, and passes a failure to caught. If f ends the goroutine,
// catch does not return.
func catch(f func(), caught func(*Failure)) {
	returned := false
	defer func() {
		if returned {
			return
		}
		p := recover() // nil: the goroutine is ending
		caught(&Failure{Panic: p, Stack: debug.Stack()})
	}()
	f()
	returned = true
}

// Apart calls f on a separate goroutine, waits for its end, and returns its failure or nil.
func Apart(f func()) (failure *Failure) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		catch(f, func(x *Failure) { failure = x })
	}()
	<-done
	return failure
}

// Each calls step with 0 to n-1 in order, on a goroutine that is not the caller's, and returns
// after all of them. If a step ends its goroutine, the next steps run on a new one. A step's panic
// is not recovered.
func Each(n int, step func(i int)) {
	if n == 0 {
		return
	}
	done := make(chan struct{})
	var from func(i int)
	from = func(i int) {
		panicking := true
		defer func() {
			if panicking {
				if p := recover(); p != nil {
					panic(p) // a panic of step itself, not of a user's function; the stack shows its origin
				}
			}
			if i++; i < n {
				go from(i)
				return
			}
			close(done)
		}()
		for ; i < n; i++ {
			step(i)
		}
		panicking = false
	}
	go from(0)
	<-done
}

// Calls calls the users' functions of one component. The zero value logs nothing. A nil Calls calls
// functions directly, and does not handle their failures.
type Calls struct {
	Logger *slog.Logger
	failed atomic.Int64
}

// Do calls f. A panic is recovered, logged and counted. The failure is returned, too. If f ends its
// goroutine, the end is logged and counted, and Do does not return. name is the function's name in
// the documentation.
func (c *Calls) Do(name string, f func()) (failure *Failure) {
	if c == nil {
		f()
		return nil
	}
	catch(f, func(x *Failure) {
		failure = x
		c.Note(name, x)
	})
	return failure
}

// Apart is Do on a separate goroutine. It always returns.
func (c *Calls) Apart(name string, f func()) *Failure {
	if c == nil {
		f()
		return nil
	}
	failure := Apart(f)
	if failure != nil {
		c.Note(name, failure)
	}
	return failure
}

// Note logs and counts a failure.
func (c *Calls) Note(name string, f *Failure) {
	c.failed.Add(1)
	if c.Logger != nil {
		c.Logger.Error("a function that was given to Surgetank failed", "function", name, "failure", f.Error(), "stack", string(f.Stack))
	}
}

// Failures returns the number of calls that failed.
func (c *Calls) Failures() int64 { return c.failed.Load() }

// Logger returns a safe version of a user's logger: if its handler fails, only the log line is
// lost. For nil it returns a logger that discards all lines.
func Logger(l *slog.Logger) *slog.Logger {
	if l == nil {
		return slog.New(slog.DiscardHandler)
	}
	h := l.Handler()
	if _, safe := h.(*handler); safe {
		return l
	}
	return slog.New(&handler{h})
}

// handler wraps a user's slog.Handler.
type handler struct{ inner slog.Handler }

func (h *handler) Enabled(ctx context.Context, level slog.Level) (on bool) {
	Apart(func() { on = h.inner.Enabled(ctx, level) })
	return on
}

func (h *handler) Handle(ctx context.Context, r slog.Record) (err error) {
	if f := Apart(func() { err = h.inner.Handle(ctx, r) }); f != nil {
		return f
	}
	return err
}

func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	next := slog.Handler(slog.DiscardHandler)
	Apart(func() { next = h.inner.WithAttrs(attrs) })
	return &handler{next}
}

func (h *handler) WithGroup(name string) slog.Handler {
	next := slog.Handler(slog.DiscardHandler)
	Apart(func() { next = h.inner.WithGroup(name) })
	return &handler{next}
}
