package wire

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Code is a reply code (specification 1.2; RabbitMQ's use of them).
type Code uint16

// Reply codes.
const (
	ReplySuccess           Code = 200
	CodeContentTooLarge    Code = 311
	CodeNoRoute            Code = 312
	CodeNoConsumers        Code = 313
	CodeConnectionForced   Code = 320
	CodeInvalidPath        Code = 402
	CodeAccessRefused      Code = 403
	CodeNotFound           Code = 404
	CodeResourceLocked     Code = 405
	CodePreconditionFailed Code = 406
	CodeFrameError         Code = 501
	CodeSyntaxError        Code = 502
	CodeCommandInvalid     Code = 503
	CodeChannelError       Code = 504
	CodeUnexpectedFrame    Code = 505
	CodeResourceError      Code = 506
	CodeNotAllowed         Code = 530
	CodeNotImplemented     Code = 540
	CodeInternalError      Code = 541
)

var codeNames = map[Code]string{
	CodeContentTooLarge: "CONTENT_TOO_LARGE", CodeNoRoute: "NO_ROUTE", CodeNoConsumers: "NO_CONSUMERS",
	CodeConnectionForced: "CONNECTION_FORCED", CodeInvalidPath: "INVALID_PATH", CodeAccessRefused: "ACCESS_REFUSED",
	CodeNotFound: "NOT_FOUND", CodeResourceLocked: "RESOURCE_LOCKED", CodePreconditionFailed: "PRECONDITION_FAILED",
	CodeFrameError: "FRAME_ERROR", CodeSyntaxError: "SYNTAX_ERROR", CodeCommandInvalid: "COMMAND_INVALID",
	CodeChannelError: "CHANNEL_ERROR", CodeUnexpectedFrame: "UNEXPECTED_FRAME", CodeResourceError: "RESOURCE_ERROR",
	CodeNotAllowed: "NOT_ALLOWED", CodeNotImplemented: "NOT_IMPLEMENTED", CodeInternalError: "INTERNAL_ERROR",
}

// String returns the name that begins a reply text.
func (c Code) String() string {
	if s, ok := codeNames[c]; ok {
		return s
	}
	return "CODE_" + strconv.Itoa(int(c))
}

// Connection reports whether an error with this code ends the connection. Other codes end a
// channel.
func (c Code) Connection() bool {
	switch c {
	case CodeContentTooLarge, CodeNoRoute, CodeNoConsumers, CodeAccessRefused, CodeNotFound, CodeResourceLocked,
		CodePreconditionFailed:
		return false
	}
	return true
}

// Error is the content of a close method: the code, and a text of the form "NAME - explanation".
type Error struct {
	Code Code
	Text string
}

func (e *Error) Error() string { return e.Text }

// Errorf makes an error. Its text begins with the code's name and is cut to the length of a reply
// text.
func Errorf(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Text: Clip(code.String() + " - " + fmt.Sprintf(format, args...))}
}

// Clip cuts a text to the 255 bytes of a short string. It ends a cut text with an ellipsis, and
// never cuts inside a character. A text may quote bytes of a client that are not UTF-8. They become
// the replacement character, because a short string must be UTF-8.
func Clip(s string) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	if len(s) <= 255 {
		return s
	}
	n := 252
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + "..."
}
