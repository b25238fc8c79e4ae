//go:build linux

package powerfs

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/surgetank/surgetank/test/kit/namespace"
)

// The test program restarts itself in a mount namespace of its own, where it can mount. There it
// starts itself once more, as the program that uses the file system. That program needs a separate
// process, for the reason at Mount.
const asProgram = "SURGETANK_POWERFS_PROGRAM"

func TestMain(m *testing.M) {
	if dir := os.Getenv(asProgram); dir != "" {
		if err := program(dir, os.Args[1] == "sync"); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	_ = namespace.Own(0) // tests that need a namespace are skipped without one
	os.Exit(m.Run())
}

// program writes a file, prints a confirmation, and replaces the file by a longer one. If syncs is
// false, it leaves out the syncs.
func program(dir string, syncs bool) error {
	sync := func(f *os.File) error {
		if !syncs {
			return nil
		}
		return f.Sync()
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := os.Mkdir(filepath.Join(dir, "sub"), 0o700); err != nil {
		return err
	}
	for _, text := range []string{"first", "and second"} {
		name := filepath.Join(dir, "file")
		f, err := os.Create(name + ".tmp")
		if err != nil {
			return err
		}
		if err := syscall.Fallocate(int(f.Fd()), 0, 0, 100_000); err != nil {
			return fmt.Errorf("fallocate: %w", err)
		}
		if _, err := f.WriteString(text); err != nil {
			return err
		}
		if err := errors.Join(sync(f), f.Close(), os.Rename(name+".tmp", name), sync(d)); err != nil {
			return err
		}
		b, err := os.ReadFile(name)
		if err != nil || len(b) != 100_000 || string(b[:len(text)]) != text {
			return fmt.Errorf("read back %d bytes: %w", len(b), err)
		}
	}
	return nil
}

func TestAProgramThatForgetsToSync(t *testing.T) {
	if !namespace.Inside() {
		if os.Getenv("CI") == "true" {
			t.Fatal("needs root and a mount namespace, and CI=true")
		}
		t.Skip("SKIPPED: needs root and a mount namespace")
	}
	if _, err := os.Stat("/dev/fuse"); err != nil {
		t.Skipf("SKIPPED: needs FUSE: %v", err)
	}
	for _, how := range []string{"sync", "forget"} {
		at := t.TempDir()
		d := New()
		m, err := d.Mount(at)
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(os.Args[0], how)
		cmd.Env = append(os.Environ(), asProgram+"="+at)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("the program: %v %s", err, out)
		}
		steps := d.Steps()
		after := d.After(Nothing, seeded(1))
		d.Release()
		if err := m.Unmount(); err != nil {
			t.Fatal(err)
		}
		m, err = after.Mount(at) // the disk after the cut
		if err != nil {
			t.Fatal(err)
		}
		list, err := exec.Command("ls", at).Output()
		if err != nil {
			t.Error(err)
		}
		if err := m.Unmount(); err != nil {
			t.Fatal(err)
		}
		got := text(t, after, "file")
		switch {
		case how == "forget" && (got != "-" || string(list) != ""):
			t.Errorf("the program that forgot to sync has a file of %d bytes; the directory: %q", len(got), list)
		case how == "sync" && (len(got) != 100_000 || got[:10] != "and second" || string(list) != "file\nsub\n"):
			t.Errorf("the program that synced has a file of %d bytes; the directory: %q", len(got), list)
		}
		t.Logf("%s: %d operations", how, steps)
	}
}
