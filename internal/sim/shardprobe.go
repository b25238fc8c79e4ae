package sim

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/broker"
	"github.com/surgetank/surgetank/internal/clock"
	"github.com/surgetank/surgetank/internal/commitlog"
	"github.com/surgetank/surgetank/internal/disklog"
	"github.com/surgetank/surgetank/internal/door"
	"github.com/surgetank/surgetank/internal/memlog"
	"github.com/surgetank/surgetank/internal/queue"
	"github.com/surgetank/surgetank/internal/shards"
	"github.com/surgetank/surgetank/internal/vfs"
)

// shardProber checks the state that a power failure at this moment would leave. It clones the disks
// of all shards, opens all shards and the router, lets all transfers go on to their end, and
// compares the messages with the ledger. The run itself is not affected.
type shardProber struct {
	w      *shardWorld
	rng    *rand.Rand
	random *rand.ChaCha8
	opens  int
	busy   bool
}

func newShardProber(w *shardWorld) *shardProber {
	return &shardProber{w: w, rng: rand.New(rand.NewPCG(w.o.Seed, 0x9e0be)), random: idSource(^w.o.Seed)}
}

// changed is called after every change of the file system of a shard.
func (p *shardProber) changed(i int, op vfs.Op, name string) {
	w := p.w
	if w.ledger.bad != "" || p.rng.IntN(100) >= w.o.Probe || w.dead() {
		return
	}
	w.tracef("probe: power fails after operation %#x on %s of shard %d", op, name, i+1)
	disks := make([]image, len(w.slots))
	for i, s := range w.slots {
		disks[i].fs = s.disk.(*fileDisk).mem.CrashClone(p.rng, drawCrash(p.rng))
		disks[i].fs.SetCapacity(0)
	}
	p.crashed(disks)
}

// turn is called after every turn of a shard.
func (p *shardProber) turn() {
	w := p.w
	if w.o.Files || w.ledger.bad != "" || p.rng.IntN(100) >= w.o.Probe {
		return
	}
	disks := make([]image, len(w.slots))
	for i, s := range w.slots {
		disks[i].store = s.disk.(*memDisk).store.Copy()
	}
	p.crashed(disks)
}

// image is the disk of one shard after a power failure.
type image struct {
	fs    *vfs.Mem
	store *memlog.Store
}

// crashed recovers and checks the state after a power failure.
func (p *shardProber) crashed(disks []image) {
	n := &p.w.count
	for depth := 0; depth < 2 && p.w.o.Files && p.rng.IntN(6) == 0; depth++ { // the power fails again in recovery or in a transfer
		disks = p.again(disks)
		n.one([]Point{ProbesInRecovery, ProbesTwice}[depth])
	}
	n.one(CrashStates)
	n.one(Probes)
	n.one(ShardStates)
	r := p.open(disks, nil)
	if r.err == nil {
		r.unlimit()
	}
	if r.err == nil {
		r.finish()
	}
	if r.err == nil {
		r.read()
	}
	if r.err != nil {
		p.w.ledger.violation("opens again", "after a power failure: %v", r.err)
		return
	}
	p.w.ledger.recovered(r.found)
}

// again starts recovery and the transfers. It returns the state after a power failure during them
// or directly after them.
func (p *shardProber) again(disks []image) []image {
	var left []image
	clone := func() {
		left = make([]image, len(disks))
		for i := range disks {
			left[i].fs = disks[i].fs.CrashClone(p.rng, drawCrash(p.rng))
		}
	}
	until := 1 + p.rng.IntN(60)
	r := p.open(disks, func(op vfs.Op, _ string) {
		if op&vfs.OpChange != 0 {
			if until--; until == 0 {
				clone()
			}
		}
	})
	if r.err == nil && left == nil {
		r.finish()
	}
	if left == nil {
		clone()
	}
	return left
}

// shardsRecovered is a router that was opened during the run.
type shardsRecovered struct {
	p      *shardProber
	clock  *clock.Manual
	pumps  []func()
	parts  []*broker.Stepped
	router *shards.Stepped
	err    error
	found  []shardQueue
}

func (p *shardProber) open(disks []image, hook func(vfs.Op, string)) *shardsRecovered {
	w := p.w
	r := &shardsRecovered{p: p, clock: clock.NewManual(w.clock.Now())}
	parts := make([]shards.Part, len(disks))
	for i := range disks {
		p.opens++
		o := broker.Options{Clock: r.clock, Seed: w.o.Seed, Incarnation: incarnation(w.o.Seed, 1<<23+p.opens), Limits: w.limits(), SnapshotBytes: 1 << 40}
		o.Limits.TurnBytes, o.Limits.TurnScan = 0, 0
		if m := disks[i].fs; m != nil {
			fs := vfs.NewInject(m)
			fs.SetHook(hook)
			snaps, err := disklog.OpenSnapshots(fs, dataDir)
			if r.err = err; err != nil {
				return r
			}
			o.Snapshots = snaps
			o.OpenLog = func(from commitlog.Offset, hooks broker.LogHooks) (commitlog.Replay, commitlog.Log, error) {
				replay, l, err := disklog.OpenStepped(logOptions(fs, dataDir, false, p.random, from, hooks.Full, nil))
				if err != nil {
					return nil, nil, err
				}
				r.pumps = append(r.pumps, func() { l.Pump() })
				return replay, l, nil
			}
		} else {
			store := disks[i].store
			o.Snapshots = store.Snapshots()
			o.OpenLog = func(from commitlog.Offset, _ broker.LogHooks) (commitlog.Replay, commitlog.Log, error) {
				replay, l, err := store.OpenStepped(memlog.Options{From: from, Gaps: w.o.Gaps})
				if err != nil {
					return nil, nil, err
				}
				r.pumps = append(r.pumps, func() { l.Pump() })
				return replay, l, nil
			}
		}
		b, err := broker.OpenStepped(o, broker.Stepping{Drive: func() { r.drive() }, Watch: r.turn})
		if r.err = err; err != nil {
			return r
		}
		r.parts = append(r.parts, b)
		parts[i] = shards.Part{Shard: b}
	}
	r.router, r.err = shards.OpenStepped(background, parts, shards.Options{Clock: r.clock, Rand: p.random})
	return r
}

func (r *shardsRecovered) drive() (worked bool) {
	for _, pump := range r.pumps {
		pump()
	}
	for _, b := range r.parts {
		if b.Tick() {
			worked = true
		}
	}
	return worked
}

func (r *shardsRecovered) turn(t broker.Turn) {
	for _, c := range t.Commands {
		if c, ok := c.(*queue.Arrive); ok {
			r.p.w.count.N[TransfersRepeated] += int64(c.Known)
			c.Known = 0
		}
	}
}

// unlimit removes the limits of all queues. Otherwise a message that has arrived stays in its
// outbox as long as a full queue refuses the message before it.
func (r *shardsRecovered) unlimit() {
	for i, b := range r.parts {
		infos, err := b.Queues(background)
		for _, info := range infos {
			c := info.Config
			if door.Hidden(info.Name) || c.MaxMessages == 0 && c.MaxBytes == 0 {
				continue
			}
			if c.MaxMessages, c.MaxBytes = 0, 0; err == nil {
				_, _, err = b.DeclareQueue(background, info.Name, c, surgetank.DeclareUpdate)
			}
		}
		if err != nil {
			r.err = fmt.Errorf("removing the limits of shard %d: %w", i+1, err)
			return
		}
	}
}

// finish lets the transfers go on until they end.
func (r *shardsRecovered) finish() {
	first := func(int) int { return 0 }
	for pauses := 0; pauses < 12; {
		if r.drive() || r.router.Step(first) {
			continue
		}
		if d, ok := r.router.Due(); ok {
			r.clock.Advance(min(d, 50*time.Millisecond))
			pauses++
			continue
		}
		return
	}
}

// read reads every message of every queue and outbox.
func (r *shardsRecovered) read() {
	for i, b := range r.parts {
		infos, err := b.Queues(background)
		if err != nil {
			r.err = err
			return
		}
		for _, info := range infos {
			if shards.Empty(&info) {
				continue
			}
			ds, err := b.Peek(background, info.Name, surgetank.PeekOptions{Max: 100_000, MaxBytes: 1 << 30})
			if err != nil {
				r.err = fmt.Errorf("reading queue %q of shard %d: %w", info.Name, i+1, err)
				return
			}
			for _, d := range ds {
				if d.Damage != "" {
					r.err = fmt.Errorf("reading message %v of queue %q: %s", d.ID, info.Name, d.Damage)
					return
				}
			}
			r.found = append(r.found, shardQueue{info.Name, ds})
		}
	}
}
