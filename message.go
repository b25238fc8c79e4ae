package surgetank

import (
	"strconv"
	"strings"
	"time"
)

// Limits of one message. Doors check them early, the broker checks them again.
const (
	MaxNameLen        = 255       // bytes of a queue, group or sink name, a key, a header's name
	MaxDedupIDLen     = 255       // bytes of a dedup id
	MaxHeaders        = 256       // headers of one message
	MaxHeaderBytes    = 64 << 10  // bytes of all header names and values together, the opaque part included
	MaxTargets        = 1 << 16   // queues one publishing may go to
	DefaultMaxMessage = 16 << 20  // bytes of a body, unless configured otherwise
	CeilingMaxMessage = 128 << 20 // the highest value DefaultMaxMessage may be configured to
	MaxPriority       = 255
	MinPublisherLen   = 16      // bytes of a publisher id
	MaxPublisherLen   = 64      // bytes of a publisher id
	MaxSequence       = 1 << 62 // the highest number of a publisher's message
)

// Header is one name and value. Names keep their spelling and order and may repeat.
type Header struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Message is what a publisher hands over: a body and what the queue should know about it. The zero
// value with a Body is a good message.
type Message struct {
	Body        []byte
	ContentType string
	Headers     []Header
	Key         string // the address the publisher used (AMQP routing key); free for use by group_by
	Group       string // messages of one group keep their order; empty: the queue's group_by decides
	DedupID     string // a second publish of this id within the queue's dedup window is confirmed, not stored
	Priority    uint8  // higher first, where the queue has max_priority
	Delay       time.Duration
	// TTL of 0 is the queue's own; of the two the shorter one counts. A Delivery has the one that
	// counts.
	TTL time.Duration
	// Opaque carries what a door's protocol says about the message beyond these fields, in that
	// door's own encoding, whose first byte names the door. Other doors pass it on untouched.
	Opaque []byte
}

// Publishing is one message for one or more queues; its body is stored once.
type Publishing struct {
	Queues  []string
	Message Message
	// Publisher and Sequence make it safe to publish the message again when the outcome is unknown,
	// on every queue. Publisher is random text of 16 to 64 printable ASCII characters, new for
	// every publisher and every start of a program. Sequence numbers the publisher's messages from
	// 1. A number that is confirmed already is confirmed again and not stored again. Numbers may be
	// left out and may come in any order, except that the first message of a new publisher is
	// number 1. A message with a publisher is stored in all its queues or in none. Both are zero if
	// they are not used; the client package then fills them in.
	//
	// If the broker no longer knows the publisher or the number, it refuses the message with
	// CodeUncertain and FieldPublisher: an earlier try may have stored it. Start a new publisher
	// for what was never sent before.
	Publisher string
	Sequence  uint64
}

// FieldPublisher is the Field of an error about a publisher id. With CodeUncertain, the broker no
// longer knows whether the message's number is confirmed.
const FieldPublisher = "publisher"

// ValidatePublisher refuses a publisher id or a sequence number that no publisher may have. Both
// may be missing.
func ValidatePublisher(id string, sequence uint64) error {
	switch n := len(id); {
	case n == 0 && sequence == 0:
		return nil
	case n == 0:
		return FieldErrorf("sequence", "the message has a sequence number and no publisher; give it both or neither")
	case n < MinPublisherLen || n > MaxPublisherLen:
		return FieldErrorf(FieldPublisher, "the publisher id has %d bytes; it is random text of %d to %d bytes, so that no two publishers have the same",
			n, MinPublisherLen, MaxPublisherLen)
	case sequence == 0 || sequence > MaxSequence:
		return FieldErrorf("sequence", "the sequence number is %d; a publisher numbers its messages from 1 to %d", sequence, uint64(MaxSequence))
	}
	for i := range len(id) {
		if c := id[i]; c <= ' ' || c > '~' {
			return FieldErrorf(FieldPublisher, "the publisher id holds the byte %#02x; only printable ASCII without spaces is allowed", c)
		}
	}
	return nil
}

// MessageID names one message in one queue. Queue is the queue's number (a queue made anew gets
// another), Seq counts its messages from 1 in order of confirmation. After a data directory was
// restored from a copy, both are given out a second time; Incarnation, which is random, tells the
// two messages apart.
type MessageID struct {
	Queue uint64
	Seq   uint64
	// Incarnation is the lower half of the incarnation in which the message was confirmed. 0: the
	// message is older than incarnations are, or whoever asks does not know.
	Incarnation uint32
}

// String gives the form that the doors show: "queue-seq-incarnation", the last part in base 36 and
// left out if it is 0.
func (id MessageID) String() string {
	b, _ := id.AppendText(make([]byte, 0, 32))
	return string(b)
}

// AppendText appends what String gives. It never fails.
func (id MessageID) AppendText(b []byte) ([]byte, error) {
	b = strconv.AppendUint(b, id.Queue, 10)
	b = append(b, '-')
	b = strconv.AppendUint(b, id.Seq, 10)
	if id.Incarnation != 0 {
		b = append(b, '-')
		b = strconv.AppendUint(b, uint64(id.Incarnation), 36)
	}
	return b, nil
}

// ParseMessageID reads what String wrote.
func ParseMessageID(s string) (MessageID, error) {
	q, rest, ok := strings.Cut(s, "-")
	n, i, long := strings.Cut(rest, "-")
	queue, err1 := strconv.ParseUint(q, 10, 64)
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

// Receipt stands for one lease on one message. It is the only thing that can settle that lease, and
// it is void once the lease has ended.
type Receipt struct {
	ID    MessageID
	Epoch uint64 // of the broker's opening; a receipt from before a restart settles nothing
	Lease uint64 // counts the leases of that epoch
	// Incarnation is random and drawn at each opening. Epochs, message ids and lease numbers repeat
	// after a restore from a copy. Incarnations do not, so a receipt from before the restore
	// settles nothing.
	Incarnation uint64
}

// String gives the form the doors show; callers must treat it as opaque.
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

// ParseReceipt reads what String wrote.
func ParseReceipt(s string) (Receipt, error) {
	var n [5]uint64
	rest, more := s, true
	for i := range n {
		if !more && i == 4 {
			break // of a version without incarnations: it settles nothing, but it is a receipt
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

// Delivery is a message handed to a consumer under a lease (or shown by a peek, then without one).
// Body, Headers and Opaque are shared and must not be changed.
type Delivery struct {
	Message
	ID          MessageID
	Queue       string
	Receipt     Receipt // zero when peeked or delivered with no ack expected
	Time        time.Time
	Attempt     int       // 1 on the first delivery; counts what a nack or a lost lease counted
	Redelivered bool      // it may have been delivered before
	Deadline    time.Time // of the lease; zero when it lasts as long as its subscription
	Deaths      []Death   // the message's dead-letter history, newest first
	State       State     // only in a peek
	Damage      string    // only in a peek: why the message cannot be read, and so has no body here

	// Due is when a delayed message's delay or back-off ends. Failure is why the message came back
	// last: the reason that its consumer gave, or a text of the broker's; "" if it did not come
	// back, or nobody said why. Waiting says what a blocked message waits for. All three are set in
	// a peek only.
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

// Why a message went to a dead-letter queue.
const (
	ReasonRejected = "rejected" // a consumer refused it for good
	ReasonAttempts = "attempts" // it reached the attempt limit
	ReasonExpired  = "expired"  // its TTL passed
	ReasonOverflow = "overflow" // the queue was over its limit
)

// State is where a message is in its queue; the states are exclusive.
type State string

const (
	StateReady   State = "ready"   // can be handed out as soon as a consumer and the queue's level allow
	StateBlocked State = "blocked" // waits for earlier messages of its group
	StateDelayed State = "delayed" // waits for its delay or its next attempt; holds no lease and no slot
	StateLeased  State = "leased"  // handed out, not settled
	StateDamaged State = "damaged" // its stored bytes cannot be read: kept out of its line until it is dropped
)

// SettleOp is what a consumer says about a delivery.
type SettleOp uint8

const (
	Ack    SettleOp = iota // done; final once confirmed
	Nack                   // try again: after Delay if it is not negative, else after the queue's retry back-off
	Reject                 // never again: to the dead-letter queue (or dropped, where the queue says so)
	Extend                 // keep the lease for Lease longer, from now
)

// RetryBackoff as a nack's Delay asks for the queue's own retry back-off.
const RetryBackoff = time.Duration(-1)

// Settlement ends or extends one lease.
type Settlement struct {
	Receipt   Receipt
	Op        SettleOp
	Delay     time.Duration // Nack: 0 at once and in the message's old place, RetryBackoff by the queue's policy
	Lease     time.Duration // Extend
	Reason    string        // Nack and Reject: kept in the dead-letter history; at most 1 KiB is kept
	Uncounted bool          // Nack: this attempt does not count towards the limit (the target was down, not the message bad)
}

// PublishResult is what became of one publishing. Err nil means confirmed: on disk in every queue
// named.
type PublishResult struct {
	ID        MessageID // in the first queue; of the first copy when Duplicate, zero if that is not known any more
	Duplicate bool      // the dedup id was known in every queue, or the publisher's number is confirmed: nothing was stored again
	Err       error
}

// SettleResult is what became of one settlement; nil means done, and for an ack: final.
type SettleResult = error
