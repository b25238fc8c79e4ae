package jetlog

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/nats-io/nats.go"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/jetlog/fenced"
)

// Error codes of JetStream.
const (
	codeNoMessage = 10037
	codeNoStream  = 10059
	codeWrongLast = 10071
)

// apiError is an error in an answer of JetStream.
type apiError struct {
	Code        int    `json:"code"`
	ErrCode     int    `json:"err_code"`
	Description string `json:"description"`
}

// Error returns the server's text.
func (e *apiError) Error() string {
	return fmt.Sprintf("NATS answered %q (%d)", e.Description, e.ErrCode)
}

// asStream converts an error of JetStream into one of fenced.Stream.
func (e *apiError) asStream() error {
	switch {
	case e.ErrCode == codeWrongLast:
		return fenced.ErrMoved
	case e.ErrCode == codeNoMessage:
		return fenced.ErrMissing
	case strings.Contains(e.Description, "maximum bytes exceeded"):
		return &fenced.FinalError{Err: surgetank.Errorf(surgetank.CodeFull, "the stream of the log has its max_bytes; raise the limit, or settle messages so that the log can be trimmed: %w", e)}
	}
	return e
}

// appended is the answer to an append.
type appended struct {
	Stream string    `json:"stream"`
	Seq    uint64    `json:"seq"`
	Error  *apiError `json:"error"`
}

// readAppended reads the answer to an append.
func readAppended(m *nats.Msg) (uint64, error) {
	if err := statusError(m); err != nil {
		return 0, err
	}
	var a appended
	if err := json.Unmarshal(m.Data, &a); err != nil {
		return 0, fmt.Errorf("the answer to an append cannot be understood: %w", err)
	}
	if a.Error != nil {
		return 0, a.Error.asStream()
	}
	if a.Seq == 0 {
		return 0, errors.New("the answer to an append has no position")
	}
	return a.Seq, nil
}

// ask sends a request to JetStream's API and decodes the answer into v.
func (s *Stream) ask(ctx context.Context, subject string, request, v any) error {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	b, err := json.Marshal(request)
	if err != nil {
		return err
	}
	m, err := s.nc.RequestWithContext(ctx, "$JS.API."+subject, b)
	if err != nil {
		return err
	}
	if err := statusError(m); err != nil {
		return err
	}
	return json.Unmarshal(m.Data, v)
}
