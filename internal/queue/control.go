package queue

import (
	"cmp"
	"hash/fnv"
	"maps"
	"slices"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/adapt"
	"github.com/surgetank/surgetank/internal/breaker"
	"github.com/surgetank/surgetank/internal/door"
	"github.com/surgetank/surgetank/internal/fullname"
)

// control is the flow control for the target of a queue. It knows how many messages the target can
// process at the same time (package adapt), and whether the target is down (package breaker).
// Queues with the same level.target share a control. All its state is volatile.
//
// A queue without level.adaptive, level.target and breaker errors has a control only after a
// consumer reported that the target is down, or after a command.
//
//	hand-out            handed: the verdicts levelAdaptive, breakerOpen and probing allowed it
//	end of a lease      answered, from endLease
//	extension           extended
//	a queue's timer     tick
//	pause over, start   adapt.Controller.Reset, New
type control struct {
	m      *Machine
	key    string   // see targetKey
	queues []*Queue // members, by id
	joined uint64   // number of queues that ever joined; numbers the members

	limit    *adapt.Controller // nil: no queue is adaptive
	limitSet adapt.Settings
	adaptive surgetank.AdaptiveConfig // the settings of limit
	breaker  *breaker.Breaker         // nil: off
	inFlight int                      // leases, except those of consumers that control their own level
	touched  bool                     // the control is in machine.touched

	// gated are the queues that could deliver if the limit were not reached. The first one has
	// waited longest.
	gated []*Queue
}

// leaseEnd tells how a lease ended.
type leaseEnd struct {
	outcome    breaker.Outcome
	at         int64 // when the lease's settlement arrived; 0: now
	elapsed    int64 // nanoseconds at the target, as the consumer measured them; 0: unknown
	retryAfter int64
}

// latency returns how long a lease lasted that ends now.
func (e *leaseEnd) latency(l *lease, now int64) int64 {
	if e.elapsed > 0 {
		return e.elapsed
	}
	from, to := l.since, now
	if l.released != 0 {
		from = l.released
	}
	if e.at != 0 {
		to = min(e.at, now)
	}
	return max(0, to-from)
}

// targetKey returns the key of a queue's shared target; "" if it has none. Virtual hosts do not
// share targets.
func (q *Queue) targetKey() string {
	if q.config.Level.Target == "" {
		return ""
	}
	vhost, _ := fullname.Split(q.name)
	return vhost + "\x00" + q.config.Level.Target
}

// breakerMode returns the queue's breaker setting with its default.
func breakerMode(c *surgetank.QueueConfig) surgetank.BreakerMode {
	return cmp.Or(c.Level.Breaker, surgetank.BreakerReports)
}

// recontrol sets the control that the queue's settings ask for, and tells the control about
// changes.
func (q *Queue) recontrol() {
	q.m.levelChanges++
	l, key := &q.config.Level, q.targetKey()
	if q.control != nil && (q.control.key != key || key == "" && !l.Adaptive.On && breakerMode(&q.config) == surgetank.BreakerOff) {
		q.leaveControl()
	}
	if q.control == nil && !l.Adaptive.On && key == "" && breakerMode(&q.config) != surgetank.BreakerErrors {
		return
	}
	q.needControl()
	q.control.configure()
}

// needControl creates a control for the queue if the queue has none.
func (q *Queue) needControl() {
	if q.control != nil {
		return
	}
	m, key := q.m, q.targetKey()
	c := m.targets[key]
	if c == nil {
		c = &control{m: m, key: key}
		if key != "" {
			if m.targets == nil {
				m.targets = map[string]*control{}
			}
			m.targets[key] = c
		}
	}
	q.control = c
	q.member = c.joined
	c.joined++
	at, _ := slices.BinarySearchFunc(c.queues, q.id, func(o *Queue, id uint64) int { return cmp.Compare(o.id, id) })
	c.queues = slices.Insert(c.queues, at, q)
	n := 0
	for _, l := range q.leases { // unordered: a sum
		if !l.consumer.opts.OwnLevel {
			n++
		}
	}
	c.inFlight += n
	if c.limit != nil {
		c.limit.Handed(m.now, n)
	}
	c.configure()
}

// leaveControl removes the queue from its control.
func (q *Queue) leaveControl() {
	c := q.control
	if c == nil {
		return
	}
	q.control = nil
	c.queues = slices.DeleteFunc(c.queues, func(o *Queue) bool { return o == q })
	c.gated = slices.DeleteFunc(c.gated, func(o *Queue) bool { return o == q })
	q.mark()
	if len(c.queues) == 0 {
		delete(c.m.targets, c.key)
		return
	}
	for _, seq := range slices.Sorted(maps.Keys(q.leases)) {
		l := q.leases[seq]
		if l.consumer.opts.OwnLevel {
			continue
		}
		c.inFlight--
		if c.limit != nil {
			c.limit.Answered(c.m.now, adapt.Answer{HandedAt: l.since, Outcome: adapt.Returned})
		}
	}
	c.configure()
	c.markAll()
}

// configure sets up the control by the settings of its queues. The oldest adaptive queue sets the
// bounds of the limit. The breaker counts the widest evidence that any of the queues asks for. If
// all consumers control their own level, no answer reaches the limit, so the breaker's ramp ends by
// its own count of answers.
func (c *control) configure() {
	now := c.m.now
	adaptive, mode, most := surgetank.AdaptiveConfig{}, surgetank.BreakerOff, 0
	own := true
	for _, q := range c.queues {
		l := &q.config.Level
		own = own && q.ownLevel()
		if l.Adaptive.On && !adaptive.On {
			adaptive = l.Adaptive
		}
		switch breakerMode(&q.config) {
		case surgetank.BreakerErrors:
			mode = surgetank.BreakerErrors
		case surgetank.BreakerReports:
			if mode == surgetank.BreakerOff {
				mode = surgetank.BreakerReports
			}
		}
		most = max(most, l.MaxInFlight)
	}
	set := adaptSettings(adaptive)
	c.adaptive = adaptive
	c.m.levelChanges++
	switch {
	case !adaptive.On:
		c.limit = nil
	case c.limit == nil:
		c.limit = adapt.New(now, set)
		c.limit.Handed(now, c.inFlight)
	case set != c.limitSet:
		c.limit.Configure(now, set)
	}
	c.limitSet = set
	rules := breaker.Settings{Adaptive: adaptive.On && !own, Limit: most, ReportsOnly: mode != surgetank.BreakerErrors}
	switch {
	case mode == surgetank.BreakerOff:
		c.breaker = nil
	case c.breaker == nil:
		c.breaker = breaker.New(rules)
	default:
		c.breaker.Configure(rules)
	}
	c.markAll()
	c.arm()
}

// state returns the state of the breaker.
func (c *control) state() breaker.State {
	if c.breaker == nil {
		return breaker.Closed
	}
	return c.breaker.State()
}

// shut tells whether the breaker stops hand-outs.
func (c *control) shut() bool { return c.breaker != nil && c.breaker.MayHand() == breaker.None }

// wantsProbe tells whether the next hand-out is a probe.
func (c *control) wantsProbe() bool { return c.breaker != nil && c.breaker.MayHand() == breaker.One }

// room returns how many messages the control lets a queue hand out now, and whether it limits them.
func (c *control) room(q *Queue) (n int, limited bool) {
	if c.breaker != nil {
		switch c.breaker.MayHand() {
		case breaker.None:
			return 0, true
		case breaker.One:
			return 1, true
		}
	}
	if q.ownLevel() {
		return 0, false
	}
	if c.limit != nil {
		n, limited = c.limit.Limit(c.m.now)-c.inFlight, true
	}
	if c.breaker != nil {
		if ramp := c.breaker.RampLimit(); ramp > 0 && (!limited || ramp-c.inFlight < n) {
			n, limited = ramp-c.inFlight, true
		}
	}
	return max(0, n), limited
}

// ownLevel tells whether all consumers of the queue control their level themselves.
func (q *Queue) ownLevel() bool { return q.ownLevels > 0 && q.ownLevels == q.consumers.n }

// closedVerdict is the part of queueVerdict about the breaker: it tells whether the breaker stops
// hand-outs.
func (q *Queue) closedVerdict() verdict {
	if q.control == nil || !q.control.shut() {
		return mayGo
	}
	if q.control.state() == breaker.Probing {
		return probing
	}
	return breakerOpen
}

// full tells whether the adaptive limit of the target is reached.
func (c *control) full(q *Queue) bool {
	n, limited := c.room(q)
	return limited && n == 0
}

// handed accounts for a hand-out under a lease.
func (c *control) handed(q *Queue, seq uint64, l *lease) {
	was := c.state()
	if c.wantsProbe() {
		c.breaker.ProbeHanded(c.m.now, q.outside(seq))
	}
	if !l.consumer.opts.OwnLevel {
		c.inFlight++
		if c.limit != nil {
			c.limit.Handed(c.m.now, 1)
		}
	}
	c.m.leaving.add(l, c.m.turn)
	c.changed(was)
}

// passed accounts for a hand-out without a lease. No settlement follows, so a probe without a lease
// counts as a success.
func (c *control) passed(q *Queue, seq uint64) {
	if was := c.state(); c.wantsProbe() {
		c.breaker.ProbeHanded(c.m.now, q.outside(seq))
		c.breaker.Answered(c.m.now, breaker.Answer{Seq: q.outside(seq), HandedAt: c.m.now})
		c.changed(was)
	}
}

// answered accounts for the end of a lease. It returns whether a failure costs no attempt.
func (c *control) answered(q *Queue, l *lease, end leaseEnd) (uncounted bool) {
	now, was := c.m.now, c.state()
	latency := end.latency(l, now)
	if !l.consumer.opts.OwnLevel {
		c.inFlight--
		if c.limit != nil {
			c.limit.Answered(now, adapt.Answer{HandedAt: l.since, Latency: latency, Outcome: adaptOutcome[end.outcome], RetryAfter: end.retryAfter})
		}
	}
	if c.breaker != nil {
		a := breaker.Answer{Seq: q.outside(l.seq), HandedAt: l.since, Latency: latency, Outcome: end.outcome, RetryAfter: end.retryAfter}
		if end.outcome != breaker.Success {
			s := q.slots.get(l.seq)
			a.Attempt, a.Group = uint32(s.attempts)+1, groupHash(q, s.flow)
		}
		v := c.breaker.Answered(now, a)
		uncounted = v.Uncounted || end.outcome != breaker.BadMessage && c.state() != breaker.Closed && c.state() != breaker.Ramp
		if v.Opened && len(c.breaker.Refunds()) > 0 {
			c.m.refunding = c
		}
	}
	c.changed(was)
	return uncounted
}

var adaptOutcome = [...]adapt.Outcome{breaker.Success: adapt.Success, breaker.BadMessage: adapt.BadMessage, breaker.Failed: adapt.BadMessage, breaker.Timeout: adapt.Timeout,
	breaker.Down: adapt.Down, breaker.Throttle: adapt.Throttle, breaker.Returned: adapt.Returned}

// groupHash returns a hash of the name of a message's group; 0 if the message has none.
func groupHash(q *Queue, h uint32) uint64 {
	name := q.groupName(h)
	if name == "" {
		return 0
	}
	f := fnv.New64a()
	f.Write([]byte(name)) // a hash's Write never fails
	return max(1, f.Sum64()+q.member)
}

// extended accounts for an extended lease.
func (c *control) extended(q *Queue, l *lease) {
	was := c.state()
	if c.limit != nil && !l.consumer.opts.OwnLevel {
		c.limit.Extended(c.m.now)
	}
	if c.breaker != nil {
		c.breaker.Extended(c.m.now, q.outside(l.seq))
	}
	c.changed(was)
}

// tick passes the present time to the limit and the breaker, which act on it.
func (c *control) tick() {
	was := c.state()
	if c.breaker != nil {
		c.breaker.Tick(c.m.now)
	}
	if c.limit != nil {
		c.limit.Tick(c.m.now)
	}
	c.changed(was)
}

// changed acts on a new state of the breaker. Call it after each report to the control. was is the
// breaker's state before the report. The turn's end acts on the rest, once for all reports.
func (c *control) changed(was breaker.State) {
	if is := c.state(); is != was || is == breaker.Ramp {
		c.turned(was, is)
	}
	if !c.touched {
		c.touched = true
		c.m.touched = append(c.m.touched, c)
	}
}

// turned acts on a new state of the breaker, or on a report in a ramp.
func (c *control) turned(was, is breaker.State) {
	if stopped(is) && !stopped(was) {
		c.lowAgain()
	}
	if c.limit != nil {
		if stopped(is) && !stopped(was) {
			c.limit.Reset(c.m.now, adapt.BreakerOpen)
		}
		if is == breaker.Ramp {
			c.breaker.Ramped(c.m.now, c.limit.RampWindows())
			is = c.state()
		}
	}
	if is != was {
		c.markAll()
	}
}

// wakeTouched requests a dispatch of the queues that can deliver after this turn's reports to their
// controls.
func (m *Machine) wakeTouched() {
	for _, c := range m.touched {
		c.wakeGated()
	}
}

// armTouched sets the timers of the controls that this turn reported to.
func (m *Machine) armTouched() {
	m.wakeTouched()
	for _, c := range m.touched {
		c.touched = false
		c.arm()
	}
	m.touched = m.touched[:0]
}

// markAll requests a dispatch of all queues of the target.
func (c *control) markAll() {
	for _, q := range c.queues {
		q.mark()
	}
}

// wakeGated requests a dispatch of the queue that has waited longest and can deliver now. A queue in
// the line can have been paused meanwhile, for example. Such a queue keeps its position.
func (c *control) wakeGated() {
	for _, q := range c.gated {
		if q.anyReady() && q.queueVerdict() == mayGo && q.consumerVerdict() == mayGo {
			q.mark()
			return
		}
	}
}

// gate notes that a queue waits for the limit of a target that it shares with other queues. A queue
// without a consumer to serve does not wait for the limit.
func (q *Queue) gate() {
	if c := q.control; len(c.queues) > 1 && !slices.Contains(c.gated, q) && q.consumerVerdict() == mayGo {
		c.gated = append(c.gated, q)
	}
}

// gatedFirst returns the queue that is served now: the first queue that has waited longer than q
// for the limit that they share and can deliver, otherwise q. q itself must be able to deliver.
func (c *control) gatedFirst(q *Queue) *Queue {
	for len(c.gated) > 0 {
		o := c.gated[0]
		c.gated = slices.Delete(c.gated, 0, 1)
		if o == q || o.anyReady() && o.queueVerdict() == mayGo && o.nextConsumer() != nil {
			return o
		}
	}
	return q
}

// next returns the time of the next tick; 0 if none is needed.
func (c *control) next() int64 {
	at := int64(0)
	if c.breaker != nil {
		at = c.breaker.Next()
	}
	if c.limit != nil {
		if n := c.limit.Next(); n != 0 && (at == 0 || n < at) {
			at = n
		}
	}
	return at
}

// arm sets the timer of the target's oldest queue.
func (c *control) arm() {
	if at := c.next(); at != 0 && len(c.queues) > 0 {
		c.queues[0].timerAt(max(at, c.m.now+1))
	}
}

// outside returns a message's number for the breaker, which is unique among the queues of the
// target.
func (q *Queue) outside(seq uint64) uint64 { return q.member<<memberShift | seq&(1<<memberShift-1) }

const memberShift = 44

// inside returns the queue and the message's number in it. It is the inverse of outside.
func (c *control) inside(x uint64) (*Queue, uint64) {
	for _, q := range c.queues {
		if q.member<<memberShift == x&^(1<<memberShift-1) {
			return q, x & (1<<memberShift - 1)
		}
	}
	return nil, 0
}

// probeLooks is how many of a queue's oldest messages pick considers. So the choice of a probe costs
// the same in a queue with millions of groups.
const probeLooks = 256

// pick returns the flow whose front message is the next probe. h is the flow whose turn it is. A
// message that has not failed is preferred, so that a bad message cannot keep the breaker open. The
// last failed probe is used only if there is no other message. Besides h, only flows whose front is
// among the oldest messages are considered.
func (c *control) pick(q *Queue, h uint32) uint32 {
	avoid, has := c.breaker.AvoidProbe()
	rank := func(h uint32) int {
		seq := q.frontOf(h)
		switch {
		case has && q.outside(seq) == avoid:
			return 2
		case q.slots.get(seq).attempts > 0:
			return 1
		}
		return 0
	}
	best, at := h, rank(h)
	if at == 0 {
		return h
	}
	looks := 0
	q.slots.ascend(q.Floor(), func(seq uint64, s *slot) bool {
		if !s.live() {
			return true
		}
		looks++
		if o := s.flow; s.state() == slotWaiting && q.flows[o].open > 0 && q.frontOf(o) == seq {
			if r := rank(o); r < at {
				best, at = o, r
			}
		}
		return at > 0 && looks < probeLooks
	})
	return best
}

// refundAll uncounts the attempts of the failures that opened a breaker. Call it when no record is
// under construction.
func (m *Machine) refundAll() {
	c := m.refunding
	if m.refunding = nil; c == nil || c.breaker == nil {
		return
	}
	list := slices.Clone(c.breaker.Refunds())
	due := c.dueTimes(list)
	defer c.unbudget()
	for _, f := range list {
		q, seq := c.inside(f.Seq)
		if q != nil && q.frozen {
			continue
		}
		s := q.refundable(seq)
		if s == nil {
			continue
		}
		r := &m.rec
		r.Kind, r.Queue, r.Seqs, r.Attempts, r.NotBefore, r.Detail = kindReturned, q.id, append(r.Seqs[:0], seq), uint32(s.attempts)-1, 0, ""
		if at, backs := q.backing[seq]; backs {
			r.NotBefore = at
		} else if s.state() == slotDelayed {
			r.NotBefore = due[f.Seq]
		}
		m.emit(r)
	}
}

// unbudget ends the back-offs that lasted only because of retry.budget, for messages that owe it
// nothing any more.
func (c *control) unbudget() {
	for _, q := range c.queues {
		if q.budget.short {
			q.endBackOffs()
			q.rearm()
		}
	}
}

// refundable returns the slot of a message with an attempt that can be uncounted, or nil.
func (q *Queue) refundable(seq uint64) *slot {
	if q == nil {
		return nil
	}
	if s := q.slots.get(seq); s != nil && s.live() && s.attempts > 0 && s.state() != slotLost {
		return s
	}
	return nil
}

// dueTimes returns, for those of the messages that are in no line, when each is tried next.
func (c *control) dueTimes(list []breaker.Failure) map[uint64]int64 {
	due := map[uint64]int64{}
	var delayed []*Queue
	for _, f := range list {
		q, seq := c.inside(f.Seq)
		if s := q.refundable(seq); s != nil && s.state() == slotDelayed {
			due[f.Seq] = 0
			if !slices.Contains(delayed, q) {
				delayed = append(delayed, q)
			}
		}
	}
	for _, q := range delayed {
		for _, x := range q.retries {
			if at, wanted := due[q.outside(x.key)]; wanted && (at == 0 || x.at < at) {
				due[q.outside(x.key)] = x.at
			}
		}
	}
	return due
}

// inPlace tells whether a returned record changes nothing but the attempts of a message. The
// message stays in its line or keeps its lease.
func (q *Queue) inPlace(seq uint64, s *slot) bool {
	return !q.m.recovering && (s.state() != slotLeased || q.leases[seq] != nil)
}

// parkLater tells whether a message that failed its last attempt waits before it is parked, and how
// long. If the breaker opens meanwhile, the attempt is uncounted and the message is not parked.
func (q *Queue) parkLater(seq uint64) int64 {
	if q.control == nil || q.control.breaker == nil || q.slots.get(seq).marked(slotExpired) {
		return 0
	}
	d := q.control.breaker.ParkDelay(q.m.now)
	if d > 0 {
		if q.parking == nil {
			q.parking = map[uint64]bool{}
		}
		q.parking[seq] = true
	}
	return d
}

// park parks a message whose wait in parking is over. It returns false if the message is tried
// again, because its attempt was uncounted or its dead-letter queue is full.
func (q *Queue) park(seq uint64) bool {
	if !q.parking[seq] {
		return false
	}
	delete(q.parking, seq)
	s := q.slots.get(seq)
	limit := q.config.Retry.MaxAttempts
	return s.state() != slotHeld && limit > 0 && int(s.attempts) >= limit && q.m.sendToDeadLetter(q, seq, reasonAttempts, int(s.attempts), q.failureOf(seq))
}

// refuseNoAck returns an error for a consumer that never acks, if the queue is adaptive.
func (q *Queue) refuseNoAck(o *door.SubscribeOptions) error {
	if o.NoAck && q.control != nil && q.control.limit != nil {
		return surgetank.FieldErrorf("no_ack", "queue %q has level.adaptive, which measures the time until an ack; subscribe with acks, or turn level.adaptive off", shown(q.name))
	}
	return nil
}

// adaptSettings returns the bounds of a controller.
func adaptSettings(c surgetank.AdaptiveConfig) adapt.Settings {
	return adapt.Settings{Min: c.Min, Max: c.Max, Tolerance: c.Tolerance}
}
