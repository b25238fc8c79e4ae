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
// Consumers get at least half of a turn's work. A turn hands out messages after its commands, so it
// estimates the hand-outs before its first publish: the messages that wait and that consumers have
// credit for. While there are any, the turn accepts at most as many new messages, and these may fill
// at most half of the rest of the entry. Without a backlog or without credit there is no such limit.
// Limits.TurnPublish messages are always accepted: smaller turns would cost a publisher more than
// they help a consumer with little credit.

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

// quota is the publishers' share of one turn.
type quota struct {
	known    bool // the fields below are computed
	messages int  // accepted at most
	bytes    int  // length of the entry at which no further message is accepted
}

// publishersDone reports whether the rest of the publishes must wait for the next turn.
func (m *Machine) publishersDone() bool {
	s := &m.quota
	if !s.known {
		*s = quota{known: true, messages: math.MaxInt, bytes: m.limits.TurnBytes}
		if n := m.demand(); n > 0 {
			s.messages = max(n, m.limits.TurnPublish)
			s.bytes = len(m.out.Entry) + max(0, m.limits.TurnBytes-len(m.out.Entry))/2
		}
	}
	return m.published >= s.messages || len(m.out.Entry) >= s.bytes
}

// demand estimates how many messages this turn will hand out. Queues that nobody marked hand out
// nothing.
func (m *Machine) demand() int {
	n := 0
	for _, q := range m.dirty {
		if n += q.demand(); n >= m.limits.TurnHandout {
			return m.limits.TurnHandout
		}
	}
	return n
}

// demand estimates how many messages of the queue could be handed out now.
func (q *Queue) demand() int {
	if q.gone || len(q.ready) == 0 || q.queueVerdict() != mayGo {
		return 0
	}
	most := int64(q.m.limits.TurnHandout)
	most = min(most, q.ready_)
	if l := &q.config.Level; l.MaxInFlight > 0 {
		most = min(most, int64(l.MaxInFlight)-q.leased)
	}
	if l := &q.config.Level; l.Rate > 0 {
		most = min(most, int64(max(1, l.Burst)))
	}
	credit, looked, all := int64(0), 0, 0
	for _, p := range q.line.heap {
		s := p.of.seat
		if s.full() {
			continue
		}
		all += len(s.line.heap)
		room := most
		if s.pool != nil && s.pool.limit > 0 {
			room = int64(s.pool.limit - s.pool.held)
		}
		for _, p := range s.line.heap {
			if credit >= most {
				return int(most)
			}
			if looked++; looked > crowdLook || room <= 0 {
				break
			}
			if c := p.of.c; c.willing() && c.active() {
				n := min(int64(c.credit), room)
				credit, room = credit+n, room-n
			}
		}
	}
	if looked > crowdLook {
		credit = credit * int64(all) / crowdLook
	}
	return int(min(credit, most))
}
