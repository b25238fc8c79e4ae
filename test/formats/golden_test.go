package formats

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/surgetank/surgetank/internal/dataformat"
)

var (
	writeFlag = flag.Bool("write", false, "write the newest golden directory and its text anew; only before its level is released")
	textFlag  = flag.Bool("text", false, "write the texts anew; read the difference as the change in behaviour that it is")
)

// golden returns the path of the files of a level, without extension.
func golden(level uint32) string { return filepath.Join("testdata", fmt.Sprintf("level-%d", level)) }

// TestGoldenDirectories opens the golden directory of each level that this build reads.
func TestGoldenDirectories(t *testing.T) {
	for level := dataformat.Oldest().Number; level <= dataformat.Written().Number; level++ {
		t.Run(fmt.Sprint("level ", level), func(t *testing.T) {
			name := golden(level)
			if *writeFlag && level == dataformat.Written().Number {
				synctest.Test(t, func(t *testing.T) { pack(t, write(t), name+".tar.gz") })
			}
			var found string
			synctest.Test(t, func(t *testing.T) { found = dump(t, unpack(t, name+".tar.gz")) })
			if *writeFlag && level == dataformat.Written().Number || *textFlag {
				if err := os.WriteFile(name+".txt", []byte(found), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(name + ".txt")
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), found); diff != "" {
				t.Errorf("the directory's contents differ from its text (-text, +directory):\n%s", diff)
			}
			synctest.Test(t, func(t *testing.T) { // without the newest snapshot, all records after the older one are replayed
				dir := unpack(t, name+".tar.gz")
				if err := os.Remove(newestSnapshot(t, dir)); err != nil {
					t.Fatal(err)
				}
				if newestSnapshot(t, dir) == "" {
					t.Fatal("there is only one snapshot")
				}
				found = dump(t, dir)
			})
			if diff := cmp.Diff(string(want), found); diff != "" {
				t.Errorf("without the newest snapshot the directory's contents differ from its text (-text, +directory):\n%s", diff)
			}
		})
	}
}

// TestGoldenFiles: there is one archive and one text for each level, and no other file.
func TestGoldenFiles(t *testing.T) {
	var want []string
	for level := dataformat.Oldest().Number; level <= dataformat.Written().Number; level++ {
		want = append(want, golden(level)+".tar.gz", golden(level)+".txt")
	}
	found, err := filepath.Glob("testdata/*")
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(found)
	if slices.Sort(want); !slices.Equal(found, want) {
		t.Errorf("testdata has %q, want %q", found, want)
	}
	for _, name := range found {
		if info, err := os.Stat(name); err != nil || info.Size() > 100<<10 {
			t.Errorf("%s is larger than 100 KiB, %v", name, err)
		}
	}
}

// pass advances the bubble's clock.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}
