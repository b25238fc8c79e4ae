// Package shards is a broker with several shards: the router in front of several logs, each with
// its own loop.
//
//	callers ──▶ router ──┬──▶ shard 1: loop, log     queues a, b, b.dead   metadata
//	                     ├──▶ shard 2: loop, log     queues c, d
//	                     └──▶ shard 3: loop, log     queue  e
//
// Every queue is in one shard. The router knows the shard of each name and sends every call there.
// A call for queues of several shards is split, and its answer waits for all parts. All parts keep
// the promises of a shard; the order of confirms holds only within a shard.
//
// Metadata is in the first shard, except the marks of SetMetaLater, which are in the shard of their
// queue. Messages whose next queue is in another shard move in two steps; see mover.go.
//
// With one shard there is no router.
package shards

import (
	"context"
	"errors"
	"log/slog"
	"sync"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/callback"
	"github.com/surgetank/surgetank/internal/clock"
	"github.com/surgetank/surgetank/internal/door"
)

// Part is one shard.
type Part struct {
	door.Shard
	Dir string // its data directory, for errors; "" if it has none
	// Failed is closed when the shard has failed for good or was closed. Err then returns the
	// failure, or nil. A shard that opens again by itself has not failed meanwhile.
	Failed <-chan struct{}
	Err    func() error
}

// Options are the settings of a router.
type Options struct {
	MaxQueues int          // of all shards together; 0: 100,000
	Logger    *slog.Logger // nil: discarded
	Clock     clock.Clock  // nil: the real clock
}

// Broker is the router. It implements door.Broker.
type Broker struct {
	parts []Part
	opts  Options
	log   *slog.Logger
	clock clock.Clock
	calls callback.Calls
	dir   directory
	mover mover
	pools pools
	gates gates
	moves moves
	subs  subscriptions
	marks sync.Map // names of marks that this opening wrote, see SetMetaLater

	stripes [64]sync.Mutex // orders the creation and deletion of each name
	ctx     context.Context
	stop    context.CancelFunc
	work    sync.WaitGroup
}

var _ door.Broker = (*Broker)(nil)

// New returns the router over shards that are open. It checks that they belong together, and reads
// their queues. After an error the caller closes the shards.
func New(ctx context.Context, parts []Part, opts Options) (*Broker, error) {
	if opts.MaxQueues == 0 {
		opts.MaxQueues = 100_000
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	if opts.Clock == nil {
		opts.Clock = clock.Real{}
	}
	if len(parts) < 2 || len(parts) > door.MaxShards {
		return nil, surgetank.FieldErrorf("shards", "a broker has 2 to %d shards here, not %d", door.MaxShards, len(parts))
	}
	b := &Broker{parts: parts, opts: opts, log: opts.Logger, clock: opts.Clock, calls: callback.Calls{Logger: opts.Logger}}
	b.ctx, b.stop = context.WithCancel(context.Background())
	b.dir.init(len(parts))
	b.mover.init(b)
	b.pools.init(b)
	b.gates.b, b.subs.all = b, map[*subscription]struct{}{}
	if err := b.identify(ctx); err != nil {
		return nil, err
	}
	if err := b.resolve(ctx); err != nil {
		return nil, b.closed(err)
	}
	for i := range parts {
		if err := b.load(ctx, i); err != nil {
			return nil, b.closed(err)
		}
	}
	if err := b.reserve(ctx); err != nil {
		return nil, b.closed(err)
	}
	if err := b.mover.start(ctx); err != nil {
		return nil, b.closed(err)
	}
	return b, nil
}

// closed ends the router's goroutines after New failed.
func (b *Broker) closed(err error) error {
	b.stop()
	b.work.Wait()
	return err
}

// load reads the queues of a shard.
func (b *Broker) load(ctx context.Context, shard int) error {
	infos, err := b.parts[shard].Queues(ctx)
	if err != nil {
		return err
	}
	for i := range infos {
		info := &infos[i]
		if door.Hidden(info.Name) {
			b.mover.found(shard, info)
			continue
		}
		if at, ok := b.dir.add(info.Name, shard); !ok {
			return surgetank.Errorf(surgetank.CodeCorrupt,
				"the queue %q is in shard %d and in shard %d; a directory was replaced by an older copy, or belongs to another time: restore all shards from one backup", info.Name, at+1, shard+1)
		}
		b.dir.relocate(info.Name, info.ID, shard)
		b.dir.refer(shard, info.Name, info.Config.DeadLetter)
	}
	b.dir.loaded(shard)
	return nil
}

// Shards returns the number of shards.
func (b *Broker) Shards() int { return len(b.parts) }

// part returns a shard, or an error if the shard has failed.
func (b *Broker) part(i int) (door.Shard, error) {
	p := &b.parts[i]
	select {
	case <-p.Failed:
		if err := p.Err(); err != nil { // otherwise the shard was closed, as its calls say
			return nil, surgetank.Errorf(surgetank.CodeUnavailable, "shard %d has failed, so its queues are unavailable; the other shards work: %w", i+1, err)
		}
	default:
	}
	return p.Shard, nil
}

// Close closes all shards at the same time.
func (b *Broker) Close() error {
	if b == nil {
		return nil
	}
	b.stop()
	b.work.Wait()
	errs := make([]error, len(b.parts))
	var all sync.WaitGroup
	for i := range b.parts {
		all.Go(func() { errs[i] = b.parts[i].Close() })
	}
	all.Wait()
	return errors.Join(errs...)
}

// Phase changes with each failure and each opening of a shard. See door.Phased.
func (b *Broker) Phase() (n uint64) {
	odd := uint64(0)
	for i := range b.parts {
		p := door.PhaseOf(b.parts[i].Shard)
		n, odd = n+p, odd|p&1
	}
	return n | odd
}

// CallbackFailures returns how many calls of users' functions failed in the router.
func (b *Broker) CallbackFailures() int64 { return b.calls.Failures() }
