package broker

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/clock"
	"github.com/surgetank/surgetank/internal/commitlog"
	"github.com/surgetank/surgetank/internal/disklog"
	"github.com/surgetank/surgetank/internal/queue"
	"github.com/surgetank/surgetank/internal/vfs"
)

var damageSamples = flag.Int("samples", 10, "how many bits of each file are flipped, and half as many cuts")

var everyBit = flag.Bool("everybit", false, "damage every bit and cut at every byte, not a sample (hours)")

const (
	dataDir = "data/log"
	// someSnapshots is the log between two snapshots, and noSnapshots more than there is.
	someSnapshots = 6 << 10
	noSnapshots   = 1 << 30
)

// damageRig is a whole broker on files in memory, driven by hand, with a journal of all that it confirmed.
type damageRig struct {
	*Broker
	t     testing.TB
	disk  *vfs.Mem
	clock *clock.Manual
	log   *disklog.Log
	truth truth
}

// truth is what was confirmed, and in which entry of the log each fact stands.
type truth struct {
	bodies  map[surgetank.MessageID][]byte
	groups  map[surgetank.MessageID]string
	stored  map[surgetank.MessageID]uint64
	settled map[surgetank.MessageID]uint64
	origin  map[surgetank.MessageID]surgetank.MessageID // of dead-lettered copies
}

func newTruth() truth {
	return truth{bodies: map[surgetank.MessageID][]byte{}, groups: map[surgetank.MessageID]string{},
		stored: map[surgetank.MessageID]uint64{}, settled: map[surgetank.MessageID]uint64{},
		origin: map[surgetank.MessageID]surgetank.MessageID{}}
}

func (t *truth) live() map[surgetank.MessageID]bool {
	live := map[surgetank.MessageID]bool{}
	for id := range t.bodies {
		if _, ok := t.settled[id]; !ok {
			live[id] = true
		}
	}
	return live
}

// openDamaged opens a broker on a directory.
func openDamaged(t testing.TB, disk *vfs.Mem, dir string, tr truth, snapshotBytes int64) (*damageRig, error) {
	r, err := openFiles(t, disk, dir, tr, snapshotBytes)
	if err == nil {
		r.disk = disk
	}
	return r, err
}

func openFiles(t testing.TB, disk vfs.FS, dir string, tr truth, snapshotBytes int64) (*damageRig, error) {
	return openCached(t, disk, dir, tr, snapshotBytes, -1)
}

func openCached(t testing.TB, disk vfs.FS, dir string, tr truth, snapshotBytes, cacheBytes int64) (*damageRig, error) {
	r := &damageRig{t: t, clock: clock.NewManual(start.Add(time.Hour)), truth: tr}
	snaps, err := disklog.OpenSnapshots(disk, dir)
	if err != nil {
		return nil, err
	}
	r.Broker, err = Open(Options{Manual: true, Clock: r.clock, SnapshotBytes: snapshotBytes, Snapshots: snaps, Drive: r.step,
		Limits: queue.Limits{ExtentBytes: 4 << 10},
		OpenLog: func(from commitlog.Offset, hooks LogHooks) (commitlog.Replay, commitlog.Log, error) {
			replay, log, err := disklog.Open(disklog.Options{FS: disk, Dir: dir, SegmentBytes: disklog.MinSegmentBytes, From: from, Manual: true,
				CacheBytes: cacheBytes, MinFree: -1, OnFull: hooks.Full, OnDamage: hooks.Damage, Snapshots: snaps, Clock: r.clock, Rand: rand.NewChaCha8([32]byte{1})})
			r.log = log
			return replay, log, err
		}})
	if err != nil {
		return nil, err
	}
	r.run()
	return r, nil
}

func (r *damageRig) step() {
	r.Tick()
	r.log.Pump()
}

func (r *damageRig) run() {
	for range 3 { // what the log answered makes the next turn
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

func (r *damageRig) publish(name string, m surgetank.Message) surgetank.MessageID {
	r.t.Helper()
	p := surgetank.Publishing{Queues: []string{name}, Message: m}
	c := &queue.Publish{Msgs: []queue.Incoming{{Publishing: &p}}, Results: make([]surgetank.PublishResult, 1)}
	if m.DedupID != "" {
		c.Msgs[0].Dedup = queue.MakeDedupKey(m.DedupID)
	}
	r.send(c)
	if err := c.Results[0].Err; err != nil {
		r.t.Fatal(err)
	}
	id := c.Results[0].ID
	r.truth.bodies[id], r.truth.groups[id], r.truth.stored[id] = m.Body, m.Group, r.number
	return id
}

// receive leases what can be had at once.
func (r *damageRig) receive(name string, n int) []surgetank.Delivery {
	r.t.Helper()
	c := &queue.Attach{Queue: name, Now: true, Opts: surgetank.SubscribeOptions{Credit: n, ManualCredit: true, Lease: surgetank.LeaseForever}}
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
		c.Items = append(c.Items, surgetank.Settlement{Receipt: d.Receipt, Op: op})
	}
	r.send(c)
	for i, err := range c.Results {
		if err != nil {
			r.t.Fatal(err)
		}
		if op != surgetank.Nack {
			r.truth.settled[ds[i].ID] = r.number
		}
	}
}

// history makes a directory with everything in it: strict groups, messages without any, attempts, dead letters, delays, dedup ids,
// settings, metadata, old messages that were moved, trimmed segments, two snapshots, and a tail behind them.
func history(t testing.TB, closed bool, snapshotBytes int64) (*vfs.Mem, truth) {
	t.Helper()
	r, err := openDamaged(t, vfs.NewMem(), dataDir, newTruth(), snapshotBytes)
	if err != nil {
		t.Fatal(err)
	}
	strict := surgetank.QueueConfig{Group: surgetank.GroupConfig{MaxInFlight: 1}, DedupWindow: time.Hour, Retry: surgetank.RetryConfig{Initial: -1}}
	strict.Retry.MaxAttempts = -1
	r.send(&queue.Declare{Name: "grouped", Config: strict})
	r.send(&queue.Declare{Name: "plain", Config: surgetank.QueueConfig{Retry: strict.Retry}})
	rng := rand.New(rand.NewPCG(7, 7))
	body := func(i int) []byte {
		return []byte(fmt.Sprintf("body %d %s", i, strings.Repeat(string(rune('a'+i%26)), rng.IntN(600))))
	}
	for i := range 160 {
		r.clock.Advance(time.Second)
		switch {
		case i == 60:
			r.send(&queue.Declare{Name: "late", Config: strict})
		case i == 70:
			r.send(&queue.SetMeta{Namespace: "door", Name: "x", Value: []byte("y")})
		case i%3 == 0:
			r.publish("plain", surgetank.Message{Body: body(i)})
		case i > 60 && i%7 == 0:
			r.publish("late", surgetank.Message{Body: body(i), Group: "g"})
		default:
			r.publish("grouped", surgetank.Message{Body: body(i), Group: fmt.Sprintf("group %d", i%5), DedupID: fmt.Sprint("id ", i)})
		}
		if i%4 == 3 { // the oldest stay: what is published late goes first
			if ds := r.receive("plain", 2); len(ds) > 0 {
				r.settle(surgetank.Ack, ds[len(ds)-1])
				if len(ds) > 1 {
					r.settle(surgetank.Nack, ds[0])
				}
			}
			if ds := r.receive("grouped", 3); len(ds) > 0 {
				for j, d := range ds {
					switch {
					case j == 0 && i%20 == 3:
						r.settle(surgetank.Reject, d)
						dead := surgetank.MessageID{Queue: r.id("grouped.dead"), Seq: uint64(r.info("grouped.dead").Ready)}
						r.truth.bodies[dead], r.truth.groups[dead], r.truth.stored[dead] = d.Body, d.Group, r.number
						r.truth.origin[dead] = d.ID
					case j == 2:
						r.settle(surgetank.Nack, d)
					default:
						r.settle(surgetank.Ack, d)
					}
				}
			}
		}
	}
	r.publish("plain", surgetank.Message{Body: body(1), Delay: time.Minute})
	if closed {
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return r.disk.CrashClone(rng, vfs.Crash{Percent: 100}), r.truth
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

func (r *damageRig) id(name string) uint64 { return r.info(name).ID }

// drained is what a broker gave out.
type drained struct {
	ids     map[surgetank.MessageID]bool
	damaged map[surgetank.MessageID]string
}

// drain takes everything out of all queues, and checks bytes and order of what it gets.
func (r *damageRig) drain() (d drained, err error) {
	d = drained{ids: map[surgetank.MessageID]bool{}, damaged: map[surgetank.MessageID]string{}}
	r.clock.Advance(time.Hour)
	c := &queue.Info{}
	r.send(c)
	last := map[string]uint64{}
	for _, q := range c.Infos {
		if q.Config.Paused {
			r.send(&queue.Pause{Name: q.Name})
		}
		for {
			ds := r.receive(q.Name, 4)
			for _, x := range ds {
				want, known := r.truth.bodies[x.ID]
				switch {
				case !known:
					return d, fmt.Errorf("message %s (%.30q) was delivered and never stored", x.ID, x.Body)
				case !bytes.Equal(want, x.Body):
					return d, fmt.Errorf("message %s has the body %.40q, want %.40q", x.ID, x.Body, want)
				case d.ids[x.ID]:
					return d, fmt.Errorf("message %s was delivered twice", x.ID)
				case x.Group != r.truth.groups[x.ID]:
					return d, fmt.Errorf("message %s is of group %q, want %q", x.ID, x.Group, r.truth.groups[x.ID])
				}
				d.ids[x.ID] = true
				if line := fmt.Sprint(x.ID.Queue, x.Group); x.Group != "" {
					if last[line] > x.ID.Seq {
						return d, fmt.Errorf("message %s of group %q came behind %d", x.ID, x.Group, last[line])
					}
					last[line] = x.ID.Seq
				}
			}
			if len(ds) == 0 {
				break
			}
			ack := &queue.Settle{Results: make([]error, len(ds))}
			for _, x := range ds {
				ack.Items = append(ack.Items, surgetank.Settlement{Receipt: x.Receipt})
			}
			r.send(ack)
		}
		shown, err := r.Peek(context.Background(), q.Name, surgetank.PeekOptions{Max: 1000})
		if err != nil {
			return d, fmt.Errorf("peeking into %s: %w", q.Name, err)
		}
		after := r.info(q.Name)
		for _, x := range shown {
			if x.State == surgetank.StateDamaged {
				if x.Damage == "" || len(x.Body) > 0 {
					return d, fmt.Errorf("message %s is damaged: %q, with a body of %d bytes", x.ID, x.Damage, len(x.Body))
				}
				d.damaged[x.ID] = x.Damage
				continue
			}
			// It can only wait behind a damaged one of its strict group.
			if x.State != surgetank.StateBlocked || x.Group == "" || after.Damaged == 0 || !strings.Contains(after.Waiting, "damaged") {
				return d, fmt.Errorf("message %s of group %q is %s and not given out: %s", x.ID, x.Group, x.State, after.Waiting)
			}
			if !slices.ContainsFunc(shown, func(o surgetank.Delivery) bool {
				return o.State == surgetank.StateDamaged && o.Group == x.Group && o.ID.Seq < x.ID.Seq
			}) {
				return d, fmt.Errorf("message %s of group %q waits, and nothing before it is damaged", x.ID, x.Group)
			}
			if !bytes.Equal(x.Body, r.truth.bodies[x.ID]) {
				return d, fmt.Errorf("message %s has the body %.40q in a peek", x.ID, x.Body)
			}
			d.ids[x.ID] = true
		}
	}
	return d, nil
}

// judge opens a damaged directory: it must refuse and name what is wrong, or give out exactly what is there, with the damaged ones named.
func judge(t testing.TB, disk *vfs.Mem, tr truth) (detected bool, err error) {
	r, err := openDamaged(t, disk, dataDir, tr, someSnapshots)
	if err != nil {
		if surgetank.CodeOf(err) != surgetank.CodeCorrupt || !strings.Contains(err.Error(), dataDir) {
			return true, fmt.Errorf("it was refused without naming what is damaged: %w", err)
		}
		return true, nil
	}
	d, err := r.drain()
	if err != nil {
		return false, err
	}
	live := tr.live()
	for id := range d.ids {
		if !live[id] {
			return false, fmt.Errorf("message %s was settled, and is delivered again", id)
		}
	}
	for id := range live {
		if _, damaged := d.damaged[id]; !d.ids[id] && !damaged {
			return false, fmt.Errorf("message %s is gone without a word", id)
		}
	}
	for id, what := range d.damaged {
		if !strings.Contains(what, dataDir+"/0000") || !strings.Contains(what, "surgetank") {
			return false, fmt.Errorf("message %s: the error names no file or remedy: %s", id, what)
		}
	}
	return len(d.damaged) > 0, r.Close()
}

// salvaged repairs a damaged directory, and checks that what it gives out and what it lists as lost are all that there was.
func salvaged(t testing.TB, disk *vfs.Mem, tr truth, detected bool) (_ *queue.SalvageReport, err error) {
	found, err := disklog.Verify(disk, dataDir, nil)
	if err != nil {
		return nil, fmt.Errorf("verify: %w", err)
	}
	if detected && found.Whole() {
		return nil, errors.New("the broker found damage, and verify none")
	}
	const to = "saved/log"
	rep, err := disklog.Repair(disk, dataDir, to)
	if err != nil {
		return nil, fmt.Errorf("repair: %w", err)
	}
	snaps, err := disklog.OpenSnapshots(disk, to)
	if err != nil {
		return nil, err
	}
	loss, err := Salvage(SalvageOptions{Snapshots: snaps, Trimmed: rep.Trimmed, Tail: rep.Tail, Clock: clock.NewManual(start.Add(2 * time.Hour)),
		Limits: queue.Limits{ExtentBytes: 4 << 10},
		OpenLog: func() (commitlog.Replay, commitlog.Log, error) {
			return disklog.Open(disklog.Options{FS: disk, Dir: to, Manual: true, CacheBytes: -1, MinFree: -1})
		}})
	if err != nil {
		return nil, fmt.Errorf("salvage: %w", err)
	}
	if after, err := disklog.Verify(disk, to, nil); err != nil || !after.Whole() {
		return nil, fmt.Errorf("verify after repair: %v %v", after.Problems, err)
	}
	// What the broker need not read may be damaged without harm; then no queue has lost anything.
	if len(rep.Problems) > 0 {
		defer func() {
			if err != nil {
				err = fmt.Errorf("%w; verify found %v", err, rep.Problems)
			}
		}()
	}
	if !detected && (found.Whole() && !loss.Whole() || len(loss.Queues) > 0 || loss.Settled+loss.Unknown+loss.Contradictions > 0) {
		return nil, fmt.Errorf("nothing was damaged, and repair reports: %s", strings.Join(loss.Lines(), "; "))
	}
	r, err := openDamaged(t, disk, to, tr, someSnapshots)
	if err != nil {
		return nil, fmt.Errorf("opening what was repaired: %w", err)
	}
	d, err := r.drain()
	if err != nil {
		return nil, fmt.Errorf("after repair (%s): %w", strings.Join(loss.Lines(), "; "), err)
	}
	if err := account(tr, loss, d); err != nil {
		return nil, fmt.Errorf("%w; repair reports: %s", err, strings.Join(loss.Lines(), "; "))
	}
	// No number is given twice, and what is damaged can be dropped.
	c := &queue.Info{}
	r.send(c)
	for _, q := range c.Infos {
		p := surgetank.Publishing{Queues: []string{q.Name}, Message: surgetank.Message{Body: []byte("new")}}
		pub := &queue.Publish{Msgs: []queue.Incoming{{Publishing: &p}}, Results: make([]surgetank.PublishResult, 1)}
		r.send(pub)
		if id := pub.Results[0].ID; pub.Results[0].Err != nil || tr.bodies[id] != nil {
			return nil, fmt.Errorf("a new message got the number %s of an old one (%v)", id, pub.Results[0].Err)
		}
		if q.Damaged > 0 {
			r.send(&queue.DropDamaged{Name: q.Name})
		}
		if i := r.info(q.Name); i.Damaged != 0 {
			return nil, fmt.Errorf("%d damaged messages of %s are still there after a drop", i.Damaged, q.Name)
		}
	}
	if err := r.Close(); err != nil {
		return nil, err
	}
	again, err := openDamaged(t, disk, to, tr, someSnapshots)
	if err != nil {
		return nil, fmt.Errorf("opening it a second time: %w", err)
	}
	if got, want := again.machine.Losses(), loss.Losses; !slices.Equal(got, want) {
		return nil, fmt.Errorf("after a restart the losses are %v, want %v", got, want)
	}
	return loss, again.Close()
}

// account checks that all that there was is delivered, damaged or listed as lost, and nothing of it twice.
func account(tr truth, loss *queue.SalvageReport, d drained) error {
	inLost := func(entry uint64) bool {
		return entry > 0 && slices.ContainsFunc(loss.Losses, func(l queue.Loss) bool { return !l.Known && entry >= l.First && (entry <= l.Last || l.Tail) })
	}
	byID := map[uint64]queue.QueueLoss{}
	for _, q := range loss.Queues {
		byID[q.ID] = q
	}
	in := func(list []queue.Range, seq uint64) bool {
		return slices.ContainsFunc(list, func(r queue.Range) bool { return r.First <= seq && seq <= r.Last })
	}
	ids := slices.SortedFunc(maps.Keys(tr.bodies), func(a, b surgetank.MessageID) int { return int(int64(a.Queue<<32+a.Seq) - int64(b.Queue<<32+b.Seq)) })
	for _, id := range ids {
		q, listed := byID[id.Queue]
		missing, body := listed && in(q.Missing, id.Seq), listed && in(q.Bodies, id.Seq)
		_, damaged := d.damaged[id]
		settled, wasSettled := tr.settled[id]
		switch {
		case d.ids[id] && (missing || damaged):
			return fmt.Errorf("message %s was delivered, and is listed as lost", id)
		case damaged != body:
			return fmt.Errorf("message %s: damaged %v, its body listed as lost %v", id, damaged, body)
		case d.ids[id] && wasSettled && !inLost(settled):
			return fmt.Errorf("message %s was settled in entry %d, which is not lost, and is delivered again", id, settled)
		case wasSettled, d.ids[id], damaged:
		case missing, listed && q.Skipped > 0 && id.Seq >= q.Skipped:
			if !inLost(tr.stored[id]) && !inLost(tr.stored[tr.origin[id]]) {
				return fmt.Errorf("message %s is listed as missing, and its entry %d is not lost", id, tr.stored[id])
			}
		case !listed && inLost(tr.stored[id]): // its queue is lost with it
		default:
			return fmt.Errorf("message %s of entry %d is gone and not listed as lost", id, tr.stored[id])
		}
	}
	return nil
}

// TestEveryDamage flips bits and cuts files everywhere in the directory of a closed and of a killed broker. The broker refuses and names the
// file, or it serves what is whole and names the messages that are not: never other bytes, never a gap. What repair makes of it can be served,
// and all that is not delivered then is on its list.
func TestEveryDamage(t *testing.T) {
	for _, c := range []struct {
		name      string
		closed    bool
		snapshots int64
	}{{"closed", true, someSnapshots}, {"killed", false, someSnapshots}, {"without snapshots", true, noSnapshots}} {
		t.Run(c.name, func(t *testing.T) {
			disk, tr := history(t, c.closed, c.snapshots)
			rng := rand.New(rand.NewPCG(1, 2))
			names, err := disk.List(dataDir)
			if err != nil {
				t.Fatal(err)
			}
			counts := map[string]int{}
			try := func(what, path string, repair bool, damage func(b []byte) []byte) {
				t.Helper()
				c := disk.CrashClone(rng, vfs.Crash{Percent: 100})
				if err := c.Corrupt(path, damage); err != nil {
					t.Fatal(err)
				}
				kind := filepath.Ext(path)
				detected, err := judge(t, c.CrashClone(rng, vfs.Crash{Percent: 100}), tr)
				if err != nil {
					t.Fatalf("%s: %v", what, err)
				}
				counts[kind+" damaged"]++
				if detected {
					counts[kind+" detected"]++
				}
				if repair {
					loss, err := salvaged(t, c, tr, detected)
					if err != nil {
						t.Fatalf("%s (detected: %v): %v", what, detected, err)
					}
					if kind == ".snap" && !loss.Whole() {
						t.Fatalf("%s: the older snapshot and the log behind it are whole, and repair reports: %s", what, strings.Join(loss.Lines(), "; "))
					}
					for _, q := range loss.Queues {
						counts["messages missing"] += int(spread(q.Missing))
						counts["bodies lost"] += int(spread(q.Bodies))
						if q.MadeUp {
							counts["queues made up"]++
						}
						if q.Skipped > 0 {
							counts["unknown tails"]++
						}
					}
					counts["facts left out"] += loss.Unknown
					counts[kind+" repaired"]++
				}
			}
			try("nothing", filepath.Join(dataDir, names[0]), true, func(b []byte) []byte { return b })
			for _, name := range names {
				path := filepath.Join(dataDir, name)
				size := fileSize(t, disk, path)
				for _, at := range positions(rng, name, size, *damageSamples, 2+*damageSamples/8) {
					try(fmt.Sprintf("bit %d of byte %d of %s flipped", at&7, at>>3, name), path, *everyBit || rng.IntN(3) == 0,
						func(b []byte) []byte { b[at>>3] ^= 1 << (at & 7); return b })
				}
				for _, at := range positions(rng, name, size, *damageSamples/2, 2) {
					try(fmt.Sprintf("%s cut to %d of %d bytes", name, at>>3, size), path, *everyBit || rng.IntN(2) == 0,
						func(b []byte) []byte { return b[:min(int(at>>3), len(b))] })
				}
			}
			for _, k := range slices.Sorted(maps.Keys(counts)) {
				t.Logf("%s: %d", k, counts[k])
			}
			for _, what := range []string{".seg detected", ".seg repaired", ".snap detected", ".snap repaired", "bodies lost"} {
				if counts[what] == 0 && c.snapshots == someSnapshots {
					t.Errorf("%s: none, so the test tests nothing", what)
				}
			}
			for _, what := range []string{"messages missing", "facts left out", "queues made up"} {
				if counts[what] == 0 && c.snapshots == noSnapshots {
					t.Errorf("%s: none, so the test tests nothing", what)
				}
			}
		})
	}
}

func spread(list []queue.Range) (n uint64) {
	for _, r := range list {
		n += r.Last - r.First + 1
	}
	return n
}

// positions draws positions of bits in a file: many in files that hold something, few in others.
func positions(rng *rand.Rand, name string, size int64, many, few int) (at []int64) {
	if size == 0 {
		return nil
	}
	if *everyBit {
		for i := range size * 8 {
			at = append(at, i)
		}
		return at
	}
	n := few
	switch filepath.Ext(name) {
	case ".seg", ".snap":
		n = many
	}
	for range n {
		at = append(at, rng.Int64N(size*8))
	}
	return at
}

func fileSize(t testing.TB, disk *vfs.Mem, path string) int64 {
	t.Helper()
	f, err := disk.Open(path, vfs.Read)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		t.Fatal(err)
	}
	return size
}
