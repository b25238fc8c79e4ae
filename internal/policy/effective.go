package policy

import (
	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/fullname"
	"github.com/surgetank/surgetank/internal/settings"
)

type config = surgetank.QueueConfig

// The two sets of defaults for declared queues: Surgetank's own, and those that RabbitMQ's clients
// expect. RabbitMQ's retry at once and for ever, drop rejected messages, and drop the oldest
// message at a limit.
var (
	ownDefaults    = settings.WithDefaults(surgetank.QueueConfig{})
	rabbitDefaults = surgetank.QueueConfig{
		Retry: surgetank.RetryConfig{MaxAttempts: -1, Initial: -1}, DeadLetter: surgetank.DeadLetterDrop, Overflow: surgetank.OverflowDropOldest,
	}
)

// declared reports whether a queue's settings set one setting to a non-default value. A policy
// overrides defaults. Which defaults a queue has is derived from its settings, because the kind of
// declaration is not stored.
func declared(c *config, s *settings.Setting) bool {
	var none config
	if s.Same(c, &none) || s.Same(c, &ownDefaults) {
		return false
	}
	return !(rabbitLike(c) && s.Same(c, &rabbitDefaults))
}

// rabbitLike reports whether a queue was declared with RabbitMQ's defaults.
func rabbitLike(c *config) bool {
	return c.Retry.Initial < 0 && (c.DeadLetter == surgetank.DeadLetterDrop || IsPassage(c.DeadLetter))
}

func defaultBurst(r surgetank.Rate) int {
	return settings.WithDefaults(surgetank.QueueConfig{Level: surgetank.LevelConfig{Rate: r}}).Level.Burst
}

// effective returns the settings of a queue in vhost that was declared with c, under these rules.
func (r *rules) effective(vhost string, c config) config {
	if c.Level.Burst == defaultBurst(c.Level.Rate) {
		c.Level.Burst = 0 // the burst follows the rate
	}
	out, from := c, r.config
	if from.DeadLetter != "" && from.DeadLetter != surgetank.DeadLetterDrop {
		from.DeadLetter = fullname.Of(vhost, from.DeadLetter)
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
	// With a dead-letter exchange, the oldest messages that make room are dead-lettered, unless the
	// policy says in Surgetank's words that they are dropped.
	if IsPassage(out.DeadLetter) && out.Overflow == surgetank.OverflowDropOldest && (r.dropHead || !r.given["overflow"]) {
		out.Overflow = surgetank.OverflowDeadLetter
	}
	return out
}
