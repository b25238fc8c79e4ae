package shards

import (
	"cmp"
	"context"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/door"
)

// mover moves messages from the outboxes of the shards to their queues in other shards:
//
//	outbox of shard 1          mover                      queue of shard 2
//	─────────────────          ─────                      ────────────────
//	leased        ────────▶    Arrive  ────────▶          arrived, with the outbox's position
//	acked         ◀────────    Settle  ◀────────          durable
//
// The first step, from the message's queue into the outbox, is one record of the first shard. If
// the process ends between Arrive and Settle, the message is still in the outbox and is sent again,
// and the second shard knows its number. So a message is never lost and never stored twice.
//
// Each outbox is a state machine (box.go). It works only while messages wait. So messages keep
// their order, and a full or unavailable queue delays no other queue.
type mover struct {
	b     *Broker
	mu    sync.Mutex
	boxes map[boxKey]*box
}

type boxKey struct {
	shard    int // of the outbox
	to       string
	redriven bool
}

// compare orders outboxes.
func (k boxKey) compare(o boxKey) int {
	if k.redriven != o.redriven {
		if k.redriven {
			return 1
		}
		return -1
	}
	return cmp.Or(cmp.Compare(k.shard, o.shard), cmp.Compare(k.to, o.to))
}

// Limits of the mover.
const (
	moveCredit = 256     // messages of an outbox that are in the mover's memory
	moveBytes  = 4 << 20 // bytes of the messages of one Arrive
	moveFirst  = 20 * time.Millisecond
	moveLast   = 5 * time.Second // the longest wait before a failed step is repeated
)

func (m *mover) init(b *Broker) { m.b, m.boxes = b, map[boxKey]*box{} }

// found enters an outbox that a shard has.
func (m *mover) found(shard int, info *surgetank.QueueInfo) {
	if to, redriven, ok := door.OutboxOf(info.Name); ok {
		m.enter(boxKey{shard, to, redriven}, info.ID)
	}
}

func (m *mover) enter(k boxKey, id uint64) *box {
	m.mu.Lock()
	defer m.mu.Unlock()
	x := m.boxes[k]
	if x == nil {
		x = &box{boxKey: k, m: m, id: strconv.FormatUint(id, 10)}
		m.boxes[k] = x
	}
	return x
}

// prepare creates the outboxes that the queues of a shard need, before the shard gets calls. now is
// the shard's opening.
func (m *mover) prepare(ctx context.Context, shard int, now door.Shard) error {
	for _, to := range m.b.dir.outboxes(shard) {
		if _, err := m.make(ctx, now, boxKey{shard, to, false}); err != nil {
			return err
		}
	}
	return nil
}

// start attaches the mover to all outboxes that have messages or get some.
func (m *mover) start() {
	m.mu.Lock()
	all := make([]*box, 0, len(m.boxes))
	for _, x := range m.boxes { // unordered: sorted below
		all = append(all, x)
	}
	m.mu.Unlock()
	slices.SortFunc(all, func(x, y *box) int { return x.compare(y.boxKey) })
	for _, x := range all {
		x.wake()
	}
}

// make creates an outbox if there is none.
func (m *mover) make(ctx context.Context, in door.Shard, k boxKey) (*box, error) {
	m.mu.Lock()
	x := m.boxes[k]
	m.mu.Unlock()
	if x != nil {
		return x, nil
	}
	info, _, err := in.DeclareQueue(ctx, door.Outbox(k.to, k.redriven), surgetank.QueueConfig{}, surgetank.DeclareIfAbsent)
	if err != nil {
		return nil, err
	}
	return m.enter(k, info.ID), nil
}

// ensure creates an outbox if there is none, and watches it.
func (m *mover) ensure(ctx context.Context, shard int, to string, redriven bool) error {
	k := boxKey{shard, to, redriven}
	m.mu.Lock()
	_, has := m.boxes[k]
	m.mu.Unlock()
	if has {
		return nil
	}
	p, err := m.b.part(shard)
	if err != nil {
		return err
	}
	x, err := m.make(ctx, p, k)
	if err != nil {
		return err
	}
	x.wake()
	return nil
}

// want is ensure as a task, for callers that must not wait. The task repeats a failed try.
func (m *mover) want(shard int, to string, redriven bool) {
	m.mu.Lock()
	_, has := m.boxes[boxKey{shard, to, redriven}]
	m.mu.Unlock()
	if has || m.b.ctx.Err() != nil {
		return
	}
	var wait backOff
	m.b.tasks.start(func() (time.Duration, bool) {
		if m.b.ctx.Err() != nil || m.ensure(m.b.ctx, shard, to, redriven) == nil {
			return 0, false
		}
		return wait.next(), true
	})
}

// deleted drops the messages that are on their way to a queue that was deleted.
func (m *mover) deleted(ctx context.Context, name string) {
	for i := range m.b.parts {
		for _, redriven := range [...]bool{false, true} {
			m.mu.Lock()
			x := m.boxes[boxKey{i, name, redriven}]
			m.mu.Unlock()
			if x == nil {
				continue
			}
			p, err := m.b.part(i)
			if err != nil {
				continue
			}
			if h, err := p.History(ctx, x.name()); err == nil {
				x.mu.Lock()
				x.below = h.Next
				x.mu.Unlock()
			}
		}
	}
}

// idsFor returns the ids of all outboxes for a queue.
func (m *mover) idsFor(name string) (ids []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for k, x := range m.boxes { // unordered: sorted below
		if k.to == name {
			ids = append(ids, x.id)
		}
	}
	slices.Sort(ids)
	return ids
}
