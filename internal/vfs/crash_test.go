package vfs

import (
	"errors"
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"
)

func rng() *rand.Rand { return rand.New(rand.NewPCG(1, 2)) }

func exists(fsys FS, name string) bool {
	f, err := fsys.Open(name, Read)
	if err != nil {
		return false
	}
	_ = f.Close()
	return true
}

func TestCrashLosesWhatWasNotSynced(t *testing.T) {
	m := NewMem()
	f := create(t, m, "/file", "synced")
	must(t, f.Sync())
	if exists(m.CrashClone(rng(), Crash{}), "/file") {
		t.Error("a file survived whose name was not synced")
	}
	must(t, m.SyncDir("/"))
	_, err := f.WriteAt([]byte("SYNCED, not"), 0)
	must(t, err)
	if got := readFile(t, m.CrashClone(rng(), Crash{}), "/file"); got != "synced" {
		t.Errorf("after a crash the file holds %q", got)
	}
	if got := readFile(t, m.CrashClone(rng(), Crash{Percent: 100}), "/file"); got != "SYNCED, not" {
		t.Errorf("after a crash that loses nothing the file holds %q", got)
	}
	must(t, m.Rename("/file", "/renamed"))
	c := m.CrashClone(rng(), Crash{})
	if !exists(c, "/file") || exists(c, "/renamed") {
		t.Error("a rename survived that was not synced")
	}
	must(t, m.SyncDir("/"))
	must(t, m.Remove("/renamed"))
	if c := m.CrashClone(rng(), Crash{}); !exists(c, "/renamed") {
		t.Error("a removal survived that was not synced")
	}
	must(t, m.SyncDir("/"))
	if c := m.CrashClone(rng(), Crash{}); exists(c, "/renamed") || exists(c, "/file") {
		t.Error("a synced removal did not survive")
	}
	if got := readFile(t, c, "/file"); got != "synced" {
		t.Errorf("going on with the original changed the clone: %q", got)
	}
}

// TestCrashRenamesTheRightFile: a file replaces an older file of the same name and is renamed
// afterwards. After a crash, this rename must never have moved the older file.
func TestCrashRenamesTheRightFile(t *testing.T) {
	m := NewMem()
	must(t, create(t, m, "/new.tmp", "older").Sync())
	must(t, m.SyncDir("/"))
	must(t, m.Remove("/new.tmp"))
	must(t, create(t, m, "/new.tmp", "newer").Sync())
	must(t, m.Rename("/new.tmp", "/new"))
	r := rng()
	found := map[string]bool{}
	for range 200 {
		c := m.CrashClone(r, Crash{Percent: 50})
		if exists(c, "/new") {
			found[readFile(t, c, "/new")] = true
		}
	}
	if len(found) != 1 || !found["newer"] {
		t.Errorf("after crashes the new name held %v", found)
	}
}

// TestCrashModes checks the content of one overwritten file after many crashes.
func TestCrashModes(t *testing.T) {
	const blocks = 4
	m := NewMem()
	f := create(t, m, "/f", strings.Repeat("a", blocks*blockSize))
	must(t, f.Sync())
	must(t, m.SyncDir("/"))
	_, err := f.WriteAt([]byte(strings.Repeat("b", blocks*blockSize-100)), 100)
	must(t, err)
	r := rng()
	var mixed, torn, noise bool
	for range 200 {
		for _, crash := range []Crash{{Percent: 50}, {Percent: 50, Torn: true}, {Percent: 50, Torn: true, Garbage: true}} {
			got := readFile(t, m.CrashClone(r, crash), "/f")
			if got[:100] != strings.Repeat("a", 100) {
				t.Fatalf("%+v changed bytes that were not being written", crash)
			}
			for s := 0; s < len(got); s += sectorSize {
				sector := got[max(s, 100) : s+sectorSize]
				whole := sector == strings.Repeat("a", len(sector)) || sector == strings.Repeat("b", len(sector))
				noise = noise || !whole
				if !whole && !crash.Garbage {
					t.Fatalf("%+v tore a sector", crash)
				}
				if s%blockSize != 0 && got[s] != got[s-1] {
					torn = true
					if !crash.Torn {
						t.Fatalf("%+v tore a block", crash)
					}
				}
			}
			mixed = mixed || strings.Contains(got[100:], "a") && strings.Contains(got, "b")
		}
	}
	if !mixed || !torn || !noise {
		t.Errorf("no crash left some blocks (%t), part of a block (%t), noise (%t)", mixed, torn, noise)
	}
	a := readFile(t, m.CrashClone(rng(), Crash{Percent: 50, Torn: true, Garbage: true}), "/f")
	b := readFile(t, m.CrashClone(rng(), Crash{Percent: 50, Torn: true, Garbage: true}), "/f")
	if a != b {
		t.Error("the same seed gave two crashes")
	}
}

func TestCrashOfASize(t *testing.T) {
	m := NewMem()
	f := create(t, m, "/f", strings.Repeat("x", 10000))
	must(t, f.Sync())
	must(t, m.SyncDir("/"))
	must(t, f.Truncate(5000))
	if got := readFile(t, m.CrashClone(rng(), Crash{}), "/f"); got != strings.Repeat("x", 10000) {
		t.Errorf("a truncation survived that was not synced: %d bytes", len(got))
	}
	must(t, f.Sync())
	must(t, f.Preallocate(20000))
	must(t, f.Sync())
	if got := readFile(t, m.CrashClone(rng(), Crash{}), "/f"); got != strings.Repeat("x", 5000)+strings.Repeat("\x00", 15000) {
		t.Error("growing a truncated file brought old bytes back")
	}
}

func TestCapacity(t *testing.T) {
	m := NewMem()
	m.SetCapacity(3 * blockSize)
	f := create(t, m, "/f", strings.Repeat("x", blockSize))
	if err := f.Preallocate(4 * blockSize); !IsNoSpace(err) {
		t.Errorf("preallocating too much gave %v", err)
	}
	must(t, f.Preallocate(3*blockSize))
	if _, err := f.WriteAt([]byte("x"), 3*blockSize); !IsNoSpace(err) {
		t.Errorf("writing too much gave %v", err)
	}
	if free, err := m.Free("/"); free != 0 || err != nil {
		t.Errorf("Free gave %d, %v", free, err)
	}
	must(t, m.Remove("/f"))
	if free, err := m.Free("/"); free != 3*blockSize || err != nil {
		t.Errorf("Free gave %d, %v", free, err)
	}
}

func TestInject(t *testing.T) {
	m := NewMem()
	i := NewInject(m)
	var seen []Op
	i.SetHook(func(op Op, name string) { seen = append(seen, op) })
	f := create(t, i, "/f", "old")
	must(t, f.Sync())
	must(t, i.SyncDir("/"))

	i.SetFault(Fault{Ops: OpWrite, N: 2, Err: syscall.EIO, Short: true})
	_, err := f.WriteAt([]byte("new"), 0)
	must(t, err)
	if n, err := f.WriteVec([][]byte{[]byte("ab"), []byte("cdef")}, 0); n != 3 || !errors.Is(err, syscall.EIO) {
		t.Errorf("the second write gave %d, %v, want half of it and EIO", n, err)
	}
	if _, err := f.WriteAt([]byte("x"), 5); err != nil || i.Failed() != 1 || i.Seen() != 3 {
		t.Errorf("the third write gave %v, %d failed of %d", err, i.Failed(), i.Seen())
	}
	if got := readFile(t, m, "/f"); got != "abc\x00\x00x" {
		t.Errorf("the file holds %q", got)
	}

	// A failed sync loses the unsynced bytes for good.
	i.SetFault(Fault{Ops: OpSync, N: 1, Err: syscall.EIO})
	if err := f.Sync(); !errors.Is(err, syscall.EIO) {
		t.Errorf("the sync gave %v", err)
	}
	must(t, f.Sync())
	if got := readFile(t, m, "/f"); got != "abc\x00\x00x" {
		t.Errorf("after the failed sync processes see %q", got)
	}
	if got := readFile(t, m.CrashClone(rng(), Crash{Percent: 100}), "/f"); strings.HasPrefix(got, "abc") {
		t.Errorf("what a failed sync lost came back with the next: %q", got)
	}

	i.SetFault(Fault{Ops: OpAny, N: 1, Forever: true, Err: syscall.EIO})
	for name, err := range map[string]error{
		"open": second(i.Open("/f", Read)), "create": second(i.Open("/g", Create)), "rename": i.Rename("/f", "/h"), "remove": i.Remove("/f"),
		"list": second(i.List("/")), "mkdir": i.Mkdir("/d"), "syncdir": i.SyncDir("/"), "lock": second(i.Lock("/l", "")), "free": second(i.Free("/")),
		"read": second(f.ReadAt(make([]byte, 1), 0)), "write": second(f.WriteAt([]byte("x"), 0)), "writevec": second(f.WriteVec([][]byte{{1}}, 0)),
		"sync": f.Sync(), "check": second(f.Check()), "preallocate": f.Preallocate(10), "truncate": f.Truncate(1), "close": f.Close(),
	} {
		if !errors.Is(err, syscall.EIO) {
			t.Errorf("%s gave %v, want EIO", name, err)
		}
	}
	if len(seen) < 20 {
		t.Errorf("the hook saw %d operations", len(seen))
	}
}

func second[T any](_ T, err error) error { return err }
