package shards

import (
	"context"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/door"
)

// mover moves messages from the outboxes of the shards to their queues in other shards:
//
//	outbox of shard 1          mover                      queue of shard 2
//	─────────────────          ─────                      ────────────────
//	leased        ────────▶    Arrive  ────────▶          arrived, with the outbox's position
//	acked         ◀────────    Settle  ◀────────          durable
//
// The first step, from the message's queue into the outbox, is one record of the first shard. If
// the process ends between Arrive and Settle, the message is still in the outbox and is sent again,
// and the second shard knows its number. So a message is never lost and never stored twice.
//
// An outbox is worked on by one goroutine, which exists only while messages wait. So messages keep
// their order, and a full or unavailable queue delays no other queue.
type mover struct {
	b     *Broker
	mu    sync.Mutex
	boxes map[boxKey]*box
}

type boxKey struct {
	shard    int // of the outbox
	to       string
	redriven bool
}

// box is one outbox.
type box struct {
	boxKey
	m  *mover
	id string // names the outbox in other shards

	mu      sync.Mutex
	sub     door.Subscription
	running bool   // a goroutine works on the outbox
	again   bool   // there was news while it worked
	below   uint64 // lower numbers were on their way to a queue that was deleted: they are dropped
}

// Limits of the mover.
const (
	moveCredit = 256     // messages of an outbox that are in the mover's memory
	moveBytes  = 4 << 20 // bytes of the messages of one Arrive
	moveFirst  = 20 * time.Millisecond
	moveLast   = 5 * time.Second // the longest wait before a failed step is repeated
)

func (m *mover) init(b *Broker) { m.b, m.boxes = b, map[boxKey]*box{} }

// found enters an outbox that a shard has.
func (m *mover) found(shard int, info *surgetank.QueueInfo) {
	if to, redriven, ok := door.OutboxOf(info.Name); ok {
		m.enter(boxKey{shard, to, redriven}, info.ID)
	}
}

func (m *mover) enter(k boxKey, id uint64) *box {
	m.mu.Lock()
	defer m.mu.Unlock()
	x := m.boxes[k]
	if x == nil {
		x = &box{boxKey: k, m: m, id: strconv.FormatUint(id, 10)}
		m.boxes[k] = x
	}
	return x
}

// start attaches the mover to all outboxes, and creates the outboxes that the shards' queues need.
func (m *mover) start(ctx context.Context) error {
	for i := range m.b.parts {
		for _, to := range m.b.dir.outboxes(i) {
			if err := m.ensure(ctx, i, to, false); err != nil {
				return err
			}
		}
	}
	m.mu.Lock()
	all := make([]*box, 0, len(m.boxes))
	for _, x := range m.boxes {
		all = append(all, x)
	}
	m.mu.Unlock()
	for _, x := range all {
		x.wake()
	}
	return nil
}

// ensure creates an outbox if there is none, and watches it.
func (m *mover) ensure(ctx context.Context, shard int, to string, redriven bool) error {
	k := boxKey{shard, to, redriven}
	m.mu.Lock()
	_, has := m.boxes[k]
	m.mu.Unlock()
	if has {
		return nil
	}
	p, err := m.b.part(shard)
	if err != nil {
		return err
	}
	info, _, err := p.DeclareQueue(ctx, door.Outbox(to, redriven), surgetank.QueueConfig{}, surgetank.DeclareIfAbsent)
	if err != nil {
		return err
	}
	m.enter(k, info.ID).wake()
	return nil
}

// want is ensure on another goroutine, for callers that must not wait. It repeats a failed step.
func (m *mover) want(shard int, to string, redriven bool) {
	m.mu.Lock()
	_, has := m.boxes[boxKey{shard, to, redriven}]
	m.mu.Unlock()
	if has || m.b.ctx.Err() != nil {
		return
	}
	m.b.work.Go(func() {
		for wait := moveFirst; m.ensure(m.b.ctx, shard, to, redriven) != nil && m.b.pause(wait); wait = min(2*wait, moveLast) {
		}
	})
}

// deleted drops the messages that are on their way to a queue that was deleted.
func (m *mover) deleted(ctx context.Context, name string) {
	for i := range m.b.parts {
		for _, redriven := range [...]bool{false, true} {
			m.mu.Lock()
			x := m.boxes[boxKey{i, name, redriven}]
			m.mu.Unlock()
			if x == nil {
				continue
			}
			p, err := m.b.part(i)
			if err != nil {
				continue
			}
			if h, err := p.History(ctx, x.name()); err == nil {
				x.mu.Lock()
				x.below = h.Next
				x.mu.Unlock()
			}
		}
	}
}

// idsFor returns the ids of all outboxes for a queue.
func (m *mover) idsFor(name string) (ids []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for k, x := range m.boxes { // unordered: sorted below
		if k.to == name {
			ids = append(ids, x.id)
		}
	}
	slices.Sort(ids)
	return ids
}

func (x *box) name() string { return door.Outbox(x.to, x.redriven) }

// wake starts the work on the outbox if nobody works on it. It does not wait.
func (x *box) wake() {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.running {
		x.again = true
		return
	}
	if x.m.b.ctx.Err() != nil {
		return
	}
	x.running = true
	x.m.b.work.Go(x.run)
}

// rest ends the work, unless there is news.
func (x *box) rest() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.again {
		x.again = false
		return false
	}
	x.running = false
	return true
}

// run moves messages until the outbox is empty. After an error it attaches to the outbox again, and
// so gets every message again that is still there.
func (x *box) run() {
	b := x.m.b
	for wait := moveFirst; ; wait = min(2*wait, moveLast) {
		if sub, err := x.attached(); err == nil {
			var moved int
			if moved, err = x.drain(sub); err == nil {
				return
			}
			x.detach()
			if moved > 0 {
				wait = moveFirst
			}
			if b.ctx.Err() == nil {
				b.log.Warn("moving messages to another shard failed and is repeated", "shard", x.shard+1, "queue", shown(x.to), "error", err)
			}
		}
		if !b.pause(wait) {
			x.detach()
			return
		}
	}
}

// attached returns the subscription of the outbox.
func (x *box) attached() (door.Subscription, error) {
	x.mu.Lock()
	sub := x.sub
	x.mu.Unlock()
	if sub != nil {
		return sub, nil
	}
	p, err := x.m.b.part(x.shard)
	if err != nil {
		return nil, err
	}
	sub, err = p.Attach(x.m.b.ctx, x.name(), door.SubscribeOptions{Notify: x.wake,
		SubscribeOptions: surgetank.SubscribeOptions{Credit: moveCredit, Lease: surgetank.LeaseForever, Name: "transfer to another shard"}})
	if err == nil {
		x.mu.Lock()
		x.sub = sub
		x.mu.Unlock()
	}
	return sub, err
}

func (x *box) detach() {
	x.mu.Lock()
	sub := x.sub
	x.sub = nil
	x.mu.Unlock()
	if sub != nil {
		_ = sub.Close() // a closed shard has no leases
	}
}

// drain moves all messages that the subscription has.
func (x *box) drain(sub door.Subscription) (moved int, err error) {
	for {
		ds, err := sub.TryReceive(nil, moveCredit, moveBytes)
		if err != nil {
			return moved, err
		}
		if len(ds) == 0 {
			if x.rest() {
				return moved, nil
			}
			continue
		}
		floor, _ := sub.Floor()
		for len(ds) > 0 {
			n, err := x.move(ds, floor)
			if moved += n; err != nil {
				return moved, err
			}
			ds = ds[n:]
		}
	}
}

// move moves some messages, from the first on, and returns how many left the outbox. It waits while
// their queue accepts none.
func (x *box) move(ds []surgetank.Delivery, floor uint64) (n int, err error) {
	b := x.m.b
	for wait := moveFirst; ; wait = min(2*wait, moveLast) {
		stored, err := x.arrive(ds, floor)
		if stored > 0 {
			return stored, x.acked(ds[:stored])
		}
		switch surgetank.CodeOf(err) {
		case surgetank.CodeFull, surgetank.CodeBusy, surgetank.CodeUnavailable, surgetank.CodeUncertain:
		default:
			return 0, err
		}
		if !b.pause(wait) {
			return 0, b.ctx.Err()
		}
	}
}

// arrive sends messages to the shard of their queue. If there is no such queue, it is created as a
// dead-letter queue, as a shard does for its own queues.
func (x *box) arrive(ds []surgetank.Delivery, floor uint64) (stored int, err error) {
	x.mu.Lock()
	below := x.below
	x.mu.Unlock()
	dropped := 0
	for dropped < len(ds) && ds[dropped].ID.Seq < below {
		dropped++
	}
	if dropped > 0 {
		return dropped, nil // their queue was deleted, and they with it
	}
	b := x.m.b
	at, ok := b.dir.locate(x.to)
	if !ok {
		if _, _, err := b.DeclareQueue(b.ctx, x.to, surgetank.QueueConfig{DeadLetter: x.to, Retry: surgetank.RetryConfig{MaxAttempts: surgetank.Unlimited, Initial: surgetank.NoDelay, Jitter: surgetank.NoJitter}}, surgetank.DeclareIfAbsent); err != nil {
			return 0, err
		}
		at, _ = b.dir.locate(x.to)
	}
	p, err := b.part(at)
	if err != nil {
		return 0, err
	}
	a := door.Arrivals{Queue: x.to, Outbox: x.id, Redriven: x.redriven, Floor: floor, Msgs: make([]door.Arrival, len(ds))}
	for i := range ds {
		d := &ds[i]
		a.Msgs[i] = door.Arrival{Message: d.Message, Seq: d.ID.Seq, Incarnation: d.ID.Incarnation, Time: d.Time, Deaths: d.Deaths}
	}
	stored, err = p.Arrive(b.ctx, a)
	if surgetank.CodeOf(err) == surgetank.CodeNotFound && stored == 0 {
		b.dir.remove(x.to) // a transient queue that a restart deleted, or a change at this moment
		return 0, surgetank.Errorf(surgetank.CodeUnavailable, "the queue %q has just gone: %w", shown(x.to), err)
	}
	return stored, err
}

// acked acks moved messages.
func (x *box) acked(ds []surgetank.Delivery) error {
	s := make([]surgetank.Settlement, len(ds))
	for i := range ds {
		s[i] = surgetank.Settlement{Receipt: ds[i].Receipt, Op: surgetank.Ack}
	}
	p, err := x.m.b.part(x.shard)
	if err != nil {
		return err
	}
	results, err := p.Settle(x.m.b.ctx, s)
	for _, e := range results {
		if err == nil {
			err = e
		}
	}
	return err
}

// pause waits. It returns false if the router is closed.
func (b *Broker) pause(d time.Duration) bool {
	t := b.clock.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C():
		return true
	case <-b.ctx.Done():
		return false
	}
}
