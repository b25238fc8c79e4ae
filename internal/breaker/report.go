package breaker

// Reported handles a report about the target itself, which belongs to no message. It comes from a
// consumer that limits its own load and tests the target without messages, such as a sink.
//
//	up                  the target accepts connections: an open breaker need not wait longer for its probe
//	down                one more piece of evidence, as an answer Down, but without a message to refund
//	down, while probing the probe failed, if holdsProbe; or no probe is out, and the report counts as one
//
// holdsProbe tells whether the consumer has the message that tests the target. Reported returns
// true if the breaker opened: then the owner must return the attempts of Refunds.
func (b *Breaker) Reported(now int64, up, holdsProbe bool, retryAfter int64) (opened bool) {
	now = b.advance(now)
	switch {
	case up:
		if b.state == Open {
			b.enter(now, Probing)
		}
	case b.state == Probing && (holdsProbe || !b.probing):
		if b.probing {
			b.avoid, b.avoidIsValid = b.probe, true
		}
		b.reopen(now, ProbeFailed, retryAfter)
		return true
	case b.state == Closed || b.state == Ramp:
		b.noteDown(now)
		if b.state == Ramp || b.sinceUp >= downAnswers || !b.everUp {
			b.open(now, DownReported, retryAfter)
			return true
		}
	}
	return false
}

// noteDown adds a report to the evidence. The report has no message, so it is not in the ring.
func (e *evidence) noteDown(now int64) {
	e.roll(now)
	e.bucket().answers++
	e.answers++
	e.sinceUp++
	e.bucket().failures++
	e.failures++
	e.returned(now)
}
