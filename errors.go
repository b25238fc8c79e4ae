package surgetank

import (
	"errors"
	"fmt"
	"time"
)

// Code is the kind of an error. It tells the caller what to do. The set is small and stable, so
// programs may switch on it.
type Code string

const (
	// CodeInvalid: the request is wrong. Do not repeat it unchanged. Field names the wrong part.
	CodeInvalid Code = "invalid"
	// CodeNotFound: the queue, sink, user or message does not exist. Create it, or correct the
	// name.
	CodeNotFound Code = "not_found"
	// CodeExists: the queue or other object exists with other settings, or is in use. Read its
	// settings before you decide.
	CodeExists Code = "exists"
	// CodeLeaseLost: the lease of this receipt has ended, by its deadline, a nack or a restart.
	// Another consumer gets the message. Undo the work under the lease if you can.
	CodeLeaseLost Code = "lease_lost"
	// CodeTooLarge: a message, batch, name or header is above its limit. Send less at once.
	CodeTooLarge Code = "too_large"
	// CodeBusy: too many calls are in progress. Try again after RetryAfter.
	CodeBusy Code = "busy"
	// CodeFull: a queue is at its limit or the disk is full. Publishing works again after messages
	// are consumed or space is freed. Acks work all the time.
	CodeFull Code = "full"
	// CodeDenied: the user does not have the right to do this.
	CodeDenied Code = "denied"
	// CodeClosed: the broker, client or subscription was closed, or has failed for good. Make a new
	// one.
	CodeClosed Code = "closed"
	// CodeUnavailable: the server cannot be reached, is starting or is stopping, or its log has failed
	// and is being opened again. Nothing was done. Try again. An embedded broker returns it only while
	// it opens its log again.
	CodeUnavailable Code = "unavailable"
	// CodeUncertain: it is not known whether the request was stored. Repeat it with the same
	// publisher and sequence or the same dedup id. Otherwise accept a possible duplicate.
	CodeUncertain Code = "uncertain"
	// CodeCorrupt: stored bytes have changed. Stop the broker, and run verify on the data
	// directory.
	CodeCorrupt Code = "corrupt"
	// CodeInternal: Surgetank has a defect, or a component failed. Report it. Confirmed messages
	// are safe.
	CodeInternal Code = "internal"
)

// Passing reports whether the same request can succeed later without a change. It returns true for
// CodeBusy, CodeFull, CodeUnavailable and CodeUncertain. All other codes are final.
//
// After CodeUncertain, a repeated request can take effect twice. A repeated publish is safe if each
// message has its publisher and number, or a dedup id.
func (c Code) Passing() bool {
	switch c {
	case CodeBusy, CodeFull, CodeUnavailable, CodeUncertain:
		return true
	}
	return false
}

// Passing reports whether an error's code is passing. An error that is not an *Error is final, and
// so is the error of an ended context.
func Passing(err error) bool { return CodeOf(err).Passing() }

// Error is the error type of the Broker interface. Message is a full sentence for people: what
// happened, to what, and what to do.
type Error struct {
	Code       Code
	Message    string
	Field      string        // the wrong setting, header or line, if the error is about one
	Limit      string        // the limit that refused the request, such as LimitMaxMessages; "" if no limit did
	RetryAfter time.Duration // with CodeBusy and CodeFull: the wait before the next try; 0 if unknown
	Err        error         // the cause, for errors.Is and logs
}

// Values of Error.Limit. The set can grow. The Message names the queue or user of the limit.
const (
	LimitDisk         = "disk"                // the disk has no room for messages
	LimitMaxMessages  = "queue.max_messages"  // the queue has too many waiting messages
	LimitMaxBytes     = "queue.max_bytes"     // the bodies of the queue's waiting messages have too many bytes
	LimitDeadLetters  = "queue.dead_letter"   // a queue must dead-letter its oldest message, and the dead-letter queue is full
	LimitAcceptRate   = "queue.accept.rate"   // publishers exceed the queue's rate
	LimitMaxConsumers = "queue.max_consumers" // the queue has too many consumers
	LimitMailbox      = "broker.mailbox"      // too many calls wait for the broker
	LimitQueues       = "broker.max_queues"   // the broker has too many queues

	LimitVhostQueues      = "vhost.max_queues"      // the virtual host has too many queues
	LimitVhostConnections = "vhost.max_connections" // the virtual host has too many connections
	LimitUserConnections  = "user.max_connections"  // the user has too many connections
	LimitUserChannels     = "user.max_channels"     // the user has too many channels
	LimitUserConsumers    = "user.max_consumers"    // the user has too many consumers
)

// Error returns the message. The message contains the cause's text where that helps.
func (e *Error) Error() string { return e.Message }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Is matches errors by code, so that errors.Is(err, ErrNotFound) tests for CodeNotFound.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Message == "" && t.Code == e.Code
}

// Arguments for errors.Is. Each value matches every error with its code.
var (
	ErrInvalid     = &Error{Code: CodeInvalid}
	ErrNotFound    = &Error{Code: CodeNotFound}
	ErrExists      = &Error{Code: CodeExists}
	ErrLeaseLost   = &Error{Code: CodeLeaseLost}
	ErrTooLarge    = &Error{Code: CodeTooLarge}
	ErrBusy        = &Error{Code: CodeBusy}
	ErrFull        = &Error{Code: CodeFull}
	ErrDenied      = &Error{Code: CodeDenied}
	ErrClosed      = &Error{Code: CodeClosed}
	ErrUnavailable = &Error{Code: CodeUnavailable}
	ErrUncertain   = &Error{Code: CodeUncertain}
	ErrCorrupt     = &Error{Code: CodeCorrupt}
	ErrInternal    = &Error{Code: CodeInternal}
)

// Errorf makes an Error. A %w argument becomes the cause, and its text becomes part of the message.
func Errorf(code Code, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	return &Error{Code: code, Message: err.Error(), Err: errors.Unwrap(err)}
}

// FieldErrorf makes a CodeInvalid error about one field.
func FieldErrorf(field, format string, args ...any) *Error {
	return &Error{Code: CodeInvalid, Field: field, Message: fmt.Sprintf(format, args...)}
}

// CodeOf returns the code of an error. It returns CodeInternal for an error that is not an *Error,
// and "" for nil.
func CodeOf(err error) Code {
	if err == nil {
		return ""
	}
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return CodeInternal
}
