package adapt

import "math"

// Outcome is the end of a job.
type Outcome uint8

// The outcomes. Only Success is a latency. Every outcome but Timeout is a sign of life: something
// came back.
const (
	Success    Outcome = iota
	BadMessage         // the message is at fault
	BadBatch           // a batch with a bad row: it includes the search for the row, so it is no latency
	Timeout            // a deadline passed without an answer
	TooLarge           // a batch was refused as too large, or the target ran out of memory
	Throttle           // the target asked for less, as with HTTP 429 and 503 and SQLSTATE 53300
	Down               // the target cannot be reached; the breaker handles it
	Returned           // the consumer returned the job without an attempt, or went away
)

// Answer is the end of one job.
type Answer struct {
	HandedAt   int64 // the time of the call to Handed
	Latency    int64 // nanoseconds at the target, as the consumer measured them
	Rows       int   // rows of a batch; 0 and 1 are the same
	Partial    bool  // a batch that waited for rows in vain; its latency per row says nothing
	Outcome    Outcome
	RetryAfter int64 // of Throttle: nanoseconds without any job; 0 if the target did not say
}

// Phase is what a Controller does at the moment.
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

	IdleAfter     = 60 * second   // an idle controller begins low again
	RetryAfterMax = 3600 * second // a longer Retry-After is cut

	latencyMax = 24 * 3600 * second // a longer latency is cut

	probeLeast   = 6    // samples of a probe, at least
	probeMost    = 30   // samples of a probe, at most
	probeSpread  = 0.12 // a probe ends when quartile range ÷ (median × √samples) is at most this
	variedSpread = 3    // above this quartile range ÷ median, latency is no signal

	longJob       = 10 * second // jobs from this length are probed rarely
	longJobProbe  = 3           // samples of a probe of long jobs
	longJobsALoad = 50          // answers between two probes of long jobs

	loadTimes   = 9             // length of a load phase in probes
	loadLeast   = second / 2    // shortest load phase
	windowTime  = second / 10   // shortest window
	windowLeast = 8             // samples of a window, at least
	lawWindows  = 3             // windows that the law needs
	lawProbes   = 2             // probes that the law needs
	lawDown     = 0.75          // strongest step down
	lawUp       = 1.33          // strongest step up
	lawBand     = 0.05          // no step within this share of the tolerance
	usedShare   = 0.75          // a limit that is used less is never raised
	overTimes   = 3             // windows above this × tolerance are an overload
	overWindows = 3             // windows in sequence that halve the limit
	exceeded    = 2             // windows in sequence that end slow start
	stallLeast  = second        // shortest silence that is a stall
	stallTimes  = 10            // a stall, in latencies of a probe
	batchSlow   = second        // a batch should not last longer
	batchCycles = 10            // good cycles before a larger batch
	never       = math.MaxInt64 // of a time: no such event
)

// Controller is the state of one target or queue. It needs about 2.6 KB and never allocates after
// New. One goroutine may use it at a time.
//
// The owner reports Handed and Answered for each job, and hands out a job only while InFlight is
// below Limit. When the time Next has come, the owner calls Tick first. A late Tick is harmless:
// each report does the work of a Tick too.
type Controller struct {
	set Settings

	now   int64 // the latest time that a call passed
	phase Phase
	begun int64   // the start of the phase
	limit float64 // the working limit

	inFlight   int
	sign       int64 // the last sign of life of a job
	idleSince  int64 // with nothing in flight: since when
	low        bool  // began low, and no job was handed out since
	stalled    bool  // jobs are in flight, and none returned
	pausedTill int64 // Throttle with RetryAfter
	cutAt      int64 // the last halving: older jobs do not halve again

	// A probe waits for jobs that are older. Stragglers are jobs of which a probe tired. They are
	// added to the limit.
	older, olderAtStart int
	stragglers          int
	stragglersTill      int64 // they were handed out before
	drain               int64 // the time that older jobs cost this probe
	busy                int64 // the sum of latencies of this probe
	probe               sorted

	probes  recent // medians of probes
	base    float64
	latency int64 // a job at the smallest limit, in nanoseconds; 0 if unknown
	slowest int64 // a slow job of late; it shrinks by a tenth per probe
	wide    bool  // the latencies of the last probe are far apart
	varied  bool  // those of the last two probes are, so latency is no signal

	loadEnd     int64
	answers     int   // in this load phase
	sampleFrom  int64 // jobs that were handed out before do not count
	skip        int   // answers until the window begins
	window      sample
	windowBegun int64
	lost        int    // answers of the window that timed out, or did not reach the target
	windows     recent // medians of windows since the last change
	ramped      int    // windows since it began low
	used, usedN int64  // jobs in flight, added up at each job of this load phase
	slowStart   bool
	exceeded    int  // windows in sequence above the tolerance
	over        int  // windows in sequence far above
	errors      bool // in this cycle
	ratio       float64

	batch, nextBatch int
	nextBatchReason  Reason
	batchSince       int64
	goodCycles       int

	changes uint64
	history [HistorySize]Change
}

// New returns a controller that begins low. Settings out of bounds are moved into them.
func New(now int64, set Settings) *Controller {
	c := &Controller{set: set.bounded(), now: now}
	c.probes.size, c.windows.size = 5, 32
	c.batch = c.set.BatchMax
	c.record(now, 0, c.set.Min, Started, 0)
	c.beginLow(now)
	return c
}

// Configure changes the settings. A changed Min makes older probes void. A changed BatchMax also
// sets the batch size to it.
func (c *Controller) Configure(now int64, set Settings) {
	now = c.advance(now)
	set = set.bounded()
	was, old, batch := c.set, c.Working(), c.batch
	c.set = set
	c.limit = min(max(c.limit, float64(set.Min)), float64(set.Max))
	c.record(now, old, c.Working(), Reconfigured, 0)
	if set.BatchMax != was.BatchMax {
		c.batch, c.nextBatch, c.goodCycles = set.BatchMax, 0, 0
		c.record(now, batch, c.batch, BatchReconfigured, 0)
	}
	if set.Min != was.Min || set.BatchMax != was.BatchMax || set.Min == set.Max {
		c.forget()
		c.startProbe(now)
	}
}

// Handed reports n jobs that were handed out.
func (c *Controller) Handed(now int64, n int) {
	now = c.advance(now)
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

// Extended reports that a consumer extended the lease of a job. It is a sign of life.
func (c *Controller) Extended(now int64) {
	now = c.advance(now)
	c.alive(now)
}

func (c *Controller) alive(now int64) {
	c.sign = now
	c.stalled = false
}

// Answered reports the end of a job.
func (c *Controller) Answered(now int64, a Answer) {
	now = c.advance(now)
	c.left(now, a.HandedAt)
	if a.Outcome != Timeout {
		c.alive(now)
	}
	if c.phase == Load {
		c.answers++
	}
	skipped := c.skipped(now, a)
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

// skipped tells whether the answer belongs to the round before the window begins.
func (c *Controller) skipped(now int64, a Answer) bool {
	if c.skip == 0 || c.phase != Load || a.HandedAt < c.sampleFrom {
		return false
	}
	if c.skip--; c.skip == 0 && c.window.n == 0 {
		c.windowBegun = now
	}
	return true
}

// left counts a job out.
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
	rows := max(a.Rows, 1)
	x := float32(float64(a.Latency) / float64(rows))
	if c.phase == Probe {
		c.busy += min(a.Latency, now-c.begun)
		c.probe.add(x)
		c.endProbe(now, rows)
		return
	}
	c.window.add(x)
	c.closeWindow(now)
}

// throttled halves the limit once per round trip and pauses if the target asked for a pause.
func (c *Controller) throttled(now int64, a Answer) {
	c.errors = true
	if a.HandedAt >= c.cutAt {
		c.cutAt = now
		c.slowStart = false
		c.change(now, c.limit/2, Throttled, 0)
	}
	if a.RetryAfter > 0 {
		c.pausedTill = max(c.pausedTill, now+min(a.RetryAfter, RetryAfterMax))
		if c.phase == Load {
			c.loadEnd = max(c.loadEnd, c.pausedTill+loadLeast)
		}
	}
}

// Reset begins low. Call it with Resumed after a pause, and with BreakerOpen when a breaker opens.
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
	c.ramped = 0
	c.low = true
	c.forget()
	c.startProbe(now)
}

// forget makes all measurements void.
func (c *Controller) forget() {
	c.probes.clear()
	c.windows.clear()
	c.startWindow(c.now)
	c.base, c.latency, c.ratio = 0, 0, 0
	c.wide, c.varied = false, false
	c.exceeded, c.over = 0, 0
}

// Limit returns how many jobs may be in flight. It is 0 during a pause that the target asked for.
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

// BatchSize returns how many rows the next batches should have. It is 0 without batches.
func (c *Controller) BatchSize() int { return c.batch }

// InFlight returns the number of jobs without an answer.
func (c *Controller) InFlight() int { return c.inFlight }

// PausedUntil returns the end of the last pause that the target asked for, or 0.
func (c *Controller) PausedUntil() int64 { return c.pausedTill }

// RampWindows returns how many windows passed since the controller began low. A breaker uses it.
func (c *Controller) RampWindows() int { return c.ramped }

// change sets the working limit. Windows that were measured before are void.
func (c *Controller) change(now int64, limit float64, reason Reason, ratio float64) {
	from := c.Working()
	c.limit = min(max(limit, float64(c.set.Min)), float64(c.set.Max))
	c.windows.clear()
	c.exceeded, c.over = 0, 0
	c.startWindow(now)
	c.record(now, from, c.Working(), reason, ratio)
}
