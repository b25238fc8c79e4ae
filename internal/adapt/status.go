package adapt

// Status is the state of a controller as users see it.
type Status struct {
	Phase       Phase
	Limit       int     // the working limit
	Now         int     // the limit in force: Limit, or less in a probe or a pause
	InFlight    int     // jobs without an answer
	Latency     int64   // latency of a job at the smallest limit, in nanoseconds; 0 if not measured yet
	Ratio       float64 // latency under load ÷ latency in probes, as last measured; 0 if unknown
	SlowStart   bool    // the limit grows fast
	TooVaried   bool    // latency is too varied to compare, so only errors and stalls change the limit
	Stalled     bool    // jobs are in flight, and none returned
	PausedUntil int64   // the end of a pause that the target asked for; 0 without a pause
	BatchSize   int     // rows of the next batches; 0 without batches
	Last        Change  // the last change
}

// Status returns the state for users.
func (c *Controller) Status(now int64) Status {
	s := Status{Phase: c.phase, Limit: c.Working(), Now: c.Limit(now), InFlight: c.inFlight, Latency: c.latency, Ratio: c.ratio,
		SlowStart: c.slowStart, TooVaried: c.varied, Stalled: c.stalled, BatchSize: c.batch, Last: c.last()}
	if c.pausedTill > now {
		s.PausedUntil = c.pausedTill
	}
	return s
}

// Sentence explains the state in one sentence, or two.
func (s Status) Sentence() string {
	switch {
	case s.PausedUntil > 0:
		return "The target asked for a pause."
	case s.Stalled:
		return "Messages are in flight, and none came back for a long time."
	case s.TooVaried:
		return "Latency too varied: only errors and stalls count."
	case s.Latency == 0:
		return "The first probe is measuring the target with the smallest limit."
	}
	return s.Last.Reason.Sentence()
}
