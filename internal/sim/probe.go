package sim

import (
	"fmt"
	"math/rand/v2"
	"slices"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/broker"
	"github.com/surgetank/surgetank/internal/commitlog"
	"github.com/surgetank/surgetank/internal/disklog"
	"github.com/surgetank/surgetank/internal/queue"
	"github.com/surgetank/surgetank/internal/queue/model"
	"github.com/surgetank/surgetank/internal/vfs"
)

// prober checks, during the run, the state that a power failure at this moment would leave. It
// clones the file system as it would be after the power failure, and sometimes makes the power fail
// again during recovery. It opens the clone as the next process would, and compares its messages
// with the clients' knowledge and, one by one, with the model. The run itself is not affected, so
// one run is checked at very many crash points.
type prober struct {
	w      *world
	disk   *fileDisk
	rng    *rand.Rand
	random *rand.ChaCha8
}

func newProber(w *world, d *fileDisk) *prober {
	p := &prober{w: w, disk: d, rng: rand.New(rand.NewPCG(w.o.Seed, 0x9e0be)), random: idSource(^w.o.Seed)}
	if w.o.Probe > 0 {
		d.changed = p.changed
	}
	return p
}

// changed is called after every change of the file system.
func (p *prober) changed(op vfs.Op, name string) {
	if p.w.ledger.bad != "" || p.rng.IntN(100) >= p.w.o.Probe {
		return
	}
	crash := drawCrash(p.rng)
	p.w.tracef("probe: power fails after operation %#x on %s, %+v", op, name, crash)
	p.crashed(p.disk.mem.CrashClone(p.rng, crash))
}

// crashed recovers and checks the state after a crash.
func (p *prober) crashed(fs *vfs.Mem) {
	n := &p.w.count
	fs.SetCapacity(0)
	for depth := 0; depth < 2 && p.rng.IntN(6) == 0; depth++ { // the power fails again in recovery
		fs = p.again(fs)
		n.one([]Point{ProbesInRecovery, ProbesTwice}[depth])
	}
	n.one(CrashStates)
	n.one(Probes)
	r := p.open(fs)
	if r.err != nil {
		p.w.ledger.violation("opens again", "after a power failure: %v", r.err)
		return
	}
	r.read()
	r.check(unharmed)
}

// again starts recovery. It returns the state after a power failure during or directly after it.
func (p *prober) again(fs *vfs.Mem) *vfs.Mem {
	var left *vfs.Mem
	in := vfs.NewInject(fs)
	until := 1 + p.rng.IntN(16)
	crash := drawCrash(p.rng)
	in.SetHook(func(op vfs.Op, _ string) {
		if op&vfs.OpChange != 0 {
			if until--; until == 0 {
				left = fs.CrashClone(p.rng, crash)
			}
		}
	})
	p.open(in)
	if left == nil {
		left = fs.CrashClone(p.rng, crash)
	}
	return left
}

// recovered is a broker that was opened during the run.
type recovered struct {
	p       *prober
	b       *broker.Stepped
	log     *disklog.Stepped
	err     error
	entry   uint64 // the newest recovered entry
	infos   []surgetank.QueueInfo
	model   *model.Model // the model at that entry, brought up to now; nil: not known
	found   map[string][]surgetank.Delivery
	unread  map[surgetank.MessageID]bool // messages that are listed as damaged
	damaged error                        // the first read error
	records int                          // records that the broker wrote after its opening, including the epoch
}

func (p *prober) open(fs vfs.FS) *recovered { return p.openIn(fs, dataDir) }

func (p *prober) openIn(fs vfs.FS, dir string) *recovered {
	r := &recovered{p: p, found: map[string][]surgetank.Delivery{}, unread: map[surgetank.MessageID]bool{}}
	w := p.w
	snaps, err := disklog.OpenSnapshots(fs, dir)
	if r.err = err; err != nil {
		return r
	}
	r.b, r.err = broker.OpenStepped(broker.Options{
		OpenLog: func(from commitlog.Offset, hooks broker.LogHooks) (commitlog.Replay, commitlog.Log, error) {
			replay, l, err := disklog.OpenStepped(logOptions(fs, dir, false, p.random, from, hooks.Full, nil))
			if err != nil {
				return nil, nil, err
			}
			r.log = l
			return replay, l, nil
		},
		Snapshots: snaps, Clock: w.clock, Seed: w.o.Seed, Incarnation: incarnation(w.o.Seed, 1<<23+w.life),
		Limits: queue.Limits{ExtentBytes: w.o.ExtentBytes}, SnapshotBytes: 1 << 40,
	}, broker.Stepping{Drive: r.drive, Watch: r.turn})
	if r.err == nil {
		r.b.Tick() // the first turn, which shows the recovered state
	}
	return r
}

func (r *recovered) drive() {
	r.log.Pump()
	r.b.Tick()
}

func (r *recovered) turn(t broker.Turn) {
	if len(t.Commands) > 0 {
		if _, opening := t.Commands[0].(*queue.OpenEpoch); opening {
			r.entry = t.Number - 1
			if state := r.p.w.beside.states[r.entry]; state != nil {
				r.model = state.Durable()
				r.model.Crash(t.Now)
				r.model.Opened(t.Now)
			}
		}
	}
	if r.model != nil {
		r.model.Turn(t.Now, nil)
	}
	r.infos = t.Machine.Infos()
	r.records += t.Output.Records
}

// read reads every message.
func (r *recovered) read() {
	for _, i := range r.infos {
		if i.Ready+i.Blocked+i.Delayed+i.Leased+i.Damaged == 0 {
			continue
		}
		ds, err := r.b.Peek(background, i.Name, surgetank.PeekOptions{Max: 100_000, MaxBytes: 1 << 30})
		if err != nil && r.damaged == nil {
			r.damaged = fmt.Errorf("reading queue %s: %w", i.Name, err)
		}
		r.found[i.Name] = slices.DeleteFunc(ds, func(d surgetank.Delivery) bool {
			if d.Damage != "" && r.damaged == nil {
				r.damaged = fmt.Errorf("reading message %v of queue %s: %s: %w", d.ID, i.Name, d.Damage, commitlog.ErrCorrupt)
			}
			if d.Damage != "" {
				d.ID.Incarnation = 0 // as in byID
				r.unread[d.ID] = true
			}
			return d.Damage != ""
		})
	}
	if err := r.b.Err(); err != nil && r.damaged == nil {
		r.damaged = err
	}
}

// harm is the damage to a file system before its opening, in addition to the loss of unsynced data.
type harm uint8

const (
	unharmed harm = iota
	rotten        // a bit is flipped: data can be unreadable, but never wrong
	lied          // synced bytes are lost: the newest entries can be lost without a trace, but the rest must be a former state
)

// check judges a recovered broker.
func (r *recovered) check(h harm) {
	l := r.p.w.ledger
	l.checks++
	if r.damaged != nil && h == unharmed {
		l.violation("readable", "after a power failure: %v", r.damaged)
		return
	}
	if r.entry < r.p.w.logged && h != lied {
		l.violation("nothing confirmed is lost", "the log confirmed entry %d, and after a power failure only what is up to %d is there", r.p.w.logged, r.entry)
		return
	}
	if r.entry > r.p.w.beside.newest {
		l.violation("nothing is invented", "after a power failure entry %d is there, and the newest that was written is %d", r.entry, r.p.w.beside.newest)
		return
	}
	if l.recovered(r.found, r.damaged == nil, h == lied); l.bad != "" {
		return
	}
	if r.model == nil || r.damaged != nil {
		return
	}
	r.p.w.count.one(StatesCompared)
	if why := differs(r.infos, r.model); why != "" {
		l.violation("agrees with the model", "after a power failure, at entry %d: %s", r.entry, why)
	}
	for name, q := range r.model.Queues {
		if why := differsIn(r.found[name], q.Messages()); why != "" {
			l.violation("agrees with the model", "after a power failure, at entry %d, queue %s: %s", r.entry, name, why)
		}
	}
}

func differsIn(found []surgetank.Delivery, want []model.Stored) string {
	if len(found) != len(want) {
		return fmt.Sprintf("%d messages can be read, the model has %d", len(found), len(want))
	}
	for i := range found {
		d := &found[i]
		got := model.Stored{Seq: d.ID.Seq, Group: d.Group, Size: int64(len(d.Body)), Attempts: d.Attempt, Deaths: len(d.Deaths), Delayed: d.State == surgetank.StateDelayed, Failure: d.Failure}
		if got.Delayed {
			got.Due = d.Due.UnixNano()
		}
		if got != want[i] {
			return fmt.Sprintf("the message %s is %+v, in the model %+v", d.Body, got, want[i])
		}
	}
	return ""
}
