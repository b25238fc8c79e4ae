//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"
)

// web uses the HTTP API for one goroutine.
type web struct {
	p    *process
	http *http.Client
}

func newWeb(p *process) *web {
	t := &http.Transport{DialContext: (&net.Dialer{Timeout: 2 * time.Second}).DialContext, MaxIdleConnsPerHost: 1, DisableCompression: true}
	return &web{p: p, http: &http.Client{Transport: t, Timeout: 30 * time.Second}}
}

func (w *web) close() { w.http.CloseIdleConnections() }

// Results of a request.
var (
	errRefused = errors.New("refused")   // it was not carried out
	errLost    = errors.New("no answer") // it may have been carried out
)

// problem is the error object of the API.
type problem struct{ Code, Detail string }

// do sends a request and decodes the answer into v, if any.
func (w *web) do(ctx context.Context, method, path, contentType string, body []byte, v any) error {
	base, _ := w.p.urls()
	req, err := http.NewRequestWithContext(ctx, method, base+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	resp, err := w.http.Do(req)
	if err != nil {
		var op *net.OpError
		if errors.As(err, &op) && op.Op == "dial" {
			return errRefused
		}
		return errLost
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return errLost
	}
	if resp.StatusCode/100 != 2 {
		var p problem
		if json.Unmarshal(text, &p) != nil || p.Code == "" || p.Code == "uncertain" || p.Code == "internal" {
			return fmt.Errorf("%w: %s %.200s", errLost, resp.Status, text)
		}
		return fmt.Errorf("%w: %s: %.200s", errRefused, p.Code, p.Detail)
	}
	if v != nil && json.Unmarshal(text, v) != nil {
		return errLost
	}
	return nil
}

// outgoing is one message to publish; its body is made when it is sent.
type outgoing struct {
	s     *stream
	h     hold
	body  []byte
	group string
	dedup string
	delay time.Duration
	ttl   time.Duration
}

// publish sends messages as one request.
func (w *web) publish(ctx context.Context, queue string, msgs []outgoing) (duplicates int, err error) {
	var b bytes.Buffer
	for i := range msgs {
		m := &msgs[i]
		b.WriteString(`{"body":`)
		b.Write(m.body)
		for _, f := range [...]struct{ name, value string }{{"group", m.group}, {"dedup_id", m.dedup}, {"delay", text(m.delay)}, {"ttl", text(m.ttl)}} {
			if f.value != "" {
				b.WriteString(`,"` + f.name + `":` + strconv.Quote(f.value))
			}
		}
		b.WriteString("}\n")
	}
	var ok struct{ Duplicates int }
	err = w.do(ctx, http.MethodPost, "/v1/queues/"+queue+"/messages", "application/x-ndjson", b.Bytes(), &ok)
	return ok.Duplicates, err
}

func text(d time.Duration) string {
	if d == 0 {
		return ""
	}
	return d.String()
}

// incoming is a message in an answer of the API.
type incoming struct {
	Receipt string          `json:"receipt"`
	Body    json.RawMessage `json:"body"`
	h       hold
}

// receive leases messages.
func (w *web) receive(ctx context.Context, queue string, most int, wait, lease time.Duration) ([]incoming, error) {
	var got struct{ Messages []incoming }
	err := w.do(ctx, http.MethodPost, "/v1/queues/"+queue+"/receive", "application/json", fmt.Appendf(nil, `{"max":%d,"wait":%q,"lease":%q}`, most, wait, lease), &got)
	return got.Messages, err
}

// settle acks or nacks. members are the members of the request besides the receipts. It returns
// which ones succeeded.
func (w *web) settle(ctx context.Context, verb, queue string, ms []incoming, members string) ([]bool, error) {
	receipts := make([]string, len(ms))
	for i := range ms {
		receipts[i] = ms[i].Receipt
	}
	list, err := json.Marshal(receipts)
	if err != nil {
		return nil, err
	}
	var got struct{ Results []struct{ OK bool } }
	if err := w.do(ctx, http.MethodPost, "/v1/queues/"+queue+"/"+verb, "application/json", fmt.Appendf(nil, `{"receipts":%s%s}`, list, members), &got); err != nil {
		return nil, err
	}
	done := make([]bool, len(ms))
	for i := range min(len(done), len(got.Results)) {
		done[i] = got.Results[i].OK
	}
	return done, nil
}

// declare creates or changes a queue.
func (w *web) declare(ctx context.Context, queue, settings string) error {
	return w.do(ctx, http.MethodPut, "/v1/queues/"+queue, "application/json", []byte(settings), nil)
}

// remove deletes a queue; a missing one is no error.
func (w *web) remove(ctx context.Context, queue string) error {
	err := w.do(ctx, http.MethodDelete, "/v1/queues/"+queue, "", nil, nil)
	if err != nil && bytes.Contains([]byte(err.Error()), []byte("not_found")) {
		return nil
	}
	return err
}

// queueInfo is the API's description of a queue.
type queueInfo struct {
	Name                            string
	Ready, Blocked, Delayed, Leased int64
}

func (q *queueInfo) messages() int64 { return q.Ready + q.Blocked + q.Delayed + q.Leased }

// queues lists all queues of the default virtual host.
func (w *web) queues(ctx context.Context) ([]queueInfo, error) {
	var got struct{ Queues []queueInfo }
	err := w.do(ctx, http.MethodGet, "/v1/queues", "", nil, &got)
	return got.Queues, err
}
