package shards

import (
	"context"
	"sync"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/door"
)

// owner returns the shard of a receipt. An impossible receipt belongs to the first shard, which
// rejects it.
func (b *Broker) owner(r *surgetank.Receipt) int { return b.shardOf(r.ID) }

func (b *Broker) shardOf(id surgetank.MessageID) int {
	if i := b.dir.numbered(id.Queue); i < len(b.parts) {
		return i
	}
	return 0
}

// only returns the shard of all settlements, if there is one. A call without settlements belongs to
// all shards: its answer says that earlier calls are durable.
func (b *Broker) only(s []surgetank.Settlement) (shard int, ok bool) {
	if len(s) == 0 {
		return 0, false
	}
	for i := range s {
		at := b.owner(&s[i].Receipt)
		if i > 0 && at != shard {
			return 0, false
		}
		shard = at
	}
	return shard, true
}

// Settle ends or extends leases. See surgetank.Broker.
func (b *Broker) Settle(ctx context.Context, s []surgetank.Settlement) ([]surgetank.SettleResult, error) {
	if b == nil || ctx == nil {
		return nil, noBroker(b)
	}
	if i, ok := b.only(s); ok { // a shard that has failed answers that the leases have ended
		return b.parts[i].Settle(ctx, s)
	}
	return wait(ctx, func(done func([]surgetank.SettleResult, error)) error { return b.settle(ctx, s, done) })
}

// SettleAsync sends settlements to their shards. See surgetank.Broker.
func (b *Broker) SettleAsync(ctx context.Context, s []surgetank.Settlement, done func([]surgetank.SettleResult, error)) error {
	if b == nil {
		return noBroker(b)
	}
	if i, ok := b.only(s); ok {
		return b.parts[i].SettleAsync(ctx, s, done)
	}
	return b.settle(ctx, s, done)
}

// settle splits settlements by shards. If a shard fails, its settlements have its error.
func (b *Broker) settle(ctx context.Context, s []surgetank.Settlement, done func([]surgetank.SettleResult, error)) error {
	type part struct {
		items []surgetank.Settlement
		of    []int
	}
	parts := make([]part, len(b.parts))
	for i := range s {
		p := &parts[b.owner(&s[i].Receipt)]
		p.items, p.of = append(p.items, s[i]), append(p.of, i)
	}
	var mu sync.Mutex
	left, results := 1, make([]surgetank.SettleResult, len(s))
	for i := range parts {
		if len(parts[i].items) > 0 || len(s) == 0 {
			left++
		}
	}
	leave := func() bool {
		mu.Lock()
		defer mu.Unlock()
		left--
		return left == 0
	}
	enter := func(p *part, r []surgetank.SettleResult, err error) {
		mu.Lock()
		defer mu.Unlock()
		for i, of := range p.of {
			if results[of] = err; err == nil {
				results[of] = r[i]
			}
		}
	}
	accepted := 0
	var first error
	for i := range parts {
		p := &parts[i]
		if len(p.items) == 0 && len(s) > 0 {
			continue
		}
		var answer func([]surgetank.SettleResult, error)
		if done != nil {
			answer = func(r []surgetank.SettleResult, err error) {
				enter(p, r, err)
				if leave() {
					done(results, nil)
				}
			}
		}
		err := b.parts[i].SettleAsync(ctx, p.items, answer)
		if err == nil {
			accepted++
			continue
		}
		if first == nil {
			first = err
		}
		enter(p, nil, err)
		leave()
	}
	switch {
	case done == nil:
		return first
	case accepted == 0:
		return first
	}
	if leave() {
		b.calls.Apart("SettleAsync's done", func() { done(results, nil) })
	}
	return nil
}

// Transact publishes and settles as one step. All queues and receipts must be in one shard, because
// only one log can make the step durable. See surgetank.Broker.
func (b *Broker) Transact(ctx context.Context, msgs []surgetank.Publishing, s []surgetank.Settlement) ([]surgetank.PublishResult, error) {
	if b == nil || ctx == nil {
		return nil, noBroker(b)
	}
	side, err := b.gates.enter(ctx, msgs)
	if err != nil {
		return nil, err
	}
	defer b.gates.leave(side)
	if door.IsForwarding(ctx) {
		return b.forward(ctx, msgs, s)
	}
	shard, where := -1, ""
	meet := func(at int, what string) error {
		if shard >= 0 && at != shard {
			return surgetank.Errorf(surgetank.CodeInvalid, "a transaction stays within one shard: %s is in shard %d and %s in shard %d; move one of the queues (surgetank queue rm and set with shard), or do without the transaction",
				where, shard+1, what, at+1)
		}
		if shard < 0 {
			shard, where = at, what
		}
		return nil
	}
	for i := range msgs {
		for _, name := range msgs[i].Queues {
			at, err := b.find(name)
			if err != nil {
				return nil, err
			}
			if _, ok := b.dir.locate(name); !ok {
				_, err := b.Queue(ctx, name) // the error says that there is no such queue
				return nil, err
			}
			if err := meet(at, "the queue "+shown(name)); err != nil {
				return nil, err
			}
		}
	}
	for i := range s {
		if err := meet(b.owner(&s[i].Receipt), "the message "+s[i].Receipt.ID.String()); err != nil {
			return nil, err
		}
	}
	p, err := b.part(max(shard, 0))
	if err != nil {
		return nil, err
	}
	return p.Transact(ctx, msgs, s)
}

// forward is Transact for a door that forwards messages. Messages for queues of other shards are
// published to outboxes, in the transaction of the settlements.
func (b *Broker) forward(ctx context.Context, msgs []surgetank.Publishing, s []surgetank.Settlement) ([]surgetank.PublishResult, error) {
	base, ok := b.only(s)
	if !ok && len(s) > 0 {
		return nil, surgetank.Errorf(surgetank.CodeInvalid, "the settlements of a transaction belong to several shards; settle those of each shard for themselves")
	}
	own := make([]surgetank.Publishing, len(msgs))
	for i := range msgs {
		own[i] = msgs[i]
		own[i].Queues = make([]string, 0, len(msgs[i].Queues))
		for _, name := range msgs[i].Queues {
			at, known := b.dir.locate(name)
			if known && at != base {
				if err := b.mover.ensure(ctx, base, name, false); err != nil {
					return nil, err
				}
				name, own[i].Message.TTL, own[i].Message.Delay = door.Outbox(name, false), 0, 0
			}
			own[i].Queues = append(own[i].Queues, name)
		}
	}
	p, err := b.part(base)
	if err != nil {
		return nil, err
	}
	return p.Transact(ctx, own, s)
}
