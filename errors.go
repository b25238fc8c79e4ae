package surgetank

import (
	"errors"
	"fmt"
	"time"
)

// Code says what kind of error happened, and so what the caller should do. The set is small and
// stable: programs may switch on it, doors map it to their protocol's own codes in one table each.
type Code string

const (
	// CodeInvalid: the request itself is wrong. Do not repeat it unchanged; Field names the part at
	// fault.
	CodeInvalid Code = "invalid"
	// CodeNotFound: the queue, sink, user or message does not exist. Create it, or correct the
	// name.
	CodeNotFound Code = "not_found"
	// CodeExists: it exists already with other settings, or is in use. Read it, then decide.
	CodeExists Code = "exists"
	// CodeLeaseLost: the receipt's lease has ended (deadline, nack, restart). The message is or
	// will be somebody else's; drop what was done under the lease if that is possible.
	CodeLeaseLost Code = "lease_lost"
	// CodeTooLarge: a message, batch, name or header is above its limit. Send less at once.
	CodeTooLarge Code = "too_large"
	// CodeBusy: too much is in progress. Try again after RetryAfter.
	CodeBusy Code = "busy"
	// CodeFull: a queue's limit or the disk is reached. Publishing works again when messages were
	// consumed or space was made; acks keep working.
	CodeFull Code = "full"
	// CodeDenied: the user may not do this.
	CodeDenied Code = "denied"
	// CodeClosed: the broker, client or subscription was closed and stays so. Make a new one.
	CodeClosed Code = "closed"
	// CodeUnavailable: the server cannot be reached, or is starting or stopping. Nothing was done.
	// Try again. Only brokers that are elsewhere return it.
	CodeUnavailable Code = "unavailable"
	// CodeUncertain: the outcome is unknown: the request may or may not have been stored. Repeat it
	// with the same publisher and sequence, or the same dedup id, or accept a duplicate.
	CodeUncertain Code = "uncertain"
	// CodeCorrupt: stored bytes are not what was written. Stop, and run verify on the data
	// directory.
	CodeCorrupt Code = "corrupt"
	// CodeInternal: a defect of Surgetank or a failed component. Report it; what was confirmed is
	// safe.
	CodeInternal Code = "internal"
)

// Passing tells whether the same request can succeed later without anybody changing it. Passing are
// CodeBusy, CodeFull, CodeUnavailable and CodeUncertain. Repeating after CodeUncertain can do a
// thing twice: publishing, unless each message has its publisher and number again, or a dedup id.
// All other codes are final.
func (c Code) Passing() bool {
	switch c {
	case CodeBusy, CodeFull, CodeUnavailable, CodeUncertain:
		return true
	}
	return false
}

// Passing tells whether an error's code is passing. An error that is not an *Error is final, and so
// is the end of a context.
func Passing(err error) bool { return CodeOf(err).Passing() }

// Error is the one error type that crosses the Broker interface. Message is a full sentence for
// people: what happened, to what, and what to do about it.
type Error struct {
	Code       Code
	Message    string
	Field      string        // the setting, header or line at fault, if one is
	RetryAfter time.Duration // with CodeBusy and CodeFull: when to try again; 0 if unknown
	Err        error         // the cause, for errors.Is and logs
}

// Error gives the message; it includes the words of the cause where they help.
func (e *Error) Error() string { return e.Message }

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// Is makes two errors of one code equal, so that errors.Is(err, ErrNotFound) asks for the code.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Message == "" && t.Code == e.Code
}

// Targets for errors.Is; each stands for every error of its code.
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

// Errorf makes an Error; a %w among the arguments becomes its cause, and its words part of the
// message.
func Errorf(code Code, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	return &Error{Code: code, Message: err.Error(), Err: errors.Unwrap(err)}
}

// FieldErrorf makes a CodeInvalid error about one named field.
func FieldErrorf(field, format string, args ...any) *Error {
	return &Error{Code: CodeInvalid, Field: field, Message: fmt.Sprintf(format, args...)}
}

// CodeOf gives the code of an error: CodeInternal for an error that is not a Surgetank error, ""
// for nil.
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
