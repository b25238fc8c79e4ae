//go:build linux

package main

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/surgetank/surgetank/test/kit/client"
	"github.com/surgetank/surgetank/test/kit/history"
	"github.com/surgetank/surgetank/test/kit/load"
)

// caller uses the HTTP API for one publisher or consumer and records every call. Its methods are
// for one goroutine.
type caller struct {
	*client.HTTP
	number  int
	journal *history.Journal
	foreign bool // the server's clock differs from ours, so a lease is counted from the request on
}

func newCaller(number int, base func() string, j *history.Journal, timeout time.Duration) *caller {
	return &caller{HTTP: client.NewHTTP(base, timeout), number: number, journal: j}
}

// op makes the record for one message of a call.
func (c *caller) op(kind history.Kind, outcome client.Outcome, code string, a *client.Answer, batch int64, index int, queue string) history.Op {
	return history.Op{Kind: kind, Outcome: history.Outcome(outcome), Client: c.number, Call: c.journal.At(a.Call), Return: c.journal.At(a.Back), Batch: batch, Index: index, Queue: queue, Code: code}
}

// outgoing is one message to publish.
type outgoing struct{ value, group, dedup string }

// body makes a message's body with a filling of up to size bytes.
func body(value string, size int) []byte { return load.Body(value, size/2, size) }

// publish sends messages as one batch and returns the outcome of each.
func (c *caller) publish(ctx context.Context, queue string, msgs []outgoing, size int) []history.Op {
	list := make([]client.Message, len(msgs))
	for i, m := range msgs {
		list[i] = client.Message{Body: body(m.value, size), Group: m.group, Dedup: m.dedup}
	}
	results, _, a := c.Publish(ctx, queue, list)
	ops := make([]history.Op, len(msgs))
	batch := c.journal.Batch()
	for i, m := range msgs {
		r := results[i]
		ops[i] = c.op(history.Publish, r.Outcome, r.Code, &a, batch, i, queue)
		ops[i].Value, ops[i].Group, ops[i].Dedup, ops[i].ID, ops[i].Duplicate = m.value, m.group, m.dedup, r.ID, r.Duplicate
	}
	c.journal.Add(ops...)
	return ops
}

// receive leases messages. It also records a lost answer, because the server may have leased
// messages. If there is no answer, it returns false.
func (c *caller) receive(ctx context.Context, queue string, most int, wait, lease time.Duration) ([]history.Op, bool) {
	got, a := c.Receive(ctx, queue, most, wait, lease)
	if a.Outcome != client.Done {
		if a.Outcome == client.Unknown {
			c.journal.Add(c.op(history.Receive, a.Outcome, a.Code, &a, 0, 0, queue))
		}
		return nil, false
	}
	batch := c.journal.Batch()
	ops := make([]history.Op, len(got))
	for i, d := range got {
		v, whole := load.ReadBody(d.Body)
		op := c.op(history.Deliver, a.Outcome, "", &a, batch, i, queue)
		op.Value, op.ID, op.Group, op.Receipt, op.Attempt, op.Again, op.Damaged = v, d.ID, d.Group, d.Receipt, d.Attempt, d.Redelivered, !whole
		if op.Deadline = c.journal.Wall(d.Deadline); c.foreign {
			op.Deadline = op.Call + lease
		}
		ops[i] = op
	}
	c.journal.Add(ops...)
	return ops, true
}

// settle acks, nacks, rejects or extends all the deliveries. members are the further JSON members
// of the request, after the receipts.
func (c *caller) settle(ctx context.Context, kind history.Kind, queue string, ds []history.Op, members string, lease time.Duration) []history.Op {
	if len(ds) == 0 {
		return nil
	}
	receipts := make([]string, len(ds))
	for i := range ds {
		receipts[i] = ds[i].Receipt
	}
	verb := map[history.Kind]string{history.Ack: "ack", history.Nack: "nack", history.Reject: "nack", history.Extend: "extend"}[kind]
	results, a := c.Settle(ctx, verb, queue, receipts, members)
	batch := c.journal.Batch()
	ops := make([]history.Op, len(ds))
	for i, d := range ds {
		ops[i] = c.op(kind, results[i].Outcome, results[i].Code, &a, batch, i, queue)
		ops[i].Value, ops[i].ID, ops[i].Group, ops[i].Receipt = d.Value, d.ID, d.Group, d.Receipt
		if kind == history.Extend {
			ops[i].Deadline = ops[i].Call + lease
		}
	}
	c.journal.Add(ops...)
	return ops
}

// setSink creates a sink.
func (c *caller) setSink(ctx context.Context, name, spec string) error {
	a := c.JSON(ctx, http.MethodPut, "/v1/sinks/"+name, spec, 0, nil)
	if err := a.Err(); err != nil {
		return fmt.Errorf("setting the sink: %w", err)
	}
	return nil
}

// ready queries /readyz.
func (c *caller) ready(ctx context.Context) bool {
	return c.Do(ctx, http.MethodGet, "/readyz", "", nil, 0).Outcome == client.Done
}
