package adapt

// The batch size changes slowly, and the limit changes fast. Latencies of another batch size cannot
// be compared, so after each change of the size a probe begins.
//
// The size follows Kleinrock's power, throughput ÷ latency. A larger batch shares its fixed cost
// among more rows, but other users of the target wait longer for its end. Power is largest where the
// fixed cost of a batch equals the cost of its rows. A trial is one probe with twice or half the
// size. Trials follow each other while power grows, and later after batchCycles good cycles.

// trial is a size before a trial, and what its probe measured.
type trial struct {
	from   int // 0: there is no trial
	rows   int // rows of its batches
	length float64
}

// shrinkBatch halves the batch size after a failure of a batch of the present size.
func (c *Controller) shrinkBatch(now int64, a Answer, reason Reason) {
	if c.batch <= 1 || a.HandedAt < c.batchSince {
		return
	}
	size := c.batch
	if a.Rows > 0 {
		size = min(size, a.Rows)
	}
	c.trial, c.ramping = trial{}, false
	c.nextBatch, c.nextBatchReason = max(size/2, 1), reason
	c.goodCycles = 0
	c.startProbe(now)
}

// judgeBatch changes the batch size by the time of a batch at the smallest limit. It reports whether
// it began a new probe.
func (c *Controller) judgeBatch(now, length int64, rows int, median float64) bool {
	if c.batch > 1 && length > batchSlow {
		c.trial, c.ramping = trial{}, false
		c.nextBatch, c.nextBatchReason = c.batch/2, BatchSlow
		c.goodCycles = 0
		c.startProbe(now)
		return true
	}
	if c.set.BatchMax < 2 {
		return false
	}
	if c.goodCycles++; !c.ramping && c.goodCycles < batchCycles {
		return false
	}
	c.goodCycles = 0
	size := min(2*c.batch, c.set.BatchMax)
	if c.falling {
		size = max(c.batch/2, min(batchFirst, c.batch))
	}
	if size == c.batch || size > c.batch && 2*length > batchSlow {
		c.ramping, c.falling = false, !c.falling
		return false
	}
	c.trial = trial{c.batch, rows, median * float64(rows)}
	c.batch, c.batchSince = size, now
	c.startProbe(now)
	return true
}

// tried ends a trial with the median time of a row. It reports whether the new size has more power.
// Otherwise the size before the trial and its measurements apply again.
func (c *Controller) tried(now int64, rows int, median float64) bool {
	was := c.trial
	c.ramping = trial{c.batch, rows, median * float64(rows)}.better(was)
	if !c.ramping {
		c.falling = !c.falling
		c.endTrial(now)
		return false
	}
	c.trial = trial{}
	c.record(now, was.from, c.batch, BatchGood, 0)
	c.forget()
	return true
}

// endTrial ends a trial without a result.
func (c *Controller) endTrial(now int64) {
	if c.trial.from > 0 {
		c.batch, c.batchSince = c.trial.from, now
		c.trial = trial{}
	}
}

// startBatch sets the first batch size.
func (c *Controller) startBatch() {
	c.batch, c.nextBatch, c.goodCycles = min(batchFirst, c.set.BatchMax), 0, 0
	c.trial, c.ramping, c.falling = trial{}, true, false
}

// better reports whether a size has more power than the size before the trial. The larger size must
// have clearly more, because it delays other users.
func (t trial) better(was trial) bool {
	if t.rows == was.rows {
		return false // other limits keep the batches at this size
	}
	margin := 1 + lawBand
	if t.rows < was.rows {
		margin = 1 / margin
	}
	return float64(t.rows)*was.length*was.length > margin*float64(was.rows)*t.length*t.length
}
