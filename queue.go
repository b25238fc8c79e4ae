package surgetank

import (
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// QueueConfig is the settings of a queue, as data: it is stored in the log and the same in every
// door. The zero value, through WithDefaults, is a good queue. JSON and YAML names are those of
// product.md's file.
type QueueConfig struct {
	// GroupBy finds the group of a message whose publisher named none: "header:NAME", "$.json.path"
	// of a JSON body, "routing_key", or "none".
	GroupBy string
	Group   GroupConfig
	Level   LevelConfig
	Retry   RetryConfig
	// DeadLetter is the queue for messages that are given up. Empty means NAME.dead, made when
	// first needed; DeadLetterDrop means that rejected and expired messages are dropped by the
	// user's own choice.
	DeadLetter  string
	DedupWindow time.Duration // 0: no dedup
	// DedupBy finds the dedup id of a message whose publisher gave none: "header:NAME" or
	// "$.json.path" of a JSON body. Empty: only publishers give ids. The property message-id of
	// other protocols is the header message-id here.
	DedupBy     string        `json:",omitempty"`
	TTL         time.Duration // 0: messages do not expire
	MaxBytes    int64         // of the bodies of waiting messages; 0: no limit
	MaxMessages int64         // waiting; 0: no limit
	// MaxConsumers is how many consumers the queue may have at a time: subscriptions, and receives
	// that wait. 0: no limit.
	MaxConsumers int `json:",omitempty"`
	Overflow     Overflow
	MaxPriority  uint8         // 0: priorities are ignored
	Lease        time.Duration // of consumers that do not say; 0: DefaultLease
	// Transient: the queue and its messages are gone when the broker opens again.
	Transient bool
	Paused    bool // accepts messages, hands none out
}

// GroupConfig is what holds for each group of a queue.
type GroupConfig struct {
	MaxInFlight int  // leased messages of one group at a time; 1 gives strict order; 0: no limit
	Rate        Rate // hand-outs of one group
	Fair        bool // groups take turns; otherwise the oldest message goes first
}

// LevelConfig is the flow control of a queue towards its consumers.
type LevelConfig struct {
	Rate        Rate
	Burst       int // hand-outs that may come at once after a pause; 0: one tenth of a second's worth, at least 1
	MaxInFlight int // leased messages at a time; 0: no limit
}

// RetryConfig says when a message is tried again, and when given up.
type RetryConfig struct {
	MaxAttempts int           // then it is dead-lettered; 0: DefaultMaxAttempts; Unlimited: never
	Initial     time.Duration // delay after the first failed attempt; 0: DefaultRetryInitial; NoDelay: none
	Factor      float64       // each further delay is this much longer; 0: 2
	Max         time.Duration // the longest delay; 0: 10 minutes
	Jitter      float64       // 0..1: each delay is drawn from [d·(1−jitter), d]; 0: 0.5; NoJitter: none
}

// Values of RetryConfig for "none", where a zero means the default.
const (
	Unlimited = -1                // as MaxAttempts: a message is never given up
	NoDelay   = time.Duration(-1) // as Initial: a message is tried again at once
	NoJitter  = -1.0              // as Jitter: delays are not drawn
)

// Rate is hand-outs per second; 0 means no limit.
type Rate float64

// Overflow is what happens to a publish into a queue at its limit.
type Overflow string

const (
	OverflowReject     Overflow = "reject"      // the publish is refused with CodeFull (the default)
	OverflowDropOldest Overflow = "drop_oldest" // the oldest waiting messages are dropped
	OverflowDeadLetter Overflow = "dead_letter" // the oldest waiting messages are dead-lettered
)

// Defaults of a queue.
const (
	DefaultLease        = 30 * time.Second
	MaxLease            = 12 * time.Hour
	DefaultMaxAttempts  = 20
	DefaultRetryInitial = time.Second
	DefaultRetryMax     = 10 * time.Minute
	// DeadLetterDrop as QueueConfig.DeadLetter drops instead of parking.
	DeadLetterDrop = "-"
	// DeadLetterSuffix makes a queue's own dead-letter queue's name.
	DeadLetterSuffix = ".dead"
	// MaxDuration bounds every delay, TTL and window.
	MaxDuration = 10 * 365 * 24 * time.Hour
)

// vhostMark separates a virtual host from a queue's name inside a full name. It is a control
// character, which no name may hold, so that full names cannot be forged.
const vhostMark = "\x1f"

// DefaultVhost is the virtual host whose queues have plain names.
const DefaultVhost = "/"

// FullName gives the name by which the Broker interface knows a queue of a virtual host.
func FullName(vhost, queue string) string {
	if vhost == DefaultVhost {
		return queue
	}
	return vhost + vhostMark + queue
}

// SplitName takes a full name apart.
func SplitName(full string) (vhost, queue string) {
	if v, q, ok := strings.Cut(full, vhostMark); ok {
		return v, q
	}
	return DefaultVhost, full
}

// ValidateQueueName refuses a full name with an empty, overlong, non-UTF-8 or control-character
// part.
func ValidateQueueName(full string) error {
	vhost, queue := SplitName(full)
	if err := ValidateName("virtual host", vhost); err != nil {
		return err
	}
	return ValidateName("queue", queue)
}

// ValidateName refuses names that could not be shown or stored: empty, above MaxNameLen bytes, not
// UTF-8, or with control characters. what says in the error what it names.
func ValidateName(what, name string) error {
	switch {
	case name == "":
		return FieldErrorf("name", "the %s name is empty; give it one", what)
	case len(name) > MaxNameLen:
		return FieldErrorf("name", "the %s name has %d bytes; at most %d are allowed", what, len(name), MaxNameLen)
	case !utf8.ValidString(name):
		return FieldErrorf("name", "the %s name %.60q is not valid UTF-8", what, name)
	case strings.ContainsFunc(name, unicode.IsControl):
		return FieldErrorf("name", "the %s name %.60q holds a control character", what, name)
	}
	return nil
}

// QueueInfo is a queue's settings and live figures.
type QueueInfo struct {
	Name    string
	ID      uint64
	Config  QueueConfig
	Created time.Time

	Ready, Blocked, Delayed, Leased int64 // messages by State; their sum and Damaged's is all that is stored
	Damaged                         int64 // messages that cannot be read; above 0 an operator is needed
	Bytes                           int64 // bodies of all of them
	// OldestAge is for how long the message waits that waits longest. What is leased, delayed or
	// backs off does not wait, and a message that its publisher delayed waits from the end of its
	// delay on. 0 when none waits.
	OldestAge time.Duration
	// BackingOff is how many of Delayed came back and wait for their next try. NextTry is when the
	// first of them is tried, and Failure says why that message came back: the reason that its
	// consumer gave, or a text of the broker's. They are zero when none backs off, and Failure is
	// empty if nobody said why.
	BackingOff int64
	NextTry    time.Time
	Failure    string
	Groups     int64
	Consumers  int64
	Floor      uint64 // every message with a lower Seq is settled for good

	// Counted since the broker opened.
	Published, Duplicates, Refused, Delivered, Acked, Nacked, Expired, DeadLettered, Dropped, LeasesLost uint64
	// Circled is how many of Dropped would have come to a queue that had given them up before,
	// without any consumer's doing.
	Circled uint64

	// Waiting says why the next message is not being handed out; empty when nothing waits or all
	// flows.
	Waiting string

	// Policy names the policy that changes the settings, and Own are then those the queue was
	// declared with; Config is what results. Without one they are "" and nil.
	Policy string
	Own    *QueueConfig
}

// Declared gives the settings that the queue was declared with, whatever a policy made of them.
func (i QueueInfo) Declared() QueueConfig {
	if i.Own != nil {
		return *i.Own
	}
	return i.Config
}
