package adapt

import "math"

// stallAfter returns the time without a sign of life after which a target is stalled. Recent slow
// jobs make it longer. Otherwise each rare slow job of a target with mixed costs would look like a
// stall.
func (c *Controller) stallAfter() int64 {
	return max(stallLeast, stallTimes*c.latency, 3*c.slowest)
}

// tired reports whether a probe may stop waiting for the older jobs after stallAfter. It may if
// only a quarter of them is left. If most older jobs are slow, the probe waits.
func (c *Controller) tired() bool {
	return c.phase == Probe && c.older > 0 && c.latency > 0 && (c.older == 1 || 4*c.older <= c.olderAtStart)
}

// Next returns the time of the next Tick, or 0 if none is needed. Each report can move the time, in
// both directions. An owner with one timer may let the timer fire early, and ask again.
func (c *Controller) Next() int64 {
	at := c.due()
	if c.pausedTill > c.now {
		at = min(at, c.pausedTill)
	}
	if at == never {
		return 0
	}
	return at
}

// due returns the time of the next change of state without a report.
func (c *Controller) due() int64 {
	at := int64(never)
	if c.inFlight == 0 {
		if !c.low {
			at = c.idleSince + IdleAfter
		}
	} else if !c.stalled && c.inFlight > c.stragglers {
		at = c.sign + c.stallAfter()
	}
	if c.phase == Load && (c.latency < longJob || c.answers >= max(longJobsALoad, 3*c.Working())) {
		at = min(at, c.loadEnd)
	}
	if c.tired() {
		at = min(at, c.begun+c.stallAfter())
	}
	return at
}

// Tick does what is due. Calls before the time Next do nothing.
func (c *Controller) Tick(now int64) { c.advance(now) }

// reported is advance for a report. Of several reports at the same time, only the first does what is
// due, so that the others are cheap.
func (c *Controller) reported(now int64) int64 {
	if now <= c.now {
		return c.now
	}
	return c.advance(now)
}

// advance does what is due and returns the time, which never runs backwards.
func (c *Controller) advance(now int64) int64 {
	c.now = max(c.now, now)
	// One event can make another one due: for example, a load phase ends, and then the controller
	// is idle.
	for range 4 {
		if c.now < c.due() {
			break
		}
		c.step(c.now)
	}
	return c.now
}

func (c *Controller) step(now int64) {
	switch {
	case c.inFlight == 0 && !c.low && now >= c.idleSince+IdleAfter:
		c.restart(now, Idle)
	case c.tired() && now >= c.begun+c.stallAfter():
		c.stragglers += c.older
		c.stragglersTill = c.begun + 1
		c.older = 0
		c.drained(now)
	case c.inFlight > c.stragglers && !c.stalled && now >= c.sign+c.stallAfter():
		c.stalled = true
		if c.latency > 0 || c.Working() > c.set.Min {
			c.restart(now, Stalled)
			c.low = false
		}
	default:
		c.startProbe(now) // the load phase is over
	}
}

func (c *Controller) startProbe(now int64) {
	c.phase, c.begun = Probe, now
	c.older = max(c.inFlight-c.stragglers, 0)
	c.olderAtStart = c.older
	c.probe.n, c.busy, c.drain = 0, 0, 0
	c.sampleFrom = now
	if c.nextBatch > 0 && c.nextBatch != c.batch {
		c.record(now, c.batch, c.nextBatch, c.nextBatchReason, 0)
		c.batch, c.batchSince = c.nextBatch, now
		c.forget()
	}
	c.nextBatch = 0
}

// endProbe ends the probe if there are enough samples.
func (c *Controller) endProbe(now int64, rows int) {
	n := c.probe.n
	median, spread := c.probe.median()
	length := int64(median * float64(rows))
	switch {
	case n >= probeMost:
	case length >= longJob:
		if n < longJobProbe {
			return
		}
	case n < probeLeast || spread > probeSpread*math.Sqrt(float64(n)):
		return
	}
	wide := spread > variedSpread && n >= probeMost
	c.varied, c.wide = wide && c.wide, wide
	if c.trial.from > 0 && !c.tried(now, rows, median) {
		c.next(now)
		return
	}
	c.probes.add(median)
	c.base = max(c.probes.median(), 1)
	c.latency = max(length, 1)
	c.slowest -= c.slowest / 10
	if c.judgeBatch(now, length, rows, median) {
		return
	}
	c.law(now)
	c.errors = false
	c.next(now)
}

// next begins the phase after a probe.
func (c *Controller) next(now int64) {
	if c.set.Min == c.set.Max {
		c.startProbe(now) // Min equals Max, so the limit cannot change and no load phase is needed
		return
	}
	c.startLoad(now)
}

// law changes the working limit by the ratio of the medians.
func (c *Controller) law(now int64) {
	busy := c.usedN > 0 && float64(c.used) >= usedShare*float64(c.usedN)*float64(c.Working())
	switch {
	case c.slowStart && !c.varied:
	case c.varied:
		c.slowStart = false
		if busy && !c.errors {
			c.change(now, c.limit+1, NoErrors, 0)
		}
	case c.windows.n < lawWindows || c.probes.n < lawProbes:
	default:
		c.ratio = c.windows.median() / c.base
		want := c.limit * factor(c.allowed(), c.ratio)
		c.searchIn--
		settled := math.Abs(want/c.limit-1) <= lawBand
		switch {
		case settled && busy && c.searchIn <= 0 && c.limit < float64(c.set.Max):
			c.search(now)
		case want > c.limit && busy && c.hold > 0:
			c.hold--
		case want > c.limit && busy:
			if next := float64(c.Working() + 1); small(c.Working() + 1) {
				want = min(want, next)
			}
			c.change(now, want, RoomLeft, c.ratio)
		case want < c.limit && busy:
			c.lower(now, want, TooSlow, c.ratio)
		case want < c.limit && c.usedN > 0:
			// Lowering an unused limit to the used part costs nothing. A later burst then begins
			// near the load that the target is known to process.
			if want = max(want, math.Ceil(float64(c.used)/float64(c.usedN))); want < c.limit {
				c.change(now, want, TooSlow, c.ratio)
			}
		}
	}
}

// search begins slow start at the working limit. Slow start from Min can end too early, because of a
// slow first measurement or a disturbance.
func (c *Controller) search(now int64) {
	here := measure{c.limit, c.ratio}
	c.steps = [2]measure{here, here}
	c.searching, c.slowStart, c.exceeded = true, true, 0
	c.searchEvery = min(2*c.searchEvery, exploreMost)
	c.searchIn = c.searchEvery
	c.grow(now, c.ratio)
}

// allowed returns the ratio that the law accepts for the present limit. It is the target. At a small
// limit of batches it is at most √(limit ÷ Min): with more, power is less than at Min. This is not true
// for single messages: with a group commit the first step is the worst.
func (c *Controller) allowed() float64 {
	w, least := c.Working(), float64(c.set.Min)
	if !small(w) || c.set.BatchMax == 0 {
		return c.target
	}
	return min(c.target, math.Sqrt(max(float64(w), least+1)/least))
}

// small reports whether the step to a limit from the next smaller one is larger than lawUp.
func small(limit int) bool { return float64(limit) > lawUp*float64(limit-1) }

// lower lowers the limit. If it takes back a step between small limits, the larger limit is not tried
// again at once.
func (c *Controller) lower(now int64, want float64, reason Reason, ratio float64) {
	if from := c.Working(); small(from) && int(want) < from {
		c.hold, want = lawHold, math.Floor(want)
	}
	c.change(now, want, reason, ratio)
}

// factor returns √(tolerance ÷ ratio) within bounds, and 1 near the tolerance.
func factor(tolerance, ratio float64) float64 {
	if math.Abs(ratio/tolerance-1) <= lawBand {
		return 1
	}
	return min(max(math.Sqrt(tolerance/ratio), lawDown), lawUp)
}

func (c *Controller) startLoad(now int64) {
	length := min(now-c.begun, c.drain+c.busy/int64(c.set.Min))
	c.phase, c.begun = Load, now
	c.loadEnd = now + max(loadTimes*length, loadLeast)
	if c.pausedTill > now {
		c.loadEnd += c.pausedTill - now
	}
	c.answers = 0
	c.used, c.usedN = 0, 0
	if c.window.n == 0 && c.lost == 0 {
		c.startWindow(now)
	} else { // the limit did not change, so the window continues
		c.warmUp(now)
	}
	if c.slowStart && c.limit == float64(c.set.Min) {
		c.grow(now, 0)
	}
}

// startWindow starts a window of jobs that are handed out from now on.
func (c *Controller) startWindow(now int64) {
	c.window.clear()
	c.windowBegun = now
	c.lost = 0
	c.warmUp(now)
}

// warmUp excludes jobs that were handed out before now. It also skips the first answers, as many as
// the limit. Of jobs that are handed out together, the short ones end first, so the first answers
// would make the latency look too low.
func (c *Controller) warmUp(now int64) {
	if c.phase == Load {
		c.sampleFrom = now
		c.skip = c.Working()
	}
}

// closeWindow ends the window if it is long enough. It makes the changes that cannot wait for the
// end of the load phase.
func (c *Controller) closeWindow(now int64) {
	n := c.window.seen + c.lost
	if n < windowLeast || now-c.windowBegun < windowTime {
		return
	}
	value, ratio := 0.0, math.Inf(1)
	late := 5*c.lost > n // more than a fifth of the answers had no result
	if !late {
		value = c.window.median()
		ratio = value / c.base
	}
	// The next window also measures jobs that are in flight now. Only a change of the limit
	// excludes them.
	from := c.sampleFrom
	c.startWindow(now)
	c.sampleFrom, c.skip = from, 0
	c.ramped++

	if c.varied && !late {
		c.over = 0
		return
	}
	c.over++
	if ratio <= max(overTimes*c.set.Tolerance, 2*c.target) {
		c.over = 0
	}
	switch {
	case c.over >= overWindows:
		c.slowStart, c.searching = false, false
		c.change(now, c.limit/2, Overload, ratio)
	case c.slowStart && c.belowKnee(ratio):
		c.exceeded = 0
		c.target = max(c.target, ratio)
		if c.searching {
			c.searchIn, c.searchEvery = exploreLeast, exploreLeast
		}
		c.steps = [2]measure{c.steps[1], {c.limit, ratio}}
		c.grow(now, ratio)
	case c.slowStart:
		if c.exceeded++; c.exceeded >= exceeded {
			c.slowStart = false
			if c.searching {
				c.searching = false
				c.change(now, c.steps[1].limit, SlowStartEnd, ratio)
				break
			}
			c.lower(now, c.limit*factor(c.allowed(), ratio), SlowStartEnd, ratio)
		}
	case !late:
		c.windows.add(value)
	}
	if !math.IsInf(ratio, 1) {
		c.ratio = ratio
	}
}

// measure is the ratio of latencies at a limit.
type measure struct{ limit, ratio float64 }

// belowKnee reports whether slow start goes on. It does while the ratio is allowed. It also does while
// power grows, at most up to kneeTimes the tolerance: from the limit two steps ago to the present one,
// latency grew by less than the square root of the limit.
func (c *Controller) belowKnee(ratio float64) bool {
	was := c.steps[0]
	return ratio <= min(c.set.Tolerance, c.allowed()) && !c.searching || ratio <= kneeTimes*c.set.Tolerance && powerUp*ratio*ratio*was.limit <= was.ratio*was.ratio*c.limit
}

// grow raises the limit in slow start. An unused limit does not grow.
func (c *Controller) grow(now int64, ratio float64) {
	if c.usedN > 0 && float64(c.used) < usedShare*float64(c.usedN)*float64(c.Working()) {
		return
	}
	if c.limit >= float64(c.set.Max) {
		c.slowStart, c.searching = false, false // from now on the law changes the limit
		return
	}
	c.change(now, float64(c.limit*1.5)+0.5, SlowStart, ratio) // float64 prevents a fused operation, so every processor rounds alike
	c.used, c.usedN = 0, 0
}
