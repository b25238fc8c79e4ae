package queue

import (
	"cmp"
	"slices"

	"github.com/surgetank/surgetank"
)

// Command is one request to the machine. The machine writes the result into the command. The result
// is valid only after the turn's entry is durable.
type Command interface {
	// run executes the command. It returns false if the turn is full: the command must be sent
	// again.
	run(m *Machine) bool
}

// Step runs one turn: due timers, then commands in order, then hand-outs. now is in nanoseconds
// since 1970; if now is before the last turn's time, the last turn's time is used. entry is the
// number of the turn's entry. Step returns how many commands are finished. The next turn must begin
// with the other commands.
func (m *Machine) Step(now int64, entry uint64, cmds []Command, out *Output) int {
	_, done := m.StepLanes(now, entry, nil, cmds, out)
	return done
}

// StepLanes is Step with the commands in two lanes (lanes.go). It returns how many commands of each
// lane are finished. The finished commands ran in the order of the lanes: front, then back. An
// OpenEpoch must be the first command of all.
func (m *Machine) StepLanes(now int64, entry uint64, front, back []Command, out *Output) (fronts, backs int) {
	m.begin(now, entry, out)
	if m.closed {
		return 0, 0
	}
	switch { // transient queues end before their timers fire
	case opens(front):
		m.do(front[0])
		fronts = 1
	case len(front) == 0 && opens(back):
		m.do(back[0])
		backs = 1
	}
	m.advance()
	m.budget = m.limits.TurnTimers // a new budget, so that many due timers do not keep commands waiting
	most := m.limits.TurnBytes
	if len(back) > backs {
		most /= 2
	}
	for fronts < len(front) && !m.turnFull() && (fronts == 0 || len(out.Entry) < most) && m.do(front[fronts]) {
		fronts++
	}
	for first := true; backs < len(back) && !m.turnFull() && (!m.publishersDone() || first && m.Held() == 0) && m.do(back[backs]); first = false {
		backs++
	}
	if m.quota.until > 0 {
		m.quota.allow -= m.published
	}
	m.finish()
	return fronts, backs
}

// opens reports whether the first command is OpenEpoch.
func opens(cmds []Command) bool {
	if len(cmds) == 0 {
		return false
	}
	_, is := cmds[0].(*OpenEpoch)
	return is
}

// do runs one command. It returns false if a later turn must run the rest of the command.
func (m *Machine) do(cmd Command) bool {
	m.halfway = !cmd.run(m)
	return !m.halfway
}

// Halfway reports whether the last turn ended in the middle of a command.
func (m *Machine) Halfway() bool { return m.halfway }

// TurnBytes returns the entry size after which a turn takes no further command.
func (m *Machine) TurnBytes() int64 { return int64(m.limits.TurnBytes) }

// TurnTime returns the time of a turn that starts at now. Time never goes back.
func (m *Machine) TurnTime(now int64) int64 { return max(m.now, now) }

func (m *Machine) begin(now int64, entry uint64, out *Output) {
	m.now = max(m.now, now)
	m.entry, m.out = entry, out
	m.turn++
	out.Turn = m.turn
	m.budget, m.scan, m.ends = m.limits.TurnTimers, m.limits.TurnScan, m.limits.TurnEnds
	m.published, m.quota.known, m.handBytes, m.halfway = 0, false, m.limits.TurnBytes, false
	if len(m.extents.list) == 0 || m.extents.list[len(m.extents.list)-1].size >= m.extents.bytes {
		m.extents.grow(entry, 0)
	}
}

// finish dispatches the marked queues and enforces their limits, until nothing is left to do or the
// turn is full. A message that one queue gives up is offered to consumers of its new queue in the
// same turn.
//
// Queues are served in the order of their creation, not of their marks. A queue that is marked
// again is served again. If a queue makes the turn full, the next turn begins with the queue after
// it, so that no queue takes all turns.
func (m *Machine) finish() {
	if n := len(m.out.Entry); n < MaxPosition/2 {
		m.handBytes = max(m.limits.TurnBytes, n+m.limits.TurnBytes/4) // hand-outs may go on after commands have filled the entry
	}
	m.endGone()
	m.wakeTouched()
	rank := func(q *Queue) uint64 { return q.id - m.after - 1 } // queues up to after come last
	work, full := m.dirty, uint64(0)
	m.dirty = nil
	slices.SortFunc(work, func(a, b *Queue) int { return cmp.Compare(rank(a), rank(b)) })
	var again []*Queue
	for i := 0; i < len(work); i++ {
		q := work[i]
		q.measure()
		done := q.gone || q.dispatch()
		q.marked = false // enforce marks the queue again if other messages can be delivered
		if !q.gone && (!done || !q.enforce()) {
			if again = append(again, q); full == 0 {
				full = q.id
			}
		}
		for _, n := range m.dirty {
			at, _ := slices.BinarySearchFunc(work[i+1:], rank(n), func(q *Queue, r uint64) int { return cmp.Compare(rank(q), r) })
			work = slices.Insert(work, i+1+at, n)
		}
		m.dirty = m.dirty[:0]
	}
	m.after = full
	for _, q := range again {
		q.mark()
	}
	for i := range m.out.Handouts {
		if c := m.consumers[m.out.Handouts[i].Consumer]; c != nil && c.once {
			m.end(c, nil)
		}
	}
	m.immediate = slices.DeleteFunc(m.immediate, func(c *consumer) bool {
		if c.q.marked && c.received == 0 && !c.q.gone {
			return false // the turn was full before the consumer's queue was served, so the consumer waits for the next turn
		}
		if c.inQueue.in != nil && !c.q.gone { // endGone ends consumers of deleted queues
			m.end(c, nil)
		}
		return true
	})
	m.sweep(m.share(costRemain))
	m.reportPools()
	m.armTouched()
	m.handed = len(m.out.Handouts)
	if m.out.Records > 0 {
		m.extents.list[len(m.extents.list)-1].size += int64(len(m.out.Entry))
	}
}

// end removes a consumer when the machine itself ends the subscription.
func (m *Machine) end(c *consumer, err error) {
	m.unlist(c)
	m.out.Ended = append(m.out.Ended, Ended{c.id, err})
}

// enforce gives up messages of a queue that is over its limits, oldest first. It returns false if
// the turn is full.
func (q *Queue) enforce() bool {
	if q.frozen || q.config.Overflow != "drop_oldest" && q.config.Overflow != "dead_letter" {
		return true
	}
	for q.over(0, 0) {
		if q.m.turnFull() {
			return false
		}
		oldest := q.oldest()
		if oldest == 0 {
			return true
		}
		if q.config.Overflow != surgetank.OverflowDeadLetter || q.deadLetter() == q.name {
			q.stats.dropped++
			q.m.remove(q, oldest, reasonOverflow)
		} else if !q.m.sendToDeadLetter(q, oldest, reasonOverflow, int(q.slots.get(oldest).attempts), "") {
			q.waitForRoom() // publishes are refused until the queue or its dead-letter queue has room
			return true
		}
	}
	return true
}

// over tells whether the waiting messages would be above the queue's limits with this many more
// messages and bytes.
func (q *Queue) over(messages, bytes int64) bool {
	c := &q.config
	return c.MaxMessages > 0 && q.waiting+q.delayedN+messages > c.MaxMessages ||
		c.MaxBytes > 0 && q.bytes-q.leasedBytes+bytes > c.MaxBytes
}
