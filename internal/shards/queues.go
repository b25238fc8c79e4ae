package shards

import (
	"cmp"
	"context"
	"hash/maphash"
	"slices"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/door"
	"github.com/surgetank/surgetank/internal/fullname"
)

// find returns the shard of a queue. It returns CodeUnavailable for an unknown queue while a shard
// was never open, and CodeNotFound for the name of an outbox. For any other unknown queue it
// returns a shard that does not have the queue.
func (b *Broker) find(name string) (int, error) {
	at, ok := b.dir.locate(name)
	if ok {
		return at, nil
	}
	if door.Hidden(name) {
		return 0, surgetank.Errorf(surgetank.CodeNotFound, "there is no queue %q", name)
	}
	return at, b.missing(name)
}

// missing returns CodeUnavailable if the queues of a shard were never read: an unknown queue can be
// there.
func (b *Broker) missing(name string) error {
	i := b.dir.unread()
	if i < 0 {
		return nil
	}
	cause := surgetank.Errorf(surgetank.CodeUnavailable, "it is being opened")
	if p := &b.parts[i]; p.Err != nil {
		if err := p.Err(); err != nil {
			return surgetank.Errorf(surgetank.CodeUnavailable, "shard %d has not been open since the start, and the queue %q can be there; try again later, or choose a name that exists (%w)", i+1, shown(name), err)
		}
	}
	return surgetank.Errorf(surgetank.CodeUnavailable, "shard %d has not been open since the start, and the queue %q can be there; try again (%w)", i+1, shown(name), cause)
}

// shard returns the shard of a queue, ready for a call.
func (b *Broker) shard(ctx context.Context, name string) (door.Shard, error) {
	if b == nil || ctx == nil {
		return nil, noBroker(b)
	}
	at, err := b.find(name)
	if err != nil {
		return nil, err
	}
	return b.part(at)
}

// shown is a queue's name for people.
func shown(name string) string {
	if vhost, queue := fullname.Split(name); vhost != fullname.DefaultVhost {
		return vhost + "/" + queue
	}
	return name
}

var stripeSeed = maphash.MakeSeed()

func (b *Broker) lock(name string) (unlock func()) {
	m := &b.stripes[maphash.String(stripeSeed, name)%uint64(len(b.stripes))]
	m.Lock()
	return m.Unlock
}

// DeclareQueue creates or changes a queue. A new queue is created in the shard that place chooses.
// See surgetank.Broker.
func (b *Broker) DeclareQueue(ctx context.Context, name string, config surgetank.QueueConfig, mode surgetank.DeclareMode) (surgetank.QueueInfo, bool, error) {
	none := surgetank.QueueInfo{}
	if b == nil || ctx == nil {
		return none, false, noBroker(b)
	}
	if err := fullname.Validate(name); err != nil {
		return none, false, err
	}
	// The lock covers the own dead-letter queue, too: both are created in one shard.
	defer b.lock(owner(name))()
	at, known := b.dir.locate(name)
	if !known {
		if err := b.missing(name); err != nil {
			return none, false, err
		}
	}
	_, entered := b.dir.find(name)
	if !entered && mode != surgetank.DeclareUpdate {
		var err error
		if at, err = b.dir.place(name, config.Shard); err != nil {
			return none, false, err
		}
		if b.dir.count() >= b.opts.MaxQueues && !known {
			return none, false, surgetank.Errorf(surgetank.CodeTooLarge, "there are %d queues, the most this broker is set to have; remove some", b.dir.count())
		}
	}
	p, err := b.part(at)
	if err != nil {
		return none, false, err
	}
	if to := b.dir.refer(at, name, config.DeadLetter); to != "" {
		if err := b.mover.ensure(ctx, at, to, false); err != nil {
			return none, false, err
		}
	}
	info, created, err := p.DeclareQueue(ctx, name, config, mode)
	switch {
	case err == nil:
		b.dir.add(name, at)
	case surgetank.CodeOf(err) == surgetank.CodeUncertain && !entered && mode != surgetank.DeclareUpdate:
		b.dir.add(name, at) // if the queue exists, it is there
		b.ask(name, at)
		return none, false, err
	default:
		return none, false, err
	}
	for _, other := range b.dir.referrers(name, at) {
		if err := b.mover.ensure(ctx, other, name, false); err != nil {
			b.log.Warn("the dead letters of a shard have no way to their queue yet", "shard", other+1, "queue", shown(name), "error", err)
		}
	}
	return info, created, nil
}

// ask removes a queue from the directory if it turns out that its uncertain declaration was lost.
// The next opening of the shard has read its queues already, or reads them later than the
// declaration was entered, so the shard must be asked.
func (b *Broker) ask(name string, at int) {
	if b.ctx.Err() != nil {
		return
	}
	b.work.Go(func() {
		for wait := moveFirst; ; wait = min(2*wait, moveLast) {
			unlock := b.lock(owner(name)) // another declaration or deletion has ended
			err := b.unavailable(at)
			if !b.down(at) {
				_, err = b.parts[at].Queue(b.ctx, name)
			}
			if surgetank.CodeOf(err) == surgetank.CodeNotFound {
				b.dir.drop(name, at)
			}
			unlock()
			if err == nil || surgetank.CodeOf(err) == surgetank.CodeNotFound || surgetank.CodeOf(err) == surgetank.CodeClosed || !b.pause(wait) {
				return
			}
		}
	})
}

// owner returns the queue whose own dead-letter queue has this name, or the name.
func owner(name string) string {
	if of := door.OwnDeadLetters(name); of != "" {
		return of
	}
	return name
}

// DeleteQueue removes a queue, and the messages on their way to it. See surgetank.Broker.
func (b *Broker) DeleteQueue(ctx context.Context, name string, opts surgetank.DeleteOptions) (int64, error) {
	p, err := b.shard(ctx, name)
	if err != nil {
		return 0, err
	}
	defer b.lock(owner(name))()
	at, _ := b.dir.locate(name)
	dead := name + surgetank.DeadLetterSuffix
	if _, ok := b.dir.find(dead); !ok { // the shard created it by itself
		if _, err := p.Queue(ctx, dead); err == nil {
			b.dir.add(dead, at)
		}
	}
	n, err := p.DeleteQueue(ctx, name, opts)
	if err == nil {
		b.dir.remove(name)
		b.mover.deleted(ctx, name)
	}
	return n, err
}

// Queue reads one queue. See surgetank.Broker.
func (b *Broker) Queue(ctx context.Context, name string) (surgetank.QueueInfo, error) {
	p, err := b.shard(ctx, name)
	if err != nil {
		return surgetank.QueueInfo{}, err
	}
	return p.Queue(ctx, name)
}

// Queues reads the queues of all shards, in the order of their creation. If a shard is not open,
// Queues does not wait. It returns the queues of the others, and a door.PartialError. See
// surgetank.Broker.
func (b *Broker) Queues(ctx context.Context) ([]surgetank.QueueInfo, error) {
	if b == nil || ctx == nil {
		return nil, noBroker(b)
	}
	var all []surgetank.QueueInfo
	var failed error
	for i := range b.parts {
		if b.down(i) {
			failed = cmp.Or(failed, b.unavailable(i))
			continue
		}
		infos, err := b.parts[i].Queues(ctx)
		if err != nil {
			failed = cmp.Or(failed, err)
			continue
		}
		for _, info := range infos {
			if !door.Hidden(info.Name) {
				all = append(all, info)
			}
		}
	}
	slices.SortStableFunc(all, func(x, y surgetank.QueueInfo) int {
		return cmp.Or(x.Created.Compare(y.Created), cmp.Compare(x.ID&(1<<surgetank.ShardBits-1), y.ID&(1<<surgetank.ShardBits-1)), cmp.Compare(x.ID, y.ID))
	})
	if failed != nil && ctx.Err() == nil && surgetank.CodeOf(failed) != surgetank.CodeClosed {
		failed = &door.PartialError{Err: failed}
	}
	return all, failed
}

// Subscribe attaches a consumer. See surgetank.Broker.
func (b *Broker) Subscribe(ctx context.Context, name string, opts surgetank.SubscribeOptions) (surgetank.Subscription, error) {
	p, err := b.shard(ctx, name)
	if err != nil {
		return nil, err
	}
	return p.Subscribe(ctx, name, opts)
}

// Attach attaches a consumer of a door or a sink. See door.Broker.
func (b *Broker) Attach(ctx context.Context, name string, opts door.SubscribeOptions) (door.Subscription, error) {
	p, err := b.shard(ctx, name)
	if err != nil {
		return nil, err
	}
	if opts.Pool != 0 {
		at, _ := b.dir.locate(name)
		return b.pools.attach(ctx, at, p, name, opts)
	}
	return p.Attach(ctx, name, opts)
}

// Receive leases messages once. See surgetank.Broker.
func (b *Broker) Receive(ctx context.Context, name string, opts surgetank.ReceiveOptions) ([]surgetank.Delivery, error) {
	p, err := b.shard(ctx, name)
	if err != nil {
		return nil, err
	}
	return p.Receive(ctx, name, opts)
}

// Peek shows messages. See surgetank.Broker.
func (b *Broker) Peek(ctx context.Context, name string, opts surgetank.PeekOptions) ([]surgetank.Delivery, error) {
	p, err := b.shard(ctx, name)
	if err != nil {
		return nil, err
	}
	return p.Peek(ctx, name, opts)
}

// PurgeQueue drops messages. See surgetank.Broker.
func (b *Broker) PurgeQueue(ctx context.Context, name string) (int64, error) {
	p, err := b.shard(ctx, name)
	if err != nil {
		return 0, err
	}
	return p.PurgeQueue(ctx, name)
}

// DropDamaged drops damaged messages. See surgetank.Broker.
func (b *Broker) DropDamaged(ctx context.Context, name string) (int64, error) {
	p, err := b.shard(ctx, name)
	if err != nil {
		return 0, err
	}
	return p.DropDamaged(ctx, name)
}

// PauseQueue stops deliveries. See surgetank.Broker.
func (b *Broker) PauseQueue(ctx context.Context, name string, d time.Duration) error {
	p, err := b.shard(ctx, name)
	if err != nil {
		return err
	}
	return p.PauseQueue(ctx, name, d)
}

// ResumeQueue ends a pause. See surgetank.Broker.
func (b *Broker) ResumeQueue(ctx context.Context, name string) error {
	p, err := b.shard(ctx, name)
	if err != nil {
		return err
	}
	return p.ResumeQueue(ctx, name)
}

// OpenBreaker stops deliveries to the target of a queue. See surgetank.Broker.
func (b *Broker) OpenBreaker(ctx context.Context, name string, opts surgetank.BreakerOptions) error {
	p, err := b.shard(ctx, name)
	if err != nil {
		return err
	}
	return p.OpenBreaker(ctx, name, opts)
}

// CloseBreaker ends an outage. See surgetank.Broker.
func (b *Broker) CloseBreaker(ctx context.Context, name string, opts surgetank.BreakerOptions) error {
	p, err := b.shard(ctx, name)
	if err != nil {
		return err
	}
	return p.CloseBreaker(ctx, name, opts)
}

// ReportTarget tells the flow control of a queue about its target. See door.Broker.
func (b *Broker) ReportTarget(ctx context.Context, name string, r door.TargetReport) error {
	p, err := b.shard(ctx, name)
	if err != nil {
		return err
	}
	return p.ReportTarget(ctx, name, r)
}

// LevelHistory reads the history of a queue's limit and breaker. See surgetank.Broker.
func (b *Broker) LevelHistory(ctx context.Context, name string) (surgetank.LevelHistory, error) {
	p, err := b.shard(ctx, name)
	if err != nil {
		return surgetank.LevelHistory{}, err
	}
	return p.LevelHistory(ctx, name)
}

// Explain says why messages wait. See surgetank.Administrator.
func (b *Broker) Explain(ctx context.Context, name string, opts surgetank.ExplainOptions) (surgetank.Explanation, error) {
	p, err := b.shard(ctx, name)
	if err != nil {
		return surgetank.Explanation{}, err
	}
	return p.Explain(ctx, name, opts)
}

// Redrive moves messages, also to queues of other shards. See surgetank.Broker.
func (b *Broker) Redrive(ctx context.Context, from string, opts surgetank.RedriveOptions) (surgetank.RedriveResult, error) {
	p, err := b.shard(ctx, from)
	if err != nil {
		return surgetank.RedriveResult{}, err
	}
	at, _ := b.dir.locate(from)
	if opts.To != "" {
		to, err := b.find(opts.To)
		if err != nil {
			return surgetank.RedriveResult{}, err
		}
		if _, ok := b.dir.locate(opts.To); ok && to != at && !opts.DryRun {
			if err := b.mover.ensure(ctx, at, opts.To, true); err != nil {
				return surgetank.RedriveResult{}, err
			}
		}
	}
	return p.RedriveAmong(ctx, from, opts, func(name string) bool {
		to, ok := b.dir.locate(name)
		if !ok || to == at {
			return false
		}
		if !opts.DryRun {
			b.mover.want(at, name, true)
		}
		return true
	})
}

// History reads a queue's position in the history of its shard's directory. See door.Broker.
func (b *Broker) History(ctx context.Context, name string, count ...door.NumberRange) (door.History, error) {
	p, err := b.shard(ctx, name)
	if err != nil {
		return door.History{}, err
	}
	return p.History(ctx, name, count...)
}
