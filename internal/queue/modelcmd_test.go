package queue

import (
	"slices"

	"github.com/surgetank/surgetank"
)

// The commands, as the model understands them. Each gives what the machine must give.

func (m *model) declare(name string, cfg surgetank.QueueConfig) {
	q := m.queues[name]
	if q == nil {
		m.mark(m.make(name, cfg))
		return
	}
	if cfg = cfg.WithDefaults(); q.cfg != cfg {
		q.cfg = cfg
		m.mark(q)
	}
}

func (m *model) publish(msg surgetank.Message, names []string, admitted bool) (code surgetank.Code, seq uint64, dup bool) {
	type target struct {
		q *mQueue
		x *mMsg
	}
	var targets []target
	for _, name := range names {
		q := m.queues[name]
		if q == nil {
			code = surgetank.CodeNotFound
			continue
		}
		if slices.ContainsFunc(targets, func(t target) bool { return t.q == q }) {
			continue
		}
		if id, known := q.ids[msg.DedupID]; known && msg.DedupID != "" && q.cfg.DedupWindow > 0 && id.until > m.now {
			if dup = true; seq == 0 {
				seq = id.seq
			}
			continue
		}
		if !admitted && q.refuses(1, int64(len(msg.Body))) {
			code = surgetank.CodeFull
			continue
		}
		x := &mMsg{group: msg.Group, priority: min(msg.Priority, q.cfg.MaxPriority), size: int64(len(msg.Body))}
		ttl := q.cfg.TTL
		if msg.TTL > 0 && (ttl == 0 || msg.TTL < ttl) {
			ttl = msg.TTL
		}
		if ttl > 0 {
			x.expires = m.now + int64(ttl)
		}
		targets = append(targets, target{q, x})
	}
	for i, t := range targets {
		notBefore := int64(0)
		if msg.Delay > 0 {
			notBefore = m.now + int64(msg.Delay)
		}
		t.q.add(t.x, notBefore)
		if i == 0 {
			seq, dup = t.x.seq, false
		}
		if t.q.cfg.DedupWindow > 0 && msg.DedupID != "" {
			t.q.ids[msg.DedupID] = mID{t.x.seq, m.now + int64(t.q.cfg.DedupWindow)}
		}
	}
	return code, seq, dup && code == ""
}

// refuses says whether a queue has no room for more; a waiting consumer may make room.
func (q *mQueue) refuses(messages int, bytes int64) bool {
	if q.cfg.Overflow != surgetank.OverflowReject || !q.over(messages, bytes) {
		return false
	}
	q.dispatch()
	if !q.over(messages, bytes) {
		return false
	}
	q.m.mark(q)
	return true
}

func (m *model) attach(name string, id uint64, opts surgetank.SubscribeOptions, once, now bool) (*mConsumer, surgetank.Code) {
	q := m.queues[name]
	if q == nil {
		return nil, surgetank.CodeNotFound
	}
	for _, o := range q.consumers {
		if !once && !now && (opts.Exclusive || o.opts.Exclusive) {
			return nil, surgetank.CodeExists
		}
	}
	c := &mConsumer{id: id, q: q, opts: opts, credit: opts.Credit, once: once, now: now}
	if once || now {
		m.once = append(m.once, c)
	}
	q.consumers = append(q.consumers, c)
	q.offer(c)
	return c, ""
}

func (m *model) credit(c *mConsumer, n int) {
	if !c.gone {
		c.credit = max(0, c.credit+n)
		c.q.offer(c)
	}
}

// detach ends a subscription: back goes back uncounted, with all the rest goes back counted.
func (m *model) detach(c *mConsumer, back []uint64, all bool) {
	if !c.gone {
		m.unlist(c)
	} else {
		all = false // it ended before; its leases are not its any more
	}
	q := c.q
	if m.queues[q.name] != q {
		return
	}
	for _, seq := range back {
		if x := q.find(seq); x != nil && x.consumer == c {
			q.giveUp(x, 0, false)
		}
	}
	if all {
		for _, x := range slices.Clone(q.msgs) {
			if x.consumer == c {
				q.giveUp(x, 0, true)
			}
		}
	}
}

// settle does one settlement; seq is of a message whose lease must still live.
func (q *mQueue) settle(x *mMsg, s surgetank.Settlement) {
	switch s.Op {
	case surgetank.Ack:
		q.unlease(x)
		q.remove(x)
	case surgetank.Nack:
		q.giveUp(x, s.Delay, !s.Uncounted)
	case surgetank.Reject:
		q.unlease(x)
		q.bury(x, surgetank.ReasonRejected)
	case surgetank.Extend:
		x.deadline = q.m.now + int64(s.Lease)
	}
}

func (m *model) purge(q *mQueue) (n int64) {
	for _, x := range slices.Clone(q.msgs) {
		if x.state != surgetank.StateLeased {
			q.remove(x)
			n++
		}
	}
	return n
}

func (m *model) delete(q *mQueue) (n int64) {
	n = int64(len(q.msgs) - q.count(surgetank.StateLeased, ""))
	for len(q.consumers) > 0 {
		m.end(q.consumers[0])
	}
	delete(m.queues, q.name)
	return n
}

func (m *model) redrive(q *mQueue, o surgetank.RedriveOptions) (r surgetank.RedriveResult) {
	for _, x := range slices.Clone(q.msgs) {
		if x.state == surgetank.StateLeased || o.Reason != "" && x.reason != o.Reason || o.Queue != "" && x.from != o.Queue {
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
		to := m.queues[name]
		switch {
		case to == nil:
			r.Skipped++
		case !o.DryRun:
			n := q.move(x, to)
			n.again = true
			if to.cfg.TTL > 0 {
				n.expires = m.now + int64(to.cfg.TTL)
			}
			r.Moved++
		}
	}
	return r
}

// crash is a new opening: leases and consumers are gone, nothing is counted, everything may have been seen before.
func (m *model) crash() {
	m.order, m.once, m.outs, m.ended = nil, nil, nil, nil
	for _, name := range m.names() {
		q := m.queues[name]
		if q.cfg.Transient {
			delete(m.queues, name)
			continue
		}
		q.consumers, q.line, q.tat, q.turn, q.fresh = nil, nil, 0, 0, q.next
		q.groups = map[string]*mGroup{plainLine: {}}
		for _, x := range q.msgs {
			x.consumer, x.deadline = nil, 0
			q.group(x.key())
			q.place(x, x.notBefore)
		}
	}
}

// info is what QueueInfo must say.
func (q *mQueue) info() surgetank.QueueInfo {
	i := surgetank.QueueInfo{Name: q.name, Floor: q.next, Delayed: int64(q.count(surgetank.StateDelayed, "")),
		Leased: int64(q.count(surgetank.StateLeased, "")), Consumers: int64(len(q.consumers))}
	for n, x := range q.msgs {
		if n == 0 {
			i.Floor = x.seq
		}
		i.Bytes += x.size
	}
	for key := range q.groups {
		if key[0] != 0 {
			i.Groups++
		}
		waiting := int64(q.count(surgetank.StateReady, key))
		open := int64(0)
		if q.groupMayGo(key) {
			open = waiting
			if g := q.cfg.Group.MaxInFlight; g > 0 && key[0] != 0 {
				open = min(open, int64(q.groupLimit(key)-q.count(surgetank.StateLeased, key)))
			}
		}
		i.Ready += open
		i.Blocked += waiting - open
	}
	return i
}
