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

	"github.com/surgetank/surgetank/test/faults/history"
)

// client uses the HTTP API for one publisher or consumer and records every call. Its methods are
// for one goroutine.
type client struct {
	number  int
	base    string // URL of the server, or of a proxy in front of it
	http    *http.Client
	journal *history.Journal
	timeout time.Duration
	foreign bool // the server's clock differs from ours: a lease is assumed to last for its time from the request on
}

func newClient(number int, base string, j *history.Journal, timeout time.Duration) *client {
	t := &http.Transport{DialContext: (&net.Dialer{Timeout: 2 * time.Second}).DialContext, MaxIdleConnsPerHost: 2, DisableCompression: true}
	return &client{number: number, base: base, http: &http.Client{Transport: t}, journal: j, timeout: timeout}
}

func (c *client) close() { c.http.CloseIdleConnections() }

// answer is the result of a request: an outcome, and for a fail or an info the code of the reason.
type answer struct {
	outcome history.Outcome
	code    string
	status  int
	body    []byte
	call    time.Duration
	back    time.Duration
}

// problem is the error object of the API.
type problem struct {
	Code   string    `json:"code"`
	Detail string    `json:"detail"`
	IDs    []*string `json:"ids"`
	Errors []struct {
		First, Last int
		Code        string
	} `json:"errors"`
}

// uncertain are the codes after which the request may have been carried out. After every other code
// it was not.
var uncertain = map[string]bool{"uncertain": true, "internal": true, "corrupt": true, "": true}

// do sends one request. Only after an error of dialling is it certain that the request did not
// reach the server.
func (c *client) do(ctx context.Context, method, path, contentType string, body []byte, extra time.Duration) answer {
	ctx, cancel := context.WithTimeout(ctx, c.timeout+extra)
	defer cancel()
	a := answer{outcome: history.Info, code: "no answer"}
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, bytes.NewReader(body))
	if err != nil {
		a.outcome, a.code = history.Fail, err.Error()
		return a
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	a.call = c.journal.Now()
	resp, err := c.http.Do(req)
	if err != nil {
		a.back = c.journal.Now()
		var op *net.OpError
		if errors.As(err, &op) && op.Op == "dial" {
			a.outcome, a.code = history.Fail, "not sent"
		}
		return a
	}
	defer resp.Body.Close()
	a.body, err = io.ReadAll(resp.Body)
	a.back = c.journal.Now()
	if err != nil {
		return a
	}
	a.status = resp.StatusCode
	if a.status/100 == 2 {
		a.outcome, a.code = history.OK, ""
		return a
	}
	var p problem
	if json.Unmarshal(a.body, &p) == nil && !uncertain[p.Code] {
		a.outcome = history.Fail
	}
	a.code = p.Code
	return a
}

// outgoing is one message to publish.
type outgoing struct{ value, group, dedup string }

// publish sends messages as one batch and returns the outcome of each.
func (c *client) publish(ctx context.Context, queue string, msgs []outgoing, size int) []history.Op {
	var b bytes.Buffer
	for _, m := range msgs {
		b.WriteString(`{"body":`)
		b.Write(body(m.value, size))
		if m.group != "" {
			b.WriteString(`,"group":` + strconv.Quote(m.group))
		}
		if m.dedup != "" {
			b.WriteString(`,"dedup_id":` + strconv.Quote(m.dedup))
		}
		b.WriteString("}\n")
	}
	a := c.do(ctx, http.MethodPost, "/v1/queues/"+queue+"/messages", "application/x-ndjson", b.Bytes(), 0)
	ops := make([]history.Op, len(msgs))
	batch := c.journal.Batch()
	for i, m := range msgs {
		ops[i] = history.Op{Kind: history.Publish, Outcome: a.outcome, Client: c.number, Call: a.call, Return: a.back, Batch: batch, Index: i,
			Queue: queue, Value: m.value, Group: m.group, Dedup: m.dedup, Code: a.code}
	}
	switch {
	case a.outcome == history.OK:
		var ok struct {
			Duplicates int      `json:"duplicates"`
			IDs        []string `json:"ids"`
		}
		if err := json.Unmarshal(a.body, &ok); err != nil || len(ok.IDs) != len(msgs) {
			for i := range ops {
				ops[i].Outcome, ops[i].Code = history.Info, "unreadable answer"
			}
			break
		}
		for i := range ops {
			// For several messages the answer only says how many were duplicates, not which.
			ops[i].ID, ops[i].Duplicate = ok.IDs[i], ok.Duplicates > 0
		}
	case a.status != 0:
		var p problem
		if json.Unmarshal(a.body, &p) != nil || len(p.IDs) != len(msgs) {
			break
		}
		for i, id := range p.IDs { // some were stored
			if id != nil {
				ops[i].Outcome, ops[i].Code, ops[i].ID, ops[i].Duplicate = history.OK, "", *id, true
			}
		}
		for _, e := range p.Errors {
			for i := max(0, e.First); i <= e.Last && i < len(ops); i++ {
				ops[i].Outcome, ops[i].Code = history.Fail, e.Code
				if uncertain[e.Code] {
					ops[i].Outcome = history.Info
				}
			}
		}
	}
	c.journal.Add(ops...)
	return ops
}

// delivery is a message in an answer of the API.
type delivery struct {
	ID          string          `json:"id"`
	Receipt     string          `json:"receipt"`
	Attempt     int             `json:"attempt"`
	Redelivered bool            `json:"redelivered"`
	Deadline    time.Time       `json:"deadline"`
	Group       string          `json:"group"`
	Body        json.RawMessage `json:"body"`
}

// receive leases messages. It also records a lost answer, because that may have leased some.
func (c *client) receive(ctx context.Context, queue string, most int, wait, lease time.Duration, size int) ([]history.Op, answer) {
	req := fmt.Appendf(nil, `{"max":%d,"wait":%q,"lease":%q}`, most, wait, lease)
	a := c.do(ctx, http.MethodPost, "/v1/queues/"+queue+"/receive", "application/json", req, wait)
	var got struct{ Messages []delivery }
	if a.outcome == history.OK {
		if err := json.Unmarshal(a.body, &got); err != nil {
			a.outcome, a.code = history.Info, "unreadable answer"
		}
	}
	if a.outcome != history.OK {
		if a.outcome == history.Info {
			c.journal.Add(history.Op{Kind: history.Receive, Outcome: a.outcome, Client: c.number, Call: a.call, Return: a.back, Queue: queue, Code: a.code})
		}
		return nil, a
	}
	batch := c.journal.Batch()
	ops := make([]history.Op, len(got.Messages))
	for i, d := range got.Messages {
		v, whole := readBody(d.Body, size)
		ops[i] = history.Op{Kind: history.Deliver, Outcome: history.OK, Client: c.number, Call: a.call, Return: a.back, Batch: batch, Index: i,
			Queue: queue, Value: v, ID: d.ID, Group: d.Group, Receipt: d.Receipt, Attempt: d.Attempt, Again: d.Redelivered,
			Deadline: c.journal.Wall(d.Deadline), Damaged: !whole}
		if c.foreign {
			ops[i].Deadline = a.call + lease
		}
	}
	c.journal.Add(ops...)
	return ops, a
}

// settle acks, nacks, rejects or extends deliveries, all in the same way. members are the members
// of the request besides the receipts.
func (c *client) settle(ctx context.Context, kind history.Kind, queue string, ds []history.Op, members string, lease time.Duration) []history.Op {
	if len(ds) == 0 {
		return nil
	}
	receipts := make([]string, len(ds))
	for i := range ds {
		receipts[i] = ds[i].Receipt
	}
	list, err := json.Marshal(receipts)
	if err != nil {
		panic(err) // strings always marshal
	}
	verb := map[history.Kind]string{history.Ack: "ack", history.Nack: "nack", history.Reject: "nack", history.Extend: "extend"}[kind]
	a := c.do(ctx, http.MethodPost, "/v1/queues/"+queue+"/"+verb, "application/json", fmt.Appendf(nil, `{"receipts":%s%s}`, list, members), 0)
	var got struct {
		Results []struct {
			OK   bool
			Code string
		}
	}
	if a.outcome == history.OK && (json.Unmarshal(a.body, &got) != nil || len(got.Results) != len(ds)) {
		a.outcome, a.code = history.Info, "unreadable answer"
	}
	batch := c.journal.Batch()
	ops := make([]history.Op, len(ds))
	for i, d := range ds {
		ops[i] = history.Op{Kind: kind, Outcome: a.outcome, Client: c.number, Call: a.call, Return: a.back, Batch: batch, Index: i,
			Queue: queue, Value: d.Value, ID: d.ID, Group: d.Group, Receipt: d.Receipt, Code: a.code}
		if kind == history.Extend {
			ops[i].Deadline = a.call + lease
		}
		if a.outcome == history.OK && !got.Results[i].OK {
			ops[i].Outcome, ops[i].Code = history.Fail, got.Results[i].Code
			if uncertain[ops[i].Code] {
				ops[i].Outcome = history.Info
			}
		}
	}
	c.journal.Add(ops...)
	return ops
}

// stats are a queue's statistics.
type stats struct {
	Ready, Blocked, Delayed, Leased, Damaged int64
	Counts                                   struct {
		DeadLettered uint64 `json:"dead_lettered"`
		Delivered    uint64 `json:"delivered"`
	} `json:"counts"`
}

// queue reads a queue's statistics. It returns nil without an error if there is no such queue.
func (c *client) queue(ctx context.Context, name string) (*stats, error) {
	a := c.do(ctx, http.MethodGet, "/v1/queues/"+name, "", nil, 0)
	if a.status == http.StatusNotFound {
		return nil, nil
	}
	if a.outcome != history.OK {
		return nil, fmt.Errorf("asking for the queue %s: %s %s", name, a.code, a.body)
	}
	var s stats
	return &s, json.Unmarshal(a.body, &s)
}

// declare creates a queue; settings is a JSON object.
func (c *client) declare(ctx context.Context, name, settings string) error {
	if a := c.do(ctx, http.MethodPut, "/v1/queues/"+name, "application/json", []byte(settings), 0); a.outcome != history.OK {
		return fmt.Errorf("declaring the queue %s: %s %s", name, a.code, a.body)
	}
	return nil
}

// ready queries /readyz.
func (c *client) ready(ctx context.Context) bool {
	return c.do(ctx, http.MethodGet, "/readyz", "", nil, 0).outcome == history.OK
}
