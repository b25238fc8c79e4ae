package disklog

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"syscall"
	"testing"
	"time"

	"github.com/surgetank/surgetank/internal/clock"
	"github.com/surgetank/surgetank/internal/commitlog"
	"github.com/surgetank/surgetank/internal/vfs"
)

var (
	seedFlag  = flag.Uint64("seed", 0, "run the crash tests with this seed alone")
	seedsFlag = flag.Int("seeds", 10, "how many seeds the crash tests run")
)

// seeds runs a test once for each seed. A failure prints the seed and how to run it again.
func seeds(t *testing.T, run func(t *testing.T, seed uint64)) {
	if testing.Short() {
		old := *seedsFlag
		*seedsFlag = min(old, 2)
		defer func() { *seedsFlag = old }()
	}
	if *seedFlag != 0 {
		run(t, *seedFlag)
		return
	}
	for seed := uint64(1); seed <= uint64(*seedsFlag) && !t.Failed(); seed++ {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			run(t, seed)
			if t.Failed() {
				t.Logf("run again with: go test ./internal/disklog -run '^%s$' -seed %d", t.Name()[:bytes.IndexByte([]byte(t.Name()), '/')], seed)
			}
		})
	}
}

// modes are the degrees to which unsynced bytes and names survive a crash.
var modes = []vfs.Crash{
	{Percent: 0},
	{Percent: 100},
	{Percent: 50},
	{Percent: 50, Torn: true},
	{Percent: 30, Torn: true, Garbage: true},
	{Percent: 0, Garbage: true},
}

// randReader is a source of ids that depends on the seed only.
type randReader struct{ *rand.Rand }

func (r randReader) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(r.Uint32())
	}
	return len(p), nil
}

// world is a test's knowledge of a log: which entries it appended, which were confirmed, and what
// it trimmed.
type world struct {
	t       *testing.T
	rng     *rand.Rand
	entries map[uint64][]byte // all appended entries that are not known to be lost, by number
	next    uint64            // number of the next append
	acked   uint64            // every append up to this number was called back without an error
	trimmed uint64            // entries below this number may be removed
	size    int               // size of every entry, so that new frames get the positions of lost ones; 0: random sizes
}

func newWorld(t *testing.T, seed uint64) *world {
	return &world{t: t, rng: rand.New(rand.NewPCG(seed, 77)), entries: map[uint64][]byte{}, next: 1, size: []int{0, 0, 1000, pageSize - frameHeader}[seed%4]}
}

func (w *world) options(fs vfs.FS) Options {
	return Options{FS: fs, Dir: "data", SegmentBytes: MinSegmentBytes, CacheBytes: -1,
		Rand: randReader{rand.New(rand.NewPCG(w.rng.Uint64(), 1))}, Clock: clock.NewManual(time.Unix(1e9, 0))}
}

// entry makes a random entry. A few entries are larger than a segment, and some look like frames.
func (w *world) entry() []byte {
	n := w.rng.IntN(300)
	kind := w.rng.IntN(20)
	if w.size > 0 {
		n, kind = w.size, 19
	}
	switch kind {
	case 0:
		n = 0
	case 1, 2, 3:
		n = w.rng.IntN(6000)
	case 4:
		n = MinSegmentBytes + w.rng.IntN(9000)
	}
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(w.rng.Uint32())
	}
	if w.rng.IntN(4) == 0 {
		for i := 0; i+8 < n; i += 8 {
			copy(b[i:], "SgE1")
		}
	}
	return b
}

func (w *world) append(l *Stepped) {
	number, data := w.next, w.entry()
	w.next++
	w.entries[number] = data
	l.Append(data, func(at commitlog.Offset, err error) {
		if err != nil {
			w.t.Errorf("append of entry %d: %v", number, err)
			return
		}
		if uint64(at) != number || number != w.acked+1 {
			w.t.Errorf("entry %d got offset %d, after %d", number, at, w.acked)
		}
		w.acked = number
	})
}

// contents opens the log. It returns the number of the first entry and the bytes of all entries.
func contents(o Options) (first uint64, all [][]byte, l *Stepped, err error) {
	return contentsBy(OpenStepped, o)
}

// contentsBy is contents for Open or OpenStepped.
func contentsBy[L any](open func(Options) (commitlog.Replay, L, error), o Options) (first uint64, all [][]byte, l L, err error) {
	r, l, err := open(o)
	if err != nil {
		return 0, nil, l, err
	}
	for {
		e, err := r.Next()
		if errors.Is(err, io.EOF) {
			return first, all, l, r.Close()
		}
		if err != nil {
			return 0, nil, l, err
		}
		if first == 0 {
			first = uint64(e.Offset)
		}
		if uint64(e.Offset) != first+uint64(len(all)) {
			return 0, nil, l, fmt.Errorf("offset %d comes after %d", e.Offset, first+uint64(len(all))-1)
		}
		all = append(all, bytes.Clone(e.Data))
	}
}

// check compares a recovered log with the test's knowledge.
func (w *world) check(first uint64, all [][]byte, l *Stepped) error {
	last := uint64(l.durable.Load())
	switch {
	case last < w.acked:
		return fmt.Errorf("the log ends with entry %d, and %d was confirmed", last, w.acked)
	case last >= w.next:
		return fmt.Errorf("the log ends with entry %d, and only %d were appended", last, w.next-1)
	case len(all) > 0 && first > max(w.trimmed, 1):
		return fmt.Errorf("the log begins with entry %d, and only what is below %d was trimmed", first, w.trimmed)
	case len(all) > 0 && first+uint64(len(all))-1 != last:
		return fmt.Errorf("replay ended with %d, the log with %d", first+uint64(len(all))-1, last)
	case len(all) == 0 && last >= max(w.trimmed, 1):
		return fmt.Errorf("nothing was replayed of a log that ends with %d", last)
	}
	for i, data := range all {
		number := first + uint64(i)
		if !bytes.Equal(data, w.entries[number]) {
			return fmt.Errorf("entry %d has %d bytes that are not the %d that were appended", number, len(data), len(w.entries[number]))
		}
		got, err := l.Read(commitlog.Offset(number))
		if err != nil || !bytes.Equal(got, data) {
			return fmt.Errorf("reading entry %d: %d bytes, %v", number, len(got), err)
		}
	}
	return nil
}

// recovers checks that a file system left by a crash recovers to the known entries. The recovered
// state must be durable when Open returns, and a second recovery must find the same entries.
func (w *world) recovers(fs *vfs.Mem) error {
	first, all, l, err := contents(w.options(fs))
	if err != nil {
		return fmt.Errorf("recovery: %w", err)
	}
	if err := w.check(first, all, l); err != nil {
		return fmt.Errorf("recovery: %w", err)
	}
	again := fs.CrashClone(w.rng, vfs.Crash{}) // everything that Open used must be on the medium
	first2, all2, l2, err := contents(w.options(again))
	if err != nil {
		return fmt.Errorf("second recovery: %w", err)
	}
	if err := w.check(first2, all2, l2); err != nil {
		return fmt.Errorf("second recovery: %w", err)
	}
	if first != first2 || len(all) != len(all2) {
		return fmt.Errorf("the second recovery found %d entries from %d, the first %d from %d", len(all2), first2, len(all), first)
	}
	return nil
}

// TestCrashAfterEveryOperation runs random workloads. It crashes after every single operation on
// the file system, in every mode.
func TestCrashAfterEveryOperation(t *testing.T) {
	states := 0
	seeds(t, func(t *testing.T, seed uint64) {
		w := newWorld(t, seed)
		disk := vfs.NewMem()
		var broken error
		crashes := rand.New(rand.NewPCG(seed, 5))
		watch := func(fs *vfs.Mem) *vfs.Inject {
			inject := vfs.NewInject(fs)
			inject.SetHook(func(op vfs.Op, name string) {
				if op&vfs.OpChange == 0 || broken != nil {
					return
				}
				for _, mode := range modes {
					states++
					if err := w.recovers(fs.CrashClone(crashes, mode)); err != nil {
						broken = fmt.Errorf("crash %+v after operation %#x on %s: %w", mode, op, name, err)
						return
					}
				}
			})
			return inject
		}
		for life := 0; life < 4 && broken == nil; life++ {
			first, all, l, err := contents(w.options(watch(disk)))
			if err != nil {
				t.Fatalf("life %d: %v", life, err)
			}
			if err := w.check(first, all, l); err != nil {
				t.Fatalf("life %d: %v", life, err)
			}
			w.next = l.durable.Load() + 1 // entries that were not stored are lost
			w.acked = l.durable.Load()    // recovered entries must stay
			for step := 0; step < 12 && broken == nil; step++ {
				switch w.rng.IntN(6) {
				case 0:
					if w.acked > w.trimmed {
						w.trimmed += w.rng.Uint64N(w.acked - w.trimmed + 1)
						if err := l.Trim(commitlog.Offset(w.trimmed)); err != nil {
							t.Fatal(err)
						}
					}
				case 1, 2:
					l.Pump()
				default:
					for range 1 + w.rng.IntN(8) {
						w.append(l)
					}
				}
			}
			if w.rng.IntN(2) == 0 && broken == nil {
				if err := l.Close(); err != nil {
					t.Fatal(err)
				}
			}
			// In the other cases the process or the computer crashes.
			disk = disk.CrashClone(w.rng, modes[w.rng.IntN(len(modes))])
		}
		if broken != nil {
			t.Error(broken)
		}
	})
	t.Logf("%d crash states recovered", states)
}

// TestErrorAtEveryOperation makes the n-th operation fail, for every n and in every way. No entry
// that was called back without an error may be lost, with and without a later power failure.
func TestErrorAtEveryOperation(t *testing.T) {
	faults := []vfs.Fault{
		{Err: syscall.EIO},
		{Err: syscall.EIO, Forever: true},
		{Err: syscall.ENOSPC},
		{Err: syscall.ENOSPC, Forever: true},
		{Err: syscall.EIO, Short: true},
		{Err: syscall.ENOSPC, Short: true},
		{Err: syscall.EMFILE},
	}
	runs := 0
	if *seedFlag == 0 {
		old := *seedsFlag
		*seedsFlag = max(old/4, 2)
		defer func() { *seedsFlag = old }()
	}
	seeds(t, func(t *testing.T, seed uint64) {
		for _, fault := range faults {
			for n := 1; ; n++ {
				fault.N = n
				fault.Ops = vfs.OpAny &^ (vfs.OpClose | vfs.OpLock)
				runs++
				failed, err := failing(t, seed, fault)
				if err != nil {
					t.Fatalf("%+v: %v", fault, err)
				}
				if !failed {
					break // the workload has fewer operations than n
				}
			}
		}
	})
	t.Logf("%d runs", runs)
}

// failing runs one workload with one fault.
func failing(t *testing.T, seed uint64, fault vfs.Fault) (failed bool, err error) {
	w := newWorld(t, seed)
	disk := vfs.NewMem()
	inject := vfs.NewInject(disk)
	inject.SetFault(fault)
	refused := false
	r, l, openErr := OpenStepped(w.options(inject))
	if openErr == nil {
		if err := r.Close(); err != nil {
			return false, err
		}
		for step := 0; step < 10; step++ {
			for range 1 + w.rng.IntN(6) {
				number, data := w.next, w.entry()
				w.next++
				w.entries[number] = data
				l.Append(data, func(at commitlog.Offset, err error) {
					switch {
					case err != nil:
						refused = true
						if !errors.Is(err, commitlog.ErrFailed) {
							t.Errorf("%+v: an append failed with %v, want ErrFailed", fault, err)
						}
					case refused:
						t.Errorf("%+v: entry %d was confirmed after another was refused", fault, number)
					default:
						w.acked = number
					}
				})
			}
			l.Pump()
			if w.rng.IntN(3) == 0 && w.acked > 4 {
				w.trimmed = max(w.trimmed, w.acked-w.rng.Uint64N(5))
				if err := l.Trim(commitlog.Offset(w.trimmed)); err != nil && !errors.Is(err, commitlog.ErrFailed) {
					return false, err
				}
			}
		}
		closeErr := l.Close()
		if refused && closeErr == nil {
			return false, fmt.Errorf("appends failed and Close did not")
		}
	}
	failed = inject.Failed() > 0
	if openErr != nil && !failed {
		return failed, openErr
	}
	inject.SetFault(vfs.Fault{})
	// First recover with the content of the page cache, as after a crash of the process. Then
	// recover with the bytes on the medium only.
	if err := w.recovers(disk.CrashClone(w.rng, vfs.Crash{Percent: 100})); err != nil {
		return failed, fmt.Errorf("all of it written after the fault: %w", err)
	}
	for _, mode := range modes {
		if err := w.recovers(disk.CrashClone(w.rng, mode)); err != nil {
			return failed, fmt.Errorf("crash %+v after the fault: %w", mode, err)
		}
	}
	if err := w.recovers(disk); err != nil {
		return failed, fmt.Errorf("opened again after the fault: %w", err)
	}
	return failed, nil
}
