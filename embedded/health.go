package embedded

import (
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/supervise"
)

// State says whether a broker can be used.
type State string

// The states of a broker, as in package supervise.
const (
	StateOpening State = "opening" // the log has failed, and the broker opens it again by itself
	StateServing State = "serving" // the broker works
	// StateFollowing: another machine serves. No broker of this version has this state.
	StateFollowing State = "following"

	StateFailed State = "failed" // the broker has failed for good; see Health.Err
	StateClosed State = "closed" // Close was called
)

// Health describes the state of a broker.
type Health struct {
	State State
	// Since is the time of the last change of State.
	Since time.Time
	// Err is why the broker does not serve: in StateOpening the newest failure, in StateFailed the
	// final one. Nothing is confirmed meanwhile. After a final failure, close the broker, remove
	// the cause, verify the directory, and open it again. nil while the broker works, and after
	// Close.
	Err error
	// LastErr is the newest failure of the log or of an opening. It stays after the next opening.
	// nil: there was none.
	LastErr error
	// NextTry is the time of the next opening, in StateOpening; zero: it is being tried now.
	NextTry time.Time
	// Reopenings counts how often the broker has opened its log again by itself.
	Reopenings uint64
	// Stalled is how long the oldest write has waited for the disk; 0: no write waits.
	Stalled time.Duration
	// Full: the disk is nearly full, and messages are refused with CodeFull. FullFor is the time
	// since this began. Acks are accepted, and the space of settled messages is freed
	// automatically.
	Full    bool
	FullFor time.Duration
	// NeededBytes is the size of all messages in the log that are not settled. FreeableBytes is the
	// size of the log files that a snapshot would free now.
	NeededBytes, FreeableBytes int64
	// Openings counts how often the directory was opened, by all programs, this time included.
	Openings uint64
	// CallbackFailures counts the caller's functions that panicked or ended their goroutine.
	CallbackFailures int64
}

// Health returns the state of the broker. It does not wait, and may be called often.
func (b *Broker) Health() Health {
	if b != nil && b.router != nil {
		return b.healthOfAll()
	}
	s := b.inner()
	if s == nil {
		return Health{State: StateClosed, Err: surgetank.Errorf(surgetank.CodeClosed, "there is no broker: open one with embedded.Open or embedded.Memory")}
	}
	st, in := s.Status(), b.at.Load()
	h := Health{State: State(st.State), Since: st.Since, Err: st.Reason, LastErr: st.LastError, NextTry: st.Next, Reopenings: max(1, st.Openings) - 1,
		CallbackFailures: b.old.Load() + s.CallbackFailures()}
	if in == nil { // a shard that was not open yet
		return h
	}
	h.Openings = in.Epoch()
	h.CallbackFailures += in.CallbackFailures()
	if st.State == supervise.Serving {
		h.Stalled = in.Stalled()
	}
	space := in.Space()
	h.Full, h.NeededBytes, h.FreeableBytes = space.Full, space.NeededBytes, space.Freeable
	if space.Full {
		h.FullFor = in.Now().Sub(space.Since)
	}
	return h
}
