package model

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/adapt"
	"github.com/surgetank/surgetank/internal/breaker"
	"github.com/surgetank/surgetank/internal/door"
	"github.com/surgetank/surgetank/internal/fullname"
)

// Control is the flow control of one target, which queues can share. Its controller and its breaker
// are the same code as the machine's and receive the same facts. The model derives everything else
// from the messages each time.
type Control struct {
	Limit   *adapt.Controller
	Breaker *breaker.Breaker

	m      *Model
	key    string
	set    adapt.Settings
	joined uint64
	gated  []*Queue
}

// End tells how a lease ended.
type End struct {
	outcome    breaker.Outcome
	at         int64
	elapsed    int64
	retryAfter int64
}

// mode is the queue's breaker setting.
func (q *Queue) mode() surgetank.BreakerMode {
	return cmp.Or(q.Config.Level.Breaker, surgetank.BreakerReports)
}

func (q *Queue) targetKey() string {
	if q.Config.Level.Target == "" {
		return ""
	}
	vhost, _ := fullname.Split(q.Name)
	return vhost + " " + q.Config.Level.Target
}

// members returns the queues of a control, the oldest first.
func (c *Control) members() (list []*Queue) {
	for _, q := range c.m.Queues {
		if q.Control == c {
			list = append(list, q)
		}
	}
	slices.SortFunc(list, func(a, b *Queue) int { return a.made - b.made })
	return list
}

// leases returns the leased messages of all members that the limit counts.
func (c *Control) leases() (list []*Message) {
	for _, q := range c.members() {
		list = append(list, q.counted()...)
	}
	return list
}

// counted returns the queue's leased messages that the limit counts.
func (q *Queue) counted() (list []*Message) {
	for _, x := range q.msgs {
		if x.state == surgetank.StateLeased && !x.consumer.opts.OwnLevel {
			list = append(list, x)
		}
	}
	return list
}

// recontrol adjusts the queue's control after its settings have changed.
func (q *Queue) recontrol() {
	key, adaptive := q.targetKey(), q.Config.Level.Adaptive.On
	if c := q.Control; c != nil && (c.key != key || key == "" && !adaptive && q.mode() == surgetank.BreakerOff) {
		q.leaveControl()
	}
	if q.Control != nil || adaptive || key != "" || q.mode() == surgetank.BreakerErrors {
		q.needControl()
		q.Control.configure()
	}
}

func (q *Queue) needControl() {
	if q.Control != nil {
		return
	}
	key := q.targetKey()
	c := &Control{m: q.m, key: key}
	for _, o := range q.m.Queues {
		if o.Control != nil && key != "" && o.Control.key == key {
			c = o.Control
		}
	}
	if c.Limit != nil {
		c.Limit.Handed(q.m.Now, len(q.counted()))
	}
	q.Control, q.member = c, c.joined
	c.joined++
	c.configure()
}

func (q *Queue) leaveControl() {
	c := q.Control
	if c == nil {
		return
	}
	q.Control = nil
	c.gated = slices.DeleteFunc(c.gated, func(o *Queue) bool { return o == q })
	q.m.mark(q)
	if len(c.members()) == 0 {
		return
	}
	for _, x := range q.counted() {
		if c.Limit != nil {
			c.Limit.Answered(q.m.Now, adapt.Answer{HandedAt: x.handed, Outcome: adapt.Returned})
		}
	}
	c.configure()
}

func (c *Control) configure() {
	now, most := c.m.Now, 0
	var first *Queue
	var modes []surgetank.BreakerMode
	for _, q := range c.members() {
		if q.Config.Level.Adaptive.On && first == nil {
			first = q
		}
		modes = append(modes, q.mode())
		most = max(most, q.Config.Level.MaxInFlight)
	}
	if first == nil {
		c.Limit, c.set = nil, adapt.Settings{}
	} else {
		set := adaptSettings(first.Config.Level.Adaptive)
		if c.Limit == nil {
			c.Limit = adapt.New(now, set)
			c.Limit.Handed(now, len(c.leases()))
		} else if set != c.set {
			c.Limit.Configure(now, set)
		}
		c.set = set
	}
	own := !slices.ContainsFunc(c.members(), func(q *Queue) bool { return !q.ownLevel() })
	rules := breaker.Settings{Adaptive: first != nil && !own, Limit: most, ReportsOnly: !slices.Contains(modes, surgetank.BreakerErrors)}
	switch {
	case !slices.ContainsFunc(modes, func(m surgetank.BreakerMode) bool { return m != surgetank.BreakerOff }):
		c.Breaker = nil
	case c.Breaker == nil:
		c.Breaker = breaker.New(rules)
	default:
		c.Breaker.Configure(rules)
	}
	c.markAll()
}

func (c *Control) markAll() {
	for _, q := range c.members() {
		c.m.mark(q)
	}
}

func (c *Control) state() breaker.State {
	if c.Breaker == nil {
		return breaker.Closed
	}
	return c.Breaker.State()
}

// shut tells whether the breaker stops the queue.
func (q *Queue) shut() bool {
	return q.Control != nil && q.Control.Breaker != nil && q.Control.Breaker.MayHand() == breaker.None
}

func (q *Queue) probes() bool {
	return q.Control != nil && q.Control.Breaker != nil && q.Control.Breaker.MayHand() == breaker.One
}

// full tells whether the target's adaptive limit is reached.
func (q *Queue) full() bool {
	c := q.Control
	if c == nil || q.shut() || q.probes() {
		return q.shut()
	}
	if q.ownLevel() {
		return false
	}
	n := len(c.leases())
	return c.Limit != nil && n >= c.Limit.Limit(q.m.Now) || c.Breaker != nil && c.Breaker.RampLimit() > 0 && n >= c.Breaker.RampLimit()
}

// ownLevel tells whether all consumers of the queue control their level themselves.
func (q *Queue) ownLevel() bool {
	return len(q.consumers) > 0 && !slices.ContainsFunc(q.consumers, func(o *Consumer) bool { return !o.opts.OwnLevel })
}

// cameOrLeft adjusts the control after a consumer of the queue came or left.
func (q *Queue) cameOrLeft(c *Consumer) {
	if q.Control != nil && (c.opts.OwnLevel || slices.ContainsFunc(q.consumers, func(o *Consumer) bool { return o.opts.OwnLevel })) {
		q.Control.configure()
	}
}

// ReportTarget reports the target of a queue without a message.
func (m *Model) ReportTarget(q *Queue, r door.TargetReport) {
	if q.Control == nil && (r.Up || q.mode() == surgetank.BreakerOff) {
		return
	}
	q.needControl()
	c := q.Control
	if c.Breaker == nil {
		return
	}
	was := c.state()
	holds := false
	for _, x := range q.msgs {
		s := c.Breaker.Status()
		if x.state == surgetank.StateLeased && s.ProbeOut && q.outside(x) == s.Probe && x.consumer.opts.OwnLevel {
			holds = true
		}
	}
	if c.Breaker.Reported(m.Now, r.Up, holds, int64(max(0, r.RetryAfter))) {
		c.refund(slices.Clone(c.Breaker.Refunds()))
	}
	c.changed(was)
}

func (q *Queue) outside(x *Message) uint64 { return q.member<<44 + x.seq }

// handed reports a hand-out to the control. If noAck is true, x was acked at once and has no lease.
func (q *Queue) handed(x *Message, noAck bool) {
	c := q.Control
	if c == nil {
		return
	}
	was, now := c.state(), q.m.Now
	if q.probes() {
		c.Breaker.ProbeHanded(now, q.outside(x))
		if noAck {
			c.Breaker.Answered(now, breaker.Answer{Seq: q.outside(x), HandedAt: now})
		}
	}
	if !noAck && !x.consumer.opts.OwnLevel && c.Limit != nil {
		c.Limit.Handed(now, 1)
	}
	c.changed(was)
}

// answered reports the end of a lease to the control. It returns whether this failure costs no
// attempt, and earlier failures whose attempts are uncounted now. own tells whether the consumer
// controls its own level. x must not be leased any more.
func (q *Queue) answered(x *Message, own bool, end End) (uncounted bool, refunds []breaker.Failure) {
	if q.Control == nil && end.outcome == breaker.Down && q.mode() != surgetank.BreakerOff {
		q.needControl()
	}
	c, now := q.Control, q.m.Now
	if c == nil {
		return false, nil
	}
	was := c.state()
	latency := end.elapsed
	if latency <= 0 {
		from, to := x.handed, now
		if x.released != 0 {
			from = x.released
		}
		if end.at != 0 && end.at < now {
			to = end.at
		}
		latency = max(0, to-from)
	}
	if c.Limit != nil && !own {
		a := adapt.Answer{HandedAt: x.handed, Latency: latency, RetryAfter: end.retryAfter}
		switch end.outcome {
		case breaker.BadMessage, breaker.Failed:
			a.Outcome = adapt.BadMessage
		case breaker.Timeout:
			a.Outcome = adapt.Timeout
		case breaker.Down:
			a.Outcome = adapt.Down
		case breaker.Throttle:
			a.Outcome = adapt.Throttle
		case breaker.Returned:
			a.Outcome = adapt.Returned
		}
		c.Limit.Answered(now, a)
	}
	if c.Breaker != nil {
		a := breaker.Answer{Seq: q.outside(x), HandedAt: x.handed, Latency: latency, Outcome: end.outcome, RetryAfter: end.retryAfter}
		if end.outcome != breaker.Success {
			a.Attempt = uint32(x.attempts + 1)
			if x.group != "" { // a number that no other group has
				a.Group = c.m.groupNumber(q.Name + "\x00" + x.group)
			}
		}
		v := c.Breaker.Answered(now, a)
		if uncounted = v.Uncounted; v.Opened {
			refunds = slices.Clone(c.Breaker.Refunds())
		}
		if s := c.state(); end.outcome != breaker.BadMessage && (s == breaker.Open || s == breaker.Held || s == breaker.Probing) {
			uncounted = true
		}
	}
	c.changed(was)
	return uncounted, refunds
}

// groupNumber returns a group's number. It numbers groups in the order of their first use.
func (m *Model) groupNumber(name string) uint64 {
	i := slices.Index(m.groupNames, name)
	if i < 0 {
		i = len(m.groupNames)
		m.groupNames = append(m.groupNames, strings.Clone(name))
	}
	return uint64(i + 1)
}

// refund uncounts the attempts of failures in list.
func (c *Control) refund(list []breaker.Failure) {
	for _, f := range list {
		for _, q := range c.members() {
			for _, x := range q.msgs {
				if q.outside(x) == f.Seq && x.attempts > 0 {
					x.attempts--
				}
			}
		}
	}
	if len(list) > 0 {
		for _, q := range c.members() {
			q.endBackOffs() // a message without a failed attempt pays nothing to the budget
		}
	}
}

func (c *Control) tick() {
	was := c.state()
	if c.Breaker != nil {
		c.Breaker.Tick(c.m.Now)
	}
	if c.Limit != nil {
		c.Limit.Tick(c.m.Now)
	}
	c.changed(was)
}

func (c *Control) changed(was breaker.State) {
	is := c.state()
	if c.Limit != nil {
		if (is == breaker.Open || is == breaker.Held) && was != breaker.Open && was != breaker.Held {
			c.Limit.Reset(c.m.Now, adapt.BreakerOpen)
		}
		if is == breaker.Ramp {
			c.Breaker.Ramped(c.m.Now, c.Limit.RampWindows())
		}
	}
	if c.state() != was {
		c.markAll()
	}
	c.wakeGated()
}

// wakeGated marks the queue that has waited longest for the limit and can deliver now. To mark a
// queue that cannot deliver would never end: the mark of a queue can mark other queues, and they
// call wakeGated.
func (c *Control) wakeGated() {
	for _, q := range c.gated {
		if q.any() && q.mayGo() && q.hungry() {
			c.m.mark(q)
			return
		}
	}
}

// hungry tells whether the queue has a consumer to serve.
func (q *Queue) hungry() bool {
	return slices.ContainsFunc(q.consumers, func(o *Consumer) bool { return o.willing() && o.active() && !o.kept() })
}

// gate notes that the queue waits for the limit of a target that it shares with other queues, and
// for nothing else.
func (q *Queue) gate() {
	if c := q.Control; c != nil && len(c.members()) > 1 && !slices.Contains(c.gated, q) && q.hungry() {
		c.gated = append(c.gated, q)
	}
}

// gatedFirst returns the queue that is served now: the first queue that has waited longer than q
// for the limit that they share and can deliver, otherwise q.
func (q *Queue) gatedFirst() *Queue {
	c := q.Control
	if c == nil {
		return q
	}
	for len(c.gated) > 0 {
		o := c.gated[0]
		c.gated = c.gated[1:]
		if o == q || o.any() && o.mayGo() && o.nextConsumer() != nil {
			return o
		}
	}
	return q
}

// probe returns the message to hand out. That is x, whose turn it is, or, if the breaker probes the
// target, the message that is the best probe.
func (q *Queue) probe(x *Message) *Message {
	if !q.probes() {
		return x
	}
	avoid, has := q.Control.Breaker.AvoidProbe()
	rank := func(x *Message) int {
		if has && q.outside(x) == avoid {
			return 2
		}
		return min(1, x.attempts)
	}
	if rank(x) == 0 {
		return x
	}
	best := x
	for _, o := range q.msgs[:min(len(q.msgs), 256)] { // in the order of their numbers
		if q.front(o.key()) == o && q.groupMayGo(o.key()) && rank(o) < rank(best) {
			best = o
		}
	}
	return best
}

// Differs compares c with the machine's controller and breaker. It returns a description of the
// difference, or "".
func (c *Control) Differs(limit *adapt.Controller, b *breaker.Breaker) string {
	var mine Control
	if c != nil {
		mine = *c
	}
	switch {
	case (mine.Limit == nil) != (limit == nil) || (mine.Breaker == nil) != (b == nil):
		return fmt.Sprintf("the model has limit %v, breaker %v, the machine %v, %v", mine.Limit != nil, mine.Breaker != nil, limit != nil, b != nil)
	case limit != nil && mine.Limit.Status(c.m.Now) != limit.Status(c.m.Now):
		return fmt.Sprintf("limit: the model has %+v, the machine %+v", mine.Limit.Status(c.m.Now), limit.Status(c.m.Now))
	case b != nil && (mine.Breaker.Status() != b.Status() || mine.Breaker.Counts() != b.Counts()):
		return fmt.Sprintf("breaker: the model has %+v %+v, the machine %+v %+v", mine.Breaker.Status(), mine.Breaker.Counts(), b.Status(), b.Counts())
	}
	return ""
}

// Released tells the model that the hand-outs of turn and of all earlier turns have left the
// broker.
func (m *Model) Released(turn uint64, now int64) {
	for _, q := range m.Queues {
		for _, x := range q.msgs {
			if q.Control != nil && x.state == surgetank.StateLeased && x.released == 0 && x.turn <= turn {
				x.released = now
			}
		}
	}
}

// Breaker opens or closes a queue's breaker by a command.
func (m *Model) Breaker(q *Queue, open bool, by, why string) surgetank.Code {
	if q.mode() == surgetank.BreakerOff && (q.Control == nil || q.Control.Breaker == nil) {
		return surgetank.CodeInvalid
	}
	if q.Control == nil && !open {
		return ""
	}
	q.needControl()
	c := q.Control
	was := c.state()
	if open {
		if c.Breaker.OpenBy(m.Now, by, why) {
			c.refund(slices.Clone(c.Breaker.Refunds()))
		}
	} else {
		c.Breaker.CloseBy(m.Now, by, why)
	}
	c.changed(was)
	return ""
}

// adaptSettings returns the bounds of a controller.
func adaptSettings(c surgetank.AdaptiveConfig) adapt.Settings {
	return adapt.Settings{Min: c.Min, Max: c.Max, Tolerance: c.Tolerance}
}
