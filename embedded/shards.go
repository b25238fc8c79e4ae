package embedded

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/disklog"
	"github.com/surgetank/surgetank/internal/door"
	"github.com/surgetank/surgetank/internal/hidden"
	"github.com/surgetank/surgetank/internal/queue"
	"github.com/surgetank/surgetank/internal/shards"
	"github.com/surgetank/surgetank/internal/vfs"
)

// several is the part of a Broker with several shards. With one shard it is empty. Each shard is a
// Broker of its own behind the router.
type several struct {
	router *shards.Broker // nil: one shard
	shards []*Broker
}

// checkShards checks the number and the directories of shards. If the options set neither, the
// broker has one shard.
func (o *Options) checkShards() error {
	if o.Shards == 0 {
		if o.Shards = len(o.ShardDirs); o.Shards == 0 {
			o.Shards = 1
		}
	}
	switch {
	case o.Shards < 1 || o.Shards > door.MaxShards:
		return surgetank.FieldErrorf("shards", "a broker has 1 to %d shards, not %d", door.MaxShards, o.Shards)
	case len(o.ShardDirs) > 0 && len(o.ShardDirs) != o.Shards:
		return surgetank.FieldErrorf("shards", "there are %d shards and %d directories for them; list one for each", o.Shards, len(o.ShardDirs))
	}
	o.shards = o.Shards
	return nil
}

// limits returns the limits of one shard's machine. With several shards, the router limits the
// number of queues.
func (o *Options) limits() queue.Limits {
	l := queue.Limits{MaxMessage: o.MaxMessage, MaxQueues: o.MaxQueues, Shards: o.shards}
	if o.shards > 1 {
		if l.MaxQueues == 0 {
			l.MaxQueues = 100_000
		}
		l.MaxQueues *= 4 // own dead-letter queues and outboxes
	}
	return l
}

// shardDir is the default directory of a shard; i counts from 0.
func shardDir(dir string, i int) string {
	if i == 0 {
		return dir
	}
	return filepath.Join(dir, fmt.Sprintf("shard-%d", i+1))
}

// dirs returns the directories of all shards.
func (o *Options) dirs(dir string) ([]string, error) {
	dirs, seen := make([]string, o.Shards), map[string]int{}
	for i := range dirs {
		dirs[i] = shardDir(dir, i)
		if i < len(o.ShardDirs) && o.ShardDirs[i] != "" {
			abs, err := filepath.Abs(o.ShardDirs[i])
			if err != nil {
				return nil, surgetank.Errorf(surgetank.CodeInvalid, "the directory %q of shard %d has no absolute path: %w", o.ShardDirs[i], i+1, err)
			}
			if i == 0 && abs != dir {
				return nil, surgetank.FieldErrorf("shards", "the first shard is in the data directory %s; leave its directory out, instead of %s", dir, abs)
			}
			dirs[i] = abs
		}
		if other, twice := seen[dirs[i]]; twice {
			return nil, surgetank.FieldErrorf("shards", "shard %d and shard %d have the same directory %s", other+1, i+1, dirs[i])
		}
		seen[dirs[i]] = i
	}
	return dirs, nil
}

// openShards opens a broker with several shards.
func (o *Options) openShards(dir string) (*Broker, error) {
	dirs, err := o.dirs(dir)
	if err != nil {
		return nil, err
	}
	return o.several(dirs, openOne)
}

// link connects a shard with the broker that the shard is a part of.
type link struct {
	shard int // from 1
	of    *joint
}

// joint is what the shards of a broker share while they are opened.
type joint struct {
	known chan struct{} // closed when made is known, or the first shard could not be opened
	made  []bool        // see shards.Made
	err   error         // of the first shard

	routed chan struct{} // closed when there is a router, or will be none
	router *shards.Broker
}

// mayMake creates the directory of a new shard. It returns CodeUnavailable if the shard's log is
// not there and was there before: its disk is probably not mounted.
func (l *link) mayMake(fs vfs.FS, dir string) error {
	if l.shard == 1 {
		return nil
	}
	there, err := disklog.Exists(fs, filepath.Join(dir, "log"))
	if err != nil || there {
		return err
	}
	<-l.of.known
	switch {
	case l.of.err != nil:
		return l.of.err
	case l.of.made[l.shard-1]:
		return shards.NotMounted(l.shard-1, "the directory "+dir)
	}
	if err := fs.Mkdir(dir); err != nil {
		return surgetank.Errorf(surgetank.CodeUnavailable, "cannot make the directory of shard %d: %w", l.shard, err)
	}
	return nil
}

// opened is called before an opening serves. first says that no try was made before: the function
// several passes this opening to the router.
func (l *link) opened(ctx context.Context, in *instance, first bool) error {
	j := l.of
	if first {
		if l.shard == 1 {
			j.made, j.err = shards.Made(ctx, in, len(j.made))
			close(j.known)
			return j.err
		}
		<-j.known
		if j.err != nil || !j.made[l.shard-1] {
			return j.err
		}
		// An empty log below a mount point is not the shard.
		if id, err := shards.ReadIdentity(ctx, in); err != nil || id.Broker != "" {
			return err
		}
		return shards.NotMounted(l.shard-1, "the directory of the shard")
	}
	select {
	case <-j.routed:
	case <-ctx.Done():
		return ctx.Err()
	}
	if j.router == nil {
		return surgetank.Errorf(surgetank.CodeUnavailable, "the broker was not opened")
	}
	return j.router.Opened(ctx, l.shard-1, in)
}

// fell is called when an opening has failed.
func (l *link) fell() {
	select {
	case <-l.of.routed:
		if r := l.of.router; r != nil {
			r.Fell(l.shard - 1)
		}
	default: // the router sees it when it is made
	}
}

// several opens all shards at the same time, and the router in front of them. A shard that cannot
// be opened is tried again later, except the first one.
func (o *Options) several(dirs []string, open func(string, Options) (*Broker, error)) (_ *Broker, err error) {
	b := &Broker{dir: dirs[0], several: several{shards: make([]*Broker, len(dirs))}}
	j := &joint{known: make(chan struct{}), made: make([]bool, len(dirs)), routed: make(chan struct{})}
	errs := make([]error, len(dirs))
	var all sync.WaitGroup
	for i, dir := range dirs {
		all.Go(func() {
			one := *o
			l := &link{shard: i + 1, of: j}
			one.link = l
			if b.shards[i], errs[i] = open(dir, one); errs[i] != nil {
				errs[i] = fmt.Errorf("opening shard %d: %w", i+1, errs[i])
			}
			if i == 0 && j.err == nil && errs[0] != nil { // the log was not opened
				j.err = errs[0]
				close(j.known)
			}
		})
	}
	all.Wait()
	defer func() {
		close(j.routed)
		if err != nil {
			for _, s := range b.shards {
				if s != nil {
					err = errors.Join(err, s.Close())
				}
			}
		}
	}()
	if err := errors.Join(errs...); err != nil {
		return nil, first(errs)
	}
	parts := make([]shards.Part, len(dirs))
	for i, s := range b.shards {
		parts[i] = shards.Part{Shard: (*hidden.Of(s)).(door.Shard), Dir: s.dir, Failed: s.Done(), Err: func() error { return s.Health().Err }}
		if in := s.at.Load(); in != nil {
			parts[i].Now = in
		} else {
			parts[i].Away = true
		}
	}
	ctx := context.Background()
	if dirs[0] != "" {
		if err := o.fewer(ctx, b.shards[0], len(dirs)); err != nil {
			return nil, err
		}
	}
	if j.router, err = shards.New(ctx, parts, shards.Options{MaxQueues: o.MaxQueues, Logger: o.Logger, Clock: o.clock}); err != nil {
		j.router = nil
		return nil, err
	}
	b.router = j.router
	*hidden.Of(b) = b.router
	return b, nil
}

// first returns the first error.
func first(errs []error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// alone checks a broker that is opened with one shard.
func (b *Broker) alone(opts Options) error {
	ctx := context.Background()
	if err := opts.fewer(ctx, b, 1); err != nil {
		return err
	}
	id, err := shards.ReadIdentity(ctx, b.inner())
	if err != nil {
		return err
	}
	return shards.Alone(id, b.dir)
}

// fewer removes shards from a broker that had more. The removed shards must have no queues.
func (o *Options) fewer(ctx context.Context, firstShard *Broker, n int) error {
	in := (*hidden.Of(firstShard)).(door.Shard)
	id, err := shards.ReadIdentity(ctx, in)
	if err != nil || id.Index > 0 || id.Count <= n {
		return err
	}
	dirs, err := shards.Dirs(ctx, in, id.Count)
	if err != nil {
		return err
	}
	for i := n; i < id.Count; i++ {
		if _, err := os.Stat(dirs[i]); err != nil {
			return surgetank.Errorf(surgetank.CodeInvalid, "this broker has %d shards and %d are configured, and the directory of shard %d is missing (%s), so its queues are not known; set shards to %d",
				id.Count, n, i+1, dirs[i], id.Count)
		}
		if err := o.unused(ctx, dirs[i], i, id); err != nil {
			return err
		}
	}
	return shards.Shrink(ctx, in, n)
}

// unused checks that a shard that is to be removed belongs to the broker and has no queues.
func (o *Options) unused(ctx context.Context, dir string, i int, of shards.Identity) (err error) {
	b, err := openOne(dir, *o)
	if err != nil {
		return fmt.Errorf("opening shard %d, which is to be removed: %w", i+1, err)
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	id, err := shards.ReadIdentity(ctx, b.inner())
	if err != nil {
		return err
	}
	if id.Broker != of.Broker || id.Index != i {
		return surgetank.Errorf(surgetank.CodeInvalid, "the directory %s is not shard %d of this broker, so it is not known whether that shard has queues; set shards to %d", dir, i+1, of.Count)
	}
	infos, err := b.Queues(ctx)
	if err != nil {
		return err
	}
	for j := range infos {
		if !door.Hidden(infos[j].Name) || !shards.Empty(&infos[j]) {
			return surgetank.Errorf(surgetank.CodeInvalid, "shard %d in %s has queues, so it cannot be removed; set shards to %d, or first start with %[3]d shards, consume its messages and delete its queues", i+1, dir, of.Count)
		}
	}
	return nil
}

// Shards returns the number of shards.
func (b *Broker) Shards() int {
	if b == nil || b.router == nil {
		return 1
	}
	return len(b.shards)
}

// Shard returns one shard, for its Health, LogStats and Dir; n counts from 1. It returns b itself
// if b has one shard, and nil if there is no such shard. Do not close it.
func (b *Broker) Shard(n int) *Broker {
	switch {
	case b == nil || n < 1 || n > b.Shards():
		return nil
	case b.router == nil:
		return b
	}
	return b.shards[n-1]
}

// healthOfAll combines the health of all shards: the worst state with its errors and times, and the
// sums of sizes and counts.
func (b *Broker) healthOfAll() Health {
	rank := map[State]int{StateServing: 1, StateFollowing: 2, StateOpening: 3, StateFailed: 4, StateClosed: 5}
	all := b.shards[0].Health()
	for _, s := range b.shards[1:] {
		h := s.Health()
		if rank[h.State] > rank[all.State] {
			all.State, all.Since, all.Err, all.LastErr, all.NextTry = h.State, h.Since, h.Err, h.LastErr, h.NextTry
		}
		if all.LastErr == nil {
			all.LastErr = h.LastErr
		}
		all.Reopenings += h.Reopenings
		all.Stalled = max(all.Stalled, h.Stalled)
		all.Full, all.FullFor = all.Full || h.Full, max(all.FullFor, h.FullFor)
		all.NeededBytes += h.NeededBytes
		all.FreeableBytes += h.FreeableBytes
		all.CallbackFailures += h.CallbackFailures
	}
	all.CallbackFailures += b.router.CallbackFailures()
	return all
}

// statsOfAll adds the figures of all logs. The times of syncs are those of the slowest.
func (b *Broker) statsOfAll() LogStats {
	all := b.shards[0].LogStats()
	for _, s := range b.shards[1:] {
		x := s.LogStats()
		all.DiskBytes += x.DiskBytes
		all.Segments += x.Segments
		all.Syncs += x.Syncs
		all.SyncP50, all.SyncP99 = max(all.SyncP50, x.SyncP50), max(all.SyncP99, x.SyncP99)
		all.Full = all.Full || x.Full
		all.Scrub.Bytes += x.Scrub.Bytes
		all.Scrub.Errors += x.Scrub.Errors
		all.Scrub.Passes = min(all.Scrub.Passes, x.Scrub.Passes)
		if x.Scrub.LastPass.Before(all.Scrub.LastPass) {
			all.Scrub.LastPass = x.Scrub.LastPass
		}
		for kind, n := range x.Scrub.Found {
			all.Scrub.Found[kind] += n
		}
		for kind, n := range x.Scrub.Damaged {
			all.Scrub.Damaged[kind] += n
		}
	}
	return all
}
