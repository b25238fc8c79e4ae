package queue

import (
	"slices"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/adapt"
	"github.com/surgetank/surgetank/internal/breaker"
)

// SetBreaker opens or closes the breaker of a queue's target. It is volatile: a restart closes the
// breaker.
type SetBreaker struct {
	Name    string
	Open    bool
	By, Why string
	Err     error
}

func (c *SetBreaker) run(m *Machine) bool {
	q := m.byName[c.Name]
	switch {
	case q == nil:
		c.Err = noQueue(c.Name)
		return true
	case breakerMode(&q.config) == surgetank.BreakerOff && (q.control == nil || q.control.breaker == nil):
		c.Err = surgetank.FieldErrorf("level.breaker", "queue %q has level.breaker: off; set it to reports or errors, or pause the queue", shown(c.Name))
		return true
	case q.control == nil && !c.Open:
		return true
	}
	q.needControl()
	k := q.control
	was := k.state()
	if c.Open {
		if k.breaker.OpenBy(m.now, clip(c.By), clip(c.Why)) && len(k.breaker.Refunds()) > 0 {
			m.refunding = k
			m.refundAll()
		}
	} else {
		k.breaker.CloseBy(m.now, clip(c.By), clip(c.Why))
	}
	k.changed(was)
	return true
}

// LevelHistory reads the last changes of a queue's adaptive limit, and the last outages of its
// target.
type LevelHistory struct {
	Name   string
	Result surgetank.LevelHistory
	Err    error
}

func (c *LevelHistory) run(m *Machine) bool {
	q := m.byName[c.Name]
	if q == nil {
		c.Err = noQueue(c.Name)
		return true
	}
	k := q.control
	if k == nil {
		return true
	}
	if k.limit != nil && !q.ownLevel() {
		for _, x := range k.limit.History(nil) {
			c.Result.Changes = append(c.Result.Changes, surgetank.LevelChange{Time: utc(x.At), From: int(x.From), To: int(x.To), Reason: x.Reason.String(), Ratio: float64(x.Ratio)})
		}
	}
	if k.breaker != nil {
		for _, x := range k.breaker.History(nil) {
			c.Result.Outages = append(c.Result.Outages, surgetank.Outage{Start: utc(x.At), End: utc(x.Ended), Cause: x.Cause.String(), OpenedBy: x.By, OpenedWhy: x.Why,
				ClosedBy: x.ClosedBy, ClosedWhy: x.ClosedWhy, Probes: x.Probes, Refunds: x.Refunds})
		}
	}
	slices.Reverse(c.Result.Changes)
	slices.Reverse(c.Result.Outages)
	return true
}

func utc(at int64) time.Time {
	if at == 0 {
		return time.Time{}
	}
	return time.Unix(0, at).UTC()
}

// levelInfo returns what users see of the queue's control; nil if there is none.
func (q *Queue) levelInfo() *surgetank.LevelInfo {
	k := q.control
	if k == nil {
		return nil
	}
	i := &surgetank.LevelInfo{InFlight: k.inFlight}
	if k.limit != nil && !q.ownLevel() { // otherwise the limit does not apply to the queue
		s := k.limit.Status(q.m.now)
		i.Limit, i.InForce, i.Reason, i.Changed, i.Ratio = s.Limit, s.Now, s.Last.Reason.String(), utc(s.Last.At), s.Ratio
		i.State, i.Latency, i.PausedUntil = s.Sentence(), time.Duration(s.Latency), utc(s.PausedUntil)
		i.Changes = k.limit.Changes()
	}
	if k.breaker != nil {
		s, n := k.breaker.Status(), k.breaker.Counts()
		i.Breaker, i.BreakerSince, i.BreakerCause = s.State.String(), utc(s.Since), s.Cause.String()
		i.BreakerBy, i.BreakerWhy, i.NextProbe, i.DownSince = s.By, s.Why, utc(s.NextProbe), utc(s.Down)
		i.Openings, i.Probes, i.Refunds = n.Openings, n.Probes, n.Refunds
		if from, seq := k.inside(s.Probe); s.ProbeOut && from != nil {
			i.Probe = from.idOf(seq)
		}
		if s.State == breaker.Ramp && s.RampLimit > 0 {
			i.RampLimit = s.RampLimit
		}
	}
	return i
}

// Control returns the controller and the breaker of a queue, for tests that compare them. Both are
// nil if the queue has no control.
func (m *Machine) Control(name string) (*adapt.Controller, *breaker.Breaker) {
	if q := m.byName[name]; q != nil && q.control != nil {
		return q.control.limit, q.control.breaker
	}
	return nil, nil
}
