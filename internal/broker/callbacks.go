package broker

import (
	"context"

	"github.com/surgetank/surgetank"
)

// A user's function (done of PublishAsync and SettleAsync, SubscribeOptions.Notify and OnLevel) is
// called while
// a turn's outputs are sent: by core.users, on the goroutine of executor.each.

// each calls step for 0 to n-1. users means that the steps call users' functions.
func (b *core) each(n int, users bool, step func(i int)) {
	if users {
		b.exec.each(n, step)
		return
	}
	for i := range n {
		step(i)
	}
}

// release sends a turn's outputs. It sends hand-outs before answers, so that an answered receive
// finds its messages.
func (b *core) release(f *flight) {
	defer b.tellPools(f.pools)
	b.passMetas(f)
	outs, ended, told := len(f.outs), len(f.ended), len(f.told)
	if outs > 0 {
		b.released(f.turn)
	}
	b.each(told+outs+ended+len(f.ops), b.hasUsers(f), func(i int) {
		switch {
		case i < told:
			b.tell(f.told[i])
		case i < told+outs:
			p := f.outs[i-told]
			if s := b.subs[p.handouts[0].Consumer]; s != nil {
				s.push(p)
			}
		case i < told+outs+ended:
			e := f.ended[i-told-outs]
			if s := b.subs[e.Consumer]; s != nil {
				delete(b.subs, e.Consumer)
				delete(b.levelSubs, e.Consumer)
				s.end(e.Err)
			}
		default:
			f.ops[i-told-outs-ended].release(nil)
		}
	})
}

// released tells the machine that hand-outs leave.
func (b *core) released(turn uint64) {
	now := b.now()
	b.machine.Released(turn, now)
	if b.watch != nil {
		b.left = append(b.left, Left{Turn: turn, At: now})
	}
}

// hasUsers reports whether sending a turn's outputs calls users' functions.
func (b *core) hasUsers(f *flight) bool {
	if len(f.told) > 0 {
		return true
	}
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
