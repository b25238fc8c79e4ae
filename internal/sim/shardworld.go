package sim

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/clock"
	"github.com/surgetank/surgetank/internal/memlog"
	"github.com/surgetank/surgetank/internal/shards"
	"github.com/surgetank/surgetank/internal/vfs"
)

// shardWorld is a run with several shards: a stepped router over stepped brokers, each with its own
// disk. Power failures hit all disks at the same moment. A single shard can fail and be opened
// again while the others go on.
//
//	clients ──▶ router (stepped) ──▶ slot ──▶ broker (stepped) ──▶ disk
//	   │             │          └──▶ slot ──▶ broker (stepped) ──▶ disk
//	   │             └ transfers, one step after the other
//	   ▼                                                             │ at many changes of each disk
//	ledger of all shards                                             ▼
//	                                      prober: clones all disks, opens all shards, ends all transfers,
//	                                      and compares each message with the ledger
type shardWorld struct {
	o       Options
	clock   *clock.Manual
	slots   []*slot
	router  *shards.Stepped
	ledger  *shardLedger
	prober  *shardProber
	count   Counters
	trace   []string
	tracing bool
	dog     *watchdog
	life    int // counts the openings of shards
	process int // counts the processes; an answer for an earlier process does not count
	rng     *rand.Rand

	stepping  bool // the router does a step
	redriving bool // a client waits for a redrive, and transfers go on meanwhile
	healed    bool
	drives    int

	serial     int
	publishers []*shardPublisher
	leased     []*shardCopy
	copies     []*vfs.Mem // older copies of the shards' disks; nil: none
	fromLog    []*memlog.Store
}

const shardRandom = 0x5a4d

func playShards(o Options, actions []Action, tracing bool) Result {
	w := &shardWorld{o: o, clock: clock.NewManual(time.Unix(1_800_000_000, 0)), tracing: tracing, dog: watch(o.Seed, abort), rng: rand.New(rand.NewPCG(o.Seed, shardRandom))}
	w.ledger = newShardLedger(w)
	w.prober = newShardProber(w)
	w.copies, w.fromLog = make([]*vfs.Mem, o.Shards), make([]*memlog.Store, o.Shards)
	for i := range o.Shards {
		s := &slot{w: w, index: i}
		if o.Files {
			d := newFileDisk(&w.o, &w.count)
			d.random, d.clock = idSource(o.Seed^uint64(i+1)<<48), w.clock
			d.setFull(false)
			d.fell = w.fell
			d.changed = func(op vfs.Op, name string) { w.prober.changed(i, op, name) }
			s.disk = d
		} else {
			s.disk = &memDisk{store: memlog.NewStore(), remote: memlog.Options{Latency: o.Latency, Gaps: o.Gaps, Pace: o.pace(), Clock: w.clock}}
		}
		w.slots = append(w.slots, s)
	}
	violation := w.play(actions)
	if tracing {
		sum := uint64(0)
		for _, s := range w.slots {
			sum = sum*31 + s.disk.checksum()
		}
		w.tracef("the end: the files have the checksum %016x", sum)
	}
	return Result{Options: o, Actions: actions, Violation: violation, Trace: w.trace, Counters: w.count}
}

func (w *shardWorld) tracef(format string, args ...any) {
	if w.tracing {
		w.trace = append(w.trace, fmt.Sprintf("%v ", w.clock.Now().Sub(time.Unix(1_800_000_000, 0)))+fmt.Sprintf(format, args...))
	}
}

// fell makes the power of all disks fail, because it has failed for one.
func (w *shardWorld) fell() {
	for _, s := range w.slots {
		if d := s.disk.(*fileDisk); d.after == nil {
			d.after = d.mem.CrashClone(w.rng, drawCrash(w.rng))
		}
	}
	w.count.one(ShardPowerFailures)
}

// dead tells whether the power has failed. Later events do not count.
func (w *shardWorld) dead() bool { return w.slots[0].disk.crashed() }

// blamed tells whether a fault explains a failure of a shard.
func (s *slot) blamed() bool { return s.faulted || s.disk.broken() }

// drive runs all shards while a call waits.
func (w *shardWorld) drive() {
	w.dog.step()
	if w.drives++; w.drives > 300 {
		w.drives = 0
		for _, s := range w.slots {
			s.disk.heal()
		}
	}
	if w.tick() {
		return
	}
	if w.redriving && !w.stepping && w.step() {
		return
	}
	w.later()
}

// tick runs all brokers and logs once.
func (w *shardWorld) tick() (worked bool) {
	for _, s := range w.slots {
		if !s.opens() {
			continue
		}
		s.disk.pump(true)
		if s.b != nil && s.b.Tick() {
			worked = true
		}
	}
	return worked
}

// opens tells whether the log of a shard is open although the shard does not serve yet.
func (s *slot) opens() bool {
	switch d := s.disk.(type) {
	case *fileDisk:
		return d.log != nil
	case *memDisk:
		return d.log != nil
	}
	return false
}

// step does a step of a transfer.
func (w *shardWorld) step() bool {
	w.stepping = true
	defer func() { w.stepping = false }()
	return w.router.Step(w.rng.IntN)
}

// later lets time pass until a log answers or a broker's turn is due.
func (w *shardWorld) later() bool {
	best, waits := time.Duration(0), false
	see := func(d time.Duration) {
		if !waits || d < best {
			best, waits = d, true
		}
	}
	for _, s := range w.slots {
		if !s.opens() {
			continue
		}
		if d, ok := s.disk.waits(); ok {
			see(d)
		}
		if gather := w.o.pace().Gather; s.b != nil && gather > 0 {
			if d := s.b.Due(); 0 < d && d <= gather {
				see(d)
			}
		}
	}
	if !waits {
		if w.redriving {
			w.clock.Advance(5 * time.Millisecond)
		}
		return false
	}
	d := min(max(best, 1), time.Millisecond)
	w.count.Simulated += d
	w.clock.Advance(d)
	return true
}

// run does all work that is possible now, and with moves all transfers.
func (w *shardWorld) run(moves bool) {
	for range 20_000 {
		if worked := w.tick(); worked || moves && !w.dead() && w.step() {
			continue
		}
		if !w.later() && !w.tick() {
			return
		}
	}
	w.ledger.violation("comes to rest", "the shards have always something to do")
}

// openAll opens all shards and the router, repeatedly if the power fails meanwhile.
func (w *shardWorld) openAll(rng *rand.Rand) {
	for try := 0; ; try++ {
		w.count.one(Openings)
		if w.o.Crashes && w.o.Files && !w.healed && try < 3 && rng.IntN(6) == 0 {
			pick(rng, w.slots).disk.crashIn(1+rng.IntN(40), rng)
		}
		err := w.tryOpenAll()
		switch {
		case w.dead():
			w.tracef("the power fails during the opening")
			w.count.one(CrashesInRecovery)
			w.crashAll(rng, false)
			continue
		case err == nil:
			w.declare()
			return
		}
		w.count.one(FailedOpenings)
		w.tracef("opening failed: %v", err)
		blamed := false
		for _, s := range w.slots {
			blamed = blamed || s.blamed()
		}
		if !blamed {
			w.ledger.violation("opens again", "opening failed with no fault set: %v", err)
			return
		}
		for _, s := range w.slots {
			s.disk.heal()
		}
		w.crashAll(rng, true)
	}
}

func (w *shardWorld) tryOpenAll() error {
	w.process++
	for _, s := range w.slots {
		s.b, s.Shard, s.machine, s.cut = nil, nil, nil, cut{}
		s.forget()
	}
	for _, s := range w.slots {
		b, err := s.open()
		if err != nil {
			return err
		}
		s.down, s.phase = false, 0
		s.serve(b)
		w.count.one(Openings)
	}
	parts := make([]shards.Part, len(w.slots))
	for i, s := range w.slots {
		parts[i] = shards.Part{Shard: s}
	}
	r, err := shards.OpenStepped(background, parts, shards.Options{Clock: w.clock, Rand: idSource(w.o.Seed)})
	if err != nil {
		return err
	}
	w.router = r
	return nil
}

// forget forgets the log of an ended process.
func (s *slot) forget() {
	switch d := s.disk.(type) {
	case *fileDisk:
		d.log, d.late = nil, nil
	case *memDisk:
		d.log = nil
	}
}

// declare creates the missing queues. A queue that cannot be created is tried again later.
func (w *shardWorld) declare() {
	for i := range w.o.Queues {
		p := &w.o.Queues[i]
		if p.Made || w.dead() {
			continue
		}
		if _, _, err := w.router.DeclareQueue(background, p.Name, p.Config, surgetank.DeclareIfAbsent); err != nil && !w.dead() {
			w.tracef("%s is not declared: %v", p.Name, err)
		}
	}
}

// crashAll ends the process, with or without a power failure.
func (w *shardWorld) crashAll(rng *rand.Rand, kill bool) {
	w.process++
	w.tallyCrash()
	for _, s := range w.slots {
		if d, ok := s.disk.(*fileDisk); ok && d.after != nil {
			kill = false
		}
	}
	if !w.dead() {
		w.count.one(CrashStates)
	}
	w.count.one(ShardStates)
	for _, s := range w.slots {
		if d, ok := s.disk.(*fileDisk); ok {
			if d.after == nil {
				c := drawCrash(rng)
				if kill {
					c = vfs.Crash{Percent: 100}
				}
				d.after = d.mem.CrashClone(rng, c)
			}
		}
		s.disk.crash(rng, kill)
		s.faulted = false
	}
	w.leased = nil
}

// tallyCrash counts what a crash interrupts.
func (w *shardWorld) tallyCrash() {
	for _, s := range w.slots {
		if s.sending() {
			w.count.one(OutboxesLeft)
		}
	}
}

// reopenAll opens all shards after a crash.
func (w *shardWorld) reopenAll(rng *rand.Rand, kill bool) {
	w.crashAll(rng, kill)
	w.openAll(rng)
}

// after handles the effects of an action.
func (w *shardWorld) after(rng *rand.Rand) {
	if w.dead() {
		w.tracef("the power fails in the middle")
		w.count.one(Crashes)
		w.reopenAll(rng, false)
		return
	}
	for _, s := range w.slots {
		if s.down || s.b.Err() == nil {
			continue
		}
		w.count.one(LogFailures)
		w.tracef("shard %d failed: %v", s.index+1, s.b.Err())
		if !s.blamed() {
			w.ledger.violation("loud only for a reason", "the log of shard %d failed with no fault set: %v", s.index+1, s.b.Err())
			return
		}
		s.down = true
		s.phase++
		w.router.Fell(s.index)
		if rng.IntN(3) > 0 {
			w.openShard(s, rng)
		}
	}
}

// openShard opens one shard again. It ends without an opening if the power fails.
func (w *shardWorld) openShard(s *slot, rng *rand.Rand) {
	for range 5 {
		s.disk.heal()
		s.disk.crash(rng, rng.IntN(2) == 0)
		s.b = nil
		s.forget()
		s.faulted = false
		b, err := s.open()
		if err == nil {
			s.b = b
			err = w.router.Opened(background, s.index, b)
		}
		if w.dead() {
			return
		}
		if err == nil && b.Err() == nil {
			s.serve(b)
			w.count.one(ShardsReopened)
			w.tracef("shard %d is open again", s.index+1)
			return
		}
		w.tracef("opening shard %d failed: %v", s.index+1, err)
		if !s.blamed() {
			w.ledger.violation("opens again", "opening shard %d failed with no fault set: %v", s.index+1, err)
			return
		}
	}
	w.ledger.violation("opens again", "shard %d does not open", s.index+1)
}

// play runs actions and returns the first violation, if any.
func (w *shardWorld) play(actions []Action) (violation string) {
	defer w.dog.stop()
	defer func() {
		switch p := recover().(type) {
		case nil:
		case endless:
			w.ledger.violation("comes to rest", "%s", p.text)
			violation = w.ledger.bad
		default:
			w.ledger.violation("no panic", "%v", p)
			violation = w.ledger.bad
		}
	}()
	if f := w.o.Fault; f != nil {
		s := w.slots[w.o.Seed%uint64(len(w.slots))]
		s.faulted = true
		s.disk.plan(f)
	}
	w.openAll(rand.New(rand.NewPCG(w.o.Seed, 7)))
	for i, a := range actions {
		if w.ledger.bad != "" {
			break
		}
		w.dog.action(fmt.Sprintf("action %d, %s,", i, a.Kind))
		w.count.one(Actions)
		rng := rand.New(rand.NewPCG(a.Seed, uint64(len(a.Kind))))
		w.drives = 0
		w.clock.Advance(time.Millisecond)
		w.act(a.Kind, rng)
		if w.ledger.bad == "" && rng.IntN(100) >= w.o.SlowLog {
			w.run(rng.IntN(100) < w.o.Moves)
		}
		if w.ledger.bad == "" {
			w.after(rng)
		}
	}
	if w.ledger.bad == "" {
		w.dog.action("healing")
		w.heal()
	}
	w.count.one(Runs)
	w.count.one(ShardRuns)
	w.count.N[Checks] += int64(w.ledger.checks)
	return w.ledger.bad
}

// heal is the second part: there are no more faults, and all messages must be delivered.
func (w *shardWorld) heal() {
	rng := rand.New(rand.NewPCG(w.o.Seed, 8))
	w.healed = true
	w.tracef("healed")
	for _, s := range w.slots {
		s.disk.crashIn(0, nil)
		s.disk.heal()
	}
	w.run(false)
	w.reopenAll(rng, !w.o.Crashes || rng.IntN(2) == 0)
	for round := 0; round < 60 && w.ledger.bad == ""; round++ {
		w.dog.action(fmt.Sprintf("draining, round %d,", round))
		w.drives = 0
		w.run(true)
		left := int64(0)
		for _, s := range w.slots {
			for _, i := range s.machine.Infos() {
				left += i.Ready + i.Blocked + i.Delayed + i.Leased + i.Damaged
			}
		}
		if left == 0 && round > 0 {
			w.ledger.drained()
			w.count.one(Drained)
			return
		}
		infos, err := w.router.Queues(background)
		if err != nil {
			w.ledger.violation("answers", "the queues cannot be read though nothing fails: %v", err)
			return
		}
		if round == 0 {
			for _, i := range infos {
				w.look(i.Name)
			}
			w.openUp(infos)
		}
		for _, i := range infos {
			w.receive(i.Name, 1000, surgetank.LeaseForever)
		}
		w.ackAll()
		w.run(true)
		w.clock.Advance(30 * time.Second)
	}
	if w.ledger.bad == "" {
		var left []string
		for _, s := range w.slots {
			for _, i := range s.machine.Infos() {
				left = append(left, fmt.Sprintf("shard %d: %q: %d ready %d blocked %d delayed %d leased %d damaged", s.index+1, i.Name, i.Ready, i.Blocked, i.Delayed, i.Leased, i.Damaged))
			}
		}
		w.ledger.violation("everything drains", "after half an hour there is still: %q", left)
	}
}

// openUp removes the limits of all queues.
func (w *shardWorld) openUp(infos []surgetank.QueueInfo) {
	for i := range infos {
		c := infos[i].Config
		c.MaxMessages, c.TTL, c.Overflow = 0, 0, ""
		if _, _, err := w.router.DeclareQueue(background, infos[i].Name, c, surgetank.DeclareUpdate); err != nil {
			w.ledger.violation("answers", "queue %s cannot be changed though nothing fails: %v", infos[i].Name, err)
		}
	}
}
