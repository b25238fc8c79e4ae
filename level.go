package surgetank

import "time"

// LevelInfo is the state of a queue's adaptive limit and of its breaker. Queues with the same
// LevelConfig.Target show the same state. A restart begins anew.
type LevelInfo struct {
	InFlight int // leases that the limit counts

	// The adaptive limit. All are zero without LevelConfig.Adaptive.
	Limit       int           // the working limit
	InForce     int           // the limit now: lower while the target is measured, 0 while it asked for a pause
	Reason      string        // of the last change, such as "too_slow"
	Changed     time.Time     // of the last change
	Ratio       float64       // latency at the limit as a multiple of the latency at the smallest limit; 0 if not known yet
	Latency     time.Duration // at the smallest limit; 0 if not known yet
	State       string        // a sentence
	PausedUntil time.Time     // the end of a pause that the target asked for
	Changes     uint64        // of the limit, since the start

	// The breaker. Breaker is "" if the queue has none: closed, open, probing, ramp or held.
	Breaker               string
	BreakerSince          time.Time // the start of this state
	BreakerCause          string    // of the last opening, such as "down_reported"
	BreakerBy, BreakerWhy string    // of the command that opened it
	DownSince             time.Time // the start of the outage; zero while the breaker is closed
	NextProbe             time.Time
	Probe                 MessageID // the message that tests the target now
	RampLimit             int       // the limit while the load grows after an outage, without an adaptive limit
	// These are counted since the start: outages, probes, and attempts that were returned.
	Openings, Probes, Refunds uint64
}

// LevelHistory is the newest changes of a queue's adaptive limit, and the newest outages of its
// target. The newest is first.
type LevelHistory struct {
	Changes []LevelChange
	Outages []Outage
}

// LevelChange is one change of an adaptive limit.
type LevelChange struct {
	Time     time.Time
	From, To int
	Reason   string
	Ratio    float64 // 0 if the reason needs none
}

// Outage is the time from the opening of a breaker until it closed.
type Outage struct {
	Start, End          time.Time // End is zero while the outage lasts
	Cause               string
	OpenedBy, OpenedWhy string // of the command that opened
	ClosedBy, ClosedWhy string // of the command that closed
	Probes              int
	Refunds             int // attempts that were returned
}

// BreakerOptions say who opens or closes a breaker, and why. Both are shown with the queue and in
// its history.
type BreakerOptions struct {
	By     string // a server uses the name of the user
	Reason string
}
