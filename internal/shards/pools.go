package shards

import (
	"context"
	"sync"

	"github.com/surgetank/surgetank/internal/door"
)

// A pool is a limit on the leased messages of some subscriptions. If they are in several shards,
// the router divides the limit: it lends each shard a part, and the parts together are never above
// the limit. A shard that has messages for the pool and no room reports this. The router then
// lowers the part of another shard, waits until that shard reports how much it really freed, and
// lends the freed messages to the waiting shard.
//
//	idle parts        go to the shards that wait
//	all parts used    the larger parts become smaller until the parts of waiting shards are equal
//	limit below the   the parts rotate: a shard without a part gets one when another shard's
//	number of shards  messages are settled
//
// A pool with subscriptions in one shard only is left to that shard.
type pools struct {
	b    *Broker
	mu   sync.Mutex
	byID map[uint64]*pool
	away uint64 // the shards that are not open, as bits
}

type pool struct {
	ps      *pools
	id      uint64
	limit   int         // 0: none
	members map[int]int // subscriptions by shard
	parts   []share     // by shard; nil while one shard has the whole limit
	turns   uint64
	gen     uint64 // counts the parts that were sent
}

// share is the part of one shard.
type share struct {
	asked int // the newest limit that was sent to the shard
	lent  int // messages that the shard can have leased at most: asked, or more while a lowered limit takes effect
	held  int // leased messages, by the newest report
	waits bool
	turn  uint64 // when the part grew last
	gen   uint64 // of the newest part that was sent
	known bool   // the shard has reported since then
}

func (ps *pools) init(b *Broker) { ps.b, ps.byID = b, map[uint64]*pool{} }

// attach attaches a member of a pool.
func (ps *pools) attach(ctx context.Context, at int, shard door.Shard, name string, opts door.SubscribeOptions) (door.Subscription, error) {
	sub, err := shard.Attach(ctx, name, opts)
	if err != nil {
		return nil, err
	}
	ps.mu.Lock()
	defer ps.mu.Unlock()
	p := ps.byID[opts.Pool]
	if p == nil {
		p = &pool{ps: ps, id: opts.Pool, members: map[int]int{}}
		ps.byID[opts.Pool] = p
	}
	p.members[at]++
	if p.members[at] == 1 && (p.limit > 0 || p.parts != nil) {
		p.apply()
	}
	return &member{Subscription: sub, pool: p, at: at}, nil
}

// down takes the parts of a shard that is not open: its leases have ended, and its next opening
// gets parts when it asks for them.
func (ps *pools) down(at int) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	ps.away |= 1 << at
	for _, p := range ps.byID {
		if p.parts != nil && p.members[at] > 0 {
			p.parts[at] = share{turn: p.parts[at].turn}
			p.ask(at, 0)
			p.balance()
		}
	}
}

// up says that the next opening of a shard gets calls soon. It reports to its pools.
func (ps *pools) up(at int) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	ps.away &^= 1 << at
}

// apply sends the limit to all shards, after the limit or the set of shards changed.
func (p *pool) apply() {
	b := p.ps.b
	switch {
	case p.limit <= 0 || len(p.members) < 2:
		for at := range p.members {
			b.parts[at].LendPool(p.id, p.limit, nil)
		}
		p.parts = nil
		return
	case p.parts == nil: // the shards can have any number leased: lend nothing until they report
		p.parts = make([]share, len(b.parts))
		for at := range p.members {
			if p.ps.away&(1<<at) == 0 {
				p.parts[at].lent = p.limit
			}
		}
		for at := range p.members {
			p.ask(at, 0)
		}
		return
	}
	for at := range p.parts {
		part := 0
		if p.members[at] > 0 {
			part = min(p.parts[at].asked, p.limit/len(p.members))
		}
		p.ask(at, part)
	}
	p.balance()
}

// ask sends a shard its part.
func (p *pool) ask(at, part int) {
	s := &p.parts[at]
	s.asked = part
	s.lent = max(s.lent, part) // until the shard reports
	s.known, s.waits = false, false
	p.gen++
	gen := p.gen
	s.gen = gen
	p.ps.b.parts[at].LendPool(p.id, part, func(_, leased int, waits bool) { p.report(at, gen, leased, waits) })
}

// report enters the state of a shard. A report that does not know the newest part is ignored.
func (p *pool) report(at int, gen uint64, leased int, waits bool) {
	p.ps.mu.Lock()
	defer p.ps.mu.Unlock()
	if p.parts == nil || gen != p.parts[at].gen {
		return
	}
	s := &p.parts[at]
	s.known = true
	s.held, s.waits, s.lent = leased, waits, max(s.asked, leased)
	p.balance()
}

// balance lends free messages to waiting shards, and lowers the parts of others.
func (p *pool) balance() {
	free, waiting := p.limit, 0
	for i := range p.parts {
		s := &p.parts[i]
		if free -= s.lent; s.waits && s.asked == s.lent {
			waiting++
		}
	}
	for ; free > 0 && waiting > 0; waiting-- {
		i := p.next()
		s := &p.parts[i]
		more := max(1, free/waiting)
		free -= more
		p.turns++
		s.turn = p.turns
		p.ask(i, s.lent+more)
	}
	for i := range p.parts {
		s := &p.parts[i]
		if !s.waits || s.asked != s.lent || free > 0 {
			continue
		}
		if from := p.donor(i); from >= 0 {
			d := &p.parts[from]
			if d.held < d.lent && !d.waits {
				p.ask(from, d.held)
			} else {
				p.ask(from, (d.lent+s.lent)/2)
			}
		}
	}
}

// next returns the waiting shard with the smallest part; of several, the one whose part grew
// longest ago.
func (p *pool) next() int {
	best := -1
	for i := range p.parts {
		s := &p.parts[i]
		if !s.waits || s.asked != s.lent {
			continue
		}
		if best < 0 || s.lent < p.parts[best].lent || s.lent == p.parts[best].lent && s.turn < p.parts[best].turn {
			best = i
		}
	}
	return best
}

// donor returns the shard whose part is lowered for a waiting shard, or -1.
func (p *pool) donor(to int) int {
	best := -1
	for i := range p.parts {
		d := &p.parts[i]
		if i == to || d.lent == 0 {
			continue
		}
		if !d.known || d.asked < d.lent {
			return -1 // the shard reports soon, or a lowered part becomes free soon
		}
		gap := d.lent - p.parts[to].lent
		idle := d.held < d.lent && !d.waits
		if !idle && gap < 2 && !(gap == 1 && p.parts[to].lent == 0) {
			continue
		}
		if best < 0 || idle || d.lent > p.parts[best].lent || d.lent == p.parts[best].lent && d.turn < p.parts[best].turn {
			best = i
		}
	}
	return best
}

// member is a subscription of a pool.
type member struct {
	door.Subscription
	pool *pool
	at   int
	once sync.Once
}

// SetPoolLimit sets the limit of the pool over all shards.
func (m *member) SetPoolLimit(n int) {
	p := m.pool
	p.ps.mu.Lock()
	defer p.ps.mu.Unlock()
	if n = max(0, n); n != p.limit || p.parts == nil {
		p.limit = n
		p.apply()
	}
}

// Cancel and Close end the membership. Leases of a cancelled subscription still count in its shard.
func (m *member) Cancel() error {
	defer m.leave()
	return m.Subscription.Cancel()
}

func (m *member) Close() error {
	defer m.leave()
	return m.Subscription.Close()
}

func (m *member) leave() {
	m.once.Do(func() {
		p := m.pool
		p.ps.mu.Lock()
		defer p.ps.mu.Unlock()
		if p.members[m.at]--; p.members[m.at] > 0 {
			return
		}
		delete(p.members, m.at)
		if len(p.members) == 0 {
			delete(p.ps.byID, p.id)
			return
		}
		p.apply()
	})
}
