package disklog

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/surgetank/surgetank/internal/commitlog"
	"github.com/surgetank/surgetank/internal/vfs"
)

// must ends a test on an error.
func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestMisledLog moves, removes or replaces an open log's files and directory, as users do. Every
// later append must fail.
func TestMisledLog(t *testing.T) {
	segment := func(dir string) string { return filepath.Join(dir, segmentName(1)) }
	newFile := func(t *testing.T, name string, size int64) {
		f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o600)
		must(t, err)
		must(t, f.Truncate(size))
		must(t, f.Close())
	}
	copyDir := func(t *testing.T, from, to string) { must(t, os.CopyFS(to, os.DirFS(from))) }
	for name, harm := range map[string]func(t *testing.T, dir string){
		"segment removed": func(t *testing.T, dir string) { must(t, os.Remove(segment(dir))) },
		"segment renamed": func(t *testing.T, dir string) { must(t, os.Rename(segment(dir), segment(dir)+".old")) },
		"segment replaced": func(t *testing.T, dir string) {
			must(t, os.Remove(segment(dir)))
			newFile(t, segment(dir), MinSegmentBytes)
		},
		"segment emptied": func(t *testing.T, dir string) { must(t, os.Truncate(segment(dir), 0)) },
		"segment cut":     func(t *testing.T, dir string) { must(t, os.Truncate(segment(dir), MinSegmentBytes-1)) },
		"directory moved": func(t *testing.T, dir string) { must(t, os.Rename(dir, dir+".old")) },
		"directory above moved": func(t *testing.T, dir string) {
			must(t, os.Rename(filepath.Dir(dir), filepath.Dir(dir)+".old"))
		},
		"directory removed": func(t *testing.T, dir string) { must(t, os.RemoveAll(dir)) },
		"directory replaced": func(t *testing.T, dir string) {
			must(t, os.Rename(dir, dir+".old"))
			must(t, os.Mkdir(dir, 0o700))
		},
		"directory replaced by a copy": func(t *testing.T, dir string) {
			must(t, os.Rename(dir, dir+".old"))
			copyDir(t, dir+".old", dir)
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "data", "log")
			_, l, err := OpenStepped(Options{FS: vfs.OS{}, Dir: dir, SegmentBytes: MinSegmentBytes, MinFree: -1})
			must(t, err)
			var outcome error
			put := func(n int) {
				l.Append(make([]byte, n), func(_ commitlog.Offset, err error) { outcome = err })
				l.Pump()
			}
			put(100)
			must(t, outcome)
			harm(t, dir)
			before := tree(t, dir)
			put(100)
			if !errors.Is(outcome, commitlog.ErrFailed) {
				t.Fatalf("the append was answered with %v", outcome)
			}
			if s := outcome.Error(); !strings.Contains(s, "somebody") || !strings.Contains(s, "surgetank verify") {
				t.Errorf("the error does not say what happened and what to do: %v", s)
			}
			if err := l.Close(); !errors.Is(err, commitlog.ErrFailed) {
				t.Errorf("Close gave %v", err)
			}
			if after := tree(t, dir); !slices.Equal(after, before) && !strings.HasPrefix(name, "segment") {
				t.Errorf("the log changed what is in the directory that it does not own any more: %v, before %v", after, before)
			}
		})
	}
}

// tree lists the files of a directory that may not exist.
func tree(t *testing.T, dir string) []string {
	names, err := vfs.OS{}.List(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return names
}

// TestMisledMaintenance: if a log's directory was replaced, the log removes no file from the new
// directory and stores no snapshot there, although the file names are the same.
func TestMisledMaintenance(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "log")
	snaps, err := OpenSnapshots(vfs.OS{}, dir)
	must(t, err)
	_, l, err := OpenStepped(Options{FS: vfs.OS{}, Dir: dir, SegmentBytes: MinSegmentBytes, MinFree: -1, Snapshots: snaps})
	must(t, err)
	for range 20 {
		l.Append(make([]byte, 4000), func(_ commitlog.Offset, err error) { must(t, err) })
		l.Pump()
	}
	must(t, os.Rename(dir, dir+".old"))
	must(t, os.CopyFS(dir, os.DirFS(dir+".old")))
	before := tree(t, dir)
	must(t, l.Trim(commitlog.Offset(15)))
	l.Pump()
	if err := snaps.Save(15, nil); err == nil || !strings.Contains(err.Error(), "somebody") {
		t.Errorf("saving a snapshot into another directory gave %v", err)
	}
	if err := l.Close(); !errors.Is(err, commitlog.ErrFailed) {
		t.Errorf("Close gave %v", err)
	}
	if after := tree(t, dir); !slices.Equal(after, before) {
		t.Errorf("the directory holds %v, and held %v", after, before)
	}
}

// TestLostStateFile: a log whose state file was removed or replaced makes no more changes.
func TestLostStateFile(t *testing.T) {
	disk := vfs.NewMem()
	_, l, err := OpenStepped(Options{FS: disk, Dir: "data", SegmentBytes: MinSegmentBytes, MinFree: -1})
	must(t, err)
	must(t, disk.Remove("data/log.state"))
	var outcome error
	for range 20 {
		l.Append(make([]byte, 4000), func(_ commitlog.Offset, err error) { outcome = err })
		l.Pump()
	}
	if !errors.Is(outcome, commitlog.ErrFailed) || !strings.Contains(outcome.Error(), "log.state") {
		t.Errorf("appends without a state file were answered with %v", outcome)
	}
	_ = l.Close() // the log has failed
}

// TestLockFileRemoved: the lock is still effective after its file was removed. Users remove the
// file because it looks like a leftover.
func TestLockFileRemoved(t *testing.T) {
	dir := t.TempDir()
	_, l, err := OpenStepped(Options{FS: vfs.OS{}, Dir: dir, SegmentBytes: MinSegmentBytes, MinFree: -1})
	must(t, err)
	must(t, os.Remove(filepath.Join(dir, lockName)))
	for range 2 {
		if _, _, err := OpenStepped(Options{FS: vfs.OS{}, Dir: dir}); !errors.Is(err, commitlog.ErrLocked) {
			t.Fatalf("a second log was opened on the directory: %v", err)
		}
		if _, err := os.Stat(filepath.Join(dir, lockName)); err == nil {
			t.Error("the one that was refused made a lock file of its own")
		}
	}
	must(t, l.Close())
	_, l, err = OpenStepped(Options{FS: vfs.OS{}, Dir: dir})
	must(t, err)
	must(t, l.Close())
}
