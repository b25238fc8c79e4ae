package queue

import (
	"strings"

	"github.com/surgetank/surgetank"
)

// retryFor returns the retry settings for a failure: the rule of retry.by_reason with the longest
// beginning of the reason. Members that the rule leaves out come from retry. Upper and lower case
// are the same.
func (q *Queue) retryFor(reason string) *surgetank.RetryConfig {
	r := &q.config.Retry
	if len(r.ByReason) == 0 || reason == "" {
		return r
	}
	var rule surgetank.RetryRule
	longest, lower := 0, strings.ToLower(reason)
	// unordered: only one text is the longest
	for text, x := range r.ByReason {
		if text = strings.ToLower(text); len(text) > longest && strings.HasPrefix(lower, text) {
			longest, rule = len(text), x
		}
	}
	if longest == 0 {
		return r
	}
	own := *r
	set(&own.MaxAttempts, rule.MaxAttempts)
	set(&own.Initial, rule.Initial)
	set(&own.Factor, rule.Factor)
	set(&own.Max, rule.Max)
	set(&own.Jitter, rule.Jitter)
	return &own
}

// set replaces a setting by another value if the other value is not zero.
func set[T comparable](into *T, v T) {
	var zero T
	if v != zero {
		*into = v
	}
}
