package disklog

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/commitlog"
	"github.com/surgetank/surgetank/internal/vfs"
)

var allFlag = flag.Bool("all", false, "flip bits of all bytes of headers and indexes, and of more of the others")

// sample creates a log of a few segments, one of them trimmed, with two snapshots. It closes the
// log, or stops it as a crash does.
func sample(t *testing.T, seed uint64, closed bool) (*vfs.Mem, *world) {
	t.Helper()
	w := newWorld(t, seed)
	disk := vfs.NewMem()
	_, _, l, err := contents(w.options(disk))
	if err != nil {
		t.Fatal(err)
	}
	for len(l.segs) < 4 || w.acked < 40 {
		w.append(l)
		if w.rng.IntN(3) == 0 {
			l.Pump()
		}
	}
	l.Pump()
	w.trimmed = l.segs[1].first
	if err := l.Trim(commitlog.Offset(w.trimmed)); err != nil {
		t.Fatal(err)
	}
	snaps, err := OpenSnapshots(disk, "data")
	if err != nil {
		t.Fatal(err)
	}
	for _, at := range []commitlog.Offset{10, 20} {
		if err := snaps.Save(at, func(w io.Writer) error {
			_, err := w.Write(snapBytes(at))
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
	if closed {
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return disk.CrashClone(w.rng, vfs.Crash{Percent: 100}), w
}

func snapBytes(at commitlog.Offset) []byte {
	return bytes.Repeat([]byte(fmt.Sprintf("snapshot at %d. ", at)), 40)
}

// judge opens a damaged log and reads all of it. Damage must be ErrCorrupt or have no effect.
func (w *world) judge(disk *vfs.Mem) (detected bool, err error) {
	snaps, err := OpenSnapshots(disk, "data")
	if err != nil {
		return false, err
	}
	at, r, err := snaps.Latest()
	if err == nil && r != nil {
		data, readErr := io.ReadAll(r)
		if readErr == nil && (at != 20 || !bytes.Equal(data, snapBytes(at))) {
			return false, fmt.Errorf("a snapshot of %d bytes at %d was given without an error", len(data), at)
		}
		err = readErr
	} else if err == nil {
		return false, errors.New("no snapshot, and no error")
	}
	if err != nil {
		if !errors.Is(err, commitlog.ErrCorrupt) || surgetank.CodeOf(err) != surgetank.CodeCorrupt {
			return false, fmt.Errorf("a damaged snapshot gave %w, want ErrCorrupt", err)
		}
		detected = true
	}
	first, all, l, err := contents(w.options(disk))
	if err != nil {
		if !errors.Is(err, commitlog.ErrCorrupt) || surgetank.CodeOf(err) != surgetank.CodeCorrupt {
			return false, fmt.Errorf("a damaged log gave %w, want ErrCorrupt", err)
		}
		if !strings.Contains(err.Error(), "data"+string(filepath.Separator)) {
			return false, fmt.Errorf("the error does not name a file: %w", err)
		}
		return true, nil
	}
	if err := w.check(first, all, l); err != nil {
		return false, err
	}
	return detected, nil
}

// repaired checks that verify finds damage if Open or a snapshot does. It also checks that repair
// copies the entries that it reports.
func (w *world) repaired(disk *vfs.Mem, detected bool) error {
	report, err := Verify(disk, "data", nil)
	if err != nil {
		return fmt.Errorf("verify: %w", err)
	}
	if detected && report.Whole() {
		return errors.New("opening found damage, and verify none")
	}
	r, err := Repair(disk, "data", "repaired")
	if err != nil {
		return fmt.Errorf("repair: %w", err)
	}
	o := w.options(disk)
	o.Dir = "repaired"
	replay, l, err := OpenStepped(o)
	if err != nil {
		return fmt.Errorf("opening what was repaired: %w", err)
	}
	saved, named := 0, 0
	for {
		e, err := replay.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("replaying what was repaired: %w", err)
		}
		if e.Lost {
			named++
			continue
		}
		if !bytes.Equal(e.Data, w.entries[uint64(e.Offset)]) {
			return fmt.Errorf("entry %d is wrong after repair", e.Offset)
		}
		saved++
	}
	if saved != r.Entries {
		return fmt.Errorf("repair says that it saved %d entries, and %d are there", r.Entries, saved)
	}
	lost := 0
	for _, x := range r.Lost {
		lost += int(x.Last - x.First + 1)
		if _, err := l.Read(x.First); !errors.Is(err, commitlog.ErrCorrupt) {
			return fmt.Errorf("reading the lost entry %d gave %v", x.First, err)
		}
	}
	if named != lost {
		return fmt.Errorf("repair says that it lost %d entries, and replay gives %d as lost", lost, named)
	}
	if !detected && (lost > 0 || uint64(saved) < w.acked-w.trimmed+1) {
		return fmt.Errorf("nothing was damaged, and repair saved %d of %d entries and lost %d", saved, w.acked-w.trimmed+1, lost)
	}
	after, err := Verify(disk.CrashClone(w.rng, vfs.Crash{}), "repaired", nil)
	if err != nil || !after.Whole() {
		return fmt.Errorf("verify after repair: %v %v", after.Problems, err)
	}
	return nil
}

// TestBitFlips flips bits everywhere in every file of a closed and of a crashed log. Every flip
// must be detected or change no data that is read.
func TestBitFlips(t *testing.T) {
	for _, closed := range []bool{true, false} {
		t.Run(fmt.Sprint("closed=", closed), func(t *testing.T) {
			disk, w := sample(t, 3, closed)
			names, err := disk.List("data")
			if err != nil {
				t.Fatal(err)
			}
			trials, detected := 0, map[string]int{}
			for _, name := range names {
				path := filepath.Join("data", name)
				f, err := disk.Open(path, vfs.Read)
				if err != nil {
					t.Fatal(err)
				}
				size, err := f.Size()
				if err != nil {
					t.Fatal(err)
				}
				for at := int64(0); at < size; at++ {
					// All bytes of headers, of the first frames, of indexes, footers and small
					// files. Other bytes are chosen at random.
					rare := 40
					if size <= 1500 || at < 160 || at >= dataStart && at < dataStart+400 || at > size-300 {
						rare = 1
					}
					switch {
					case *allFlag:
					case testing.Short():
						rare *= 100
					default:
						rare *= 20
					}
					if w.rng.IntN(rare) > 0 {
						continue
					}
					trials++
					c := disk.CrashClone(w.rng, vfs.Crash{})
					bit := byte(1) << w.rng.IntN(8)
					if err := c.Corrupt(path, func(b []byte) []byte { b[at] ^= bit; return b }); err != nil {
						t.Fatal(err)
					}
					found, err := w.judge(c.CrashClone(w.rng, vfs.Crash{}))
					if err != nil {
						t.Fatalf("bit %#x of byte %d of %s: %v", bit, at, name, err)
					}
					if found {
						detected[filepath.Ext(name)]++
					}
					if trials%7 == 0 {
						if err := w.repaired(c, found); err != nil {
							t.Fatalf("bit %#x of byte %d of %s: %v", bit, at, name, err)
						}
					}
				}
			}
			t.Logf("%d flips, detected by kind of file: %v", trials, detected)
			if detected[segmentExt] == 0 || detected[snapExt] == 0 {
				t.Error("no flip of a segment, or none of a snapshot, was detected: the test tests nothing")
			}
		})
	}
}

// TestDamagedFiles cuts, empties, removes or doubles files, swaps blocks, writes old blocks back
// and zeroes pages. All damage must be detected or harmless.
func TestDamagedFiles(t *testing.T) {
	disk, w := sample(t, 4, true)
	names, err := disk.List("data")
	if err != nil {
		t.Fatal(err)
	}
	var segments []string
	for _, name := range names {
		if strings.HasSuffix(name, segmentExt) {
			segments = append(segments, name)
		}
	}
	at := func(name string) string { return filepath.Join("data", name) }
	try := func(what string, must bool, damage func(c *vfs.Mem) error) {
		t.Helper()
		c := disk.CrashClone(w.rng, vfs.Crash{})
		if err := damage(c); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		c = c.CrashClone(w.rng, vfs.Crash{Percent: 100})
		found, err := w.judge(c.CrashClone(w.rng, vfs.Crash{}))
		if err != nil {
			t.Errorf("%s: %v", what, err)
			return
		}
		if must && !found {
			t.Errorf("%s: not detected", what)
		}
		if err := w.repaired(c, found); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	try("nothing", false, func(*vfs.Mem) error { return nil })
	for _, name := range names {
		if strings.HasSuffix(name, spareExt) {
			continue
		}
		for _, size := range []int{0, 1, 100, 4096, 5000, 16383} {
			try(fmt.Sprintf("%s cut to %d bytes", name, size), false, func(c *vfs.Mem) error {
				return c.Corrupt(at(name), func(b []byte) []byte { return b[:min(size, len(b))] })
			})
		}
		try(name+" zeroed", strings.HasSuffix(name, segmentExt), func(c *vfs.Mem) error {
			return c.Corrupt(at(name), func(b []byte) []byte { return make([]byte, len(b)) })
		})
	}
	for i, name := range segments[:len(segments)-1] { // the last segment is prepared and empty
		try(name+" removed", true, func(c *vfs.Mem) error { return c.Remove(at(name)) })
		try(name+" in place of the next", true, func(c *vfs.Mem) error { return c.Rename(at(name), at(segments[i+1])) })
		try(name+" with two blocks swapped", true, func(c *vfs.Mem) error {
			return c.Corrupt(at(name), func(b []byte) []byte {
				x := bytes.Clone(b[4096:8192])
				copy(b[4096:], b[8192:12288])
				copy(b[8192:], x)
				return b
			})
		})
		try(name+" with a page zeroed", true, func(c *vfs.Mem) error {
			return c.Corrupt(at(name), func(b []byte) []byte { clear(b[4096:8192]); return b })
		})
	}
	try("state removed", true, func(c *vfs.Mem) error { return c.Remove(at(stateName)) })
	try("a foreign segment", true, func(c *vfs.Mem) error {
		b := stranger(t)
		return c.Corrupt(at(segments[1]), func([]byte) []byte { return b })
	})
}

// stranger returns the bytes of a segment of another log.
func stranger(t *testing.T) []byte {
	t.Helper()
	other, _ := sample(t, 99, true)
	return contentsOf(t, other, filepath.Join("data", segmentName(3)))
}

func contentsOf(t *testing.T, disk *vfs.Mem, name string) []byte {
	t.Helper()
	f, err := disk.Open(name, vfs.Read)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, size)
	if _, err := f.ReadAt(b, 0); err != nil {
		t.Fatal(err)
	}
	return b
}

// TestStrangers puts a foreign segment file into the log, under each possible number. The error
// must name the file. The file must not be removed, no other file may be reported missing, and
// repair must lose nothing.
func TestStrangers(t *testing.T) {
	disk, w := sample(t, 6, true)
	own := contentsOf(t, disk, filepath.Join("data", segmentName(3)))
	for _, c := range []struct {
		what   string
		number uint64
		bytes  []byte
		want   string
	}{
		{"of another log, far above", 9999, stranger(t), "belongs to another log"},
		{"of another log, next to ours", 6, stranger(t), "belongs to another log"},
		{"of another log, below the oldest", 1, stranger(t), "belongs to another log"},
		{"a copy of our own", 9999, own, "a copy of segment 3"},
	} {
		t.Run(c.what, func(t *testing.T) {
			name := filepath.Join("data", segmentName(c.number))
			disk := disk.CrashClone(w.rng, vfs.Crash{Percent: 100})
			f, err := disk.Open(name, vfs.Create)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := f.WriteAt(c.bytes, 0); err != nil {
				t.Fatal(err)
			}
			if err := f.Close(); err != nil {
				t.Fatal(err)
			}
			_, _, _, err = contents(w.options(disk))
			if !errors.Is(err, commitlog.ErrCorrupt) || !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("opening gave %v, want an error that names %s and says: %s", err, name, c.want)
			}
			report, err := Verify(disk, "data", nil)
			if err != nil || len(report.Problems) != 1 || report.Problems[0].File != name || !strings.Contains(report.Problems[0].What, c.want) {
				t.Errorf("verify found %v, %v", report.Problems, err)
			}
			r, err := Repair(disk, "data", "repaired")
			if err != nil || len(r.Lost) > 0 || r.Tail || uint64(r.Entries) != w.acked-w.trimmed+1 {
				t.Errorf("repair gave %+v, %v", r, err)
			}
			if contentsOf(t, disk, name); t.Failed() {
				return
			}
			if err := disk.Remove(name); err != nil {
				t.Fatal(err)
			}
			if first, all, l, err := contents(w.options(disk)); err != nil {
				t.Errorf("without the stranger: %v", err)
			} else if err := w.check(first, all, l); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestRepairSavesTheRest damages one entry in the middle. Repair must lose only that entry.
func TestRepairSavesTheRest(t *testing.T) {
	disk, w := sample(t, 5, true)
	var victim EntryInfo
	entries := 0
	if err := Inspect(disk, "data", false, func(e EntryInfo) error {
		if entries++; entries == 7 {
			victim = e
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if err := disk.Corrupt(victim.File, func(b []byte) []byte { b[victim.Position+frameHeader-1] ^= 1; return b }); err != nil {
		t.Fatal(err)
	}
	report, err := Verify(disk, "data", nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(report.Problems) == 0 || report.Problems[0].FirstLost != victim.Offset || report.Problems[0].LastLost != victim.Offset || report.Problems[0].Offset != victim.Position {
		t.Errorf("verify reports %v, want entry %d at %d", report.Problems, victim.Offset, victim.Position)
	}
	r, err := Repair(disk, "data", "repaired")
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Lost) != 1 || r.Lost[0].First != victim.Offset || r.Lost[0].Last != victim.Offset || r.Entries != entries-1 || r.Snapshots != 2 {
		t.Errorf("repair reports %+v, want entry %d lost of %d", r, victim.Offset, entries)
	}
	if err := w.repaired(vfsWithout(disk, t), true); err != nil {
		t.Error(err)
	}
	if _, err := Repair(disk, "data", "repaired"); surgetank.CodeOf(err) != surgetank.CodeExists {
		t.Errorf("repairing over a log gave %v", err)
	}
}

// vfsWithout returns a copy of a file system without the results of earlier repairs.
func vfsWithout(disk *vfs.Mem, t *testing.T) *vfs.Mem {
	c := disk.CrashClone(rand.New(rand.NewPCG(1, 1)), vfs.Crash{Percent: 100})
	names, err := c.List("repaired")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if err := c.Remove(filepath.Join("repaired", name)); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

// TestToolsNeedALog: a tool that is called with the wrong directory fails with a message and
// creates no file in the directory.
func TestToolsNeedALog(t *testing.T) {
	disk := vfs.NewMem()
	if err := disk.Mkdir("empty"); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"empty", "missing"} {
		_, verifyErr := Verify(disk, dir, nil)
		_, repairErr := Repair(disk, dir, "to")
		for _, err := range []error{verifyErr, repairErr, Inspect(disk, dir, false, nil)} {
			if surgetank.CodeOf(err) != surgetank.CodeNotFound || !strings.Contains(err.Error(), dir) {
				t.Errorf("in the directory %s: %v, want not_found that names it", dir, err)
			}
		}
	}
	if names, err := disk.List("empty"); len(names) > 0 || err != nil {
		t.Errorf("the tools left %v, %v", names, err)
	}
}

// TestTheStateOfBefore: if the newer slot of the state file is damaged, the older slot can name
// segments that were trimmed later. The error must mention that possibility.
func TestTheStateOfBefore(t *testing.T) {
	disk, w := sample(t, 7, false)
	name := filepath.Join("data", stateName)
	if err := disk.Corrupt(name, func(b []byte) []byte {
		x, _ := decodeState(b[:stateSlot])
		y, _ := decodeState(b[stateSlot:])
		if x.generation > y.generation {
			b[20] ^= 1
		} else {
			b[stateSlot+20] ^= 1
		}
		return b
	}); err != nil {
		t.Fatal(err)
	}
	_, _, _, err := contents(w.options(disk))
	if !errors.Is(err, commitlog.ErrCorrupt) || !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), "it was trimmed") {
		t.Errorf("opening gave %v", err)
	}
}
