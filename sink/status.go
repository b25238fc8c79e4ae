package sink

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// RunState is the state of a sink.
type RunState string

const (
	StateStarting RunState = "starting" // opening its target for the first time
	StateRunning  RunState = "running"
	// StateWaiting: nothing can be written. The target or the queue cannot be used, or all messages
	// are held back. Error has the reason. The sink retries by itself.
	StateWaiting   RunState = "waiting"
	StateRejecting RunState = "rejecting" // many messages in sequence were parked and none was written
	StatePaused    RunState = "paused"
	StateFenced    RunState = "fenced"  // another process runs this sink; resume takes the sink back
	StateRefused   RunState = "refused" // broker and target contradict each other; Error says what to do
	StateStopped   RunState = "stopped" // the broker is closed
)

// States lists all states.
var States = []RunState{StateStarting, StateRunning, StateWaiting, StateRejecting, StatePaused, StateFenced, StateRefused, StateStopped}

// Status is the state of a sink and its counters since the runner started.
type Status struct {
	State      RunState  `json:"state"`
	Since      time.Time `json:"since"`            // when State began
	Error      string    `json:"reason,omitempty"` // why the sink waits or has stopped
	Applied    uint64    `json:"applied"`          // messages whose rows are committed
	Parked     uint64    `json:"parked"`           // messages dead-lettered because their rows were bad
	Duplicates uint64    `json:"duplicates"`       // messages delivered again after their rows were committed, and skipped
	Batches    uint64    `json:"batches"`
	Retries    uint64    `json:"retries"`   // batches retried after deadlocks and similar errors
	Opens      uint64    `json:"opens"`     // times the target was opened
	Epoch      uint64    `json:"epoch"`     // of the current opening
	Held       int       `json:"held"`      // messages leased and not settled
	HeldBack   int       `json:"held_back"` // the part of Held that could not be written and is retried
	HeldReason string    `json:"held_back_reason,omitempty"`
	// Refusal describes the contradiction of queue and target if that is the reason for
	// StateRefused.
	Refusal    *Refusal  `json:"refusal,omitempty"`
	OldestHeld time.Time `json:"oldest_held,omitzero"` // publish time of the oldest leased message, while messages are held back
	BatchLimit int       `json:"batch_limit"`          // most messages in a batch now; less than batch.max after batches that were too large or slow
	LastCommit time.Time `json:"last_commit,omitzero"`
	// Level is the adaptive limit; nil if the queue has no level.adaptive.
	Level     *Level `json:"level,omitempty"`
	LastError string `json:"last_error,omitempty"` // the newest error of the target or of a row, even if all is well again
	// LastErrorTime is the time of LastError.
	LastErrorTime time.Time `json:"last_error_time,omitzero"`
}

// heldBack says how many messages are held back and why. It is empty if no message is held back.
func (s *Status) heldBack() string {
	if s.HeldBack == 0 {
		return ""
	}
	return fmt.Sprintf("%d messages are held back while others go on: %s", s.HeldBack, s.HeldReason)
}

// stats is a Status that the runner updates.
type stats struct {
	applied, parked, duplicates, batches, retries, opens, epoch atomic.Uint64
	held, heldBack                                              atomic.Int64
	refusal                                                     atomic.Pointer[Refusal]

	mu         sync.Mutex
	state      RunState
	since      time.Time
	err        string
	heldReason string
	oldest     time.Time
	lastCommit time.Time
	waitingAt  time.Time // when the log last said that the sink waits with messages held back
	waitLogged bool      // the log has not yet said that the sink runs again
	lastErr    string
	lastErrAt  time.Time
}

// Results of set.
const (
	same = iota
	reworded
	changed
)

// set changes the state. It returns whether the state or only the reason is new.
func (s *stats) set(state RunState, err error, now time.Time) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	text := ""
	if err != nil {
		text = err.Error()
		if state == StateWaiting && s.heldReason == "" || state != StateWaiting && state != StateRejecting {
			s.lastErr, s.lastErrAt = text, now
		}
	}
	what := same
	switch {
	case s.state != state:
		what = changed
		s.since = now
	case s.err != text:
		what = reworded
	}
	s.state, s.err = state, text
	return what
}

// loud reports whether the change of state is logged.
func (s *stats) loud(state RunState, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case state == StateWaiting && now.Sub(s.waitingAt) >= reportTime:
		s.waitingAt, s.waitLogged = now, true
		return true
	case state == StateRunning && s.waitLogged:
		s.waitLogged = false
		return true
	}
	return false
}

// holding records why messages are held back and the publish time of the oldest leased message. An
// empty reason means that no message is held back.
func (s *stats) holding(reason string, oldest time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.heldReason, s.oldest = reason, oldest
	if reason != "" {
		s.lastErr = reason
	}
}

// retried records that a batch is retried.
func (s *stats) retried(err error, now time.Time) {
	s.retries.Add(1)
	s.failed(err, now)
}

func (s *stats) failed(err error, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lastErr, s.lastErrAt = err.Error(), now
}

func (s *stats) committed(rows int, now time.Time) {
	s.applied.Add(uint64(rows))
	s.batches.Add(1)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lastCommit = now
}

// Status returns the current state and counters.
func (r *Runner) Status() Status {
	s := &r.stats
	limit := r.governor.size()
	for _, l := range r.limits {
		limit = min(limit, l.size())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return Status{
		State: s.state, Since: s.since, Error: s.err,
		Applied: s.applied.Load(), Parked: s.parked.Load(), Duplicates: s.duplicates.Load(), Batches: s.batches.Load(),
		Retries: s.retries.Load(), Opens: s.opens.Load(), Epoch: s.epoch.Load(), Held: int(s.held.Load()),
		Refusal:  s.refusal.Load(),
		HeldBack: int(s.heldBack.Load()), HeldReason: s.heldReason, OldestHeld: s.oldest, BatchLimit: limit,
		LastCommit: s.lastCommit, LastError: s.lastErr, LastErrorTime: s.lastErrAt, Level: r.governor.status(),
	}
}
