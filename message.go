package surgetank

import (
	"bytes"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/surgetank/surgetank/internal/hidden"
)

// Limits of one message. Doors, the servers of AMQP and HTTP, check them first, and the broker
// checks them again.
const (
	MaxNameLen        = 255       // bytes of a queue, group, sink or header name, or of a key
	MaxDedupIDLen     = 255       // bytes of a dedup id
	MaxHeaders        = 256       // headers of one message
	MaxHeaderBytes    = 64 << 10  // bytes of all header names and values, including a door's own properties
	MaxTargets        = 1 << 16   // queues of one publishing
	DefaultMaxMessage = 16 << 20  // bytes of a body, if not configured
	CeilingMaxMessage = 128 << 20 // the highest configurable limit of a body, in bytes
	MaxPriority       = 255
	MinPublisherLen   = 16      // bytes of a publisher id
	MaxPublisherLen   = 64      // bytes of a publisher id
	MaxSequence       = 1 << 62 // the highest sequence number of a publisher's message
)

// Header is one name and value. Headers keep their spelling and order, and several headers can have
// the same name.
type Header struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// opaque is the field of a message that package internal/door reads and sets.
type opaque = hidden.Bytes

// Message is a body and its options, as a publisher sends it. The zero value with a Body is valid.
type Message struct {
	Body        []byte
	ContentType string
	Headers     []Header
	Key         string // the publisher's address for the message (AMQP routing key); group_by can use it
	Group       string // messages of one group keep their order; empty: the queue's group_by finds the group
	DedupID     string // within the queue's dedup window, a second message with this id is confirmed but not stored
	Priority    uint8  // higher first, if the queue has max_priority
	Delay       time.Duration
	// TTL is the time after which the message expires. 0: the queue's TTL. If both are set, the
	// shorter one applies. A Delivery has the effective TTL.
	TTL    time.Duration
	opaque // properties of one protocol, which Surgetank passes on; a copy of the message keeps them
}

// Equal reports whether two messages have the same body and options. An empty body equals a missing
// body, and empty headers equal missing headers.
func (m Message) Equal(other Message) bool {
	return bytes.Equal(m.Body, other.Body) && m.ContentType == other.ContentType && slices.Equal(m.Headers, other.Headers) &&
		m.Key == other.Key && m.Group == other.Group && m.DedupID == other.DedupID && m.Priority == other.Priority &&
		m.Delay == other.Delay && m.TTL == other.TTL && bytes.Equal(*hidden.BytesOf(&m), *hidden.BytesOf(&other))
}

// Publishing is one message for one or more queues. Its body is stored once.
type Publishing struct {
	Queues  []string
	Message Message
	// Publisher and Sequence make it safe to publish the message again after an unknown outcome.
	// Both are zero if they are not used. The client package then sets them.
	//
	// Publisher is random text of 16 to 64 printable ASCII characters. Every publisher and every
	// start of a program needs a new one. Sequence numbers the publisher's messages. The first
	// message of a new publisher is number 1. Later numbers can come in any order and with gaps. If
	// a number is already confirmed, its message is confirmed again and not stored again. A message
	// with a publisher is stored in all its queues or in none.
	//
	// The broker can forget a publisher or an old number. The broker then refuses the message with
	// CodeUncertain and FieldPublisher, because an earlier try may have stored the message. Start a
	// new publisher for messages that were never sent.
	Publisher string
	Sequence  uint64
}

// FieldPublisher is the Field of an error about a publisher id. With CodeUncertain it means that
// the broker has forgotten whether the message's number is confirmed.
const FieldPublisher = "publisher"

// ValidatePublisher returns CodeInvalid for a bad publisher id or sequence number. An empty id with
// number 0 is valid.
func ValidatePublisher(id string, sequence uint64) error {
	switch n := len(id); {
	case n == 0 && sequence == 0:
		return nil
	case n == 0:
		return FieldErrorf("sequence", "the message has a sequence number and no publisher; set both or neither")
	case n < MinPublisherLen || n > MaxPublisherLen:
		return FieldErrorf(FieldPublisher, "the publisher id has %d bytes; it is random text of %d to %d bytes, so that every publisher has its own",
			n, MinPublisherLen, MaxPublisherLen)
	case sequence == 0 || sequence > MaxSequence:
		return FieldErrorf("sequence", "the sequence number is %d; a publisher numbers its messages from 1 to %d", sequence, uint64(MaxSequence))
	}
	for i := range len(id) {
		if c := id[i]; c <= ' ' || c > '~' {
			return FieldErrorf(FieldPublisher, "the publisher id contains the byte %#02x; only printable ASCII without spaces is allowed", c)
		}
	}
	return nil
}

// MessageID names one message in one queue. After a data directory was restored from a copy, pairs
// of Queue and Seq repeat. Incarnation tells such messages apart.
type MessageID struct {
	// Queue is the queue's number. A queue that is deleted and created again gets a new one. The
	// bits from ShardBits on say in which shard of the broker the queue is.
	Queue uint64
	Seq   uint64 // counts the queue's messages from 1, in the order of confirmation
	// Incarnation is the lower half of the incarnation in which the message was confirmed. It is 0
	// if the incarnation is unknown, as for messages that an old version stored.
	Incarnation uint32
}

// ShardBits is the number of the lowest bit of a queue's number that belongs to its shard. The bits
// below count the queues of the shard. The first shard's bits are 0.
const ShardBits = 40

// Shard returns the shard of the message's queue. Shards count from 1.
func (id MessageID) Shard() int { return int(id.Queue>>ShardBits) + 1 }

// String returns the form "queue-seq-incarnation" of the APIs. The incarnation is in base 36, and
// is left out if it is 0. The number of a queue that is not in the first shard has the form
// "shard.queue", as in "2.3-1042-k3v9xq".
func (id MessageID) String() string {
	b, _ := id.AppendText(make([]byte, 0, 32))
	return string(b)
}

// AppendText appends the form of String. The error is always nil.
func (id MessageID) AppendText(b []byte) ([]byte, error) {
	queue := id.Queue
	if queue>>ShardBits != 0 {
		b = append(strconv.AppendInt(b, int64(id.Shard()), 10), '.')
		queue &= 1<<ShardBits - 1
	}
	b = strconv.AppendUint(b, queue, 10)
	b = append(b, '-')
	b = strconv.AppendUint(b, id.Seq, 10)
	if id.Incarnation != 0 {
		b = append(b, '-')
		b = strconv.AppendUint(b, uint64(id.Incarnation), 36)
	}
	return b, nil
}

// ParseMessageID parses the form of String.
func ParseMessageID(s string) (MessageID, error) {
	q, rest, ok := strings.Cut(s, "-")
	n, i, long := strings.Cut(rest, "-")
	queue, err1 := parseQueueNumber(q)
	seq, err2 := strconv.ParseUint(n, 10, 64)
	incarnation, err3 := uint64(0), error(nil)
	if long {
		incarnation, err3 = strconv.ParseUint(i, 36, 32)
	}
	if !ok || err1 != nil || err2 != nil || err3 != nil {
		return MessageID{}, Errorf(CodeInvalid, "%.40q is not a message id; ids look like 3-1042-k3v9xq", s)
	}
	return MessageID{queue, seq, uint32(incarnation)}, nil
}

// parseQueueNumber parses the number of a queue in a message id.
func parseQueueNumber(s string) (uint64, error) {
	before, after, long := strings.Cut(s, ".")
	if !long {
		return strconv.ParseUint(s, 10, 64)
	}
	shard, err := strconv.ParseUint(before, 10, 64-ShardBits)
	if err != nil {
		return 0, err
	}
	if shard < 2 {
		return 0, strconv.ErrRange
	}
	n, err := strconv.ParseUint(after, 10, ShardBits)
	return (shard-1)<<ShardBits | n, err
}

// Receipt identifies one lease on one message. Only the receipt can settle the lease. After the
// lease has ended, the receipt is rejected.
type Receipt struct {
	ID    MessageID
	Epoch uint64 // counts the broker's openings; a receipt from before a restart is rejected
	Lease uint64 // counts the leases of this epoch
	// Incarnation is a random number, drawn at each opening. After a restore from a copy, epochs,
	// message ids and lease numbers repeat, but incarnations do not. So a receipt from before the
	// restore is rejected.
	Incarnation uint64
}

// String returns the form of the APIs. Callers must treat it as opaque.
func (r Receipt) String() string {
	b := make([]byte, 0, 64)
	for i, n := range [...]uint64{r.Epoch, r.ID.Queue, r.ID.Seq, r.Lease, r.Incarnation} {
		if i > 0 {
			b = append(b, '.')
		}
		b = strconv.AppendUint(b, n, 36)
	}
	return string(b)
}

// ParseReceipt parses the form of String.
func ParseReceipt(s string) (Receipt, error) {
	var n [5]uint64
	rest, more := s, true
	for i := range n {
		if !more && i == 4 {
			break // from a version without incarnations: a valid receipt, but its lease has ended
		}
		var part string
		part, rest, more = strings.Cut(rest, ".")
		v, err := strconv.ParseUint(part, 36, 64)
		if err != nil || !more && i < 3 || more && i == 4 {
			return Receipt{}, Errorf(CodeInvalid, "%.60q is not a receipt; send back the receipt that came with the message", s)
		}
		n[i] = v
	}
	return Receipt{Epoch: n[0], ID: MessageID{Queue: n[1], Seq: n[2]}, Lease: n[3], Incarnation: n[4]}, nil
}

// Delivery is a message with its lease. A peek returns deliveries without a lease. Do not change
// Body and Headers: they are shared.
type Delivery struct {
	Message
	ID      MessageID
	Queue   string
	Receipt Receipt // zero after a peek or with NoAck
	// FencingToken is the number of the lease, if the message's group has max_in_flight 1;
	// otherwise
	// 0. Every later lease on a message of the group has a higher number, also after a restart. A
	// target that keeps the highest number it has seen for a group can refuse a consumer whose
	// lease has ended. docs/flow-control.md has an example.
	FencingToken int64
	Time         time.Time
	Attempt      int       // 1 on the first delivery; a nack or a lost lease adds 1 unless it is uncounted
	Redelivered  bool      // the message was possibly delivered before
	Deadline     time.Time // end of the lease; zero if the lease lasts as long as its subscription
	Deaths       []Death   // the message's dead-letter history, newest first
	State        State     // only in a peek
	Damage       string    // only in a peek: why the message cannot be read; it then has no body

	// Due, Failure and Waiting are set only in a peek. Due is the end of a delay or back-off.
	// Failure is the reason of the newest nack or lost lease: the consumer's text or the broker's.
	// It is empty if there is no reason. Waiting says why a blocked message is not delivered. For a
	// ready message in a queue whose groups take turns, it says what is delivered before.
	Due     time.Time
	Failure string
	Waiting string
}

// Death is one event in a message's dead-letter history.
type Death struct {
	Queue    string    `json:"queue"`
	Reason   string    `json:"reason"` // one of the Reason constants
	Detail   string    `json:"detail,omitempty"`
	Time     time.Time `json:"time"`
	Attempts int       `json:"attempts"`
	Group    string    `json:"group,omitempty"`
}

// Reasons why a message went to a dead-letter queue.
const (
	ReasonRejected = "rejected" // a consumer rejected it
	ReasonAttempts = "attempts" // it reached the attempt limit
	ReasonExpired  = "expired"  // its TTL passed
	ReasonOverflow = "overflow" // the queue was over its limit
)

// State is the state of a message in its queue. A message has exactly one state.
type State string

const (
	StateReady   State = "ready"   // can be delivered as soon as a consumer has credit and the queue's level allows it
	StateBlocked State = "blocked" // waits for earlier messages of its group
	StateDelayed State = "delayed" // waits for the end of its delay or back-off; uses no lease and no in-flight slot
	StateLeased  State = "leased"  // delivered and not settled
	StateDamaged State = "damaged" // its stored bytes cannot be read; it is not delivered and stays until it is dropped
)

// SettleOp is a consumer's answer to a delivery.
type SettleOp uint8

const (
	Ack    SettleOp = iota // handled; final after its confirmation
	Nack                   // try again: after Delay, or with RetryBackoff after the queue's retry back-off
	Reject                 // do not try again: move to the dead-letter queue, or drop if the queue has none
	Extend                 // extend the lease to Lease from now
)

// RetryBackoff as a nack's Delay means the queue's own retry back-off.
const RetryBackoff = time.Duration(-1)

// Settlement ends or extends one lease.
type Settlement struct {
	Receipt   Receipt
	Op        SettleOp
	Delay     time.Duration // Nack: 0 means at once, in the message's old position; RetryBackoff means the queue's back-off
	Lease     time.Duration // Extend: the new lease from now
	Reason    string        // Nack and Reject: kept in the dead-letter history, up to 1 KiB
	Uncounted bool          // Nack: the attempt does not count, because the target failed, not the message

	// Target is what a Nack reports about the target of the consumer. RetryAfter is the pause that
	// the target asked for; 0: the target did not ask for one.
	Target     TargetReport
	RetryAfter time.Duration
	// Elapsed is how long the target worked on the message, as the consumer measured it. 0: the
	// broker measures the time from the delivery to this settlement.
	Elapsed time.Duration
}

// TargetReport is a consumer's report about its target.
type TargetReport uint8

const (
	TargetUnknown TargetReport = iota // no report
	TargetDown                        // the target cannot be reached; a breaker can open
	TargetBusy                        // the target asked for less load; the attempt does not count
)

// PublishResult is the result of one publishing. If Err is nil, the message is confirmed: it is on
// disk in every queue of the publishing.
type PublishResult struct {
	ID        MessageID // the id in the first queue; if Duplicate, the id of the stored message, or zero if it is forgotten
	Duplicate bool      // nothing was stored: every queue knew the dedup id, or the publisher's number is confirmed
	Err       error
}

// SettleResult is the result of one settlement. nil means that the settlement was done. A confirmed
// ack is final.
type SettleResult = error
