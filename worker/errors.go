package worker

import (
	"errors"
	"fmt"
	"time"

	"github.com/surgetank/surgetank"
)

// Errors is a batch handler's result for each message: nil for a handled message. If the list is
// shorter than the batch, the remaining messages are handled, too.
type Errors []error

// Error returns the number of errors and the first one.
func (e Errors) Error() string {
	n, first := 0, error(nil)
	for _, err := range e {
		if err != nil {
			if n++; first == nil {
				first = err
			}
		}
	}
	if first == nil {
		return "no message failed"
	}
	return fmt.Sprintf("%d of %d messages failed, the first: %v", n, len(e), first)
}

// Unwrap returns the errors that are not nil.
func (e Errors) Unwrap() []error {
	var list []error
	for _, err := range e {
		if err != nil {
			list = append(list, err)
		}
	}
	return list
}

// verdictError is an error with the settlement that the handler asks for.
type verdictError struct {
	settlement surgetank.Settlement
	err        error
}

func (e *verdictError) Error() string { return e.err.Error() }
func (e *verdictError) Unwrap() error { return e.err }

// orElse returns err, or an error with these words if err is nil.
func orElse(err error, words string) error {
	if err == nil {
		return errors.New(words)
	}
	return err
}

// RetryAfter returns an error that makes the worker retry the message after d, instead of the
// queue's back-off. 0 means at once. The attempt counts.
func RetryAfter(d time.Duration, err error) error {
	return &verdictError{surgetank.Settlement{Op: surgetank.Nack, Delay: max(0, d)}, orElse(err, "the handler asked for a retry")}
}

// Return returns an error that makes the worker return the message to its queue. The message is
// delivered again after d, and the attempt does not count. Use Return if the message is good but a
// service that the handler needs is away.
func Return(d time.Duration, err error) error {
	return &verdictError{surgetank.Settlement{Op: surgetank.Nack, Delay: max(0, d), Uncounted: true}, orElse(err, "the handler returned the message")}
}

// TargetDown returns an error that reports that the target of the handler cannot be reached. Enough
// reports open the queue's breaker. While the breaker is open, the broker delivers only probes, and
// failures do not count as attempts. If the breaker stays closed, the message is tried again as
// after any other error.
func TargetDown(err error) error {
	return &verdictError{surgetank.Settlement{Op: surgetank.Nack, Delay: surgetank.RetryBackoff, Target: surgetank.TargetDown}, orElse(err, "the target is down")}
}

// TargetBusy returns an error that reports that the target asked for less load, as with HTTP status
// 429 or 503. The attempt does not count. after is the pause that the target asked for; 0: the
// target did not ask for one. A queue with an adaptive limit delivers nothing during the pause, and
// less afterwards.
func TargetBusy(after time.Duration, err error) error {
	s := surgetank.Settlement{Op: surgetank.Nack, Target: surgetank.TargetBusy, RetryAfter: max(0, after)}
	if after <= 0 {
		s.Delay = surgetank.RetryBackoff
	}
	return &verdictError{s, orElse(err, "the target is busy")}
}

// Reject returns an error that sends the message to the queue's dead-letter queue. Use Reject if no
// attempt can succeed.
func Reject(err error) error {
	return &verdictError{surgetank.Settlement{Op: surgetank.Reject}, orElse(err, "the handler rejected the message")}
}

// verdict returns the settlement for a handler's error, without a receipt.
func verdict(err error) surgetank.Settlement {
	if err == nil {
		return surgetank.Settlement{Op: surgetank.Ack}
	}
	s := surgetank.Settlement{Op: surgetank.Nack, Delay: surgetank.RetryBackoff}
	var v *verdictError
	if errors.As(err, &v) {
		s = v.settlement
	}
	s.Reason = err.Error()
	return s
}
