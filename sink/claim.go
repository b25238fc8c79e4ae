package sink

import (
	"fmt"
	"slices"
)

// Claim is what a runner brings when it opens its target: who it is and what it knows of the queue.
type Claim struct {
	// Instance is the sink's identity: a random text made when the sink was set. Progress belongs to it, not to the
	// sink's name, so that two brokers with sinks of the same name, or a new data directory, never
	// take over progress that speaks of other messages.
	Instance string
	Sink     string // its name, for people who look at the progress table
	Owner    string // random, one for each runner
	Held     bool   // this runner has held the target before
	Queue    uint64 // the queue's number
	// Floor gives the queue's floor: every message below it is settled for good. Next calls it, so that it is read
	// while the progress is locked and cannot be behind a commit that an older sink makes meanwhile.
	Floor func() (uint64, error)
	Lanes int
	// Verify checks stored progress that a lane reads on a connection that was made after Open, before the connection
	// writes anything. It returns an *Error of class Stale if the progress is not at least what this session left there:
	// then another opening took over, or the new connection leads to an older copy of the database. nil: nothing is checked.
	Verify func(State) error
}

// State is the stored progress of one instance.
type State struct {
	Owner string
	Epoch uint64 // counts the openings
	Queue uint64
	Lanes []LaneState // in order of lane number
}

// LaneState is the stored progress of one lane.
type LaneState struct {
	Batch     uint64
	Watermark uint64
	IDs       []byte // see AppendIDs
}

// Next decides what an opening stores. old is nil when nothing is stored. It must be called with all rows of the progress
// locked. The error is an *Error of class Fenced or Refused, or one of the broker's.
//
// The ids of all lanes are merged: what is below the queue's floor is dropped, for it can never be delivered
// again, and the rest is dealt out to the new number of lanes by laneOf.
func (c Claim) Next(old *State) (State, error) {
	next := State{Owner: c.Owner, Epoch: 1, Queue: c.Queue, Lanes: make([]LaneState, c.Lanes)}
	floor, err := c.Floor()
	if err != nil {
		return State{}, err
	}
	var ids []uint64
	if old != nil {
		if c.Held && old.Owner != c.Owner {
			return State{}, &Error{Class: Fenced, Row: -1, Reason: fmt.Sprintf(
				"another process took over sink %q (opening %d); stop one of the two, then resume this sink", c.Sink, old.Epoch)}
		}
		next.Epoch = old.Epoch + 1
		if old.Queue == c.Queue {
			for _, l := range old.Lanes {
				if l.Watermark > floor {
					return State{}, &Error{Class: Refused, Row: -1, Reason: fmt.Sprintf(
						"the target holds progress of sink %q up to message %d, but the queue has only settled up to %d: the data directory is older than the target (restored from a copy?); delete the sink and set it again to start over, which writes the queue's messages even if the target has them already",
						c.Sink, l.Watermark, floor)}
				}
				if ids, err = ReadIDs(ids, l.IDs); err != nil {
					return State{}, &Error{Class: Refused, Row: -1, Err: err, Reason: fmt.Sprintf(
						"the stored progress of sink %q is damaged (%v); restore the table surgetank_progress, or delete the sink and set it again", c.Sink, err)}
				}
			}
		}
	}
	slices.Sort(ids)
	ids = slices.Compact(ids)
	dealt := make([][]uint64, c.Lanes)
	for _, id := range ids {
		if id >= floor {
			l := laneOf(id, c.Lanes)
			dealt[l] = append(dealt[l], id)
		}
	}
	for i := range next.Lanes {
		next.Lanes[i] = LaneState{Watermark: floor, IDs: AppendIDs(nil, dealt[i])}
	}
	return next, nil
}

// laneOf tells which lane looks after an id that was found at opening.
func laneOf(id uint64, lanes int) int { return int(id % uint64(lanes)) }
