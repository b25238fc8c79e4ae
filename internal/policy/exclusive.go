package policy

import (
	"context"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/door"
	"github.com/surgetank/surgetank/internal/fullname"
	"github.com/surgetank/surgetank/internal/tally"
)

// claim says that a queue belongs to one owner alone.
type claim struct {
	id    uint64 // the queue's id; 0 while it is being created; another queue with the same name has another id
	owner any
}

type ownerKey struct{}

// WithOwner returns a context whose calls belong to an owner of exclusive queues, such as an AMQP
// connection. An owner is a pointer that no other caller has.
func WithOwner(ctx context.Context, owner any) context.Context {
	return context.WithValue(ctx, ownerKey{}, owner)
}

// DeclareExclusive creates a queue that only calls of ctx's owner may read, change or delete,
// through any door. Every user with the right to write may still write to it. An existing queue
// stays unchanged and not exclusive. No other call can come between the creation and the claim.
func (b *Broker) DeclareExclusive(ctx context.Context, name string, c surgetank.QueueConfig) (surgetank.QueueInfo, bool, error) {
	owner := ctx.Value(ownerKey{})
	if owner == nil {
		return surgetank.QueueInfo{}, false, surgetank.Errorf(surgetank.CodeInternal, "an exclusive queue was declared without an owner")
	}
	b.gate.RLock()
	defer b.gate.RUnlock()
	defer b.lock(name)()
	if err := b.mine(ctx, name); err != nil {
		return surgetank.QueueInfo{}, false, err
	}
	b.setClaim(name, claim{owner: owner})
	info, created, err := b.declare(ctx, name, c, surgetank.DeclareIfAbsent)
	if err != nil || !created {
		b.dropClaim(name)
		return info, created, err
	}
	b.setClaim(name, claim{id: info.ID, owner: owner})
	return info, true, nil
}

// Release ends an owner. Its remaining queues are no longer exclusive, so other users can delete
// them.
func (b *Broker) Release(owner any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for name, c := range b.exclusive {
		if c.owner == owner {
			delete(b.exclusive, name)
		}
	}
}

// mine refuses a call if the queue is exclusive to another owner than the call's.
func (b *Broker) mine(ctx context.Context, name string) error {
	b.mu.RLock()
	c, claimed := b.exclusive[name]
	b.mu.RUnlock()
	if !claimed || c.owner == ctx.Value(ownerKey{}) {
		return nil
	}
	if c.id != 0 {
		if now, err := b.Broker.Queue(ctx, name); surgetank.CodeOf(err) == surgetank.CodeNotFound || err == nil && now.ID != c.id {
			b.mu.Lock()
			if b.exclusive[name] == c {
				delete(b.exclusive, name) // the queue was removed with its virtual host, without this Broker
			}
			b.mu.Unlock()
			return nil
		}
	}
	_, plain := fullname.Split(name)
	return surgetank.Errorf(surgetank.CodeDenied,
		"queue %.60q is exclusive to the connection that declared it: only that connection may read, change or delete it, and it goes when the connection ends", plain)
}

func (b *Broker) setClaim(name string, c claim) {
	b.mu.Lock()
	b.exclusive[name] = c
	b.mu.Unlock()
}

func (b *Broker) dropClaim(name string) {
	b.mu.Lock()
	delete(b.exclusive, name)
	b.mu.Unlock()
}

// Subscribe attaches a consumer. See surgetank.Broker.
func (b *Broker) Subscribe(ctx context.Context, queue string, o surgetank.SubscribeOptions) (surgetank.Subscription, error) {
	return b.Attach(ctx, queue, door.SubscribeOptions{SubscribeOptions: o})
}

// Attach attaches a consumer of a door or a sink. See door.Broker.
func (b *Broker) Attach(ctx context.Context, queue string, o door.SubscribeOptions) (door.Subscription, error) {
	if err := b.mine(ctx, queue); err != nil {
		return nil, err
	}
	s, err := b.Broker.Attach(ctx, queue, o)
	b.countFull(err)
	return s, err
}

// countFull counts a consumer that max_consumers of its queue refused: no other limit of a queue
// refuses consumers.
func (b *Broker) countFull(err error) {
	if surgetank.CodeOf(err) == surgetank.CodeFull {
		b.Refused.Add(tally.Consumers)
	}
}

// Receive leases messages. See surgetank.Broker.
func (b *Broker) Receive(ctx context.Context, queue string, o surgetank.ReceiveOptions) ([]surgetank.Delivery, error) {
	if err := b.mine(ctx, queue); err != nil {
		return nil, err
	}
	list, err := b.Broker.Receive(ctx, queue, o)
	b.countFull(err)
	return list, err
}

// Peek shows messages. See surgetank.Broker.
func (b *Broker) Peek(ctx context.Context, queue string, o surgetank.PeekOptions) ([]surgetank.Delivery, error) {
	if err := b.mine(ctx, queue); err != nil {
		return nil, err
	}
	return b.Broker.Peek(ctx, queue, o)
}

// Explain says why messages wait. See surgetank.Administrator.
func (b *Broker) Explain(ctx context.Context, queue string, o surgetank.ExplainOptions) (surgetank.Explanation, error) {
	if err := b.mine(ctx, queue); err != nil {
		return surgetank.Explanation{}, err
	}
	return b.Broker.Explain(ctx, queue, o)
}

// PurgeQueue drops messages. See surgetank.Broker.
func (b *Broker) PurgeQueue(ctx context.Context, name string) (int64, error) {
	if err := b.mine(ctx, name); err != nil {
		return 0, err
	}
	return b.Broker.PurgeQueue(ctx, name)
}

// MoveQueue moves a queue to another shard. See surgetank.Administrator.
func (b *Broker) MoveQueue(ctx context.Context, name string, o surgetank.MoveOptions) (surgetank.MoveResult, error) {
	if err := b.mine(ctx, name); err != nil {
		return surgetank.MoveResult{}, err
	}
	return b.Broker.MoveQueue(ctx, name, o)
}

// DropDamaged drops damaged messages. See surgetank.Broker.
func (b *Broker) DropDamaged(ctx context.Context, name string) (int64, error) {
	if err := b.mine(ctx, name); err != nil {
		return 0, err
	}
	return b.Broker.DropDamaged(ctx, name)
}

// Redrive moves messages. See surgetank.Broker.
func (b *Broker) Redrive(ctx context.Context, from string, o surgetank.RedriveOptions) (surgetank.RedriveResult, error) {
	if err := b.mine(ctx, from); err != nil {
		return surgetank.RedriveResult{}, err
	}
	return b.Broker.Redrive(ctx, from, o)
}

// PauseQueue stops deliveries. See surgetank.Broker.
func (b *Broker) PauseQueue(ctx context.Context, name string, d time.Duration) error {
	return b.alone(ctx, name, func() error { return b.Broker.PauseQueue(ctx, name, d) })
}

// ResumeQueue ends a pause. See surgetank.Broker.
func (b *Broker) ResumeQueue(ctx context.Context, name string) error {
	return b.alone(ctx, name, func() error { return b.Broker.ResumeQueue(ctx, name) })
}

// OpenBreaker stops deliveries to a target. See surgetank.Broker.
func (b *Broker) OpenBreaker(ctx context.Context, name string, o surgetank.BreakerOptions) error {
	if err := b.mine(ctx, name); err != nil {
		return err
	}
	return b.Broker.OpenBreaker(ctx, name, o)
}

// CloseBreaker ends an outage. See surgetank.Broker.
func (b *Broker) CloseBreaker(ctx context.Context, name string, o surgetank.BreakerOptions) error {
	if err := b.mine(ctx, name); err != nil {
		return err
	}
	return b.Broker.CloseBreaker(ctx, name, o)
}

// alone calls f with the queue's stripe locked, so that no simultaneous change of settings or
// policies reverts what f does. It refuses queues that are exclusive to others.
func (b *Broker) alone(ctx context.Context, name string, f func() error) error {
	b.gate.RLock()
	defer b.gate.RUnlock()
	defer b.lock(name)()
	if err := b.mine(ctx, name); err != nil {
		return err
	}
	return f()
}
