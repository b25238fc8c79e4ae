package door

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/surgetank/surgetank"
)

// A broker can have several shards: logs with one loop each. A queue is in one shard. This file has
// the part of a shard that the router in front of the shards needs (internal/shards).

// MaxShards is the largest number of shards of one broker.
const MaxShards = 64

// ShardNamespace is the namespace of a shard's identity in its own metadata. The machine reads
// ShardIndex from it: the numbers of new queues have this index in the bits from
// surgetank.ShardBits on. It also reads ShardNext. All other names belong to the router.
const (
	ShardNamespace = "shard"
	ShardIndex     = "index" // a decimal number, from 0
	ShardNext      = "next"  // a decimal number; the next queue gets this number or a higher one
)

// ArrivedNamespace is the namespace of the positions of other shards' outboxes, in the metadata of
// the shard that stores their messages. Only the machine writes it.
const ArrivedNamespace = "shard.arrived"

// Names of outboxes. An outbox is a queue of a shard. It contains messages on their way to one
// queue of another shard, in order. Users do not see outboxes: no other name contains a zero byte.
const (
	hiddenMark    = "\x00"
	deadOutbox    = hiddenMark + "dead" + hiddenMark    // dead letters
	redriveOutbox = hiddenMark + "redrive" + hiddenMark // redriven messages
)

// Hidden reports whether a queue's name is the name of an outbox.
func Hidden(name string) bool { return strings.HasPrefix(name, hiddenMark) }

// Outbox returns the name of the outbox for a queue.
func Outbox(to string, redriven bool) string {
	if redriven {
		return redriveOutbox + to
	}
	return deadOutbox + to
}

// OutboxOf is the reverse of Outbox.
func OutboxOf(name string) (to string, redriven, ok bool) {
	if to, ok = strings.CutPrefix(name, redriveOutbox); ok {
		return to, true, true
	}
	to, ok = strings.CutPrefix(name, deadOutbox)
	return to, false, ok
}

// OwnDeadLetters returns the queue whose own dead-letter queue has this name, or "".
func OwnDeadLetters(name string) string {
	if of, ok := strings.CutSuffix(name, surgetank.DeadLetterSuffix); ok {
		return of
	}
	return ""
}

// Arrival is a message that comes from an outbox of another shard.
type Arrival struct {
	Message surgetank.Message
	Seq     uint64 // the message's number in the outbox
	// Incarnation is the incarnation of the outbox's shard in which Seq was confirmed.
	Incarnation uint32
	Time        time.Time         // when the message was published first
	Deaths      []surgetank.Death // newest first
}

// Arrivals are messages of one outbox for one queue.
type Arrivals struct {
	Queue string
	// Outbox names the outbox. The name differs from the name of every other outbox of all shards.
	Outbox   string
	Redriven bool
	// Floor: every message with a lower number left the outbox for good.
	Floor uint64
	Msgs  []Arrival
}

// PartialError is the error of a call that reads all shards. The call's result is complete for the
// shards that are open.
type PartialError struct{ Err error }

func (e *PartialError) Error() string { return e.Err.Error() }

// Unwrap returns the error of a shard that is not open.
func (e *PartialError) Unwrap() error { return e.Err }

// IsPartial reports whether a call returned a part of its result, because a shard is not open.
func IsPartial(err error) bool {
	var p *PartialError
	return errors.As(err, &p)
}

// Shard is a Broker that is one shard of a broker.
type Shard interface {
	Broker
	// Arrive stores messages from an outbox of another shard. A message that was stored before is
	// skipped, also after crashes of both shards. Arrive returns how many messages are stored and
	// durable, from the first on. An error is about the next message: CodeNotFound if the queue
	// does not exist, CodeFull if it has no room.
	Arrive(ctx context.Context, a Arrivals) (stored int, err error)
	// LendPool sets the part of a pool's limit that this shard may use; 0: nothing. state is called
	// with the number of messages that are leased to the pool's members in this shard, and whether
	// a member waits for nothing but the pool. limit is the part that applied. state is called on
	// the broker's loop after each change and must not block. If state is nil, limit is the whole
	// limit, where 0 means no limit, and nothing is reported.
	LendPool(pool uint64, limit int, state func(limit, leased int, waits bool))
	// RedriveAmong is Redrive. elsewhere reports whether a queue exists in another shard. It is
	// called on the broker's loop and must not block. Messages for these queues go to outboxes.
	RedriveAmong(ctx context.Context, from string, opts surgetank.RedriveOptions, elsewhere func(queue string) bool) (surgetank.RedriveResult, error)
	// MoveStep does one step of moving a queue to another shard, and writes the result into the
	// step. A step that fails has changed nothing, except with CodeUncertain.
	MoveStep(ctx context.Context, s *MoveStep) error
}

type forwarding struct{}

// Forwarding returns a context for a Transact that may publish to queues of other shards than the
// shard of its settlements. The step is still all or nothing, but these messages arrive later,
// without regard to limits, delay, TTL and dedup id. So it is for messages that a door forwards.
func Forwarding(ctx context.Context) context.Context {
	return context.WithValue(ctx, forwarding{}, true)
}

// IsForwarding reports whether a context is from Forwarding.
func IsForwarding(ctx context.Context) bool { return ctx.Value(forwarding{}) != nil }
