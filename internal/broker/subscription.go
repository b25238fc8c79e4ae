package broker

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/door"
	"github.com/surgetank/surgetank/internal/queue"
)

// subscription is the consumer's side of a subscription. The loop adds hand-outs without bodies.
// The consumer's goroutine removes them and reads the bodies.
type subscription struct {
	b    *Broker
	name string // name of the queue
	opts door.SubscribeOptions
	id   uint64 // the machine's id of the consumer
	at   atomic.Pointer[standing]

	// The loop uses these fields, for OnLevel.
	level    door.Level // the Level that the consumer was told last
	toldOnce bool

	mu      sync.Mutex
	waiting []queue.Handout
	head    int
	err     error // why the subscription ended
	ready   chan struct{}
	reader  reader
	gaps    map[string]groupGap // keyed by group; reading guards the map
	reading sync.Mutex          // only one receiver at a time reads bodies, to keep the order
}

// Subscribe attaches a consumer. See surgetank.Broker.
func (b *Broker) Subscribe(ctx context.Context, name string, opts surgetank.SubscribeOptions) (surgetank.Subscription, error) {
	return b.Attach(ctx, name, door.SubscribeOptions{SubscribeOptions: opts})
}

// Attach attaches a consumer of a door or a sink. See door.Broker.
func (b *Broker) Attach(ctx context.Context, name string, opts door.SubscribeOptions) (door.Subscription, error) {
	s, err := b.attach(ctx, &queue.Attach{Queue: name, Opts: opts})
	if err != nil {
		return nil, err
	}
	return s, nil
}

func (b *Broker) attach(ctx context.Context, c *queue.Attach) (*subscription, error) {
	if l := c.Opts.Lease; l < 0 && l != surgetank.LeaseForever {
		return nil, surgetank.FieldErrorf("lease", "the lease is negative (%v); give a duration, 0 for the queue's own, or LeaseForever", l)
	}
	if b == nil || ctx == nil {
		return nil, b.put(ctx, nil, false)
	}
	if o := c.Opts.Opening; o != 0 && o != b.opening {
		return nil, surgetank.Errorf(surgetank.CodeUnavailable, "the broker has been opened again since the subscription's opening; begin again")
	}
	s := b.newSubscription(c)
	done := make(chan error, 1)
	if err := b.put(ctx, &op{cmd: c, release: func(err error) { done <- err }}, false); err != nil {
		return nil, err
	}
	// Wait even if ctx ends, because a forgotten consumer would keep messages leased. The wait
	// lasts at most one sync.
	if err := b.answer(done); err != nil {
		return nil, err
	}
	if c.Err != nil {
		return nil, c.Err
	}
	return s, nil
}

// answer waits for an answer that always comes.
func (b *Broker) answer(done <-chan error) error {
	await(b.core, done)
	return <-done
}

// newSubscription prepares a subscription for an Attach.
func (b *Broker) newSubscription(c *queue.Attach) *subscription {
	s := &subscription{b: b, name: c.Queue, opts: c.Opts, ready: c.Opts.Ready, reader: newReader(b)}
	if s.ready == nil {
		s.ready = make(chan struct{}, 1)
	}
	c.Owner = s
	return s
}

// push adds hand-outs. The loop calls it.
func (s *subscription) push(p pendingRun) {
	s.mu.Lock()
	if s.head > 0 && s.head == len(s.waiting) {
		s.waiting, s.head = s.waiting[:0], 0
	}
	s.waiting = append(s.waiting, p.handouts...)
	s.mu.Unlock()
	s.at.Store(&standing{p.floor, p.entry})
	s.nudge()
}

// nudge wakes the receivers. The loop calls it.
func (s *subscription) nudge() {
	s.token()
	if s.opts.Notify != nil {
		s.b.users.Do(notify, s.opts.Notify)
	}
}

// remind is nudge for a consumer's goroutine, which a failing Notify function must not end.
func (s *subscription) remind() {
	s.token()
	if s.opts.Notify != nil {
		s.b.users.Apart(notify, s.opts.Notify)
	}
}

const notify = "SubscribeOptions.Notify"

func (s *subscription) token() {
	select {
	case s.ready <- struct{}{}:
	default:
	}
}

// end ends the subscription. The loop calls it. err is nil for a receive that is complete.
func (s *subscription) end(err error) {
	s.ended(err)
	s.nudge()
}

// ended records why the subscription ended.
func (s *subscription) ended(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		if err == nil {
			err = errCancelled()
		}
		s.err = err
	}
}

func errCancelled() error {
	return surgetank.Errorf(surgetank.CodeClosed, "the subscription was ended")
}

// Ready returns a channel that contains a token when messages wait or the subscription has ended.
func (s *subscription) Ready() <-chan struct{} { return s.ready }

// standing contains the queue's floor and the newest entry at the time when the newest hand-out was
// decided.
type standing struct{ floor, entry uint64 }

// Floor returns a number below which every message of the queue is settled for good, and the entry
// up to which the log proves it.
func (s *subscription) Floor() (seq, entry uint64) {
	if p := s.at.Load(); p != nil {
		return p.floor, p.entry
	}
	return 0, 0
}

// AddCredit adds credit.
func (s *subscription) AddCredit(n int) {
	_ = s.b.put(context.Background(), &op{cmd: &queue.Credit{Consumer: s.id, N: n}, quiet: true, release: func(error) {}}, false) // a closed broker hands out nothing
}

// SetPoolLimit sets the most messages that all subscriptions of the pool may have leased together.
func (s *subscription) SetPoolLimit(n int) {
	_ = s.b.put(context.Background(), &op{cmd: &queue.PoolLimit{Pool: s.opts.Pool, Limit: n}, quiet: true, release: func(error) {}}, false)
}

// take removes and returns up to limit hand-outs. It stops when their bodies have maxBytes or more.
func (s *subscription) take(limit, maxBytes int) ([]queue.Handout, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, bytes := 0, 0
	for s.head+n < len(s.waiting) && n < limit && (n == 0 || bytes < maxBytes) {
		bytes += int(s.waiting[s.head+n].Size)
		n++
	}
	if n == 0 {
		return nil, s.err
	}
	outs := s.waiting[s.head : s.head+n : s.head+n]
	s.head += n
	if s.head == len(s.waiting) {
		s.waiting, s.head = nil, 0 // outs keeps the memory; the next push allocates new memory
	} else {
		s.remind() // wakes another receiver, because hand-outs still wait
	}
	return outs, nil
}

// TryReceive appends the messages that wait. See surgetank.Subscription.
func (s *subscription) TryReceive(buf []surgetank.Delivery, limit, maxBytes int) ([]surgetank.Delivery, error) {
	s.reading.Lock()
	defer s.reading.Unlock()
	defer s.reader.rest(s)
	for {
		outs, err := s.take(limit, maxBytes)
		if err != nil || len(outs) == 0 {
			return buf, err
		}
		now := s.b.Now().UnixNano()
		have := len(buf)
		for i := range outs {
			o := &outs[i]
			if s.lapsed(o, now) {
				continue
			}
			var d surgetank.Delivery
			ok, err := s.reader.delivery(o, &d)
			if err != nil {
				if at, ok := s.b.unreadable(o, err); ok {
					s.missing(o, at)
					continue
				}
				s.putBack(outs[i:])
				if len(buf) > have {
					return buf, nil
				}
				return buf, err
			}
			if ok {
				buf = append(buf, d)
			}
		}
		if len(buf) > have {
			return buf, nil
		}
	}
}

// holds reports whether hand-outs wait in the subscription.
func (s *subscription) holds() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.head < len(s.waiting)
}

// lapsed reports whether a hand-out must be skipped. One reason is that its lease ended while it
// waited in the subscription, so another consumer can have the message. The other is that an
// earlier message of its run was skipped. In that case lapsed returns the message to the queue, to
// keep the group in order.
func (s *subscription) lapsed(o *queue.Handout, now int64) bool {
	over := o.Deadline != 0 && o.Deadline <= now
	if s.opts.GroupRun <= 1 || o.Group == "" {
		return over
	}
	gap, missing := s.gaps[o.Group]
	switch {
	case over:
		s.missing(o, o.Deadline)
		return true
	case !missing:
		return false
	case o.At >= gap.until: // decided after the machine knew of the gap, so the order is right again
		delete(s.gaps, o.Group)
		return false
	case o.Seq < gap.seq:
		return false
	}
	back := []surgetank.Settlement{{Receipt: s.b.receipt(o), Op: surgetank.Nack, Uncounted: true}}
	_ = s.b.SettleAsync(context.Background(), back, nil) // a closed broker has no leases
	return true
}

// missing records that the subscription skipped a message of a run. Hand-outs of its group that
// were decided before the time until do not take the skip into account.
func (s *subscription) missing(o *queue.Handout, until int64) {
	if s.opts.GroupRun <= 1 || o.Group == "" {
		return
	}
	if s.gaps == nil {
		s.gaps = map[string]groupGap{}
	}
	if gap, ok := s.gaps[o.Group]; !ok || o.Seq < gap.seq || o.At >= gap.until {
		s.gaps[o.Group] = groupGap{o.Seq, until}
	}
}

// groupGap is a message of a run that was skipped, because its lease ended in the subscription or
// it could not be read. Later messages of the group that were handed out before the time until must
// not be handled before it.
type groupGap struct {
	seq   uint64
	until int64
}

// putBack puts back hand-outs whose bodies could not be read, so that the end of the subscription
// returns the messages.
func (s *subscription) putBack(outs []queue.Handout) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting = append(append([]queue.Handout(nil), outs...), s.waiting[s.head:]...)
	s.head = 0
}

// Receive waits for messages. See surgetank.Subscription.
func (s *subscription) Receive(ctx context.Context, buf []surgetank.Delivery, limit, maxBytes int) ([]surgetank.Delivery, error) {
	if ctx == nil {
		return buf, noContext()
	}
	have := len(buf)
	for {
		buf, err := s.TryReceive(buf, limit, maxBytes)
		if err != nil || len(buf) > have {
			if err != nil {
				s.remind() // wakes another receiver
			}
			return buf, err
		}
		select {
		case <-s.ready:
		case <-ctx.Done():
			return buf, ctx.Err()
		}
	}
}

// Cancel ends the subscription. Received messages stay leased.
func (s *subscription) Cancel() error { return s.leave(false) }

// Close ends the subscription. Received messages are returned, and their attempts count.
func (s *subscription) Close() error { return s.leave(true) }

// leave stops the hand-outs and waits for pending ones. Then it returns the messages that were not
// received to the queue.
func (s *subscription) leave(all bool) error {
	done := make(chan error, 1)
	put := func(cmd queue.Command) error {
		if err := s.b.put(context.Background(), &op{cmd: cmd, release: func(err error) { done <- err }}, false); err != nil {
			return err
		}
		return s.b.answer(done)
	}
	err := put(&queue.Stop{Consumer: s.id})
	s.reading.Lock()
	back := s.drain()
	s.reading.Unlock()
	if err == nil {
		err = put(&queue.Detach{Consumer: s.id, Return: back, All: all})
	}
	if surgetank.CodeOf(err) == surgetank.CodeClosed || s.b.Err() != nil {
		return nil // no return is needed: leases end with the broker
	}
	return err
}

// drain ends the subscription. It returns the receipts of messages that were not received.
func (s *subscription) drain() []surgetank.Receipt {
	s.ended(errCancelled())
	s.remind()
	s.mu.Lock()
	defer s.mu.Unlock()
	var back []surgetank.Receipt
	for _, o := range s.waiting[s.head:] {
		if o.Lease != 0 {
			back = append(back, s.b.receipt(&o))
		}
	}
	s.waiting, s.head = nil, 0
	return back
}

func (b *core) receipt(o *queue.Handout) surgetank.Receipt {
	return surgetank.Receipt{ID: surgetank.MessageID{Queue: o.Queue.ID(), Seq: o.Seq}, Epoch: b.epoch, Incarnation: b.opening, Lease: o.Lease}
}

// Receive leases messages once. See surgetank.Broker.
func (b *Broker) Receive(ctx context.Context, name string, opts surgetank.ReceiveOptions) ([]surgetank.Delivery, error) {
	limit := max(1, opts.Max)
	s, err := b.attach(ctx, &queue.Attach{Queue: name, Once: opts.Wait > 0, Now: opts.Wait <= 0,
		Opts: door.SubscribeOptions{SubscribeOptions: surgetank.SubscribeOptions{Credit: limit, ManualCredit: true, Lease: opts.Lease, NoAck: opts.NoAck, Name: opts.Name}}})
	if err != nil {
		return nil, err
	}
	var timeout <-chan time.Time // without a wait, the machine ends the subscription after one attempt to hand out
	if opts.Wait > 0 {
		timer := b.clock.NewTimer(opts.Wait)
		defer timer.Stop()
		timeout = timer.C()
	}
	over, err := s.over(ctx, timeout)
	if err != nil {
		return nil, errors.Join(err, s.Cancel())
	}
	if !over {
		// A message can be handed out at this moment. So first stop the hand-outs, then look for
		// messages.
		done := make(chan error, 1)
		if err := b.put(context.Background(), &op{cmd: &queue.Stop{Consumer: s.id}, release: func(err error) { done <- err }}, false); err == nil {
			_ = b.answer(done) // an error is that of a closed broker, which has no consumers
		}
		_ = b.put(context.Background(), &op{cmd: &queue.Detach{Consumer: s.id}, quiet: true, release: func(error) {}}, false) // a closed broker has no consumers
	}
	maxBytes := opts.MaxBytes
	if maxBytes <= 0 || opts.NoAck {
		maxBytes = 64 << 20
	}
	var out []surgetank.Delivery
	for bytes := 0; len(out) < limit && (opts.NoAck || bytes < maxBytes); {
		had := len(out)
		out, err = s.TryReceive(out, limit-had, max(1, maxBytes-bytes))
		for i := had; i < len(out); i++ {
			bytes += len(out[i].Body)
		}
		if surgetank.CodeOf(err) == surgetank.CodeClosed && b.alive() {
			err = nil // the receive is complete
		}
		if err != nil || len(out) == had {
			break
		}
	}
	if err != nil && len(out) > 0 {
		err = nil // messages that were not received are returned when their leases end
	}
	if s.holds() {
		_ = s.Cancel() // returns messages that were not received; if that fails, their leases end by themselves
	}
	return out, err
}

// over waits until the subscription has ended, by itself or with the broker. After that, no further
// hand-outs arrive. It returns false if the timeout fired first.
func (s *subscription) over(ctx context.Context, timeout <-chan time.Time) (bool, error) {
	for {
		s.mu.Lock()
		ended := s.err != nil
		s.mu.Unlock()
		if ended {
			return true, nil
		}
		select {
		case <-s.ready:
		case <-timeout:
			return false, nil
		case <-ctx.Done():
			return false, ctx.Err()
		}
	}
}
