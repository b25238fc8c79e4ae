package supervise

import (
	"time"

	"github.com/surgetank/surgetank"
)

// State says what a Supervisor is doing.
type State string

// The states. Following is for a broker whose log has its writer on another machine.
const (
	Opening   State = "opening"   // no broker is open, and the next try comes by itself
	Serving   State = "serving"   // a broker is open
	Following State = "following" // another machine serves
	Failed    State = "failed"    // no broker is open, and there is no further try
	Closed    State = "closed"    // Close was called
)

// Status describes a Supervisor at one moment.
type Status struct {
	State State
	// Reason is why no broker is open: the error of the newest try, or the failure before the first
	// try. It is nil while the state is Serving or Closed.
	Reason error
	Since  time.Time // the time of the last change of State
	// Openings counts the successful openings by this Supervisor, the first one included.
	Openings uint64
	Tries    int       // failed tries since the last opening failed
	Next     time.Time // the time of the next try; zero: a try runs now, or there is none
	// LastError is the newest failure of an opening or of a try. It stays after the next opening.
	LastError error
}

// Status returns the status. It does not wait.
func (s *Supervisor) Status() Status {
	if s == nil {
		return Status{State: Closed}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.status
}

// Phase changes with each failure and each opening. See door.Phased.
func (s *Supervisor) Phase() uint64 {
	if s == nil {
		return 0
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 2 * s.status.Openings
	if o := s.cur.Load(); o == nil || o.failed() {
		n++
	}
	return n
}

// CallbackFailures counts the users' functions called by the Supervisor that failed.
func (s *Supervisor) CallbackFailures() int64 { return s.calls.Failures() }

// Done returns a channel that is closed when the Supervisor has failed or was closed.
func (s *Supervisor) Done() <-chan struct{} { return s.done }

// set changes the state. The caller has locked mu.
func (s *Supervisor) set(state State, reason error) {
	if s.status.State != state {
		s.status.Since = s.clock.Now()
	}
	s.status.State, s.status.Reason = state, reason
	if reason != nil {
		s.status.LastError = reason
	}
	s.status.Next = time.Time{}
	close(s.change)
	s.change = make(chan struct{})
}

// refusal returns the error of a call that cannot be made in the present state. The caller has
// locked mu.
func (s *Supervisor) refusal() *surgetank.Error {
	st := &s.status
	switch {
	case st.State == Failed && s.opts.Optional:
		return surgetank.Errorf(surgetank.CodeUnavailable, "shard %d has failed and does not open again by itself, so its queues are unavailable; the other shards work (%w)", s.opts.Shard, st.Reason)
	case st.State == Opening && s.opts.Shard > 0:
		return surgetank.Errorf(surgetank.CodeUnavailable, "shard %d cannot be used, for %v now, so its queues are unavailable; nothing was done; try again later (%w)",
			s.opts.Shard, s.clock.Now().Sub(st.Since).Round(time.Second), st.Reason)
	}
	switch st.State {
	case Failed:
		return surgetank.Errorf(surgetank.CodeClosed, "the broker has failed and does not open again by itself: %w", st.Reason)
	case Closed:
		return surgetank.Errorf(surgetank.CodeClosed, "the broker is closed")
	case Serving: // the loop has not noticed the failure yet
		return surgetank.Errorf(surgetank.CodeUnavailable, "the broker's log has just failed; nothing was done; try again later")
	default:
		return surgetank.Errorf(surgetank.CodeUnavailable,
			"the broker opens its data again after a failure, for %v now; nothing was done; try again later (%w)", s.clock.Now().Sub(st.Since).Round(time.Second), st.Reason)
	}
}
