package breaker

import "fmt"

// Cause says why a breaker is open.
type Cause uint8

// The causes.
const (
	NoCause      Cause = iota // the breaker is closed
	DownReported              // consumers reported that the target is down
	ErrorShare                // most answers of many groups are failures
	Silence                   // messages timed out, and no answer came
	Command                   // a command opened the breaker
	ProbeFailed               // the probe failed
	ProbeSilent               // the probe had no answer in time
	causes
)

var causeNames = [causes]string{"", "down_reported", "error_share", "silence", "command", "probe_failed", "probe_silent"}

var causeSentences = [causes]string{
	NoCause:      "",
	DownReported: "consumers report that the target is down",
	ErrorShare:   "most answers are failures, in many groups, and nothing succeeds",
	Silence:      "messages time out, and no answer comes back",
	Command:      "a command opened the breaker",
	ProbeFailed:  "the last probe failed",
	ProbeSilent:  "the last probe had no answer in time",
}

// String returns a name that never changes, for metrics and JSON.
func (c Cause) String() string {
	if c < causes {
		return causeNames[c]
	}
	return fmt.Sprintf("cause_%d", uint8(c))
}

// Sentence explains the cause to a user, as a text to put in brackets.
func (c Cause) Sentence() string {
	if c < causes {
		return causeSentences[c]
	}
	return c.String()
}

// HistorySize is the number of openings that a breaker remembers.
const HistorySize = 16

// Opening is one outage, from the opening to the end of the ramp.
type Opening struct {
	At        int64
	Ended     int64 // 0 while the outage lasts
	Cause     Cause
	By, Why   string // user and reason of the command that opened the breaker
	ClosedBy  string // user of the command that closed the breaker
	ClosedWhy string
	Probes    int
	Refunds   int
}

// Counts are totals for metrics. They only grow.
type Counts struct {
	Openings uint64 // outages
	Probes   uint64
	Refunds  uint64 // attempts that were returned
}

// Status is the state of a breaker as users see it.
type Status struct {
	State     State
	Since     int64 // the start of the state
	Down      int64 // the start of the outage; 0 while closed
	Cause     Cause // cause of the last opening
	By, Why   string
	NextProbe int64  // when the pause ends; 0 if the breaker is not open
	ProbeOut  bool   // a probe was handed out and has no answer
	Probe     uint64 // the message of the probe
	ProbeTill int64  // the deadline of the probe
	RampLimit int    // the breaker's own limit during a ramp; 0 if there is none
}

// Status returns the state for users.
func (b *Breaker) Status() Status {
	s := Status{State: b.state, Since: b.since, Cause: b.cause, By: b.by, Why: b.why, ProbeOut: b.probing, RampLimit: b.RampLimit()}
	if b.state != Closed {
		s.Down = b.current().At
	}
	if b.state == Open {
		s.NextProbe = b.until
	}
	if b.probing {
		s.Probe, s.ProbeTill = b.probe, b.probeTill
	}
	return s
}

// Counts returns the numbers for metrics.
func (b *Breaker) Counts() Counts { return b.counts }

// History appends the last outages to dst, oldest first, and returns it.
func (b *Breaker) History(dst []Opening) []Opening {
	n := b.counts.Openings
	for i := n - min(n, HistorySize); i < n; i++ {
		dst = append(dst, b.history[i%HistorySize])
	}
	return dst
}

// begin adds an outage to the history.
func (b *Breaker) begin(now int64, cause Cause) {
	b.counts.Openings++
	*b.current() = Opening{At: now, Cause: cause, Refunds: b.refundsN}
}

// current returns the last outage.
func (b *Breaker) current() *Opening { return &b.history[(b.counts.Openings-1)%HistorySize] }

// end records the end of an outage.
func (b *Breaker) end(now int64) { b.current().Ended = now }
