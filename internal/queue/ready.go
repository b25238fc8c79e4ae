package queue

// verdict answers two questions: "who is eligible now?" and "why does this message wait?".
//
//	decided for  | verdict       | when                                             | ends by
//	-------------+---------------+--------------------------------------------------+------------------------
//	the queue    | paused        | settings say so                                  | resume
//	             | breakerOpen   | the target is down                               | time, command
//	             | probing       | one message is out to test the target            | ack, nack, time
//	             | levelInFlight | leased messages reached level.max_in_flight      | ack, nack, lost lease
//	             | levelRate     | level.rate's next hand-out is in the future      | time
//	             | levelAdaptive | leased messages reached the target's limit       | ack, nack, lost lease, time
//	             | moving        | it is about to be in another shard               | the end of the move
//	a group      | groupEmpty    | no message waits, or all messages are delayed    | publish, time
//	             | groupInFlight | leased messages reached group.max_in_flight (for | ack, nack, lost lease
//	             |               | a queue's only consumer: its group_run); those   | (or dropping what is
//	             |               | that cannot be read count as leased              | damaged)
//	             | groupRetry    | max_in_flight 1 and its front message backs off  | time
//	             | keyBusy       | an earlier message with its front's coalescing   | ack, nack, lost lease
//	             |               | key is not settled (coalesce.go)                 |
//	             | keyCollects   | coalesce.window of its front message is not over | time
//	             | groupRate     | group.rate's next hand-out is in the future      | time
//	the consumer | noConsumer    | none is attached, or none is active              | subscribe
//	             | noCredit      | none has credit                                  | ack, more credit
//
// why.go explains these verdicts to users. A new verdict needs an entry in why.go.
//
// Among the groups that can deliver, the group whose front message has the highest priority is
// first. Among equal priorities, the groups take turns if group.fair is set (ring.go). Without
// group.fair, the group whose front message was confirmed first is chosen. level.fresh_share and
// priority_step change this order (sched.go). Delayed and retried messages are in no line until
// they are due. A strict group is the exception: a message that backs off stays in its line and
// blocks the line.
type verdict uint8

const (
	mayGo verdict = iota
	paused
	breakerOpen
	probing
	levelInFlight
	levelRate
	levelAdaptive
	groupEmpty
	groupInFlight
	groupRetry
	keyBusy
	keyCollects
	groupRate
	noConsumer
	noCredit
	moving
)

// queueVerdict tells whether the queue as a whole can deliver, and if not, why.
func (q *Queue) queueVerdict() verdict {
	l := &q.config.Level
	switch {
	case q.config.Paused:
		return paused
	case q.onHold, q.frozen:
		return moving
	case q.control != nil && q.control.shut():
		return q.closedVerdict()
	case l.MaxInFlight > 0 && q.leased >= int64(l.MaxInFlight):
		return levelInFlight
	case l.Rate > 0 && rateDue(q.tat, l.Rate, l.Burst) > q.m.now:
		return levelRate
	case q.control != nil && q.control.full(q):
		return levelAdaptive
	}
	return mayGo
}

// groupVerdict tells whether one flow can deliver, and if not, why.
func (q *Queue) groupVerdict(h uint32) verdict {
	f, g := &q.flows[h], &q.config.Group
	switch {
	case f.waiting == 0:
		return groupEmpty
	case q.groupName(h) == "":
		return mayGo // messages without a group have no group limits
	case g.MaxInFlight > 0 && f.inflight >= q.groupLimit(f):
		return groupInFlight
	case len(q.backing) > 0 && q.backsOff(q.frontOf(h)):
		return groupRetry
	}
	if q.slots.keys.used > 0 {
		if v := q.keyVerdict(q.frontOf(h)); v != mayGo {
			return v
		}
	}
	if g.Rate > 0 && rateDue(f.tat, g.Rate, 1) > q.m.now {
		return groupRate
	}
	return mayGo
}

// groupLimit returns how many messages of a group may be leased at one time. A queue's only
// consumer may ask for runs, which means that it promises to handle each group in order. This
// consumer may have more leases of a group than the limit, as long as no other consumer has a lease
// of the group. Groups are still served in the order of confirmation, so a backlog is read from
// disk in the order of writing.
func (q *Queue) groupLimit(f *flow) uint32 {
	limit := uint32(q.config.Group.MaxInFlight)
	if q.sole != nil && (f.inflight == 0 || f.holder == q.sole.id) {
		limit = max(limit, uint32(q.sole.opts.GroupRun))
	}
	return limit
}

// touch updates a flow's position in the order of groups. Call it after every change of the flow.
func (q *Queue) touch(h uint32) {
	if q.sched != nil {
		q.ageLine(h)
	}
	f := &q.flows[h]
	was := int64(f.open)
	switch v := q.groupVerdict(h); v {
	case mayGo:
		f.open = f.waiting - f.backs
		if q.config.Group.MaxInFlight > 0 && q.groupName(h) != "" {
			f.open = min(f.open, q.groupLimit(f)-f.inflight)
		}
		if q.sched != nil {
			break
		}
		front := q.frontOf(h)
		f = &q.flows[h]
		s := q.slots.get(front)
		place := front
		if q.groupName(h) != "" {
			place = q.placeOf(front)
		}
		if f.place >= 0 && f.front == place && f.priority == s.priority && f.after == s.time {
			break
		}
		f.front, f.priority, f.after = place, s.priority, s.time
		if f.place < 0 {
			q.ready.push(q, h)
		} else {
			q.ready.fix(q, int(f.place))
		}
	default:
		switch v {
		case groupRate:
			q.wakeFlow(h, rateDue(f.tat, q.config.Group.Rate, 1))
		case keyCollects:
			q.wakeFlow(h, q.slots.key(q.frontOf(h)).due)
		}
		f.open = 0
		if q.sched == nil {
			q.unready(h)
		}
	}
	q.ready_ += int64(f.open) - was
	if q.sched != nil {
		q.noteChange(h, was > 0)
	}
}

// wakeFlow schedules a look at a flow for the time when its rate limit allows a message again.
func (q *Queue) wakeFlow(h uint32, at int64) {
	if f := &q.flows[h]; f.wakeAt != at {
		f.wakeAt = at
		q.wake.push(timed{at, uint64(h)})
		q.timerAt(at)
	}
}

func (q *Queue) unready(h uint32) {
	if p := q.flows[h].place; p >= 0 {
		q.ready.remove(q, int(p))
	}
}

// readyHeap is a heap of the flows that can deliver, the next one first.
type readyHeap []uint32

func (r readyHeap) less(q *Queue, i, j int) bool {
	a, b := &q.flows[r[i]], &q.flows[r[j]]
	if q.config.PriorityStep > 0 {
		if x, y := q.agedKey(a.after, a.priority), q.agedKey(b.after, b.priority); x != y {
			return x < y
		}
	}
	if a.priority != b.priority {
		return a.priority > b.priority
	}
	return a.front < b.front
}

func (r readyHeap) swap(q *Queue, i, j int) {
	r[i], r[j] = r[j], r[i]
	q.flows[r[i]].place, q.flows[r[j]].place = int32(i), int32(j)
}

func (r *readyHeap) push(q *Queue, h uint32) {
	q.flows[h].place = int32(len(*r))
	*r = append(*r, h)
	r.fix(q, len(*r)-1)
}

func (r readyHeap) fix(q *Queue, i int) {
	for i > 0 && r.less(q, i, (i-1)/2) {
		r.swap(q, i, (i-1)/2)
		i = (i - 1) / 2
	}
	for {
		c := 2*i + 1
		if c >= len(r) {
			return
		}
		if c+1 < len(r) && r.less(q, c+1, c) {
			c++
		}
		if !r.less(q, c, i) {
			return
		}
		r.swap(q, i, c)
		i = c
	}
}

func (r *readyHeap) remove(q *Queue, i int) {
	n := len(*r) - 1
	q.flows[(*r)[i]].place = -1
	if i < n {
		(*r)[i] = (*r)[n]
		q.flows[(*r)[i]].place = int32(i)
	}
	*r = (*r)[:n]
	if i < n {
		r.fix(q, i)
	}
}
