package door

import (
	"context"
	"reflect"
	"sync/atomic"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/hidden"
)

// Broker is a broker as doors, sinks and policies use it.
type Broker interface {
	surgetank.Broker
	Metadata

	// Attach is Subscribe with the options of doors and sinks.
	Attach(ctx context.Context, queue string, opts SubscribeOptions) (Subscription, error)
	// SetMetaLater is SetMeta without the wait for the disk, in namespace MarksNamespace. Later
	// settlements of the queue by the same goroutine become durable only after the value.
	SetMetaLater(queue, name string, value []byte) error
	// ReportTarget tells the flow control of a queue about the target. See TargetReport.
	ReportTarget(ctx context.Context, queue string, r TargetReport) error
	// History returns a queue's position in the history of its data directory. It also counts the
	// messages with numbers in count that are not settled.
	History(ctx context.Context, queue string, count ...NumberRange) (History, error)
}

// SubscribeOptions are the settings of a subscription of a door or a sink.
type SubscribeOptions struct {
	surgetank.SubscribeOptions
	// Pool is 0, or a number from NewPool. Subscriptions of one broker with the same pool share one
	// limit on leased messages, set by SetPoolLimit. This is AMQP's prefetch of a channel.
	Pool uint64
	// GroupRun raises the group's max_in_flight for a queue's only subscription: up to this many
	// messages of one group, in order. The consumer must then handle each group in order. If the
	// queue has other subscriptions, the group's own limit applies. 0 means 1.
	GroupRun int
	// OwnLevel is set by a consumer that limits its own load. The adaptive limit of a queue does
	// not apply while all its consumers are such, and their leases are not measured. The breaker
	// applies.
	OwnLevel bool
	// OnLevel, if not nil, is called with the Level of the queue after the subscription begins, and
	// after each change. It is called on a goroutine of the broker and must not block.
	OnLevel func(Level)
	// Opening, if not 0, is the incarnation of an opening, from History. The subscription belongs
	// to that opening: in any other opening Attach fails with CodeUnavailable, and the subscription
	// ends with CodeUnavailable when the broker opens again. It is for a consumer whose work
	// depends on facts of one opening, such as a sink. Other subscriptions continue in the next
	// opening.
	Opening uint64
	// Ready, if not nil, is the channel that Ready returns. It must have room for one token. A
	// broker that is opened again attaches a subscription with the channel that its owner already
	// has.
	Ready chan struct{}
	// Notify, if not nil, is called whenever Ready gets a token. It is called on a goroutine of the
	// broker and must not block. It lets one goroutine serve many subscriptions.
	Notify func()
}

var pools atomic.Uint64

// NewPool returns a pool number that is unique in this process.
func NewPool() uint64 { return pools.Add(1) }

// Subscription is a subscription of a door or a sink.
type Subscription interface {
	surgetank.Subscription
	// SetPoolLimit sets how many leased messages all subscriptions of this pool may have together.
	// 0: no limit.
	SetPoolLimit(n int)
	// Floor returns the queue's floor at the time when the newest message was delivered: every
	// message with a number below seq was settled for good. The log entries up to number entry
	// record these facts and are durable.
	Floor() (seq, entry uint64)
}

// Phased is a broker that can be opened again below its callers.
type Phased interface {
	// Phase returns a number that changes when the log fails and when the next opening serves. It
	// is odd while no opening serves. If it is even and the same before a call without an answer
	// and after a later answer, the same opening has handled both.
	Phase() uint64
}

// PhaseOf returns the phase of a broker; 0 if the broker is never opened again.
func PhaseOf(b Broker) uint64 {
	if p, ok := b.(Phased); ok {
		return p.Phase()
	}
	return 0
}

// PhaseOfMessage returns the phase of the part of a broker that has a message: with several shards,
// the phase of its shard.
func PhaseOfMessage(b Broker, id surgetank.MessageID) uint64 {
	if p, ok := b.(interface {
		MessagePhase(surgetank.MessageID) uint64
	}); ok {
		return p.MessagePhase(id)
	}
	return PhaseOf(b)
}

// Of returns the part of b that doors and sinks need. b is an embedded.Broker, or has the methods
// itself. A struct that embeds *embedded.Broker counts as that broker, and methods that the struct
// overrides are not called. Any other broker is CodeInvalid: a client of a server cannot do what
// doors and sinks need.
func Of(b surgetank.Broker) (Broker, error) {
	if v := reflect.ValueOf(b); !v.IsValid() || v.Kind() == reflect.Pointer && v.IsNil() {
		return nil, noBroker()
	}
	switch b := b.(type) {
	case Broker:
		return b, nil
	case hidden.Carrier[Broker]:
		if inner := *hidden.Of(b); inner != nil {
			return inner, nil
		}
		return nil, noBroker()
	}
	return nil, surgetank.FieldErrorf("broker", "a broker of type %T cannot be used here; use one that embedded.Open or embedded.Memory returned", b)
}

func noBroker() error {
	return surgetank.FieldErrorf("broker", "there is no broker; open one with embedded.Open or embedded.Memory")
}

// QueueFloor returns the address of a queue's floor in its info. Every message with a lower number
// was settled for good.
func QueueFloor(i *surgetank.QueueInfo) *uint64 { return hidden.Of[uint64](i) }
