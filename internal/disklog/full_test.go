package disklog

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/commitlog"
	"github.com/surgetank/surgetank/internal/vfs"
)

// TestFullDisk fills the disk. OnFull must be called before appends fail, small entries (acks) must
// still become durable, and trimming must free space on the full disk. After that the log must
// continue by itself.
func TestFullDisk(t *testing.T) {
	disk := vfs.NewMem()
	disk.SetCapacity(12 * MinSegmentBytes)
	var told []bool
	o := Options{FS: disk, Dir: "data", SegmentBytes: MinSegmentBytes, MinFree: -1, CacheBytes: -1,
		OnFull: func(full bool) { told = append(told, full) }}
	_, l, err := OpenStepped(o)
	if err != nil {
		t.Fatal(err)
	}
	durable := 0
	put := func(n int) bool {
		ok := false
		l.Append(make([]byte, n), func(_ commitlog.Offset, err error) {
			if err != nil {
				t.Fatalf("an append on a full disk failed: %v", err)
			}
			ok = true
			durable++
		})
		l.Pump()
		return ok
	}
	for len(told) == 0 {
		if !put(1000) {
			t.Fatal("the log had no room before it said so")
		}
	}
	acks := 0
	for put(20) {
		acks++
	}
	// When OnFull is called, the log still has the rest of the active segment and the reserve.
	if acks < 2*MinSegmentBytes/64*3/4 {
		t.Errorf("only %d acks fitted after the disk was full", acks)
	}
	if !l.Stats().Full {
		t.Error("Stats does not say that the disk is full")
	}
	before := durable
	if err := l.Trim(l.recoveredMiddle()); err != nil {
		t.Fatal(err)
	}
	l.Pump()
	if durable != before+1 {
		t.Fatalf("the append that waited for room did not become durable when there was some")
	}
	for range 10 {
		if !put(1000) {
			t.Fatal("no room although there is")
		}
	}
	if !slices.Equal(told, []bool{true, false}) {
		t.Errorf("the owner was told %v, want full once and roomy once", told)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	o.From = commitlog.Offset(durable)
	_, l, err = OpenStepped(o)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

// recoveredMiddle returns an entry near the middle of the log.
func (l *Stepped) recoveredMiddle() commitlog.Offset {
	return commitlog.Offset(l.segs[len(l.segs)/2+1].first)
}

// TestCloseOnFullDisk: entries that wait for room when the log is closed get an error, and Close
// returns it.
func TestCloseOnFullDisk(t *testing.T) {
	disk := vfs.NewMem()
	disk.SetCapacity(5 * MinSegmentBytes)
	_, l, err := OpenStepped(Options{FS: disk, Dir: "data", SegmentBytes: MinSegmentBytes, MinFree: -1})
	if err != nil {
		t.Fatal(err)
	}
	var refused error
	for refused == nil && len(l.queue) == 0 {
		l.Append(make([]byte, 5000), func(_ commitlog.Offset, err error) { refused = err })
		l.Pump()
	}
	if err := l.Close(); !errors.Is(err, commitlog.ErrFailed) || !strings.Contains(err.Error(), "full") {
		t.Errorf("Close gave %v, want ErrFailed that says that the disk is full", err)
	}
	if !errors.Is(refused, commitlog.ErrFailed) {
		t.Errorf("what waited was ended with %v, want ErrFailed", refused)
	}
}

// TestMinFree: the log leaves MinFree bytes of the file system free.
func TestMinFree(t *testing.T) {
	disk := vfs.NewMem()
	disk.SetCapacity(20 * MinSegmentBytes)
	full := false
	_, l, err := OpenStepped(Options{FS: disk, Dir: "data", SegmentBytes: MinSegmentBytes, MinFree: 8 * MinSegmentBytes, OnFull: func(f bool) { full = f }})
	if err != nil {
		t.Fatal(err)
	}
	for !full {
		l.Append(make([]byte, 5000), func(_ commitlog.Offset, err error) {
			if err != nil {
				t.Fatal(err)
			}
		})
		l.Pump()
	}
	if free, err := disk.Free("data"); err != nil || free < 8*MinSegmentBytes || free > 10*MinSegmentBytes {
		t.Errorf("%d bytes are free, want the %d that were to be left: %v", free, 8*MinSegmentBytes, err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestFullDiskComesBack: after an error of a full disk, a log with goroutines tries again later.
func TestFullDiskComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := vfs.NewMem()
		disk.SetCapacity(6 * MinSegmentBytes)
		told := make(chan bool, 10)
		_, l, err := Open(Options{FS: disk, Dir: "data", SegmentBytes: MinSegmentBytes, MinFree: -1, OnFull: func(f bool) { told <- f }})
		if err != nil {
			t.Fatal(err)
		}
		const n = 30
		done := make(chan error, n)
		for range n {
			l.Append(make([]byte, 4000), func(_ commitlog.Offset, err error) { done <- err })
		}
		if !<-told {
			t.Fatal("told that there is room first")
		}
		synctest.Wait()
		if len(done) == n {
			t.Fatal("everything fitted: the test tests nothing")
		}
		disk.SetCapacity(0)
		for range n {
			if err := <-done; err != nil {
				t.Fatal(err)
			}
		}
		if <-told {
			t.Fatal("told twice that the disk is full")
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

// TestFailedSyncIsNotTrusted: a sync fails, and the page cache keeps the bytes and marks them
// clean. The process restarts and reads these bytes from the cache. Then the power fails. Entries
// that the restarted log confirmed must survive.
func TestFailedSyncIsNotTrusted(t *testing.T) {
	w := newWorld(t, 8)
	disk := vfs.NewMem()
	inject := vfs.NewInject(disk)
	_, _, l, err := contents(w.options(inject))
	if err != nil {
		t.Fatal(err)
	}
	w.append(l)
	l.Pump()
	inject.SetFault(vfs.Fault{Ops: vfs.OpSync, N: 1, Err: syscall.EIO})
	w.entries[2] = []byte("in the page cache alone")
	w.next++
	var outcome error
	l.Append(w.entries[2], func(_ commitlog.Offset, err error) { outcome = err })
	l.Pump()
	if !errors.Is(outcome, commitlog.ErrFailed) || !errors.Is(outcome, syscall.EIO) || surgetank.CodeOf(outcome) != surgetank.CodeUncertain {
		t.Fatalf("the append whose sync failed gave %v, want an uncertain ErrFailed that names EIO", outcome)
	}
	if err := l.Close(); !errors.Is(err, commitlog.ErrFailed) {
		t.Fatalf("Close gave %v", err)
	}
	_, all, l, err := contents(w.options(disk))
	if err != nil {
		t.Fatal(err)
	}
	if len(all) != 2 {
		t.Fatalf("%d entries are read back through the page cache, want 2: the test tests nothing", len(all))
	}
	_, after, _, err := contents(w.options(disk.CrashClone(w.rng, vfs.Crash{})))
	if err != nil {
		t.Fatal(err)
	}
	if len(after) != 2 {
		t.Fatal("an entry that recovery gave out was not on the medium")
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestEvents checks the exact order of file events.
func TestEvents(t *testing.T) {
	var events []string
	disk := vfs.NewMem()
	o := Options{FS: disk, Dir: "data", SegmentBytes: MinSegmentBytes, OnEvent: func(e Event) { events = append(events, e.String()) }}
	open := func() *Stepped {
		_, l, err := OpenStepped(o)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	l := open()
	for range 8 {
		l.Append(make([]byte, 5000), func(commitlog.Offset, error) {})
		l.Pump()
	}
	if err := l.Trim(6); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		l.Append(make([]byte, 5000), func(commitlog.Offset, error) {})
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l = open()
	l.Append([]byte("never synced"), func(commitlog.Offset, error) {})
	// The process is killed after the sync and before the mark, so only the page cache has the
	// entry.
	l.writer.marked = true
	l.mu.Lock()
	batch := l.queue
	l.mu.Unlock()
	if err := l.write(batch, false); err != nil {
		t.Fatal(err)
	}
	if err := l.closeFiles(); err != nil {
		t.Fatal(err)
	}
	l = open()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if f, err := disk.Open(l.files.path(segmentName(5)), vfs.Read); err != nil {
		t.Error(err)
	} else if size, err := f.Size(); size != dataStart+2*frameSize(5000)+indexSize(2) || err != nil {
		t.Errorf("the segment whose tail was copied has %d bytes, %v: it was not ended", size, err)
	}
	want := []string{
		"created 1", "prepared 2 16384 bytes", "reserved",
		"sealed 1 2 entries", "prepared 3 16384 bytes",
		"sealed 2 2 entries", "prepared 4 16384 bytes",
		"sealed 3 2 entries", "prepared 5 16384 bytes",
		"trimmed 2 2 segments",
		"sealed 4 2 entries", "recycled 6", "prepared 6 16384 bytes",
		"rescued 6 1 entries",
		"recycled 7", "prepared 7 16384 bytes",
	}
	if !slices.Equal(events, want) {
		t.Errorf("events are\n%s\nwant\n%s", strings.Join(events, "\n"), strings.Join(want, "\n"))
	}
}

// TestLock: a second Open fails and names the first one's process, until the first is closed.
func TestLock(t *testing.T) {
	for _, fs := range []vfs.FS{vfs.OS{}, vfs.NewMem()} {
		t.Run(fmt.Sprintf("%T", fs), func(t *testing.T) {
			dir := "data"
			if _, ok := fs.(vfs.OS); ok {
				dir = t.TempDir()
			}
			o := Options{FS: fs, Dir: dir, SegmentBytes: MinSegmentBytes}
			_, l, err := Open(o)
			if err != nil {
				t.Fatal(err)
			}
			for _, open := range []func() error{
				func() error { _, _, err := Open(o); return err },
				func() error { _, err := Verify(fs, dir, nil); return err },
				func() error { _, err := Repair(fs, dir, dir+"2"); return err },
				func() error { return Inspect(fs, dir, false, func(EntryInfo) error { return nil }) },
			} {
				err := open()
				if !errors.Is(err, commitlog.ErrLocked) || surgetank.CodeOf(err) != surgetank.CodeExists || !strings.Contains(err.Error(), lockOwner(l.o.Clock.Now())[:12]) {
					t.Errorf("while the log is open: %v, want ErrLocked that names the process", err)
				}
			}
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			_, l, err = Open(o)
			if err != nil {
				t.Fatal(err)
			}
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// TestRestIsMarked: if the process is killed while no append waits, the log has a mark at its end,
// so Open copies nothing. Damaged last entries are then reported as damage, not cut as a torn tail.
func TestRestIsMarked(t *testing.T) {
	w := newWorld(t, 2)
	disk := vfs.NewMem()
	_, _, l, err := contents(w.options(disk))
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		w.append(l)
	}
	l.Pump()
	end := l.writer.pos
	killed := func() *vfs.Mem { return disk.CrashClone(w.rng, vfs.Crash{Percent: 100}) }
	o := w.options(killed())
	o.OnEvent = func(e Event) {
		if e.Kind == "rescued" || e.Kind == "cut" {
			t.Errorf("opening a log that was killed at rest: %v", e)
		}
	}
	if _, _, _, err := contents(o); err != nil {
		t.Fatal(err)
	}
	for at := int64(dataStart); at < end; at += 50 {
		c := killed()
		if err := c.Corrupt("data/"+segmentName(1), func(b []byte) []byte { b[at] ^= 0x10; return b }); err != nil {
			t.Fatal(err)
		}
		if _, _, _, err := contents(w.options(c)); !errors.Is(err, commitlog.ErrCorrupt) || !strings.Contains(err.Error(), segmentName(1)) {
			t.Errorf("damage at byte %d of the last entries gave %v, want ErrCorrupt that names the file", at, err)
		}
	}
}

// TestFrameIsBoundToItsPlace: the checksums of a frame's header and entry match only at the
// position where they were written.
func TestFrameIsBoundToItsPlace(t *testing.T) {
	seal := newSealer(id{1})
	data := []byte("an entry")
	b := make([]byte, frameHeader)
	seal.put(b, frameEntry, 8192, 5, 4096, data)
	if f, ok := seal.decode(b, 8192); !ok || f.number != 5 || f.length != len(data) || f.synced != 4096 {
		t.Fatalf("decoded as %+v, %t", f, ok)
	}
	if _, ok := seal.decode(b, 8200); ok {
		t.Error("the header checks at another position")
	}
	if _, ok := newSealer(id{2}).decode(b, 8192); ok {
		t.Error("the header checks in another life of the file")
	}
	if seal.entryBase(8192, 5) == seal.entryBase(8200, 5) || seal.entryBase(8192, 5) == seal.entryBase(8192, 6) || seal.entryBase(8192, 5) == newSealer(id{2}).entryBase(8192, 5) {
		t.Error("an entry's checksum does not depend on position, number and segment")
	}
}

// TestNothingOldBehindATornTail: three entries are written and not synced. The crash loses the
// beginning of the first entry, so the overwritten mark is readable again. The next entry has the
// size of the lost entry. It must not be written at the lost entry's position, because the old
// second and third entry would then seem to follow it.
func TestNothingOldBehindATornTail(t *testing.T) {
	w := newWorld(t, 2)
	w.size = pageSize - frameHeader // so that the next entry's padding does not overwrite the old second entry
	disk := vfs.NewMem()
	open := func(fs vfs.FS) (*Stepped, [][]byte) {
		o := w.options(fs)
		o.SegmentBytes = 64 << 10
		_, all, l, err := contents(o)
		if err != nil {
			t.Fatal(err)
		}
		return l, all
	}
	l, _ := open(disk)
	w.append(l)
	if err := l.Close(); err != nil { // makes the mark durable
		t.Fatal(err)
	}
	name := "data/" + segmentName(1)
	inject := vfs.NewInject(disk)
	l, _ = open(inject)
	pos := l.writer.pos
	mark := readBytes(t, disk, name)[pos : pos+frameHeader]
	var torn *vfs.Mem
	inject.SetHook(func(op vfs.Op, file string) {
		if op == vfs.OpWrite && file == name && torn == nil {
			torn = disk.CrashClone(w.rng, vfs.Crash{Percent: 100})
		}
	})
	for range 3 {
		w.append(l)
	}
	l.Pump()
	if err := torn.Corrupt(name, func(b []byte) []byte { copy(b[pos:], mark); return b }); err != nil {
		t.Fatal(err)
	}
	again := torn.CrashClone(w.rng, vfs.Crash{Percent: 100})
	watched := vfs.NewInject(again)
	watched.SetHook(func(op vfs.Op, file string) { // interrupt the recovery itself after every operation
		for _, mode := range modes {
			if err := w.recovers(again.CrashClone(w.rng, mode)); err != nil && !t.Failed() {
				t.Errorf("crash %+v after operation %#x on %s of the recovery: %v", mode, op, file, err)
			}
		}
	})
	w.acked = 1
	open(watched)
	l, all := open(torn)
	if len(all) != 1 {
		t.Fatalf("%d entries after the crash, want the one that was confirmed: the test tests nothing", len(all))
	}
	w.acked, w.next = 1, 2
	w.append(l)
	l.Pump()
	_, all = open(torn.CrashClone(w.rng, vfs.Crash{}))
	if len(all) != 2 || !bytes.Equal(all[1], w.entries[2]) {
		t.Errorf("%d entries, want the two that were confirmed: lost ones came back", len(all))
	}
}

func readBytes(t *testing.T, fs vfs.FS, name string) []byte {
	t.Helper()
	f, err := fs.Open(name, vfs.Read)
	if err != nil {
		t.Fatal(err)
	}
	size, err := f.Size()
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, size)
	if err := readFull(f, name, b, 0); err != nil {
		t.Fatal(err)
	}
	return b
}
