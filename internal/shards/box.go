package shards

import (
	"sync"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/door"
)

// box is one outbox: the state machine of its transfers. step does one step:
//
//	detached ── attach ──▶ empty ── receive ──▶ unsent ── arrive ──▶ unacked ── ack ──▶ unsent or empty
//	    ▲                                                               │
//	    └──────────────────────────── an error ─────────────────────────┘
//
// After an error the box attaches to the outbox again, and so gets every message again that is
// still there. A box without messages rests until wake.
type box struct {
	boxKey
	m  *mover
	id string // names the outbox in other shards

	mu      sync.Mutex
	working bool   // a task works on the outbox
	again   bool   // there was news while it worked
	below   uint64 // lower numbers were on their way to a queue that was deleted: they are dropped

	// Only step uses the fields below.
	sub     door.Subscription
	floor   uint64               // the outbox's floor when unsent was received
	unsent  []surgetank.Delivery // received, and not known to be in their queue
	unacked []surgetank.Delivery // in their queue, or dropped, and still in the outbox
	wait    backOff
}

// backOff is the pause before a failed step is repeated. It doubles each time.
type backOff time.Duration

func (b *backOff) next() time.Duration {
	*b = backOff(min(max(2*time.Duration(*b), moveFirst), moveLast))
	return time.Duration(*b)
}

func (x *box) name() string { return door.Outbox(x.to, x.redriven) }

// wake starts the work on the outbox if no task works on it. It does not wait.
func (x *box) wake() {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.working {
		x.again = true
		return
	}
	if x.m.b.ctx.Err() != nil {
		return
	}
	x.working = true
	x.m.b.tasks.start(x.step)
}

// rest ends the work, unless there is news.
func (x *box) rest() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.again {
		x.again = false
		return false
	}
	x.working = false
	return true
}

// step does one step of the work. It waits for the answers of shards, but not for time to pass. It
// returns the pause before the next step. more is false if the box rests or the router is closed.
func (x *box) step() (pause time.Duration, more bool) {
	b := x.m.b
	if b.ctx.Err() != nil {
		x.detach()
		return 0, false
	}
	var err error
	switch {
	case x.sub == nil:
		err = x.attach()
	case len(x.unacked) > 0:
		if err = x.ack(); err == nil {
			x.unacked = nil
		}
		x.wait = 0
	case len(x.unsent) > 0:
		var stored int
		stored, err = x.arrive()
		x.unacked, x.unsent = x.unsent[:stored], x.unsent[stored:]
		switch surgetank.CodeOf(err) {
		case surgetank.CodeFull, surgetank.CodeBusy, surgetank.CodeUnavailable, surgetank.CodeUncertain:
			if stored == 0 {
				return x.wait.next(), true // the messages stay in this order
			}
		}
		if stored > 0 {
			err = nil // the next call of arrive returns it again
		}
	default:
		x.unsent, err = x.sub.TryReceive(nil, moveCredit, moveBytes)
		x.floor, _ = x.sub.Floor()
		if err == nil && len(x.unsent) == 0 {
			return 0, !x.rest()
		}
	}
	if err == nil {
		return 0, true
	}
	x.detach()
	if b.ctx.Err() == nil {
		b.log.Warn("moving messages to another shard failed and is repeated", "shard", x.shard+1, "queue", shown(x.to), "error", err)
	}
	return x.wait.next(), true
}

// attach attaches the mover to the outbox.
func (x *box) attach() error {
	p, err := x.m.b.part(x.shard)
	if err != nil {
		return err
	}
	sub, err := p.Attach(x.m.b.ctx, x.name(), door.SubscribeOptions{Notify: x.wake,
		SubscribeOptions: surgetank.SubscribeOptions{Credit: moveCredit, Lease: surgetank.LeaseForever, Name: "transfer to another shard"}})
	if err == nil {
		x.sub = sub
	}
	return err
}

// detach returns all messages to the outbox.
func (x *box) detach() {
	sub := x.sub
	x.sub, x.unsent, x.unacked = nil, nil, nil
	if sub != nil {
		_ = sub.Close() // a closed shard has no leases
	}
}

// arrive sends the received messages to the shard of their queue. It returns how many need no
// sending any more, from the first on. If there is no such queue, it is created as a dead-letter
// queue, as a shard does for its own queues.
func (x *box) arrive() (stored int, err error) {
	ds := x.unsent
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
	a := door.Arrivals{Queue: x.to, Outbox: x.id, Redriven: x.redriven, Floor: x.floor, Msgs: make([]door.Arrival, len(ds))}
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

// ack acks moved messages in the outbox.
func (x *box) ack() error {
	s := make([]surgetank.Settlement, len(x.unacked))
	for i := range x.unacked {
		s[i] = surgetank.Settlement{Receipt: x.unacked[i].Receipt, Op: surgetank.Ack}
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
