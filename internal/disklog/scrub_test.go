package disklog

import (
	"bytes"
	"fmt"
	"log/slog"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/surgetank/surgetank/internal/clock"
	"github.com/surgetank/surgetank/internal/commitlog"
	"github.com/surgetank/surgetank/internal/vfs"
)

// scrubbed is an open log with two snapshots, which the test runs, and the reports of its scrub.
type scrubbed struct {
	*Stepped
	t      testing.TB
	disk   *vfs.Mem
	inject *vfs.Inject
	snaps  *Snapshots
	told   []commitlog.Damage
	lines  *bytes.Buffer
}

// openScrubbed creates a log of some segments, each with several entries.
func openScrubbed(t testing.TB, o Options) *scrubbed {
	t.Helper()
	r := &scrubbed{t: t, disk: vfs.NewMem(), lines: &bytes.Buffer{}}
	r.inject = vfs.NewInject(r.disk)
	var err error
	if r.snaps, err = OpenSnapshots(r.inject, "data"); err != nil {
		t.Fatal(err)
	}
	if o.SegmentBytes == 0 {
		o.SegmentBytes = MinSegmentBytes
	}
	o.FS, o.Dir, o.CacheBytes, o.MinFree, o.Snapshots = r.inject, "data", -1, -1, r.snaps
	o.OnDamage = func(d commitlog.Damage) { r.told = append(r.told, d) }
	o.Logger = slog.New(slog.NewTextHandler(r.lines, nil))
	_, l, err := OpenStepped(o)
	if err != nil {
		t.Fatal(err)
	}
	r.Stepped = l
	for len(l.segs) < 4 || len(l.segs[len(l.segs)-1].index) < 3 {
		r.append(o.SegmentBytes / 8)
	}
	if l.segs[1].first <= 2 {
		t.Fatal("the first segment is too small")
	}
	for _, at := range []commitlog.Offset{commitlog.Offset(l.segs[1].first), commitlog.Offset(l.segs[2].first)} {
		if err := save(r.snaps, at, 1000); err != nil {
			t.Fatal(err)
		}
	}
	return r
}

func (r *scrubbed) append(size int64) {
	r.t.Helper()
	r.Append(pattern(commitlog.Offset(r.durable.Load()+1), int(size)), func(_ commitlog.Offset, err error) {
		if err != nil {
			r.t.Error(err)
		}
	})
	r.Pump()
}

// pass runs one scrub pass and returns the reported damage.
func (r *scrubbed) pass() []commitlog.Damage {
	r.told = nil
	for r.ScrubStep() {
	}
	return r.told
}

func (r *scrubbed) flip(name string, at int64) {
	r.t.Helper()
	if err := r.disk.Corrupt(name, func(b []byte) []byte { b[(at+int64(len(b)))%int64(len(b))] ^= 16; return b }); err != nil {
		r.t.Fatal(err)
	}
}

// TestScrubFindsRot damages every kind of file while the log is open. The scrub must find it and
// log one line with the file, the remedy and the effect on a start. It must report it to the owner
// at every pass.
func TestScrubFindsRot(t *testing.T) {
	entry := func(s *segment, i int) (string, int64) { return s.name, int64(s.index[i])*alignment + frameHeader + 5 }
	for _, test := range []struct {
		name    string
		harm    func(r *scrubbed) (file string)
		kind    commitlog.DamageKind
		entries int64
		refused bool
		says    string
	}{
		{"entry of a sealed segment that the snapshots cover", func(r *scrubbed) string {
			name, at := entry(r.segs[0], 1)
			r.flip(name, at)
			return name
		}, commitlog.DamagedEntry, 1, false, "would not be touched"},
		{"entries in a row", func(r *scrubbed) string {
			for i := range 3 {
				r.flip(entry(r.segs[1], i))
			}
			return r.segs[1].name
		}, commitlog.DamagedEntry, 3, false, "would not be touched"},
		{"entry behind the newest snapshot", func(r *scrubbed) string {
			name, at := entry(r.segs[2], 2)
			r.flip(name, at)
			return name
		}, commitlog.DamagedEntry, 1, true, "would be refused"},
		{"header of an entry", func(r *scrubbed) string {
			name, at := entry(r.segs[0], 0)
			r.flip(name, at-20)
			return name
		}, commitlog.DamagedEntry, 1, false, "entry 1 should begin here"},
		{"durable entry of the active segment", func(r *scrubbed) string {
			name, at := entry(r.segs[3], 0)
			r.flip(name, at)
			return name
		}, commitlog.DamagedEntry, 1, true, "wrong checksum"},
		{"footer", func(r *scrubbed) string { r.flip(r.segs[1].name, -10); return r.segs[1].name },
			commitlog.DamagedIndex, 1, false, "would read the whole file"},
		{"index", func(r *scrubbed) string { r.flip(r.segs[1].name, -footerSize-6); return r.segs[1].name },
			commitlog.DamagedIndex, 1, false, "index or footer"},
		{"header", func(r *scrubbed) string { r.flip(r.segs[1].name, 70); return r.segs[1].name },
			commitlog.DamagedHeader, 1, true, "would be refused"},
		{"newer slot of the state", func(r *scrubbed) string {
			name := r.files.path(stateName)
			if err := r.writeSlot(r.keeper.state.oldest, r.keeper.state.first); err != nil {
				r.t.Fatal(err)
			}
			r.flip(name, int64(r.keeper.state.generation%2)*stateSlot+40)
			return name
		}, commitlog.DamagedState, 1, true, "its newer slot"},
		{"newest snapshot", func(r *scrubbed) string {
			name := r.snaps.path(commitlog.Offset(r.segs[2].first))
			r.flip(name, 500)
			return name
		}, commitlog.DamagedSnapshot, 1, true, "would be refused"},
		{"older snapshot", func(r *scrubbed) string {
			name := r.snaps.path(commitlog.Offset(r.segs[1].first))
			r.flip(name, -3)
			return name
		}, commitlog.DamagedSnapshot, 1, false, "would not be touched"},
		{"a snapshot that was cut", func(r *scrubbed) string {
			name := r.snaps.path(commitlog.Offset(r.segs[1].first))
			if err := r.disk.Corrupt(name, func(b []byte) []byte { return b[:900] }); err != nil {
				r.t.Fatal(err)
			}
			return name
		}, commitlog.DamagedSnapshot, 1, false, "ends"},
		{"a segment that is gone", func(r *scrubbed) string {
			name := r.segs[1].name
			if err := r.disk.Remove(name); err != nil {
				r.t.Fatal(err)
			}
			return name
		}, commitlog.DamagedHeader, 1, true, "the file is missing"},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := openScrubbed(t, Options{})
			if told := r.pass(); len(told) > 0 || r.Stats().Scrub.Passes != 1 {
				t.Fatalf("%v was found in a whole log, after %d passes; %s", told, r.Stats().Scrub.Passes, r.lines)
			}
			file := test.harm(r)
			r.lines.Reset()
			told := r.pass()
			i := slices.IndexFunc(told, func(d commitlog.Damage) bool { return d.Kind == test.kind })
			if i < 0 || len(told) > 1 && !strings.Contains(test.name, "gone") {
				t.Fatalf("%+v was found", told)
			}
			if d := told[i]; d.File != file || d.Refused != test.refused || d.Count() != test.entries || d.Unreadable {
				t.Errorf("%+v was found", d)
			}
			line := ""
			for l := range strings.Lines(r.lines.String()) {
				if strings.Contains(l, "level=ERROR") && strings.Contains(l, "kind="+string(test.kind)) {
					line += l
				}
			}
			for _, part := range []string{test.says, file, "byte=", "surgetank verify"} {
				if strings.Count(line, "\n") != 1 || !strings.Contains(line, part) {
					t.Errorf("the log says %q, which lacks %q, or not once", line, part)
				}
			}
			s := r.Stats().Scrub
			if s.Found[test.kind] != test.entries || s.Damaged[test.kind] != test.entries || s.Errors != 0 || s.Passes != 2 {
				t.Errorf("the figures are %+v", s)
			}
			r.lines.Reset()
			if again := r.pass(); len(again) != len(told) || strings.Contains(r.lines.String(), "level=ERROR") || r.Stats().Scrub.Found[test.kind] != test.entries {
				t.Errorf("the next pass tells %+v, and says %s", again, r.lines)
			}
		})
	}
}

// TestScrubAgreesWithVerify flips bits all over the files of an open log. The scrub must find what
// `surgetank verify` would find after a stop, in the same file. It may find more: damage of an
// index or of the newer state slot, which an opening would repair.
func TestScrubAgreesWithVerify(t *testing.T) {
	r := openScrubbed(t, Options{})
	names, err := r.disk.List("data")
	if err != nil {
		t.Fatal(err)
	}
	trials, found := 0, 0
	for _, name := range names {
		path := filepath.Join("data", name)
		live := r.scrub.live(path)
		size := int64(len(contentsOf(t, r.disk, path)))
		step := max(size/200, 1)
		for at := int64(0); at < size; at += step {
			trials++
			r.flip(path, at)
			report, err := Verify(r.disk.CrashClone(newWorld(t, 1).rng, vfs.Crash{Percent: 100}), "data", nil)
			if err != nil {
				t.Fatal(err)
			}
			verified := slices.ContainsFunc(report.Problems, func(p Problem) bool { return p.File == path })
			told := r.pass()
			scrubbed := slices.ContainsFunc(told, func(d commitlog.Damage) bool { return d.File == path })
			if len(told) > 0 {
				found++
			}
			if verified && live && !scrubbed || len(told) > 0 && !scrubbed || scrubbed && !verified && name != stateName && told[0].Kind != commitlog.DamagedIndex {
				t.Errorf("byte %d of %s: verify says %v, the scrub %+v", at, name, report.Problems, told)
			}
			r.flip(path, at)
		}
	}
	if told := r.pass(); len(told) > 0 || len(r.Stats().Scrub.Damaged) > 0 {
		t.Errorf("mended files are still called damaged: %+v, %+v", told, r.Stats().Scrub)
	}
	if t.Logf("%d flips, %d found", trials, found); found == 0 {
		t.Error("nothing was found")
	}
}

// TestScrubReadsTwice: an I/O error is a finding only if the second reading fails, too. A pass that
// could not read every file is not counted.
func TestScrubReadsTwice(t *testing.T) {
	r := openScrubbed(t, Options{})
	for n := 1; ; n++ {
		r.inject.SetFault(vfs.Fault{Ops: vfs.OpRead | vfs.OpOpen, N: n, Err: syscall.EIO, Short: n%2 == 0})
		told, failed := r.pass(), r.inject.Failed()
		if failed == 0 {
			break
		}
		if s := r.Stats().Scrub; len(told) > 0 || s.Errors+s.Passes != int64(n)+s.Errors || s.Passes != int64(n) {
			t.Fatalf("one error, at reading %d: %+v was found, %+v", n, told, s)
		}
	}
	if !strings.Contains(r.lines.String(), "intact at the second reading") || r.Stats().Scrub.Errors == 0 {
		t.Errorf("the log says %s", r.lines)
	}
	passes := r.Stats().Scrub.Passes
	r.inject.SetFault(vfs.Fault{Ops: vfs.OpRead, N: 1, Forever: true, Err: syscall.EIO})
	told := r.pass()
	if len(told) < 2+2*4 || r.Stats().Scrub.Passes != passes {
		t.Errorf("with a disk that gives errors %d findings, %+v", len(told), r.Stats().Scrub)
	}
	for _, d := range told {
		if !d.Unreadable || !strings.Contains(d.Err.Error(), "input/output error") {
			t.Errorf("%+v", d)
		}
	}
	r.inject.SetFault(vfs.Fault{Ops: vfs.OpOpen, N: 1, Forever: true, Err: syscall.EMFILE})
	if told := r.pass(); len(told) > 0 || r.Stats().Scrub.Passes != passes {
		t.Errorf("without descriptors %+v was found, %+v", told, r.Stats().Scrub)
	}
	r.inject.SetFault(vfs.Fault{})
	if told := r.pass(); len(told) > 0 || r.Stats().Scrub.Passes != passes+1 || len(r.Stats().Scrub.Damaged) > 0 {
		t.Errorf("with a good disk again %+v was found, %+v", told, r.Stats().Scrub)
	}
}

// TestScrubReadsAroundAnError: the scrub still checks the other data in a piece that has an
// unreadable page.
func TestScrubReadsAroundAnError(t *testing.T) {
	r := openScrubbed(t, Options{})
	s := r.segs[0]
	bad := int64(s.index[1]) * alignment / pageSize * pageSize
	r.scrub.l.fs = badPage{r.inject, s.name, bad}
	r.flip(s.name, int64(s.index[4])*alignment+frameHeader+5)
	told := r.pass()
	if len(told) != 2 || !told[0].Unreadable || told[1].Unreadable || told[1].First != told[1].Last || uint64(told[1].First) != s.first+4 {
		t.Fatalf("%+v was found", told)
	}
	if uint64(told[0].First) > s.first+1 || uint64(told[0].Last) > s.first+3 {
		t.Errorf("an error on one page costs the entries %d to %d", told[0].First, told[0].Last)
	}
}

// badPage is a file system with one unreadable page.
type badPage struct {
	vfs.FS
	name string
	page int64
}

func (b badPage) Open(name string, mode vfs.Mode) (vfs.File, error) {
	f, err := b.FS.Open(name, mode)
	if err == nil && name == b.name {
		f = badFile{f, b.page}
	}
	return f, err
}

type badFile struct {
	vfs.File
	page int64
}

func (f badFile) ReadAt(p []byte, off int64) (int, error) {
	if off < f.page+pageSize && off+int64(len(p)) > f.page {
		return 0, syscall.EIO
	}
	return f.File.ReadAt(p, off)
}

// TestScrubBesideTrim trims a segment between two reads of its pieces. The trim does not wait for
// the scrub, and the removed file is not a finding.
func TestScrubBesideTrim(t *testing.T) {
	r := openScrubbed(t, Options{SegmentBytes: 1 << 20})
	name, reads := r.segs[0].name, 0
	r.inject.SetHook(func(op vfs.Op, file string) {
		if file != name || op != vfs.OpRead {
			return
		}
		if reads++; reads == 2 {
			if err := r.Trim(commitlog.Offset(r.segs[2].first)); err != nil {
				t.Error(err)
			}
			if _, err := r.disk.Open(name, vfs.Read); err != nil {
				t.Error("a segment was taken away while a piece of it was being read:", err)
			}
		}
	})
	for r.ScrubStep() {
		r.maintain() // remove the segment that the scrub had protected
		if reads == 2 {
			if _, err := r.disk.Open(name, vfs.Read); err == nil {
				t.Error("a trimmed segment is still there after its scrub has ended")
			}
		}
	}
	if reads != 2 || len(r.told) > 0 {
		t.Errorf("%d pieces were read, and %+v was found", reads, r.told)
	}
}

// TestScrubOfTornTail: bytes after the durable entries of the active segment are not a finding, not
// even a broken frame.
func TestScrubOfTornTail(t *testing.T) {
	r := openScrubbed(t, Options{})
	s := r.segs[len(r.segs)-1]
	if err := r.disk.Corrupt(s.name, func(b []byte) []byte {
		s.seal.put(b[s.end:], frameEntry, s.end, s.next(), s.end, pattern(1, 100)) // a frame header without the entry's bytes
		copy(b[s.end+500:], pattern(2, 300))
		return b
	}); err != nil {
		t.Fatal(err)
	}
	if told := r.pass(); len(told) > 0 {
		t.Errorf("%+v was found", told)
	}
}

// TestScrubAfterRecovery: the scrub reports no damage for segments that a recovery has cut, sealed
// early or left without an index.
func TestScrubAfterRecovery(t *testing.T) {
	seeds(t, func(t *testing.T, seed uint64) {
		w := newWorld(t, seed)
		disk := vfs.NewMem()
		for range 6 {
			o := w.options(disk)
			o.OnDamage = func(d commitlog.Damage) { t.Errorf("seed %d: %+v was found", seed, d) }
			_, _, l, err := contents(o)
			if err != nil {
				t.Fatal(err)
			}
			for range 5 + w.rng.IntN(40) {
				l.Append(w.entry(), func(_ commitlog.Offset, err error) {
					if err != nil {
						t.Errorf("seed %d: %v", seed, err)
					}
				})
				if w.rng.IntN(3) == 0 {
					l.Pump()
				}
				if w.rng.IntN(8) == 0 {
					l.ScrubStep()
				}
			}
			for l.ScrubStep() {
			}
			if l.Stats().Scrub.Passes == 0 {
				t.Fatal("no pass")
			}
			if w.rng.IntN(2) == 0 {
				l.Pump()
			}
			disk = disk.CrashClone(w.rng, modes[w.rng.IntN(len(modes))])
		}
	})
}

// unpaced is a runner whose scrub does not wait.
type unpaced struct{ *goroutines }

func (unpaced) permit(*scrubber, int) error { return nil }

// TestScrubUnderLoad scrubs without a pause while entries are appended, segments are sealed,
// trimmed and written over, and snapshots are stored and removed. It must find nothing.
func TestScrubUnderLoad(t *testing.T) {
	for _, base := range []vfs.FS{vfs.NewMem(), vfs.OS{}} {
		t.Run(fmt.Sprintf("%T", base), func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "data")
			snaps, err := OpenSnapshots(base, dir)
			if err != nil {
				t.Fatal(err)
			}
			_, l, err := open(Options{FS: base, Dir: dir, SegmentBytes: 64 << 10, MinFree: -1, Snapshots: snaps, ScrubEvery: -1,
				OnDamage: func(d commitlog.Damage) { t.Errorf("%+v was found", d) }, Logger: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))}, unpaced{newGoroutines()})
			if err != nil {
				t.Fatal(err)
			}
			done := make(chan struct{})
			var work sync.WaitGroup
			work.Go(func() {
				for {
					select {
					case <-done:
						return
					default:
						for l.scrub.step() {
						}
					}
				}
			})
			for round := range 60 {
				var last commitlog.Offset
				ticket := make(chan struct{})
				for i := range 20 {
					l.Append(pattern(commitlog.Offset(i), 2000+i*300), func(at commitlog.Offset, err error) {
						if last = at; err != nil {
							t.Error(err)
						}
						if i == 19 {
							close(ticket)
						}
					})
				}
				<-ticket
				if round%3 == 0 {
					if err := save(snaps, last, 400_000); err != nil {
						t.Error(err)
					}
				}
				if err := l.Trim(last - commitlog.Offset(round%50)); err != nil {
					t.Error(err)
				}
			}
			close(done)
			work.Wait()
			if s := l.Stats().Scrub; s.Errors > 0 || s.Bytes == 0 || s.Passes == 0 {
				t.Errorf("the figures are %+v", s)
			}
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// TestScrubPace: a pass begins ten minutes after the log was opened. It reads at its rate and waits
// while the log is busy. The next pass begins a day after the start of the first.
func TestScrubPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, l, err := Open(Options{FS: vfs.NewMem(), Dir: "data", SegmentBytes: 1 << 20, MinFree: -1, ScrubRate: 1 << 20})
		if err != nil {
			t.Fatal(err)
		}
		for range 40 {
			done := make(chan struct{})
			l.Append(pattern(1, 100_000), func(commitlog.Offset, error) { close(done) })
			<-done
			time.Sleep(time.Second)
		}
		busy := func(is int64) {
			l.mu.Lock()
			l.needSize = is
			l.mu.Unlock()
		}
		time.Sleep(scrubFirst - 41*time.Second)
		busy(1)
		if got := l.Stats().Scrub.Bytes; got != 0 {
			t.Errorf("%d bytes were read before the first pass", got)
		}
		time.Sleep(time.Hour)
		if got := l.Stats().Scrub.Bytes; got != 0 {
			t.Errorf("%d bytes were read beside a busy log", got)
		}
		busy(0)
		began := time.Now()
		time.Sleep(3 * time.Second)
		if got := l.Stats().Scrub.Bytes; got < 3<<19 || got > 7<<19 {
			t.Errorf("%d bytes were read in 3 s at 1 MiB a second", got)
		}
		time.Sleep(time.Minute)
		s := l.Stats().Scrub
		if took := s.LastPass.Sub(began); s.Passes != 1 || s.Bytes < 4_000_000 || took < 3*time.Second || took > 6*time.Second {
			t.Errorf("a pass took %v, %+v", s.LastPass.Sub(began), s)
		}
		time.Sleep(DefaultScrubEvery)
		if s := l.Stats().Scrub; s.Passes != 2 {
			t.Errorf("a day later: %+v", s)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

// TestCloseDuringScrub: Close waits only for the piece that is being read.
func TestCloseDuringScrub(t *testing.T) {
	inject, c := vfs.NewInject(vfs.NewMem()), clock.NewManual(time.Unix(1.8e9, 0))
	open := func() *Log { // the scrub starts when the clock moves
		_, l, err := Open(Options{FS: inject, Dir: "data", SegmentBytes: MinSegmentBytes, MinFree: -1, ScrubEvery: 1, ScrubRate: 1, Clock: c})
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	l := open()
	done := make(chan struct{})
	for i := range 20 {
		l.Append(pattern(1, 3000), func(commitlog.Offset, error) {
			if i == 19 {
				close(done)
			}
		})
	}
	<-done
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	reading, goOn := make(chan struct{}), make(chan struct{})
	var once sync.Once
	l = open()
	inject.SetHook(func(op vfs.Op, name string) {
		if op == vfs.OpRead {
			once.Do(func() {
				close(reading)
				<-goOn
			})
		}
	})
	for waiting := true; waiting; { // advance until the scrub has begun to wait for the clock
		select {
		case <-reading:
			waiting = false
		default:
			c.Advance(time.Second)
			runtime.Gosched()
		}
	}
	closed := make(chan error)
	go func() { closed <- l.Close() }()
	select {
	case err := <-closed:
		t.Fatalf("Close gave %v while a file was being read", err)
	default:
	}
	close(goOn)
	if err := <-closed; err != nil {
		t.Fatal(err)
	}
}

// TestScrubOff: a negative ScrubEvery turns the scrub off.
func TestScrubOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, l, err := Open(Options{FS: vfs.NewMem(), Dir: "data", SegmentBytes: MinSegmentBytes, ScrubEvery: -1})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(100 * time.Hour)
		if s := l.Stats().Scrub; s.Bytes != 0 {
			t.Errorf("%+v", s)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

// TestDamagedSnapshotIsPutAside: a snapshot that was found damaged is not counted as one of the two
// kept. It is renamed after a new snapshot is stored, even if both have the same offset.
func TestDamagedSnapshotIsPutAside(t *testing.T) {
	r := openScrubbed(t, Options{})
	older, newest := commitlog.Offset(r.segs[1].first), commitlog.Offset(r.segs[2].first)
	r.flip(r.snaps.path(newest), 300)
	rotten := contentsOf(t, r.disk, r.snaps.path(newest))
	r.pass()
	for n, want := range [][]string{
		{snapName(older), snapName(newest), snapName(newest) + damagedExt},
		{snapName(older), snapName(newest), snapName(newest) + damagedExt, snapName(newest) + damagedExt + "2"},
	} {
		if err := save(r.snaps, newest, 1000); err != nil {
			t.Fatal(err)
		}
		names, err := r.disk.List("data")
		names = slices.DeleteFunc(names, func(n string) bool { return !strings.Contains(n, snapExt) })
		if err != nil || !slices.Equal(names, want) {
			t.Fatalf("there are %q, %v, want %q", names, err, want)
		}
		if n == 0 && !bytes.Equal(contentsOf(t, r.disk, r.snaps.path(newest)+damagedExt), rotten) {
			t.Error("what was put aside is not the damaged file")
		}
		if told := r.pass(); len(told) > 0 {
			t.Errorf("%+v was found", told)
		}
		r.flip(r.snaps.path(newest), 300)
		r.pass()
	}
	// Two intact snapshots stay in addition to the damaged one.
	r.flip(r.snaps.path(newest), 300)
	r.pass()
	if err := save(r.snaps, newest+1, 1000); err != nil {
		t.Fatal(err)
	}
	stay := func(want ...commitlog.Offset) {
		t.Helper()
		if offsets, err := r.snaps.list(); err != nil || !slices.Equal(offsets, want) {
			t.Errorf("there are %v, %v, want %v", offsets, err, want)
		}
	}
	stay(newest, newest+1)
	r.flip(r.snaps.path(newest+1), 300)
	r.pass()
	if err := save(r.snaps, newest+2, 1000); err != nil {
		t.Fatal(err)
	}
	stay(newest, newest+2)
}
