package broker

import (
	"context"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/door"
	"github.com/surgetank/surgetank/internal/fullname"
	"github.com/surgetank/surgetank/internal/queue"
)

// publishOp is one call of Publish: the command, and memory for the usual case of one message.
type publishOp struct {
	op
	cmd  queue.Publish
	one  [1]queue.Incoming
	res  [1]surgetank.PublishResult
	done func([]surgetank.PublishResult, error)
}

// PublishAsync sends messages to the loop. See surgetank.Broker.
func (b *Broker) PublishAsync(ctx context.Context, msgs []surgetank.Publishing, done func([]surgetank.PublishResult, error)) error {
	if done == nil {
		return noDone()
	}
	return b.publish(ctx, msgs, true, func(r []surgetank.PublishResult, err error) {
		b.users.Do("PublishAsync's done", func() { done(r, err) })
	})
}

// publish sends messages to the loop. user means that done calls a user's function.
func (b *Broker) publish(ctx context.Context, msgs []surgetank.Publishing, user bool, done func([]surgetank.PublishResult, error)) error {
	if b == nil || ctx == nil {
		return b.put(ctx, nil, true)
	}
	p := &publishOp{done: done}
	p.cmd.Msgs, p.cmd.Results = p.one[:], p.res[:]
	if len(msgs) != 1 {
		p.cmd.Msgs, p.cmd.Results = make([]queue.Incoming, len(msgs)), make([]surgetank.PublishResult, len(msgs))
	}
	p.op = op{cmd: &p.cmd, weight: opWeight, release: p.finish, user: user}
	for i := range msgs {
		p.weight += b.prepare(&p.cmd.Msgs[i], &msgs[i], &p.cmd.Results[i])
	}
	return b.put(ctx, &p.op, true)
}

func (p *publishOp) finish(err error) {
	if err != nil {
		p.done(nil, uncertain(err))
		return
	}
	p.done(p.cmd.Results, nil)
}

// uncertain converts the error of a closed broker into CodeUncertain, because the outcome of a
// request that was under way is not known.
func uncertain(err error) error {
	if surgetank.CodeOf(err) == surgetank.CodeClosed {
		return surgetank.Errorf(surgetank.CodeUncertain, "the broker closed before the outcome was known; repeat the request with the same publisher and numbers, or the same dedup ids: %w", err)
	}
	return err
}

// prepare checks a message. It runs on the caller's goroutine, so that hashing and finding groups
// do not delay the loop. It returns the message's weight in the mailbox.
func (b *Broker) prepare(in *queue.Incoming, p *surgetank.Publishing, res *surgetank.PublishResult) int64 {
	in.Publishing = p
	if res.Err = queue.Check(p, b.maxMessage()); res.Err != nil {
		return 0
	}
	if p.Message.DedupID == "" {
		if id, rule := b.dedups.id(p); id != "" {
			own := *p // do not change the caller's message
			own.Message.DedupID = id
			p, in.Publishing, in.DedupBy = &own, &own, rule
		}
	}
	if p.Message.DedupID != "" {
		in.Dedup = queue.MakeDedupKey(p.Message.DedupID)
	}
	if p.Message.Group == "" {
		in.Groups = b.groups.find(p)
	}
	in.Keys = b.coalesces.keys(p, in.Groups)
	return int64(len(p.Message.Body)) + 128
}

func (b *Broker) maxMessage() int {
	if n := b.opts.Limits.MaxMessage; n > 0 {
		return n
	}
	return surgetank.DefaultMaxMessage
}

// Publish stores messages. See surgetank.Broker.
func (b *Broker) Publish(ctx context.Context, msgs []surgetank.Publishing) ([]surgetank.PublishResult, error) {
	return wait(ctx, b, func(done func([]surgetank.PublishResult, error)) error { return b.publish(ctx, msgs, false, done) })
}

// wait turns a call with a callback into a blocking call.
func wait[T any](ctx context.Context, b *Broker, start func(func(T, error)) error) (T, error) {
	type answer struct {
		v   T
		err error
	}
	c := make(chan answer, 1)
	var none T
	if ctx == nil {
		return none, noContext()
	}
	if err := start(func(v T, err error) { c <- answer{v, err} }); err != nil {
		return none, err
	}
	await(b.core, c)
	select {
	case a := <-c:
		return a.v, a.err
	case <-ctx.Done():
		return none, surgetank.Errorf(surgetank.CodeUncertain, "the call was given up before its outcome was known: %w", ctx.Err())
	}
}

// settleOp is one call of Settle.
type settleOp struct {
	op
	cmd queue.Settle
	one [1]error
}

// SettleAsync sends settlements to the loop. It never waits for room in the mailbox, because acks
// free room.
func (b *Broker) SettleAsync(ctx context.Context, s []surgetank.Settlement, done func([]surgetank.SettleResult, error)) error {
	if ctx == nil {
		ctx = context.Background()
	}
	if done == nil {
		return b.settle(ctx, s, false, nil)
	}
	return b.settle(ctx, s, true, func(r []surgetank.SettleResult, err error) {
		b.users.Do("SettleAsync's done", func() { done(r, err) })
	})
}

// settle sends settlements to the loop. user means that done calls a user's function.
func (b *Broker) settle(ctx context.Context, s []surgetank.Settlement, user bool, done func([]surgetank.SettleResult, error)) error {
	o := &settleOp{}
	if b == nil {
		return b.put(ctx, nil, false)
	}
	o.cmd = queue.Settle{Items: s, Results: o.one[:], At: b.now()}
	if len(s) != 1 {
		o.cmd.Results = make([]error, len(s))
	}
	o.op = op{cmd: &o.cmd, weight: opWeight, quiet: done == nil, user: user, release: func(err error) {
		switch {
		case done == nil:
		case err != nil:
			done(nil, uncertain(err))
		default:
			done(o.cmd.Results, nil)
		}
	}}
	return b.put(ctx, &o.op, false)
}

// Settle ends or extends leases. See surgetank.Broker.
func (b *Broker) Settle(ctx context.Context, s []surgetank.Settlement) ([]surgetank.SettleResult, error) {
	return wait(ctx, b, func(done func([]surgetank.SettleResult, error)) error { return b.settle(ctx, s, false, done) })
}

// Transact publishes and settles, all or nothing. See surgetank.Broker.
func (b *Broker) Transact(ctx context.Context, msgs []surgetank.Publishing, s []surgetank.Settlement) ([]surgetank.PublishResult, error) {
	if b == nil || ctx == nil {
		return nil, b.put(ctx, nil, true)
	}
	c := &queue.Transact{
		Publish: queue.Publish{Msgs: make([]queue.Incoming, len(msgs)), Results: make([]surgetank.PublishResult, len(msgs))},
		Settle:  queue.Settle{Items: s, At: b.now()},
	}
	var weight int64
	for i := range msgs {
		weight += b.prepare(&c.Publish.Msgs[i], &msgs[i], &c.Publish.Results[i])
		if err := c.Publish.Results[i].Err; err != nil {
			return nil, err
		}
	}
	if err := b.do(ctx, c, weight); err != nil {
		return nil, uncertain(err)
	}
	return c.Publish.Results, c.Err
}

// DeclareQueue creates or changes a queue. See surgetank.Broker.
func (b *Broker) DeclareQueue(ctx context.Context, name string, config surgetank.QueueConfig, mode surgetank.DeclareMode) (surgetank.QueueInfo, bool, error) {
	if mode > surgetank.DeclareUpdate {
		return surgetank.QueueInfo{}, false, surgetank.FieldErrorf("mode", "there is no way %d to declare a queue", mode)
	}
	c := &queue.Declare{Name: name, Config: config, Mode: mode, By: door.UserOf(ctx)}
	if err := b.do(ctx, c, 0); err != nil {
		return surgetank.QueueInfo{}, false, err
	}
	return c.Info, c.Created, c.Err
}

// DeleteQueue removes a queue. See surgetank.Broker.
func (b *Broker) DeleteQueue(ctx context.Context, name string, opts surgetank.DeleteOptions) (int64, error) {
	c := &queue.Delete{Name: name, Opts: opts}
	if err := b.do(ctx, c, 0); err != nil {
		return 0, err
	}
	return c.Removed, c.Err
}

// PurgeQueue drops all messages that are not leased. See surgetank.Broker.
func (b *Broker) PurgeQueue(ctx context.Context, name string) (int64, error) {
	c := &queue.Purge{Name: name}
	if err := b.pages(ctx, c, func() bool { return c.Next != 0 }); err != nil {
		return 0, err
	}
	return c.Purged, c.Err
}

// PauseQueue stops hand-outs. See surgetank.Broker.
func (b *Broker) PauseQueue(ctx context.Context, name string, d time.Duration) error {
	if d < 0 || d > surgetank.MaxDuration {
		return surgetank.FieldErrorf("for", "a pause lasts at most %v, not %v; 0 lasts until the queue is resumed", surgetank.MaxDuration, d)
	}
	return b.setPaused(ctx, &queue.Pause{Name: name, Paused: true, For: d, By: door.UserOf(ctx)})
}

// ResumeQueue ends a pause. See surgetank.Broker.
func (b *Broker) ResumeQueue(ctx context.Context, name string) error {
	return b.setPaused(ctx, &queue.Pause{Name: name})
}

func (b *Broker) setPaused(ctx context.Context, c *queue.Pause) error {
	if err := b.do(ctx, c, 0); err != nil {
		return err
	}
	return c.Err
}

// OpenBreaker stops deliveries to the target of a queue. See surgetank.Broker.
func (b *Broker) OpenBreaker(ctx context.Context, name string, opts surgetank.BreakerOptions) error {
	return b.setBreaker(ctx, &queue.SetBreaker{Name: name, Open: true, By: opts.By, Why: opts.Reason})
}

// CloseBreaker ends an outage. See surgetank.Broker.
func (b *Broker) CloseBreaker(ctx context.Context, name string, opts surgetank.BreakerOptions) error {
	return b.setBreaker(ctx, &queue.SetBreaker{Name: name, By: opts.By, Why: opts.Reason})
}

func (b *Broker) setBreaker(ctx context.Context, c *queue.SetBreaker) error {
	if err := b.do(ctx, c, 0); err != nil {
		return err
	}
	return c.Err
}

// ReportTarget tells the flow control of a queue about its target. See door.Broker.
func (b *Broker) ReportTarget(ctx context.Context, name string, r door.TargetReport) error {
	c := &queue.ReportTarget{Name: name, Report: r}
	if err := b.do(ctx, c, 0); err != nil {
		return err
	}
	return c.Err
}

// LevelHistory reads the history of a queue's limit and breaker. See surgetank.Broker.
func (b *Broker) LevelHistory(ctx context.Context, name string) (surgetank.LevelHistory, error) {
	c := &queue.LevelHistory{Name: name}
	if err := b.do(ctx, c, 0); err != nil {
		return surgetank.LevelHistory{}, err
	}
	return c.Result, c.Err
}

// Queue reads one queue. See surgetank.Broker.
func (b *Broker) Queue(ctx context.Context, name string) (surgetank.QueueInfo, error) {
	if name == "" {
		return surgetank.QueueInfo{}, fullname.Validate(name)
	}
	c := &queue.Info{Name: name}
	if err := b.do(ctx, c, 0); err != nil {
		return surgetank.QueueInfo{}, err
	}
	if c.Err != nil {
		return surgetank.QueueInfo{}, c.Err
	}
	return c.Infos[0], nil
}

// Queues reads all queues in the order of their creation. See surgetank.Broker.
func (b *Broker) Queues(ctx context.Context) ([]surgetank.QueueInfo, error) {
	c := &queue.Info{}
	var all []surgetank.QueueInfo
	err := b.pages(ctx, c, func() bool {
		all = append(all, c.Infos...)
		return c.Next != 0
	})
	if err != nil {
		return nil, err
	}
	return all, nil
}

// Explain says why messages wait. See surgetank.Administrator.
func (b *Broker) Explain(ctx context.Context, name string, opts surgetank.ExplainOptions) (surgetank.Explanation, error) {
	if name == "" {
		return surgetank.Explanation{}, fullname.Validate(name)
	}
	c := &queue.Explain{Queue: name, Opts: opts}
	if err := b.pages(ctx, c, func() bool { return c.Next != 0 }); err != nil {
		return surgetank.Explanation{}, err
	}
	return c.Found, c.Err
}

// History reads a queue's position in the history of its data directory. It also counts the
// messages in the ranges of numbers that are not settled for good. The ranges ascend and do not
// overlap.
func (b *Broker) History(ctx context.Context, name string, count ...door.NumberRange) (door.History, error) {
	c := &queue.History{Name: name, Ranges: count}
	if err := b.pages(ctx, c, func() bool { return c.Next != 0 }); err != nil {
		return door.History{}, err
	}
	return c.Found, c.Err
}

// Redrive moves messages, at opts.Rate if it is set. See surgetank.Broker.
func (b *Broker) Redrive(ctx context.Context, from string, opts surgetank.RedriveOptions) (surgetank.RedriveResult, error) {
	return b.RedriveAmong(ctx, from, opts, nil)
}

// RedriveAmong is Redrive in one of several shards. See door.Shard.
func (b *Broker) RedriveAmong(ctx context.Context, from string, opts surgetank.RedriveOptions, elsewhere func(string) bool) (surgetank.RedriveResult, error) {
	if b == nil || ctx == nil {
		return surgetank.RedriveResult{}, b.put(ctx, nil, true)
	}
	if !(opts.Rate >= 0 && opts.Rate <= 1e9) {
		return surgetank.RedriveResult{}, surgetank.FieldErrorf("rate", "rate must be between 0 and 1e9 per second, not %v", float64(opts.Rate))
	}
	c := &queue.Redrive{From: from, Opts: opts, Elsewhere: elsewhere}
	start := b.clock.Passed()
	var stuck time.Duration // how long an outbox has had no room
	for {
		if opts.Rate > 0 && !opts.DryRun {
			// Each step moves as many messages as the rate allows by now. If the rate allows none,
			// the step waits.
			allowed := int64((b.clock.Passed()-start).Seconds()*float64(opts.Rate)) + 1
			if allowed <= c.Result.Matched {
				if err := b.pause(ctx, time.Duration(float64(time.Second)/float64(opts.Rate))); err != nil {
					return c.Result, err
				}
				continue
			}
			if c.Opts.Max = allowed; opts.Max > 0 {
				c.Opts.Max = min(allowed, opts.Max)
			}
		}
		so := c.Result
		if err := b.do(ctx, c, 0); err != nil {
			return so, err // the loop possibly still uses c
		}
		if c.Err != nil {
			return c.Result, c.Err
		}
		if opts.Progress != nil {
			if f := b.calls.Do("RedriveOptions.Progress", func() { opts.Progress(c.Result.Moved) }); f != nil {
				return c.Result, surgetank.Errorf(surgetank.CodeInvalid, "the redrive ended after %d messages because its function Progress failed: %w", c.Result.Moved, f)
			}
		}
		if c.Next == 0 || opts.Max > 0 && c.Result.Matched >= opts.Max {
			return c.Result, nil
		}
		if c.Result.Matched > so.Matched {
			stuck = 0
		}
		if c.Waits {
			if err := b.pause(ctx, outboxRetry); err != nil {
				return c.Result, err
			}
			stuck += outboxRetry
			c.Skip = stuck > outboxPatience
		}
	}
}

// pause waits for d. It returns an error if the context or the broker ends first.
func (b *Broker) pause(ctx context.Context, d time.Duration) error {
	t := b.clock.NewTimer(max(time.Millisecond, d))
	defer t.Stop()
	await(b.core, t.C())
	select {
	case <-t.C():
		return nil
	case <-ctx.Done():
		return surgetank.Errorf(surgetank.CodeUncertain, "the call was stopped before it was finished: %w", ctx.Err())
	case <-b.closed:
		return errClosed()
	}
}

// A redrive into a queue of another shard waits for room in the outbox. If the outbox has no room
// for outboxPatience, the other queue has none, and the message is skipped.
const (
	outboxRetry    = 10 * time.Millisecond
	outboxPatience = 2 * time.Second
)

// Arrive stores messages from an outbox of another shard. See door.Shard.
func (b *Broker) Arrive(ctx context.Context, a door.Arrivals) (int, error) {
	c := &queue.Arrive{Arrivals: a}
	var weight int64
	for i := range a.Msgs {
		if m := &a.Msgs[i]; !a.Redriven && len(m.Deaths) == 0 && m.Message.Group == "" { // a forwarded message is new in its queue
			if groups := b.groups.find(&surgetank.Publishing{Queues: []string{a.Queue}, Message: m.Message}); groups != nil {
				m.Message.Group = groups[0]
			}
		}
		weight += int64(len(a.Msgs[i].Message.Body)) + 256
	}
	if err := b.do(ctx, c, weight); err != nil {
		return 0, err
	}
	return c.Stored, c.Err
}

var _ door.Shard = (*Broker)(nil)

// lendPool is a PoolLimit with the function that gets the pool's state.
type lendPool struct {
	queue.PoolLimit
	state func(limit, leased int, waits bool)
}

// LendPool sets the part of a pool's limit that this shard may use. See door.Shard.
func (b *Broker) LendPool(pool uint64, limit int, state func(limit, leased int, waits bool)) {
	c := &lendPool{queue.PoolLimit{Pool: pool, Limit: limit, Watch: state != nil}, state}
	if state != nil && limit <= 0 {
		c.Limit = queue.PoolClosed
	}
	_ = b.put(context.Background(), &op{cmd: c, quiet: true, release: func(error) {}}, false) // a closed broker hands out nothing
}

// poolReport is a pool's state and the function that gets it.
type poolReport struct {
	queue.PoolState
	to func(limit, leased int, waits bool)
}

// reports returns the reports of a turn. Each goes to the function of the newest LendPool that the
// turn knew, even if a later turn has another function when the report is sent.
func (b *core) reports(states []queue.PoolState) (all []poolReport) {
	for _, s := range states {
		if s.Limit == queue.PoolClosed {
			s.Limit = 0
		}
		if f := b.lent[s.Pool]; f != nil {
			all = append(all, poolReport{s, f})
		}
	}
	return all
}

// tellPools sends reports.
func (b *core) tellPools(all []poolReport) {
	for _, r := range all {
		r.to(r.Limit, r.Held, r.Waits)
	}
}
