package sink

import (
	"fmt"
	"time"

	"github.com/surgetank/surgetank/internal/door"
	"github.com/surgetank/surgetank/internal/hidden"
	"github.com/surgetank/surgetank/internal/seqset"
)

// Claim is what a runner passes to its target's Open: its identity and its knowledge of the queue.
//
// Queue and target commit separately, so either can be set back in time without the other. Examples
// are a restored backup, a promoted standby that lagged, and a copied directory of which both
// copies run. Counters alone repeat after such an event. So each side stores enough of the other's
// position for a comparison. Next makes the comparison before anything is written:
//
//	            stored in the target                          stored in the queue's directory
//	            ────────────────────                          ───────────────────────────────
//	queue's     incarnation and entry at the last commit,     openings: incarnation, first entry
//	history     spans of message numbers                      spans of message numbers
//	target's    messages applied, in total                    messages applied, in total: written with the acks of
//	history                                                   each batch, so it is at most what the target had
//
//	the target's incarnation and entry are not in the openings   the directory is older than the target, or a copy of it
//	the target applied less than the directory recorded          the target is older
//	the target has no progress, the directory recorded some      the target is empty, or another one
//	neither                                                      a crash at most: continue
type Claim struct {
	// Instance is the sink's identity: a random text drawn when the sink was created. Progress
	// belongs to the instance, not to the sink's name. So a second broker or a new data directory
	// with a sink of the same name never continues progress about other messages.
	Instance  string
	Sink      string // the sink's name, for readers of the progress table
	Owner     string // a random text, different for each runner
	LastEpoch uint64 // the epoch of this runner's newest opening; 0: none yet
	Lanes     int
	// Written is the progress in the target as far as the queue's directory knows it.
	Written Written
	// Way is the user's choice about a target and a queue that contradict each other.
	Way Way
	// Verify checks stored progress that a lane reads on a connection made after Open, before the
	// connection writes anything. The first call records what this session has committed; call it
	// before reading the progress. The returned function gets the progress. It returns an *Error of
	// class Stale if the progress is older than the record: another opening took over, or the new
	// connection leads to an older copy of the database. If Verify is nil, nothing is checked.
	Verify func() func(State) error
	// history reads the queue's history. Next reads it while the progress is locked, so the history
	// includes every commit of an older opening.
	history
}

// history is the field of a Claim that the runner sets.
type history = hidden.Field[door.HistoryFunc]

// count returns how many of the given message numbers are not settled.
func (c *Claim) count(ids seqset.Set) (uint64, error) {
	ranges := make([]door.NumberRange, len(ids))
	for i, x := range ids {
		ranges[i] = door.NumberRange(x)
	}
	h, err := (*hidden.Of(c))(ranges...)
	return h.Counted, err
}

// Written is the queue's knowledge of the progress in the target. It is a lower bound: commits just
// before a crash may be missing.
type Written struct {
	Epoch   uint64    // the epoch of the newest known opening
	Applied uint64    // total number of messages whose rows were committed
	Last    uint64    // the highest number among them
	Time    time.Time // the time of the newest known commit; zero: none
}

// State is the stored progress of one instance.
type State struct {
	Owner       string
	Epoch       uint64 // number of openings
	Queue       uint64
	Incarnation uint64    // the incarnation of the directory that made this opening; 0: an older version of Surgetank wrote the state
	Before      Position  // the position of the newest commit before this opening that applied messages
	Known       []byte    // history of the directory that made this opening; see encodeKnown
	Base        uint64    // number of messages applied before this opening
	Settled     []byte    // ids that lanes have passed on; see appendIDs
	Updated     time.Time // the time of the newest commit
	Lanes       []LaneState
}

// Position is a point in the history of a data directory: an incarnation and an entry of its log.
// The zero value comes before everything.
type Position struct{ Incarnation, Entry uint64 }

// LaneState is the stored progress of one lane.
type LaneState struct {
	Batch     uint64
	Watermark uint64
	Entry     uint64 // the queue's newest entry at the last commit; the watermark depends on it
	Applied   uint64 // number of messages applied in this epoch
	IDs       []byte // see appendIDs
}

// applied returns the total number of messages that the target has applied.
func (s *State) applied() uint64 {
	n := s.Base
	for i := range s.Lanes {
		n += s.Lanes[i].Applied
	}
	return n
}

// position returns the position of the newest commit that applied messages. The target's content
// depends on it. An opening that applied nothing does not count, because it did not change the
// target.
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

// watermark returns the message number below which the target counts every message as settled.
func (s *State) watermark() uint64 {
	w := uint64(0)
	for i := range s.Lanes {
		w = max(w, s.Lanes[i].Watermark)
	}
	return w
}

// ids merges the ids of all rows.
func (s *State) ids() (seqset.Set, error) {
	all, err := readIDs(s.Settled)
	for i := range s.Lanes {
		if err != nil {
			return nil, err
		}
		var ids seqset.Set
		if ids, err = readIDs(s.Lanes[i].IDs); err == nil {
			all = seqset.Union(all, ids)
		}
	}
	return all, err
}

// Next decides what an opening stores. old is nil when nothing is stored. Next itself changes
// nothing; its answer is valid while all progress rows are locked. The error is an *Error of class
// Fenced or Refused, or an error of the broker.
//
// Next merges the ids of all rows. Ids below the queue's floor are dropped, because their messages
// are never delivered again. The rest becomes the new opening's Settled.
func (c Claim) Next(old *State) (State, error) {
	read := *hidden.Of(&c)
	if read == nil {
		return State{}, &Error{Class: Refused, Row: -1, Reason: "the claim has no queue: only a runner, or sinktest.Claim in a test, makes a usable claim"}
	}
	h, err := read()
	if err != nil {
		return State{}, err
	}
	next := State{Owner: c.Owner, Epoch: c.Written.Epoch + 1, Queue: h.Queue, Known: encodeKnown(h), Base: c.Written.Applied,
		Lanes: make([]LaneState, c.Lanes)}
	if n := len(h.Openings); n > 0 {
		next.Incarnation = h.Openings[n-1].Incarnation
	}
	for i := range next.Lanes {
		next.Lanes[i] = LaneState{Watermark: h.Floor, Entry: h.Entry, IDs: appendIDs(nil, nil)}
	}
	var ids, here seqset.Set // ids: messages that the target has. here: messages of this directory that the target has or counts as settled
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
			ids, k = nil, known{} // these ids belong to another queue's messages
		} else {
			here = k.here(old, ids, h)
		}
	}
	r, err := c.compare(old, k, here, h)
	if err != nil {
		return State{}, err
	}
	switch {
	case r == nil && c.LastEpoch > 0 && old != nil && old.Owner != c.Owner && old.Epoch > c.LastEpoch:
		return State{}, &Error{Class: Fenced, Row: -1, Reason: fmt.Sprintf(
			"another process took over sink %q (opening %d); stop one of the two, then resume this sink", c.Sink, old.Epoch)}
	case r == nil:
		ids.RemoveBelow(h.Floor)
		next.Known = encodeKnown(k.with(h))
	case !r.allows(c.Way):
		return State{}, &Error{Class: Refused, Row: -1, Reason: r.String(), Err: r}
	default:
		// The user accepts the target's content as known, so it depends on this directory from now
		// on.
		next.Before = Position{next.Incarnation, h.Entry}
		if ids = here; c.Way == FromQueue {
			ids = nil
		}
	}
	next.Settled = appendIDs(nil, ids)
	return next, nil
}
