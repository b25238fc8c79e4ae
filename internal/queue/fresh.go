package queue

// A message is fresh until it has waited for level.fresh_age since it was confirmed or, if later,
// since its publisher's delay ended. A retry does not change this start. Ages are counted in whole
// seconds, as the times of slots are.
//
// A group is fresh if its front message is fresh. The machine checks this when the front message
// changes, and when the group's turn comes.
//
// Messages without a group have two lines for each priority: a line for fresh messages and a line
// for the backlog. A message moves to the backlog line when it is no longer fresh. Messages of the
// two lines are not ordered among each other.

// isFresh tells whether a message is fresh. Without level.fresh_share no message is fresh.
func (q *Queue) isFresh(s *slot) bool {
	l := &q.config.Level
	return l.FreshShare > 0 && s.nanos()+int64(l.FreshAge) > q.m.now
}

// retireStale moves flows whose front message is no longer fresh to the backlog. It moves only
// flows whose turn has come.
func (q *Queue) retireStale() {
	d := &q.sched.sides[fresh]
	for {
		moved := false
		if !q.sched.fair {
			if len(d.heap) == 0 {
				return
			}
			moved = q.retire(d.heap[0])
		} else {
			for p := range d.descending {
				l := &d.levels[p]
				q.skipEmpty(l)
				if moved = q.retire(l.head()); moved || q.config.PriorityStep == 0 {
					break
				}
			}
		}
		if !moved {
			return
		}
	}
}

// retire moves a flow to the backlog if its front message is no longer fresh.
func (q *Queue) retire(h uint32) bool {
	front := q.flows[h].front
	if q.isFresh(q.slots.get(front)) {
		return false
	}
	q.leave(h)
	q.join(h, front)
	return true
}

// lineOf returns the flow for a message that enters a line now. Only messages without a group can
// change their flow.
func (q *Queue) lineOf(s *slot) uint32 {
	if q.config.Level.FreshShare == 0 && !q.flows[s.flow].isBacklog() || q.groupName(s.flow) != "" {
		return s.flow
	}
	if q.config.Level.FreshShare == 0 || q.isFresh(s) {
		return q.flowOf("", s.priority)
	}
	return q.flowNamed(backlogKey(s.priority), "")
}

// backlogKey returns the key in byGroup of the backlog line of a priority.
func backlogKey(priority uint8) string { return string([]byte{0, priority, 'b'}) }

// isBacklog tells whether a flow is the backlog line of a priority.
func (f *flow) isBacklog() bool { return len(f.name) == 3 && f.name[0] == 0 }

// ageLine moves the messages at the front of a line without a group to the backlog line if they are
// no longer fresh. It stops when the turn is full, and continues in the next turn.
func (q *Queue) ageLine(h uint32) {
	if q.config.Level.FreshShare == 0 || q.groupName(h) != "" || q.flows[h].isBacklog() {
		return
	}
	for {
		seq := q.frontOf(h)
		if seq == 0 {
			return
		}
		s := q.slots.get(seq)
		if q.isFresh(s) {
			q.wakeFlow(h, s.nanos()+int64(q.config.Level.FreshAge))
			return
		}
		if q.m.turnFull() {
			q.wakeFlow(h, q.m.now)
			return
		}
		q.m.budget--
		s = q.slots.edit(seq)
		q.takeFront(h, seq, s)
		s.moveTo(q.lineOf(s))
		if f := &q.flows[s.flow]; seq > f.tail {
			q.link(s.flow, seq, s)
		} else {
			q.giveBack(s.flow, seq, s)
		}
		q.touch(s.flow)
	}
}
