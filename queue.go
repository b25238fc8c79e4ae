package surgetank

import (
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/surgetank/surgetank/internal/hidden"
)

// QueueConfig is the settings of a queue. It is stored in the log, and every API shows the same
// settings. The zero value is valid: WithDefaults fills in the defaults. docs/configuration.md
// lists the names in JSON and YAML.
type QueueConfig struct {
	// GroupBy finds the group of a message if its publisher did not set a group. It is
	// "header:NAME", "$.json.path" into a JSON body, "routing_key" or "none".
	GroupBy string
	Group   GroupConfig
	Level   LevelConfig
	Accept  AcceptConfig `json:",omitzero"`
	Retry   RetryConfig
	// DeadLetter is the queue for dead letters. Empty: NAME.dead, created when it is first needed.
	// DeadLetterDrop: rejected and expired messages are dropped.
	DeadLetter  string
	DedupWindow time.Duration // 0: no dedup
	// DedupBy finds the dedup id of a message if its publisher did not set an id. It is
	// "header:NAME" or "$.json.path" into a JSON body. Empty: only publishers set ids. In this
	// rule, the message-id property of other protocols is the header message-id.
	DedupBy     string         `json:",omitempty"`
	Coalesce    CoalesceConfig `json:",omitzero"`
	TTL         time.Duration  // 0: messages do not expire
	MaxBytes    int64          // bytes of the bodies of all waiting messages; 0: no limit
	MaxMessages int64          // number of waiting messages; 0: no limit
	// MaxConsumers limits the queue's consumers: subscriptions, and receives that wait. 0: no
	// limit.
	MaxConsumers int `json:",omitempty"`
	Overflow     Overflow
	// Shard is the shard in which the queue is created, from 1. 0: the broker chooses. A change has
	// no effect on an existing queue.
	Shard       int           `json:",omitempty"`
	MaxPriority uint8         // 0: priorities are ignored
	Lease       time.Duration // lease for consumers that set none; 0: DefaultLease
	// Transient queues and their messages are removed when another program opens the broker. They stay
	// if the same program opens it again after its log has failed.
	Transient bool
	Paused    bool // the queue accepts messages but delivers none
	// PriorityStep is the ageing of priorities: a message that waited for one step counts as one
	// priority higher. 0: no ageing. Ages are counted in whole seconds.
	PriorityStep time.Duration `json:",omitempty"`
	// PausedUntil ends a pause by itself. Zero: the pause lasts until ResumeQueue.
	PausedUntil time.Time `json:",omitzero"`
}

// GroupConfig is the settings that apply to each group of a queue.
type GroupConfig struct {
	MaxInFlight int  // leased messages of one group; 1 gives strict order; 0: no limit
	Rate        Rate // deliveries of one group
	Fair        bool // groups take turns; otherwise the oldest message is first
	// Weights are the shares of groups in a fair queue. A group with weight 3 gets three deliveries
	// for each delivery of a group with weight 1. The entry OtherGroups is the weight of all groups
	// without an entry of their own; its default is 1. A weight is 1 to MaxWeight. Do not change a
	// map that was passed to a broker.
	Weights map[string]int `json:",omitempty"`
}

// OtherGroups is the name in GroupConfig.Weights for all groups without an entry of their own.
const OtherGroups = "*"

// LevelConfig is the flow control between a queue and its consumers.
type LevelConfig struct {
	Rate        Rate
	Burst       int // deliveries at once after a pause; 0: a tenth of a second's worth, at least 1
	MaxInFlight int // leased messages; 0: no limit
	// FreshShare is the part of deliveries, 0 to 1, that messages younger than FreshAge get while
	// older messages wait, too. 0: the age of a message changes nothing.
	FreshShare float64       `json:",omitempty"`
	FreshAge   time.Duration `json:",omitempty"` // with FreshShare, 0 means DefaultFreshAge
	// Adaptive measures how many messages the target can process at the same time, and limits the
	// leased messages.
	Adaptive AdaptiveConfig `json:",omitzero"`
	// Breaker says which evidence that the target is down stops deliveries. "" means
	// BreakerReports.
	Breaker BreakerMode `json:",omitempty"`
	// Target names the target of the queue's consumers. Queues of one virtual host with the same
	// name share an adaptive limit and a breaker. "": the queue shares them with no other queue.
	Target string `json:",omitempty"`
}

// AdaptiveConfig bounds an adaptive limit. A zero number means its default.
type AdaptiveConfig struct {
	On        bool
	Min       int     `json:",omitempty"` // the smallest limit; 0: 1
	Max       int     `json:",omitempty"` // the largest limit; 0: 64
	Tolerance float64 `json:",omitempty"` // the accepted slowdown of the target, as a factor of at least 1.2; 0: 1.5
}

// BreakerMode says which evidence shows that a target is down.
type BreakerMode string

const (
	BreakerOff     BreakerMode = "off"     // no evidence: the queue has no breaker
	BreakerReports BreakerMode = "reports" // only reports of consumers that the target is down, and commands; the default
	BreakerErrors  BreakerMode = "errors"  // reports, commands, a high share of errors, and silence of the target
)

// AcceptConfig limits the publishers of a queue. Dead letters and redriven messages do not count.
type AcceptConfig struct {
	Rate  Rate // rate of published messages; more messages are refused with CodeBusy and RetryAfter
	Burst int  // messages at once after a pause; 0: a tenth of a second's worth, at least 1
}

// CoalesceConfig replaces waiting messages with the same key by one message. A key is a value of
// the message, within its group. The zero value means that every message is delivered.
type CoalesceConfig struct {
	// By finds the key of a message: "header:NAME", "$.json.path" into a JSON body, "routing_key"
	// or "group". Messages without a value are not coalesced. Empty: no coalescing.
	By string `json:",omitempty"`
	// Keep says which message of a key is delivered. Empty: KeepLast.
	Keep Keep `json:",omitempty"`
	// Window is how long a message waits for other messages of its key before it can be delivered.
	// 0: no extra wait.
	Window time.Duration `json:",omitempty"`
	// MaxWait is how long after the first message of a key other messages replace or join it. After
	// this time the next message is stored. 0: ten times Window, at least a minute; NoMaxWait: no
	// limit.
	MaxWait time.Duration `json:",omitempty"`
}

// Keep is which message of a key is delivered.
type Keep string

const (
	KeepLast  Keep = "last"  // a new message replaces the waiting one (the default)
	KeepFirst Keep = "first" // while a message waits, a new message is confirmed and not stored
)

// NoMaxWait as CoalesceConfig.MaxWait lets messages replace or join a waiting message without a
// limit of time.
const NoMaxWait = time.Duration(-1)

// RetryConfig says when a message is tried again, and when it becomes a dead letter.
type RetryConfig struct {
	MaxAttempts int           // attempts before the dead letter; 0: DefaultMaxAttempts; Unlimited: never
	Initial     time.Duration // delay after the first failed attempt; 0: DefaultRetryInitial; NoDelay: none
	Factor      float64       // each delay is the previous delay times this factor; 0: 2
	Max         time.Duration // the longest delay; 0: 10 minutes
	Jitter      float64       // 0 to 1: each delay d is random in [d·(1−jitter), d]; 0: 0.5; NoJitter: none
	// Budget limits retries to this share of first attempts, plus one retry a second. 0: no limit.
	Budget float64 `json:",omitempty"`
	// ByReason has other schedules, by the beginning of a failure's reason, in upper or lower case.
	// If several beginnings fit, the longest applies. A queue has at most MaxReasons schedules. Do
	// not change a map that was passed to a broker.
	ByReason map[string]RetryRule `json:",omitempty"`
}

// RetryRule is a schedule for some reasons of failures. For a zero member, the queue's RetryConfig
// applies.
type RetryRule struct {
	MaxAttempts int           `json:",omitempty"`
	Initial     time.Duration `json:",omitempty"`
	Factor      float64       `json:",omitempty"`
	Max         time.Duration `json:",omitempty"`
	Jitter      float64       `json:",omitempty"`
}

// Values of RetryConfig for "none", because a zero field means the default.
const (
	Unlimited = -1                // for MaxAttempts: a message is tried without end
	NoDelay   = time.Duration(-1) // for Initial: a message is tried again at once
	NoJitter  = -1.0              // for Jitter: delays are not random
)

// Rate is messages per second. 0 means no limit.
type Rate float64

// Overflow is what a queue at its limit does with a new message.
type Overflow string

const (
	OverflowReject     Overflow = "reject"      // the publish is refused with CodeFull (the default)
	OverflowDropOldest Overflow = "drop_oldest" // the oldest waiting messages are dropped
	OverflowDeadLetter Overflow = "dead_letter" // the oldest waiting messages are dead-lettered
)

// Defaults and limits of a queue's settings.
const (
	DefaultLease        = 30 * time.Second
	MaxLease            = 12 * time.Hour
	DefaultMaxAttempts  = 20
	DefaultRetryInitial = time.Second
	DefaultRetryMax     = 10 * time.Minute
	DefaultFreshAge     = time.Minute
	// MaxWeight and MaxWeights limit GroupConfig.Weights: the largest weight, and the number of
	// names.
	MaxWeight  = 1000
	MaxWeights = 1000
	// MaxReasons limits RetryConfig.ByReason.
	MaxReasons = 32
	// MaxPriorityStep is the longest PriorityStep.
	MaxPriorityStep = 30 * 24 * time.Hour
	// DeadLetterDrop for QueueConfig.DeadLetter drops messages instead of storing dead letters.
	DeadLetterDrop = "-"
	// DeadLetterSuffix follows a queue's name in the name of its dead-letter queue.
	DeadLetterSuffix = ".dead"
	// MaxDuration is the longest delay, TTL and window.
	MaxDuration = 10 * 365 * 24 * time.Hour
)

// ValidateName returns CodeInvalid for a name that is empty, longer than MaxNameLen bytes, not
// UTF-8, or has control characters. what is the kind of name, for the error's text.
func ValidateName(what, name string) error {
	switch {
	case name == "":
		return FieldErrorf("name", "the %s name is empty; set a name", what)
	case len(name) > MaxNameLen:
		return FieldErrorf("name", "the %s name has %d bytes; at most %d are allowed", what, len(name), MaxNameLen)
	case !utf8.ValidString(name):
		return FieldErrorf("name", "the %s name %.60q is not valid UTF-8", what, name)
	case strings.ContainsFunc(name, unicode.IsControl):
		return FieldErrorf("name", "the %s name %.60q contains a control character", what, name)
	}
	return nil
}

// floor is the field of a queue's info that package internal/door reads and sets.
type floor = hidden.Field[uint64]

// QueueInfo is the settings and current figures of a queue.
type QueueInfo struct {
	Name    string
	ID      uint64
	Config  QueueConfig
	Created time.Time

	Ready, Blocked, Delayed, Leased int64 // messages by State; with Damaged, these are all stored messages
	Damaged                         int64 // messages that cannot be read; more than 0 needs an operator
	Bytes                           int64 // bytes of the bodies of all stored messages
	// OldestAge is the longest time that a ready or blocked message has waited, or 0 if none waits.
	// The wait of a delayed message begins after its delay.
	OldestAge time.Duration
	// BackingOff is the part of Delayed that waits for another try. NextTry is the time of the
	// earliest try. Failure is why that message came back: the consumer's reason or the broker's
	// text. Failure is empty if there is no reason. BackingOff, NextTry and Failure are zero if no
	// message is in back-off.
	BackingOff int64
	NextTry    time.Time
	Failure    string
	Groups     int64
	Consumers  int64
	floor      // the number below which every message was settled for good

	// These are counted from the opening of the broker.
	Published, Duplicates, Refused, Delivered, Acked, Nacked, Expired, DeadLettered, Dropped, LeasesLost uint64
	// Circled is the part of Dropped that was dropped to end a circle: without any consumer in
	// between, the message would have entered a queue that had dead-lettered it before.
	Circled uint64
	// Coalesced counts messages that were confirmed and not delivered, because another message with
	// their key is delivered instead.
	Coalesced uint64

	// In and Out are messages a second. In counts published messages and dead letters that came in.
	// Out counts messages that left for good. Both rates begin at zero when the broker opens.
	In, Out Rates

	// Refusals counts the refusals of each limit, since the opening of the broker.
	Refusals []Refusal

	// Level is the state of the adaptive limit and the breaker. It is nil if the queue uses
	// neither.
	Level *LevelInfo

	// PausedBy is the user who paused the queue, and PausedAt is when. PausedBy is empty if no user
	// is known, for example in an embedded broker. Both are zero if the queue is not paused.
	PausedBy string
	PausedAt time.Time

	// Shard is the queue's shard, from 1; 0 if the broker has one shard. Moving is the state of a
	// move to another shard; nil if none is under way.
	Shard  int
	Moving *MoveInfo

	// Waiting says why the next message is not delivered. It is empty if no message waits or
	// deliveries go on.
	Waiting string

	// Policy names the policy that changes the settings. With a policy, Own is the declared
	// settings, and Config the settings in force. Without a policy, Policy is "" and Own is nil.
	Policy string
	Own    *QueueConfig
}

// Refusal counts the refusals of one limit.
type Refusal struct {
	Limit string // as in Error.Limit
	Count uint64
	Last  time.Time // the time of the newest refusal
}

// Declared returns the settings of the declaration, without the changes of a policy.
func (i QueueInfo) Declared() QueueConfig {
	if i.Own != nil {
		return *i.Own
	}
	return i.Config
}
