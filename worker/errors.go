package worker

import (
	"errors"
	"fmt"
	"time"

	"github.com/surgetank/surgetank"
)

// Errors is a batch handler's answer message by message: nil where a message is done. Messages
// beyond its end are done.
type Errors []error

// Error counts the errors and gives the first.
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

// Unwrap gives the errors that are there.
func (e Errors) Unwrap() []error {
	var list []error
	for _, err := range e {
		if err != nil {
			list = append(list, err)
		}
	}
	return list
}

// verdictError carries what is to become of a message.
type verdictError struct {
	settlement surgetank.Settlement
	err        error
}

func (e *verdictError) Error() string { return e.err.Error() }
func (e *verdictError) Unwrap() error { return e.err }

// orElse makes sure there is an error to wrap.
func orElse(err error, words string) error {
	if err == nil {
		return errors.New(words)
	}
	return err
}

// RetryAfter makes err ask that the message be tried again after d (0: at once), not after the
// queue's back-off. The attempt counts.
func RetryAfter(d time.Duration, err error) error {
	return &verdictError{surgetank.Settlement{Op: surgetank.Nack, Delay: max(0, d)}, orElse(err, "the handler asked for a retry")}
}

// Release makes err ask that the message be tried again after d without counting the attempt: what
// the handler needs is away, the message is not at fault.
func Release(d time.Duration, err error) error {
	return &verdictError{surgetank.Settlement{Op: surgetank.Nack, Delay: max(0, d), Uncounted: true}, orElse(err, "the handler gave the message back")}
}

// Reject makes err send the message to the queue's dead-letter queue: it will never succeed.
func Reject(err error) error {
	return &verdictError{surgetank.Settlement{Op: surgetank.Reject}, orElse(err, "the handler rejected the message")}
}

// verdict is the settlement, without a receipt, that a handler's error asks for.
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
