//go:build linux

package powerfs

import (
	"bytes"
	"math/rand/v2"
	"syscall"
	"testing"
)

// must fails the test if an operation on the disk failed.
func must(t *testing.T, errno syscall.Errno) {
	t.Helper()
	if errno != 0 {
		t.Fatal(errno)
	}
}

func create(t *testing.T, d *Disk, dir *node, name string) *node {
	t.Helper()
	n, errno := d.enter(dir, name, syscall.S_IFREG|0o600)
	must(t, errno)
	return n
}

func put(t *testing.T, d *Disk, n *node, text string, off int64) {
	t.Helper()
	if k, errno := d.write(n, []byte(text), off); errno != 0 || k != len(text) {
		t.Fatalf("wrote %d of %d bytes: %v", k, len(text), errno)
	}
}

// text returns a file's bytes, or "-" if there is no such file.
func text(t *testing.T, d *Disk, name string) string {
	t.Helper()
	n, errno := d.find(d.root, name)
	if errno == syscall.ENOENT {
		return "-"
	}
	must(t, errno)
	b := make([]byte, n.live.size)
	if k, errno := d.read(n, b, 0); errno != 0 || k != len(b) {
		t.Fatalf("read %d of %d bytes: %v", k, len(b), errno)
	}
	return string(b)
}

func seeded(n uint64) *rand.Rand { return rand.New(rand.NewPCG(n, 1)) }

func TestOnlyWhatWasSyncedSurvives(t *testing.T) {
	d := New()
	both, name, data := create(t, d, d.root, "both"), create(t, d, d.root, "name"), create(t, d, d.root, "other")
	put(t, d, both, "synced", 0)
	must(t, d.sync(both))
	must(t, d.syncDir(d.root))
	put(t, d, both, "SYN", 0)
	put(t, d, name, "never synced", 0)
	must(t, d.move(d.root, "other", d.root, "renamed"))
	put(t, d, data, "in a file with an old name", 0)
	must(t, d.sync(data))
	late := create(t, d, d.root, "late")
	put(t, d, late, "synced, and its directory was not", 0)
	must(t, d.sync(late))

	after := d.After(Nothing, seeded(1))
	for file, want := range map[string]string{
		"both": "synced", "name": "", "other": "in a file with an old name", "renamed": "-", "late": "-",
	} {
		if got := text(t, after, file); got != want {
			t.Errorf("nothing unsynced left: %s has %q, want %q", file, got, want)
		}
	}
	for file, want := range map[string]string{"both": "synced", "name": "", "other": "-", "renamed": "in a file with an old name", "late": "synced, and its directory was not"} {
		if got := text(t, d.After(Names, seeded(1)), file); got != want {
			t.Errorf("bytes lost: %s has %q, want %q", file, got, want)
		}
	}
}

func TestBytesWithoutNames(t *testing.T) {
	d := New()
	f := create(t, d, d.root, "f")
	must(t, d.syncDir(d.root))
	put(t, d, f, "unsynced", 0)
	put(t, d, create(t, d, d.root, "g"), "unsynced", 0)
	after := d.After(Bytes, seeded(1))
	if f, g := text(t, after, "f"), text(t, after, "g"); f != "unsynced" || g != "-" {
		t.Errorf("names lost: f has %q and g %q", f, g)
	}
}

// TestEveryMixSurvives: old, new and, with noise, noisy bytes occur at both ends of a file, and the
// same seed gives the same bytes.
func TestEveryMixSurvives(t *testing.T) {
	for _, s := range []Survival{Some, Torn, Noise} {
		seen := map[string]bool{}
		for seed := range uint64(200) {
			d := New()
			f := create(t, d, d.root, "f")
			put(t, d, f, string(bytes.Repeat([]byte{'o'}, 3*sectorSize)), 0)
			must(t, d.sync(f))
			must(t, d.syncDir(d.root))
			put(t, d, f, string(bytes.Repeat([]byte{'n'}, 2*sectorSize)), sectorSize/2)
			must(t, d.resize(f, 4*sectorSize, true))
			put(t, d, create(t, d, d.root, "g"), "g", 0)
			got, again := text(t, d.After(s, seeded(seed)), "f"), text(t, d.After(s, seeded(seed)), "f")
			if got != again {
				t.Fatalf("%v, seed %d: two cuts differ", s, seed)
			}
			kind := func(b byte) string {
				switch b {
				case 'o', 'n':
					return string(b)
				case 0:
					return "0"
				}
				return "?"
			}
			if got[0] != 'o' || got[sectorSize/2-1] != 'o' || got[3*sectorSize-1] != 'o' {
				t.Fatalf("%v, seed %d: bytes that were not written have changed", s, seed)
			}
			seen["first "+kind(got[sectorSize/2])] = true
			seen["last "+kind(got[2*sectorSize+sectorSize/2-1])] = true
			if len(got) == 4*sectorSize {
				seen["grown"] = true
			} else {
				seen["not grown"] = true
			}
		}
		want := []string{"first o", "first n", "last o", "last n", "grown"}
		switch s {
		case Noise:
			want = append(want, "first 0", "first ?", "last ?")
		default:
			want = append(want, "not grown")
			if seen["first ?"] || seen["last ?"] || seen["first 0"] {
				t.Errorf("%v: noise although the survival is not Noise", s)
			}
		}
		for _, w := range want {
			if !seen[w] {
				t.Errorf("%v: none of 200 cuts left %s", s, w)
			}
		}
	}
}

// TestTornIsAPrefix writes numbered records to two files, with names between them. After a torn
// cut, only the operations before some moment survive.
func TestTornIsAPrefix(t *testing.T) {
	most := 0
	for seed := range uint64(100) {
		d := New()
		a, b := create(t, d, d.root, "a"), create(t, d, d.root, "b")
		must(t, d.syncDir(d.root))
		const n = 10
		for i := range n {
			put(t, d, a, "x", int64(i))
			create(t, d, d.root, string(rune('0'+i)))
			put(t, d, b, "x", int64(i))
		}
		after := d.After(Torn, seeded(seed))
		inA, inB, names := len(text(t, after, "a")), len(text(t, after, "b")), len(after.root.entries)-2
		if inA < names || names < inB || inA > inB+1 {
			t.Fatalf("seed %d: %d writes to a, %d names, %d writes to b", seed, inA, names, inB)
		}
		most = max(most, inB)
	}
	if most < 8 {
		t.Errorf("no cut kept almost all writes: at most %d of 10", most)
	}
}

func TestFailedSyncForgets(t *testing.T) {
	d := New()
	f := create(t, d, d.root, "f")
	put(t, d, f, "old", 0)
	must(t, d.sync(f))
	must(t, d.syncDir(d.root))
	put(t, d, f, "new", 0)
	fail := syscall.EIO
	d.SetFault(func(op Op) (o Outcome) {
		if op.Kind == Sync {
			o.Err, fail = fail, 0
		}
		return o
	})
	if errno := d.sync(f); errno != syscall.EIO {
		t.Fatalf("the failing sync returned %v", errno)
	}
	must(t, d.sync(f)) // as on Linux, the data counts as clean: nothing is written
	if got := text(t, d, "f"); got != "new" {
		t.Errorf("the page cache says %q, want new", got)
	}
	if got := text(t, d.After(Bytes, seeded(1)), "f"); got != "old" {
		t.Errorf("the disk says %q, want old", got)
	}
}

func TestLyingAndShortWrites(t *testing.T) {
	d := New()
	f := create(t, d, d.root, "f")
	must(t, d.syncDir(d.root))
	d.SetFault(func(Op) Outcome { return Outcome{Short: 2, Lie: true} })
	if n, errno := d.write(f, []byte("abc"), 0); n != 2 || errno != 0 {
		t.Errorf("a short write accepted %d bytes: %v", n, errno)
	}
	must(t, d.sync(f))
	if got := text(t, d.After(Nothing, seeded(1)), "f"); got != "" {
		t.Errorf("after a sync without effect the file has %q", got)
	}
}

func TestCutStopsEverything(t *testing.T) {
	d := New()
	f := create(t, d, d.root, "f")
	must(t, d.syncDir(d.root))
	d.CutAfter(2)
	put(t, d, f, "a", 0)
	ended := make(chan syscall.Errno)
	go func() { ended <- d.sync(f) }()
	<-d.Off()
	after := d.After(Nothing, seeded(1))
	d.Release()
	if errno := <-ended; errno != syscall.EIO {
		t.Errorf("the sync during the cut returned %v", errno)
	}
	if got := text(t, after, "f"); got != "" {
		t.Errorf("the sync during the cut was carried out: %q", got)
	}
	if _, errno := d.write(f, []byte("b"), 0); errno != syscall.EIO {
		t.Errorf("a write after the cut returned %v", errno)
	}
}

func TestContent(t *testing.T) {
	rng := seeded(7)
	var want []byte
	c, other := newContent(), newContent()
	for range 2000 {
		switch off := rng.Int64N(5 * pageSize); rng.IntN(4) {
		case 0:
			c.resize(off, &other)
			want = append(want, make([]byte, max(0, int(off)-len(want)))...)[:off]
			clear(want[len(want):cap(want)])
		case 1:
			other = c.clone() // later changes must not affect it
		default:
			b := bytes.Repeat([]byte{byte(1 + rng.IntN(255))}, 1+rng.IntN(2*pageSize))
			c.write(b, off, &other)
			want = append(want, make([]byte, max(0, int(off)+len(b)-len(want)))...)
			copy(want[off:], b)
		}
		got := make([]byte, len(want)+10)
		before := make([]byte, other.size)
		other.read(before, 0)
		if n := c.read(got, 0); !bytes.Equal(got[:n], want) {
			t.Fatalf("the file differs from its model")
		}
		c.write([]byte{1}, 0, &other)
		want = append(want, make([]byte, max(0, 1-len(want)))...)
		want[0] = 1
		now := make([]byte, other.size)
		if other.read(now, 0); !bytes.Equal(before, now) {
			t.Fatal("a write changed the other contents")
		}
	}
}
