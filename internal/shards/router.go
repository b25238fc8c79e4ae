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
	"crypto/rand"
	"errors"
	"io"
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
	// Failed is closed when the shard has failed for good or was closed. Err returns the failure
	// while the shard is not open, and otherwise nil. A shard that opens again by itself has not
	// failed meanwhile.
	Failed <-chan struct{}
	Err    func() error
	// Now is the shard's first opening, if Shard is one opening after the other; nil: Shard is the
	// opening. Later openings are passed to Opened.
	Now Opening
	// Away: the shard could not be opened so far. Opened gets its first opening.
	Away bool
}

// Opening is a shard from one opening to the failure of its log.
type Opening interface {
	door.Shard
	// Failed returns a channel that is closed when the log has failed.
	Failed() <-chan struct{}
}

// Options are the settings of a router.
type Options struct {
	MaxQueues int          // of all shards together; 0: 100,000
	Logger    *slog.Logger // nil: discarded
	Clock     clock.Clock  // nil: the real clock
	Rand      io.Reader    // source of the random text that names a new broker; nil: crypto/rand
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

	entries sync.Mutex // held while an opening is entered, see Opened
	id      string     // the random text that all shards store
	made    []bool     // see Made
	noted   []string   // directories of the shards, as the first shard has stored them

	stripes [64]sync.Mutex // orders the creation and deletion of each name
	tasks   runner
	ctx     context.Context
	stop    context.CancelFunc
	work    sync.WaitGroup
}

var _ door.Broker = (*Broker)(nil)

// New returns the router over shards. The first shard must be open, and the others should be. New
// checks that the shards belong together, and reads their queues. After an error the caller closes
// the shards.
func New(ctx context.Context, parts []Part, opts Options) (*Broker, error) {
	return open(ctx, parts, opts, func(b *Broker) runner { return goroutines{b} })
}

func open(ctx context.Context, parts []Part, opts Options, run func(*Broker) runner) (*Broker, error) {
	if opts.MaxQueues == 0 {
		opts.MaxQueues = 100_000
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	if opts.Rand == nil {
		opts.Rand = rand.Reader
	}
	if opts.Clock == nil {
		opts.Clock = clock.Real{}
	}
	if len(parts) < 2 || len(parts) > door.MaxShards {
		return nil, surgetank.FieldErrorf("shards", "a broker has 2 to %d shards here, not %d", door.MaxShards, len(parts))
	}
	b := &Broker{parts: parts, opts: opts, log: opts.Logger, clock: opts.Clock, calls: callback.Calls{Logger: opts.Logger}}
	b.ctx, b.stop = context.WithCancel(context.Background())
	b.tasks = run(b)
	b.dir.init(len(parts))
	b.mover.init(b)
	b.pools.init(b)
	b.gates.b, b.subs.all = b, map[*subscription]struct{}{}
	b.moves.byOf, b.moves.stuck = map[string]*move{}, map[string]bool{}
	if err := b.begin(ctx); err != nil {
		b.stop()
		b.work.Wait()
		return nil, err
	}
	return b, nil
}

// begin enters the shards that are open.
func (b *Broker) begin(ctx context.Context) error {
	b.entries.Lock()
	defer b.entries.Unlock()
	if err := b.identify(ctx); err != nil {
		return err
	}
	if err := b.resolve(ctx, anyShard, b.first); err != nil {
		return err
	}
	for i := range b.parts {
		if b.parts[i].Away {
			continue
		}
		if err := b.parts[i].lost(i, b.load(ctx, i, b.parts[i].now())); err != nil {
			return err
		}
	}
	if err := b.reserve(ctx, anyShard, b.first); err != nil {
		return err
	}
	for i := range b.parts {
		if b.parts[i].Away {
			continue
		}
		if err := b.parts[i].lost(i, b.mover.prepare(ctx, i, b.parts[i].now())); err != nil {
			return err
		}
	}
	for i := range b.parts {
		if b.parts[i].Away || b.down(i) {
			b.pools.down(i)
		}
	}
	b.mover.start()
	return nil
}

// first returns the first opening of a shard, or nil if the shard is away.
func (b *Broker) first(i int) door.Shard {
	if b.parts[i].Away {
		return nil
	}
	return b.parts[i].now()
}

// now returns the opening for the calls of New.
func (p *Part) now() door.Shard {
	if p.Now != nil {
		return p.Now
	}
	return p.Shard
}

// lost judges an error of a call of New to a shard. If the log of the shard has failed meanwhile,
// the shard is away and the error is nil, except for the first shard.
func (p *Part) lost(i int, err error) error {
	if err == nil || i == 0 || p.Now == nil {
		return err
	}
	select {
	case <-p.Now.Failed():
		p.Away = true
		return nil
	default:
		return err
	}
}

// Opened enters a later opening of a shard, before the opening gets any call. It checks that the
// directory is the shard's, and reads its queues: the answers of calls can be lost with the opening
// before. CodeInvalid and CodeCorrupt mean that no other try can help.
func (b *Broker) Opened(ctx context.Context, i int, now door.Shard) error {
	b.entries.Lock()
	defer b.entries.Unlock()
	if i > 0 {
		if err := b.identifyOne(ctx, i, now); err != nil {
			return err
		}
	}
	open := func(j int) door.Shard {
		switch {
		case j == i:
			return now
		case b.down(j):
			return nil
		}
		return b.parts[j].Shard
	}
	if err := b.resolve(ctx, i, open); err != nil {
		return err
	}
	if err := b.load(ctx, i, now); err != nil {
		return err
	}
	if err := b.reserve(ctx, i, open); err != nil {
		return err
	}
	if err := b.mover.prepare(ctx, i, now); err != nil {
		return err
	}
	b.pools.up(i)
	b.mover.start()
	return nil
}

// Fell says that an opening of a shard has failed and gets no call any more. It does not wait for
// the shard.
func (b *Broker) Fell(i int) { b.pools.down(i) }

// down reports whether a shard is not open now. The shards that are brokers of their own are always
// open.
func (b *Broker) down(i int) bool { return door.PhaseOf(b.parts[i].Shard)&1 == 1 }

// load reads the queues of a shard. The directory then agrees with the shard's log.
func (b *Broker) load(ctx context.Context, shard int, now door.Shard) error {
	infos, err := now.Queues(ctx)
	if err != nil {
		return err
	}
	queues := make(map[string]entry, len(infos))
	for i := range infos {
		info := &infos[i]
		switch {
		case door.Hidden(info.Name):
			b.mover.found(shard, info)
		case !b.moves.has(info.Name): // otherwise the move says where the queue is
			queues[info.Name] = entry{info.ID, info.Config.DeadLetter}
		}
	}
	if name, at, ok := b.dir.load(shard, queues, b.moves.has); !ok {
		return surgetank.Errorf(surgetank.CodeCorrupt,
			"the queue %q is in shard %d and in shard %d; a directory was replaced by an older copy, or belongs to another time: restore all shards from one backup", name, at+1, shard+1)
	}
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
			return nil, b.unavailable(i)
		}
	default:
	}
	return p.Shard, nil
}

// unavailable returns the error of a call to a shard that is not open.
func (b *Broker) unavailable(i int) error {
	var cause error
	if p := &b.parts[i]; p.Err != nil {
		cause = p.Err()
	}
	if cause == nil {
		return surgetank.Errorf(surgetank.CodeUnavailable, "shard %d is not open at this moment, so its queues are unavailable; try again", i+1)
	}
	return surgetank.Errorf(surgetank.CodeUnavailable, "shard %d is not open, so its queues are unavailable; the other shards work; try again later: %w", i+1, cause)
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

// MessagePhase returns the phase of the shard of a message. See door.PhaseOfMessage.
func (b *Broker) MessagePhase(id surgetank.MessageID) uint64 {
	return door.PhaseOf(b.parts[b.shardOf(id)].Shard)
}

// CallbackFailures returns how many calls of users' functions failed in the router.
func (b *Broker) CallbackFailures() int64 { return b.calls.Failures() }
