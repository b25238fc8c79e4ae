package embedded

import (
	"context"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/broker"
	"github.com/surgetank/surgetank/internal/disklog"
	"github.com/surgetank/surgetank/internal/door"
	"github.com/surgetank/surgetank/internal/hidden"
)

// behind is the field of a Broker that doors and sinks use.
type behind = hidden.Field[door.Broker]

// Broker is an embedded broker. It implements surgetank.Broker, whose documentation states the
// promises of the methods. A nil or closed Broker returns CodeClosed.
type Broker struct {
	behind
	b   *broker.Broker
	log *disklog.Log // nil: in memory
	dir string
	several
}

var _ surgetank.Broker = (*Broker)(nil)

// newBroker returns a Broker for b. log is nil for a broker in memory.
func newBroker(b *broker.Broker, log *disklog.Log, dir string) *Broker {
	e := &Broker{b: b, log: log, dir: dir}
	*hidden.Of(e) = b
	return e
}

// in returns the broker or, with several shards, the router.
func (b *Broker) in() door.Broker {
	if b != nil && b.router != nil {
		return b.router
	}
	return b.inner()
}

// inner returns the broker. Without one it returns nil, and the methods of nil return CodeClosed.
func (b *Broker) inner() *broker.Broker {
	if b == nil {
		return nil
	}
	return b.b
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

// Done is closed when the broker's log has failed and the broker cannot continue. Health then
// returns the cause. Close must still be called. With several shards, this is the log of the first
// shard, which has the metadata. If another shard fails, only its queues are unavailable.
func (b *Broker) Done() <-chan struct{} {
	if b != nil && b.router != nil {
		return b.shards[0].Done()
	}
	if in := b.inner(); in != nil {
		return in.Failed()
	}
	none := make(chan struct{})
	close(none)
	return none
}

// Health describes the state of a broker.
type Health struct {
	// Err is why the broker failed, or nil while it works. A failed broker confirms nothing. Close
	// it, remove the cause, verify the directory, and open it again.
	Err error
	// Stalled is how long the oldest write has waited for the disk; 0: no write waits.
	Stalled time.Duration
	// Full: the disk is nearly full, and messages are refused with CodeFull. FullFor is the time
	// since this began. Acks are accepted, and the space of settled messages is freed
	// automatically.
	Full    bool
	FullFor time.Duration
	// NeededBytes is the size of all messages in the log that are not settled. FreeableBytes is the
	// size of the log files that a snapshot would free now.
	NeededBytes, FreeableBytes int64
	// Openings counts how often the directory was opened, this time included.
	Openings uint64
	// CallbackFailures counts the caller's functions that panicked or ended their goroutine.
	CallbackFailures int64
}

// Health returns the state of the broker. It does not wait, and may be called often.
func (b *Broker) Health() Health {
	if b != nil && b.router != nil {
		return b.healthOfAll()
	}
	in := b.inner()
	if in == nil {
		return Health{Err: surgetank.Errorf(surgetank.CodeClosed, "there is no broker: open one with embedded.Open or embedded.Memory")}
	}
	h := Health{Err: in.Err(), Stalled: in.Stalled(), Openings: in.Epoch(), CallbackFailures: in.CallbackFailures()}
	space := in.Space()
	h.Full, h.NeededBytes, h.FreeableBytes = space.Full, space.NeededBytes, space.Freeable
	if space.Full {
		h.FullFor = in.Now().Sub(space.Since)
	}
	return h
}
