package breaker

import "math"

// State is the state of a breaker.
type State uint8

// The states.
const (
	Closed  State = iota // normal work
	Open                 // no message is handed out until the pause is over
	Probing              // one message is handed out
	Ramp                 // the target is back, and the load grows
	Held                 // a command opened the breaker, and only a command closes it
)

var stateNames = [...]string{"closed", "open", "probing", "ramp", "held"}

// String returns a name that never changes, for metrics and JSON.
func (s State) String() string { return stateNames[min(int(s), len(stateNames)-1)] }

// Outcome is the end of a lease.
type Outcome uint8

// The outcomes.
const (
	Success    Outcome = iota
	BadMessage         // the target refused the message, so the target is up
	Failed             // a nack that does not say whether the target or the message caused the failure
	Timeout            // the deadline of the lease passed
	Down               // the consumer reports that the target is down
	Throttle           // the target asked for less load; ignored, except for a probe
	Returned           // an uncounted return, or the consumer disconnected; ignored
)

func (o Outcome) failure() bool { return o == Failed || o == Timeout || o == Down }

// Answer is the end of one lease.
type Answer struct {
	Seq        uint64 // the number of the message
	Group      uint64 // the number or a hash of the message's group; 0 without a group
	Attempt    uint32
	HandedAt   int64
	Latency    int64 // nanoseconds; used for the deadline of probes
	Outcome    Outcome
	RetryAfter int64 // with Down and Throttle: the pause that the target asked for
}

// Verdict tells the owner how to handle an answer.
type Verdict struct {
	Uncounted bool // the failure costs no attempt and parks no message
	Opened    bool // the breaker opened: return the attempts of Refunds
}

// Allowance says how many messages may be handed out.
type Allowance uint8

// The allowances.
const (
	All Allowance = iota // up to the limits of the queue, and to RampLimit
	One                  // one message as a probe, even if other messages are in flight
	None
)

// Rules. Times are in nanoseconds.
const (
	second = 1_000_000_000

	PauseFirst    = second
	PauseMax      = 30 * second
	RetryAfterMax = 3600 * second // a longer Retry-After is cut

	downAnswers   = 5 // consecutive answers without a sign of life, including the Down report
	shareSeconds  = 10
	shareAnswers  = 20
	shareGroups   = 5
	shareSilent   = 10 // consecutive answers without a sign of life
	probeLeast    = 5 * second
	probeTimes    = 10 // deadline of a probe, as a multiple of the usual latency
	rampWindows   = 3  // windows of the controller that close the breaker
	rampTime      = 60 * second
	windowTime    = second / 10
	windowAnswers = 8
	rampTop       = 64 // the breaker's own ramp ends at this limit if the queue has no limit
	latencyMax    = 24 * 3600 * second

	parkWait  = 10 * second
	parkShare = 4 // more than one of four answers fails
)

// Settings says how the load grows after an outage.
type Settings struct {
	Adaptive bool // an adaptive limit raises the load; call Ramped
	Limit    int  // the queue's own limit in flight; 0 if it has none

	// ReportsOnly: only Down reports and commands open the breaker, not error share and silence.
	ReportsOnly bool
}

// Breaker decides whether the target of one queue is down. It needs about 5.3 KB and never
// allocates. The zero value is a closed breaker without an adaptive limit. One goroutine may use it
// at a time.
type Breaker struct {
	set   Settings
	now   int64
	state State
	since int64 // the start of the state
	cause Cause
	by    string
	why   string

	openedAt int64 // the last change to open or held; answers of older leases are ignored
	opened   bool  // openedAt has a value
	pause    int64 // the pause of this outage; 0 while closed
	until    int64 // the end of the pause

	probing      bool // a probe was handed out and has no answer
	probe        uint64
	probeAt      int64
	probeTill    int64
	avoid        uint64 // the last failed probe
	avoidIsValid bool

	rampLimit  int
	rampUps    int
	rampFails  int
	rampTill   int64
	rampClean  bool // no failure since the ramp began, or since its last extension
	rampAlive  bool // there was a sign of life in the ramp
	rampWindow int64

	evidence
	refunds  [failuresKept]Failure
	refundsN int

	counts  Counts
	history [HistorySize]Opening
}

// New returns a closed breaker.
func New(set Settings) *Breaker { return &Breaker{set: set} }

// Configure changes the settings. A ramp continues.
func (b *Breaker) Configure(set Settings) { b.set = set }

// MayHand returns how many messages may be handed out now.
func (b *Breaker) MayHand() Allowance {
	switch b.state {
	case Closed, Ramp:
		return All
	case Probing:
		if !b.probing {
			return One
		}
	}
	return None
}

// RampLimit returns the breaker's own limit of messages in flight during a ramp. It is 0 if there
// is no such limit.
func (b *Breaker) RampLimit() int {
	if b.state == Ramp && !b.set.Adaptive {
		return b.rampLimit
	}
	return 0
}

// State returns the state.
func (b *Breaker) State() State { return b.state }

// AvoidProbe returns the message that failed as the last probe. The next probe should be another
// message, without failed attempts, so that a bad message cannot keep the breaker open.
func (b *Breaker) AvoidProbe() (seq uint64, ok bool) { return b.avoid, b.avoidIsValid }

// ProbeHanded reports that a message was handed out as a probe. Call it only if MayHand is One.
func (b *Breaker) ProbeHanded(now int64, seq uint64) {
	now = b.advance(now)
	if b.state != Probing || b.probing {
		return
	}
	b.probing, b.probe, b.probeAt = true, seq, now
	b.probeTill = now + b.probeWait()
	b.counts.Probes++
	b.current().Probes++
}

func (b *Breaker) probeWait() int64 { return max(probeLeast, probeTimes*b.latency) }

// Extended reports that a consumer extended the lease of a message. A probe gets a new deadline.
func (b *Breaker) Extended(now int64, seq uint64) {
	now = b.advance(now)
	if b.probing && seq == b.probe {
		b.probeTill = now + b.probeWait()
	}
	b.silent = false // a consumer works on a message
}

// Answered reports the end of a lease.
func (b *Breaker) Answered(now int64, a Answer) Verdict {
	if a.Outcome == Success && b.state == Closed && (!b.opened || a.HandedAt >= b.openedAt) {
		b.now = max(b.now, now) // a closed breaker has no Tick
		b.up(b.now, a.Latency)
		return Verdict{}
	}
	now = b.advance(now)
	if b.probing && a.Seq == b.probe && a.HandedAt >= b.probeAt {
		return b.probed(now, a)
	}
	old := b.opened && a.HandedAt < b.openedAt
	if old || b.state != Closed && b.state != Ramp {
		// Messages leased before can still end. Their answers say nothing about the present state
		// of the target.
		return Verdict{Uncounted: a.Outcome.failure()}
	}
	if a.Outcome == Throttle || a.Outcome == Returned {
		b.returned(now)
		return Verdict{}
	}
	b.note(now, a)
	if cause, down := b.judge(a); down {
		b.unnote() // the owner does not count this failure, so it needs no refund
		b.open(now, cause, a.RetryAfter)
		return Verdict{Uncounted: true, Opened: true}
	}
	if b.state == Ramp {
		b.climb(now, a.Outcome)
	}
	return Verdict{}
}

// judge reports whether the last answer shows that the target is down.
func (b *Breaker) judge(a Answer) (cause Cause, down bool) {
	switch {
	case !a.Outcome.failure():
	case a.Outcome == Down && (b.state == Ramp || b.sinceUp >= downAnswers || !b.everUp):
		return DownReported, true
	case b.set.ReportsOnly:
	case a.Outcome == Timeout && b.silence(a):
		return Silence, true
	case b.sinceUp >= shareSilent && b.answers >= shareAnswers && 2*b.unclassified >= b.answers && b.sources() >= shareGroups:
		return ErrorShare, true
	}
	return 0, false
}

// probed handles the end of the probe.
func (b *Breaker) probed(now int64, a Answer) Verdict {
	b.probing = false
	switch {
	case a.Outcome == Returned:
		return Verdict{} // the next probe can be any message
	case a.Outcome == Success || a.Outcome == BadMessage:
		b.startRamp(now)
		return Verdict{}
	}
	b.avoid, b.avoidIsValid = a.Seq, true
	b.reopen(now, ProbeFailed, a.RetryAfter)
	return Verdict{Uncounted: true, Opened: true}
}

// open starts an outage, or continues the outage if the breaker was in a ramp.
func (b *Breaker) open(now int64, cause Cause, retryAfter int64) {
	b.collect(now)
	if b.state == Closed {
		b.begin(now, cause)
	}
	if b.pause == 0 {
		b.pause = PauseFirst
	}
	b.pauseFor(now, cause, retryAfter)
}

// reopen continues an outage after a failed probe.
func (b *Breaker) reopen(now int64, cause Cause, retryAfter int64) {
	b.refundsN = 0
	b.pause = min(b.pause+b.pause/2, PauseMax)
	b.pauseFor(now, cause, retryAfter)
}

func (b *Breaker) pauseFor(now int64, cause Cause, retryAfter int64) {
	b.enter(now, Open)
	b.cause = cause
	b.openedAt, b.opened = now, true
	b.until = now + max(b.pause, min(retryAfter, RetryAfterMax))
	b.forget()
}

func (b *Breaker) enter(now int64, s State) {
	b.state, b.since = s, now
	b.probing = false
}

func (b *Breaker) startRamp(now int64) {
	b.enter(now, Ramp)
	b.avoidIsValid = false
	b.rampLimit, b.rampUps, b.rampFails = 1, 0, 0
	b.rampWindow, b.rampTill = now, now+rampTime
	b.rampClean, b.rampAlive = true, false
	b.forget()
	b.everUp = true
}

// climb handles an answer in the ramp.
func (b *Breaker) climb(now int64, o Outcome) {
	if o.failure() {
		b.rampFails++
		b.rampClean = false
	} else {
		b.rampUps++
		b.rampAlive = true
	}
	n := b.rampUps + b.rampFails
	if b.set.Adaptive || n < min(b.rampLimit, windowAnswers) || now-b.rampWindow < windowTime {
		return
	}
	if b.rampUps > 0 { // without a sign of life in the window, the limit does not grow
		b.rampLimit = min(2*b.rampLimit, math.MaxInt32)
	}
	b.rampUps, b.rampFails, b.rampWindow = 0, 0, now
	top := b.set.Limit
	if top <= 0 {
		top = rampTop
	}
	if b.rampLimit >= top {
		b.close(now)
	}
}

// Ramped is for owners with an adaptive limit. windows is the number of the controller's windows
// since the ramp began. Three windows close the breaker.
func (b *Breaker) Ramped(now int64, windows int) {
	now = b.advance(now)
	if b.state == Ramp && b.set.Adaptive && windows >= rampWindows {
		b.close(now)
	}
}

func (b *Breaker) close(now int64) {
	b.end(now)
	b.enter(now, Closed)
	b.pause, b.cause, b.by, b.why = 0, 0, "", ""
}

// OpenBy opens the breaker by a command, until CloseBy. It reports whether the state changed. If it
// changed, the owner must return the attempts of Refunds.
func (b *Breaker) OpenBy(now int64, by, why string) bool {
	now = b.advance(now)
	was := b.state
	switch was {
	case Held:
		b.by, b.why = by, why
		return false
	case Closed:
		b.collect(now)
		b.begin(now, Command)
	case Ramp:
		b.collect(now)
	default:
		b.refundsN = 0
	}
	b.enter(now, Held)
	b.cause, b.by, b.why = Command, by, why
	b.openedAt, b.opened = now, true
	b.current().By, b.current().Why = by, why
	b.forget()
	return true
}

// CloseBy ends an outage by a command: the ramp begins without a probe. It reports whether the
// state changed.
func (b *Breaker) CloseBy(now int64, by, why string) bool {
	now = b.advance(now)
	if b.state == Closed || b.state == Ramp {
		return false
	}
	b.current().ClosedBy, b.current().ClosedWhy = by, why
	b.startRamp(now)
	return true
}

// Next returns the time of the next Tick, or 0 if none is needed.
func (b *Breaker) Next() int64 {
	switch {
	case b.state == Open:
		return b.until
	case b.state == Probing && b.probing:
		return b.probeTill
	case b.state == Ramp:
		return b.rampTill
	}
	return 0
}

// Tick makes the change of state that is due. It reports whether the state changed. If a Tick opens
// the breaker again, there are no Refunds.
func (b *Breaker) Tick(now int64) bool {
	was := b.state
	b.advance(now)
	return b.state != was
}

// advance makes the change of state that is due. It returns the time, which never runs backwards.
func (b *Breaker) advance(now int64) int64 {
	b.now = max(b.now, now)
	at := b.Next()
	if at == 0 || b.now < at {
		return b.now
	}
	switch b.state {
	case Open:
		b.enter(b.now, Probing)
	case Probing:
		b.avoid, b.avoidIsValid = b.probe, true
		b.reopen(b.now, ProbeSilent, 0)
	case Ramp:
		// Close the breaker without full windows, because a queue with little load never fills
		// them.
		if b.rampAlive && b.rampClean {
			b.close(b.now)
		} else {
			b.rampTill, b.rampClean = b.now+rampTime, true
		}
	}
	return b.now
}
