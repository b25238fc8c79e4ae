package client

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"io"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/fullname"
)

// maxResponse limits the bytes of an answer.
const maxResponse = 256 << 20

// request is one request to the server.
type request struct {
	method, path string
	contentType  string // content type of body; "": JSON
	body         []byte
	publisher    string // publisher of all messages in body, numbered from sequence; "": each message has its own
	sequence     uint64
	repeat       bool          // may be sent again if the outcome is unknown
	wait         time.Duration // wait on the server that is added to the timeout
	once         bool          // never repeat: the caller repeats
	status       *int          // if not nil, gets the status of a success
	unsure       *bool         // if not nil, becomes true when an unanswered request may have been done
}

// queuePath returns the path of a queue, with below appended.
func queuePath(full, below string) string {
	vhost, queue := fullname.Split(full)
	p := "/v1"
	if vhost != fullname.DefaultVhost {
		p += "/vhosts/" + segment(vhost)
	}
	return p + "/queues/" + segment(queue) + below
}

// segment escapes a name for a path. "." and ".." are escaped too, because they have a meaning in
// paths.
func segment(s string) string {
	switch s {
	case ".":
		return "%2E"
	case "..":
		return "%2E%2E"
	}
	return url.PathEscape(s)
}

// refusal is a problem object from the server (RFC 9457).
type refusal struct {
	Code       surgetank.Code `json:"code"`
	Detail     string         `json:"detail"`
	Field      string         `json:"field"`
	Limit      string         `json:"limit"`
	Line       int            `json:"line"`
	RetryAfter string         `json:"retry_after"`
	IDs        []string       `json:"ids"`
	Errors     []struct {
		First, Last int
		Code        surgetank.Code
		Detail      string
		Field       string
		Limit       string
	} `json:"errors"`
}

func (r *refusal) Error() string { return r.Detail }

// err returns the refusal as a *surgetank.Error with the server's code.
func (r *refusal) err() error {
	d, _ := time.ParseDuration(r.RetryAfter) // "" is none
	code := r.Code
	if code == surgetank.CodeClosed { // the server is stopping, but this client is open
		code = surgetank.CodeUnavailable
	}
	return &surgetank.Error{Code: code, Message: r.Detail, Field: r.Field, Limit: r.Limit, RetryAfter: d}
}

// plain turns a *refusal into the error that the caller gets.
func plain(err error) error {
	var r *refusal
	if errors.As(err, &r) {
		return r.err()
	}
	return err
}

// call sends a request, repeats it if that is safe, and decodes the answer into out, if not nil.
// The error is a *refusal or a *surgetank.Error. ask returns only the second kind.
func (c *Client) call(ctx context.Context, q request, out any) error {
	var deadline time.Time
	for pause := 20 * time.Millisecond; ; pause = min(2*pause, 2*time.Second) {
		answer, sent, err := c.once(ctx, q)
		if err == nil {
			if out == nil {
				return nil
			}
			if err := json.Unmarshal(answer, out); err != nil {
				return surgetank.Errorf(surgetank.CodeInternal, "the server's answer to %s %s could not be understood: %w; is it a Surgetank server of this version?", q.method, q.path, err)
			}
			return nil
		}
		wait := pause/2 + mathrand.N(pause/2) // random, so that clients do not all repeat at the same moment
		var r *refusal
		again := false
		if q.unsure != nil && sent && mayBeDone(err) {
			*q.unsure = true
		}
		switch {
		case q.once || ctx.Err() != nil || c.ctx.Err() != nil:
		case errors.As(err, &r):
			// Refused as a whole: nothing was done.
			again = len(r.Errors) == 0 && (r.Code == surgetank.CodeBusy || r.Code == surgetank.CodeUncertain && q.repeat)
			if d, err := time.ParseDuration(r.RetryAfter); err == nil {
				wait = max(wait, d)
			}
		default:
			// A *surgetank.Error is an answer that could not be understood. Only a gateway's answer
			// can change on a repeat.
			var e *surgetank.Error
			again = !sent || q.repeat && (!errors.As(err, &e) || e.Code == surgetank.CodeUncertain)
		}
		if deadline.IsZero() {
			deadline = time.Now().Add(c.opts.RetryFor)
		}
		if !again || time.Now().Add(wait).After(deadline) {
			return c.lost(ctx, q, sent, err)
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return c.lost(ctx, q, sent, err)
		case <-c.ctx.Done():
			return c.lost(ctx, q, sent, err)
		}
	}
}

// mayBeDone reports whether a sent request may have been done although it failed.
func mayBeDone(err error) bool {
	var r *refusal
	return !errors.As(err, &r) || len(r.Errors) == 0 && r.Code == surgetank.CodeUncertain
}

// lost returns the error for a request that got no answer.
func (c *Client) lost(ctx context.Context, q request, sent bool, err error) error {
	var r *refusal
	var e *surgetank.Error
	switch {
	case errors.As(err, &r), errors.As(err, &e):
		return err
	case !sent:
		return surgetank.Errorf(surgetank.CodeUnavailable, "the server at %s cannot be reached: %w; check that it runs", c.base, err)
	case q.method == http.MethodGet:
		return surgetank.Errorf(surgetank.CodeUnavailable, "the server at %s did not answer: %w; try again", c.base, err)
	}
	return surgetank.Errorf(surgetank.CodeUncertain, "the server at %s did not answer, so it is not known whether the request was carried out: %w", c.base, err)
}

// once sends a request one time. sent reports whether the server may have received it.
func (c *Client) once(ctx context.Context, q request) (answer []byte, sent bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, c.opts.Timeout+q.wait)
	defer cancel()
	stop := context.AfterFunc(c.ctx, cancel)
	defer stop()
	req, err := http.NewRequestWithContext(ctx, q.method, c.base+q.path, bytes.NewReader(q.body))
	if err != nil {
		return nil, false, surgetank.Errorf(surgetank.CodeInvalid, "the request could not be made: %w", err)
	}
	if len(q.body) > 0 {
		if q.contentType == "" {
			q.contentType = "application/json"
		}
		req.Header.Set("Content-Type", q.contentType)
	}
	req.Header.Set("User-Agent", "surgetank-client")
	if q.publisher != "" {
		req.Header.Set("Surgetank-Publisher", q.publisher)
		req.Header.Set("Surgetank-Sequence", strconv.FormatUint(q.sequence, 10))
	}
	if c.opts.User != "" || c.opts.Password != "" { // a token has no user
		req.SetBasicAuth(c.opts.User, c.opts.Password)
	}
	res, err := c.http.Do(req)
	if err != nil {
		var op *net.OpError
		return nil, !(errors.As(err, &op) && op.Op == "dial"), err
	}
	defer res.Body.Close()
	answer, err = readAll(res)
	if err != nil {
		return nil, true, err
	}
	if res.StatusCode/100 == 2 {
		if q.status != nil {
			*q.status = res.StatusCode
		}
		return answer, true, nil
	}
	r := new(refusal)
	if json.Unmarshal(answer, r) != nil || r.Code == "" {
		// Not an answer of Surgetank's handlers, but a proxy's page or net/http's refusal of a
		// malformed request.
		code := surgetank.CodeInternal
		if res.StatusCode == http.StatusBadGateway || res.StatusCode == http.StatusServiceUnavailable || res.StatusCode == http.StatusGatewayTimeout {
			code = surgetank.CodeUncertain
		}
		return nil, true, surgetank.Errorf(code, "the server at %s answered %s without saying why; is it a Surgetank server?", c.base, res.Status)
	}
	return nil, true, r
}

func readAll(res *http.Response) ([]byte, error) {
	var b bytes.Buffer
	if n := res.ContentLength; n > 0 {
		b.Grow(int(min(n, 1<<20)) + bytes.MinRead)
	}
	n, err := b.ReadFrom(io.LimitReader(res.Body, maxResponse+1))
	if err == nil && n > maxResponse {
		err = errors.New("the answer is too long")
	}
	return b.Bytes(), err
}

// ask is call with a check that the client is open. Its errors go to the caller unchanged.
func (c *Client) ask(ctx context.Context, q request, out any) error {
	if err := c.alive(); err != nil {
		return err
	}
	if ctx == nil {
		return noContext()
	}
	return plain(c.call(ctx, q, out))
}

// newName returns a random, unique name.
func newName() string { return rand.Text() }

func itoa(n int) string { return strconv.Itoa(n) }
