package broker

import (
	"context"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/callback"
)

// A user's function (done of PublishAsync and SettleAsync, SubscribeOptions.Notify) is called while
// a turn's outputs are released. One that panics or ends its goroutine must not end the loop. A
// panic is recovered at the call. A release with users' functions runs on a goroutine apart, for
// which the loop waits, and goes on there after a function that ended it. With Manual, whoever
// drives the broker has the failures.

// CallbackFailures counts the calls of users' functions that panicked or ended their goroutine.
func (b *Broker) CallbackFailures() int64 {
	if b == nil {
		return 0
	}
	return b.calls.Failures()
}

// callUser calls a function of a user's.
func (b *Broker) callUser(name string, f func()) {
	if b.opts.Manual {
		f()
		return
	}
	b.calls.Do(name, f)
}

// each calls step for 0 to n-1. users says that steps call users' functions.
func (b *Broker) each(n int, users bool, step func(i int)) {
	if users && !b.opts.Manual {
		callback.Each(n, step)
		return
	}
	for i := range n {
		step(i)
	}
}

// release lets a turn's outputs go: hand-outs before answers, so that an answered receive finds
// what it got.
func (b *Broker) release(f *flight) {
	outs, ended := len(f.outs), len(f.ended)
	b.each(outs+ended+len(f.ops), b.hasUsers(f), func(i int) {
		switch {
		case i < outs:
			if s := b.subs[f.outs[i].handouts[0].Consumer]; s != nil {
				s.push(f.outs[i])
			}
		case i < outs+ended:
			e := f.ended[i-outs]
			if s := b.subs[e.Consumer]; s != nil {
				delete(b.subs, e.Consumer)
				s.end(e.Err)
			}
		default:
			f.ops[i-outs-ended].release(nil)
		}
	})
}

// hasUsers tells whether releasing a turn calls users' functions.
func (b *Broker) hasUsers(f *flight) bool {
	for _, o := range f.ops {
		if o.user {
			return true
		}
	}
	for _, p := range f.outs {
		if s := b.subs[p.handouts[0].Consumer]; s != nil && s.opts.Notify != nil {
			return true
		}
	}
	for _, e := range f.ended {
		if s := b.subs[e.Consumer]; s != nil && s.opts.Notify != nil {
			return true
		}
	}
	return false
}

// put leaves a command in the mailbox.
func (b *Broker) put(ctx context.Context, o *op, wait bool) error {
	switch {
	case b == nil:
		return surgetank.Errorf(surgetank.CodeClosed, "the broker was not opened; make one with embedded.Open")
	case ctx == nil:
		return noContext()
	}
	return b.mailbox.put(ctx, o, wait)
}

func noContext() error {
	return surgetank.FieldErrorf("ctx", "the context is nil; pass one, such as context.Background()")
}

func noDone() error {
	return surgetank.FieldErrorf("done", "the function done is nil; pass one, or call Publish, which waits")
}
