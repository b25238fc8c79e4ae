package queue

import (
	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/breaker"
	"github.com/surgetank/surgetank/internal/door"
)

// ReportTarget is a report about the target of a queue by a consumer that tests the target without
// messages. It settles nothing and counts no attempt.
type ReportTarget struct {
	Name   string
	Report door.TargetReport
	Err    error
}

func (c *ReportTarget) run(m *Machine) bool {
	q := m.byName[c.Name]
	switch {
	case q == nil:
		c.Err = noQueue(c.Name)
		return true
	case q.control == nil && (c.Report.Up || breakerMode(&q.config) == surgetank.BreakerOff):
		return true
	}
	q.needControl()
	q.control.reported(q, c.Report)
	m.refundAll()
	return true
}

// reported accounts for a report about the target.
func (c *control) reported(q *Queue, r door.TargetReport) {
	if c.breaker == nil {
		return
	}
	was := c.state()
	pause := int64(min(max(0, r.RetryAfter), surgetank.MaxDuration))
	if c.breaker.Reported(c.m.now, r.Up, c.probes(q), pause) && len(c.breaker.Refunds()) > 0 {
		c.m.refunding = c
	}
	c.changed(was)
}

// probes tells whether a consumer of the queue with OwnLevel has the message that tests the target.
func (c *control) probes(q *Queue) bool {
	s := c.breaker.Status()
	if !s.ProbeOut {
		return false
	}
	from, seq := c.inside(s.Probe)
	if from != q {
		return false
	}
	l := q.leases[seq]
	return l != nil && l.consumer.opts.OwnLevel
}

// Level returns the part of the queue's flow control that consumers with OwnLevel follow.
func (q *Queue) Level() door.Level {
	l := door.Level{Resumed: q.resumed, Opened: q.opened}
	if q.control != nil {
		l.Adaptive = q.control.adaptive
	}
	return l
}

// LevelOf returns the Level of a queue. It returns false if the queue does not exist.
func (m *Machine) LevelOf(name string) (door.Level, bool) {
	if q := m.byName[name]; q != nil {
		return q.Level(), true
	}
	return door.Level{}, false
}

// LevelChanges returns a number that grows whenever the Level of a queue changes.
func (m *Machine) LevelChanges() uint64 { return m.levelChanges }

// lowAgain tells the consumers with OwnLevel that the load begins low, because the breaker opened.
func (c *control) lowAgain() {
	for _, q := range c.queues {
		q.opened++
	}
	c.m.levelChanges++
}

// stopped tells whether a breaker lets no message out until its pause or a command ends it.
func stopped(s breaker.State) bool { return s == breaker.Open || s == breaker.Held }

// joined counts a consumer that came (1) or left (-1), if it controls its own level. A control of
// which all consumers do so has other rules for its breaker.
func (q *Queue) joined(c *consumer, n int) {
	if c.opts.OwnLevel {
		q.ownLevels += n
	}
	if q.control != nil && (c.opts.OwnLevel || q.ownLevels > 0) {
		q.control.configure()
	}
}
