package queue

import (
	"time"

	"github.com/surgetank/surgetank"
)

// limitKind is one kind of limit that refuses a message or a consumer of a queue.
type limitKind uint8

const (
	limitDisk limitKind = iota
	limitMessages
	limitBytes
	limitDeadLetters
	limitAcceptRate
	limitConsumers
	limitKinds
)

// limitNames are the values of surgetank.Error.Limit.
var limitNames = [limitKinds]string{surgetank.LimitDisk, surgetank.LimitMaxMessages, surgetank.LimitMaxBytes, surgetank.LimitDeadLetters,
	surgetank.LimitAcceptRate, surgetank.LimitMaxConsumers}

// refusals counts what one limit of one queue refused.
type refusals struct {
	n    uint64
	last int64 // time of the newest refusal
}

// refuse counts a refusal and returns its error.
func (q *Queue) refuse(by limitKind, code surgetank.Code, retry time.Duration, format string, args ...any) error {
	r := &q.refusedBy[by]
	r.n, r.last = r.n+1, q.m.now
	e := surgetank.Errorf(code, format, args...)
	e.RetryAfter, e.Limit = retry, limitNames[by]
	return e
}

// refusals returns the counts of the limits that refused something.
func (q *Queue) refusals() (all []surgetank.Refusal) {
	for by := range q.refusedBy {
		if r := &q.refusedBy[by]; r.n > 0 {
			all = append(all, surgetank.Refusal{Limit: limitNames[by], Count: r.n, Last: time.Unix(0, r.last).UTC()})
		}
	}
	return all
}

// acceptRate refuses messages above accept.rate. n counts the messages that the caller wants to
// store together. If n is more than accept.burst, they are always refused.
func (q *Queue) acceptRate(n int64) error {
	a := &q.config.Accept
	if a.Rate <= 0 {
		return nil
	}
	if n > int64(max(1, a.Burst)) {
		return q.refuse(limitAcceptRate, surgetank.CodeTooLarge, 0,
			"a transaction has %d messages for queue %q, and its accept.burst allows %d at once; commit fewer together, or raise accept.burst", n, shown(q.name), max(1, a.Burst))
	}
	due := rateDue(q.acceptAt, a.Rate, a.Burst) + (n-1)*interval(a.Rate)
	if due <= q.m.now {
		return nil
	}
	return q.refuse(limitAcceptRate, surgetank.CodeBusy, time.Duration(due-q.m.now),
		"queue %q accepts %v messages a second (accept.rate), and more were sent; publish again after %v", shown(q.name), float64(a.Rate), time.Duration(due-q.m.now).Round(time.Millisecond))
}
