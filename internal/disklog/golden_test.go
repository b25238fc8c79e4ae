package disklog

import (
	"bytes"
	"flag"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/surgetank/surgetank/internal/clock"
	"github.com/surgetank/surgetank/internal/commitlog"
	"github.com/surgetank/surgetank/internal/vfs"
)

var updateFlag = flag.Bool("update", false, "write the golden data directory anew; only before its format is released")

const goldenDir = "testdata/golden-v1"

// goldenEntry returns the entry of a number in the golden data directory.
func goldenEntry(number int) []byte {
	return bytes.Repeat([]byte{byte(number)}, number*97%2000)
}

const goldenEntries = 40

// writeGolden creates the golden data directory. The log has a trimmed segment, sealed segments, a
// segment that was ended early, an active segment, an empty segment and two snapshots.
func writeGolden(t *testing.T, fs vfs.FS, dir string) {
	o := Options{FS: fs, Dir: dir, SegmentBytes: MinSegmentBytes, CacheBytes: -1,
		Clock: clock.NewManual(time.Unix(1.8e9, 0)), Rand: randReader{rand.New(rand.NewPCG(1, 8))}}
	r, l, err := OpenStepped(o)
	if err != nil {
		t.Fatal(err)
	}
	snaps, err := OpenSnapshots(fs, dir)
	if err != nil {
		t.Fatal(err)
	}
	for i := 1; i <= goldenEntries; i++ {
		l.Append(goldenEntry(i), func(commitlog.Offset, error) {})
		if i == 35 { // killed after the bytes were written: the next start copies the tail
			batch := l.queue
			l.queue = nil
			if err := l.write(batch, false); err != nil {
				t.Fatal(err)
			}
			if err := l.closeFiles(); err != nil {
				t.Fatal(err)
			}
			if r, l, err = OpenStepped(o); err != nil {
				t.Fatal(err)
			}
			continue
		}
		l.Pump()
		if i%15 == 0 {
			if err := snaps.Save(commitlog.Offset(i), func(w io.Writer) error {
				_, err := w.Write(goldenEntry(i))
				return err
			}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := l.Trim(20); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
}

// maskLevel clears the format level of both slots and their checksums, because the golden directory
// is older than format levels.
func maskLevel(b []byte) {
	for _, slot := range [][]byte{b[:stateSlot], b[stateSlot:]} {
		clear(slot[12:16])
		clear(slot[72:stateUsed])
	}
}

// TestGolden opens a data directory of the first version of the format, which must open for ever.
// It also writes the directory again and compares the bytes, so that a change of the format is
// deliberate and gets another version.
func TestGolden(t *testing.T) {
	fresh := filepath.Join(t.TempDir(), "fresh")
	writeGolden(t, vfs.OS{}, fresh)
	if *updateFlag {
		if err := os.RemoveAll(goldenDir); err != nil {
			t.Fatal(err)
		}
		if err := os.CopyFS(goldenDir, os.DirFS(fresh)); err != nil {
			t.Fatal(err)
		}
	}
	copied := filepath.Join(t.TempDir(), "copied")
	if err := os.CopyFS(copied, os.DirFS(goldenDir)); err != nil {
		t.Fatal(err)
	}
	names, err := vfs.OS{}.List(goldenDir)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		want, err := os.ReadFile(filepath.Join(goldenDir, name))
		if err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(filepath.Join(fresh, name))
		if err != nil {
			t.Error(err)
			continue
		}
		if filepath.Ext(name) == snapExt { // a snapshot's id is random
			continue
		}
		if name == stateName {
			maskLevel(got)
			maskLevel(want)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s is written differently now", name)
		}
	}
	report, err := Verify(vfs.OS{}, copied, nil)
	if err != nil || !report.Whole() {
		t.Fatalf("verify: %v, %v", report.Problems, err)
	}
	first, all, l, err := contents(Options{FS: vfs.OS{}, Dir: copied, SegmentBytes: MinSegmentBytes})
	if err != nil {
		t.Fatal(err)
	}
	if first == 0 || first > 20 || int(first)+len(all)-1 != goldenEntries {
		t.Errorf("%d entries from %d, want them up to %d", len(all), first, goldenEntries)
	}
	for i, data := range all {
		if number := int(first) + i; !bytes.Equal(data, goldenEntry(number)) {
			t.Errorf("entry %d is not what was written", number)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	snaps, err := OpenSnapshots(vfs.OS{}, copied)
	if err != nil {
		t.Fatal(err)
	}
	at, r, err := snaps.Latest()
	if err != nil || at != 30 {
		t.Fatalf("the newest snapshot is at %d, %v", at, err)
	}
	data, err := io.ReadAll(r)
	if err != nil || !bytes.Equal(data, goldenEntry(30)) {
		t.Errorf("the snapshot is not what was written: %v", err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
}
