package queue

import "math"

// A turn has two lanes of commands, so that publishers do not starve consumers:
//
//	front | settlements, credit, pool limits, ends of subscriptions: they free messages and room
//	back  | all other commands, in the order of their arrival
//
// The front lane runs first. While commands of the back lane wait, the front lane may fill half of
// the turn's entry. So neither lane starves.
//
// At least half of a turn's work is for consumers. A turn hands out messages after its commands, so
// it estimates the number of hand-outs before its first publish: the waiting messages that
// consumers have credit for. If this number is not 0, the turn accepts at most as many new
// messages, and the new messages may fill at most half of the rest of the entry. Without a backlog
// or without credit there is no such limit. Limits.TurnPublish messages are always accepted:
// smaller turns would cost a publisher more than they help a consumer with little credit.
//
// This limit alone does not help a consumer that has less credit than publishers have unconfirmed
// messages: the loop runs further publishes while the consumer's acks are under way. So the machine
// compares the credit of consumers with their leased messages. If the credit is larger, the
// consumers wait for the broker and not for their own work. In this case publishes wait, after
// their share, for the consumers' next commands. They wait for Limits.Hold at most.

// splitAt is how many messages of one command are accepted together, unless the entry is full. So
// commands with few messages are not split because of the quota.
const splitAt = 256

// crowdLook is how many consumers the estimate of one queue looks at. It extrapolates from them.
const crowdLook = 64

// Front reports whether a command belongs to the front lane.
func Front(cmd Command) bool {
	switch cmd.(type) {
	case *Settle, *Credit, *PoolLimit, *Stop, *Detach, *Quarantine:
		return true
	}
	return false
}

// quota is the publishers' share of the work.
type quota struct {
	known    bool // the fields messages and bytes are computed for this turn
	messages int  // how many messages this turn accepts at most
	bytes    int  // length of the entry at which no further message is accepted

	until int64 // up to this time, consumers wait for hand-outs rather than for their own work
	allow int   // how many messages are accepted up to the time until
}

// wantsAll is how many hand-outs a turn must have before publishers wait for the next ones.
const wantsAll = 64

// Held returns the time until which publishes wait for consumers, or 0 if publishes need not wait.
// Other commands of the back lane wait behind the publishes.
func (m *Machine) Held() int64 {
	if q := &m.quota; q.allow <= 0 && q.until > m.now {
		return q.until
	}
	return 0
}

// publishersDone reports whether the rest of the publishes must wait for the next turn.
func (m *Machine) publishersDone() bool {
	s := &m.quota
	if !s.known {
		m.setQuota()
	}
	return m.published >= s.messages || len(m.out.Entry) >= s.bytes
}

func (m *Machine) setQuota() {
	s := &m.quota
	s.known, s.messages, s.bytes = true, math.MaxInt, m.limits.TurnBytes
	d := m.demand()
	if d.handouts > 0 {
		s.messages = max(d.handouts, m.limits.TurnPublish)
		s.bytes = len(m.out.Entry) + max(0, m.limits.TurnBytes-len(m.out.Entry))/2
	}
	switch {
	case d.handouts >= wantsAll && d.handouts >= d.leased && m.limits.Hold > 0:
		s.until, s.allow = m.now+int64(m.limits.Hold), s.messages
	case s.until > m.now:
		s.allow += d.handouts
	default:
		s.until = 0
		return
	}
	s.messages = min(s.messages, s.allow)
}

// demand is an estimate of what consumers could receive in this turn.
type demand struct {
	handouts int
	leased   int // messages that are leased to these consumers
}

// demand estimates the hand-outs of this turn. Only marked queues hand out messages.
func (m *Machine) demand() (all demand) {
	for _, q := range m.dirty {
		d := q.demand(m.limits.TurnHandout - all.handouts)
		if all.handouts, all.leased = all.handouts+d.handouts, all.leased+d.leased; all.handouts >= m.limits.TurnHandout {
			break
		}
	}
	return all
}

// demand estimates the hand-outs of one queue, up to most.
func (q *Queue) demand(most int) (d demand) {
	if q.gone || !q.anyReady() || q.queueVerdict() != mayGo {
		return d
	}
	most = int(min(int64(most), q.ready_))
	l := &q.config.Level
	if l.MaxInFlight > 0 {
		most = int(min(int64(most), int64(l.MaxInFlight)-q.leased))
	}
	if l.Rate > 0 {
		most = min(most, max(1, l.Burst))
	}
	if q.control != nil {
		if n, limited := q.control.room(q); limited {
			most = min(most, n)
		}
	}
	looked, all := 0, 0
	for _, p := range q.line.heap {
		s := p.of.seat
		if s.full() {
			continue
		}
		all += len(s.line.heap)
		room := math.MaxInt
		if s.pool != nil && s.pool.limit > 0 {
			room = s.pool.limit - s.pool.held
		}
		for _, p := range s.line.heap {
			c := p.of.c
			if d.handouts >= most || room <= 0 || looked == crowdLook {
				break
			}
			if looked++; c.willing() && c.active() {
				n := min(c.credit, room)
				d.handouts, d.leased, room = d.handouts+n, d.leased+c.leases.n, room-n
			}
		}
	}
	if looked == crowdLook && all > looked {
		d.handouts, d.leased = d.handouts*all/looked, d.leased*all/looked
	}
	d.handouts = min(d.handouts, most)
	return d
}
