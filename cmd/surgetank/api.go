package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/surgetank/surgetank"
)

// maxAnswer limits how much of an answer is read.
const maxAnswer = 64 << 20

// call sends one request to the HTTP interface that is not a call of the broker (sinks, users,
// virtual hosts). It decodes the answer into out, unless out is nil. segments are the parts of the
// path below /v1; call escapes each of them.
func (r remote) call(ctx context.Context, method string, in, out any, segments ...string) error {
	_, err := r.ask(ctx, method, "", in, out, segments...)
	return err
}

// ask is call with a query. It also returns the answer's status.
func (r remote) ask(ctx context.Context, method, query string, in, out any, segments ...string) (status int, err error) {
	base, err := r.address()
	if err != nil {
		return 0, err
	}
	path := strings.TrimSuffix(base.EscapedPath(), "/") + "/v1"
	for _, s := range segments {
		path += "/" + url.PathEscape(s)
	}
	target := *base
	target.User, target.RawQuery, target.Fragment = nil, query, ""
	if target.Path, err = url.PathUnescape(path); err != nil {
		return 0, surgetank.FieldErrorf("server", "--server: the path of the URL is not escaped correctly")
	}
	target.RawPath = path

	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return 0, err
		}
		body = bytes.NewReader(b)
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, target.String(), body)
	if err != nil {
		return 0, err
	}
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if base.User != nil {
		password, _ := base.User.Password()
		req.SetBasicAuth(base.User.Username(), password)
	}
	transport, err := r.transport(base)
	if err != nil {
		return 0, err
	}
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err // without the URL, which may contain a password
		}
		return 0, surgetank.Errorf(surgetank.CodeUnavailable, "cannot reach the server at %s: %w; is it running? (surgetank serve)", target.Redacted(), err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return 0, surgetank.Errorf(surgetank.CodeUncertain, "the server's answer was cut off, so it is not known whether this was done: %w", err)
	}
	if resp.StatusCode >= 300 {
		return resp.StatusCode, problem(resp, answer)
	}
	if out == nil || len(answer) == 0 {
		return resp.StatusCode, nil
	}
	if err := json.Unmarshal(answer, out); err != nil {
		return 0, surgetank.Errorf(surgetank.CodeInternal, "the server's answer could not be read: %w", err)
	}
	return resp.StatusCode, nil
}

// problem converts an unsuccessful answer to an error.
func problem(resp *http.Response, body []byte) error {
	var p struct {
		Code   surgetank.Code `json:"code"`
		Title  string         `json:"title"`
		Detail string         `json:"detail"`
		Field  string         `json:"field"`
	}
	if json.Unmarshal(body, &p) != nil || p.Code == "" {
		return surgetank.Errorf(surgetank.CodeInternal, "the server answered %s, which is not an answer of Surgetank's; is the address right?", resp.Status)
	}
	text := p.Detail
	if text == "" {
		text = p.Title
	}
	if p.Field != "" && !strings.Contains(text, p.Field) {
		text = fmt.Sprintf("%s: %s", p.Field, text)
	}
	return &surgetank.Error{Code: p.Code, Message: text, Field: p.Field}
}
