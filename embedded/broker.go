package embedded

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/broker"
	"github.com/surgetank/surgetank/internal/disklog"
	"github.com/surgetank/surgetank/internal/door"
	"github.com/surgetank/surgetank/internal/hidden"
	"github.com/surgetank/surgetank/internal/supervise"
)

// behind is the field of a Broker that doors and sinks use.
type behind = hidden.Field[door.Broker]

// Broker is an embedded broker. It implements surgetank.Broker, whose documentation states the
// promises of the methods. A nil or closed Broker returns CodeClosed.
//
// If the log fails, for example because the disk is full or its mount is lost, the broker opens the
// directory again by itself. Calls in progress get CodeUncertain. Later calls wait for the next
// opening up to Options.ReopenWait, and then get CodeUnavailable. Subscriptions stay; leases end,
// so their settlements get CodeLeaseLost and the messages are delivered again. If the stored data
// is damaged, the failure is final: see Done.
type Broker struct {
	behind
	s   *supervise.Supervisor
	at  atomic.Pointer[instance] // the newest opening
	old atomic.Int64             // CallbackFailures of earlier openings
	dir string
	several
}

var _ surgetank.Broker = (*Broker)(nil)

// instance is one opening.
type instance struct {
	*broker.Broker
	log *disklog.Log // nil: in memory
}

// open opens a Broker. opener opens its data, once for each opening. after is the incarnation of
// the opening before; 0: this is the first.
func (o *Options) open(dir string, opener func(after uint64) (*instance, error)) (*Broker, error) {
	e, tries := &Broker{dir: dir}, 0
	var err error
	so := supervise.Options{Wait: o.ReopenWait, ReopenFor: o.ReopenFor, Clock: o.clock, Logger: o.Logger,
		Open: func(ctx context.Context, _ bool) (supervise.Instance, error) {
			tries++
			var after uint64
			was := e.at.Load()
			if was != nil {
				after = was.Incarnation()
			}
			in, err := opener(after)
			if err != nil {
				return nil, err
			}
			if o.link != nil {
				if err := o.link.opened(ctx, in, tries == 1); err != nil {
					return nil, errors.Join(err, in.Close())
				}
			}
			if was != nil {
				e.old.Add(was.CallbackFailures())
			}
			e.at.Store(in)
			return in, nil
		}}
	if l := o.link; l != nil {
		so.Shard, so.Optional, so.Fell, so.Logger = l.shard, l.shard > 1, l.fell, o.Logger.With("shard", l.shard)
	}
	if e.s, err = supervise.Open(context.Background(), so); err != nil {
		return nil, err
	}
	*hidden.Of(e) = e.s
	return e, nil
}

// in returns the broker or, with several shards, the router.
func (b *Broker) in() door.Broker {
	if b != nil && b.router != nil {
		return b.router
	}
	return b.inner()
}

// inner returns the broker. Without one it returns nil, and the methods of nil return CodeClosed.
func (b *Broker) inner() *supervise.Supervisor {
	if b == nil {
		return nil
	}
	return b.s
}

// Publish stores messages and returns after they are on disk, with one result for each.
func (b *Broker) Publish(ctx context.Context, msgs []surgetank.Publishing) ([]surgetank.PublishResult, error) {
	return b.in().Publish(ctx, msgs)
}

// PublishAsync is Publish without the wait for the disk. done is called once, on a goroutine of the
// broker, and must not block.
func (b *Broker) PublishAsync(ctx context.Context, msgs []surgetank.Publishing, done func([]surgetank.PublishResult, error)) error {
	return b.in().PublishAsync(ctx, msgs, done)
}

// Settle acks, nacks, rejects or extends deliveries. It returns after the settlements are on disk,
// with one result for each.
func (b *Broker) Settle(ctx context.Context, s []surgetank.Settlement) ([]surgetank.SettleResult, error) {
	return b.in().Settle(ctx, s)
}

// SettleAsync is Settle without the wait for the disk. done may be nil.
func (b *Broker) SettleAsync(ctx context.Context, s []surgetank.Settlement, done func([]surgetank.SettleResult, error)) error {
	return b.in().SettleAsync(ctx, s, done)
}

// Transact publishes and settles as one step: all of it becomes durable, or none of it.
func (b *Broker) Transact(ctx context.Context, msgs []surgetank.Publishing, s []surgetank.Settlement) ([]surgetank.PublishResult, error) {
	return b.in().Transact(ctx, msgs, s)
}

// Subscribe attaches a consumer to a queue. ctx limits only the attaching.
func (b *Broker) Subscribe(ctx context.Context, queue string, opts surgetank.SubscribeOptions) (surgetank.Subscription, error) {
	return b.in().Subscribe(ctx, queue, opts)
}

// Receive leases up to opts.Max messages. It waits up to opts.Wait for the first.
func (b *Broker) Receive(ctx context.Context, queue string, opts surgetank.ReceiveOptions) ([]surgetank.Delivery, error) {
	return b.in().Receive(ctx, queue, opts)
}

// Peek returns messages without leasing them.
func (b *Broker) Peek(ctx context.Context, queue string, opts surgetank.PeekOptions) ([]surgetank.Delivery, error) {
	return b.in().Peek(ctx, queue, opts)
}

// DeclareQueue creates a queue or changes its settings, as mode says.
func (b *Broker) DeclareQueue(ctx context.Context, name string, config surgetank.QueueConfig, mode surgetank.DeclareMode) (info surgetank.QueueInfo, created bool, err error) {
	return b.in().DeclareQueue(ctx, name, config, mode)
}

// DeleteQueue removes a queue with its messages, and returns the number of messages that were not
// leased.
func (b *Broker) DeleteQueue(ctx context.Context, name string, opts surgetank.DeleteOptions) (removed int64, err error) {
	return b.in().DeleteQueue(ctx, name, opts)
}

// PurgeQueue drops every message that is not leased, and returns their number.
func (b *Broker) PurgeQueue(ctx context.Context, name string) (purged int64, err error) {
	return b.in().PurgeQueue(ctx, name)
}

// DropDamaged drops the messages of a queue that cannot be read, and returns their number.
func (b *Broker) DropDamaged(ctx context.Context, name string) (dropped int64, err error) {
	return b.in().DropDamaged(ctx, name)
}

// Explain says why the queue's next message waits, or a group's first message, or one message.
func (b *Broker) Explain(ctx context.Context, queue string, opts surgetank.ExplainOptions) (surgetank.Explanation, error) {
	return b.in().Explain(ctx, queue, opts)
}

// PauseQueue stops the deliveries of a queue, for a time or until ResumeQueue.
func (b *Broker) PauseQueue(ctx context.Context, name string, d time.Duration) error {
	return b.in().PauseQueue(ctx, name, d)
}

// ResumeQueue resumes the deliveries of a queue.
func (b *Broker) ResumeQueue(ctx context.Context, name string) error {
	return b.in().ResumeQueue(ctx, name)
}

// OpenBreaker stops the deliveries to the target of a queue until CloseBreaker or a restart.
func (b *Broker) OpenBreaker(ctx context.Context, name string, opts surgetank.BreakerOptions) error {
	return b.in().OpenBreaker(ctx, name, opts)
}

// CloseBreaker ends an outage of the target of a queue. The load grows from a low level.
func (b *Broker) CloseBreaker(ctx context.Context, name string, opts surgetank.BreakerOptions) error {
	return b.in().CloseBreaker(ctx, name, opts)
}

// LevelHistory returns the newest changes of a queue's adaptive limit, and the newest outages.
func (b *Broker) LevelHistory(ctx context.Context, name string) (surgetank.LevelHistory, error) {
	return b.in().LevelHistory(ctx, name)
}

// Redrive moves dead letters back to the queues where they died, or to another queue.
func (b *Broker) Redrive(ctx context.Context, from string, opts surgetank.RedriveOptions) (surgetank.RedriveResult, error) {
	return b.in().Redrive(ctx, from, opts)
}

// Queue returns the settings and figures of one queue.
func (b *Broker) Queue(ctx context.Context, name string) (surgetank.QueueInfo, error) {
	return b.in().Queue(ctx, name)
}

// Queues returns the settings and figures of all queues.
func (b *Broker) Queues(ctx context.Context) ([]surgetank.QueueInfo, error) {
	return b.in().Queues(ctx)
}

// Dir returns the absolute path of the data directory; "" for a broker in memory.
func (b *Broker) Dir() string {
	if b == nil {
		return ""
	}
	return b.dir
}

// Close finishes accepted calls, saves a snapshot for a quick opening, and closes the files. Every
// later call returns CodeClosed.
func (b *Broker) Close() error { return b.in().Close() }

// Done is closed when the broker cannot continue: it has failed for good, or it was closed. Health
// then returns the cause. Close must still be called. With several shards, this is about the first
// shard, which has the metadata: if another shard fails, only its queues are unavailable.
func (b *Broker) Done() <-chan struct{} {
	if b != nil && b.router != nil {
		return b.shards[0].Done()
	}
	if in := b.inner(); in != nil {
		return in.Done()
	}
	none := make(chan struct{})
	close(none)
	return none
}
