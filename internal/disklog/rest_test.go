package disklog

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/surgetank/surgetank/internal/clock"
	"github.com/surgetank/surgetank/internal/commitlog"
	"github.com/surgetank/surgetank/internal/vfs"
)

// restOptions are the options of a log whose segments grow from the smallest size to sixteen times
// the smallest size.
func restOptions(fs vfs.FS, c clock.Clock) Options {
	return Options{FS: fs, Dir: "data", SegmentBytes: 16 * MinSegmentBytes, FirstBytes: MinSegmentBytes, MinFree: -1, CacheBytes: -1, Clock: c}
}

func restEntry(i int) []byte { return bytes.Repeat([]byte{byte(i), byte(i >> 8)}, 500) }

// fillTo appends entries until the log has n.
func fillTo(t *testing.T, l *Stepped, n int) {
	t.Helper()
	for i := int(l.durable.Load()) + 1; i <= n; i++ {
		l.Append(restEntry(i), func(_ commitlog.Offset, err error) { must(t, err) })
		l.Pump()
	}
}

// rest advances the clock until the log comes to rest.
func (l *Stepped) rest(c *clock.Manual) {
	for range 4 {
		c.Advance(restAfter)
		l.Pump()
	}
}

// TestRest: a log at rest becomes small, whether it is trimmed before or after it comes to rest.
// Under load it grows again.
func TestRest(t *testing.T) {
	disk, c := vfs.NewMem(), clock.NewManual(time.Unix(1.8e9, 0))
	r, l, err := OpenStepped(restOptions(disk, c))
	must(t, err)
	must(t, r.Close())
	n := 0
	for round := range 3 {
		n += 1500
		fillTo(t, l, n)
		if size := l.segs[len(l.segs)-1].size; size != 16*MinSegmentBytes {
			t.Errorf("round %d: under load a segment has %d bytes", round, size)
		}
		if round%2 == 0 {
			must(t, l.Trim(commitlog.Offset(n+1)))
			l.rest(c)
		} else {
			l.rest(c)
			if free := l.Freeable(commitlog.Offset(n + 1)); free < 1_000_000 {
				t.Errorf("a trim would free %d bytes", free)
			}
			must(t, l.Trim(commitlog.Offset(n+1)))
			l.rest(c)
		}
		if used := disk.Used(); used > 6*MinSegmentBytes {
			names, _ := disk.List("data")
			t.Errorf("round %d: an empty log at rest takes %d bytes: %v", round, used, names)
		}
		if free := l.Freeable(commitlog.Offset(n + 1)); free != 0 {
			t.Errorf("round %d: %d bytes of an empty log seem freeable", round, free)
		}
	}
	must(t, l.Close())
}

// TestRestOfLiveLog: a log at rest keeps the entries that were not trimmed, in a limited number of
// segments.
func TestRestOfLiveLog(t *testing.T) {
	disk, c := vfs.NewMem(), clock.NewManual(time.Unix(1.8e9, 0))
	r, l, err := OpenStepped(restOptions(disk, c))
	must(t, err)
	must(t, r.Close())
	n := 0
	for range 40 {
		n += 100
		fillTo(t, l, n)
		l.rest(c)
	}
	if len(l.segs) > 5*restShare {
		t.Errorf("%d segments for %d bytes", len(l.segs), n*1000)
	}
	if used := disk.Used(); used > int64(n)*1300 {
		t.Errorf("%d bytes for %d bytes of entries", used, n*1000)
	}
	checkRest(t, l, 1, n)
	must(t, l.Close())
}

func checkRest(t *testing.T, l *Stepped, from, to int) {
	t.Helper()
	for i := from; i <= to; i++ {
		b, err := l.Read(commitlog.Offset(i))
		if err != nil || !bytes.Equal(b, restEntry(i)) {
			t.Fatalf("entry %d: %v", i, err)
		}
	}
}

// TestCrashAtRest cuts the power, or makes an operation fail, at every operation of a log that
// comes to rest.
func TestCrashAtRest(t *testing.T) {
	const n, trimmed = 700, 300
	run := func(fs vfs.FS, c *clock.Manual, begin func()) error {
		r, l, err := OpenStepped(restOptions(fs, c))
		must(t, err)
		must(t, r.Close())
		fillTo(t, l, n)
		begin()
		_ = l.Trim(trimmed) // the error does not matter: the injected fault can fail it
		l.rest(c)
		return l.Close()
	}
	check := func(what string, disk *vfs.Mem) {
		r, l, err := OpenStepped(restOptions(disk, clock.NewManual(time.Unix(1.8e9, 0))))
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		last := 0
		for {
			e, err := r.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatalf("%s: %v", what, err)
			}
			if last = int(e.Offset); !bytes.Equal(e.Data, restEntry(last)) {
				t.Fatalf("%s: entry %d is another one", what, last)
			}
		}
		if last != n {
			t.Fatalf("%s: the log ends with entry %d, and %d were confirmed", what, last, n)
		}
		must(t, r.Close())
		fillTo(t, l, n+30)
		checkRest(t, l, trimmed, n+30)
		must(t, l.Close())
	}
	rng := rand.New(rand.NewPCG(1, 2))
	mem := vfs.NewMem()
	inject := vfs.NewInject(mem)
	var seen []string
	on := false
	inject.SetHook(func(op vfs.Op, name string) {
		if !on || op&vfs.OpChange == 0 {
			return
		}
		on = false // ignore operations on the clone
		seen = append(seen, name)
		for _, mode := range modes {
			check(fmt.Sprintf("power failed after operation %#x on %s, %+v", op, name, mode), mem.CrashClone(rng, mode))
		}
		on = true
	})
	must(t, run(inject, clock.NewManual(time.Unix(1.8e9, 0)), func() { on = true }))
	on = false
	if len(seen) < 15 || !strings.Contains(strings.Join(seen, " "), ".spare") {
		t.Errorf("too little happens: %v", seen)
	}
	for i := 1; i < 200; i++ {
		mem := vfs.NewMem()
		inject := vfs.NewInject(mem)
		err := run(inject, clock.NewManual(time.Unix(1.8e9, 0)), func() {
			inject.SetFault(vfs.Fault{Ops: vfs.OpAny, N: i, Err: []error{syscall.EIO, syscall.ENOSPC}[i%2], Short: i%3 == 0})
		})
		if inject.Failed() == 0 {
			must(t, err)
			break
		}
		check(fmt.Sprintf("operation %d failed", i), mem.CrashClone(rng, modes[i%len(modes)]))
	}
}
