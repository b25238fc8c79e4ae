package adapt

// The batch size changes slowly, and the limit changes fast. Latencies of another batch size cannot
// be compared, so after each change of the size a probe begins.

// shrinkBatch halves the batch size after a failure of a batch of the present size.
func (c *Controller) shrinkBatch(now int64, a Answer, reason Reason) {
	if c.batch <= 1 || a.HandedAt < c.batchSince {
		return
	}
	size := c.batch
	if a.Rows > 0 {
		size = min(size, a.Rows)
	}
	c.nextBatch, c.nextBatchReason = max(size/2, 1), reason
	c.goodCycles = 0
	c.startProbe(now)
}

// judgeBatch changes the batch size by the latency of a batch at the smallest limit. It reports
// whether it began a new probe.
func (c *Controller) judgeBatch(now, length int64) bool {
	switch {
	case c.batch > 1 && length > batchSlow:
		c.nextBatch, c.nextBatchReason = c.batch/2, BatchSlow
		c.goodCycles = 0
		c.startProbe(now)
		return true
	case c.batch < c.set.BatchMax && 2*length <= batchSlow:
		if c.goodCycles++; c.goodCycles >= batchCycles {
			c.goodCycles = 0
			c.nextBatch, c.nextBatchReason = min(2*c.batch, c.set.BatchMax), BatchGood
			if c.set.Min == c.set.Max {
				c.startProbe(now)
				return true
			}
		}
	}
	return false
}
