package settings

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/surgetank/surgetank"
)

// Setting is one setting of a queue: a key of the configuration file and a field of
// surgetank.QueueConfig. Whoever reads, checks, writes, documents or draws settings does it by
// Table.
type Setting struct {
	Path string // the key, nested ones with dots
	Help string // sentences for the documentation, the command line and the HTTP interface
	Zero string // the meaning of the value 0 or of a missing key; "" if Default says it

	// Default is the value of a field that is zero. DefaultOf computes it from other settings, and
	// DefaultHelp says how. Without either, zero stays zero.
	Default     any
	DefaultOf   func(*surgetank.QueueConfig) any
	DefaultHelp string

	// Min and Max bound numbers, durations (nanoseconds) and rates (per second). A Min above 0
	// refuses 0 in writing, while a field that is 0 still means the default. Max 0: no bound but
	// that of the type, and MaxDuration.
	Min, Max float64
	// None is how "none at all" is written where a zero field means the default. The field is
	// negative then.
	None string

	Bytes   bool               // the number is a size, with units
	Choices []string           // of text: the values there are
	Check   func(string) error // of text as QueueConfig has it; its error is a sentence without the path
	Plain   bool               // text that may be a queue's full name in QueueConfig, and is a plain name in writing
	Example any                // a value that is not the default, as it is written

	// RabbitMQ is the key of RabbitMQ's policies for the same setting, "" if there is none.
	RabbitMQ string
	// NoPolicy says why no policy can set it; "": a policy can.
	NoPolicy string

	place
}

// place is where the value of a setting is in a QueueConfig.
type place struct {
	at    func(*config) any // a pointer to the field
	copy  func(onto, from *config)
	same  func(a, b *config) bool
	lower func(onto, from *config) // nil unless the setting is a limit
}

// field is the place of a setting that a policy replaces.
func field[T comparable](at func(*config) *T) place {
	return place{
		at:   func(c *config) any { return at(c) },
		copy: func(onto, from *config) { *at(onto) = *at(from) },
		same: func(a, b *config) bool { return *at(a) == *at(b) },
	}
}

// limit is the place of a number of which the lower is the stricter one; 0 and less mean that there
// is no limit. Of a queue's own limit and a policy's the stricter one holds.
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

const maxCount = 1 << 30

// Table is every setting of a queue, in the order in which settings are written.
var Table = []Setting{
	{Path: "group_by", place: field(func(c *config) *string { return &c.GroupBy }), Default: "none", Check: checkGroupBy, Example: "$.customer",
		Help: "Where the group of a message is found if its publisher named none: `header:NAME`, a `$.json.path` of a JSON body, `routing_key` or `none`."},
	{Path: "group.max_in_flight", place: limit(func(c *config) *int { return &c.Group.MaxInFlight }), Max: maxCount, Zero: "no limit", Example: 1,
		Help: "Leased messages of one group at a time. 1 keeps strict order in each group."},
	{Path: "group.rate", place: limit(func(c *config) *surgetank.Rate { return &c.Group.Rate }), Max: 1e9, Zero: "no limit", Example: "50/s",
		Help: "Hand-outs of one group per time."},
	{Path: "group.fair", place: field(func(c *config) *bool { return &c.Group.Fair }), Zero: "the oldest message goes first", Example: true,
		Help: "Groups take turns."},
	{Path: "level.rate", place: limit(func(c *config) *surgetank.Rate { return &c.Level.Rate }), Max: 1e9, Zero: "no limit", Example: "2000/s",
		Help: "Hand-outs of the queue per time."},
	{Path: "level.burst", place: field(func(c *config) *int { return &c.Level.Burst }), Min: 1, Max: maxCount, Example: 200,
		DefaultOf: func(c *config) any {
			if c.Level.Rate <= 0 {
				return 0
			}
			return max(1, int(c.Level.Rate/10))
		},
		DefaultHelp: "a tenth of a second's worth of `level.rate`, at least 1",
		Help:        "Hand-outs that may come at once after a pause."},
	{Path: "level.max_in_flight", place: limit(func(c *config) *int { return &c.Level.MaxInFlight }), Max: maxCount, Zero: "no limit", Example: 64,
		Help: "Leased messages of the queue at a time."},
	{Path: "retry.max_attempts", place: limit(func(c *config) *int { return &c.Retry.MaxAttempts }), Min: 1, Max: maxCount, None: Unlimited,
		Default: surgetank.DefaultMaxAttempts, Example: 8, RabbitMQ: "delivery-limit",
		Help: "Attempts before a message is dead-lettered, or `unlimited`."},
	{Path: "retry.initial", place: field(func(c *config) *timeDuration { return &c.Retry.Initial }), None: "0s", Default: surgetank.DefaultRetryInitial, Example: "5s",
		Help: "Delay after the first failed attempt. `0s` is no delay."},
	{Path: "retry.factor", place: field(func(c *config) *float64 { return &c.Retry.Factor }), Min: 1, Max: 1000, Default: 2.0, Example: 3,
		Help: "Each further delay is so many times longer."},
	{Path: "retry.max", place: field(func(c *config) *timeDuration { return &c.Retry.Max }), Min: 1, Default: surgetank.DefaultRetryMax, Example: "1h",
		Help: "The longest delay."},
	{Path: "retry.jitter", place: field(func(c *config) *float64 { return &c.Retry.Jitter }), Max: 1, None: "0", Default: 0.5, Example: 0.1,
		Help: "Share of a delay that is drawn at random: each delay is between (1 − jitter) × delay and the delay."},
	{Path: "dead_letter", place: field(func(c *config) *string { return &c.DeadLetter }), Check: checkDeadLetter, Plain: true, DefaultHelp: "`NAME.dead`, made when it is first needed",
		Example: "orders.dead", RabbitMQ: "dead-letter-exchange",
		Help: "The queue for messages that are given up. `-` drops rejected and expired messages."},
	{Path: "dedup.window", place: field(func(c *config) *timeDuration { return &c.DedupWindow }), Zero: "no dedup", Example: "10m",
		Help: "How long the dedup id of a message is remembered. A second message with the id is confirmed and not stored."},
	{Path: "dedup.by", place: field(func(c *config) *string { return &c.DedupBy }), Check: checkDedupBy, Zero: "only publishers give ids", Example: "$.id",
		Help: "Where the dedup id of a message is found if its publisher gave none: `header:NAME` or a `$.json.path` of a JSON body. `header:message-id` is AMQP's property."},
	{Path: "ttl", place: limit(func(c *config) *timeDuration { return &c.TTL }), Zero: "messages do not expire", Example: "24h", RabbitMQ: "message-ttl",
		Help: "A message that waits longer is dead-lettered."},
	{Path: "max_bytes", place: limit(func(c *config) *int64 { return &c.MaxBytes }), Bytes: true, Zero: "no limit", Example: "50GiB", RabbitMQ: "max-length-bytes",
		Help: "Bytes of the bodies of waiting messages."},
	{Path: "max_messages", place: limit(func(c *config) *int64 { return &c.MaxMessages }), Zero: "no limit", Example: 100000, RabbitMQ: "max-length",
		Help: "Messages that wait."},
	{Path: "max_consumers", place: limit(func(c *config) *int { return &c.MaxConsumers }), Max: maxCount, Zero: "no limit", Example: 9,
		Help: "Subscriptions and waiting receives at a time."},
	{Path: "overflow", place: field(func(c *config) *surgetank.Overflow { return &c.Overflow }), Default: surgetank.OverflowReject,
		Choices: []string{string(surgetank.OverflowReject), string(surgetank.OverflowDropOldest), string(surgetank.OverflowDeadLetter)}, Example: "drop_oldest",
		Help: "What happens to a publish at a limit: it is refused, or the oldest waiting messages are dropped or dead-lettered."},
	{Path: "max_priority", place: field(func(c *config) *uint8 { return &c.MaxPriority }), Max: surgetank.MaxPriority, Zero: "priorities are ignored", Example: 9,
		Help: "The highest priority of a message. Higher ones are lowered to it."},
	{Path: "lease", place: field(func(c *config) *timeDuration { return &c.Lease }), Min: 1, Max: float64(surgetank.MaxLease), Default: surgetank.DefaultLease, Example: "1m",
		Help: "How long a consumer that does not say has a message before it must ack."},
	{Path: "transient", place: field(func(c *config) *bool { return &c.Transient }), Zero: "the queue is kept", Example: true,
		NoPolicy: "whether a queue survives a restart is decided when it is declared",
		Help:     "The queue and its messages are gone when the server starts again."},
	{Path: "paused", place: field(func(c *config) *bool { return &c.Paused }), Zero: "not paused", Example: true,
		NoPolicy: "pausing is an operator's decision of the moment; use queue pause",
		Help:     "The queue takes messages and hands none out."},
}

// Find gives the setting of a path, nil if there is none.
func Find(path string) *Setting {
	return index[path]
}

// Copy sets the setting in onto to its value in from.
func (s *Setting) Copy(onto, from *surgetank.QueueConfig) { s.copy(onto, from) }

// Set reads v, a value as a YAML or JSON decoder gives it, into the setting. Its error is a
// sentence without the path.
func (s *Setting) Set(c *surgetank.QueueConfig, v any) error { return s.set(c, v) }

// Same tells whether the setting has one value in both.
func (s *Setting) Same(a, b *surgetank.QueueConfig) bool { return s.same(a, b) }

// Limit tells whether the setting is a number of which the lower is the stricter one.
func (s *Setting) Limit() bool { return s.lower != nil }

// Lower sets a limit in onto to its value in from if that is the stricter one.
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

func checkDeadLetter(v string) error { return sentence(surgetank.ValidateQueueName(v)) }
