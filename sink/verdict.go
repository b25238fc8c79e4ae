package sink

import (
	"fmt"
	"time"
)

// A message whose row refers to one that is not there is parked after it failed alone this often, for at least this long. The other
// row may come through another queue.
const (
	referenceTries = 4
	referenceTime  = 5 * time.Second
)

// serialTime is how long messages without order go to one lane, after rows of one lane referred to rows of another.
const serialTime = 10 * time.Second

// stallTime is how long no row was written, while messages are held back, before the sink counts as waiting.
const stallTime = 2 * time.Second

// rejectingRun is how many messages in sequence are parked, with none written between them, before the state says so.
const rejectingRun = 10

// conclude decides about the messages of an attempt:
//
//	committed                         acked
//	BadRow                            parked; the brake may hold it back
//	Suspect                           parked if it failed alone twice and a row that was written after the first time is committed
//	Reference                         parked after some tries and some time, if no earlier message is held back anywhere
//	TableFault, not tried alone       held back
//
// A message that is held back stays leased. It is tried again with growing pauses, and messages of its chain stay behind it.
func (l *lane) conclude(o outcome) {
	s := l.s
	now := s.r.opts.Clock.Now()
	s.finish(o.done)
	proof := s.proof.Load()
	proven := func(e *entry) bool { return proof >= e.hold.mark }
	var bad, keep []*entry
	for _, f := range o.failed {
		h := f.e.hold
		if h == nil {
			h = &hold{}
			f.e.hold = h
		}
		if h.fails == 0 {
			h.first, h.mark = now, f.mark
		}
		h.fails++
		h.class, h.reason, h.after = f.err.Class, f.err.Reason, false
		h.due = now.Add(pauseOf(h.fails))
		if h.class == BadRow || h.class == Suspect && h.fails > 1 && proven(f.e) ||
			h.class == Reference && h.fails >= referenceTries && now.Sub(h.first) >= referenceTime && !s.holdsBefore(f.e) {
			bad = append(bad, f.e)
		} else {
			keep = append(keep, f.e)
		}
	}
	park, braked := s.r.brake.judge(len(o.done) > 0, bad, proven)
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
	if len(keep) > 0 || l.probing {
		l.keep(keep, o, settled > 0)
	}
	l.pace = min(mostPace, max(firstHold, 2*l.pace))
	if settled > 0 || len(keep) == 0 || waitsForOthers {
		l.pace = 0
	}
	l.paceAt = now.Add(l.pace)
	s.moved()
	s.assess(now, len(o.done) > 0)
}

// keep brings back up to date after an attempt: what is settled leaves it, and keep is in it, in the order of the batch.
func (l *lane) keep(keep []*entry, o outcome, fruitful bool) {
	now := l.s.r.opts.Clock.Now()
	in := make(map[*entry]bool, len(keep))
	for _, e := range keep {
		in[e] = true
	}
	if l.probing {
		gone := map[*entry]bool{}
		for _, e := range l.batch {
			gone[e] = !in[e]
		}
		l.s.holdBack(nil, l.batch, gone)
		l.back.remove(gone)
	} else {
		list := make([]*entry, 0, len(keep))
		for _, e := range l.batch {
			if in[e] {
				list = append(list, e)
			}
		}
		l.s.holdBack(list, list, nil)
		l.back.add(list)
	}
	l.back.refresh(now, fruitful)
}

// behind moves the messages of a new batch whose chain has one in back there, without trying them.
func (l *lane) behind() {
	var follow []*entry
	rest := l.batch[:0]
	for _, e := range l.batch {
		if !l.back.has(e.chain) {
			rest = append(rest, e)
			continue
		}
		e.hold = &hold{}
		follow = append(follow, e)
	}
	l.batch = rest
	if len(follow) > 0 {
		l.s.holdBack(follow, follow, nil)
		l.back.add(follow)
	}
}

// prove notes that rows were committed, of which the last was written after mark.
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

// earliest gives the lowest number of a message that another lane than l still has to write, as far as messages wait for
// that: those held back for a reason of their own do not count.
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

// holdsBefore tells whether an earlier message than e is not settled. It may bring the row that e refers to.
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

// holdBack counts messages that come to be held back, and those of them that are gone, and gives the broker credit in their place, so
// that they do not keep others out of the lanes. changed are all whose part in earliest may have changed.
func (s *session) holdBack(more, changed []*entry, gone map[*entry]bool) {
	credit := 0
	s.mu.Lock()
	for _, e := range more {
		if s.extra < s.r.opts.MaxHeld {
			e.extra = true
			s.extra++
			credit++
		}
	}
	for _, e := range changed {
		if !gone[e] {
			e.stuck = !e.hold.after
		}
	}
	s.mu.Unlock()
	left := 0
	for _, g := range gone {
		if g {
			left++
		}
	}
	s.r.stats.heldBack.Add(int64(len(more) - left))
	if credit > 0 {
		s.sub.AddCredit(credit)
	}
}

// because notes why messages are held back, and whether they wait for messages of other lanes.
func (s *session) because(reason string, others bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reason = reason
	if others {
		s.serialUntil = s.r.opts.Clock.Now().Add(serialTime)
	}
}

// moved wakes lanes whose messages wait for earlier ones.
func (s *session) moved() {
	s.version.Add(1)
	if s.r.stats.heldBack.Load() == 0 {
		return
	}
	for _, l := range s.lanes {
		signal(l.wake)
	}
}

// assess brings the sink's state up to date after an attempt.
func (s *session) assess(now time.Time, wrote bool) {
	r := s.r
	if wrote {
		s.wroteAt.Store(now.UnixNano())
	}
	held := r.stats.heldBack.Load()
	reason := ""
	if held > 0 {
		s.mu.Lock()
		reason = s.reason
		s.mu.Unlock()
	}
	r.stats.holding(reason)
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
