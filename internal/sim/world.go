package sim

import (
	"context"
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
)

// Action is one step of a run. Each action has its own seed, which decides its details. So an
// action changes as little as possible when other actions are left out.
type Action struct {
	Kind string
	Seed uint64
}

// world is one run.
type world struct {
	o            Options
	clock        *clock.Manual
	disk         disk
	b            *broker.Stepped
	life         int // number of openings; events of an earlier opening are ignored
	ledger       *ledger
	clients      []*client
	transactions []*transaction
	deliveries   []delivery // receipts to settle, including old ones
	count        Counters
	trace        []string
	tracing      bool
	serial       int
	healed       bool
	flying       bool // the last crash came while several entries were in flight
	slow         bool // the disk completes no operation at present
	drives       int
	numberers    []*numberer
	faulted      bool // a fault was set in this opening
	beside       *beside
	machine      *queue.Machine
	recovered    int64           // when the broker recovered in this opening
	logged       uint64          // the newest entry that the log confirmed in this opening
	declared     map[string]bool // queues whose settings apply to every publish from now on
	settled      map[string]bool // queues that were declared once and are durable
	prober       *prober
	refunds      bool // a breaker that opens by errors has been set: it returns attempts
	dog          *watchdog
	metas        metaWatch
}

// client is a subscription and its consumer.
type client struct {
	queue  string
	opts   door.SubscribeOptions
	attach *queue.Attach
	sub    door.Subscription
	ready  bool
	closed bool
	once   bool // a receive, which ends by itself
	life   int
}

// delivery is a delivered message that can be settled.
type delivery struct {
	copy    *stored
	receipt surgetank.Receipt
}

func newWorld(o Options, tracing bool) *world {
	w := &world{o: o, clock: clock.NewManual(time.Unix(1_800_000_000, 0)), tracing: tracing, declared: map[string]bool{}, settled: map[string]bool{}, dog: watch(o.Seed, abort)}
	w.ledger, w.beside = newLedger(w), newBeside(w)
	if o.Files {
		d := newFileDisk(&w.o, &w.count)
		d.size, d.clock = o.Disk, w.clock
		d.setFull(false)
		w.disk, w.prober = d, newProber(w, d)
	} else {
		w.disk = &memDisk{store: memlog.NewStore(), remote: memlog.Options{Latency: o.Latency, Gaps: o.Gaps, Pace: o.pace(), Clock: w.clock}}
	}
	return w
}

func (w *world) tracef(format string, args ...any) {
	if w.tracing {
		w.trace = append(w.trace, fmt.Sprintf("%v ", w.clock.Now().Sub(time.Unix(1_800_000_000, 0)))+fmt.Sprintf(format, args...))
	}
}

func (w *world) plan(name string) *QueuePlan {
	for i := range w.o.Queues {
		if w.o.Queues[i].Name == name {
			return &w.o.Queues[i]
		}
	}
	return nil
}

// noack tells whether consumers of a queue receive messages without ack. Such messages can be lost
// after the hand-out.
func (w *world) noack(string) bool { return w.o.NoAck }

// blamed tells whether a fault explains a failure.
func (w *world) blamed() bool { return w.faulted || w.disk.broken() }

// open opens the broker, repeatedly if it crashes, and creates the missing queues.
func (w *world) open(rng *rand.Rand) {
	for try, crashes := 0, 0; ; try++ {
		w.life++
		w.count.one(Openings)
		if w.o.Crashes && w.o.Files && !w.healed && try < 3 && rng.IntN(6) == 0 {
			w.disk.crashIn(1+rng.IntN(20), rng)
		}
		b, err := w.tryOpen()
		if w.disk.crashed() {
			w.tracef("crash during recovery")
			w.count.one(CrashesInRecovery)
			if crashes++; crashes == 2 {
				w.count.one(CrashesTwice)
			}
			w.disk.crash(rng, false)
			continue
		}
		if err == nil {
			w.b, w.recovered = b, b.Now().UnixNano()
			break
		}
		w.count.one(FailedOpenings)
		w.tracef("opening failed: %v", err)
		if !w.blamed() {
			w.ledger.violation("opens again", "opening failed with no fault set: %v", err)
			return
		}
		w.disk.heal()
		w.disk.crash(rng, true) // the process that failed to open has ended, and so have its locks
	}
	w.watchMeta()
	w.readMeta()
	clear(w.declared)
	for i := range w.o.Queues {
		p := &w.o.Queues[i]
		w.declare(p.Name, p.Config)
		if p.Chain {
			w.declare(p.Dead(), p.deadConfig())
		}
	}
}

// incarnation returns the incarnation of each opening of a run. It is the same each time a seed
// runs.
func incarnation(seed uint64, life int) uint64 { return (seed+1)<<24 | uint64(life) }

func (w *world) tryOpen() (*broker.Stepped, error) {
	snaps, err := w.disk.snapshots()
	if err != nil {
		return nil, err
	}
	return broker.OpenStepped(broker.Options{
		OpenLog: func(from commitlog.Offset, hooks broker.LogHooks) (commitlog.Replay, commitlog.Log, error) {
			tell := hooks.Damage
			hooks.Damage = func(d commitlog.Damage) {
				if !d.Unreadable {
					w.ledger.violation("no false alarm", "nothing has rotted, and the scrub found %+v", d)
				}
				tell(d)
			}
			r, l, err := w.disk.openLog(from, hooks)
			if err != nil {
				return nil, nil, err
			}
			return r, watchedLog{l, w}, nil
		},
		Snapshots: watchedSnapshots{snaps, w}, Clock: w.clock, Seed: w.o.Seed, Incarnation: incarnation(w.o.Seed, w.life),
		Limits:        queue.Limits{TurnBytes: w.o.TurnBytes, TurnPublish: w.o.TurnPublish, TurnScan: w.o.TurnScan, RetryReserve: w.o.RetryReserve, ExtentBytes: w.o.ExtentBytes},
		SnapshotBytes: w.o.SnapshotBytes, SnapshotPiece: w.o.SnapshotPiece, Hold: w.o.Hold,
	}, broker.Stepping{Drive: w.drive, Watch: w.beside.turn})
}

// drive runs the log and the broker while a call waits. If the log is out of space, drive frees
// space.
func (w *world) drive() {
	w.dog.step()
	if w.drives++; w.drives > 300 {
		w.disk.heal()
		w.drives = 0
	}
	w.disk.pump(true)
	if w.b != nil && !w.b.Tick() {
		w.later()
	}
}

// run does all work that is possible now.
func (w *world) run() {
	for range 1000 {
		worked := w.b.Tick()
		w.disk.pump(true)
		if !w.b.Tick() && !worked && !w.later() {
			return
		}
	}
	w.ledger.violation("comes to rest", "the broker has always something to do")
}

// ok tells whether an event still counts. An answer from an earlier opening does not count.
func (w *world) ok(life int) bool { return life == w.life && !w.disk.crashed() }

func (w *world) declare(name string, config surgetank.QueueConfig) {
	c := &queue.Declare{Name: name, Config: config, Mode: surgetank.DeclareIfAbsent}
	w.declared[name] = false
	w.send(c, func(err error) {
		w.declared[name] = err == nil && c.Err == nil
		w.settled[name] = w.settled[name] || w.declared[name]
	})
}

// send sends a command. f is called with the outcome, unless the opening ends before the outcome.
func (w *world) send(c queue.Command, f func(error)) {
	if d, ok := c.(*queue.Declare); ok && d.Config.Level.Breaker == surgetank.BreakerErrors {
		w.refunds = true
	}
	life := w.life
	if err := w.b.Send(c, func(err error) {
		if w.ok(life) {
			f(err)
		}
	}); err != nil {
		f(err)
	}
}

// after handles the effects of a step: a crash in the middle of the step, or a failed log.
func (w *world) after(rng *rand.Rand) {
	switch {
	case w.disk.crashed():
		w.tracef("crash in the middle")
		w.count.one(Crashes)
		w.reopen(rng, false)
	case w.b.Err() != nil:
		w.count.one(LogFailures)
		w.tracef("the log failed: %v", w.b.Err())
		if !w.blamed() {
			w.ledger.violation("loud only for a reason", "the log failed with no fault set: %v", w.b.Err())
			return
		}
		w.disk.heal()
		w.reopen(rng, rng.IntN(2) == 0)
	}
}

// reopen opens the broker again after a crash: all volatile state is gone.
func (w *world) reopen(rng *rand.Rand, kill bool) {
	w.life++ // the old process's later work does not count
	if w.flying = w.o.Latency > 0 && w.disk.inFlight() > 1; w.flying {
		w.count.one(CrashesInFlight)
	}
	w.tallyQueues()
	w.disk.crash(rng, kill)
	w.ledger.crashed()
	w.clients, w.faulted = nil, false
	w.open(rng)
}

// play runs actions and returns the first violation, if any.
func (w *world) play(actions []Action) (violation string) {
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
		w.faulted = true
		w.disk.plan(f)
	}
	w.open(rand.New(rand.NewPCG(w.o.Seed, 7)))
	for i, a := range actions {
		if w.ledger.bad != "" {
			break
		}
		w.dog.action(fmt.Sprintf("action %d, %s,", i, a.Kind))
		w.count.one(Actions)
		rng := rand.New(rand.NewPCG(a.Seed, uint64(len(a.Kind))))
		w.drives = 0
		w.act(a.Kind, rng)
		for a.Kind == w.dog.busy {
			w.drive()
		}
		if w.ledger.bad == "" && rng.IntN(100) >= w.o.SlowLog {
			w.run()
		} else if w.ledger.bad == "" && rng.IntN(2) == 0 {
			w.slow = true
			w.b.Tick()
			w.slow = false
			if w.o.Latency > 0 {
				w.clock.Advance(w.o.Latency / 3)
			}
			w.disk.pump(false)
		}
		if w.ledger.bad == "" {
			w.metaSeen()
			w.after(rng)
		}
	}
	if w.ledger.bad == "" {
		w.dog.action("healing")
		w.heal()
	}
	w.tallyQueues()
	w.count.one(Runs)
	w.count.N[Checks] += int64(w.ledger.checks)
	return w.ledger.bad
}

// heal is the second part: there are no more faults, every queue is open, and all messages must be
// delivered.
func (w *world) heal() {
	rng := rand.New(rand.NewPCG(w.o.Seed, 8))
	w.healed = true
	w.disk.crashIn(0, nil)
	w.disk.heal()
	w.tracef("healed")
	w.run()
	w.after(rng)
	w.metaSettled()
	w.reopen(rng, !w.o.Crashes || rng.IntN(2) == 0) // so that messages that clients received and forgot are delivered again
	opened := map[string]bool{}                     // dead letters can create queues later
	for round := 0; round < 80 && w.ledger.bad == ""; round++ {
		w.dog.action(fmt.Sprintf("draining, round %d,", round))
		infos := w.infos()
		if w.ledger.bad != "" {
			return
		}
		left := int64(0)
		for _, i := range infos {
			left += i.Ready + i.Blocked + i.Delayed + i.Leased + i.Damaged
			if !opened[i.Name] {
				opened[i.Name] = true
				w.openUp(&i)
			}
		}
		if left == 0 && round > 0 {
			w.ledger.drained()
			w.count.one(Drained)
			w.atRest()
			return
		}
		for _, cl := range w.clients {
			w.receive(cl, 1000)
		}
		w.settleAll()
		w.run()
		if round < 60 {
			w.clock.Advance(30 * time.Second)
		} else {
			w.clock.Advance(time.Hour)
		}
		w.run()
	}
	if w.ledger.bad == "" {
		var left []string
		for _, i := range w.infos() {
			left = append(left, fmt.Sprintf("%s: %d ready %d blocked %d delayed %d leased %d damaged (%s)", i.Name, i.Ready, i.Blocked, i.Delayed, i.Leased, i.Damaged, i.Waiting))
		}
		w.ledger.violation("everything drains", "after most of a day there is still: %v", left)
	}
}

// restBytes is the largest size of a drained directory in a run: some of the smallest segments,
// snapshots, and log that is not worth a snapshot.
const restBytes = 8*disklog.MinSegmentBytes + 64<<10

// atRest is the third part: all messages are settled and no client does anything. The log must
// become small and accept messages by itself.
func (w *world) atRest() {
	w.dog.action("rest")
	for range 60 {
		w.clock.Advance(time.Second)
		w.run()
	}
	if w.ledger.bad != "" {
		return
	}
	if n := w.disk.used(); n > restBytes+min(2<<20, w.o.SnapshotBytes/64) {
		w.ledger.violation("space comes back", "everything is settled, and a minute later the directory takes %d bytes", n)
	}
	stored := false
	w.send(queue.Mark{}, func(err error) { stored = err == nil })
	w.run()
	if s := w.b.Space(); !stored || s.Full {
		w.ledger.violation("space comes back", "everything is settled, and a minute later messages are refused: %+v; the log goes on: %v", s, stored)
	}
}

// openUp removes all limits of a queue and attaches a consumer to it.
func (w *world) openUp(i *surgetank.QueueInfo) {
	c := i.Config
	c.Paused, c.Level, c.Group.Rate = false, surgetank.LevelConfig{Breaker: surgetank.BreakerOff}, 0
	w.send(&queue.Declare{Name: i.Name, Config: c, Mode: surgetank.DeclareUpdate}, func(error) {})
	w.attach(i.Name, door.SubscribeOptions{SubscribeOptions: surgetank.SubscribeOptions{Credit: 1000, Lease: surgetank.LeaseForever}})
	w.run()
}

// infos reads and checks the statistics of all queues.
func (w *world) infos() []surgetank.QueueInfo {
	c := &queue.Info{}
	got := false
	w.send(c, func(err error) {
		if got = err == nil; got {
			w.ledger.counted(c.Infos)
		}
	})
	w.run()
	if !got && w.ledger.bad == "" {
		w.ledger.violation("answers", "a question was not answered though nothing fails")
	}
	return c.Infos
}

var background = context.Background()
