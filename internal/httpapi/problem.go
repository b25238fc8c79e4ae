package httpapi

import (
	"encoding/json"
	"errors"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/surgetank/surgetank"
)

// statuses is the only map from error codes to HTTP statuses. CodeFull means a queue at its limit
// or a full disk. Both conditions pass when consumers catch up, so the status is 429, after which
// clients retry.
var statuses = map[surgetank.Code]int{
	surgetank.CodeInvalid:     http.StatusBadRequest,
	surgetank.CodeNotFound:    http.StatusNotFound,
	surgetank.CodeExists:      http.StatusConflict,
	surgetank.CodeLeaseLost:   http.StatusGone,
	surgetank.CodeTooLarge:    http.StatusRequestEntityTooLarge,
	surgetank.CodeBusy:        http.StatusTooManyRequests,
	surgetank.CodeFull:        http.StatusTooManyRequests,
	surgetank.CodeDenied:      http.StatusForbidden,
	surgetank.CodeClosed:      http.StatusServiceUnavailable,
	surgetank.CodeUnavailable: http.StatusServiceUnavailable,
	surgetank.CodeUncertain:   http.StatusGatewayTimeout,
	surgetank.CodeCorrupt:     http.StatusInternalServerError,
	surgetank.CodeInternal:    http.StatusInternalServerError,
}

// defaultRetryAfter is for errors without a RetryAfter of their own.
const defaultRetryAfter = time.Second

// problem is an error in the form of RFC 9457. Code, Field and RetryAfter come from
// surgetank.Error. Type is always about:blank, so Title is the name of the status.
type problem struct {
	Type       string         `json:"type" enum:"about:blank"`
	Title      string         `json:"title"`
	Status     int            `json:"status"`
	Detail     string         `json:"detail" doc:"What happened, to what, and what to do."`
	Code       surgetank.Code `json:"code" doc:"Stable; programs may switch on it."`
	Field      string         `json:"field,omitempty" doc:"The wrong member, parameter or header."`
	Limit      string         `json:"limit,omitempty" doc:"The limit that refused the request."`
	Line       int            `json:"line,omitempty" min:"1" doc:"The number of the wrong line of an NDJSON body. Nothing of that body was published."`
	RetryAfter string         `json:"retry_after,omitempty" doc:"When to try again, as a Go duration; the header Retry-After has it in whole seconds."`
	*partial
}

// partial describes the result for each message of a publish that was stored only in part.
type partial struct {
	Published  int            `json:"published"`
	Duplicates int            `json:"duplicates"`
	IDs        []*string      `json:"ids" doc:"After a publish that was partly refused: one id for each message, null if the message was not stored."`
	Errors     []messageError `json:"errors" doc:"After a publish that was partly refused: the messages from first to last, counted from 0, were refused for this reason."`
}

// messageError is one error for several consecutive messages. First and Last are positions in the
// request, from 0.
type messageError struct {
	First  int            `json:"first"`
	Last   int            `json:"last"`
	Code   surgetank.Code `json:"code"`
	Detail string         `json:"detail"`
	Field  string         `json:"field,omitempty"`
	Limit  string         `json:"limit,omitempty"`
}

// statusError sets an HTTP status that differs from the default for its error code.
type statusError struct {
	status int
	err    error
}

func (e *statusError) Error() string { return e.err.Error() }
func (e *statusError) Unwrap() error { return e.err }

func withStatus(status int, err error) error { return &statusError{status, err} }

// lineError is an error in one line of the body.
type lineError struct {
	line int
	err  error
}

func (e *lineError) Error() string { return e.err.Error() }
func (e *lineError) Unwrap() error { return e.err }

// problemOf describes an error for a client. An error that is not a *surgetank.Error is a defect;
// its text goes to the log, not to the client.
func problemOf(err error) *problem {
	p := &problem{Type: "about:blank", Code: surgetank.CodeInternal,
		Detail: "an internal error happened; the server's log has the details"}
	var (
		e *surgetank.Error
		s *statusError
		l *lineError
	)
	if errors.As(err, &e) {
		p.Code, p.Detail, p.Field, p.Limit = e.Code, e.Message, e.Field, e.Limit
		if e.RetryAfter > 0 {
			p.RetryAfter = e.RetryAfter.String()
		}
	}
	if p.Status = statuses[p.Code]; p.Status == 0 {
		p.Status = http.StatusInternalServerError
	}
	if errors.As(err, &s) {
		p.Status = s.status
	}
	if errors.As(err, &l) {
		p.Line = l.line
	}
	p.Title = http.StatusText(p.Status)
	if retryable(p.Code) && p.RetryAfter == "" {
		p.RetryAfter = defaultRetryAfter.String()
	}
	return p
}

func retryable(c surgetank.Code) bool {
	return c == surgetank.CodeBusy || c == surgetank.CodeFull || c == surgetank.CodeUnavailable || c == surgetank.CodeClosed
}

// write sends the problem.
func (p *problem) write(w http.ResponseWriter) {
	b, err := json.Marshal(p)
	if err != nil { // all fields are strings and numbers
		b = []byte(`{"type":"about:blank","status":500,"code":"internal"}`)
	}
	h := w.Header()
	if d, err := time.ParseDuration(p.RetryAfter); err == nil {
		h.Set("Retry-After", strconv.Itoa(max(1, int(math.Ceil(d.Seconds())))))
	}
	if p.Status == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", `Basic realm="Surgetank", charset="UTF-8"`)
	}
	h.Set("Content-Type", "application/problem+json")
	send(w, p.Status, append(b, '\n'))
}
