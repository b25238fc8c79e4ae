package surgetank

import (
	"context"
	"time"
)

// Broker is a connection to a message queue. An embedded broker, a client of a server and a cluster
// all implement it.
//
// Many goroutines may call the methods at the same time. If Publish, Settle or a queue method
// returns a nil error, its change is on disk. Every error is an *Error.
type Broker interface {
	Publisher
	Consumer
	Administrator

	// Transact publishes messages and settles leases as one step: all changes become durable, or
	// none. If any part is refused, nothing is done, and the error names that part.
	Transact(ctx context.Context, msgs []Publishing, s []Settlement) ([]PublishResult, error)

	// Close finishes the calls that were accepted and stops the broker. Every later call fails with
	// CodeClosed.
	Close() error
}

// Publisher is the part of a Broker that stores messages. Send and SendAll are short forms of it.
type Publisher interface {
	// Publish stores messages and returns after they are durable. If the whole call fails, Publish
	// returns an error: the broker is closed, or the outcome is uncertain. The outcome is also
	// uncertain if ctx ends first. Otherwise Publish returns one result for each publishing. A
	// publishing to a queue that does not exist is refused with CodeNotFound. While the broker opens
	// its log again, calls wait for a bounded time and then return CodeUnavailable.
	Publish(ctx context.Context, msgs []Publishing) ([]PublishResult, error)
	// PublishAsync is Publish without the wait for the disk. It waits only for room in the broker's
	// mailbox. If ctx ends during this wait, PublishAsync returns CodeBusy and publishes nothing.
	// If PublishAsync returns nil, done is called exactly once, on a goroutine of the broker, in
	// the order in which calls were accepted. done must not block, and must not call methods that
	// wait for the broker. A panic in done is recovered, logged and counted. A nil done is
	// CodeInvalid. Do not change bodies and slices before done is called.
	//
	// Publishes, transactions and the methods of Administrator that one goroutine calls are decided
	// in the order of the calls. Settlements can be decided before publishes that were accepted
	// earlier: if an ack depends on a publish, settle in done, or use Transact.
	PublishAsync(ctx context.Context, msgs []Publishing, done func([]PublishResult, error)) error
}

// Consumer is the part of a Broker that delivers messages and settles them.
type Consumer interface {
	// Settle ends or extends leases and returns after the changes are durable, with one result for
	// each settlement.
	Settle(ctx context.Context, s []Settlement) ([]SettleResult, error)
	// SettleAsync is Settle without the wait for the disk. The rules of PublishAsync's done apply.
	// done may be nil. Without done, the broker need not write at once: the settlements become
	// durable with its next write, some milliseconds later.
	//
	// Settlements do not wait behind publishes. The settlements that one goroutine sends are
	// decided in the order of the calls, and before a later Cancel or Close of their subscription.
	SettleAsync(ctx context.Context, s []Settlement, done func([]SettleResult, error)) error

	// Subscribe attaches a consumer with credit to a queue. ctx limits only the attaching.
	Subscribe(ctx context.Context, queue string, opts SubscribeOptions) (Subscription, error)
	// Receive leases up to opts.Max messages at once. It waits up to opts.Wait for the first
	// message. If no message comes, Receive returns no deliveries and no error.
	Receive(ctx context.Context, queue string, opts ReceiveOptions) ([]Delivery, error)
	// Peek returns messages in the order of their Seq and does not lease them. A damaged message
	// has no body; Damage says why. A large queue is read in parts, and the broker serves other
	// calls in between. Each message is returned at most once. Up to Max, Peek returns every
	// message that was in the requested state during the whole call. Peek leaves out messages that
	// were published meanwhile. Peek stops when ctx ends.
	Peek(ctx context.Context, queue string, opts PeekOptions) ([]Delivery, error)
}

// Administrator is the part of a Broker that creates, changes and shows queues.
type Administrator interface {
	// DeclareQueue creates or changes a queue, as mode says. created reports whether the queue is
	// new.
	DeclareQueue(ctx context.Context, name string, config QueueConfig, mode DeclareMode) (info QueueInfo, created bool, err error)
	// DeleteQueue removes a queue and its messages. It returns the number of removed messages that
	// were not leased. The queue's subscriptions end with CodeNotFound.
	DeleteQueue(ctx context.Context, name string, opts DeleteOptions) (removed int64, err error)
	// PurgeQueue drops every message that is not leased, also damaged messages, and returns their
	// number. A large queue is purged in parts, and the broker serves other calls in between. A
	// message that is leased or published meanwhile can stay. If ctx ends early, the messages of
	// the finished parts are dropped.
	PurgeQueue(ctx context.Context, name string) (purged int64, err error)
	// DropDamaged drops the messages of a queue that are known to be damaged, and returns their
	// number. Later messages of their groups can then be delivered.
	DropDamaged(ctx context.Context, name string) (dropped int64, err error)
	// PauseQueue stops deliveries. Publishing goes on. If d is positive, deliveries resume by
	// themselves after that time, also if the broker restarts meanwhile. A pause replaces an
	// earlier one.
	PauseQueue(ctx context.Context, name string, d time.Duration) error
	// ResumeQueue ends a pause.
	ResumeQueue(ctx context.Context, name string) error
	// OpenBreaker stops deliveries to the target of a queue, until CloseBreaker. Meanwhile no
	// message uses up an attempt. CloseBreaker ends an outage, also an outage that the breaker
	// found itself. After an outage, the load grows step by step. A restart ends the effect of both
	// calls, but not of PauseQueue.
	OpenBreaker(ctx context.Context, name string, opts BreakerOptions) error
	CloseBreaker(ctx context.Context, name string, opts BreakerOptions) error
	// LevelHistory returns the newest changes of a queue's adaptive limit, and the newest outages.
	LevelHistory(ctx context.Context, name string) (LevelHistory, error)
	// Redrive moves messages to another queue. A moved message keeps its body, headers and history,
	// and its attempts count from 1 again. If ctx ends early, Redrive returns the number of
	// messages moved so far.
	Redrive(ctx context.Context, from string, opts RedriveOptions) (RedriveResult, error)
	// MoveQueue moves a queue and its own dead-letter queue to another shard, while the queue is in
	// use. It returns when the queue works in its new shard. If ctx ends before, or after an error,
	// the queue stays in its shard. Only CodeUncertain means that the queue can be in either shard.
	MoveQueue(ctx context.Context, name string, opts MoveOptions) (MoveResult, error)

	// Queue and Queues read settings and statistics. Queues is not a snapshot: it reads large lists
	// in parts, so entries can be from different moments.
	Queue(ctx context.Context, name string) (QueueInfo, error)
	Queues(ctx context.Context) ([]QueueInfo, error)
	// Explain says why the queue's next message waits, or a group's first message, or one message.
	// For the queue it adds when the backlog will be done, and the groups with the highest figures.
	// It returns CodeNotFound if the queue or the message does not exist, or the group has no
	// message.
	Explain(ctx context.Context, queue string, opts ExplainOptions) (Explanation, error)
}

// DeclareMode says what DeclareQueue does if the queue exists and if it does not.
type DeclareMode uint8

const (
	DeclareOrUpdate DeclareMode = iota // create the queue, or change an existing queue to these settings
	DeclareIfAbsent                    // create the queue, or leave an existing queue unchanged
	DeclareNew                         // create the queue; CodeExists if it exists
	DeclareUpdate                      // change an existing queue; CodeNotFound if it does not exist
)

// DeleteOptions are conditions of a deletion. If a condition fails, the error is CodeExists.
type DeleteOptions struct {
	IfUnused bool // the queue has no consumers
	IfEmpty  bool // the queue has no messages, or only leased ones
}

// SubscribeOptions are the settings of a subscription.
type SubscribeOptions struct {
	// Credit is the number of messages that can be delivered before the subscription needs more
	// credit. Each settled message returns its credit, as with an AMQP prefetch. With ManualCredit,
	// only AddCredit adds credit.
	Credit       int
	ManualCredit bool
	// Lease is how long a message is leased. 0: the queue's lease. LeaseForever: until the
	// subscription is closed.
	Lease time.Duration
	// NoAck settles a message as soon as it is delivered.
	NoAck     bool
	Exclusive bool   // the queue's only subscription; CodeExists if the queue has others
	Single    bool   // single active consumer: only the oldest of these subscriptions receives
	Priority  int    // subscriptions with higher priority and credit receive first
	Name      string // shown in statistics
}

// LeaseForever is a lease that lasts as long as its subscription.
const LeaseForever = time.Duration(-1)

// Subscription receives the messages of one consumer. Many goroutines may call its methods.
type Subscription interface {
	// Receive waits for messages and appends up to max of them to buf. Together their bodies have
	// at most about maxBytes, but at least one message is appended. The subscription reads bodies
	// from disk only in this call. After Close or Cancel, Receive returns CodeClosed. If the queue
	// was deleted, it returns CodeNotFound.
	Receive(ctx context.Context, buf []Delivery, max, maxBytes int) ([]Delivery, error)
	// TryReceive is Receive without the wait. If no message waits, it appends nothing.
	TryReceive(buf []Delivery, max, maxBytes int) ([]Delivery, error)
	// Ready has a token if messages wait or the subscription has ended. After a token, call
	// TryReceive until it appends nothing.
	Ready() <-chan struct{}
	// AddCredit adds credit. A negative number removes credit that is not used yet.
	AddCredit(n int)
	// Cancel stops deliveries. Messages that were not received return to the queue, and their
	// delivery does not count as an attempt. Received messages stay leased.
	Cancel() error
	// Close cancels and returns leased messages to the queue, also after a Cancel. For a message
	// that was received, this counts as an attempt.
	Close() error
}

// ReceiveOptions are the settings of one Receive.
type ReceiveOptions struct {
	Max int // messages; 0: 1
	// MaxBytes limits the bytes of all bodies together, approximately. One message always fits. 0:
	// 64 MiB. NoAck ignores the limit, because a delivered message cannot be returned.
	MaxBytes int
	Wait     time.Duration // the longest wait for the first message; 0: no wait
	Lease    time.Duration // 0: the queue's lease; LeaseForever: until the message is settled or the broker closes
	NoAck    bool
	Name     string
}

// PeekOptions choose what a peek shows.
type PeekOptions struct {
	Max      int       // the largest number of messages; 0: 10
	After    uint64    // only messages with a higher Seq
	State    State     // only messages in this state; empty: all
	MaxBytes int       // of all bodies; 0: 4 MiB
	ID       MessageID // if set: only this message
}

// RedriveOptions choose what a redrive moves, and how fast.
type RedriveOptions struct {
	To     string // the queue that gets the messages; empty: the queue where each message died last
	Max    int64  // the largest number of messages; 0: all messages that are stored now
	Rate   Rate
	DryRun bool   // only count the messages
	Reason string // only messages whose newest death has this reason; empty: all
	Queue  string // only messages that were dead-lettered last from this queue; empty: all
	// Progress is called on the caller's goroutine after each step. If it panics, Redrive returns
	// an error.
	Progress func(moved int64)
}

// RedriveResult counts the messages that a redrive moved, or with DryRun would move.
type RedriveResult struct {
	Matched, Moved int64
	Skipped        int64 // messages that were not moved: their new queue does not exist or has no room
	Full           int64 // the part of Skipped whose new queue is at its limits
}
