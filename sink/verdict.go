package sink

import (
	"fmt"
	"time"
)

// Limits for a message whose row refers to a missing row. The message is parked after this number
// of failures alone, over at least this time, because the missing row may come through another
// queue. The message also waits for every earlier message of its own queue. The wait for messages
// that the sink has is unlimited; the wait for messages that the queue delays is limited.
const (
	referenceTries = 4
	referenceTime  = 5 * time.Second
	referenceMost  = 5 * time.Minute
)

// serialTime is how long messages without order go to one lane, after a row referred to a row of
// another lane.
const serialTime = 10 * time.Second

// stallTime: if messages are held back and no row was written for this long, the sink counts as
// waiting.
const stallTime = 2 * time.Second

// rejectingRun is how many messages are parked in sequence, with none written between them, before
// the state becomes rejecting.
const rejectingRun = 10

// conclude decides about the messages of an attempt:
//
//	committed                         acked
//	BadRow                            parked; the brake may hold it back
//	Suspect                           parked if it failed alone twice and there is evidence that others do not fail
//	Reference                         parked after some tries and some time, when every earlier message is settled
//	TableFault, not tried alone       held back
//
// A message that is held back stays leased. It is retried with growing pauses, and later messages
// of its chain wait for it.
func (l *lane) conclude(o outcome) {
	s := l.s
	now := s.r.opts.clock.Now()
	s.finish(o.done)
	var bad, keep []*entry
	for _, f := range o.failed {
		if f.e.judge(f, s.proof.Load(), now) || f.e.hold.class == Reference && l.exhausted(f.e, now) {
			bad = append(bad, f.e)
		} else {
			keep = append(keep, f.e)
		}
	}
	park, braked := s.r.brake.judge(len(o.done) > 0, bad)
	keep = append(keep, braked...)
	for _, e := range park {
		e.parked = e.hold.reason
		s.r.stats.failed(&Error{Reason: "message " + e.d.ID.String() + ": " + e.parked}, now)
	}
	s.finish(park)
	s.r.parked(len(park))

	waitsForOthers := o.why != nil && o.why.Class == Reference && len(o.failed) == 0
	for _, e := range o.unseen {
		if e.hold == nil {
			e.hold = &hold{}
		}
		e.hold.due = now
		if o.why != nil {
			e.hold.class, e.hold.reason = o.why.Class, o.why.Reason
		}
		if e.hold.after = waitsForOthers; waitsForOthers {
			e.hold.due = now.Add(mostAfter)
		}
	}
	keep = append(keep, o.unseen...)
	if len(keep) > 0 {
		s.because(keep[0].hold.reason, waitsForOthers)
	}
	settled := len(o.done) + len(park)
	if len(keep) > 0 || !l.back.empty() {
		l.keep(keep, settled > 0)
	}
	switch {
	case settled > 0 || len(keep) == 0 || waitsForOthers:
		l.pace, l.paceAt = 0, now
	case !l.probed:
		l.pace = min(mostPace, max(firstHold, 2*l.pace))
		l.paceAt = now.Add(l.pace)
	}
	s.moved()
	s.assess(now, len(o.done) > 0)
}

// keep updates back after an attempt. It removes the settled messages and adds the messages of its
// argument, in the order of the batch.
func (l *lane) keep(keep []*entry, fruitful bool) {
	in := make(map[*entry]bool, len(keep))
	for _, e := range keep {
		in[e] = true
	}
	var more []*entry
	gone := 0
	for _, e := range l.batch {
		switch {
		case e.back && !in[e]:
			e.back = false
			gone++
		case !e.back && in[e]:
			more = append(more, e)
		}
	}
	if gone > 0 {
		l.back.remove()
	}
	l.back.add(more)
	l.s.holdBack(more, keep, gone)
	l.back.refresh(l.s.r.opts.clock.Now(), fruitful)
}

// suspectRounds applies to a row that was never written in one transaction with another row. It is
// how often other rows must be written between two failures of the row.
const suspectRounds = 3

// judge records a failure and reports whether the message must be parked for it.
func (e *entry) judge(f failure, proof uint64, now time.Time) bool {
	h := e.hold
	if h == nil {
		h = &hold{}
		e.hold = h
	}
	if h.fails == 0 || h.class != f.err.Class {
		*h = hold{class: f.err.Class, first: now}
	} else if proof >= h.mark {
		h.rounds++
	}
	h.fails++
	h.mark, h.reason, h.after = f.mark, f.err.Reason, false
	h.company = h.company || f.company
	h.due = now.Add(pauseOf(h.fails))
	return h.class == BadRow || h.class == Suspect && h.fails > 1 && (h.company || h.rounds >= suspectRounds)
}

// proven reports whether other rows were written while this message could not be.
func (h *hold) proven() bool { return h.company || h.rounds > 0 }

// exhausted reports whether the missing row of a reference was awaited for long enough.
func (l *lane) exhausted(e *entry, now time.Time) bool {
	h := e.hold
	if h.fails < referenceTries || now.Sub(h.first) < referenceTime {
		return false
	}
	return l.floor >= e.seq || now.Sub(h.first) >= referenceMost && !l.s.holdsBefore(e)
}

// behind moves messages of a new batch to back without trying them, if a message of their chain is
// in back.
func (l *lane) behind() {
	var follow []*entry
	rest := l.batch[:0]
	for _, e := range l.batch {
		if e.back || !l.back.has(e.chain) {
			rest = append(rest, e)
			continue
		}
		e.hold = &hold{}
		follow = append(follow, e)
	}
	l.batch = rest
	if len(follow) > 0 {
		l.s.holdBack(follow, follow, 0)
		l.back.add(follow)
	}
}

// prove records that rows were committed. The last of them was written after mark.
func (s *session) prove(mark uint64, rows int) {
	if rows == 0 {
		return
	}
	for {
		old := s.proof.Load()
		if mark <= old || s.proof.CompareAndSwap(old, mark) {
			return
		}
	}
}

// earliest returns the lowest number of a message that a lane other than l must still write.
// Messages held back for a reason of their own do not count, because no message waits for them.
func (s *session) earliest(l *lane) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	first := ^uint64(0)
	for seq, e := range s.held {
		if seq < first && e.lane != l && !e.settled && !e.stuck {
			first = seq
		}
	}
	return first
}

// holdsBefore reports whether a message earlier than e is not settled. The earlier message may
// write the row that e refers to.
func (s *session) holdsBefore(e *entry) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for seq, other := range s.held {
		if seq < e.seq && !other.settled {
			return true
		}
	}
	return false
}

// holdBack counts messages that become held back and messages that no longer are. For each
// held-back message it adds credit, so other messages still reach the lanes. changed are the
// messages for which the result of earliest may have changed.
func (s *session) holdBack(more, changed []*entry, gone int) {
	credit := 0
	s.mu.Lock()
	for _, e := range more {
		if s.extra < s.r.opts.MaxHeldBack {
			e.extra = true
			s.extra++
			credit++
		}
	}
	for _, e := range changed {
		e.stuck = !e.hold.after
	}
	s.mu.Unlock()
	s.r.stats.heldBack.Add(int64(len(more) - gone))
	if credit > 0 {
		s.sub.AddCredit(credit)
	}
}

// because records why messages are held back, and whether they wait for messages of other lanes.
func (s *session) because(reason string, others bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reason = reason
	if others {
		s.serialUntil = s.r.opts.clock.Now().Add(serialTime)
	}
}

// moved wakes lanes whose messages wait for earlier messages.
func (s *session) moved() {
	s.version.Add(1)
	if s.r.stats.heldBack.Load() == 0 {
		return
	}
	for _, l := range s.lanes {
		signal(l.wake)
	}
}

// assess updates the sink's state after an attempt.
func (s *session) assess(now time.Time, wrote bool) {
	r := s.r
	if wrote {
		s.wroteAt.Store(now.UnixNano())
	}
	held := r.stats.heldBack.Load()
	reason := ""
	var oldest time.Time
	if held > 0 {
		s.mu.Lock()
		reason = s.reason
		for _, e := range s.held {
			if !e.settled && (oldest.IsZero() || e.d.Time.Before(oldest)) {
				oldest = e.d.Time
			}
		}
		s.mu.Unlock()
	}
	r.stats.holding(reason, oldest)
	brake := r.brake.on(held)
	last := s.wroteAt.Load()
	run, why := 0, ""
	if !wrote && held == 0 {
		run, why = r.brake.rejecting()
	}
	switch {
	case brake != "":
		r.setCalm(StateWaiting, &Error{Reason: brake})
	case held > 0 && !wrote && (last == 0 || now.Sub(time.Unix(0, last)) >= stallTime):
		r.setCalm(StateWaiting, &Error{Reason: fmt.Sprintf("%d messages are held back, and no other can be written: %s", held, reason)})
	case run >= rejectingRun:
		r.setCalm(StateRejecting, &Error{Reason: fmt.Sprintf("the last %d messages were parked, and none could be written: %s", run, why)})
	case wrote || held == 0:
		r.setCalm(StateRunning, nil)
	}
}
