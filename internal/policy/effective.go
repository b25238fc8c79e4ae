package policy

import (
	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/settings"
)

type config = surgetank.QueueConfig

// The two sets of defaults that queues are declared with: Surgetank's own, and those of a queue as
// RabbitMQ's clients expect it (tries again at once and for ever, drops what is refused and, at a
// limit, the oldest).
var (
	ownDefaults    = settings.WithDefaults(surgetank.QueueConfig{})
	rabbitDefaults = surgetank.QueueConfig{
		Retry: surgetank.RetryConfig{MaxAttempts: -1, Initial: -1}, DeadLetter: surgetank.DeadLetterDrop, Overflow: surgetank.OverflowDropOldest,
	}
)

// declared tells whether a queue's settings say something about one of them that is not a default.
// Defaults give way to a policy. Which defaults a queue has is read off its settings: nothing else
// remembers how it was declared.
func declared(c *config, s *settings.Setting) bool {
	var none config
	if s.Same(c, &none) || s.Same(c, &ownDefaults) {
		return false
	}
	return !(rabbitLike(c) && s.Same(c, &rabbitDefaults))
}

// rabbitLike tells of a queue that was declared with RabbitMQ's defaults.
func rabbitLike(c *config) bool {
	return c.Retry.Initial < 0 && (c.DeadLetter == surgetank.DeadLetterDrop || IsPassage(c.DeadLetter))
}

func defaultBurst(r surgetank.Rate) int {
	return settings.WithDefaults(surgetank.QueueConfig{Level: surgetank.LevelConfig{Rate: r}}).Level.Burst
}

// effective gives the settings of a queue of vhost that was declared with c and comes under the
// rules.
func (r *rules) effective(vhost string, c config) config {
	if c.Level.Burst == defaultBurst(c.Level.Rate) {
		c.Level.Burst = 0 // it follows the rate
	}
	out, from := c, r.config
	if from.DeadLetter != "" && from.DeadLetter != surgetank.DeadLetterDrop {
		from.DeadLetter = surgetank.FullName(vhost, from.DeadLetter)
	}
	for i := range settings.Table {
		s := &settings.Table[i]
		switch {
		case !r.given[s.Path]:
		case !declared(&c, s):
			s.Copy(&out, &from)
		case s.Limit():
			s.Lower(&out, &from)
		}
	}
	if r.door.HasDeadLetter && !declared(&c, settings.Find("dead_letter")) {
		out.DeadLetter = Passage(vhost)
	}
	// With a dead-letter exchange the oldest that make room are dead-lettered, unless the policy
	// says in Surgetank's words that they are dropped.
	if IsPassage(out.DeadLetter) && out.Overflow == surgetank.OverflowDropOldest && (r.dropHead || !r.given["overflow"]) {
		out.Overflow = surgetank.OverflowDeadLetter
	}
	return out
}
