package broker

import (
	"context"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/door"
	"github.com/surgetank/surgetank/internal/queue"
)

// MoveStep does one step of moving a queue to another shard. See door.Shard.
func (b *Broker) MoveStep(ctx context.Context, s *door.MoveStep) error {
	c := &queue.MoveStep{MoveStep: s}
	var weight int64
	for i := range s.Copies {
		weight += int64(len(s.Copies[i].Message.Body)) + 256
	}
	for _, f := range s.Frames {
		weight += int64(len(f))
	}
	if err := b.do(ctx, c, weight); err != nil {
		return uncertain(err)
	}
	if c.Err != nil {
		return c.Err
	}
	if s.Op != door.MoveRead {
		return nil
	}
	r := newReader(b)
	s.Copies = s.Copies[:0]
	for i := range c.Read {
		x := &c.Read[i]
		var d surgetank.Delivery
		ok, err := r.delivery(&x.Handout, &d)
		if err != nil {
			return err
		}
		if !ok {
			continue // settled meanwhile
		}
		x.Message, x.MoveCopied.Time, x.Deaths = d.Message, d.Time, d.Deaths
		s.Copies = append(s.Copies, x.MoveCopied)
	}
	return nil
}

// MoveQueue refuses a move: this broker is one shard. See surgetank.Administrator.
func (b *Broker) MoveQueue(ctx context.Context, name string, _ surgetank.MoveOptions) (surgetank.MoveResult, error) {
	if _, err := b.Queue(ctx, name); err != nil {
		return surgetank.MoveResult{}, err
	}
	return surgetank.MoveResult{}, surgetank.FieldErrorf("shard", "this broker has one shard, so a queue cannot move to another one; set server.shards (docs/shards.md)")
}
