package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/callback"
	"github.com/surgetank/surgetank/internal/door"
)

// publisher sends messages in the order in which they were accepted, one request at a time.
// Messages that arrive during a request share the next one.
type publisher struct {
	c    *Client
	mu   sync.Mutex
	room chan struct{} // closed when a request has emptied a part of queue; nil if no call waits for room
	wake chan struct{}
	done chan struct{}

	queue  []*publishOp
	bytes  int64
	ending bool

	// The client's publisher id, for messages that have none, and the last number. Only the
	// publisher's goroutine uses them.
	id   string
	last uint64
}

// publishOp is one call of PublishAsync. Only the publisher's goroutine uses results and next.
type publishOp struct {
	msgs    []surgetank.Publishing
	bytes   int64
	results []surgetank.PublishResult
	next    int // index of the first message without a result
	done    func([]surgetank.PublishResult, error)
	user    bool // done calls a function of the caller
}

func (p *publisher) init(c *Client) {
	p.c, p.wake, p.done = c, make(chan struct{}, 1), make(chan struct{})
	go p.run()
}

// PublishAsync queues messages for the next request. See surgetank.Broker.
func (c *Client) PublishAsync(ctx context.Context, msgs []surgetank.Publishing, done func([]surgetank.PublishResult, error)) error {
	if done == nil {
		return surgetank.FieldErrorf("done", "the function done is nil; pass one, or call Publish, which waits")
	}
	return c.publish(ctx, msgs, true, func(r []surgetank.PublishResult, err error) {
		c.calls.Do("PublishAsync's done", func() { done(r, err) })
	})
}

// publish queues messages for the next request. user says that done calls a function of the caller.
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
			return surgetank.Errorf(surgetank.CodeBusy, "too many messages wait to be sent; try again shortly: %w", ctx.Err())
		}
	}
}

// weight returns the approximate bytes of a message in a request.
func weight(p *surgetank.Publishing) int64 {
	n := 200 + len(p.Message.Body)*4/3 + len(*door.Opaque(&p.Message))*4/3 + len(p.Message.Key) + len(p.Message.Group) + len(p.Message.DedupID) + len(p.Publisher)
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
		return nil, surgetank.Errorf(surgetank.CodeUncertain, "the call ended before its outcome was known: %w", ctx.Err())
	}
}

func (p *publisher) nudge() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// finish sends the queued messages and ends the goroutine.
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
		ops, ending := p.nextOps()
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

// nextOps removes the next calls that fit into one request. A call that is too large for a request
// is returned alone.
func (p *publisher) nextOps() (ops []*publishOp, ending bool) {
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

// item is one message of a request, and where to put its result.
type item struct {
	msg *surgetank.Publishing
	res *surgetank.PublishResult
	// The publisher and number of the message: its own, or the client's.
	publisher string
	sequence  uint64
}

// send publishes the messages of some calls and ends each call, in order. An error ends the calls
// with the failed messages and all later calls of ops, which were not sent.
func (p *publisher) send(ops []*publishOp) {
	var items []item
	for _, op := range ops {
		for i := range op.msgs {
			items = append(items, item{msg: &op.msgs[i], res: &op.results[i]})
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

// each calls step for 0 to n-1. users says that step calls functions of the caller. Such a function
// can end its goroutine, so the publisher's goroutine must not call it.
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

// request sends messages until each has a result. All messages have a publisher and a number, so a
// request with an unknown outcome is sent again. If the server refuses a line, it has published
// nothing of the request. The refused message is removed, and the remaining messages are sent
// again.
func (p *publisher) request(items []item) error {
	pending := make([]item, 0, len(items))
	for _, it := range items {
		it.publisher, it.sequence = it.msg.Publisher, it.msg.Sequence
		if it.res.Err = surgetank.ValidatePublisher(it.publisher, it.sequence); it.res.Err != nil {
			continue
		}
		if it.publisher == "" {
			it.publisher, it.sequence = p.number()
		}
		pending = append(pending, it)
	}
	unsure := false // an earlier try may have stored messages of pending
	for len(pending) > 0 {
		q := request{method: "POST", path: "/v1/publish?ids=ranges", contentType: "application/x-ndjson", repeat: true, unsure: &unsure}
		if follow(pending) {
			q.publisher, q.sequence = pending[0].publisher, pending[0].sequence
		}
		if bad, err := q.encode(pending); err != nil {
			pending[bad].res.Err = err
			pending = slices.Delete(pending, bad, bad+1)
			continue
		}
		var ok published
		err := p.c.call(p.c.ctx, q, &ok)
		if err == nil {
			return fillRanges(pending, &ok)
		}
		var r *refusal
		if !errors.As(err, &r) {
			return err
		}
		switch {
		case len(r.Errors) > 0 && len(r.IDs) == len(pending):
			if err := fillPartial(pending, r); err != nil {
				return err
			}
			if pending = p.unknown(pending); unsure {
				return nil
			}
		case r.Line >= 1 && r.Line <= len(pending):
			pending[r.Line-1].res.Err = refused(r, unsure)
			pending = slices.Delete(pending, r.Line-1, r.Line)
		case len(pending) == 1 && definite(r.Code):
			pending[0].res.Err = refused(r, unsure)
			return nil
		default:
			return err
		}
	}
	return nil
}

// number returns the client's publisher id and its next number.
func (p *publisher) number() (string, uint64) {
	if p.id == "" {
		p.id, p.last = newName(), 0
	}
	p.last++
	return p.id, p.last
}

// unknown returns the messages that were refused because the server does not know the client's
// publisher id, for example after a week without a message. It numbers them under a new id.
func (p *publisher) unknown(items []item) (again []item) {
	old := p.id
	for _, it := range items {
		e, _ := it.res.Err.(*surgetank.Error)
		if e == nil || e.Code != surgetank.CodeUncertain || e.Field != surgetank.FieldPublisher || it.publisher != old {
			continue
		}
		if p.id == old {
			p.id = ""
		}
		it.publisher, it.sequence = p.number()
		again = append(again, it)
	}
	return again
}

// refused returns the error for a message that the server refused unread. If an earlier try may
// have stored the message, the outcome is uncertain.
func refused(r *refusal, unsure bool) error {
	if unsure {
		return surgetank.Errorf(surgetank.CodeUncertain, "an earlier try may have stored the message; now it was refused: %w", r.err())
	}
	return r.err()
}

// follow reports whether messages have one publisher and consecutive numbers.
func follow(items []item) bool {
	for i := range items {
		if items[i].publisher != items[0].publisher || items[i].sequence != items[0].sequence+uint64(i) {
			return false
		}
	}
	return true
}

// encode writes messages as the body of the request. If a message cannot be sent, it returns the
// index and the cause.
func (q *request) encode(items []item) (bad int, err error) {
	for i, it := range items {
		if q.publisher != "" { // the request's header has the publisher of all messages
			it.publisher = ""
		}
		if q.body, err = appendMessage(q.body, it.msg, it.publisher, it.sequence); err != nil {
			return i, err
		}
		q.body = append(q.body, '\n')
	}
	return 0, nil
}

// definite reports whether a code refuses a message because of its content or its queue. Then the
// message was not stored. CodeBusy is not one of these codes: the answer about a message that
// accept.rate refuses has an error for each message, and CodeBusy alone is about the whole request.
func definite(c surgetank.Code) bool {
	switch c {
	case surgetank.CodeInvalid, surgetank.CodeNotFound, surgetank.CodeTooLarge, surgetank.CodeFull, surgetank.CodeDenied:
		return true
	}
	return false
}

func fillRanges(items []item, ok *published) error {
	i := 0
	for _, r := range ok.Ranges {
		id, err := parseID(r.First, r.Duplicate)
		if err != nil || r.Count < 1 || i+r.Count > len(items) {
			return badAnswer()
		}
		for range r.Count {
			*items[i].res = surgetank.PublishResult{ID: id, Duplicate: r.Duplicate}
			if id.Seq != 0 {
				id.Seq++
			}
			i++
		}
	}
	if i != len(items) {
		return badAnswer()
	}
	return nil
}

// parseID parses a message id. The id of a duplicate can be missing, if the server has forgotten
// it.
func parseID(s string, duplicate bool) (surgetank.MessageID, error) {
	if s == "" && duplicate {
		return surgetank.MessageID{}, nil
	}
	return surgetank.ParseMessageID(s)
}

func fillPartial(items []item, r *refusal) error {
	for i, text := range r.IDs {
		*items[i].res = surgetank.PublishResult{}
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
			items[i].res.Err = &surgetank.Error{Code: e.Code, Message: e.Detail, Field: e.Field, Limit: e.Limit, RetryAfter: retry}
		}
	}
	for i := range items { // a message without id and error is a duplicate whose id the server has forgotten
		items[i].res.Duplicate = items[i].res.ID == (surgetank.MessageID{}) && items[i].res.Err == nil
	}
	return nil
}

func badAnswer() error {
	return surgetank.Errorf(surgetank.CodeInternal, "%w", fmt.Errorf("the server's answer to a publish does not match its messages; the messages may be stored"))
}

// Transact publishes and settles as one step. See surgetank.Broker.
func (c *Client) Transact(ctx context.Context, msgs []surgetank.Publishing, s []surgetank.Settlement) ([]surgetank.PublishResult, error) {
	b := []byte(`{"messages":[`)
	dedup := len(s) == 0
	for i := range msgs {
		if i > 0 {
			b = append(b, ',')
		}
		var err error
		if b, err = appendMessage(b, &msgs[i], msgs[i].Publisher, msgs[i].Sequence); err != nil {
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
