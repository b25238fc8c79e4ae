package sink

import (
	"time"

	"github.com/surgetank/surgetank/internal/adapt"
)

// size returns the number of messages of the lane's next batch.
func (l *lane) size() int { return min(l.limit.size(), l.s.r.governor.size()) }

// enter waits for a turn. It returns false when the session has ended or the lane is closed.
func (l *lane) enter() bool {
	for {
		l.mu.Lock()
		closed := l.closed
		l.mu.Unlock()
		if closed {
			return false
		}
		ok, after := l.s.r.governor.try(l)
		if ok {
			return true
		}
		if !l.await(after) {
			return false
		}
	}
}

// leave ends the lane's turn. o and err are the result of the batch.
func (l *lane) leave(o *outcome, err error) {
	a := adapt.Answer{Latency: int64(l.took), Rows: l.rows}
	a.Outcome, a.RetryAfter = l.judged(o, err)
	l.took, l.rows, l.split, l.timedOut = 0, 0, false, false
	l.s.r.governor.leave(l, a)
}

// judged returns what the result of a batch says about the target:
//
//	written whole               its latency counts
//	with bad rows               its time includes the search for them, so it says nothing
//	too large, timed out        the batches get smaller
//	the target asks for less    the limit is halved
//	Down, or another Retry      an answer is missing; many of them halve the limit
//	other errors                nothing
func (l *lane) judged(o *outcome, err error) (adapt.Outcome, int64) {
	if err == nil {
		switch {
		case o.again:
			return adapt.TooLarge, 0
		case l.split || len(o.failed) > 0 || len(o.unseen) > 0 || l.rows == 0:
			return adapt.BadBatch, 0
		}
		return adapt.Success, 0
	}
	switch e := asError(err); {
	case l.timedOut:
		return adapt.Timeout, 0
	case e.Busy || e.RetryAfter > 0:
		return adapt.Throttle, int64(e.RetryAfter)
	case e.Class == Down || e.Class == Retry:
		return adapt.Down, 0
	}
	return adapt.Returned, 0
}

// timed calls write and measures its time, as the latency of a batch of this many rows.
func (l *lane) timed(rows int, write func() error) error {
	start := l.s.r.opts.clock.Now()
	err := write()
	l.took, l.rows = max(time.Nanosecond, l.s.r.opts.clock.Now().Sub(start)), rows
	return err
}

// holdOff makes the lane try nothing for a while, because the target asked for a pause.
func (l *lane) holdOff(d time.Duration) {
	l.paceAt = l.s.r.opts.clock.Now().Add(min(d, adapt.RetryAfterMax))
	l.back.nextAt = l.paceAt
}
