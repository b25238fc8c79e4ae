package client

import (
	"context"
	"errors"
	"slices"
	"sync"
	"unicode/utf8"

	"github.com/surgetank/surgetank"
)

// maxSettlements is how many settlements go in one request.
const maxSettlements = 10_000

// settler sends settlements in their order of arrival, one request at a time. It has no limit:
// settlements free memory, so they are never refused.
type settler struct {
	c    *Client
	wake chan struct{}
	done chan struct{}

	mu     sync.Mutex
	queue  []*settleOp
	ending bool
}

type settleOp struct {
	list []surgetank.Settlement
	done func([]surgetank.SettleResult, error)
	user bool // done calls a function of the caller
}

func (t *settler) init(c *Client) {
	t.c, t.wake, t.done = c, make(chan struct{}, 1), make(chan struct{})
	go t.run()
}

// SettleAsync queues settlements for the next request. See surgetank.Broker.
func (c *Client) SettleAsync(_ context.Context, s []surgetank.Settlement, done func([]surgetank.SettleResult, error)) error {
	if err := c.alive(); err != nil {
		return err
	}
	if done == nil {
		return c.settler.put(&settleOp{s, func([]surgetank.SettleResult, error) {}, false})
	}
	return c.settler.put(&settleOp{s, func(r []surgetank.SettleResult, err error) {
		c.calls.Do("SettleAsync's done", func() { done(r, err) })
	}, true})
}

func (t *settler) put(op *settleOp) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ending {
		return errClosed()
	}
	t.queue = append(t.queue, op)
	select {
	case t.wake <- struct{}{}:
	default:
	}
	return nil
}

// Settle ends or extends leases. See surgetank.Broker.
func (c *Client) Settle(ctx context.Context, s []surgetank.Settlement) ([]surgetank.SettleResult, error) {
	type outcome struct {
		results []surgetank.SettleResult
		err     error
	}
	if err := c.alive(); err != nil {
		return nil, err
	}
	if ctx == nil {
		return nil, noContext()
	}
	done := make(chan outcome, 1)
	if err := c.settler.put(&settleOp{s, func(r []surgetank.SettleResult, err error) { done <- outcome{r, err} }, false}); err != nil {
		return nil, err
	}
	select {
	case o := <-done:
		return o.results, o.err
	case <-ctx.Done():
		return nil, surgetank.Errorf(surgetank.CodeUncertain, "the call ended before its outcome was known: %w", ctx.Err())
	}
}

func (t *settler) finish() {
	t.mu.Lock()
	t.ending = true
	t.mu.Unlock()
	select {
	case t.wake <- struct{}{}:
	default:
	}
	<-t.done
}

func (t *settler) run() {
	defer close(t.done)
	for {
		t.mu.Lock()
		n, count := 0, 0
		for n < len(t.queue) && (n == 0 || count+len(t.queue[n].list) <= maxSettlements) {
			count += len(t.queue[n].list)
			n++
		}
		ops := append([]*settleOp(nil), t.queue[:n]...)
		rest := copy(t.queue, t.queue[n:])
		clear(t.queue[rest:])
		t.queue = t.queue[:rest]
		ending := t.ending
		t.mu.Unlock()
		if len(ops) > 0 {
			t.send(ops)
			continue
		}
		if ending {
			return
		}
		<-t.wake
	}
}

// send settles for some calls in one request. If the server refuses the request because of its
// content, each call is sent alone. One caller's mistake then does not fail another call.
func (t *settler) send(ops []*settleOp) {
	var all []surgetank.Settlement
	for _, op := range ops {
		all = append(all, op.list...)
	}
	users := slices.ContainsFunc(ops, func(op *settleOp) bool { return op.user })
	results, err := t.request(all)
	var r *refusal
	if len(ops) > 1 && errors.As(err, &r) && definite(r.Code) {
		each(len(ops), users, func(i int) {
			results, err := t.request(ops[i].list)
			ops[i].done(results, plain(err))
		})
		return
	}
	each(len(ops), users, func(i int) {
		op := ops[i]
		if err != nil {
			op.done(nil, plain(err))
			return
		}
		mine := results[:len(op.list):len(op.list)]
		results = results[len(op.list):]
		op.done(mine, nil)
	})
}

func (t *settler) request(list []surgetank.Settlement) ([]surgetank.SettleResult, error) {
	results := make([]surgetank.SettleResult, 0, len(list))
	for len(list) > 0 {
		n := min(len(list), maxSettlements)
		var ok struct {
			Results []struct {
				OK     bool
				Code   surgetank.Code
				Detail string
			}
		}
		b := append(appendSettlements([]byte(`{"settlements":`), list[:n]), '}')
		if err := t.c.call(t.c.ctx, request{method: "POST", path: "/v1/settle", body: b}, &ok); err != nil {
			return nil, err
		}
		if len(ok.Results) != n {
			return nil, surgetank.Errorf(surgetank.CodeInternal, "the server returned %d results for %d settlements", len(ok.Results), n)
		}
		for _, r := range ok.Results {
			var err error
			if !r.OK {
				err = &surgetank.Error{Code: r.Code, Message: r.Detail}
			}
			results = append(results, err)
		}
		list = list[n:]
	}
	return results, nil
}

// appendSettlements writes a list of settlement objects.
func appendSettlements(b []byte, list []surgetank.Settlement) []byte {
	b = append(b, '[')
	for i := range list {
		if i > 0 {
			b = append(b, ',')
		}
		s := &list[i]
		b = append(append(append(b, `{"receipt":"`...), s.Receipt.String()...), `","op":`...)
		switch s.Op {
		case surgetank.Ack:
			b = append(b, `"ack"`...)
		case surgetank.Extend:
			b = append(b, `"extend"`...)
			if s.Lease != 0 {
				b = appendMember(b, "lease", s.Lease.String())
			}
		case surgetank.Nack:
			b = append(b, `"nack"`...)
			if s.Delay >= 0 {
				b = appendMember(b, "delay", s.Delay.String())
			}
			if s.Uncounted {
				b = append(b, `,"count":false`...)
			}
			switch s.Target {
			case surgetank.TargetUnknown:
			case surgetank.TargetDown:
				b = append(b, `,"target":"down"`...)
			case surgetank.TargetBusy:
				b = append(b, `,"target":"busy"`...)
			default:
				b = append(b, `,"target":"unknown"`...)
			}
			if s.RetryAfter > 0 {
				b = appendMember(b, "retry_after", s.RetryAfter.String())
			}
			b = appendMember(b, "reason", clip(s.Reason))
		case surgetank.Reject:
			b = append(b, `"nack","dead_letter":true`...)
			b = appendMember(b, "reason", clip(s.Reason))
		default:
			b = append(b, `"unknown"`...)
		}
		if s.Elapsed > 0 {
			b = appendMember(b, "elapsed", s.Elapsed.String())
		}
		b = append(b, '}')
	}
	return append(b, ']')
}

// clip shortens a reason to the length that the server keeps.
func clip(s string) string {
	if len(s) <= 1024 {
		return s
	}
	s = s[:1024]
	for len(s) > 0 && !utf8.RuneStart(s[len(s)-1]) {
		s = s[:len(s)-1]
	}
	return s[:max(0, len(s)-1)]
}
