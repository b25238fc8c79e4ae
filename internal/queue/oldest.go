package queue

import "time"

// linedUp records, for the queue's oldest age, that a message waits in its line now.
func (q *Queue) linedUp(seq uint64, s *slot) {
	if !s.has(slotLate) {
		q.lowest = min(q.lowest, seq)
		return
	}
	if int64(len(q.late)) > 2*q.waiting+1024 {
		seen := make(map[uint64]bool, len(q.late))
		q.late.keep(func(x timed) bool {
			lives := !seen[x.key] && q.waitsNow(x.key)
			seen[x.key] = true
			return lives
		})
	}
	q.late.push(timed{s.nanos(), seq})
}

// waitsNow tells whether a message waits in its line and does not back off.
func (q *Queue) waitsNow(seq uint64) bool {
	s := q.slots.get(seq)
	return s != nil && s.state() == slotWaiting && !q.backsOff(seq)
}

// oldestAge returns how long the longest-waiting message has waited; 0 if none waits. Messages that
// are delayed or back off do not count. A message that was delayed counts from the end of its
// delay.
func (q *Queue) oldestAge() time.Duration {
	seq, since := q.oldestWaiting()
	if seq == 0 {
		return 0
	}
	return max(0, time.Duration(q.m.now-since))
}

// oldestWaiting returns the message that has waited longest, and since when it has waited. It
// returns 0 if none waits.
func (q *Queue) oldestWaiting() (oldest uint64, since int64) {
	if q.waiting == q.backsN {
		return 0, 0
	}
	for len(q.late) > 0 {
		if x := q.late[0]; q.waitsNow(x.key) {
			oldest, since = x.key, x.at
			break
		}
		q.late.pop()
	}
	// Messages that were never delayed are in the order of their age. Below the number lowest, no
	// such message waits.
	from := max(q.lowest, q.floor)
	q.lowest = q.nextSeq
	q.slots.ascend(from, func(seq uint64, s *slot) bool {
		if s.state() != slotWaiting || s.has(slotLate) || q.backsOff(seq) {
			return true
		}
		q.lowest = seq
		if at := s.nanos(); oldest == 0 || at < since || at == since && seq < oldest {
			oldest, since = seq, at
		}
		return false
	})
	return oldest, since
}
