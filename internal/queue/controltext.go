package queue

import (
	"fmt"
	"time"

	"github.com/surgetank/surgetank/internal/breaker"
)

// explain describes, for a user, why the control stops hand-outs now.
func (c *control) explain(q *Queue) string {
	now := c.m.now
	clock := func(at int64) string { return time.Unix(0, at).UTC().Format(time.RFC3339) }
	secs := func(at int64) string { return fmt.Sprintf("%.1fs", max(0, float64(at-now)/1e9)) }
	if c.breaker != nil {
		switch s := c.breaker.Status(); {
		case s.State == breaker.Held:
			why := ""
			if s.Why != "" {
				why = ": " + s.Why
			}
			by := ""
			if s.By != "" {
				by = " by " + s.By
			}
			return fmt.Sprintf("The breaker was opened%s at %s%s. A command closes it.", by, clock(s.Since), why)
		case s.State == breaker.Open:
			return fmt.Sprintf("The target is down since %s (%s). The next probe is in %s.", clock(s.Down), s.Cause.Sentence(), secs(s.NextProbe))
		case s.ProbeOut:
			if from, seq := c.inside(s.Probe); from != nil {
				return fmt.Sprintf("One probe, message %s, is out to see if the target is back.", from.idOf(seq))
			}
			return "One probe is out to see if the target is back."
		case s.RampLimit > 0 && c.inFlight >= s.RampLimit:
			return fmt.Sprintf("The target was down, and its load grows again: %d may be in flight now.", s.RampLimit)
		}
	}
	if c.limit == nil {
		return ""
	}
	s := c.limit.Status(now)
	if s.PausedUntil > 0 {
		return "The target asked for a pause, which ends in " + secs(s.PausedUntil) + "."
	}
	return fmt.Sprintf("The target's limit is %d now (last change: %s, %s).", s.Now, s.Last.Reason, clock(s.Last.At))
}

// sayControl tells, for a user, why no message is delivered to the target of the queue now.
func (w *why) sayControl() string { return w.q.control.explain(w.q) }
