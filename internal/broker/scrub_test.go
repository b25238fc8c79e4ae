package broker

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/queue"
	"github.com/surgetank/surgetank/internal/vfs"
)

// scrub checks the whole log once and lets the broker handle the damage found.
func (r *damageRig) scrub() {
	for r.log.ScrubStep() {
	}
	for range 20 {
		r.run()
	}
}

// files returns the files whose names contain a text.
func (r *damageRig) files(part string) []string {
	r.t.Helper()
	names, err := r.disk.List(dataDir)
	if err != nil {
		r.t.Fatal(err)
	}
	return slices.DeleteFunc(names, func(n string) bool { return !strings.Contains(n, part) })
}

// again opens a copy of the directory, as after a crash now, and drains it. spoil changes the copy
// first.
func (r *damageRig) again(spoil func(*vfs.Mem)) (drained, error) {
	r.t.Helper()
	disk := r.disk.CrashClone(rand.New(rand.NewPCG(1, 1)), vfs.Crash{Percent: 100})
	if spoil != nil {
		spoil(disk)
	}
	next, err := openDamaged(r.t, disk, dataDir, r.truth, noSnapshots)
	if err != nil {
		return drained{}, err
	}
	return next.drain()
}

// TestScrubNamesMessages: the scrub marks messages with damaged bodies before a consumer reads
// them.
func TestScrubNamesMessages(t *testing.T) {
	disk := vfs.NewMem()
	r := grouped(t, disk, disk)
	r.rot("message 1 of a")
	r.rot("message 0 of none")
	r.scrub()
	shown, err := r.Peek(t.Context(), "q", surgetank.PeekOptions{State: surgetank.StateDamaged})
	if err != nil || len(shown) != 2 || shown[0].ID.Seq != 2 || shown[1].ID.Seq != 3 || !strings.Contains(shown[1].Damage, "0001.seg is damaged at byte") {
		t.Errorf("a peek shows %+v, %v", shown, err)
	}
	if i := r.info("q"); i.Damaged != 1 {
		t.Errorf("the figures are %+v", i) // the other damaged message is counted when it reaches the front
	}
	r.scrub() // a second scrub changes nothing
	r.wantBodies(r.receive("q", 9), "message 0 of a", "message 1 of none", "message 2 of none", "message 3 of none")
	if i := r.info("q"); i.Damaged != 1 || i.Leased != 4 || i.Blocked != 3 || !strings.Contains(i.Waiting, "0001.seg is damaged at byte") {
		t.Errorf("the figures are %+v", i)
	}
}

// TestScrubWritesAgainWhatMemoryHas: messages are damaged on disk and intact in memory. The broker
// writes them again, and nothing is lost.
func TestScrubWritesAgainWhatMemoryHas(t *testing.T) {
	disk := vfs.NewMem()
	tr := newTruth()
	r, err := openWatched(t, disk, dataDir, tr, Options{SnapshotBytes: noSnapshots}, 1<<20, -1, tr.learns(t))
	if err != nil {
		t.Fatal(err)
	}
	r.disk = disk
	r.send(&queue.Declare{Name: "q", Config: surgetank.QueueConfig{Group: surgetank.GroupConfig{MaxInFlight: 1}}})
	r.publish("q", surgetank.Message{Body: []byte("of no group")})
	r.publish("q", surgetank.Message{Body: []byte("of a group"), Group: "g"})
	for len(r.files(".seg")) < 3 {
		r.publish("q", surgetank.Message{Body: bytes.Repeat([]byte("x"), 2000), Group: "other"})
	}
	r.rot("of no group")
	r.rot("of a group")
	if _, err := r.again(nil); err == nil {
		t.Fatal("the damage is not such that a start refuses it")
	}
	r.scrub()
	if i := r.info("q"); i.Damaged != 0 {
		t.Errorf("the figures are %+v", i)
	}
	if shown, err := r.Peek(t.Context(), "q", surgetank.PeekOptions{State: surgetank.StateDamaged}); err != nil || len(shown) != 0 {
		t.Errorf("a peek shows %+v, %v", shown, err)
	}
	d, err := r.again(nil)
	if err != nil || len(d.ids) != len(r.truth.bodies) {
		t.Errorf("a start gives %d of %d messages, %v", len(d.ids), len(r.truth.bodies), err)
	}
}

// TestScrubSparesTheNextStart: facts in an entry after the newest snapshot are damaged. The broker
// must store a snapshot at once. Otherwise the next opening would fail. With it, the next opening
// has everything except the bodies in that entry.
func TestScrubSparesTheNextStart(t *testing.T) {
	disk := vfs.NewMem()
	r := grouped(t, disk, disk)
	for len(r.files(".seg")) < 3 {
		r.publish("q", surgetank.Message{Body: bytes.Repeat([]byte("x"), 2000), Group: "other"})
	}
	r.rot("message 3 of none")
	if _, err := r.again(nil); surgetank.CodeOf(err) != surgetank.CodeCorrupt {
		t.Fatal("the damage is not such that a start refuses it:", err)
	}
	r.scrub()
	if got := r.files(".snap"); len(got) != 1 {
		t.Fatalf("the snapshots are %v", got)
	}
	d, err := r.again(nil)
	if err != nil || len(d.ids) != len(r.truth.bodies)-1 {
		t.Errorf("a start gives %d of %d messages, %v", len(d.ids), len(r.truth.bodies), err)
	}
	r.publish("q", surgetank.Message{Body: []byte("more")})
	r.scrub()
	if got := r.files(".snap"); len(got) != 1 {
		t.Errorf("a pass that finds the same takes another snapshot: %v", got)
	}
}

// spin publishes and consumes messages until n more snapshots are stored.
func (r *damageRig) spin(n int) {
	r.t.Helper()
	for had := r.files(".snap"); n > 0; {
		r.publish("q", surgetank.Message{Body: fmt.Appendf(nil, "%d %s", r.number, strings.Repeat("y", 1000))})
		r.settle(surgetank.Ack, r.receive("q", 1)...)
		r.run()
		if now := r.files(".snap"); !slices.Equal(now, had) {
			had = now
			n--
		}
	}
}

// TestDamagedSnapshotIsReplaced: one of the two snapshots is damaged, with or without new entries
// after it. Soon there must be two intact snapshots again, and the damaged file is kept under
// another name. Each snapshot with the log after it must contain the whole state.
func TestDamagedSnapshotIsReplaced(t *testing.T) {
	for _, newest := range []bool{true, false} {
		for _, idle := range []bool{true, false} {
			for _, eio := range []bool{true, false} {
				t.Run(fmt.Sprintf("newest=%v idle=%v eio=%v", newest, idle, eio), func(t *testing.T) { replaced(t, newest, idle, eio) })
			}
		}
	}
}

func replaced(t *testing.T, newest, idle, eio bool) {
	disk := vfs.NewMem()
	broken := &brokenFile{FS: disk}
	tr := newTruth()
	r, err := openWatched(t, broken, dataDir, tr, Options{SnapshotBytes: 40 << 10}, -1, -1, tr.learns(t))
	if err != nil {
		t.Fatal(err)
	}
	r.disk = disk
	r.send(&queue.Declare{Name: "q"})
	r.spin(3)
	if idle { // the newest snapshot covers everything
		r.snap.since = 1 << 40
		r.maintain()
		r.run()
		if r.older != r.number {
			t.Fatalf("entry %d of %d is the last of the snapshot", r.older, r.number)
		}
	} else {
		r.publish("q", surgetank.Message{Body: []byte("behind it")})
	}
	snaps := r.files(".snap")
	if len(snaps) != 2 {
		t.Fatalf("the snapshots are %v", snaps)
	}
	bad := snaps[0]
	if newest {
		bad = snaps[1]
	}
	if eio {
		broken.name = dataDir + "/" + bad
	} else if err := disk.Corrupt(dataDir+"/"+bad, func(b []byte) []byte { b[len(b)/2] ^= 1; return b }); err != nil {
		t.Fatal(err)
	}
	r.scrub()
	if idle && !newest {
		if now := r.files(".snap"); !slices.Equal(now, snaps) {
			t.Fatalf("the files are %v, and were %v", now, snaps)
		}
		r.spin(1)
	}
	now := r.files(".snap")
	aside := slices.Index(now, bad+".damaged")
	if aside < 0 || len(now) != 3 {
		t.Fatalf("the files are %v, and were %v", now, snaps)
	}
	want, err := r.again(nil)
	if err != nil || !idle && len(want.ids) != 1 {
		t.Fatalf("a start gives %v, %v", want.ids, err)
	}
	now = slices.Delete(now, aside, aside+1)
	for i := range now {
		got, err := r.again(func(disk *vfs.Mem) {
			if err := disk.Remove(dataDir + "/" + now[i]); err != nil {
				t.Error(err)
			}
		})
		if err != nil || fmt.Sprint(got.ids) != fmt.Sprint(want.ids) {
			t.Errorf("without %s of %v a start gives %v, %v", now[i], now, got.ids, err)
		}
	}
	broken.name = "" // the disk has replaced the bad blocks
	r.scrub()
	if again := r.files(".snap"); len(again) != 3 {
		t.Errorf("another pass makes %v of it", again)
	}
}

// brokenFile is a file system in which one file cannot be read.
type brokenFile struct {
	vfs.FS
	name string
}

func (b *brokenFile) Open(name string, mode vfs.Mode) (vfs.File, error) {
	f, err := b.FS.Open(name, mode)
	if err == nil && b.name == name && mode == vfs.Read {
		f = brokenReads{f}
	}
	return f, err
}

type brokenReads struct{ vfs.File }

func (brokenReads) ReadAt([]byte, int64) (int, error) { return 0, syscall.EIO }

// TestScrubRetriesASnapshot: if a snapshot cannot be stored after damage, it is tried again later,
// and not at every turn.
func TestScrubRetriesASnapshot(t *testing.T) {
	disk := vfs.NewMem()
	inject := vfs.NewInject(disk)
	r := grouped(t, inject, disk)
	r.rot("message 3 of none")
	creates := 0
	inject.SetHook(func(op vfs.Op, name string) {
		if op == vfs.OpCreate && strings.Contains(name, ".snap") {
			creates++
		}
	})
	inject.SetFault(vfs.Fault{Ops: vfs.OpCreate, N: 1, Forever: true, Err: syscall.ENOSPC})
	r.scrub()
	for range 10 {
		r.publish("q", surgetank.Message{Body: []byte("more")})
	}
	if creates != 1 || len(r.files(".snap")) != 0 {
		t.Fatalf("%d tries, %v", creates, r.files(".snap"))
	}
	inject.SetFault(vfs.Fault{})
	r.clock.Advance(retryRenew)
	r.publish("q", surgetank.Message{Body: []byte("more")})
	r.scrub()
	if len(r.files(".snap")) != 1 {
		t.Errorf("after %d tries there are %v", creates, r.files(".snap"))
	}
}
