package vfs

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// both runs a test on OS and on Mem, which must behave alike.
func both(t *testing.T, run func(t *testing.T, fsys FS, dir string)) {
	t.Run("OS", func(t *testing.T) { run(t, OS{}, t.TempDir()) })
	t.Run("Mem", func(t *testing.T) { run(t, NewMem(), "/") })
	t.Run("Inject", func(t *testing.T) { run(t, NewInject(NewMem()), "/") })
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func create(t *testing.T, fsys FS, name, data string) File {
	t.Helper()
	f, err := fsys.Open(name, Create)
	must(t, err)
	_, err = f.WriteAt([]byte(data), 0)
	must(t, err)
	return f
}

func readFile(t *testing.T, fsys FS, name string) string {
	t.Helper()
	f, err := fsys.Open(name, Read)
	must(t, err)
	size, err := f.Size()
	must(t, err)
	b := make([]byte, size)
	if n, err := f.ReadAt(b, 0); n != len(b) || err != nil && !errors.Is(err, io.EOF) {
		t.Fatalf("ReadAt gave %d of %d bytes, %v", n, len(b), err)
	}
	must(t, f.Close())
	return string(b)
}

func TestFiles(t *testing.T) {
	both(t, func(t *testing.T, fsys FS, dir string) {
		dir = filepath.Join(dir, "a", "b")
		must(t, fsys.Mkdir(dir))
		must(t, fsys.Mkdir(dir)) // an existing directory is not an error
		name := filepath.Join(dir, "file")
		if _, err := fsys.Open(name, Read); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("opening a missing file gave %v", err)
		}
		if _, err := fsys.Open(filepath.Join(dir, "no", "file"), Create); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("creating in a missing directory gave %v", err)
		}
		f := create(t, fsys, name, "hello")
		if _, err := fsys.Open(name, Create); !errors.Is(err, fs.ErrExist) {
			t.Errorf("creating a file that exists gave %v", err)
		}
		n, err := f.WriteVec([][]byte{[]byte(", "), nil, []byte("wide "), []byte("world")}, 5)
		if n != 12 || err != nil {
			t.Errorf("WriteVec gave %d, %v", n, err)
		}
		must(t, f.Sync())
		must(t, f.Preallocate(100))
		must(t, f.Preallocate(50)) // Preallocate never shrinks a file
		if size, err := f.Size(); size != 100 || err != nil {
			t.Errorf("the size is %d, %v after preallocating 100", size, err)
		}
		if got := readFile(t, fsys, name); got != "hello, wide world"+strings.Repeat("\x00", 83) {
			t.Errorf("the file holds %q", got)
		}
		must(t, f.Truncate(5))
		must(t, f.Truncate(7))
		if got := readFile(t, fsys, name); got != "hello\x00\x00" {
			t.Errorf("cut and grown, the file holds %q", got)
		}
		b := make([]byte, 4)
		if n, err := f.ReadAt(b, 5); n != 2 || !errors.Is(err, io.EOF) {
			t.Errorf("reading over the end gave %d, %v", n, err)
		}
		if n, err := f.ReadAt(b, 500); n != 0 || !errors.Is(err, io.EOF) {
			t.Errorf("reading behind the end gave %d, %v", n, err)
		}
		must(t, f.Close())
		if _, err := f.WriteAt(b, 0); !errors.Is(err, fs.ErrClosed) {
			t.Errorf("writing to a closed file gave %v", err)
		}
		r, err := fsys.Open(name, Read)
		must(t, err)
		if _, err := r.WriteAt(b, 0); err == nil {
			t.Error("writing to a file opened for reading succeeded")
		}
		must(t, r.Close())

		must(t, create(t, fsys, filepath.Join(dir, "other"), "x").Close())
		must(t, fsys.Rename(name, filepath.Join(dir, "other")))
		names, err := fsys.List(dir)
		if !slices.Equal(names, []string{"other"}) || err != nil {
			t.Errorf("List gave %v, %v after renaming over a file", names, err)
		}
		if got := readFile(t, fsys, filepath.Join(dir, "other")); got != "hello\x00\x00" {
			t.Errorf("the renamed file holds %q", got)
		}
		must(t, fsys.SyncDir(dir))
		must(t, fsys.Remove(filepath.Join(dir, "other")))
		if err := fsys.Remove(filepath.Join(dir, "other")); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("removing a missing file gave %v", err)
		}
		if _, err := fsys.List(filepath.Join(dir, "none")); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("listing a missing directory gave %v", err)
		}
		if free, err := fsys.Free(dir); free <= 0 || err != nil {
			t.Errorf("Free gave %d, %v", free, err)
		}
	})
}

// TestWriteVecMany writes more buffers than one system call accepts.
func TestWriteVecMany(t *testing.T) {
	both(t, func(t *testing.T, fsys FS, dir string) {
		f := create(t, fsys, filepath.Join(dir, "many"), "")
		var bufs [][]byte
		var want []byte
		for i := range 3000 {
			b := bytes.Repeat([]byte{byte(i)}, i%7)
			bufs = append(bufs, b)
			want = append(want, b...)
		}
		kept := slices.Clone(bufs)
		if n, err := f.WriteVec(bufs, 3); n != int64(len(want)) || err != nil {
			t.Fatalf("WriteVec gave %d of %d, %v", n, len(want), err)
		}
		for i := range bufs {
			if len(bufs[i]) != len(kept[i]) {
				t.Fatal("WriteVec changed the caller's slice")
			}
		}
		must(t, f.Close())
		if got := readFile(t, fsys, filepath.Join(dir, "many")); got != "\x00\x00\x00"+string(want) {
			t.Error("WriteVec wrote something else")
		}
	})
}

func TestLock(t *testing.T) {
	both(t, func(t *testing.T, fsys FS, dir string) {
		name := filepath.Join(dir, "LOCK")
		l, err := fsys.Lock(name, "process 1\nand more")
		must(t, err)
		var held *LockedError
		if _, err := fsys.Lock(name, "process 2"); !errors.As(err, &held) || !errors.Is(err, ErrLocked) || held.Owner != "process 1" {
			t.Errorf("a second Lock gave %v, want ErrLocked by process 1", err)
		}
		must(t, l.Close())
		l, err = fsys.Lock(name, "process 3")
		must(t, err)
		must(t, l.Close())
	})
}

// TestLockOfAnotherProcess runs this test binary as a process that locks the directory, and kills
// it. The lock must end with the process.
func TestLockOfAnotherProcess(t *testing.T) {
	if name := os.Getenv("VFS_TEST_LOCK"); name != "" {
		if _, err := (OS{}).Lock(name, "the other process"); err != nil {
			os.Exit(1)
		}
		os.Stdout.WriteString("locked\n")
		io.Copy(io.Discard, os.Stdin) // wait until the process is killed
		return
	}
	name := filepath.Join(t.TempDir(), "LOCK")
	other := exec.Command(os.Args[0], "-test.run=^TestLockOfAnotherProcess$")
	other.Env = append(os.Environ(), "VFS_TEST_LOCK="+name)
	stdin, err := other.StdinPipe()
	must(t, err)
	defer stdin.Close()
	stdout, err := other.StdoutPipe()
	must(t, err)
	must(t, other.Start())
	line := make([]byte, 7)
	_, err = io.ReadFull(stdout, line)
	must(t, err)
	if _, err := (OS{}).Lock(name, "me"); !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), "the other process") {
		t.Errorf("locking what another process holds gave %v", err)
	}
	must(t, other.Process.Kill())
	if err := other.Wait(); err == nil {
		t.Error("the other process ended by itself")
	}
	l, err := (OS{}).Lock(name, "me")
	must(t, err)
	must(t, l.Close())
}

// TestCheck: Check reports that a path no longer leads to the file.
func TestCheck(t *testing.T) {
	both(t, func(t *testing.T, fsys FS, dir string) {
		name := filepath.Join(dir, "f")
		f, err := fsys.Open(name, Create)
		must(t, err)
		defer f.Close()
		_, err = f.WriteAt([]byte("abc"), 0)
		must(t, err)
		if size, err := f.Check(); size != 3 || err != nil {
			t.Errorf("a file in its place: %d bytes, %v", size, err)
		}
		must(t, fsys.Rename(name, name+"2"))
		var gone *GoneError
		if _, err := f.Check(); !errors.As(err, &gone) || gone.Replaced || gone.Name != name {
			t.Errorf("a file that was renamed: %v", err)
		}
		g, err := fsys.Open(name, Create)
		must(t, err)
		must(t, g.Close())
		if _, err := f.Check(); !errors.As(err, &gone) || !gone.Replaced {
			t.Errorf("a file that was replaced: %v", err)
		}
		must(t, fsys.Rename(name+"2", name))
		if _, err := f.Check(); err != nil {
			t.Errorf("a file that was put back: %v", err)
		}
		must(t, fsys.Remove(name))
		if _, err := f.Check(); !errors.As(err, &gone) || gone.Replaced {
			t.Errorf("a file that was removed: %v", err)
		}
	})
}

func BenchmarkCheck(b *testing.B) {
	f, err := OS{}.Open(filepath.Join(b.TempDir(), "f"), Create)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := f.Check(); err != nil {
			b.Fatal(err)
		}
	}
}
