package supervise

import (
	"cmp"
	"maps"
	"slices"
	"sync"

	"github.com/surgetank/surgetank"
)

// attachers is how many queues get their subscriptions at the same time.
const attachers = 64

// inOrder returns the subscriptions in the order in which they were made. The caller has locked mu.
func (s *Supervisor) inOrder() []*subscription {
	return slices.SortedFunc(maps.Keys(s.subs), func(a, b *subscription) int { return cmp.Compare(s.subs[a], s.subs[b]) })
}

// attachAll attaches all subscriptions and watches to a new opening that does not serve yet. The
// subscriptions of one queue are attached in the order in which they were made, so that exclusive
// and single subscriptions keep their rights. attachAll returns an error if the opening fails
// meanwhile.
func (s *Supervisor) attachAll(o *opening) error {
	s.mu.Lock()
	subs := s.inOrder()
	s.mu.Unlock()
	byQueue := map[string][]*subscription{}
	var queues []string
	for _, sub := range subs {
		if byQueue[sub.queue] == nil {
			queues = append(queues, sub.queue)
		}
		byQueue[sub.queue] = append(byQueue[sub.queue], sub)
	}
	var group sync.WaitGroup
	seats := make(chan struct{}, attachers)
	for _, q := range queues {
		seats <- struct{}{}
		group.Go(func() {
			for _, sub := range byQueue[q] {
				if !o.failed() && s.ctx.Err() == nil {
					sub.attach(o)
				}
			}
			<-seats
		})
	}
	group.Wait()
	err := s.watchAgain(o)
	if o.failed() {
		for _, sub := range subs {
			sub.detach()
		}
		return o.Err()
	}
	return cmp.Or(err, s.ctx.Err())
}

// attach attaches the subscription to a new opening, with the credit that is not used. If the queue
// is gone, the subscription ends.
func (sub *subscription) attach(o *opening) {
	s := sub.s
	s.mu.Lock()
	limit := 0
	if p := s.pools[sub.opts.Pool]; p != nil {
		limit = p.limit
	}
	loan, lent := s.loans[sub.opts.Pool]
	s.mu.Unlock()
	sub.mu.Lock()
	if sub.left || sub.err != nil {
		sub.mu.Unlock()
		return
	}
	granted := sub.granted
	credit := max(0, granted-sub.used())
	sub.mu.Unlock()
	opts := sub.opts
	pooled := limit > 0
	if opts.Credit = credit; pooled || lent {
		opts.Credit = 0 // the limit must apply before the credit
	}
	in, err := o.Attach(s.ctx, sub.queue, opts)
	if err != nil {
		if !o.failed() && s.ctx.Err() == nil {
			s.logger.Warn("a subscription ended, because it could not be attached again", "queue", sub.queue, "name", opts.Name, "error", err)
			sub.finish(err)
		}
		return
	}
	switch {
	case lent: // a pool without members has no limit, so the limit comes after the first member
		o.LendPool(opts.Pool, loan.limit, loan.state)
		in.AddCredit(credit)
	case pooled:
		in.SetPoolLimit(limit)
		in.AddCredit(credit)
	}
	sub.mu.Lock()
	left := sub.left
	if !left {
		sub.inner, sub.of = in, o
		if more := sub.granted - granted; more != 0 {
			in.AddCredit(more)
		}
	}
	sub.mu.Unlock()
	if left {
		_ = in.Close() // fails only if the opening has failed
	}
}

var _ surgetank.Subscription = (*subscription)(nil)
