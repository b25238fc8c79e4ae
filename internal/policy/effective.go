package policy

import (
	"cmp"

	"github.com/surgetank/surgetank"
)

type config = surgetank.QueueConfig

// setting is one setting of a queue as policies handle it.
type setting struct {
	path  string
	copy  func(onto, from *config)
	same  func(a, b *config) bool
	lower func(onto, from *config) // of limits: takes from's where it is the lower one; nil for all else
}

func plain[T comparable](path string, at func(*config) *T) setting {
	return setting{path: path,
		copy: func(onto, from *config) { *at(onto) = *at(from) },
		same: func(a, b *config) bool { return *at(a) == *at(b) },
	}
}

// limit is a number of which the lower is the stricter one; 0 and less mean that there is none.
func limit[T cmp.Ordered](path string, at func(*config) *T) setting {
	s := plain(path, at)
	s.lower = func(onto, from *config) {
		var none T
		if a, b := *at(onto), *at(from); b > none && (a <= none || b < a) {
			*at(onto) = b
		}
	}
	return s
}

// table has every setting that a policy can set.
var table = []setting{
	plain("group_by", func(c *config) *string { return &c.GroupBy }),
	limit("group.max_in_flight", func(c *config) *int { return &c.Group.MaxInFlight }),
	limit("group.rate", func(c *config) *surgetank.Rate { return &c.Group.Rate }),
	plain("group.fair", func(c *config) *bool { return &c.Group.Fair }),
	limit("level.rate", func(c *config) *surgetank.Rate { return &c.Level.Rate }),
	plain("level.burst", func(c *config) *int { return &c.Level.Burst }),
	limit("level.max_in_flight", func(c *config) *int { return &c.Level.MaxInFlight }),
	limit("retry.max_attempts", func(c *config) *int { return &c.Retry.MaxAttempts }),
	plain("retry.initial", func(c *config) *duration { return &c.Retry.Initial }),
	plain("retry.factor", func(c *config) *float64 { return &c.Retry.Factor }),
	plain("retry.max", func(c *config) *duration { return &c.Retry.Max }),
	plain("retry.jitter", func(c *config) *float64 { return &c.Retry.Jitter }),
	plain("dead_letter", func(c *config) *string { return &c.DeadLetter }),
	plain("dedup.window", func(c *config) *duration { return &c.DedupWindow }),
	plain("dedup.by", func(c *config) *string { return &c.DedupBy }),
	limit("ttl", func(c *config) *duration { return &c.TTL }),
	limit("max_bytes", func(c *config) *int64 { return &c.MaxBytes }),
	limit("max_messages", func(c *config) *int64 { return &c.MaxMessages }),
	limit("max_consumers", func(c *config) *int { return &c.MaxConsumers }),
	plain("overflow", func(c *config) *surgetank.Overflow { return &c.Overflow }),
	plain("max_priority", func(c *config) *uint8 { return &c.MaxPriority }),
	plain("lease", func(c *config) *duration { return &c.Lease }),
}

func fieldOf(path string) *setting {
	for i := range table {
		if table[i].path == path {
			return &table[i]
		}
	}
	panic("policy: the setting " + path + " is not in the table") // a test holds the table to settings.Paths
}

// The two sets of defaults that queues are declared with: Surgetank's own, and those of a queue as RabbitMQ's clients expect
// it (tries again at once and for ever, drops what is refused and, at a limit, the oldest).
var (
	ownDefaults    = surgetank.QueueConfig{}.WithDefaults()
	rabbitDefaults = surgetank.QueueConfig{
		Retry: surgetank.RetryConfig{MaxAttempts: -1, Initial: -1}, DeadLetter: surgetank.DeadLetterDrop, Overflow: surgetank.OverflowDropOldest,
	}
)

// declared tells whether a queue's settings say something about one of them that is not a default. Defaults give way to a
// policy. Which defaults a queue has is read off its settings: nothing else remembers how it was declared.
func declared(c *config, s *setting) bool {
	var none config
	if s.same(c, &none) || s.same(c, &ownDefaults) {
		return false
	}
	return !(rabbitLike(c) && s.same(c, &rabbitDefaults))
}

// rabbitLike tells of a queue that was declared with RabbitMQ's defaults.
func rabbitLike(c *config) bool {
	return c.Retry.Initial < 0 && (c.DeadLetter == surgetank.DeadLetterDrop || IsPassage(c.DeadLetter))
}

func defaultBurst(r surgetank.Rate) int {
	return surgetank.QueueConfig{Level: surgetank.LevelConfig{Rate: r}}.WithDefaults().Level.Burst
}

// effective gives the settings of a queue of vhost that was declared with c and comes under the rules.
func (r *rules) effective(vhost string, c config) config {
	if c.Level.Burst == defaultBurst(c.Level.Rate) {
		c.Level.Burst = 0 // it follows the rate
	}
	out, from := c, r.config
	if from.DeadLetter != "" && from.DeadLetter != surgetank.DeadLetterDrop {
		from.DeadLetter = surgetank.FullName(vhost, from.DeadLetter)
	}
	for i := range table {
		s := &table[i]
		switch {
		case !r.given[s.path]:
		case !declared(&c, s):
			s.copy(&out, &from)
		case s.lower != nil:
			s.lower(&out, &from)
		}
	}
	if r.door.HasDeadLetter && !declared(&c, fieldOf("dead_letter")) {
		out.DeadLetter = Passage(vhost)
	}
	// With a dead-letter exchange the oldest that make room are dead-lettered, unless the policy says in Surgetank's words
	// that they are dropped.
	if IsPassage(out.DeadLetter) && out.Overflow == surgetank.OverflowDropOldest && (r.dropHead || !r.given["overflow"]) {
		out.Overflow = surgetank.OverflowDeadLetter
	}
	return out
}
