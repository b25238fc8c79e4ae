package sink

import (
	"fmt"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/seqset"
)

// Claim is what a runner brings when it opens its target: who it is and what it knows of the queue.
//
// Queue and target commit separately, so each can be put back in time without the other: a backup
// is restored, a standby that lagged is promoted, a directory is copied and both copies run.
// Counters alone repeat after such an event. So each side keeps enough of the other's position to
// compare, and Next compares before anything is written:
//
//	            stored in the target                          stored in the queue's directory
//	            ────────────────────                          ───────────────────────────────
//	queue's     incarnation and entry at the last commit,     openings: incarnation, first entry
//	history     spans of message numbers                      spans of message numbers
//	target's    messages applied, in all                      messages applied, in all: written with the acks of
//	history                                                   each batch, so it is at most what the target had
//
//	the target's incarnation and entry are not in the openings   the directory is behind the target, or a copy of it
//	the target applied less than the directory knows of          the target is behind
//	the target has no progress, the directory knows of some      the target is empty, or another one
//	neither                                                      a crash at most: go on
type Claim struct {
	// Instance is the sink's identity: a random text made when the sink was set. Progress belongs
	// to it, not to the sink's name, so that two brokers with sinks of the same name, or a new data
	// directory, never take over progress that speaks of other messages.
	Instance string
	Sink     string // its name, for people who look at the progress table
	Owner    string // random, one for each runner
	Held     uint64 // the epoch in which this runner held the target last; 0: it has not
	Lanes    int
	// History reads the queue's history. Next calls it, so that it is read while the progress is
	// locked and cannot be behind a commit that an older opening makes meanwhile.
	History func() (surgetank.History, error)
	// Count counts the messages among some numbers that are not settled.
	Count func(seqset.Set) (uint64, error)
	// Written is what the queue's directory knows that the target has.
	Written Written
	// Way is what the user chose about a target and a queue that contradict each other.
	Way Way
	// Verify checks stored progress that a lane reads on a connection that was made after Open,
	// before the connection writes anything. The first call notes what this session has committed,
	// and must come before the progress is read. The second call returns an *Error of class Stale
	// if the progress is not at least that: then another opening took over, or the new connection
	// leads to an older copy of the database. nil: nothing is checked.
	Verify func() func(State) error
}

// Written is what the queue's directory knows about the progress in the target. It is a lower
// bound: what was committed in the target just before a crash may be missing.
type Written struct {
	Epoch   uint64    // of the newest opening that is known
	Applied uint64    // messages whose rows were committed, in all
	Last    uint64    // the highest number among them
	Time    time.Time // of the newest commit that is known; zero: none is
}

// State is the stored progress of one instance.
type State struct {
	Owner       string
	Epoch       uint64 // counts the openings
	Queue       uint64
	Incarnation uint64    // of the directory that made this opening; 0: an older version of Surgetank wrote the progress
	Before      Position  // of the newest commit that applied messages before this opening
	Known       []byte    // the history of the directory that made this opening; see encodeKnown
	Base        uint64    // messages applied before this opening
	Settled     []byte    // ids that lanes have passed on, see AppendIDs
	Updated     time.Time // of the newest commit
	Lanes       []LaneState
}

// Position is a moment in the history of a data directory: an incarnation, and one of the entries
// of its log. The zero value is before everything.
type Position struct{ Incarnation, Entry uint64 }

// LaneState is the stored progress of one lane.
type LaneState struct {
	Batch     uint64
	Watermark uint64
	Entry     uint64 // the queue's newest entry at the last commit: what the watermark rests on
	Applied   uint64 // messages, in this epoch
	IDs       []byte // see AppendIDs
}

// applied is how many messages the target has taken in all.
func (s *State) applied() uint64 {
	n := s.Base
	for i := range s.Lanes {
		n += s.Lanes[i].Applied
	}
	return n
}

// position is that of the newest commit that applied messages. What the target holds rests on it.
// An opening that applied nothing does not count: it left the target as it was.
func (s *State) position() Position {
	newest := Position{Incarnation: s.Incarnation}
	for i := range s.Lanes {
		if l := &s.Lanes[i]; l.Applied > 0 {
			newest.Entry = max(newest.Entry, l.Entry)
		}
	}
	if newest.Entry == 0 {
		return s.Before
	}
	return newest
}

// watermark is the number below which the target takes every message for settled.
func (s *State) watermark() uint64 {
	w := uint64(0)
	for i := range s.Lanes {
		w = max(w, s.Lanes[i].Watermark)
	}
	return w
}

// ids merges the ids of all rows.
func (s *State) ids() (seqset.Set, error) {
	all, err := ReadIDs(s.Settled)
	for i := range s.Lanes {
		if err != nil {
			return nil, err
		}
		var ids seqset.Set
		if ids, err = ReadIDs(s.Lanes[i].IDs); err == nil {
			all = seqset.Union(all, ids)
		}
	}
	return all, err
}

// Next decides what an opening stores. old is nil when nothing is stored. It changes nothing; with
// all rows of the progress locked its answer holds. The error is an *Error of class Fenced or
// Refused, or one of the broker's.
//
// The ids of all rows are merged: those below the queue's floor are dropped, for their messages can
// never be delivered again. The rest is the new opening's Settled.
func (c Claim) Next(old *State) (State, error) {
	h, err := c.History()
	if err != nil {
		return State{}, err
	}
	next := State{Owner: c.Owner, Epoch: c.Written.Epoch + 1, Queue: h.Queue, Known: encodeKnown(h), Base: c.Written.Applied,
		Lanes: make([]LaneState, c.Lanes)}
	if n := len(h.Openings); n > 0 {
		next.Incarnation = h.Openings[n-1].Incarnation
	}
	for i := range next.Lanes {
		next.Lanes[i] = LaneState{Watermark: h.Floor, Entry: h.Entry, IDs: AppendIDs(nil, nil)}
	}
	var ids, here seqset.Set // what the target has; and what it has or takes for settled, of this directory's messages
	var k known
	if old != nil {
		next.Epoch = max(next.Epoch, old.Epoch+1)
		next.Base = max(next.Base, old.applied())
		next.Before = old.position()
		if ids, err = old.ids(); err != nil {
			return State{}, &Error{Class: Refused, Row: -1, Err: err, Reason: fmt.Sprintf(
				"the stored progress of sink %q is damaged (%v); restore the table surgetank_progress, or delete the sink and set it again", c.Sink, err)}
		}
		if k, err = decodeKnown(old.Known); err != nil {
			return State{}, &Error{Class: Refused, Row: -1, Err: err, Reason: fmt.Sprintf(
				"the stored progress of sink %q is damaged (%v); restore the table surgetank_progress, or delete the sink and set it again", c.Sink, err)}
		}
		if old.Queue != h.Queue {
			ids, k = nil, known{} // they speak of another queue's messages
		} else {
			here = k.here(old, ids, h)
		}
	}
	r, err := c.compare(old, k, here, h)
	if err != nil {
		return State{}, err
	}
	switch {
	case r == nil && c.Held > 0 && old != nil && old.Owner != c.Owner && old.Epoch > c.Held:
		return State{}, &Error{Class: Fenced, Row: -1, Reason: fmt.Sprintf(
			"another process took over sink %q (opening %d); stop one of the two, then resume this sink", c.Sink, old.Epoch)}
	case r == nil:
		ids.RemoveBelow(h.Floor)
		next.Known = encodeKnown(k.with(h))
	case !r.allows(c.Way):
		return State{}, &Error{Class: Refused, Row: -1, Reason: r.String(), Err: r}
	default:
		// The user takes what the target holds for known, so it rests on this directory from now
		// on.
		next.Before = Position{next.Incarnation, h.Entry}
		if ids = here; c.Way == FromQueue {
			ids = nil
		}
	}
	next.Settled = AppendIDs(nil, ids)
	return next, nil
}
