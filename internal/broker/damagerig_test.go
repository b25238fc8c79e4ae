package broker

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/clock"
	"github.com/surgetank/surgetank/internal/commitlog"
	"github.com/surgetank/surgetank/internal/disklog"
	"github.com/surgetank/surgetank/internal/door"
	"github.com/surgetank/surgetank/internal/queue"
	"github.com/surgetank/surgetank/internal/vfs"
)

const (
	dataDir = "data/log"
	// someSnapshots is the number of bytes logged between two snapshots. noSnapshots is more bytes
	// than a test logs.
	someSnapshots = 6 << 10
	noSnapshots   = 1 << 30
)

// damageRig is a whole broker on files in memory; the test runs it with Tick. openRecorded makes it
// add every confirmed fact to its truth.
type damageRig struct {
	*Stepped
	t     testing.TB
	disk  *vfs.Mem
	clock *clock.Manual
	log   *disklog.Stepped
	truth *truth
	// recovered is the whole durable state that the opening recovered.
	recovered string
}

// truth contains the confirmed facts, and the number of the log entry with each fact.
type truth struct {
	bodies    map[surgetank.MessageID][]byte
	groups    map[surgetank.MessageID]string
	stored    map[surgetank.MessageID]uint64
	settled   map[surgetank.MessageID]uint64
	origin    map[surgetank.MessageID]surgetank.MessageID // the originals of transferred copies
	transient map[uint64]uint64                           // transient queues, whose messages end with the broker
	// unsure contains the messages that an unconfirmed entry stores or settles. After a crash they
	// can exist or be missing.
	unsure map[surgetank.MessageID]bool
	// entries are all entries of this rig, for tests that build a directory from them.
	entries [][]byte
	kinds   map[queue.Kind]int
}

func newTruth() *truth {
	return &truth{bodies: map[surgetank.MessageID][]byte{}, groups: map[surgetank.MessageID]string{},
		stored: map[surgetank.MessageID]uint64{}, settled: map[surgetank.MessageID]uint64{},
		origin: map[surgetank.MessageID]surgetank.MessageID{}, transient: map[uint64]uint64{},
		unsure: map[surgetank.MessageID]bool{}, kinds: map[queue.Kind]int{}}
}

// live returns the messages that must be delivered or named as damaged.
func (t *truth) live() map[surgetank.MessageID]bool {
	live := map[surgetank.MessageID]bool{}
	for id := range t.bodies {
		if _, ok := t.settled[id]; !ok && !t.unsure[id] {
			live[id] = true
		}
	}
	return live
}

// The kinds of records. They are a part of the format.
const (
	recEnqueued    queue.Kind = 1
	recAcked       queue.Kind = 3
	recTransferred queue.Kind = 5
	recRemoved     queue.Kind = 6
	recPurged      queue.Kind = 7
	recQueueSet    queue.Kind = 8
	recQueueGone   queue.Kind = 9
	recEpoch       queue.Kind = 11 // written by older versions only
	recLast        queue.Kind = 13 // kind 14 (closed) is missing, because a stepped broker does not write it
	recFailed      queue.Kind = 15
)

// learn adds the facts of an entry. All of the truth comes from the log, so a mistake in a test
// cannot make the log and the expectation differ. Other tests check the machine's decisions.
func (t *truth) learn(entry []byte) error {
	t.entries = append(t.entries, bytes.Clone(entry))
	return queue.Records(entry, func(h queue.EntryHeader, r *queue.Record) error {
		t.kinds[r.Kind]++
		switch r.Kind {
		case recEnqueued:
			var s queue.Stored
			if err := queue.ReadMessage(entry, r.Ref, &s); err != nil {
				return err
			}
			for _, x := range r.Targets {
				id := surgetank.MessageID{Queue: x.Queue, Seq: x.Seq}
				t.bodies[id], t.groups[id], t.stored[id] = bytes.Clone(s.Message.Body), x.Group, h.Number
				if made, ok := t.transient[x.Queue]; ok {
					t.settled[id] = made
				}
			}
		case recAcked, recRemoved:
			for _, seq := range r.Seqs {
				t.settle(surgetank.MessageID{Queue: r.Queue, Seq: seq}, h.Number)
			}
		case recTransferred:
			from, to := surgetank.MessageID{Queue: r.Queue, Seq: r.Seqs[0]}, surgetank.MessageID{Queue: r.ToQueue, Seq: r.ToSeq}
			t.settle(from, h.Number)
			t.bodies[to], t.groups[to], t.stored[to], t.origin[to] = t.bodies[from], t.groups[from], h.Number, from
		case recPurged:
			t.settleAll(r.Queue, r.Below, h.Number)
		case recQueueSet:
			if r.Config.Transient {
				t.transient[r.Queue] = h.Number
			}
		case recQueueGone:
			t.settleAll(r.Queue, 1<<62, h.Number)
		}
		return nil
	})
}

func (t *truth) settle(id surgetank.MessageID, entry uint64) {
	if _, ok := t.settled[id]; !ok {
		t.settled[id] = entry
	}
}

// settleAll settles a queue's messages below a number. This is complete only because no message is
// leased when a test purges.
func (t *truth) settleAll(id, below, entry uint64) {
	for m := range t.bodies {
		if m.Queue == id && m.Seq < below {
			t.settle(m, entry)
		}
	}
}

// openDamaged opens a broker on a directory.
func openDamaged(t testing.TB, disk *vfs.Mem, dir string, tr *truth, snapshotBytes int64) (*damageRig, error) {
	r, err := openFiles(t, disk, dir, tr, Options{SnapshotBytes: snapshotBytes})
	if err == nil {
		r.disk = disk
	}
	return r, err
}

// learns returns a Watch function that adds the facts of each turn to the truth.
func (t *truth) learns(tb testing.TB) func(Turn) {
	return func(w Turn) {
		if w.Output.Records > 0 {
			if err := t.learn(w.Output.Entry); err != nil {
				tb.Fatal(err)
			}
		}
	}
}

// openRecorded opens a broker that adds to the truth. Its Close stores a snapshot whenever entries
// follow the newest one.
func openRecorded(t testing.TB, disk *vfs.Mem, tr *truth, at time.Time, snapshotBytes int64) *damageRig {
	t.Helper()
	o := Options{SnapshotBytes: snapshotBytes, QuickReplay: min(snapshotBytes, 1), Clock: clock.NewManual(at), Seed: uint64(len(tr.entries)) + 1, Incarnation: uint64(len(tr.entries)) + 1}
	if snapshotBytes == noSnapshots {
		o.QuickReplay = noSnapshots
	}
	r, err := openWatched(t, disk, dataDir, tr, o, -1, -1, tr.learns(t))
	if err != nil {
		t.Fatal(err)
	}
	r.disk = disk
	return r
}

func openFiles(t testing.TB, disk vfs.FS, dir string, tr *truth, o Options) (*damageRig, error) {
	return openCached(t, disk, dir, tr, o, -1)
}

// openCached opens a broker whose log keeps cacheBytes of its newest entries in memory.
func openCached(t testing.TB, disk vfs.FS, dir string, tr *truth, o Options, cacheBytes int64) (*damageRig, error) {
	return openKeeping(t, disk, dir, tr, o, cacheBytes, -1)
}

// openKeeping opens a broker whose log leaves minFree bytes of the file system free.
func openKeeping(t testing.TB, disk vfs.FS, dir string, tr *truth, o Options, cacheBytes, minFree int64) (*damageRig, error) {
	return openWatched(t, disk, dir, tr, o, cacheBytes, minFree, nil)
}

// openWatched opens a broker that calls watch after each turn.
func openWatched(t testing.TB, disk vfs.FS, dir string, tr *truth, o Options, cacheBytes, minFree int64, watch func(Turn)) (*damageRig, error) {
	r := &damageRig{t: t, truth: tr}
	if o.Clock == nil {
		o.Clock = clock.NewManual(start.Add(time.Hour))
	}
	r.clock = o.Clock.(*clock.Manual)
	var ids io.Reader // random ids of files, different in every opening of a directory
	if o.Seed != 0 {
		ids = rand.NewChaCha8([32]byte{byte(o.Seed)})
	}
	snaps, err := disklog.OpenSnapshots(disk, dir)
	if err != nil {
		return nil, err
	}
	o.Snapshots, o.Limits = snaps, queue.Limits{ExtentBytes: 4 << 10}
	o.OpenLog = func(from commitlog.Offset, hooks LogHooks) (commitlog.Replay, commitlog.Log, error) {
		replay, log, err := disklog.OpenStepped(disklog.Options{FS: disk, Dir: dir, SegmentBytes: disklog.MinSegmentBytes, From: from,
			CacheBytes: cacheBytes, MinFree: minFree, OnFull: hooks.Full, OnDamage: hooks.Damage, Snapshots: snaps, Clock: r.clock, Rand: ids})
		r.log = log
		return replay, log, err
	}
	if r.Stepped, err = OpenStepped(o, Stepping{Drive: r.step, Watch: watch}); err != nil {
		return nil, err
	}
	r.recovered = r.state()
	r.run()
	return r, nil
}

func (r *damageRig) step() {
	r.Tick()
	r.log.Pump()
}

func (r *damageRig) run() {
	for range 3 { // each answer of the log allows another turn
		for r.Tick() {
			r.log.Pump()
		}
		r.log.Pump()
	}
}

func (r *damageRig) send(c queue.Command) {
	r.t.Helper()
	if err := r.do(context.Background(), c, 0); err != nil {
		r.t.Fatalf("%T: %v", c, err)
	}
	r.run()
}

func (r *damageRig) publish(name string, m surgetank.Message) {
	r.t.Helper()
	r.publishTo([]string{name}, m)
}

func (r *damageRig) publishTo(names []string, m surgetank.Message) {
	r.t.Helper()
	r.publishing(surgetank.Publishing{Queues: names, Message: m})
}

func (r *damageRig) publishing(p surgetank.Publishing) {
	r.t.Helper()
	answered := false
	err := r.PublishAsync(context.Background(), []surgetank.Publishing{p}, func(res []surgetank.PublishResult, err error) {
		if answered = true; err != nil || res[0].Err != nil {
			r.t.Fatal(err, res)
		}
	})
	if r.run(); err != nil || !answered {
		r.t.Fatal("the publish was not answered", err)
	}
}

// receive leases the messages that are ready, without waiting.
func (r *damageRig) receive(name string, n int) []surgetank.Delivery {
	r.t.Helper()
	c := &queue.Attach{Queue: name, Now: true, Opts: door.SubscribeOptions{SubscribeOptions: surgetank.SubscribeOptions{Credit: n, ManualCredit: true, Lease: surgetank.LeaseForever}}}
	s := r.NewSubscription(c)
	r.send(c)
	var out []surgetank.Delivery
	for {
		had := len(out)
		var err error
		if out, err = s.TryReceive(out, n, 1<<20); err != nil || len(out) == had {
			if err != nil && surgetank.CodeOf(err) != surgetank.CodeClosed {
				r.t.Fatalf("receiving from %s: %v", name, err)
			}
			return out
		}
	}
}

func (r *damageRig) settle(op surgetank.SettleOp, ds ...surgetank.Delivery) {
	r.t.Helper()
	c := &queue.Settle{Results: make([]error, len(ds))}
	for _, d := range ds {
		s := surgetank.Settlement{Receipt: d.Receipt, Op: op}
		if op == surgetank.Nack && d.ID.Seq%2 == 0 {
			s.Reason = "the target refused it"
		}
		c.Items = append(c.Items, s)
	}
	r.send(c)
	for _, err := range c.Results {
		if err != nil {
			r.t.Fatal(err)
		}
	}
}

func (r *damageRig) info(name string) surgetank.QueueInfo {
	r.t.Helper()
	c := &queue.Info{Name: name}
	r.send(c)
	if c.Err != nil {
		r.t.Fatal(c.Err)
	}
	return c.Infos[0]
}

// state returns the whole durable state, as a snapshot contains it.
func (r *damageRig) state() string {
	r.machine.StartSnapshot(r.number)
	piece, last := r.machine.SnapshotNext(1 << 30)
	if !last {
		r.t.Fatal("the state is too large for one piece")
	}
	return string(piece)
}
