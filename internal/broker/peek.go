package broker

import (
	"context"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/queue"
)

// Peek shows messages without leasing them. See surgetank.Broker.
func (b *Broker) Peek(ctx context.Context, name string, opts surgetank.PeekOptions) ([]surgetank.Delivery, error) {
	if opts.Max <= 0 {
		opts.Max = 10
	}
	if opts.MaxBytes <= 0 {
		opts.MaxBytes = 4 << 20
	}
	c := &queue.Peek{Queue: name, Opts: opts}
	if err := b.pages(ctx, c, func() bool { return c.Next != 0 }); err != nil {
		return nil, err
	}
	if c.Err != nil {
		return nil, c.Err
	}
	r := newReader(b)
	var out []surgetank.Delivery
	bytes := 0
	for i := range c.Found {
		d, ok, err := r.peeked(&c.Found[i])
		if err != nil {
			return out, err
		}
		if !ok {
			continue
		}
		out = append(out, d)
		if bytes += len(d.Body); bytes >= opts.MaxBytes {
			break
		}
	}
	return out, nil
}

// peeked reads a message for a peek. A message that cannot be read is shown without its body, and
// with the reason. It returns false if the message does not exist any more.
func (r *reader) peeked(p *queue.Peeked) (d surgetank.Delivery, ok bool, err error) {
	damage := p.Damage
	if damage == "" {
		ok, err := r.delivery(&p.Handout, &d)
		if err == nil {
			d.State, d.Failure, d.Waiting = p.State, p.Failure, p.Waits
			switch {
			case p.State != surgetank.StateDelayed:
			case p.Due != 0:
				d.Due = time.Unix(0, p.Due).UTC()
			default:
				d.Due = d.Time.Add(d.Delay) // only the message's record contains the publisher's delay
			}
			return d, ok, nil
		}
		if _, known := r.broker.unreadable(&p.Handout, err); !known {
			return d, false, err
		}
		damage = err.Error()
		if p.State != surgetank.StateLeased {
			p.State = surgetank.StateDamaged
		}
	}
	return surgetank.Delivery{
		ID: p.ID, Queue: p.Queue.Name(), Message: surgetank.Message{Group: p.Group},
		Time: time.Unix(0, p.Time).UTC(), Attempt: p.Attempt, Redelivered: p.Redelivered, State: p.State, Damage: damage, Failure: p.Failure,
	}, true, nil
}
