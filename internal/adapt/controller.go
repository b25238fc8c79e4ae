package adapt

import "math"

// Outcome is the end of a job.
type Outcome uint8

// The outcomes. Only the latency of a Success is measured. Every outcome except Timeout is a sign
// of life of the target.
const (
	Success    Outcome = iota
	BadMessage         // the message causes the failure
	BadBatch           // the batch has a bad row; its time includes the search for the row, so it is not measured
	Timeout            // a deadline passed without an answer
	TooLarge           // a batch was refused as too large, or the target ran out of memory
	Throttle           // the target asked for less load, as with HTTP 429 and 503 and SQLSTATE 53300
	Down               // the target cannot be reached; the breaker handles it
	Returned           // the consumer returned the job without an attempt, or disconnected
)

// Answer is the end of one job.
type Answer struct {
	HandedAt   int64 // the time of the call to Handed
	Latency    int64 // nanoseconds at the target, as the consumer measured them
	Rows       int   // rows of a batch; 0 means 1
	Partial    bool  // the batch was sent before it was full, so its latency per row is not measured
	Outcome    Outcome
	RetryAfter int64 // with Throttle: the pause in nanoseconds that the target asked for; 0 if none
}

// Phase is the present phase of a Controller.
type Phase uint8

// The phases.
const (
	Probe Phase = iota // the limit is Settings.Min
	Load               // the working limit applies
)

func (p Phase) String() string {
	if p == Probe {
		return "probe"
	}
	return "load"
}

// Rules of the algorithm. Times are in nanoseconds.
const (
	second = 1_000_000_000

	IdleAfter     = 60 * second   // after this idle time the controller starts again at the smallest limit
	RetryAfterMax = 3600 * second // a longer Retry-After is cut

	latencyMax = 24 * 3600 * second // a longer latency is cut

	probeLeast   = 6    // fewest samples of a probe
	probeMost    = 30   // most samples of a probe
	probeSpread  = 0.12 // a probe ends when quartile range ÷ (median × √samples) is at most this
	variedSpread = 3    // above this quartile range ÷ median, latency is too varied to compare

	longJob       = 10 * second // jobs of at least this length are probed rarely
	longJobProbe  = 3           // samples of a probe of long jobs
	longJobsALoad = 50          // answers between two probes of long jobs

	loadTimes    = 9             // length of a load phase in probes
	loadLeast    = second / 2    // shortest load phase
	windowTime   = second / 10   // shortest window
	windowLeast  = 8             // fewest samples of a window
	lawWindows   = 3             // fewest windows for a change by the law (see doc.go)
	lawProbes    = 2             // fewest probes for a change by the law
	lawDown      = 0.75          // smallest factor of one change of the limit
	lawUp        = 1.33          // largest factor of one change of the limit
	lawHold      = 10            // cycles without a raise after a step back from a small limit
	exploreLeast = 10            // cycles after slow start, or a search that found something, before the law searches above the tolerance
	exploreMost  = 80            // most cycles between two such searches
	powerUp      = 1.1           // growth of power in two steps of slow start, above the tolerance
	kneeTimes    = 2             // slow start ends at the latest at this multiple of the tolerance
	lawBand      = 0.05          // no change if the ratio differs from the tolerance by at most this share
	usedShare    = 0.75          // a limit of which a smaller share is used is never raised
	overTimes    = 3             // a window above this × tolerance shows an overload
	overWindows  = 3             // this many consecutive windows of overload halve the limit
	exceeded     = 2             // this many consecutive windows above the tolerance end slow start
	stallLeast   = second        // the shortest time without a sign of life that is a stall
	stallTimes   = 10            // the time of a stall, as a multiple of the latency in probes
	batchSlow    = second        // a batch that lasts longer is made smaller
	batchFirst   = 32            // the first batch size
	batchCycles  = 10            // good cycles (probe and load phase) before a trial of another batch size
	never        = math.MaxInt64 // as a time: never
)

// Controller sets the limit of one target or queue. It needs about 2.7 KB and never allocates after
// New. One goroutine may use it at a time.
//
// The owner calls Handed and Answered for each job, and hands out a job only while InFlight is
// below Limit. When the time Next has come, the owner calls Tick first. A late Tick is harmless,
// because Handed, Answered and Extended also do the work of a Tick.
type Controller struct {
	set Settings

	now   int64 // the latest time that a call passed
	phase Phase
	begun int64   // the start of the phase
	limit float64 // the working limit

	inFlight   int
	sign       int64 // the last sign of life of a job
	idleSince  int64 // the start of the time without jobs in flight
	low        bool  // the limit was set to the smallest one, and no job was handed out since
	stalled    bool  // jobs are in flight, and none returned
	pausedTill int64 // the end of the pause of a Throttle with RetryAfter
	cutAt      int64 // the last halving of the limit; jobs handed out earlier do not halve it again

	// older counts the jobs handed out before the probe; the probe waits for them. Stragglers are
	// old jobs for which a probe no longer waits. They are added to the limit.
	older, olderAtStart int
	stragglers          int
	stragglersTill      int64 // stragglers were handed out before this time
	drain               int64 // the time for which this probe waited for older jobs
	busy                int64 // the sum of the latencies of this probe
	probe               sorted

	probes  recent // medians of probes
	base    float64
	latency int64 // the latency of a job at the smallest limit, in nanoseconds; 0 if unknown
	slowest int64 // the latency of a recent slow job; it shrinks by a tenth in each probe
	wide    bool  // the latencies of the last probe are far apart
	varied  bool  // the last two probes were wide, so latency is not used

	loadEnd               int64
	answers               int   // answers in this load phase
	sampleFrom            int64 // jobs that were handed out before this time are not measured
	skip                  int   // answers to ignore before the window begins
	window                sample
	windowBegun           int64
	lost                  int    // answers of the window that timed out, or did not reach the target
	windows               recent // medians of windows since the last change
	ramped                int    // windows since the controller last started at the smallest limit
	used, usedN           int64  // sum and number of the values of inFlight at each job of this load phase
	slowStart             bool
	exceeded              int        // consecutive windows above the tolerance
	target                float64    // the ratio of the law: the tolerance, or more if slow start found the knee there
	steps                 [2]measure // the limits before the last two steps of slow start, older first
	searching             bool       // slow start is a search from a working limit
	searchIn, searchEvery int        // cycles until the next search, and between searches
	hold                  int        // cycles in which the limit is not raised
	over                  int        // consecutive windows of overload
	errors                bool       // there were errors in this cycle
	ratio                 float64

	trial            trial
	ramping, falling bool // trials of batch sizes follow each other; the next trial is of a smaller size
	batch, nextBatch int
	nextBatchReason  Reason
	batchSince       int64
	goodCycles       int

	changes uint64
	history [HistorySize]Change
}

// New returns a controller that starts at the smallest limit. Settings out of bounds are set to the
// nearest bound.
func New(now int64, set Settings) *Controller {
	c := &Controller{set: set.bounded(), now: now}
	c.probes.size, c.windows.size = 5, 32
	c.startBatch()
	c.record(now, 0, c.set.Min, Started, 0)
	c.beginLow(now)
	return c
}

// Configure changes the settings. If Min changes, earlier probes are forgotten. If BatchMax
// changes, the batch size is set to BatchMax.
func (c *Controller) Configure(now int64, set Settings) {
	now = c.advance(now)
	set = set.bounded()
	was, old, batch := c.set, c.Working(), c.batch
	c.set = set
	c.limit = min(max(c.limit, float64(set.Min)), float64(set.Max))
	c.record(now, old, c.Working(), Reconfigured, 0)
	if set.BatchMax != was.BatchMax {
		c.startBatch()
		c.record(now, batch, c.batch, BatchReconfigured, 0)
	}
	c.target = min(max(c.target, set.Tolerance), kneeTimes*set.Tolerance)
	if set.Min != was.Min || set.BatchMax != was.BatchMax || set.Min == set.Max {
		c.endTrial(now)
		c.forget()
		c.startProbe(now)
	}
}

// Handed reports n jobs that were handed out.
func (c *Controller) Handed(now int64, n int) {
	now = c.reported(now)
	if n <= 0 {
		return
	}
	if c.inFlight == 0 {
		c.sign = now
	}
	c.inFlight += n
	c.low = false
	if c.phase == Load {
		c.used += int64(n) * int64(c.inFlight-c.stragglers)
		c.usedN += int64(n)
	}
}

// Extended reports that a consumer extended the lease of a job. This is a sign of life.
func (c *Controller) Extended(now int64) {
	now = c.reported(now)
	c.alive(now)
}

func (c *Controller) alive(now int64) {
	c.sign = now
	c.stalled = false
}

// Answered reports the end of a job.
func (c *Controller) Answered(now int64, a Answer) {
	now = c.reported(now)
	c.left(now, a.HandedAt)
	if a.Outcome != Timeout {
		c.alive(now)
	}
	if c.phase == Load {
		c.answers++
	}
	skipped := c.skipped(now, a.HandedAt)
	switch a.Outcome {
	case Success:
		if !skipped {
			c.succeeded(now, a)
		}
	case Timeout, Down:
		c.errors = true
		if c.phase == Load && a.HandedAt >= c.sampleFrom && !skipped {
			c.lost++
			c.closeWindow(now)
		}
		if a.Outcome == Timeout {
			c.shrinkBatch(now, a, BatchTimedOut)
		}
	case TooLarge:
		c.shrinkBatch(now, a, BatchTooLarge)
	case Throttle:
		c.throttled(now, a)
	}
}

// skipped reports whether the answer must be ignored, because the window has not begun.
func (c *Controller) skipped(now, handedAt int64) bool {
	if c.skip == 0 || c.phase != Load || handedAt < c.sampleFrom {
		return false
	}
	if c.skip--; c.skip == 0 && c.window.n == 0 {
		c.windowBegun = now
	}
	return true
}

// left removes a job from the jobs in flight.
func (c *Controller) left(now, handedAt int64) {
	if c.inFlight == 0 {
		return // the owner reported an answer without a job
	}
	c.inFlight--
	if c.inFlight == 0 {
		c.idleSince = now
	}
	if c.stragglers > 0 && handedAt < c.stragglersTill {
		c.stragglers--
	} else if c.older > 0 && handedAt <= c.begun {
		c.older--
		c.drained(now)
	}
	c.older = min(c.older, c.inFlight)
	c.stragglers = min(c.stragglers, c.inFlight)
}

// drained starts the samples of a probe if no older job is left.
func (c *Controller) drained(now int64) {
	if c.older == 0 {
		c.sampleFrom = now
		c.drain = now - c.begun
	}
}

func (c *Controller) succeeded(now int64, a Answer) {
	if a.Partial || a.HandedAt < c.sampleFrom || a.Latency < 0 || c.older > 0 {
		return
	}
	a.Latency = min(a.Latency, latencyMax)
	c.slowest = max(c.slowest, a.Latency)
	rows, x := 1, float32(a.Latency)
	if a.Rows > 1 {
		rows, x = a.Rows, float32(float64(a.Latency)/float64(a.Rows))
	}
	if c.phase == Probe {
		c.busy += min(a.Latency, now-c.begun)
		c.probe.add(x)
		c.endProbe(now, rows)
		return
	}
	c.window.add(x)
	c.closeWindow(now)
}

// throttled halves the limit, at most once per round trip. It pauses if the target asked for a
// pause.
func (c *Controller) throttled(now int64, a Answer) {
	c.errors = true
	if a.HandedAt >= c.cutAt {
		c.cutAt = now
		c.slowStart, c.searching = false, false
		c.change(now, c.limit/2, Throttled, 0)
	}
	if a.RetryAfter > 0 {
		c.pausedTill = max(c.pausedTill, now+min(a.RetryAfter, RetryAfterMax))
		if c.phase == Load {
			c.loadEnd = max(c.loadEnd, c.pausedTill+loadLeast)
		}
	}
}

// Reset sets the limit to the smallest one and forgets all measurements. Call it with Resumed after
// a pause, and with BreakerOpen when a breaker opens.
func (c *Controller) Reset(now int64, reason Reason) {
	now = c.advance(now)
	c.restart(now, reason)
}

func (c *Controller) restart(now int64, reason Reason) {
	from := c.Working()
	c.beginLow(now)
	c.record(now, from, c.Working(), reason, 0)
}

// beginLow sets the limit to the smallest one, and forgets all measurements.
func (c *Controller) beginLow(now int64) {
	c.limit = float64(c.set.Min)
	c.slowStart = c.set.Min < c.set.Max
	c.target, c.hold = c.set.Tolerance, 0
	c.searching, c.searchIn, c.searchEvery = false, exploreLeast, exploreLeast
	c.steps = [2]measure{{c.limit, 1}, {c.limit, 1}}
	c.endTrial(now)
	c.ramped = 0
	c.low = true
	c.forget()
	c.startProbe(now)
}

// forget forgets all measurements.
func (c *Controller) forget() {
	c.probes.clear()
	c.windows.clear()
	c.startWindow(c.now)
	c.base, c.latency, c.ratio = 0, 0, 0
	c.wide, c.varied = false, false
	c.exceeded, c.over = 0, 0
}

// Limit returns the most jobs that may be in flight now. It is 0 during a pause that the target
// asked for.
func (c *Controller) Limit(now int64) int {
	if now < c.pausedTill {
		return 0
	}
	n := c.Working()
	if c.phase == Probe {
		n = c.set.Min
	}
	return min(n+c.stragglers, c.set.Max)
}

// Working returns the limit of load phases.
func (c *Controller) Working() int { return int(c.limit) }

// BatchSize returns the number of rows for the next batches. It is 0 without batches.
func (c *Controller) BatchSize() int { return c.batch }

// InFlight returns the number of jobs without an answer.
func (c *Controller) InFlight() int { return c.inFlight }

// PausedUntil returns the end of the last pause that the target asked for, or 0.
func (c *Controller) PausedUntil() int64 { return c.pausedTill }

// RampWindows returns the number of measuring windows since the controller last started at the
// smallest limit. A breaker uses it.
func (c *Controller) RampWindows() int { return c.ramped }

// change sets the working limit and forgets the windows that were measured before.
func (c *Controller) change(now int64, limit float64, reason Reason, ratio float64) {
	from := c.Working()
	c.limit = min(max(limit, float64(c.set.Min)), float64(c.set.Max))
	c.windows.clear()
	c.exceeded, c.over = 0, 0
	c.startWindow(now)
	c.record(now, from, c.Working(), reason, ratio)
}
