package surgetank

import "time"

// LevelInfo is the state of a queue's adaptive limit and of its breaker. Queues with the same
// LevelConfig.Target show the same state. After a restart, the state is that of a new queue.
type LevelInfo struct {
	InFlight int // leases that the limit counts

	// State of the adaptive limit. Without LevelConfig.Adaptive all these fields are zero.
	Limit       int           // the working limit
	InForce     int           // the limit now: lower while the target is measured, 0 while it asked for a pause
	Reason      string        // why the limit changed last, such as "too_slow"
	Changed     time.Time     // the time of the last change
	Ratio       float64       // latency at the limit as a multiple of the latency at the smallest limit; 0 if not known yet
	Latency     time.Duration // latency at the smallest limit; 0 if not known yet
	State       string        // a sentence about the limit's state
	PausedUntil time.Time     // the end of a pause that the target asked for
	Changes     uint64        // number of changes of the limit, since the start

	// Breaker is the breaker's state: closed, open, probing, ramp or held. It is "" if the queue
	// has no breaker.
	Breaker               string
	BreakerSince          time.Time // the start of this state
	BreakerCause          string    // the cause of the last opening, such as "down_reported"
	BreakerBy, BreakerWhy string    // the user and reason of the command that opened the breaker
	DownSince             time.Time // the start of the outage; zero while the breaker is closed
	NextProbe             time.Time
	Probe                 MessageID // the message that tests the target now
	RampLimit             int       // the limit while the load grows after an outage, without an adaptive limit
	// Since the start: the number of outages, of probes, and of failures that did not count as
	// attempts.
	Openings, Probes, Refunds uint64
}

// LevelHistory is the newest changes of a queue's adaptive limit, and the newest outages of its
// target. Both lists have the newest entry first.
type LevelHistory struct {
	Changes []LevelChange
	Outages []Outage
}

// LevelChange is one change of an adaptive limit. If the name of the reason begins with batch, it is
// a change of a sink's batch size.
type LevelChange struct {
	Time     time.Time
	From, To int
	Reason   string
	Ratio    float64 // as LevelInfo.Ratio; 0 if the change does not depend on it
	Sink     string  // the sink whose limit changed, which counts lanes; "" for the limit of the queue. Only servers fill it
}

// Outage is the time from the opening of a breaker until it closed.
type Outage struct {
	Start, End          time.Time // End is zero while the outage lasts
	Cause               string
	OpenedBy, OpenedWhy string // the user and reason of the command that opened the breaker
	ClosedBy, ClosedWhy string // the user and reason of the command that closed the breaker
	Probes              int
	Refunds             int // failures that did not count as attempts
}

// BreakerOptions say who opens or closes a breaker, and why. The queue and its history show both
// fields.
type BreakerOptions struct {
	By     string // a server uses the name of the user
	Reason string
}
