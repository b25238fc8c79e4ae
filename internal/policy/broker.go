package policy

import (
	"context"
	"hash/maphash"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/auth"
	"github.com/surgetank/surgetank/internal/door"
	"github.com/surgetank/surgetank/internal/fullname"
	"github.com/surgetank/surgetank/internal/metacache"
	"github.com/surgetank/surgetank/internal/settings"
	"github.com/surgetank/surgetank/internal/tally"
)

// Broker is a door.Broker that applies policies to its queues, and enforces the limits of virtual
// hosts. Open makes one. A plain broker has at most one policy Broker, shared by its doors. All
// methods are safe for use by many goroutines.
//
// A declaration locks gate for reading while it reads the policies and changes the queue. A change
// of policies swaps the policies, locks gate for writing once, and then updates all queues. So each
// queue is declared either with the new policies or before that update begins. A stripe lock orders
// the declarations and the update for each queue.
//
// Several Brokers over one plain broker follow each other's policies and declarations. Each change
// of a queue looks afterwards whether another Broker has changed the queue's declaration or policy
// meanwhile, and if so makes the change again. The record of a queue's declaration makes this
// sound:
//
//   - The first policy of a queue stores a pending record, then reads the queue, then stores the
//     declaration that it has read. Only then do the settings of the policy reach the queue. A
//     declaration that has not seen the pending record is in what was read.
//   - The record stays until the queue is deleted. If there was a moment without it, a Broker could
//     take the settings of a policy for the declaration.
//   - A Broker that has changed the queue compares the record's version with the version that the
//     change has used.
//
// The owners of exclusive queues are known only to the Broker of their connection.
type Broker struct {
	door.Broker
	// Refused counts queues that a limit refused. Nil: they are not counted. Set it before the
	// first use.
	Refused *tally.Counts

	auth *auth.Store
	log  *slog.Logger

	records *metacache.Cache[record]
	life    context.Context // Unfollow ends it
	stop    context.CancelFunc

	change  sync.Mutex // serializes changes of policies
	applied uint64     // version of the policies that every queue obeys; guarded by change
	gate    sync.RWMutex
	all     atomic.Pointer[set]

	stripes [64]sync.Mutex
	making  sync.Mutex // held while a queue is created in a virtual host with a limit, so that queues are counted one by one

	quorum sync.Map    // full names of quorum queues; see types.go
	typed  atomic.Bool // quorum is complete

	mu        sync.RWMutex
	under     map[string]own   // the queues that a policy has changed, by full name
	exclusive map[string]claim // the queues with an exclusive owner, by full name
	watchers  map[*func()]struct{}
	behind    bool // policies were changed that update has not looked at
	updating  bool // update runs
}

// own is the recorded declaration of a queue.
type own struct {
	id      uint64 // the queue's id; another queue with the same name has another id
	pending bool   // the queue's settings are the declaration, and a Broker is about to record them
	config  surgetank.QueueConfig

	version uint64 // of the record
}

var stripeSeed = maphash.MakeSeed()

// Phase returns the phase of the plain broker. See door.Phased.
func (b *Broker) Phase() uint64 { return door.PhaseOf(b.Broker) }

// MessagePhase returns the phase of a message's shard. See door.PhaseOfMessage.
func (b *Broker) MessagePhase(id surgetank.MessageID) uint64 {
	return door.PhaseOfMessage(b.Broker, id)
}

func (b *Broker) lock(queue string) (unlock func()) {
	m := &b.stripes[maphash.String(stripeSeed, queue)%uint64(len(b.stripes))]
	m.Lock()
	return m.Unlock
}

// owned returns the recorded declaration of a queue. If it is damaged or missing, owned returns
// false, and the version is right.
func (b *Broker) owned(queue string) (own, bool) {
	b.mu.RLock()
	o, ok := b.under[queue]
	b.mu.RUnlock()
	if ok {
		return o, true
	}
	r, good := b.records.Get(ownKey(queue)) // good: follow is about to see the record
	o = r.V.own
	o.version = r.Version
	return o, good
}

// Watch registers f, which is called after every change of policies when all queues have their new
// settings. f must not change policies.
func (b *Broker) Watch(f func()) (stop func()) {
	key := &f
	b.mu.Lock()
	b.watchers[key] = struct{}{}
	b.mu.Unlock()
	return func() {
		b.mu.Lock()
		delete(b.watchers, key)
		b.mu.Unlock()
	}
}

// tell calls the registered functions.
func (b *Broker) tell() {
	b.mu.RLock()
	list := make([]func(), 0, len(b.watchers))
	for f := range b.watchers {
		list = append(list, *f)
	}
	b.mu.RUnlock()
	for _, f := range list {
		f()
	}
}

// DeclareQueue creates or changes a queue. The declaration and the queue's policy combine. See
// surgetank.Broker.
func (b *Broker) DeclareQueue(ctx context.Context, name string, c surgetank.QueueConfig, mode surgetank.DeclareMode) (surgetank.QueueInfo, bool, error) {
	b.gate.RLock()
	defer b.gate.RUnlock()
	defer b.lock(name)()
	if err := b.mine(ctx, name); err != nil {
		return surgetank.QueueInfo{}, false, err
	}
	return b.declare(ctx, name, c, mode)
}

// Change creates a queue, or changes it, to the settings that f returns. f gets the declared
// settings (Declared) and whether the queue is paused (Config.Paused), or nil if there is no queue.
// No other change can come between f and the change. f must not call the Broker.
func (b *Broker) Change(ctx context.Context, name string, f func(now *surgetank.QueueInfo) (surgetank.QueueConfig, error)) (surgetank.QueueInfo, bool, error) {
	none := surgetank.QueueInfo{}
	b.gate.RLock()
	defer b.gate.RUnlock()
	defer b.lock(name)()
	if err := b.mine(ctx, name); err != nil {
		return none, false, err
	}
	var now *surgetank.QueueInfo
	switch info, err := b.Broker.Queue(ctx, name); surgetank.CodeOf(err) {
	case "":
		info = b.dress(info)
		now = &info
	case surgetank.CodeNotFound:
	default:
		return none, false, err
	}
	c, err := f(now)
	if err != nil {
		return none, false, err
	}
	return b.declare(ctx, name, c, surgetank.DeclareOrUpdate)
}

// declare creates or changes a queue, and counts queues that a limit refuses. The caller has locked
// gate for reading, and holds the queue's stripe.
func (b *Broker) declare(ctx context.Context, name string, c surgetank.QueueConfig, mode surgetank.DeclareMode) (surgetank.QueueInfo, bool, error) {
	info, created, err := b.declareUncounted(ctx, name, c, mode)
	switch surgetank.CodeOf(err) {
	case surgetank.CodeTooLarge, surgetank.CodeFull: // limits of the broker and of the virtual host
		b.Refused.Refused(err, tally.Queues)
	}
	return info, created, err
}

func (b *Broker) declareUncounted(ctx context.Context, name string, c surgetank.QueueConfig, mode surgetank.DeclareMode) (surgetank.QueueInfo, bool, error) {
	vhost, plain := fullname.Split(name)
	p := b.match(vhost, Queues, plain)
	_, limited := b.auth.QueueLimit(vhost)
	_, has := b.owned(name)
	info, created, err := b.declareOnce(ctx, name, c, mode, p, has, limited)
	if err == nil && !created && mode == surgetank.DeclareIfAbsent {
		return info, created, nil
	}
	if err == nil && !has {
		b.records.Refresh()
		if _, recorded := b.owned(name); recorded && p == nil {
			err = errRaced
		}
	}
	for try := 1; ; try++ {
		next, again := b.raced(name, p, err, try)
		if !again {
			return info, created, err
		}
		now, qerr := b.Broker.Queue(ctx, name)
		if qerr != nil {
			return info, created, qerr
		}
		p = next
		info, err = b.declareOver(ctx, now, c, p)
	}
}

// declareOnce declares a queue under the policy p, which can be nil.
func (b *Broker) declareOnce(ctx context.Context, name string, c surgetank.QueueConfig, mode surgetank.DeclareMode, p *compiled, has, limited bool) (surgetank.QueueInfo, bool, error) {
	if p == nil && !has && !limited {
		return b.Broker.DeclareQueue(ctx, name, c, mode)
	}
	vhost, plain := fullname.Split(name)
	if limited {
		b.making.Lock()
		defer b.making.Unlock()
	}
	now, err := b.Broker.Queue(ctx, name)
	switch surgetank.CodeOf(err) {
	case "":
		switch mode {
		case surgetank.DeclareIfAbsent:
			return b.dress(now), false, nil
		case surgetank.DeclareNew:
			return b.Broker.DeclareQueue(ctx, name, c, mode) // returns the error that the queue exists
		}
		if err := settings.Validate(c); err != nil {
			return surgetank.QueueInfo{}, false, err
		}
		info, err := b.declareOver(ctx, now, c, p)
		return info, false, err
	case surgetank.CodeNotFound:
	default:
		return surgetank.QueueInfo{}, false, err
	}
	if mode != surgetank.DeclareUpdate {
		if err := b.room(ctx, vhost, plain); err != nil {
			return surgetank.QueueInfo{}, false, err
		}
	}
	// The queue is created with its declaration and gets its policy in a second step. The caller is
	// answered only after both. After a crash in between, Open completes the second step.
	info, created, err := b.Broker.DeclareQueue(ctx, name, c, mode)
	if err != nil || p == nil || !created {
		return info, created, err
	}
	info, err = b.declareOver(ctx, info, c, p)
	return info, true, err
}

// declareOver declares an existing queue, whatever its declaration was.
func (b *Broker) declareOver(ctx context.Context, now surgetank.QueueInfo, c surgetank.QueueConfig, p *compiled) (surgetank.QueueInfo, error) {
	old, _ := b.owned(now.Name)
	return b.set(ctx, now, old, c, pauseOf(&c), p)
}

// room refuses a queue if its virtual host has no room for it. It counts all queues, so it runs
// only for virtual hosts with a limit.
func (b *Broker) room(ctx context.Context, vhost, name string) error {
	limit, limited := b.auth.QueueLimit(vhost)
	if !limited {
		return nil
	}
	queues, err := b.Broker.Queues(ctx)
	if err != nil && !door.IsPartial(err) { // queues of a shard that is not open do not count
		return err
	}
	n := 0
	for i := range queues {
		if v, _ := fullname.Split(queues[i].Name); v == vhost {
			n++
		}
	}
	if n < limit {
		return nil
	}
	e := surgetank.Errorf(surgetank.CodeFull, "cannot declare queue '%.60s': queue limit in vhost '%.60s' (%d) is reached; remove some, or have the limit raised", name, vhost, limit)
	e.Limit = surgetank.LimitVhostQueues
	return e
}

// pauseState is the part of a queue's settings that no policy changes: whether the queue is paused,
// and until when.
type pauseState struct {
	paused bool
	until  time.Time
}

func pauseOf(c *surgetank.QueueConfig) pauseState { return pauseState{c.Paused, c.PausedUntil} }

func (p pauseState) apply(c *surgetank.QueueConfig) { c.Paused, c.PausedUntil = p.paused, p.until }

// set applies the combination of c and a policy, which may be nil, to a queue. c replaces the
// recorded declaration old. The error is errRaced if another Broker was faster. The caller holds
// the queue's stripe.
func (b *Broker) set(ctx context.Context, now surgetank.QueueInfo, old own, c surgetank.QueueConfig, pause pauseState, p *compiled) (surgetank.QueueInfo, error) {
	version, has := old.version, old.id == now.ID
	pauseState{}.apply(&c)
	result := c
	if p != nil {
		vhost, _ := fullname.Split(now.Name)
		result = p.rules.effective(vhost, c)
		if IsPassage(result.DeadLetter) {
			if _, _, err := b.Broker.DeclareQueue(ctx, result.DeadLetter, PassageConfig, surgetank.DeclareIfAbsent); err != nil {
				return now, err
			}
		}
	}
	// The declaration is recorded before the queue's settings change.
	if has && (old.pending || !settings.Equal(old.config, c)) || !has && p != nil {
		var err error
		if version, err = b.saveOwn(ctx, now.Name, own{id: now.ID, config: c}, version); err != nil {
			return now, err
		}
	}
	pause.apply(&result)
	if !settings.Equal(result, now.Config) {
		info, _, err := b.Broker.DeclareQueue(ctx, now.Name, result, surgetank.DeclareUpdate)
		if err != nil {
			return now, err
		}
		now = info
	}
	b.records.Refresh()
	if o, _ := b.owned(now.Name); o.version != version {
		return now, errRaced
	}
	return b.dress(now), nil
}

// forget removes the record of a deleted queue. If removing fails, the record does no harm, because
// another queue of the same name has another id.
func (b *Broker) forget(ctx context.Context, name string, version uint64) {
	if version == 0 {
		return
	}
	// If another Broker has changed the record, the record is of another queue.
	if _, err := b.records.Set(ctx, ownKey(name), nil, version); err != nil && surgetank.CodeOf(err) != surgetank.CodeExists {
		b.log.Warn("the record of a queue's declaration could not be removed; it is void, and goes when the server starts next", "queue", name, "err", err)
	}
}

// DeleteQueue removes a queue. See surgetank.Broker.
func (b *Broker) DeleteQueue(ctx context.Context, name string, opts surgetank.DeleteOptions) (int64, error) {
	defer b.lock(name)()
	if err := b.mine(ctx, name); err != nil {
		return 0, err
	}
	o, _ := b.owned(name)
	n, err := b.Broker.DeleteQueue(ctx, name, opts)
	if err == nil {
		b.dropClaim(name)
		b.forget(ctx, name, o.version)
		b.SetQuorum(name, false)
	}
	return n, err
}

// dress adds the effect of the policy to a queue's info.
func (b *Broker) dress(i surgetank.QueueInfo) surgetank.QueueInfo {
	o, has := b.owned(i.Name)
	if !has || o.pending || o.id != i.ID {
		return i
	}
	c := o.config
	pauseOf(&i.Config).apply(&c)
	vhost, name := fullname.Split(i.Name)
	if p := b.match(vhost, Queues, name); p != nil {
		i.Policy = p.Name
	} else if settings.Equal(c, i.Config) {
		return i
	}
	i.Own = &c
	return i
}

// Queue reads one queue. See surgetank.Broker.
func (b *Broker) Queue(ctx context.Context, name string) (surgetank.QueueInfo, error) {
	i, err := b.Broker.Queue(ctx, name)
	if err != nil {
		return i, err
	}
	return b.dress(i), nil
}

// Queues reads all queues. See surgetank.Broker.
func (b *Broker) Queues(ctx context.Context) ([]surgetank.QueueInfo, error) {
	list, err := b.Broker.Queues(ctx)
	for i := range list {
		list[i] = b.dress(list[i])
	}
	return list, err
}
