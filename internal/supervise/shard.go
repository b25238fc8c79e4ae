package supervise

import (
	"context"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/door"
)

// A Supervisor can be one shard of a broker. See door.Shard.
var _ door.Shard = (*Supervisor)(nil)

// Arrive stores messages from an outbox of another shard. The caller repeats a call without an
// answer. See door.Shard.
func (s *Supervisor) Arrive(ctx context.Context, a door.Arrivals) (int, error) {
	return write(s, ctx, func(o *opening) (int, error) { return o.Arrive(ctx, a) })
}

// RedriveAmong moves messages to queues of several shards. See door.Shard.
func (s *Supervisor) RedriveAmong(ctx context.Context, from string, opts surgetank.RedriveOptions, elsewhere func(string) bool) (surgetank.RedriveResult, error) {
	return write(s, ctx, func(o *opening) (surgetank.RedriveResult, error) { return o.RedriveAmong(ctx, from, opts, elsewhere) })
}

// loan is the part of a pool's limit that this shard may use.
type loan struct {
	limit int
	state func(limit, leased int, waits bool)
}

// LendPool sets the part of a pool's limit that this shard may use, also for later openings. See
// door.Shard.
func (s *Supervisor) LendPool(pool uint64, limit int, state func(limit, leased int, waits bool)) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock() // so that an opening gets the loans in their order
	if state == nil {
		delete(s.loans, pool)
	} else {
		s.loans[pool] = loan{limit, state}
	}
	if o := s.cur.Load(); o != nil {
		o.LendPool(pool, limit, state)
	}
}

// lendAgain sends all loans to a new opening, after its subscriptions were attached with the loans
// that were known then. The opening reports the state of each pool. The caller has locked mu.
func (s *Supervisor) lendAgain(o *opening) {
	for pool, l := range s.loans { // unordered: each pool has a limit of its own
		o.LendPool(pool, l.limit, l.state)
	}
}
