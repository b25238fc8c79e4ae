package shards

import (
	"context"

	"github.com/surgetank/surgetank/internal/door"
)

// pools divides the limits of pools among shards.
type pools struct{ b *Broker }

func (p *pools) init(b *Broker) { p.b = b }

func (p *pools) attach(ctx context.Context, _ int, shard door.Shard, name string, opts door.SubscribeOptions) (door.Subscription, error) {
	return shard.Attach(ctx, name, opts)
}
