package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/callback"
)

// publisher sends messages in the order they were accepted, one request at a time: what comes while one is under way
// goes together in the next.
type publisher struct {
	c    *Client
	mu   sync.Mutex
	room chan struct{} // closed and replaced when something was taken; nil when nobody waits
	wake chan struct{}
	done chan struct{}

	queue  []*publishOp
	bytes  int64
	ending bool
}

// publishOp is one call of PublishAsync. The publisher's goroutine alone touches results and next.
type publishOp struct {
	msgs    []surgetank.Publishing
	bytes   int64
	results []surgetank.PublishResult
	next    int // the first message not answered yet
	done    func([]surgetank.PublishResult, error)
	user    bool // done is a user's
}

func (p *publisher) init(c *Client) {
	p.c, p.wake, p.done = c, make(chan struct{}, 1), make(chan struct{})
	go p.run()
}

// PublishAsync hands messages over. See surgetank.Broker.
func (c *Client) PublishAsync(ctx context.Context, msgs []surgetank.Publishing, done func([]surgetank.PublishResult, error)) error {
	if done == nil {
		return surgetank.FieldErrorf("done", "the function done is nil; pass one, or call Publish, which waits")
	}
	return c.publish(ctx, msgs, true, func(r []surgetank.PublishResult, err error) {
		c.calls.Do("PublishAsync's done", func() { done(r, err) })
	})
}

// publish hands messages over. user says that done calls a function of a user's.
func (c *Client) publish(ctx context.Context, msgs []surgetank.Publishing, user bool, done func([]surgetank.PublishResult, error)) error {
	if err := c.alive(); err != nil {
		return err
	}
	if ctx == nil {
		return noContext()
	}
	op := &publishOp{msgs: msgs, done: done, user: user, results: make([]surgetank.PublishResult, len(msgs))}
	for i := range msgs {
		op.bytes += weight(&msgs[i])
	}
	p := &c.publisher
	for {
		if err := c.alive(); err != nil {
			return err
		}
		p.mu.Lock()
		if p.ending {
			p.mu.Unlock()
			return errClosed()
		}
		if p.bytes == 0 || p.bytes+op.bytes <= c.opts.MaxPending {
			p.queue = append(p.queue, op)
			p.bytes += op.bytes
			p.mu.Unlock()
			p.nudge()
			return nil
		}
		if p.room == nil {
			p.room = make(chan struct{})
		}
		room := p.room
		p.mu.Unlock()
		select {
		case <-room:
		case <-ctx.Done():
			return surgetank.Errorf(surgetank.CodeBusy, "more messages wait to be sent than may; try again shortly: %w", ctx.Err())
		}
	}
}

// weight is about what a message takes in a request.
func weight(p *surgetank.Publishing) int64 {
	n := 200 + len(p.Message.Body)*4/3 + len(p.Message.Opaque)*4/3 + len(p.Message.Key) + len(p.Message.Group) + len(p.Message.DedupID)
	for _, h := range p.Message.Headers {
		n += len(h.Name) + len(h.Value) + 24
	}
	for _, q := range p.Queues {
		n += len(q) + 3
	}
	return int64(n)
}

// Publish stores messages. See surgetank.Broker.
func (c *Client) Publish(ctx context.Context, msgs []surgetank.Publishing) ([]surgetank.PublishResult, error) {
	type outcome struct {
		results []surgetank.PublishResult
		err     error
	}
	done := make(chan outcome, 1)
	if err := c.publish(ctx, msgs, false, func(r []surgetank.PublishResult, err error) { done <- outcome{r, err} }); err != nil {
		return nil, err
	}
	select {
	case o := <-done:
		return o.results, o.err
	case <-ctx.Done():
		return nil, surgetank.Errorf(surgetank.CodeUncertain, "the call was given up before its outcome was known: %w", ctx.Err())
	}
}

func (p *publisher) nudge() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// finish sends what is left and ends the goroutine.
func (p *publisher) finish() {
	p.mu.Lock()
	p.ending = true
	if p.room != nil {
		close(p.room)
		p.room = nil
	}
	p.mu.Unlock()
	p.nudge()
	<-p.done
}

func (p *publisher) run() {
	defer close(p.done)
	for {
		ops, ending := p.take()
		if len(ops) > 0 {
			p.send(ops)
			continue
		}
		if ending {
			return
		}
		<-p.wake
	}
}

// take gives the next calls that fit into one request; a call larger than that comes alone.
func (p *publisher) take() (ops []*publishOp, ending bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	count, bytes := 0, int64(0)
	for len(ops) < len(p.queue) {
		op := p.queue[len(ops)]
		if len(ops) > 0 && (count+len(op.msgs) > p.c.opts.MaxBatch || bytes+op.bytes > int64(p.c.opts.MaxBatchBytes)) {
			break
		}
		count, bytes = count+len(op.msgs), bytes+op.bytes
		ops = append(ops, op)
	}
	rest := copy(p.queue, p.queue[len(ops):])
	clear(p.queue[rest:])
	p.queue = p.queue[:rest]
	p.bytes -= bytes
	if p.room != nil && len(ops) > 0 {
		close(p.room)
		p.room = nil
	}
	return ops, p.ending
}

// item is one message on its way and where its result goes.
type item struct {
	msg *surgetank.Publishing
	res *surgetank.PublishResult
}

// send publishes the messages of some calls and answers each call, in order. An error ends the calls whose messages it
// concerns and those behind them in this round, which were not sent.
func (p *publisher) send(ops []*publishOp) {
	var items []item
	for _, op := range ops {
		for i := range op.msgs {
			items = append(items, item{&op.msgs[i], &op.results[i]})
		}
	}
	var failed error
	answered := 0
	for answered < len(items) && failed == nil {
		n, bytes := 0, int64(0)
		for answered+n < len(items) && n < p.c.opts.MaxBatch {
			w := weight(items[answered+n].msg)
			if n > 0 && bytes+w > int64(p.c.opts.MaxBatchBytes) {
				break
			}
			n, bytes = n+1, bytes+w
		}
		if failed = p.request(items[answered : answered+n]); failed == nil {
			answered += n
		}
	}
	users := slices.ContainsFunc(ops, func(op *publishOp) bool { return op.user })
	each(len(ops), users, func(i int) {
		op, stored := ops[i], answered >= len(ops[i].msgs)
		if !stored {
			answered = 0
			op.done(nil, plain(failed))
			return
		}
		answered -= len(op.msgs)
		op.done(op.results, nil)
	})
}

// each calls step for 0 to n-1. users says that steps call users' functions, which may end their goroutine but not ours.
func each(n int, users bool, step func(i int)) {
	if users {
		callback.Each(n, step)
		return
	}
	for i := range n {
		step(i)
	}
}

// published is the server's answer to a publish.
type published struct {
	Ranges []struct {
		First     string
		Count     int
		Duplicate bool
	}
}

// request sends messages until each has a result. A message that the server refuses by its line is taken out, and the
// others are sent again: of a request with a bad line nothing was published.
func (p *publisher) request(items []item) error {
	pending := make([]item, 0, len(items))
	var lines []byte
	for _, it := range items {
		had := len(lines)
		more, err := appendMessage(lines, it.msg)
		if err != nil {
			lines = lines[:had]
			it.res.Err = err
			continue
		}
		lines = append(more, '\n')
		pending = append(pending, it)
	}
	for len(pending) > 0 {
		var ok published
		err := p.c.call(p.c.ctx, request{method: "POST", path: "/v1/publish?ids=ranges", contentType: "application/x-ndjson",
			body: lines, repeat: allDedup(pending)}, &ok)
		if err == nil {
			return fillRanges(pending, &ok)
		}
		var r *refusal
		if !errors.As(err, &r) {
			return err
		}
		switch {
		case len(r.Errors) > 0 && len(r.IDs) == len(pending):
			return fillPartial(pending, r)
		case r.Line >= 1 && r.Line <= len(pending):
			pending[r.Line-1].res.Err = r.err()
			pending = append(pending[:r.Line-1:r.Line-1], pending[r.Line:]...)
			lines = withoutLine(lines, r.Line)
		case len(pending) == 1 && definite(r.Code):
			pending[0].res.Err = r.err()
			return nil
		default:
			return err
		}
	}
	return nil
}

// definite codes say that a message was refused for what it is.
func definite(c surgetank.Code) bool {
	switch c {
	case surgetank.CodeInvalid, surgetank.CodeNotFound, surgetank.CodeTooLarge, surgetank.CodeFull, surgetank.CodeDenied:
		return true
	}
	return false
}

func allDedup(items []item) bool {
	for _, it := range items {
		if it.msg.Message.DedupID == "" {
			return false
		}
	}
	return true
}

// withoutLine cuts the n-th line, from 1, out.
func withoutLine(b []byte, n int) []byte {
	start := 0
	for i, c := range b {
		if c != '\n' {
			continue
		}
		if n--; n == 0 {
			return append(b[:start:start], b[i+1:]...)
		}
		start = i + 1
	}
	return b
}

func fillRanges(items []item, ok *published) error {
	i := 0
	for _, r := range ok.Ranges {
		id, err := surgetank.ParseMessageID(r.First)
		if err != nil || r.Count < 1 || i+r.Count > len(items) {
			return badAnswer()
		}
		for range r.Count {
			items[i].res.ID, items[i].res.Duplicate = id, r.Duplicate
			id.Seq++
			i++
		}
	}
	if i != len(items) {
		return badAnswer()
	}
	return nil
}

func fillPartial(items []item, r *refusal) error {
	for i, text := range r.IDs {
		if text == "" {
			continue
		}
		id, err := surgetank.ParseMessageID(text)
		if err != nil {
			return badAnswer()
		}
		items[i].res.ID = id
	}
	retry := r.err().(*surgetank.Error).RetryAfter
	for _, e := range r.Errors {
		for i := max(0, e.First); i <= e.Last && i < len(items); i++ {
			items[i].res.Err = &surgetank.Error{Code: e.Code, Message: e.Detail, Field: e.Field, RetryAfter: retry}
		}
	}
	for i := range items {
		if items[i].res.ID == (surgetank.MessageID{}) && items[i].res.Err == nil {
			return badAnswer()
		}
	}
	return nil
}

func badAnswer() error {
	return surgetank.Errorf(surgetank.CodeInternal, "%w", fmt.Errorf("the server's answer to a publish does not fit its messages; they may be stored"))
}

// Transact publishes and settles as one. See surgetank.Broker.
func (c *Client) Transact(ctx context.Context, msgs []surgetank.Publishing, s []surgetank.Settlement) ([]surgetank.PublishResult, error) {
	b := []byte(`{"messages":[`)
	dedup := len(s) == 0
	for i := range msgs {
		if i > 0 {
			b = append(b, ',')
		}
		var err error
		if b, err = appendMessage(b, &msgs[i]); err != nil {
			return nil, err
		}
		dedup = dedup && msgs[i].Message.DedupID != ""
	}
	b = append(appendSettlements(append(b, `],"settlements":`...), s), '}')
	var ok struct{ IDs []string }
	if err := c.ask(ctx, request{method: "POST", path: "/v1/transact", body: b, repeat: dedup}, &ok); err != nil {
		return nil, err
	}
	results := make([]surgetank.PublishResult, len(ok.IDs))
	for i, text := range ok.IDs {
		id, err := surgetank.ParseMessageID(text)
		if err != nil {
			return nil, badAnswer()
		}
		results[i].ID = id
	}
	return results, nil
}
