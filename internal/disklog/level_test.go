package disklog

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/commitlog"
	"github.com/surgetank/surgetank/internal/dataformat"
	"github.com/surgetank/surgetank/internal/vfs"
)

// setLevel changes the format level in slots of a state file.
func setLevel(t *testing.T, dir string, level uint32, since string, slots ...int) {
	t.Helper()
	name := filepath.Join(dir, stateName)
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range slots {
		slot := b[i*stateSlot : i*stateSlot+stateUsed]
		clear(slot[72:])
		le.PutUint32(slot[72:], level)
		copy(slot[76:], since)
		le.PutUint32(slot[12:], blockSum(slot))
	}
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// filesOf reads a directory's files.
func filesOf(t *testing.T, dir string) string {
	t.Helper()
	names, err := vfs.OS{}.List(dir)
	if err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	for _, name := range names {
		if name == "LOCK" {
			continue
		}
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&all, "%s %q\n", name, b)
	}
	return all.String()
}

// TestNewerLevelIsRefused: every way to open a directory of a newer build fails. The error names
// the version that can read the directory, and no file is changed.
func TestNewerLevelIsRefused(t *testing.T) {
	for _, slots := range [][]int{{0}, {1}, {0, 1}} {
		dir := filepath.Join(t.TempDir(), "log")
		writeGolden(t, vfs.OS{}, dir)
		setLevel(t, dir, dataformat.Written().Number+3, "7.8.9", slots...)
		before := filesOf(t, dir)
		o := Options{FS: vfs.OS{}, Dir: dir, SegmentBytes: MinSegmentBytes}
		for name, open := range map[string]func() error{
			"Open":          func() error { _, _, err := OpenStepped(o); return err },
			"OpenSnapshots": func() error { _, err := OpenSnapshots(vfs.OS{}, dir); return err },
			"Verify":        func() error { _, err := Verify(vfs.OS{}, dir, nil); return err },
			"Inspect":       func() error { return Inspect(vfs.OS{}, dir, true, func(EntryInfo) error { return nil }) },
			"Repair":        func() error { _, err := Repair(vfs.OS{}, dir, filepath.Join(t.TempDir(), "to")); return err },
		} {
			err := open()
			if !errors.Is(err, ErrLevel) || errors.Is(err, commitlog.ErrCorrupt) || surgetank.CodeOf(err) != surgetank.CodeInvalid ||
				!strings.Contains(err.Error(), "use Surgetank 7.8.9 or newer") {
				t.Errorf("slots %v: %s: %v", slots, name, err)
			}
		}
		if filesOf(t, dir) != before {
			t.Errorf("slots %v: the directory was changed", slots)
		}
	}
}

// TestLevelIsRaised: opening an older directory writes the level of this build into both slots.
func TestLevelIsRaised(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "log")
	writeGolden(t, vfs.OS{}, dir)
	setLevel(t, dir, 0, "", 0, 1)
	read := func() (levels [2]string) {
		b, err := os.ReadFile(filepath.Join(dir, stateName))
		if err != nil {
			t.Fatal(err)
		}
		for i := range levels {
			levels[i] = fmt.Sprint(le.Uint32(b[i*stateSlot+72:]), " ", strings.TrimRight(string(b[i*stateSlot+76:i*stateSlot+stateUsed]), "\x00"))
		}
		return levels
	}
	want := fmt.Sprint(dataformat.Written().Number, " ", dataformat.Written().Since)
	r, l, err := OpenStepped(Options{FS: vfs.OS{}, Dir: dir, SegmentBytes: MinSegmentBytes})
	if err != nil {
		t.Fatal(err)
	}
	if got := read(); got != [2]string{want, want} {
		t.Errorf("while open: the slots say %q, want %q", got, want)
	}
	if err := errors.Join(r.Close(), l.Close()); err != nil {
		t.Fatal(err)
	}
	if got := read(); got != [2]string{want, want} {
		t.Errorf("after closing: the slots say %q, want %q", got, want)
	}
}
