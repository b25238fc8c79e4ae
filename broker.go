package surgetank

import (
	"context"
	"sync/atomic"
	"time"
)

// Broker is the one interface of Surgetank: an embedded broker, a client of a server and a cluster
// all are one. Every door and every consumer works through it alone.
//
// All methods may be called by many goroutines. A nil error of Publish, Settle and the queue
// methods means that what was asked is on disk. An error is an *Error.
type Broker interface {
	Publisher
	Consumer
	Administrator

	// Transact publishes and settles as one: all of it becomes durable together or none of it does.
	// An error says which part was refused; then nothing was done.
	Transact(ctx context.Context, msgs []Publishing, s []Settlement) ([]PublishResult, error)

	// Close stops the broker: what was accepted is finished, then every later call fails with
	// CodeClosed.
	Close() error
}

// Publisher is the part of a Broker that stores messages. Send and SendAll are short forms of it.
type Publisher interface {
	// Publish stores messages and returns when they are durable. The error is for the whole call
	// (closed, uncertain, or ctx ended: then the outcome is uncertain too); otherwise there is one
	// result per publishing. Publishings to a queue that does not exist are refused with
	// CodeNotFound.
	Publish(ctx context.Context, msgs []Publishing) ([]PublishResult, error)
	// PublishAsync is Publish without the wait: it blocks only for room in the broker's mailbox,
	// until ctx ends (CodeBusy, nothing was taken). done is called exactly once unless an error is
	// returned, in order of acceptance, on a goroutine of the broker: it must not block or call
	// back into the broker's blocking methods. A done that panics is recovered, logged and counted.
	// nil for done is CodeInvalid. Bodies and slices must not be changed until done.
	PublishAsync(ctx context.Context, msgs []Publishing, done func([]PublishResult, error)) error
}

// Consumer is the part of a Broker that hands out messages and settles them.
type Consumer interface {
	// Settle ends or extends leases and returns when that is durable, one result per settlement.
	Settle(ctx context.Context, s []Settlement) ([]SettleResult, error)
	// SettleAsync is to Settle what PublishAsync is to Publish. done may be nil: then nobody waits
	// for the settlements, and they may become durable some milliseconds later, with what is
	// written next.
	SettleAsync(ctx context.Context, s []Settlement, done func([]SettleResult, error)) error

	// Subscribe attaches a consumer: a queue and credit. ctx covers the attaching only.
	Subscribe(ctx context.Context, queue string, opts SubscribeOptions) (Subscription, error)
	// Receive leases up to opts.Max messages at once, waiting up to opts.Wait for the first. None
	// is not an error.
	Receive(ctx context.Context, queue string, opts ReceiveOptions) ([]Delivery, error)
	// Peek shows messages in the order of their Seq without leasing them. A damaged one has no
	// body, and says why. A large queue is looked through a part at a time, between which others
	// are served: each message is shown at most once, and those that were in the state asked for
	// all the while are shown, up to Max. Messages that came meanwhile are not. It ends with ctx.
	Peek(ctx context.Context, queue string, opts PeekOptions) ([]Delivery, error)
}

// Administrator is the part of a Broker that makes, changes and shows queues.
type Administrator interface {
	// DeclareQueue makes a queue, or changes it, as mode says; created tells whether it was made.
	DeclareQueue(ctx context.Context, name string, config QueueConfig, mode DeclareMode) (info QueueInfo, created bool, err error)
	// DeleteQueue removes a queue and what it holds, and gives the number of messages that were not
	// leased. Its subscriptions end with CodeNotFound.
	DeleteQueue(ctx context.Context, name string, opts DeleteOptions) (removed int64, err error)
	// PurgeQueue drops every message that is not leased, damaged ones too, and gives their number.
	// Of a large queue it drops a part at a time, between which others are served: when it returns,
	// all that was there at its beginning and that nobody held in between is dropped. If ctx ends
	// before, a part may be.
	PurgeQueue(ctx context.Context, name string) (purged int64, err error)
	// DropDamaged drops the messages of a queue that are known to be damaged and gives their
	// number. Their groups go on.
	DropDamaged(ctx context.Context, name string) (dropped int64, err error)
	// PauseQueue stops (or resumes) handing out; publishing goes on.
	PauseQueue(ctx context.Context, name string, paused bool) error
	// Redrive moves messages to another queue, keeping body, headers and history and starting their
	// attempts anew; it returns when done, or with what was done so far when ctx ends.
	Redrive(ctx context.Context, from string, opts RedriveOptions) (RedriveResult, error)

	// Queue and Queues read settings and statistics; those of many queues not all at one moment.
	Queue(ctx context.Context, name string) (QueueInfo, error)
	Queues(ctx context.Context) ([]QueueInfo, error)

	// SetMeta stores a small value (at most 1 MiB) for a door under a namespace and name, durable
	// like a message; nil removes it. Meta reads a namespace.
	SetMeta(ctx context.Context, namespace, name string, value []byte) error
	Meta(ctx context.Context, namespace string) (map[string][]byte, error)
}

// DeclareMode says what DeclareQueue does about a queue that exists.
type DeclareMode uint8

const (
	DeclareOrUpdate DeclareMode = iota // make it, or give it these settings
	DeclareIfAbsent                    // make it; if it exists leave it as it is
	DeclareNew                         // make it; CodeExists if it exists
	DeclareUpdate                      // change it; CodeNotFound if it does not exist
)

// DeleteOptions are conditions; a condition that fails is CodeExists.
type DeleteOptions struct {
	IfUnused bool // no consumers
	IfEmpty  bool // no messages that are not leased
}

// SubscribeOptions describe a consumer.
type SubscribeOptions struct {
	// Credit is how many messages may be handed out before more credit is given. With ManualCredit,
	// credit comes back only by AddCredit; without it, settling a message gives its credit back
	// (AMQP prefetch).
	Credit       int
	ManualCredit bool
	// Pool, when not 0, is a number from NewPool: subscriptions of one broker with the same pool
	// share a limit on their leased, unsettled messages, set with SetPoolLimit (AMQP's per-channel
	// prefetch).
	Pool uint64
	// Lease is how long a message is leased for. 0: the queue's; LeaseForever: until the
	// subscription is closed.
	Lease time.Duration
	// NoAck: a message is settled as soon as it is handed out.
	NoAck bool
	// GroupRun lets a queue's only subscription hold up to this many messages of one group, in
	// order, even where the group's max_in_flight is lower; its consumer must handle each group in
	// order. With other subscriptions beside it the group's own limit holds. 0 means 1.
	GroupRun  int
	Exclusive bool   // refuse (CodeExists) other subscriptions while this one lives; fails if there are some
	Single    bool   // single active consumer: among such subscriptions only the oldest is served
	Priority  int    // subscriptions of higher priority are served first while they have credit
	Name      string // shown in statistics
	// Notify, when not nil, is called whenever Ready gets a token: messages wait, or the
	// subscription has ended. It is called on a goroutine of the broker and must not block. With
	// it, one goroutine can serve many subscriptions.
	Notify func()
}

// LeaseForever as a lease lasts as long as its subscription.
const LeaseForever = time.Duration(-1)

var pools atomic.Uint64

// NewPool gives a pool number that no other caller in this process has.
func NewPool() uint64 { return pools.Add(1) }

// Subscription is a consumer's end. Its methods may be called by many goroutines.
type Subscription interface {
	// Receive waits for messages and appends up to max of them, and not many more than maxBytes of
	// bodies (at least one message), to buf. Messages wait here, unread from disk, until they are
	// received. It returns CodeClosed after Close or Cancel, CodeNotFound when the queue was
	// deleted.
	Receive(ctx context.Context, buf []Delivery, max, maxBytes int) ([]Delivery, error)
	// TryReceive is Receive without waiting; it may append nothing.
	TryReceive(buf []Delivery, max, maxBytes int) ([]Delivery, error)
	// Ready has a token when messages wait or the subscription has ended; after taking it call
	// TryReceive until it appends nothing.
	Ready() <-chan struct{}
	// AddCredit gives credit; a negative number takes it back as far as it was not used.
	AddCredit(n int)
	// SetPoolLimit sets how many leased messages the subscriptions of this one's pool may hold
	// together; 0: no limit.
	SetPoolLimit(n int)
	// Floor returns how far the queue had come when the newest message was handed out: every
	// message with a number below seq is settled for good. Log entries up to number entry, all of
	// them durable, say so.
	Floor() (seq, entry uint64)
	// Cancel stops hand-outs and gives back, uncounted, what was not received; received messages
	// stay leased.
	Cancel() error
	// Close cancels and gives back what is leased, also after a Cancel; messages that were received
	// count an attempt.
	Close() error
}

// ReceiveOptions are those of one Receive.
type ReceiveOptions struct {
	Max int // messages; 0: 1
	// MaxBytes is of bodies together: not many more come, but at least one message. 0: 64 MiB. It
	// does not hold with NoAck, where what is handed out cannot be taken back.
	MaxBytes int
	Wait     time.Duration // for the first message; 0: do not wait
	Lease    time.Duration // 0: the queue's; LeaseForever: until it is settled or the broker closes
	NoAck    bool
	Name     string
}

// PeekOptions choose what a peek shows.
type PeekOptions struct {
	Max      int       // messages; 0: 10
	After    uint64    // start behind this Seq
	State    State     // only messages in this state; empty: all
	MaxBytes int       // of bodies together; 0: 4 MiB
	ID       MessageID // when set: this message alone
}

// RedriveOptions steer a redrive.
type RedriveOptions struct {
	To     string // a queue; empty: each message's own, where it was dead-lettered last
	Max    int64  // messages; 0: all that wait now
	Rate   Rate
	DryRun bool   // count only
	Reason string // only messages whose newest death has this reason; empty: all
	Queue  string // only messages that died last in this queue; empty: all
	// Progress is called on the caller's goroutine after each step. If it panics, the redrive ends
	// with an error.
	Progress func(moved int64)
}

// RedriveResult counts what a redrive did (with DryRun: would do).
type RedriveResult struct {
	Matched, Moved int64
	Skipped        int64 // stayed where they are: their queue is gone or has no room
	Full           int64 // of Skipped: their queue is at its limits
}
