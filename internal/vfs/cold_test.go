package vfs

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"testing"
)

// TestReadCold: ReadCold returns the same as ReadAt, for whole units and for other ranges, up to
// the end of the file and beyond it.
func TestReadCold(t *testing.T) {
	both(t, func(t *testing.T, fsys FS, dir string) {
		name := filepath.Join(dir, "file")
		data := make([]byte, 5*ColdUnit+100)
		for i := range data {
			data[i] = byte(rand.Uint32())
		}
		f := create(t, fsys, name, string(data))
		must(t, f.Sync())
		must(t, f.Close())
		room := make([]byte, 1<<18) // so large that Go allocates whole pages
		for _, c := range []struct{ off, n int }{
			{0, ColdUnit}, {0, len(room)}, {ColdUnit, 2 * ColdUnit}, {4 * ColdUnit, ColdUnit}, {5 * ColdUnit, ColdUnit},
			{6 * ColdUnit, ColdUnit}, {10, 20}, {ColdUnit - 1, ColdUnit}, {len(data) - 1, 1},
		} {
			clear(room)
			n, err := ReadCold(fsys, name, room[:c.n], int64(c.off))
			want := data[min(c.off, len(data)):min(c.off+c.n, len(data))]
			if n != len(want) || !bytes.Equal(room[:n], want) || n < c.n && !errors.Is(err, io.EOF) || n == c.n && err != nil {
				t.Errorf("%d bytes from %d on: %d bytes, %v", c.n, c.off, n, err)
			}
		}
		if _, err := ReadCold(fsys, filepath.Join(dir, "none"), room[:ColdUnit], 0); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("a missing file gave %v", err)
		}
	})
}
