package supervise

import (
	"context"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/door"
)

// Publish stores messages. See surgetank.Publisher.
func (s *Supervisor) Publish(ctx context.Context, msgs []surgetank.Publishing) ([]surgetank.PublishResult, error) {
	o, err := s.acquire(ctx, msgs)
	if err != nil {
		return nil, err
	}
	return o.Publish(ctx, msgs)
}

// PublishAsync stores messages. It waits for the next opening, as Publish does, but for a shorter
// time if the broker is a shard. See surgetank.Publisher.
func (s *Supervisor) PublishAsync(ctx context.Context, msgs []surgetank.Publishing, done func([]surgetank.PublishResult, error)) error {
	for {
		o, err := s.acquireIn(ctx, msgs, true)
		if err != nil {
			return err
		}
		// An error means that the opening has not accepted the call, so the next one can.
		if err := o.PublishAsync(ctx, msgs, done); err == nil || !o.failed() || ctx == nil || ctx.Err() != nil {
			return err
		}
	}
}

// Transact publishes and settles as one. See surgetank.Broker.
func (s *Supervisor) Transact(ctx context.Context, msgs []surgetank.Publishing, list []surgetank.Settlement) ([]surgetank.PublishResult, error) {
	o, err := s.acquire(ctx, msgs)
	if err != nil {
		return nil, err
	}
	return o.Transact(ctx, msgs, list)
}

// Receive leases messages once. If the opening fails during the wait, the wait continues in the
// next opening. See surgetank.Consumer.
func (s *Supervisor) Receive(ctx context.Context, queue string, opts surgetank.ReceiveOptions) ([]surgetank.Delivery, error) {
	var until time.Duration
	if s != nil {
		until = s.clock.Passed() + opts.Wait
	}
	for {
		o, err := s.acquire(ctx, nil)
		if err != nil {
			return nil, err
		}
		list, err := o.Receive(ctx, queue, opts)
		if !o.failed() || ctx == nil || ctx.Err() != nil || opts.NoAck && len(list) > 0 {
			return list, err
		}
		// The leases of list have ended with the opening.
		opts.Wait = max(0, until-s.clock.Passed())
	}
}

// Peek shows messages. See surgetank.Consumer.
func (s *Supervisor) Peek(ctx context.Context, queue string, opts surgetank.PeekOptions) ([]surgetank.Delivery, error) {
	return read(s, ctx, func(o *opening) ([]surgetank.Delivery, error) { return o.Peek(ctx, queue, opts) })
}

// DeclareQueue creates or changes a queue. See surgetank.Administrator.
func (s *Supervisor) DeclareQueue(ctx context.Context, name string, config surgetank.QueueConfig, mode surgetank.DeclareMode) (info surgetank.QueueInfo, created bool, err error) {
	o, err := s.acquire(ctx, nil)
	if err != nil {
		return info, false, err
	}
	return o.DeclareQueue(ctx, name, config, mode)
}

// DeleteQueue removes a queue. See surgetank.Administrator.
func (s *Supervisor) DeleteQueue(ctx context.Context, name string, opts surgetank.DeleteOptions) (int64, error) {
	return write(s, ctx, func(o *opening) (int64, error) { return o.DeleteQueue(ctx, name, opts) })
}

// PurgeQueue drops messages. See surgetank.Administrator.
func (s *Supervisor) PurgeQueue(ctx context.Context, name string) (int64, error) {
	return write(s, ctx, func(o *opening) (int64, error) { return o.PurgeQueue(ctx, name) })
}

// DropDamaged drops damaged messages. See surgetank.Administrator.
func (s *Supervisor) DropDamaged(ctx context.Context, name string) (int64, error) {
	return write(s, ctx, func(o *opening) (int64, error) { return o.DropDamaged(ctx, name) })
}

// PauseQueue stops deliveries. See surgetank.Administrator.
func (s *Supervisor) PauseQueue(ctx context.Context, name string, d time.Duration) error {
	return change(s, ctx, func(o *opening) error { return o.PauseQueue(ctx, name, d) })
}

// ResumeQueue ends a pause. See surgetank.Administrator.
func (s *Supervisor) ResumeQueue(ctx context.Context, name string) error {
	return change(s, ctx, func(o *opening) error { return o.ResumeQueue(ctx, name) })
}

// OpenBreaker stops deliveries to a target. See surgetank.Administrator.
func (s *Supervisor) OpenBreaker(ctx context.Context, name string, opts surgetank.BreakerOptions) error {
	return change(s, ctx, func(o *opening) error { return o.OpenBreaker(ctx, name, opts) })
}

// CloseBreaker ends an outage. See surgetank.Administrator.
func (s *Supervisor) CloseBreaker(ctx context.Context, name string, opts surgetank.BreakerOptions) error {
	return change(s, ctx, func(o *opening) error { return o.CloseBreaker(ctx, name, opts) })
}

// ReportTarget tells the flow control of a queue about its target. See door.Broker.
func (s *Supervisor) ReportTarget(ctx context.Context, queue string, r door.TargetReport) error {
	return change(s, ctx, func(o *opening) error { return o.ReportTarget(ctx, queue, r) })
}

// LevelHistory reads the history of a limit. See surgetank.Administrator.
func (s *Supervisor) LevelHistory(ctx context.Context, name string) (surgetank.LevelHistory, error) {
	return read(s, ctx, func(o *opening) (surgetank.LevelHistory, error) { return o.LevelHistory(ctx, name) })
}

// Redrive moves messages. At a failure it returns the number of messages moved so far, and
// CodeUncertain. See surgetank.Administrator.
func (s *Supervisor) Redrive(ctx context.Context, from string, opts surgetank.RedriveOptions) (surgetank.RedriveResult, error) {
	return write(s, ctx, func(o *opening) (surgetank.RedriveResult, error) { return o.Redrive(ctx, from, opts) })
}

// Queue reads one queue. See surgetank.Administrator.
func (s *Supervisor) Queue(ctx context.Context, name string) (surgetank.QueueInfo, error) {
	return read(s, ctx, func(o *opening) (surgetank.QueueInfo, error) { return o.Queue(ctx, name) })
}

// Queues reads all queues. See surgetank.Administrator.
func (s *Supervisor) Queues(ctx context.Context) ([]surgetank.QueueInfo, error) {
	return read(s, ctx, func(o *opening) ([]surgetank.QueueInfo, error) { return o.Queues(ctx) })
}

// Explain says why messages wait. See surgetank.Administrator.
func (s *Supervisor) Explain(ctx context.Context, queue string, opts surgetank.ExplainOptions) (surgetank.Explanation, error) {
	return read(s, ctx, func(o *opening) (surgetank.Explanation, error) { return o.Explain(ctx, queue, opts) })
}

// History reads a queue's history. See door.Broker.
func (s *Supervisor) History(ctx context.Context, queue string, count ...door.NumberRange) (door.History, error) {
	return read(s, ctx, func(o *opening) (door.History, error) { return o.History(ctx, queue, count...) })
}
