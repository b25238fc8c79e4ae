package server

import (
	"context"
	"slices"
	"time"

	"github.com/surgetank/surgetank/embedded"
)

// openings returns how often each shard was opened by this server. A shard that is not open has 0.
func (s *Server) openings() []uint64 {
	list := make([]uint64, s.broker.Shards())
	for i := range list {
		if h := s.broker.Shard(i + 1).Health(); h.State == embedded.StateServing {
			list[i] = h.Reopenings + 1
		}
	}
	return list
}

// shardLook is the time between two looks at the shards.
const shardLook = 250 * time.Millisecond

// followShards completes the work that an opening of a shard makes possible: policies that changed
// while the shard was not open, AMQP's bindings of its queues, and the configuration file.
func (s *Server) followShards() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	tick := time.NewTicker(shardLook)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-s.quit:
			return
		}
		now := s.openings()
		if slices.Equal(now, s.seen) {
			continue
		}
		if !slices.ContainsFunc(now, func(n uint64) bool { return n > 0 }) || now[0] == 0 {
			continue // without the first shard nothing can be done
		}
		err := s.completeShards(ctx)
		if err != nil {
			s.log.Warn("the work after the opening of a shard failed and is repeated", "error", err)
		} else if slices.Equal(now, s.openings()) {
			s.seen = now
		}
	}
}

func (s *Server) completeShards(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := s.doored.Again(ctx); err != nil {
		return err
	}
	if s.amqp != nil {
		if err := s.amqp.Again(ctx); err != nil {
			return err
		}
	}
	if s.declared {
		return nil
	}
	_, err := s.declare(ctx)
	return err
}
