package broker

import (
	"context"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/callback"
)

// A user's function (done of PublishAsync and SettleAsync, SubscribeOptions.Notify) is called while
// a turn's outputs are sent. A function that panics or ends its goroutine must not end the loop. A
// panic is recovered at the call. Outputs that call users' functions are sent on a separate
// goroutine, and the loop waits for that goroutine. If a function ends the goroutine, a new
// goroutine continues. With Manual, the functions run on the caller's goroutine, and their failures
// are not handled.

// CallbackFailures returns how many calls of users' functions panicked or ended their goroutine.
func (b *Broker) CallbackFailures() int64 {
	if b == nil {
		return 0
	}
	return b.calls.Failures()
}

// callUser calls a user's function.
func (b *Broker) callUser(name string, f func()) {
	if b.opts.Manual {
		f()
		return
	}
	b.calls.Do(name, f)
}

// each calls step for 0 to n-1. users means that the steps call users' functions.
func (b *Broker) each(n int, users bool, step func(i int)) {
	if users && !b.opts.Manual {
		callback.Each(n, step)
		return
	}
	for i := range n {
		step(i)
	}
}

// release sends a turn's outputs. It sends hand-outs before answers, so that an answered receive
// finds its messages.
func (b *Broker) release(f *flight) {
	defer b.tellPools(f.pools)
	outs, ended := len(f.outs), len(f.ended)
	if outs > 0 {
		b.released(f.turn)
	}
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

// released tells the machine that hand-outs leave.
func (b *Broker) released(turn uint64) {
	now := b.now()
	b.machine.Released(turn, now)
	if b.opts.Watch != nil {
		b.left = append(b.left, Left{Turn: turn, At: now})
	}
}

// hasUsers reports whether sending a turn's outputs calls users' functions.
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

// put puts a command into the mailbox.
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
