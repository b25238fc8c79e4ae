package model

import (
	"maps"
	"slices"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/adapt"
	"github.com/surgetank/surgetank/internal/breaker"
	"github.com/surgetank/surgetank/internal/door"
	"github.com/surgetank/surgetank/internal/settings"
)

// The commands on the model. Each returns the answer that the machine must return. Call the
// commands in the function that is passed to Turn.

// Declare creates a queue or changes its settings.
func (m *Model) Declare(name string, cfg surgetank.QueueConfig) {
	q := m.Queues[name]
	if q == nil {
		q = m.make(name, cfg)
		q.recontrol()
		m.mark(q)
		return
	}
	if cfg = settings.WithDefaults(cfg); !settings.Equal(q.Config, cfg) {
		was := q.Config
		q.Config = cfg
		if cfg.Paused && !was.Paused {
			q.pausedBy, q.pausedAt = "", m.Now
		}
		if cfg.Group.Fair != was.Group.Fair || (cfg.Level.FreshShare > 0) != (was.Level.FreshShare > 0) || !cfg.Group.Fair && cfg.PriorityStep != was.PriorityStep {
			q.forgetOrder()
		}
		q.recontrol()
		if was.Paused && !cfg.Paused {
			q.resumed()
		}
		m.mark(q)
	}
}

// Pause stops or resumes a queue's hand-outs. A pause for a positive time ends by itself.
func (m *Model) Pause(q *Queue, paused bool, d time.Duration, by string) {
	if q.Config.Paused && !paused {
		defer q.resumed()
	}
	until := time.Time{}
	if paused && d > 0 {
		until = time.Unix(0, m.Now+int64(d)).UTC()
	}
	if paused && (!q.Config.Paused || q.Config.PausedUntil != until) {
		q.pausedBy, q.pausedAt = by, m.Now
	}
	q.Config.Paused, q.Config.PausedUntil = paused, until
	m.mark(q)
}

// known tells whether a message with a dedup id was stored within the queue's dedup window. It
// returns the message's number.
func (q *Queue) known(id string) (seq uint64, known bool) {
	x, ok := q.ids[id]
	return x.seq, ok && id != "" && q.Config.DedupWindow > 0 && x.until > q.m.Now
}

// Publisher is a publisher that numbers its messages.
type Publisher struct {
	Confirmed map[uint64]uint64 // the message's number in its first queue, by the publisher's number
	Used      int64             // when the newest number was confirmed
}

// publisherKeep is how long a publisher is remembered.
const publisherKeep = 7 * 24 * int64(time.Hour)

// PublishNumbered stores a message unless its publisher's number is confirmed. It stores the
// message in all its queues or in none.
func (m *Model) PublishNumbered(p *surgetank.Publishing, groups []string, keys []Key) (code surgetank.Code, seq uint64, dup bool) {
	known := m.Publishers[p.Publisher]
	if known != nil && known.Used+publisherKeep <= m.Now {
		known = nil
	}
	switch {
	case known == nil && p.Sequence != 1:
		return surgetank.CodeUncertain, 0, false
	case known == nil:
		known = &Publisher{Confirmed: map[uint64]uint64{}, Used: m.Now}
		m.Publishers[p.Publisher] = known
	}
	if seq, again := known.Confirmed[p.Sequence]; again {
		return "", seq, true
	}
	if code, seq, dup = m.publish(&p.Message, p.Queues, groups, keys, false, true); code != "" {
		return code, 0, false
	}
	known.Confirmed[p.Sequence], known.Used = seq, m.Now
	return code, seq, dup
}

// Publish stores a message in queues. groups has its group in each queue; if groups is nil, the
// message's own group counts. keys has its coalescing key in each queue; nil: no key. If admitted
// is true, the caller has already checked that the queues accept the message.
func (m *Model) Publish(msg *surgetank.Message, names, groups []string, keys []Key, admitted bool) (code surgetank.Code, seq uint64, dup bool) {
	return m.publish(msg, names, groups, keys, admitted, false)
}

func (m *Model) publish(msg *surgetank.Message, names, groups []string, keys []Key, admitted, whole bool) (code surgetank.Code, seq uint64, dup bool) {
	type target struct {
		q   *Queue
		x   *Message
		key Key
	}
	var targets []target
	for i, name := range names {
		q := m.Queues[name]
		if q == nil {
			code = surgetank.CodeNotFound
			continue
		}
		if slices.ContainsFunc(targets, func(t target) bool { return t.q == q }) {
			continue
		}
		if first, known := q.known(msg.DedupID); known {
			if dup = true; seq == 0 {
				seq = first
			}
			continue
		}
		key := Key{}
		if keys != nil && q.Config.Coalesce.By != "" {
			key = keys[i]
		}
		if !admitted {
			no := surgetank.Code("")
			if size := int64(len(msg.Body)); key.ID == "" {
				no = q.refuses(1, size)
			} else {
				no = q.refusesKeyed(key.ID, size)
			}
			if no != "" {
				code = no
				continue
			}
		}
		group := msg.Group
		if groups != nil {
			group = groups[i]
		}
		x := &Message{group: group, priority: min(msg.Priority, q.Config.MaxPriority), size: int64(len(msg.Body))}
		ttl := q.Config.TTL
		if msg.TTL > 0 && (ttl == 0 || msg.TTL < ttl) {
			ttl = msg.TTL
		}
		if ttl > 0 {
			x.expires = m.Now + int64(ttl)
		}
		targets = append(targets, target{q, x, key})
	}
	if whole && code != "" {
		return code, 0, false
	}
	stored, joined := false, false
	for _, t := range targets {
		joins, _ := t.q.meets(t.key.ID)
		switch {
		case t.key.ID != "" && joins != nil:
			if t.x = joins; !stored && !joined {
				seq, dup, joined = joins.seq, false, true
			}
		case t.key.ID != "":
			t.q.addKeyed(t.x, t.key, int64(msg.Delay))
		case msg.Delay > 0:
			t.q.add(t.x, m.Now+int64(msg.Delay))
		default:
			t.q.add(t.x, 0)
		}
		if t.x != joins && t.q.Config.Accept.Rate > 0 {
			t.q.accepted = append(t.q.accepted, accepted{m.Now, t.q.Config.Accept.Rate})
		}
		if t.x != joins && !stored {
			seq, dup, stored = t.x.seq, false, true
		}
		if t.q.Config.DedupWindow > 0 && msg.DedupID != "" {
			t.q.ids[msg.DedupID] = knownID{t.x.seq, m.Now + int64(t.q.Config.DedupWindow)}
		}
	}
	for _, t := range targets {
		if t.q.Config.Overflow != surgetank.OverflowReject && t.q.over(0, 0) {
			t.q.dispatch()
			t.q.enforce()
		}
	}
	return code, seq, dup && code == ""
}

// tooFast returns the code with which accept.rate refuses this many messages now, or "". It replays
// all publishes since the opening.
func (q *Queue) tooFast(messages int) surgetank.Code {
	a := q.Config.Accept
	if a.Rate <= 0 {
		return ""
	}
	if messages > max(1, a.Burst) {
		return surgetank.CodeTooLarge
	}
	tat := int64(0)
	for _, x := range q.accepted {
		spend(&tat, x.rate, x.at)
	}
	for range messages {
		if due(tat, a.Rate, a.Burst) > q.m.Now {
			return surgetank.CodeBusy
		}
		spend(&tat, a.Rate, q.m.Now)
	}
	return ""
}

// refuses returns the code with which a queue refuses more messages, or "". It first serves a
// waiting consumer, because a hand-out can make room.
func (q *Queue) refuses(messages int, bytes int64) surgetank.Code {
	if q.m.Full {
		return surgetank.CodeFull
	}
	if code := q.tooFast(max(1, messages)); code != "" {
		return code
	}
	if !q.over(messages, bytes) || q.Config.Overflow != surgetank.OverflowReject && q.sheds() {
		return ""
	}
	q.dispatch()
	if !q.over(messages, bytes) {
		return ""
	}
	q.m.mark(q)
	return surgetank.CodeFull
}

// Attach adds a consumer to a queue.
func (m *Model) Attach(name string, id uint64, opts door.SubscribeOptions, once, now bool) (*Consumer, surgetank.Code) {
	q := m.Queues[name]
	if q == nil {
		return nil, surgetank.CodeNotFound
	}
	if most := q.Config.MaxConsumers; most > 0 && len(q.consumers) >= most && !now {
		return nil, surgetank.CodeFull
	}
	for _, o := range q.consumers {
		if !once && !now && (opts.Exclusive || o.opts.Exclusive) {
			return nil, surgetank.CodeExists
		}
	}
	if opts.NoAck && q.Control != nil && q.Control.Limit != nil {
		return nil, surgetank.CodeInvalid
	}
	m.turns++
	c := &Consumer{id: id, q: q, opts: opts, credit: opts.Credit, once: once, now: now, turn: m.turns}
	if once || now {
		m.once = append(m.once, c)
	}
	q.consumers = append(q.consumers, c)
	q.cameOrLeft(c)
	q.offer(c)
	return c, ""
}

// Stop stops hand-outs to a consumer.
func (m *Model) Stop(c *Consumer) { c.stop = true }

// PoolLimit sets how many messages may be leased to all consumers of a pool together; 0: no limit.
func (m *Model) PoolLimit(id uint64, limit int) {
	m.pools[id] = limit
	m.forgetPool(id)
	for _, c := range m.members(id) {
		m.mark(c.q)
	}
}

// Credit adds credit to a consumer. A negative n removes unused credit.
func (m *Model) Credit(c *Consumer, n int) {
	if !c.gone {
		c.credit = max(0, c.credit+n)
		c.q.offer(c)
	}
}

// Detach ends a subscription. Its messages in back are returned, and their attempts do not count.
// If all is true, its other messages are returned too, and their attempts count.
func (m *Model) Detach(c *Consumer, back []uint64, all bool) {
	if !c.gone {
		m.unlist(c)
	}
	q := c.q
	if m.Queues[q.Name] != q {
		return
	}
	for _, seq := range back {
		if x := q.Find(seq); x != nil && x.consumer == c {
			q.giveUp(x, 0, false, "", End{outcome: breaker.Returned})
		}
	}
	if all {
		for _, x := range slices.Clone(q.msgs) {
			if x.consumer == c {
				q.giveUp(x, 0, true, "its consumer went away without an ack", End{outcome: breaker.Returned})
			}
		}
	}
}

// Lease is the lease of one hand-out.
type Lease struct {
	q  *Queue
	x  *Message
	no uint64
}

// Lease returns the newest lease on a message. It returns false if the message is not leased.
func (m *Model) Lease(queue string, seq uint64) (Lease, bool) {
	if q := m.Queues[queue]; q != nil {
		if x := q.Find(seq); x != nil && x.state == surgetank.StateLeased {
			return Lease{q, x, x.lease}, true
		}
	}
	return Lease{}, false
}

// Lives tells whether a lease is still in force.
func (m *Model) Lives(l Lease) bool {
	return l.q != nil && m.Queues[l.q.Name] == l.q && l.x.state == surgetank.StateLeased && l.x.lease == l.no && slices.Contains(l.q.msgs, l.x)
}

// Holds tells whether a message is leased to consumer c.
func (l Lease) Holds(c *Consumer) bool { return l.x.consumer == c }

// Seq returns the message's number.
func (l Lease) Seq() uint64 { return l.x.seq }

// Settle settles a lease that has not ended. at is the time when the settlement arrived; 0: now.
func (l Lease) Settle(s *surgetank.Settlement, at int64) {
	q, x := l.q, l.x
	end := End{at: at, elapsed: int64(s.Elapsed)}
	switch s.Op {
	case surgetank.Ack:
		q.unlease(x, end)
		q.remove(x)
	case surgetank.Nack:
		end.retryAfter = int64(s.RetryAfter)
		delay, counted := s.Delay, !s.Uncounted
		switch {
		case s.Target == surgetank.TargetDown:
			end.outcome = breaker.Down
		case s.Target == surgetank.TargetBusy:
			end.outcome, counted = breaker.Throttle, false
			if delay >= 0 {
				delay = max(delay, s.RetryAfter)
			}
		case counted:
			end.outcome = breaker.Failed
		default:
			end.outcome = breaker.Returned
		}
		q.giveUp(x, delay, counted, s.Reason, end)
	case surgetank.Reject:
		end.outcome = breaker.BadMessage
		q.unlease(x, end)
		x.attempts++
		if !q.sendToDeadLetter(x, surgetank.ReasonRejected) {
			q.putBack(x)
		}
	case surgetank.Extend:
		x.deadline = q.m.Now + int64(s.Lease)
		if c := q.Control; c != nil {
			was := c.state()
			if c.Limit != nil && !x.consumer.opts.OwnLevel {
				c.Limit.Extended(q.m.Now)
			}
			if c.Breaker != nil {
				c.Breaker.Extended(q.m.Now, q.outside(x))
			}
			c.changed(was)
		}
	}
}

// resumed tells the queue's controller that a pause has ended.
func (q *Queue) resumed() {
	if c := q.Control; c != nil && c.Limit != nil {
		c.Limit.Reset(q.m.Now, adapt.Resumed)
	}
}

// Purge drops the messages in a range of numbers, except leased ones, like one turn of a purge.
func (m *Model) Purge(q *Queue, from, below uint64) (n int64) {
	for _, x := range slices.Clone(q.msgs) {
		if x.state != surgetank.StateLeased && x.seq >= from && x.seq < below {
			q.remove(x)
			n++
		}
	}
	return n
}

// Delete removes a queue and returns the number of its messages that were not leased.
func (m *Model) Delete(q *Queue) (n int64) {
	n = int64(len(q.msgs) - q.count(surgetank.StateLeased, "")) // damaged messages are counted
	if q.Control != nil {
		for _, x := range slices.Clone(q.msgs) {
			if x.state == surgetank.StateLeased {
				q.unlease(x, End{outcome: breaker.Returned})
			}
		}
		q.leaveControl()
	}
	for len(q.consumers) > 0 {
		m.end(q.consumers[0])
	}
	delete(m.Queues, q.Name)
	return n
}

// Redrive moves messages to another queue.
func (m *Model) Redrive(q *Queue, o surgetank.RedriveOptions) (r surgetank.RedriveResult) {
	for _, x := range slices.Clone(q.msgs) {
		if !x.inLine() || o.Reason != "" && x.reason != o.Reason || o.Queue != "" && x.from != o.Queue {
			continue
		}
		if o.Max > 0 && r.Matched >= o.Max {
			break
		}
		r.Matched++
		name := o.To
		if name == "" {
			name = x.from
		}
		to := m.Queues[name]
		switch {
		case to == nil:
			r.Skipped++
		case !o.DryRun && q.redriveMeets(x, to):
			r.Moved++
		case !o.DryRun && to != q && !to.fits(x.size):
			r.Skipped++
			r.Full++
		case !o.DryRun:
			n := q.move(x, to, false)
			n.again = true
			if to.Config.TTL > 0 {
				n.expires = m.Now + int64(to.Config.TTL)
			}
			r.Moved++
		}
	}
	return r
}

// Rest is a clean stop: it marks the leased messages as redelivered. The caller then calls Crash.
func (m *Model) Rest() {
	m.rested = true
	for _, q := range m.Queues {
		for _, x := range q.msgs {
			x.again = x.again || x.state == surgetank.StateLeased
		}
	}
}

// Crash is a recovery at the time now: leases and consumers are gone, and no attempt counts.
// Every message is marked as redelivered, unless the broker stopped cleanly.
func (m *Model) Crash(now int64) {
	m.Now = max(m.Now, now)
	rested := m.rested
	m.rested = false
	m.order, m.once, m.Outs, m.Ended, m.Full = nil, nil, nil, nil, false
	clear(m.pools)
	all := m.Names()
	slices.SortFunc(all, func(a, b string) int { return m.Queues[a].made - m.Queues[b].made })
	for _, name := range all {
		m.Queues[name].Control = nil
	}
	for _, name := range all {
		q := m.Queues[name]
		if q.Config.Transient {
			delete(m.Queues, name)
			continue
		}
		q.consumers, q.line, q.tat, q.budget, q.accepted, q.order = nil, nil, 0, account{}, nil, order{run: map[lineKey]int{}, relined: true}
		if !rested {
			q.fresh = q.next
		}
		q.groups = map[string]*flow{plainLine: {}}
		for _, x := range q.msgs {
			x.consumer, x.deadline, x.lapsed, x.suspect, x.retry, x.fullUntil, x.parking = nil, 0, false, false, 0, 0, false
			if x.chain.id != "" && !x.again {
				x.notBefore = x.chain.due
			}
			q.place(x, x.notBefore)
		}
	}
}

// Opened is the first command of an opening, at the time now. It follows Crash.
func (m *Model) Opened(now int64) {
	m.Now = max(m.Now, now)
	all := m.Names()
	slices.SortFunc(all, func(a, b string) int { return m.Queues[a].made - m.Queues[b].made })
	for _, name := range all {
		m.Queues[name].recontrol()
	}
}

// delayed tells whether a message waits for a time: the end of its delay or its next attempt.
func (x *Message) delayed(now int64) bool {
	return x.state == surgetank.StateDelayed || x.state == surgetank.StateReady && (x.notBefore > now && !x.collects(now) || x.backsOff)
}

// waits tells whether a message is in line and its time has come.
func (x *Message) waits(now int64) bool { return x.state == surgetank.StateReady && !x.delayed(now) }

// Info returns the statistics that QueueInfo must have.
func (q *Queue) Info() surgetank.QueueInfo {
	i := surgetank.QueueInfo{Name: q.Name, Leased: int64(q.count(surgetank.StateLeased, "")), Damaged: int64(q.count(surgetank.StateDamaged, "")), Consumers: int64(len(q.consumers))}
	*door.QueueFloor(&i) = q.next
	if q.Config.Paused {
		i.PausedBy, i.PausedAt = q.pausedBy, time.Unix(0, q.pausedAt).UTC()
	}
	var next *Message
	for n, x := range q.msgs {
		if n == 0 {
			*door.QueueFloor(&i) = x.seq
		}
		i.Bytes += x.size
		if x.waits(q.m.Now) && !q.stuck(x) {
			i.OldestAge = max(i.OldestAge, time.Duration(q.m.Now-x.since/int64(time.Second)*int64(time.Second)))
		}
		if !x.delayed(q.m.Now) {
			continue
		}
		i.Delayed++
		if x.again {
			i.BackingOff++
			if next == nil || x.notBefore < next.notBefore {
				next = x
			}
		}
	}
	if next != nil {
		i.NextTry, i.Failure = time.Unix(0, next.notBefore).UTC(), next.failure
	}
	for key := range q.groups {
		if key[0] != 0 {
			i.Groups++
		}
		waiting, stuck := int64(0), int64(0)
		for _, x := range q.msgs {
			if x.key() == key && x.waits(q.m.Now) {
				waiting++
				if q.stuck(x) {
					stuck++
				}
			}
		}
		open := int64(0)
		if q.groupMayGo(key) {
			open = waiting - stuck
			if g := q.Config.Group.MaxInFlight; g > 0 && key[0] != 0 {
				open = min(open, int64(q.groupLimit(key)-q.inFlight(key)))
			}
		}
		i.Ready += open
		i.Blocked += waiting - open
	}
	return i
}

// Refused returns the error code with which a transaction must be refused, or "".
func (m *Model) Refused(ps []surgetank.Publishing, leases []Lease) surgetank.Code {
	messages, bytes := map[*Queue]int{}, map[*Queue]int64{}
	for i := range ps {
		msg := &ps[i].Message
		for _, name := range ps[i].Queues {
			q := m.Queues[name]
			if q == nil {
				return surgetank.CodeNotFound
			}
			if _, known := q.known(msg.DedupID); known {
				continue
			}
			messages[q]++
			bytes[q] += int64(len(msg.Body))
			if code := q.refuses(messages[q], bytes[q]); code != "" {
				return code
			}
		}
	}
	seen := map[*Message]bool{}
	for _, l := range leases {
		if !m.Lives(l) {
			return surgetank.CodeLeaseLost
		}
		if seen[l.x] {
			return surgetank.CodeInvalid
		}
		seen[l.x] = true
	}
	return ""
}

// Durable returns a copy of the durable state. Call Crash on the copy to make it a new opening.
func (m *Model) Durable() *Model {
	c := New()
	c.Now, c.made, c.RetryReserve = m.Now, m.made, m.RetryReserve
	for name, q := range m.Queues {
		d := &Queue{Name: name, Config: q.Config, m: c, made: q.made, next: q.next, ids: make(map[string]knownID, len(q.ids)), fresh: q.fresh, pausedBy: q.pausedBy, pausedAt: q.pausedAt, msgs: make([]*Message, len(q.msgs))}
		all := make([]Message, len(q.msgs))
		for i, x := range q.msgs {
			all[i] = *x
			all[i].consumer = nil
			d.msgs[i] = &all[i]
		}
		for id, k := range q.ids {
			if k.until > m.Now {
				d.ids[id] = k
			}
		}
		c.Queues[name] = d
	}
	for id, p := range m.Publishers {
		c.Publishers[id] = &Publisher{Confirmed: maps.Clone(p.Confirmed), Used: p.Used}
	}
	c.Metas = m.Metas.clone()
	return c
}

// Stored is a message as its readers see it.
type Stored struct {
	Seq      uint64
	Group    string
	Size     int64
	Attempts int
	Deaths   int
	Delayed  bool
	Failure  string
	Due      int64 // when a delayed message becomes ready
}

// Messages returns all messages in the order of their numbers.
func (q *Queue) Messages() []Stored {
	all := make([]Stored, len(q.msgs))
	for i, x := range q.msgs {
		all[i] = Stored{x.seq, x.group, x.size, x.attempts, x.deaths, x.delayed(q.m.Now), x.failure, 0}
		if x.delayed(q.m.Now) {
			all[i].Due = x.notBefore
		}
	}
	return all
}
