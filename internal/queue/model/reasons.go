package model

import (
	"strings"

	"github.com/surgetank/surgetank"
)

// schedule returns the retry settings for a reason: the rule with the longest beginning of the
// reason decides.
func (q *Queue) schedule(why string) surgetank.RetryConfig {
	r := q.Config.Retry
	for n := len(why); n > 0; n-- {
		for text, rule := range r.ByReason {
			if strings.ToLower(text) != strings.ToLower(why[:n]) {
				continue
			}
			if rule.MaxAttempts != 0 {
				r.MaxAttempts = rule.MaxAttempts
			}
			if rule.Initial != 0 {
				r.Initial = rule.Initial
			}
			if rule.Factor != 0 {
				r.Factor = rule.Factor
			}
			if rule.Max != 0 {
				r.Max = rule.Max
			}
			if rule.Jitter != 0 {
				r.Jitter = rule.Jitter
			}
			return r
		}
	}
	return r
}
