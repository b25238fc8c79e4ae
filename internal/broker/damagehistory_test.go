package broker

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/commitlog"
	"github.com/surgetank/surgetank/internal/disklog"
	"github.com/surgetank/surgetank/internal/queue"
	"github.com/surgetank/surgetank/internal/vfs"
)

// victim is a directory to be damaged, and the record of the messages confirmed in it.
type victim struct {
	name      string
	disk      *vfs.Mem
	truth     *truth
	states    []string // the allowed states after an opening without damage
	snapshots bool
	written   string   // the segment that a killed broker was writing
	small     bool     // a full run damages all its bits
	served    sync.Map // the contentsKeys of repaired logs that serve has already checked
}

// smallSnapshots is the number of bytes logged between two snapshots of the small history.
const smallSnapshots = 3 << 10

// victims creates three directories of each history. The first was stopped cleanly, with a last
// snapshot. The second was left by kill -9 and a power cut, with unconfirmed entries. The third has
// no snapshots, so all state is in the log.
func victims(t testing.TB) (list []*victim) {
	for _, h := range []struct {
		name  string
		make  func(t testing.TB, snapshotBytes int64) *damageRig
		every int64
	}{{"small", smallHistory, smallSnapshots}, {"large", largeHistory, someSnapshots}} {
		add := func(name string, r *damageRig, disk *vfs.Mem) {
			v := &victim{name: h.name + "/" + name, disk: disk, truth: r.truth, snapshots: name != "without-snapshots", small: h.name == "small"}
			v.addRest(t)
			v.states = append(v.states, v.stateOf(t, disk))
			if v.snapshots { // without the newest snapshot, the opening can still record the expiry of a settled message
				older := whole(disk)
				if err := older.Remove(filepath.Join(dataDir, v.newest(t))); err != nil {
					t.Fatal(err)
				}
				v.states = append(v.states, v.stateOf(t, older))
			}
			list = append(list, v)
		}
		r := h.make(t, h.every)
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		add("closed", r, whole(r.disk))

		r = h.make(t, h.every)
		before := whole(r.disk)
		add("killed", r, killed(t, r))
		v := list[len(list)-1]
		v.states = append(v.states, v.stateOf(t, before))
		v.written = filepath.Base(v.segmentWith(t, "written and never confirmed"))

		r = h.make(t, noSnapshots)
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		add("without-snapshots", r, whole(r.disk))
	}
	return list
}

// whole returns a copy of a disk with all its bytes, as a new process finds them.
func whole(disk *vfs.Mem) *vfs.Mem { return disk.CrashClone(nil, vfs.Crash{Percent: 100}) }

// stateOf returns the state after an opening of an undamaged directory.
func (v *victim) stateOf(t testing.TB, disk *vfs.Mem) string {
	t.Helper()
	r, err := openDamaged(t, whole(disk), dataDir, v.truth, noSnapshots)
	if err != nil {
		t.Fatal(err)
	}
	return r.recovered
}

// newest returns the name of the newest snapshot, or "".
func (v *victim) newest(t testing.TB) (name string) {
	t.Helper()
	names, err := v.disk.List(dataDir)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		if filepath.Ext(n) == ".snap" {
			name = n
		}
	}
	return name
}

// segmentWith returns the segment that contains a text.
func (v *victim) segmentWith(t testing.TB, text string) (path string) {
	t.Helper()
	names, err := v.disk.List(dataDir)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		if p := filepath.Join(dataDir, n); filepath.Ext(n) == ".seg" && bytes.Contains(readFile(t, v.disk, p), []byte(text)) {
			path = p
		}
	}
	if path == "" {
		t.Fatalf("%q stands in no segment", text)
	}
	return path
}

// addRest adds files that so short a history does not create: the lock file of a real server (files
// in memory have no lock file), and another trimmed segment with its old content.
func (v *victim) addRest(t testing.TB) {
	writeFile(t, v.disk, filepath.Join(dataDir, "LOCK"), []byte("process 4711 (since 2026-11-22T10:00:00Z)\n"))
	if v.small && v.snapshots {
		writeFile(t, v.disk, filepath.Join(dataDir, "0000000000000001.spare"), readFile(t, v.disk, filepath.Join(dataDir, "0000000000000004.seg")))
	}
}

func writeFile(t testing.TB, disk *vfs.Mem, name string, data []byte) {
	t.Helper()
	f, err := disk.Open(name, vfs.Create)
	if err == nil {
		_, err = f.WriteAt(data, 0)
	}
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = disk.SyncDir(filepath.Dir(name))
	}
	if err != nil {
		t.Fatal(err)
	}
}

func readFile(t testing.TB, disk *vfs.Mem, name string) []byte {
	t.Helper()
	f, err := disk.Open(name, vfs.Read)
	if err != nil {
		t.Fatal(err)
	}
	size, err := f.Size()
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, size)
	if _, err := f.ReadAt(b, 0); err != nil && err != io.EOF {
		t.Fatal(err)
	}
	return b
}

// killed returns the directory of a broker that was killed while it wrote. One entry is written and
// one is written in part, and neither was synced. A snapshot and the reserve are half written. The
// state file does not know the newest entries.
func killed(t testing.TB, r *damageRig) *vfs.Mem {
	t.Helper()
	base := whole(r.disk)
	known := *r.truth
	old := newTruth()
	for id, e := range known.settled {
		old.settled[id] = e
	}
	for id := range known.bodies {
		old.bodies[id] = nil
	}
	entries := len(r.truth.entries)
	unsynced := surgetank.Message{Body: []byte("written and never confirmed"), Group: "tail"}
	torn := surgetank.Message{Body: bytes.Repeat([]byte("torn"), 400), Group: "tail"}
	r.publish("strict", unsynced)
	r.publish("strict", torn)
	for id := range r.truth.bodies {
		_, had := old.bodies[id]
		_, was := old.settled[id]
		if _, is := r.truth.settled[id]; !had || is != was {
			r.truth.unsure[id] = true
		}
	}
	if n := len(r.truth.entries) - entries; n != 2 || len(r.truth.unsure) != 2 {
		t.Fatalf("%d entries with %d messages are under way, want 2 with 2", n, len(r.truth.unsure))
	}
	fs := vfs.NewInject(base)
	var cut *vfs.Mem
	armed := false
	fs.SetHook(func(op vfs.Op, name string) {
		if armed && op == vfs.OpWrite && strings.HasSuffix(name, ".seg") {
			armed, cut = false, whole(base)
		}
	})
	replay, log, err := disklog.OpenStepped(disklog.Options{FS: fs, Dir: dataDir, SegmentBytes: disklog.MinSegmentBytes, CacheBytes: -1, MinFree: -1})
	if err != nil {
		t.Fatal(err)
	}
	if err := replay.Close(); err != nil {
		t.Fatal(err)
	}
	armed = true
	for _, e := range r.truth.entries[entries:] {
		log.Append(e, func(commitlog.Offset, error) {})
	}
	log.Pump()
	names, err := cut.List(dataDir)
	if err != nil {
		t.Fatal(err)
	}
	snap, hit := "", 0
	for _, name := range names {
		path := filepath.Join(dataDir, name)
		if filepath.Ext(name) == ".snap" {
			snap = path
		}
		if err := cut.Corrupt(path, func(b []byte) []byte {
			if i := bytes.Index(b, torn.Body); i > 0 {
				clear(b[i+200 : min(i+len(torn.Body)+100, len(b))])
				hit++
			}
			return b
		}); err != nil {
			t.Fatal(err)
		}
	}
	if hit != 1 || snap == "" {
		t.Fatalf("the torn entry is in %d files, the newest snapshot is %q", hit, snap)
	}
	half := readFile(t, cut, snap)
	writeFile(t, cut, filepath.Join(dataDir, "00000000000000009999.snap.tmp"), half[:len(half)/2])
	reserve := filepath.Join(dataDir, "reserve.spare")
	if err := cut.Rename(reserve, reserve+".tmp"); err != nil {
		t.Fatal(err)
	}
	return whole(cut)
}

// smallHistory creates a small directory with every feature. It has strict groups and plain
// messages, attempts, dead letters, delays, expiry, overflow and priorities. It has dedup ids and
// groups, set by the publisher and found by rules, and a publisher with numbers. Settings change,
// and there are metadata, a purge, a redrive, a transaction, a pause, a deleted queue and a
// transient one. In its log, messages were moved, a trimmed segment became a spare, and a crash was
// recovered. Two snapshots are followed by more entries.
func smallHistory(t testing.TB, snapshotBytes int64) *damageRig {
	t.Helper()
	ctx := context.Background()
	r := openRecorded(t, vfs.NewMem(), newTruth(), start, snapshotBytes)
	twice := surgetank.RetryConfig{Initial: -1, MaxAttempts: 2}
	declare := func(name string, c surgetank.QueueConfig) {
		t.Helper()
		d := &queue.Declare{Name: name, Config: c, Mode: surgetank.DeclareMode(0)}
		if r.send(d); d.Err != nil {
			t.Fatal(d.Err)
		}
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	strict := surgetank.QueueConfig{Group: surgetank.GroupConfig{MaxInFlight: 1}, DedupWindow: time.Hour, Retry: twice}
	declare("plain", surgetank.QueueConfig{Retry: twice})
	for i := range 6 { // mostly zeros, to fill the segment that is trimmed
		r.publish("plain", surgetank.Message{Body: append(fmt.Appendf(nil, "filler %d", i), make([]byte, 1992)...)})
	}
	ds := r.receive("plain", 6)
	r.settle(surgetank.Ack, ds[1:]...)
	r.settle(surgetank.Nack, ds[0]) // this message becomes a survivor and is moved
	declare("strict", strict)
	declare("keyed", surgetank.QueueConfig{GroupBy: "header:tenant", DedupBy: "header:id", DedupWindow: time.Hour, Group: surgetank.GroupConfig{MaxInFlight: 1}})
	declare("ranked", surgetank.QueueConfig{MaxPriority: 9, MaxMessages: 3, Overflow: surgetank.OverflowDropOldest})
	body := func(i int) []byte { return fmt.Appendf(nil, "body %d", i) }
	round := func(i int) {
		r.clock.Advance(time.Second)
		r.publish("strict", surgetank.Message{Body: body(i), Group: fmt.Sprint("g", i%3), DedupID: fmt.Sprint("id", i)})
		if i%3 == 0 {
			r.publishTo([]string{"plain", "keyed"}, surgetank.Message{Body: body(100 + i), Headers: []surgetank.Header{{Name: "tenant", Value: "t"}, {Name: "id", Value: fmt.Sprint(i)}}})
		}
		if i%4 == 1 {
			r.publish("ranked", surgetank.Message{Body: body(200 + i), Priority: uint8(i % 5)})
		}
		if i%5 == 3 { // leaves a hole at every second number
			r.publishing(surgetank.Publishing{Queues: []string{"ranked"}, Message: surgetank.Message{Body: body(250 + i)}, Publisher: "publisher-of-damage", Sequence: uint64(1 + 2*(i/5))})
		}
		if i%3 == 2 {
			if ds := r.receive("strict", 3); len(ds) == 3 {
				r.settle(surgetank.Ack, ds[0])
				r.settle(surgetank.Nack, ds[1]) // the second nack dead-letters the message
				r.settle(surgetank.Reject, ds[2])
			}
			if ds := r.receive("plain", 3); len(ds) > 1 {
				r.settle(surgetank.Ack, ds[len(ds)-1])
				r.settle(surgetank.Nack, ds[0])
			}
		}
	}
	for i := range 12 {
		round(i)
	}
	// The power fails before the last mark is on the disk. The newest entry is copied to another
	// segment, and this segment ends early.
	r = openRecorded(t, r.disk.CrashClone(rand.New(rand.NewPCG(1, 1)), vfs.Crash{}), r.truth, r.clock.Now().Add(time.Second), snapshotBytes)
	for i := 12; i < 18; i++ {
		round(i)
	}
	declare("short", surgetank.QueueConfig{TTL: 10 * time.Second, DeadLetter: surgetank.DeadLetterDrop})
	declare("brief", surgetank.QueueConfig{Transient: true})
	declare("gone", surgetank.QueueConfig{})
	declare("purged", surgetank.QueueConfig{})
	for i, name := range []string{"short", "brief", "gone", "purged"} {
		r.publish(name, surgetank.Message{Body: body(300 + i)})
	}
	_, err := r.DeleteQueue(ctx, "gone", surgetank.DeleteOptions{})
	must(err)
	_, err = r.PurgeQueue(ctx, "purged")
	must(err)
	r.publish("purged", surgetank.Message{Body: body(310), Delay: time.Minute})
	must(r.SetMeta(ctx, "door", "x", []byte("y")))
	must(r.SetMeta(ctx, "door", "z", []byte("gone")))
	must(r.SetMeta(ctx, "door", "z", nil))
	for i := 18; i < 24; i++ {
		round(i)
	}
	_, err = r.Redrive(ctx, "strict.dead", surgetank.RedriveOptions{Max: 1})
	must(err)
	strict.DedupWindow = 2 * time.Hour
	declare("strict", strict)
	r.clock.Advance(20 * time.Second) // messages with short delays have expired
	must(r.PauseQueue(ctx, "ranked", 0))
	r.publish("plain", surgetank.Message{Body: body(315)})
	ds = r.receive("plain", 1)
	res, err := r.Transact(ctx, []surgetank.Publishing{{Queues: []string{"strict"}, Message: surgetank.Message{Body: body(320), Group: "g0"}}},
		[]surgetank.Settlement{{Receipt: ds[0].Receipt}})
	must(err)
	must(res[0].Err)
	for i := 24; i < 28; i++ {
		round(i)
	}
	return r
}

// largeHistory creates a directory with more messages and larger ones, so that segments are filled,
// sealed, trimmed and moved in the usual way.
func largeHistory(t testing.TB, snapshotBytes int64) *damageRig {
	t.Helper()
	r := openRecorded(t, vfs.NewMem(), newTruth(), start, snapshotBytes)
	strict := surgetank.QueueConfig{Group: surgetank.GroupConfig{MaxInFlight: 1}, DedupWindow: time.Hour, Retry: surgetank.RetryConfig{Initial: -1}}
	strict.Retry.MaxAttempts = -1
	r.send(&queue.Declare{Name: "strict", Config: strict})
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
			r.publish("strict", surgetank.Message{Body: body(i), Group: fmt.Sprintf("group %d", i%5), DedupID: fmt.Sprint("id ", i)})
		}
		if i%4 == 3 { // the oldest messages stay, because the newest are consumed first
			if ds := r.receive("plain", 2); len(ds) > 0 {
				r.settle(surgetank.Ack, ds[len(ds)-1])
				if len(ds) > 1 {
					r.settle(surgetank.Nack, ds[0])
				}
			}
			if ds := r.receive("strict", 3); len(ds) > 0 {
				for j, d := range ds {
					switch {
					case j == 0 && i%20 == 3:
						r.settle(surgetank.Reject, d)
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
	return r
}
