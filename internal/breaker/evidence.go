package breaker

// failuresKept is the number of failures that a breaker remembers.
const failuresKept = 64

// Failure names a failed attempt. The owner returns the attempt when the breaker opens.
type Failure struct {
	Seq     uint64
	Attempt uint32
}

type failure struct {
	Failure
	group uint64
	at    int64
}

type tally struct{ answers, failures, unclassified int }

// evidence contains counts of recent answers. It ignores answers of leases that began before the
// last opening.
type evidence struct {
	latency  int64 // the usual latency of a success; forget does not reset it
	lastBack int64 // the time of the last answer other than a timeout

	everUp  bool // there was a sign of life since the last opening
	sinceUp int  // answers since the last sign of life

	silent    bool // a message timed out, and no answer came since
	silentSeq uint64

	// The answers of each of the last ten seconds, and their sums.
	head                            int64 // the second of the newest entry
	headEnd                         int64 // the end of this second, in nanoseconds
	seconds                         [shareSeconds]tally
	answers, failures, unclassified int

	ring   [failuresKept]failure
	ringN  uint64 // number of all failures
	upMark uint64 // ringN at the last sign of life
	base   uint64 // entries of the ring before this number are forgotten
}

// forget forgets all evidence except the usual latency.
func (e *evidence) forget() {
	e.everUp, e.sinceUp, e.silent = false, 0, false
	e.seconds = [shareSeconds]tally{}
	e.answers, e.failures, e.unclassified = 0, 0, 0
	e.base, e.upMark = e.ringN, e.ringN
}

// roll makes the ten seconds end now.
func (e *evidence) roll(now int64) {
	if now < e.headEnd {
		return
	}
	sec := now / second
	e.headEnd = (sec + 1) * second
	if sec-e.head >= shareSeconds {
		e.seconds = [shareSeconds]tally{}
		e.answers, e.failures, e.unclassified = 0, 0, 0
		e.head = sec
		return
	}
	for e.head < sec {
		e.head++
		s := e.bucket()
		e.answers -= s.answers
		e.failures -= s.failures
		e.unclassified -= s.unclassified
		*s = tally{}
	}
}

func (e *evidence) bucket() *tally {
	return &e.seconds[uint64(e.head)%shareSeconds]
}

// returned records that an answer came.
func (e *evidence) returned(now int64) {
	e.lastBack = now
	e.silent = false
}

// up adds a sign of life to the evidence. latency is 0 if it is not known.
func (e *evidence) up(now, latency int64) {
	e.roll(now)
	e.bucket().answers++
	e.answers++
	e.returned(now)
	e.everUp, e.sinceUp = true, 0
	e.upMark = e.ringN
	if latency > 0 {
		latency = min(latency, latencyMax)
		if e.latency == 0 {
			e.latency = latency
		}
		e.latency += (latency - e.latency) / 8
	}
}

// note adds an answer to the evidence.
func (e *evidence) note(now int64, a Answer) {
	switch {
	case a.Outcome == Success:
		e.up(now, a.Latency)
		return
	case !a.Outcome.failure():
		e.up(now, 0)
		return
	}
	e.roll(now)
	s := e.bucket()
	s.answers++
	e.answers++
	e.sinceUp++
	s.failures++
	e.failures++
	if a.Outcome != Down {
		s.unclassified++
		e.unclassified++
	}
	if a.Outcome != Timeout {
		e.returned(now)
	}
	e.ring[e.ringN%failuresKept] = failure{Failure{a.Seq, a.Attempt}, a.Group, now}
	e.ringN++
}

// unnote removes the last failure from the ring. The oldest failure, which it had overwritten, is
// lost.
func (e *evidence) unnote() {
	e.ringN--
	if e.ringN-e.base >= failuresKept {
		e.base = e.ringN - failuresKept + 1
	}
}

// first returns the number of the oldest failure in the ring.
func (e *evidence) first() uint64 {
	if e.ringN-e.base > failuresKept {
		return e.ringN - failuresKept
	}
	return e.base
}

// silence reports whether a second message timed out and no answer came in between. A single
// message is not enough, because it can make its consumer hang repeatedly while the target is up.
func (e *evidence) silence(a Answer) bool {
	if e.lastBack > a.HandedAt {
		return false
	}
	if !e.silent {
		e.silent, e.silentSeq = true, a.Seq
		return false
	}
	return a.Seq != e.silentSeq
}

// sources counts the groups of the recent failures, up to shareGroups. Each message without a group
// counts as a group.
func (e *evidence) sources() int {
	var found [shareGroups]failure
	n := 0
next:
	for i := e.ringN; i > e.first() && n < len(found); i-- {
		f := e.ring[(i-1)%failuresKept]
		if f.at/second+shareSeconds <= e.head {
			break
		}
		for _, old := range found[:n] {
			if f.group == old.group && (f.group != 0 || f.Seq == old.Seq) {
				continue next
			}
		}
		found[n] = f
		n++
	}
	return n
}

// ParkDelay returns how long a message that failed its last attempt waits before it is parked. In
// this time the breaker can open and return the attempt. ParkDelay is 0 while few answers are
// failures.
func (b *Breaker) ParkDelay(now int64) int64 {
	now = b.advance(now)
	b.roll(now)
	failures := b.failures
	if b.set.ReportsOnly {
		failures -= b.unclassified // they cannot open it
	}
	if parkShare*failures > b.answers {
		return parkWait
	}
	return 0
}

// collect sets the refunds to the failures since the last sign of life and the failures of the last
// ten seconds.
func (b *Breaker) collect(now int64) {
	b.refundsN = 0
	for i := b.first(); i < b.ringN; i++ {
		f := b.ring[i%failuresKept]
		if i >= b.upMark || now-f.at <= shareSeconds*second {
			b.refunds[b.refundsN] = f.Failure
			b.refundsN++
		}
	}
	b.counts.Refunds += uint64(b.refundsN)
}

// Refunds returns the failures whose attempts must be returned, after a call that opened the
// breaker. The slice is valid until the next call.
func (b *Breaker) Refunds() []Failure { return b.refunds[:b.refundsN] }
