package queue

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/surgetank/surgetank"
)

// A message backs off after a failed attempt. It waits until the time of its next attempt.
//
//	its group              | state                  | next try in        | counted in
//	-----------------------+------------------------+--------------------+-----------------
//	none, or not strict    | slotDelayed            | retries            | delayedN, retriesN
//	strict                 | slotWaiting, in line   | retries, backing   | waiting, backsN
//	strict, and it is held | slotHeld               | backing, (retries) | damagedN
//
// Users see all these messages as delayed. In a strict group, messages after one that backs off are
// blocked.

// backOff records when a message of a strict group is tried next. The message is in its line.
func (q *Queue) backOff(h uint32, seq uint64, at int64) {
	if q.backing == nil {
		q.backing = map[uint64]int64{}
	}
	q.backing[seq] = at
	q.countBacking(h, 1)
	q.retryAt(at, seq)
}

// countBacking adds n to the number of messages that back off in the line of a strict group. n is 1
// or -1.
func (q *Queue) countBacking(h uint32, n int) {
	q.flows[h].backs = uint32(int64(q.flows[h].backs) + int64(n))
	q.backsN += int64(n)
}

// backsOff tells whether a message in a line backs off.
func (q *Queue) backsOff(seq uint64) bool {
	_, ok := q.backing[seq]
	return ok
}

// unback ends the back-off of a message in a line, if the message backs off.
func (q *Queue) unback(h uint32, seq uint64) {
	if q.backsOff(seq) {
		delete(q.backing, seq)
		q.countBacking(h, -1)
	}
}

// retryAt schedules a look at the queue for the time of a message's next attempt. It drops the
// stale entries of retries when they outnumber the valid ones.
func (q *Queue) retryAt(at int64, seq uint64) {
	if int64(len(q.retries)) > 2*(q.retriesN+int64(len(q.backing)))+1024 {
		q.retries.keep(q.retryLives)
	}
	q.retries.push(timed{at, seq})
	q.timerAt(at)
}

// retryLives tells whether an entry of retries is still valid.
func (q *Queue) retryLives(x timed) bool {
	if at, ok := q.backing[x.key]; ok {
		return at == x.at
	}
	s := q.slots.get(x.key)
	return s != nil && s.state() == slotDelayed && s.has(slotRedelivered)
}

// retryDue ends a message's back-off.
func (q *Queue) retryDue(x timed) {
	if !q.retryLives(x) || q.park(x.key) {
		return
	}
	s := q.slots.get(x.key)
	if s.state() == slotDelayed {
		q.undelay(x.key)
		return
	}
	h := s.flow
	if s.state() == slotHeld {
		delete(q.backing, x.key)
		return
	}
	q.unback(h, x.key)
	q.linedUp(x.key, s)
	q.touch(h)
	q.idle(h)
}

// undelay puts a message whose delay or back-off has ended into its line.
func (q *Queue) undelay(seq uint64) {
	s := q.slots.edit(seq)
	q.delayedN--
	if s.has(slotRedelivered) {
		q.retriesN--
	}
	q.flows[s.flow].delayed--
	q.place(seq, s, 0, q.m.now)
}

// firstRetry returns the message that backs off and is tried next. It returns false if there is
// none.
func (q *Queue) firstRetry() (timed, bool) {
	for len(q.retries) > 0 {
		x := q.retries[0]
		if s := q.slots.get(x.key); q.retryLives(x) && s.state() != slotHeld {
			return x, true
		}
		q.retries.pop()
	}
	return timed{}, false
}

// firstDelayed returns the message whose publisher delayed it and whose delay ends first. It
// returns false if there is none.
func (q *Queue) firstDelayed() (timed, bool) {
	for len(q.delayed) > 0 {
		x := q.delayed[0]
		if s := q.slots.get(x.key); s != nil && s.state() == slotDelayed && !s.has(slotRedelivered) {
			return x, true
		}
		q.delayed.pop()
	}
	return timed{}, false
}

// retryTimes returns, for a snapshot, the messages that back off and when each is tried again.
func (q *Queue) retryTimes() (list []timed) {
	for _, x := range q.retries {
		if !q.backsOff(x.key) && q.retryLives(x) {
			list = append(list, x)
		}
	}
	for _, seq := range slices.Sorted(maps.Keys(q.backing)) {
		list = append(list, timed{q.backing[seq], seq})
	}
	return list
}

// backOffInfo fills in the part of a queue's statistics that is about messages that back off.
func (q *Queue) backOffInfo(i *surgetank.QueueInfo) {
	i.BackingOff = q.backsN + q.retriesN
	if x, ok := q.firstRetry(); ok {
		i.NextTry = time.Unix(0, x.at).UTC()
		i.Failure = q.failureOf(x.key)
	}
}

// dues fills in when the messages that a peek found in this turn are tried next.
func (c *Peek) dues(q *Queue, from int) {
	found := c.Found[from:]
	wanted := 0
	for i := range found {
		p := &found[i]
		if p.State == surgetank.StateDelayed && p.Redelivered {
			if p.Due = q.backing[p.Seq]; p.Due == 0 {
				wanted++
			}
		}
	}
	if wanted == 0 {
		return
	}
	first, last := found[0].Seq, found[len(found)-1].Seq
	for _, x := range q.retries {
		if x.key < first || x.key > last {
			continue
		}
		if i, ok := slices.BinarySearchFunc(found, x.key, func(p Peeked, seq uint64) int { return cmp.Compare(p.Seq, seq) }); ok {
			if p := &found[i]; p.State == surgetank.StateDelayed && p.Redelivered && p.Due == 0 {
				p.Due = x.at
			}
		}
	}
	q.m.spend(len(q.retries)/8, costPeek)
}

// firstOf returns the same as frontOf and changes nothing. It returns 0 if dead slots must be
// removed from the line first.
func (q *Queue) firstOf(h uint32) (front uint64) {
	f := &q.flows[h]
	if s := q.slots.get(f.head); f.head != 0 && s != nil && s.live() {
		front = f.head
	}
	if r := q.returned[h]; r != nil && len(*r) > 0 {
		if seq := (*r)[0]; (front == 0 || seq < front) && q.slots.get(seq).live() {
			front = seq
		}
	}
	return front
}
