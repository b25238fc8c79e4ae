package surgetank

import (
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// QueueConfig is the settings of a queue, as data: it is stored in the log and the same in every door.
// The zero value, through WithDefaults, is a good queue. JSON and YAML names are those of product.md's file.
type QueueConfig struct {
	// GroupBy finds the group of a message whose publisher named none: "header:NAME", "$.json.path" of a
	// JSON body, "routing_key", or "none".
	GroupBy string
	Group   GroupConfig
	Level   LevelConfig
	Retry   RetryConfig
	// DeadLetter is the queue for messages that are given up. Empty means NAME.dead, made when first
	// needed; DeadLetterDrop means that rejected and expired messages are dropped by the user's own choice.
	DeadLetter  string
	DedupWindow time.Duration // 0: no dedup
	// DedupBy finds the dedup id of a message whose publisher gave none: "header:NAME" or "$.json.path" of a JSON body. Empty:
	// only publishers give ids. The property message-id of other protocols is the header message-id here.
	DedupBy     string        `json:",omitempty"`
	TTL         time.Duration // 0: messages do not expire
	MaxBytes    int64         // of the bodies of waiting messages; 0: no limit
	MaxMessages int64         // waiting; 0: no limit
	// MaxConsumers is how many consumers the queue may have at a time: subscriptions, and receives that wait. 0: no limit.
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
	MaxAttempts int           // then it is dead-lettered; 0: DefaultMaxAttempts; negative: no limit
	Initial     time.Duration // delay after the first failed attempt; 0: DefaultRetryInitial; negative: none
	Factor      float64       // each further delay is this much longer; 0: 2
	Max         time.Duration // the longest delay; 0: 10 minutes
	Jitter      float64       // 0..1: each delay is drawn from [d·(1−jitter), d]; negative: none; 0: 0.5
}

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

// WithDefaults gives c with every zero that means "the default" filled in.
func (c QueueConfig) WithDefaults() QueueConfig {
	if c.GroupBy == "" {
		c.GroupBy = "none"
	}
	if c.Overflow == "" {
		c.Overflow = OverflowReject
	}
	if c.Lease == 0 {
		c.Lease = DefaultLease
	}
	r := &c.Retry
	if r.MaxAttempts == 0 {
		r.MaxAttempts = DefaultMaxAttempts
	}
	if r.Initial == 0 {
		r.Initial = DefaultRetryInitial
	}
	if r.Factor == 0 {
		r.Factor = 2
	}
	if r.Max == 0 {
		r.Max = DefaultRetryMax
	}
	if r.Jitter == 0 {
		r.Jitter = 0.5
	}
	if c.Level.Rate > 0 && c.Level.Burst == 0 {
		c.Level.Burst = max(1, int(c.Level.Rate/10))
	}
	return c
}

// Validate refuses settings that make no sense, naming the field by its name in the configuration file.
func (c QueueConfig) Validate() error {
	for _, d := range []struct {
		field string
		v     time.Duration
	}{
		{"dedup.window", c.DedupWindow}, {"ttl", c.TTL}, {"lease", c.Lease}, {"retry.max", c.Retry.Max},
	} {
		if d.v < 0 || d.v > MaxDuration {
			return FieldErrorf(d.field, "%s must be between 0 and 10 years, not %v", d.field, d.v)
		}
	}
	switch {
	case c.Lease > MaxLease:
		return FieldErrorf("lease", "lease must be at most 12h, not %v", c.Lease)
	case c.Retry.Initial > MaxDuration:
		return FieldErrorf("retry.initial", "retry.initial must be at most 10 years, not %v", c.Retry.Initial)
	case !(c.Retry.Factor == 0 || c.Retry.Factor >= 1 && c.Retry.Factor <= 1000):
		return FieldErrorf("retry.factor", "retry.factor must be between 1 and 1000, not %v", c.Retry.Factor)
	case !(c.Retry.Jitter <= 1):
		return FieldErrorf("retry.jitter", "retry.jitter must be at most 1, not %v", c.Retry.Jitter)
	case !(c.Level.Rate >= 0 && c.Level.Rate <= 1e9):
		return FieldErrorf("level.rate", "level.rate must be between 0 and 1e9 per second, not %v", float64(c.Level.Rate))
	case c.Level.Burst < 0:
		return FieldErrorf("level.burst", "level.burst must not be negative, but is %d", c.Level.Burst)
	case c.Level.MaxInFlight < 0:
		return FieldErrorf("level.max_in_flight", "level.max_in_flight must not be negative, but is %d", c.Level.MaxInFlight)
	case !(c.Group.Rate >= 0 && c.Group.Rate <= 1e9):
		return FieldErrorf("group.rate", "group.rate must be between 0 and 1e9 per second, not %v", float64(c.Group.Rate))
	case c.Group.MaxInFlight < 0:
		return FieldErrorf("group.max_in_flight", "group.max_in_flight must not be negative, but is %d", c.Group.MaxInFlight)
	case c.MaxBytes < 0:
		return FieldErrorf("max_bytes", "max_bytes must not be negative, but is %d", c.MaxBytes)
	case c.MaxMessages < 0:
		return FieldErrorf("max_messages", "max_messages must not be negative, but is %d", c.MaxMessages)
	case c.MaxConsumers < 0:
		return FieldErrorf("max_consumers", "max_consumers must not be negative, but is %d", c.MaxConsumers)
	}
	switch c.Overflow {
	case "", OverflowReject, OverflowDropOldest, OverflowDeadLetter:
	default:
		return FieldErrorf("overflow", "overflow must be reject, drop_oldest or dead_letter, not %.40q", string(c.Overflow))
	}
	if c.DeadLetter != "" && c.DeadLetter != DeadLetterDrop {
		if err := ValidateQueueName(c.DeadLetter); err != nil {
			return FieldErrorf("dead_letter", "dead_letter: %s", err)
		}
	}
	if c.DedupBy != "" && (ValidateGroupBy(c.DedupBy) != nil || !strings.HasPrefix(c.DedupBy, "header:") && !strings.HasPrefix(c.DedupBy, "$.")) {
		return FieldErrorf("dedup.by", "dedup.by must be header:NAME or a $.json.path, not %.60q", c.DedupBy)
	}
	return ValidateGroupBy(c.GroupBy)
}

// ValidateGroupBy refuses an expression that GroupBy does not know.
func ValidateGroupBy(s string) error {
	switch {
	case s == "", s == "none", s == "routing_key", strings.HasPrefix(s, "$."):
		return nil
	case strings.HasPrefix(s, "header:") && len(s) > len("header:"):
		return nil
	}
	return FieldErrorf("group_by", "group_by must be header:NAME, a $.json.path, routing_key or none, not %.60q", s)
}

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

// ValidateQueueName refuses a full name with an empty, overlong, non-UTF-8 or control-character part.
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

	Ready, Blocked, Delayed, Leased int64         // messages by State; their sum and Damaged's is all that is stored
	Damaged                         int64         // messages that cannot be read; above 0 an operator is needed
	Bytes                           int64         // bodies of all of them
	OldestAge                       time.Duration // of the oldest message that is not leased; 0 when there is none
	Groups                          int64
	Consumers                       int64
	Floor                           uint64 // every message with a lower Seq is settled for good

	// Counted since the broker opened.
	Published, Duplicates, Refused, Delivered, Acked, Nacked, Expired, DeadLettered, Dropped, LeasesLost uint64
	// Circled is how many of Dropped would have come to a queue that had given them up before, without any consumer's doing.
	Circled uint64

	// Waiting says why the next message is not being handed out; empty when nothing waits or all flows.
	Waiting string

	// Policy names the policy that changes the settings, and Own are then those the queue was declared with; Config is what
	// results. Without one they are "" and nil.
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
