package settings

import (
	"cmp"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/fullname"
)

// Setting is one setting of a queue: a key of the configuration file and a field of
// surgetank.QueueConfig. All code that reads, checks, writes or documents settings uses Table, and
// so do tests that draw random settings.
type Setting struct {
	Path string // the key; nested keys have dots
	Help string // text for the documentation, the command line and the HTTP interface
	Zero string // the meaning of 0 or a missing key; "" if Default says it

	// Default replaces a zero field. DefaultOf computes the default from other settings, and
	// DefaultHelp describes the result. Without Default and DefaultOf, zero stays zero.
	Default     any
	DefaultOf   func(*surgetank.QueueConfig) any
	DefaultHelp string

	// Min and Max limit numbers, durations (nanoseconds) and rates (per second). If Min is above 0,
	// a written 0 is refused, but a field that is 0 still means the default. If Max is 0, only the
	// type and MaxDuration limit the value.
	Min, Max float64
	// None is the written form of "none" if a zero field means the default. For "none" the field is
	// negative.
	None string

	Bytes   bool               // the number is a size, with units
	Choices []string           // the allowed values of a text
	Check   func(string) error // checks a text of QueueConfig; its error is a sentence without the path
	Needs   string             // the path of a setting that must not be zero if this setting is not zero
	Plain   bool               // the written form must be a queue's name without a virtual host; QueueConfig can have a full name
	Example any                // a value in written form that is not the default

	// RabbitMQ is the key for this setting in RabbitMQ's policies, or "".
	RabbitMQ string
	// NoPolicy is why a policy cannot change the setting, or "" if a policy can.
	NoPolicy string

	place
}

// place has the accessors of a setting's value in a QueueConfig.
type place struct {
	at    func(*config) any // a pointer to the field
	copy  func(onto, from *config)
	same  func(a, b *config) bool
	lower func(onto, from *config) // nil if the setting is no limit
}

// field returns the accessors of a setting that a policy replaces.
func field[T comparable](at func(*config) *T) place {
	return place{
		at:   func(c *config) any { return at(c) },
		copy: func(onto, from *config) { *at(onto) = *at(from) },
		same: func(a, b *config) bool { return *at(a) == *at(b) },
	}
}

// byName returns the accessors of a map from names to whole numbers. A policy replaces the whole
// map.
func byName(at func(*config) *map[string]int) place {
	return place{
		at:   func(c *config) any { return at(c) },
		copy: func(onto, from *config) { *at(onto) = maps.Clone(*at(from)) },
		same: func(a, b *config) bool { return maps.Equal(*at(a), *at(b)) },
	}
}

// limit returns the accessors of a limit. 0 and negative numbers mean no limit. If a queue and a
// policy both have a limit, the lower one applies.
func limit[T cmp.Ordered](at func(*config) *T) place {
	p := field(at)
	p.lower = func(onto, from *config) {
		var none T
		if a, b := *at(onto), *at(from); b > none && (a <= none || b < a) {
			*at(onto) = b
		}
	}
	return p
}

const (
	maxCount  = 1 << 30
	maxShards = 64 // as door.MaxShards
)

// Table has every setting of a queue, in the order in which settings are written.
var Table = []Setting{
	{Path: "group_by", place: field(func(c *config) *string { return &c.GroupBy }), Default: "none", Check: checkGroupBy, Example: "$.customer",
		Help: "The source of a message's group if its publisher set none: `header:NAME`, a `$.json.path` into a JSON body, `routing_key` or `none`."},
	{Path: "group.max_in_flight", place: limit(func(c *config) *int { return &c.Group.MaxInFlight }), Max: maxCount, Zero: "no limit", Example: 1,
		Help: "The largest number of leased messages of one group. 1 keeps strict order in each group."},
	{Path: "group.rate", place: limit(func(c *config) *surgetank.Rate { return &c.Group.Rate }), Max: 1e9, Zero: "no limit", Example: "50/s",
		Help: "The highest rate of deliveries of one group."},
	{Path: "group.fair", place: field(func(c *config) *bool { return &c.Group.Fair }), Zero: "the oldest message goes first", Example: true,
		Help: "Groups take turns."},
	{Path: "group.weights", place: byName(func(c *config) *map[string]int { return &c.Group.Weights }), Min: 1, Max: surgetank.MaxWeight, Needs: "group.fair", Zero: "every group has weight 1",
		Example: map[string]any{"acme": 3, surgetank.OtherGroups: 2},
		Help:    "The shares of groups that take turns, at most 1000 names. A group with weight 3 gets three turns where a group with weight 1 gets one. The name `*` means all other groups."},
	{Path: "level.rate", place: limit(func(c *config) *surgetank.Rate { return &c.Level.Rate }), Max: 1e9, Zero: "no limit", Example: "2000/s",
		Help: "The highest rate of deliveries of the queue."},
	{Path: "level.burst", place: field(func(c *config) *int { return &c.Level.Burst }), Min: 1, Max: maxCount, Example: 200,
		DefaultOf: func(c *config) any {
			if c.Level.Rate <= 0 {
				return 0
			}
			return max(1, int(c.Level.Rate/10))
		},
		DefaultHelp: "a tenth of a second's worth of `level.rate`, at least 1",
		Help:        "The largest number of deliveries at once after a pause."},
	{Path: "level.max_in_flight", place: limit(func(c *config) *int { return &c.Level.MaxInFlight }), Max: maxCount, Zero: "no limit", Example: 64,
		Help: "The largest number of leased messages of the queue."},
	{Path: "level.fresh_share", place: field(func(c *config) *float64 { return &c.Level.FreshShare }), Max: 1, Zero: "old and fresh messages are alike", Example: 0.2,
		Help: "The part of deliveries that fresh messages get while older messages wait. Messages without a group then overtake older ones."},
	{Path: "level.fresh_age", place: field(func(c *config) *timeDuration { return &c.Level.FreshAge }), Example: "5m",
		DefaultOf: func(c *config) any {
			if c.Level.FreshShare <= 0 {
				return timeDuration(0)
			}
			return timeDuration(surgetank.DefaultFreshAge)
		},
		DefaultHelp: "`1m` if `level.fresh_share` is set",
		Help:        "A message is fresh until it has waited for this time."},
	{Path: "level.adaptive", place: field(func(c *config) *surgetank.AdaptiveConfig { return &c.Level.Adaptive }), Zero: "off", Example: map[string]any{"min": 2, "max": 100},
		Help: "`true`, or a map with any of `min`, `max` and `tolerance`: find by itself how many messages the target can process at the same time."},
	{Path: "level.breaker", place: field(func(c *config) *surgetank.BreakerMode { return &c.Level.Breaker }), DefaultHelp: "`reports`",
		Choices: []string{string(surgetank.BreakerOff), string(surgetank.BreakerReports), string(surgetank.BreakerErrors)}, Example: "errors",
		Help: "What shows that the target is down, so that deliveries stop: nothing, reports of consumers, or also errors and silence."},
	{Path: "level.target", place: field(func(c *config) *string { return &c.Level.Target }), Check: checkTarget, Zero: "the queue shares with no other", Example: "billing-db",
		Help: "The name of the consumers' target. Queues with the same name share one adaptive limit and one breaker."},
	{Path: "accept.rate", place: limit(func(c *config) *surgetank.Rate { return &c.Accept.Rate }), Max: 1e9, Zero: "no limit", Example: "5000/s",
		Help: "The highest rate of publishes to the queue. More are refused, with the time after which to try again."},
	{Path: "accept.burst", place: field(func(c *config) *int { return &c.Accept.Burst }), Min: 1, Max: maxCount, Example: 1000,
		DefaultOf: func(c *config) any {
			if c.Accept.Rate <= 0 {
				return 0
			}
			return max(1, int(c.Accept.Rate/10))
		},
		DefaultHelp: "a tenth of a second's worth of `accept.rate`, at least 1",
		Help:        "The largest number of publishes at once after a pause."},
	{Path: "retry.max_attempts", place: limit(func(c *config) *int { return &c.Retry.MaxAttempts }), Min: 1, Max: maxCount, None: Unlimited,
		Default: surgetank.DefaultMaxAttempts, Example: 8, RabbitMQ: "delivery-limit",
		Help: "Attempts before a message becomes a dead letter, or `unlimited`."},
	{Path: "retry.initial", place: field(func(c *config) *timeDuration { return &c.Retry.Initial }), None: "0s", Default: surgetank.DefaultRetryInitial, Example: "5s",
		Help: "Delay after the first failed attempt. `0s` is no delay."},
	{Path: "retry.factor", place: field(func(c *config) *float64 { return &c.Retry.Factor }), Min: 1, Max: 1000, Default: 2.0, Example: 3,
		Help: "Each further delay is longer by this factor."},
	{Path: "retry.max", place: field(func(c *config) *timeDuration { return &c.Retry.Max }), Min: 1, Default: surgetank.DefaultRetryMax, Example: "1h",
		Help: "The longest delay."},
	{Path: "retry.jitter", place: field(func(c *config) *float64 { return &c.Retry.Jitter }), Max: 1, None: "0", Default: 0.5, Example: 0.1,
		Help: "The random share of a delay: each delay is between (1 − jitter) × delay and the delay."},
	{Path: "retry.budget", place: limit(func(c *config) *float64 { return &c.Retry.Budget }), Max: 100, Zero: "no limit", Example: 0.2,
		Help: "The most retries as a share of first attempts: 0.2 is one retry for five first attempts, plus one a second."},
	{Path: "retry.by_reason", place: byReason(func(c *config) *reasonRules { return &c.Retry.ByReason }), Zero: "one schedule for all reasons",
		Example: map[string]any{"deadlock": map[string]any{"initial": "50ms"}},
		Help:    "Schedules for failures whose reason begins with one of these texts, at most 32. Case does not count, and the longest text that fits applies. A rule has the keys `max_attempts`, `initial`, `factor`, `max` and `jitter`; a missing one is that of `retry`."},
	{Path: "dead_letter", place: field(func(c *config) *string { return &c.DeadLetter }), Check: checkDeadLetter, Plain: true, DefaultHelp: "`NAME.dead`, created when it is first needed",
		Example: "orders.dead", RabbitMQ: "dead-letter-exchange",
		Help: "The queue for dead letters. `-` drops rejected and expired messages."},
	{Path: "dedup.window", place: field(func(c *config) *timeDuration { return &c.DedupWindow }), Zero: "no dedup", Example: "10m",
		Help: "How long a dedup id is remembered. A second message with the id is confirmed and not stored."},
	{Path: "dedup.by", place: field(func(c *config) *string { return &c.DedupBy }), Check: checkDedupBy, Zero: "only publishers set ids", Example: "$.id",
		Help: "The source of a message's dedup id if its publisher set none: `header:NAME` or a `$.json.path` into a JSON body. `header:message-id` is AMQP's property."},
	{Path: "coalesce.by", place: field(func(c *config) *string { return &c.Coalesce.By }), Check: checkCoalesceBy, Zero: "no coalescing", Example: "header:customer",
		Help: "The source of a message's coalescing key: `header:NAME`, a `$.json.path` into a JSON body, `routing_key` or `group`. Waiting messages of a group with the same key become one."},
	{Path: "coalesce.keep", Needs: "coalesce.by", place: field(func(c *config) *surgetank.Keep { return &c.Coalesce.Keep }), Choices: []string{string(surgetank.KeepLast), string(surgetank.KeepFirst)}, Example: "first",
		DefaultOf: func(c *config) any {
			if c.Coalesce.By == "" {
				return surgetank.Keep("")
			}
			return surgetank.KeepLast
		},
		DefaultHelp: "`last`",
		Help:        "Which message of a key is delivered: the `last` or the `first`."},
	{Path: "coalesce.window", Needs: "coalesce.by", place: field(func(c *config) *timeDuration { return &c.Coalesce.Window }), Zero: "a message coalesces only while it waits anyway", Example: "5s",
		Help: "How long a message collects others with its key before it may be delivered."},
	{Path: "coalesce.max_wait", Needs: "coalesce.by", place: field(func(c *config) *timeDuration { return &c.Coalesce.MaxWait }), None: "0s", Example: "10m",
		DefaultOf: func(c *config) any {
			if c.Coalesce.By == "" {
				return timeDuration(0)
			}
			return max(time.Minute, min(10*c.Coalesce.Window, surgetank.MaxDuration))
		},
		DefaultHelp: "ten times `coalesce.window`, at least `1m`",
		Help:        "How long after the first message of a key further messages join. `0s` is no limit."},
	{Path: "ttl", place: limit(func(c *config) *timeDuration { return &c.TTL }), Zero: "messages do not expire", Example: "24h", RabbitMQ: "message-ttl",
		Help: "A message that waits longer becomes a dead letter."},
	{Path: "max_bytes", place: limit(func(c *config) *int64 { return &c.MaxBytes }), Bytes: true, Zero: "no limit", Example: "50GiB", RabbitMQ: "max-length-bytes",
		Help: "The limit for the bodies of waiting messages, in bytes."},
	{Path: "max_messages", place: limit(func(c *config) *int64 { return &c.MaxMessages }), Zero: "no limit", Example: 100000, RabbitMQ: "max-length",
		Help: "The largest number of waiting messages."},
	{Path: "max_consumers", place: limit(func(c *config) *int { return &c.MaxConsumers }), Max: maxCount, Zero: "no limit", Example: 9,
		Help: "The largest number of subscriptions and waiting receives."},
	{Path: "overflow", place: field(func(c *config) *surgetank.Overflow { return &c.Overflow }), Default: surgetank.OverflowReject,
		Choices: []string{string(surgetank.OverflowReject), string(surgetank.OverflowDropOldest), string(surgetank.OverflowDeadLetter)}, Example: "drop_oldest",
		Help: "What happens to a publish at a limit: it is refused, or the oldest waiting messages are dropped or become dead letters."},
	{Path: "max_priority", place: field(func(c *config) *uint8 { return &c.MaxPriority }), Max: surgetank.MaxPriority, Zero: "priorities are ignored", Example: 9,
		Help: "The highest priority of a message. Higher priorities are lowered to it."},
	{Path: "priority_step", place: field(func(c *config) *timeDuration { return &c.PriorityStep }), Max: float64(surgetank.MaxPriorityStep), Zero: "priorities do not age", Example: "30s",
		Help: "A message that waited for this time counts as one priority higher, so that low priorities are served, too."},
	{Path: "lease", place: field(func(c *config) *timeDuration { return &c.Lease }), Min: 1, Max: float64(surgetank.MaxLease), Default: surgetank.DefaultLease, Example: "1m",
		Help: "The time in which a consumer must ack a message, if the consumer sets no lease."},
	{Path: "shard", place: field(func(c *config) *int { return &c.Shard }), Min: 1, Max: maxShards, Zero: "the broker chooses", Example: 1,
		NoPolicy: "a queue stays in the shard in which it was created",
		Help:     "The shard in which the queue is created, from 1. A change has no effect on an existing queue."},
	{Path: "transient", place: field(func(c *config) *bool { return &c.Transient }), Zero: "the queue is kept", Example: true,
		NoPolicy: "whether a queue survives a restart is decided when it is declared",
		Help:     "The queue and its messages are removed when the server starts again."},
	{Path: "paused", place: field(func(c *config) *bool { return &c.Paused }), Zero: "not paused", Example: true,
		NoPolicy: "an operator pauses a single queue; use queue pause",
		Help:     "The queue accepts messages and delivers none."},
	{Path: "paused_until", place: field(func(c *config) *time.Time { return &c.PausedUntil }), Zero: "a pause lasts until `queue resume`", Example: "2030-01-02T03:04:05Z",
		NoPolicy: "an operator pauses a single queue; use queue pause",
		Help:     "When a pause ends by itself. `queue pause --for 10m` sets it."},
}

// Find returns the setting of a path, or nil.
func Find(path string) *Setting {
	return index[path]
}

// Copy sets the setting in onto to its value in from.
func (s *Setting) Copy(onto, from *surgetank.QueueConfig) { s.copy(onto, from) }

// Set decodes v, a value from a YAML or JSON decoder, into the setting. Its error is a sentence
// without the path.
func (s *Setting) Set(c *surgetank.QueueConfig, v any) error { return s.set(c, v) }

// Same reports whether the setting has the same value in a and b.
func (s *Setting) Same(a, b *surgetank.QueueConfig) bool { return s.same(a, b) }

// Limit reports whether the setting is a limit.
func (s *Setting) Limit() bool { return s.lower != nil }

// Lower copies a limit from one config onto another if the limit in from is lower.
func (s *Setting) Lower(onto, from *surgetank.QueueConfig) { s.lower(onto, from) }

func checkGroupBy(v string) error {
	switch {
	case v == "none", v == "routing_key", strings.HasPrefix(v, "$."):
		return nil
	case strings.HasPrefix(v, "header:") && len(v) > len("header:"):
		return nil
	}
	return fmt.Errorf("want header:NAME, a $.json.path, routing_key or none, not %.60q", v)
}

func checkDedupBy(v string) error {
	if checkGroupBy(v) != nil || v == "none" || v == "routing_key" {
		return fmt.Errorf("want header:NAME or a $.json.path, not %.60q", v)
	}
	return nil
}

func checkTarget(v string) error { return sentence(surgetank.ValidateName("target", v)) }

func checkCoalesceBy(v string) error {
	if v != "group" && checkGroupBy(v) != nil || v == "none" {
		return fmt.Errorf("want header:NAME, a $.json.path, routing_key or group, not %.60q", v)
	}
	return nil
}

func checkDeadLetter(v string) error { return sentence(fullname.Validate(v)) }
