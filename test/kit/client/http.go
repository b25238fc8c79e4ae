// Package client has the clients of campaigns. An HTTP call returns an Outcome, which tells whether
// the request was certainly carried out. An AMQP connection can be dropped as by a crash.
package client

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
	"strings"
	"time"
)

// HTTP uses the API of a server. Its methods are safe for use by many goroutines.
type HTTP struct {
	Timeout time.Duration // limit for each call, in addition to the wait that the call requests
	base    func() string // URL, asked before every call: a restart or a proxy can change it
	http    *http.Client
}

// NewHTTP makes a client with its own connections.
func NewHTTP(base func() string, timeout time.Duration) *HTTP {
	t := &http.Transport{DialContext: (&net.Dialer{Timeout: 2 * time.Second}).DialContext, MaxIdleConnsPerHost: 2, DisableCompression: true}
	return &HTTP{Timeout: timeout, base: base, http: &http.Client{Transport: t}}
}

// Close closes the connections. A later call opens others.
func (c *HTTP) Close() { c.http.CloseIdleConnections() }

// Outcome is what a client knows after a call.
type Outcome string

// The three outcomes.
const (
	Done    Outcome = "ok"   // the call was carried out
	Refused Outcome = "fail" // the call was not carried out
	Unknown Outcome = "info" // the call may have been carried out
)

// Errors of Answer.Err.
var (
	ErrRefused = errors.New("refused")
	ErrUnknown = errors.New("no certain answer")
)

// Answer is the result of a call. Code is the API's error code, or, without a code, a short reason.
type Answer struct {
	Outcome    Outcome
	Code       string
	Status     int // 0: no answer
	Body       []byte
	Call, Back time.Time
}

// Err returns nil for Done, and otherwise an error that wraps ErrRefused or ErrUnknown. If there
// was no answer, Err returns ErrRefused or ErrUnknown itself.
func (a *Answer) Err() error {
	err := ErrUnknown
	switch {
	case a.Outcome == Done:
		return nil
	case a.Outcome == Refused:
		err = ErrRefused
	}
	if a.Status == 0 {
		return err
	}
	return fmt.Errorf("%w: %d %s: %.300s", err, a.Status, a.Code, a.Body)
}

// uncertain are the codes after which the request may have been carried out. After every other code
// it was not.
var uncertain = map[string]bool{"uncertain": true, "internal": true, "corrupt": true, "": true}

// outcomeOf returns the outcome for an error code of the API.
func outcomeOf(code string) Outcome {
	if uncertain[code] {
		return Unknown
	}
	return Refused
}

// Do sends one request. wait is the time for which the request asks the server to wait. If no
// answer comes, the outcome is Unknown. Only after a failed dial is the outcome Refused, because
// the request was not sent.
func (c *HTTP) Do(ctx context.Context, method, path, contentType string, body []byte, wait time.Duration) Answer {
	ctx, cancel := context.WithTimeout(ctx, c.Timeout+wait)
	defer cancel()
	a := Answer{Outcome: Unknown, Code: "no answer", Call: time.Now()}
	req, err := http.NewRequestWithContext(ctx, method, c.base()+path, bytes.NewReader(body))
	if err != nil {
		a.Outcome, a.Code, a.Back = Refused, err.Error(), a.Call
		return a
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		a.Back = time.Now()
		var op *net.OpError
		if errors.As(err, &op) && op.Op == "dial" {
			a.Outcome, a.Code = Refused, "not sent"
		}
		return a
	}
	defer resp.Body.Close()
	a.Body, err = io.ReadAll(resp.Body)
	a.Back = time.Now()
	if err != nil {
		return a
	}
	if a.Status = resp.StatusCode; a.Status/100 == 2 {
		a.Outcome, a.Code = Done, ""
		return a
	}
	var p struct{ Code string }
	_ = json.Unmarshal(a.Body, &p) // an answer without a code is uncertain
	a.Outcome, a.Code = outcomeOf(p.Code), p.Code
	return a
}

// JSON sends a JSON object, or nothing, and decodes the answer into out, if out is not nil.
func (c *HTTP) JSON(ctx context.Context, method, path, body string, wait time.Duration, out any) Answer {
	contentType := "application/json"
	if body == "" {
		contentType = ""
	}
	a := c.Do(ctx, method, path, contentType, []byte(body), wait)
	if a.Outcome == Done && out != nil && json.Unmarshal(a.Body, out) != nil {
		a.unreadable()
	}
	return a
}

func (a *Answer) unreadable() { a.Outcome, a.Code = Unknown, "unreadable answer" }

// Message is a message to publish. Body is JSON; zero fields are not sent.
type Message struct {
	Body         []byte
	Group, Dedup string
	Delay, TTL   time.Duration
}

// Result is the outcome for one message of a call.
type Result struct {
	Outcome Outcome
	Code    string
	ID      string // the published message's id
	// Duplicate: the message may have been stored by an earlier call. The answer to several
	// messages tells only the number of duplicates.
	Duplicate bool
}

// each returns the same result for n messages.
func (a *Answer) each(n int) []Result {
	list := make([]Result, n)
	for i := range list {
		list[i] = Result{Outcome: a.Outcome, Code: a.Code}
	}
	return list
}

// Publish sends messages as one batch. It returns the outcome of each and the number of duplicates.
func (c *HTTP) Publish(ctx context.Context, queue string, msgs []Message) (results []Result, duplicates int, a Answer) {
	var b bytes.Buffer
	for i := range msgs {
		m := &msgs[i]
		b.WriteString(`{"body":`)
		b.Write(m.Body)
		for _, f := range [...]struct{ name, value string }{{"group", m.Group}, {"dedup_id", m.Dedup}, {"delay", span(m.Delay)}, {"ttl", span(m.TTL)}} {
			if f.value != "" {
				b.WriteString(`,"` + f.name + `":` + strconv.Quote(f.value))
			}
		}
		b.WriteString("}\n")
	}
	a = c.Do(ctx, http.MethodPost, "/v1/queues/"+queue+"/messages", "application/x-ndjson", b.Bytes(), 0)
	if a.Outcome == Done {
		var ok struct {
			Duplicates int
			IDs        []string
		}
		if json.Unmarshal(a.Body, &ok) != nil || len(ok.IDs) != len(msgs) {
			a.unreadable()
		}
		results = a.each(len(msgs))
		if a.Outcome == Done {
			for i, id := range ok.IDs {
				results[i].ID, results[i].Duplicate = id, ok.Duplicates > 0
			}
		}
		return results, ok.Duplicates, a
	}
	results = a.each(len(msgs))
	var p struct {
		IDs    []*string
		Errors []struct {
			First, Last int
			Code        string
		}
	}
	if a.Status == 0 || json.Unmarshal(a.Body, &p) != nil || len(p.IDs) != len(msgs) {
		return results, 0, a
	}
	for i, id := range p.IDs { // the server stored some of the messages
		if id != nil {
			results[i] = Result{Done, "", *id, true}
		}
	}
	for _, e := range p.Errors {
		for i := max(0, e.First); i <= e.Last && i < len(results); i++ {
			results[i].Outcome, results[i].Code = outcomeOf(e.Code), e.Code
		}
	}
	return results, 0, a
}

func span(d time.Duration) string {
	if d == 0 {
		return ""
	}
	return d.String()
}

// Delivery is a message in an answer of the API.
type Delivery struct {
	ID          string          `json:"id"`
	Receipt     string          `json:"receipt"`
	Attempt     int             `json:"attempt"`
	Redelivered bool            `json:"redelivered"`
	Deadline    time.Time       `json:"deadline"`
	Group       string          `json:"group"`
	Body        json.RawMessage `json:"body"`
}

// Receive leases messages.
func (c *HTTP) Receive(ctx context.Context, queue string, most int, wait, lease time.Duration) ([]Delivery, Answer) {
	var got struct{ Messages []Delivery }
	a := c.JSON(ctx, http.MethodPost, "/v1/queues/"+queue+"/receive", fmt.Sprintf(`{"max":%d,"wait":%q,"lease":%q}`, most, wait, lease), wait, &got)
	return got.Messages, a
}

// Settle acks, nacks or extends, as verb says. members are the further JSON members of the request,
// after the receipts. It returns the outcome for each receipt.
func (c *HTTP) Settle(ctx context.Context, verb, queue string, receipts []string, members string) ([]Result, Answer) {
	var got struct {
		Results []struct {
			OK   bool
			Code string
		}
	}
	body := `{"receipts":["` + strings.Join(receipts, `","`) + `"]` + members + "}" // receipts need no escapes
	a := c.JSON(ctx, http.MethodPost, "/v1/queues/"+queue+"/"+verb, body, 0, &got)
	if a.Outcome == Done && len(got.Results) != len(receipts) {
		a.unreadable()
	}
	list := a.each(len(receipts))
	for i := range list {
		if a.Outcome == Done && !got.Results[i].OK {
			list[i].Outcome, list[i].Code = outcomeOf(got.Results[i].Code), got.Results[i].Code
		}
	}
	return list, a
}

// Declare creates or changes a queue; settings is a JSON object.
func (c *HTTP) Declare(ctx context.Context, queue, settings string) error {
	a := c.JSON(ctx, http.MethodPut, "/v1/queues/"+queue, settings, 0, nil)
	if err := a.Err(); err != nil {
		return fmt.Errorf("declaring the queue %s: %w", queue, err)
	}
	return nil
}

// Delete deletes a queue; a missing one is no error.
func (c *HTTP) Delete(ctx context.Context, queue string) error {
	a := c.Do(ctx, http.MethodDelete, "/v1/queues/"+queue, "", nil, 0)
	if a.Status == http.StatusNotFound {
		return nil
	}
	return a.Err()
}

// Queue is a queue's statistics.
type Queue struct {
	Name                                     string
	Ready, Blocked, Delayed, Leased, Damaged int64
}

// Messages returns the number of the queue's undamaged messages.
func (q *Queue) Messages() int64 { return q.Ready + q.Blocked + q.Delayed + q.Leased }

// Queue reads a queue's statistics. It returns nil without an error if there is no such queue.
func (c *HTTP) Queue(ctx context.Context, name string) (*Queue, error) {
	var q Queue
	a := c.JSON(ctx, http.MethodGet, "/v1/queues/"+name, "", 0, &q)
	if a.Status == http.StatusNotFound {
		return nil, nil
	}
	if err := a.Err(); err != nil {
		return nil, fmt.Errorf("reading the queue %s: %w", name, err)
	}
	return &q, nil
}

// Queues lists the queues of the default virtual host.
func (c *HTTP) Queues(ctx context.Context) ([]Queue, error) {
	var got struct{ Queues []Queue }
	a := c.JSON(ctx, http.MethodGet, "/v1/queues", "", 0, &got)
	return got.Queues, a.Err()
}

// Metrics reads the server's metrics. The value of a metric with labels is the sum of its series.
func (c *HTTP) Metrics(ctx context.Context) (map[string]float64, error) {
	a := c.Do(ctx, http.MethodGet, "/metrics", "", nil, 0)
	if err := a.Err(); err != nil {
		return nil, fmt.Errorf("reading the metrics: %w", err)
	}
	m := map[string]float64{}
	for line := range strings.Lines(string(a.Body)) {
		line = strings.TrimSpace(line)
		at := strings.LastIndexByte(line, ' ')
		if at < 0 || line[0] == '#' {
			continue
		}
		if v, err := strconv.ParseFloat(line[at+1:], 64); err == nil {
			name, _, _ := strings.Cut(line[:at], "{")
			m[name] += v
		}
	}
	return m, nil
}
