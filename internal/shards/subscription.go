package shards

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"sync"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/door"
)

// subscription is a subscription that follows its queue to other shards.
type subscription struct {
	b     *Broker
	queue string
	opts  door.SubscribeOptions // with the channel that all shards share
	made  uint64                // order of the subscriptions

	mu       sync.Mutex
	inner    door.Subscription
	at       int // the shard of inner
	err      error
	left     bool
	granted  int // credit that was ever granted
	received int // messages that were ever received
	limit    int // of the pool; 0: none
	// kept is messages without an ack that the old shard had handed out.
	kept []surgetank.Delivery
}

// subscriptions is all subscriptions of the router.
type subscriptions struct {
	mu   sync.Mutex
	all  map[*subscription]struct{}
	made uint64
}

// of returns the subscriptions of a queue in the order in which they were made.
func (s *subscriptions) of(queue string) []*subscription {
	s.mu.Lock()
	list := slices.Collect(maps.Keys(s.all))
	s.mu.Unlock()
	list = slices.DeleteFunc(list, func(x *subscription) bool { return x.queue != queue })
	slices.SortFunc(list, func(a, b *subscription) int { return cmp.Compare(a.made, b.made) })
	return list
}

func (s *subscriptions) remove(x *subscription) {
	s.mu.Lock()
	delete(s.all, x)
	s.mu.Unlock()
}

// attach attaches a consumer to the shard of its queue.
func (b *Broker) attach(ctx context.Context, name string, opts door.SubscribeOptions) (door.Subscription, error) {
	if opts.Ready == nil {
		opts.Ready = make(chan struct{}, 1)
	}
	p, err := b.shard(ctx, name)
	if err != nil {
		return nil, err
	}
	at, _ := b.dir.locate(name)
	in, err := b.attachAt(ctx, at, p, name, opts)
	if err != nil {
		return nil, err
	}
	sub := &subscription{b: b, queue: name, opts: opts, inner: in, at: at, granted: opts.Credit}
	b.subs.mu.Lock()
	b.subs.made++
	sub.made = b.subs.made
	b.subs.all[sub] = struct{}{}
	b.subs.mu.Unlock()
	if now, ok := b.dir.locate(name); ok && now != at { // the queue moved at this moment, and the move has not seen sub
		sub.follow(now)
	}
	return sub, nil
}

func (b *Broker) attachAt(ctx context.Context, at int, p door.Shard, name string, opts door.SubscribeOptions) (door.Subscription, error) {
	if opts.Pool != 0 {
		return b.pools.attach(ctx, at, p, name, opts)
	}
	return p.Attach(ctx, name, opts)
}

// follow attaches the subscription to the new shard of its queue, with the credit that is not used.
// All leases in the old shard have ended.
func (sub *subscription) follow(to int) {
	b := sub.b
	sub.mu.Lock()
	old := sub.inner
	if sub.at == to || sub.left || sub.err != nil {
		sub.mu.Unlock()
		return
	}
	if sub.opts.Opening != 0 {
		sub.mu.Unlock()
		sub.finish(surgetank.Errorf(surgetank.CodeUnavailable, "the queue has moved to another shard, and the subscription belongs to an opening of the old one; begin again"))
		_ = old.Close() // it has no leases
		return
	}
	if sub.opts.NoAck {
		for {
			ds, err := old.TryReceive(nil, 1024, 64<<20)
			if sub.kept = append(sub.kept, ds...); err != nil || len(ds) == 0 {
				break
			}
		}
	}
	granted, limit := sub.granted, sub.limit
	opts := sub.opts
	if opts.Credit = granted; opts.ManualCredit {
		opts.Credit = max(0, granted-sub.received-len(sub.kept))
	}
	sub.mu.Unlock()
	credit := opts.Credit
	if opts.Pool != 0 {
		opts.Credit = 0 // the limit must apply before the credit
	}
	p, err := b.part(to)
	var in door.Subscription
	if err == nil {
		in, err = b.attachAt(b.ctx, to, p, sub.queue, opts)
	}
	if err != nil {
		b.log.Warn("a subscription ended, because it could not follow its queue to another shard", "queue", shown(sub.queue), "name", opts.Name, "error", err)
		sub.finish(err)
		_ = old.Close() // it has no leases
		return
	}
	if opts.Pool != 0 {
		if limit > 0 {
			in.SetPoolLimit(limit)
		}
		in.AddCredit(credit)
	}
	sub.mu.Lock()
	left := sub.left
	if !left {
		sub.inner, sub.at = in, to
		if more := sub.granted - granted; more != 0 {
			in.AddCredit(more)
		}
	}
	sub.mu.Unlock()
	if left {
		_ = in.Close() // the caller has ended the subscription
		return
	}
	_ = old.Close() // it has no leases
	sub.remind()
}

// finish ends the subscription.
func (sub *subscription) finish(err error) {
	sub.mu.Lock()
	if sub.err == nil {
		sub.err = err
	}
	sub.mu.Unlock()
	sub.b.subs.remove(sub)
	sub.remind()
}

// token wakes a receiver.
func (sub *subscription) token() {
	select {
	case sub.opts.Ready <- struct{}{}:
	default:
	}
}

// remind wakes the receivers, and tells the owner.
func (sub *subscription) remind() {
	sub.token()
	if f := sub.opts.Notify; f != nil {
		sub.b.calls.Apart("SubscribeOptions.Notify", f)
	}
}

// Ready returns a channel that contains a token when messages wait or the subscription has ended.
func (sub *subscription) Ready() <-chan struct{} { return sub.opts.Ready }

// TryReceive appends the messages that wait. See surgetank.Subscription.
func (sub *subscription) TryReceive(buf []surgetank.Delivery, limit, maxBytes int) ([]surgetank.Delivery, error) {
	sub.mu.Lock()
	in, err := sub.inner, sub.err
	if n := min(len(sub.kept), max(0, limit)); n > 0 && !sub.left {
		buf = append(buf, sub.kept[:n]...)
		sub.kept = sub.kept[n:]
		sub.received += n
		sub.mu.Unlock()
		sub.token() // more can wait
		return buf, nil
	}
	sub.mu.Unlock()
	if err != nil {
		sub.token()
		return buf, err
	}
	have := len(buf)
	buf, err = in.TryReceive(buf, limit, maxBytes)
	sub.mu.Lock()
	defer sub.mu.Unlock()
	if sub.inner != in && (err != nil || !sub.opts.NoAck) {
		// The queue has moved. Its messages are delivered again, and a token says so.
		clear(buf[have:])
		return buf[:have], sub.err
	}
	sub.received += len(buf) - have
	return buf, err
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
	return sub.inner.Floor()
}

// AddCredit adds credit, in this shard and the next ones.
func (sub *subscription) AddCredit(n int) {
	sub.mu.Lock()
	defer sub.mu.Unlock()
	used := 0
	if sub.opts.ManualCredit {
		used = sub.received
	}
	sub.granted = max(sub.granted+n, min(used, sub.granted))
	sub.inner.AddCredit(n)
}

// SetPoolLimit sets the limit of the subscription's pool.
func (sub *subscription) SetPoolLimit(n int) {
	sub.mu.Lock()
	defer sub.mu.Unlock()
	sub.limit = max(0, n)
	sub.inner.SetPoolLimit(n)
}

// Cancel stops deliveries. See surgetank.Subscription.
func (sub *subscription) Cancel() error { return sub.leave(door.Subscription.Cancel) }

// Close ends the subscription. See surgetank.Subscription.
func (sub *subscription) Close() error { return sub.leave(door.Subscription.Close) }

func (sub *subscription) leave(how func(door.Subscription) error) error {
	sub.mu.Lock()
	in, ended := sub.inner, sub.err
	sub.left = true
	sub.mu.Unlock()
	sub.b.subs.remove(sub)
	if ended != nil {
		return nil
	}
	return how(in)
}
