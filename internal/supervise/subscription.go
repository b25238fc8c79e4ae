package supervise

import (
	"context"
	"sync"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/door"
)

// subscription is a subscription that is attached to one opening after the other. Its credit, its
// pool and its flags stay. The messages that an opening has delivered and that were not settled are
// delivered again by the next one.
type subscription struct {
	s     *Supervisor
	queue string
	opts  door.SubscribeOptions // with the channel that all openings share

	mu       sync.Mutex
	inner    door.Subscription // nil: no opening has it
	of       *opening          // the opening of inner
	err      error             // why the subscription has ended
	granted  int               // credit that was ever granted
	received int               // messages that were ever received
	left     bool              // Cancel or Close was called
	floor    uint64            // the newest values of Floor
	entry    uint64
}

// Subscribe attaches a consumer. See surgetank.Consumer.
func (s *Supervisor) Subscribe(ctx context.Context, queue string, opts surgetank.SubscribeOptions) (surgetank.Subscription, error) {
	return s.Attach(ctx, queue, door.SubscribeOptions{SubscribeOptions: opts})
}

// Attach attaches a consumer. See door.Broker.
func (s *Supervisor) Attach(ctx context.Context, queue string, opts door.SubscribeOptions) (door.Subscription, error) {
	if opts.Ready == nil {
		opts.Ready = make(chan struct{}, 1)
	}
	sub := &subscription{s: s, queue: queue, opts: opts, granted: opts.Credit}
	for {
		o, err := s.acquire(ctx, nil)
		if err != nil {
			return nil, err
		}
		in, err := o.Attach(ctx, queue, opts)
		if err != nil {
			if o.failed() && ctx != nil && ctx.Err() == nil {
				continue
			}
			return nil, err
		}
		s.mu.Lock()
		serves := s.cur.Load() == o
		if serves {
			s.made++
			s.subs[sub] = s.made
			if n := opts.Pool; n != 0 {
				if s.pools[n] == nil {
					s.pools[n] = &pool{}
				}
				s.pools[n].users++
			}
			sub.inner, sub.of = in, o
		}
		s.mu.Unlock()
		if serves {
			return sub, nil
		}
		_ = in.Close() // the opening has failed or was closed
	}
}

// detach is called when the subscription's opening has failed.
func (sub *subscription) detach() {
	sub.mu.Lock()
	sub.inner, sub.of = nil, nil
	sub.mu.Unlock()
	if sub.opts.Opening != 0 {
		sub.finish(surgetank.Errorf(surgetank.CodeUnavailable, "the subscription ended with the opening of the broker that it belongs to; begin again"))
	}
}

// finish ends the subscription.
func (sub *subscription) finish(err error) {
	sub.mu.Lock()
	if sub.err == nil {
		sub.err = err
	}
	sub.mu.Unlock()
	sub.forget()
	sub.remind()
}

// forget removes the subscription from those that are attached again.
func (sub *subscription) forget() {
	s := sub.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.subs[sub] == 0 {
		return
	}
	delete(s.subs, sub)
	if p := s.pools[sub.opts.Pool]; p != nil {
		if p.users--; p.users == 0 {
			delete(s.pools, sub.opts.Pool)
		}
	}
}

// remind wakes the receivers.
func (sub *subscription) remind() {
	select {
	case sub.opts.Ready <- struct{}{}:
	default:
	}
	if f := sub.opts.Notify; f != nil {
		sub.s.calls.Apart("SubscribeOptions.Notify", f)
	}
}

// Ready returns a channel that contains a token when messages wait or the subscription has ended.
func (sub *subscription) Ready() <-chan struct{} { return sub.opts.Ready }

// TryReceive appends the messages that wait. See surgetank.Subscription.
func (sub *subscription) TryReceive(buf []surgetank.Delivery, limit, maxBytes int) ([]surgetank.Delivery, error) {
	sub.mu.Lock()
	in, o, err := sub.inner, sub.of, sub.err
	sub.mu.Unlock()
	// An opening that does not serve yet has leased messages, but their settlements would be
	// refused.
	if in == nil || o.failed() || err == nil && sub.s.cur.Load() != o {
		if err != nil {
			sub.token()
		}
		return buf, err
	}
	have := len(buf)
	buf, err = in.TryReceive(buf, limit, maxBytes)
	if err == nil && len(buf) == have {
		return buf, nil
	}
	floor, entry := in.Floor()
	sub.mu.Lock()
	defer sub.mu.Unlock()
	if o.failed() && (err != nil || !sub.opts.NoAck) {
		// The leases have ended. The next opening delivers the messages again, and says so with a
		// token. Messages without an ack are not delivered again, so they are kept.
		clear(buf[have:])
		return buf[:have], sub.err
	}
	if err != nil {
		return buf, err
	}
	sub.received += len(buf) - have
	sub.floor, sub.entry = floor, entry
	return buf, nil
}

// token lets another receiver see the end of the subscription.
func (sub *subscription) token() {
	select {
	case sub.opts.Ready <- struct{}{}:
	default:
	}
}

// Receive waits for messages. See surgetank.Subscription.
func (sub *subscription) Receive(ctx context.Context, buf []surgetank.Delivery, limit, maxBytes int) ([]surgetank.Delivery, error) {
	if ctx == nil {
		return buf, surgetank.FieldErrorf("ctx", "the context is nil; pass one, such as context.Background()")
	}
	have := len(buf)
	for {
		var err error
		if buf, err = sub.TryReceive(buf, limit, maxBytes); err != nil || len(buf) > have {
			if err != nil {
				sub.token() // wakes another receiver
			}
			return buf, err
		}
		select {
		case <-sub.opts.Ready:
		case <-ctx.Done():
			return buf, ctx.Err()
		}
	}
}

// Floor returns the newest floor. See door.Subscription.
func (sub *subscription) Floor() (seq, entry uint64) {
	sub.mu.Lock()
	defer sub.mu.Unlock()
	if sub.inner != nil {
		if seq, entry = sub.inner.Floor(); seq > 0 {
			return seq, entry
		}
	}
	return sub.floor, sub.entry
}

// used returns the part of the granted credit that cannot be removed any more. The caller has
// locked mu.
func (sub *subscription) used() int {
	if sub.opts.ManualCredit {
		return sub.received
	}
	return 0
}

// AddCredit adds credit. While no opening serves, the next one gets it.
func (sub *subscription) AddCredit(n int) {
	sub.mu.Lock()
	defer sub.mu.Unlock()
	sub.granted = max(sub.granted+n, min(sub.used(), sub.granted))
	if sub.inner != nil {
		sub.inner.AddCredit(n)
	}
}

// SetPoolLimit sets the limit of the subscription's pool, for this opening and the next ones.
func (sub *subscription) SetPoolLimit(n int) {
	s := sub.s
	s.mu.Lock()
	if p := s.pools[sub.opts.Pool]; p != nil {
		p.limit = n
	}
	s.mu.Unlock()
	sub.mu.Lock()
	defer sub.mu.Unlock()
	if sub.inner != nil {
		sub.inner.SetPoolLimit(n)
	}
}

// Cancel stops deliveries. See surgetank.Subscription.
func (sub *subscription) Cancel() error { return sub.leave(door.Subscription.Cancel) }

// Close ends the subscription. See surgetank.Subscription.
func (sub *subscription) Close() error { return sub.leave(door.Subscription.Close) }

// leave ends the subscription. If its opening has failed, there is nothing else to do: the leases
// have ended.
func (sub *subscription) leave(how func(door.Subscription) error) error {
	sub.mu.Lock()
	in, o := sub.inner, sub.of
	sub.left = true
	if sub.err == nil { // inner has an error of its own
		sub.err = surgetank.Errorf(surgetank.CodeClosed, "the subscription was ended")
	}
	sub.mu.Unlock()
	sub.forget()
	if in == nil {
		sub.remind()
		return nil
	}
	if err := how(in); err != nil && !o.failed() {
		return err
	}
	return nil
}
