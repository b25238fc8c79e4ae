package disklog

import (
	"bytes"
	"errors"

	"io"
	"math/rand/v2"
	"syscall"
	"testing"
	"time"

	"github.com/surgetank/surgetank/internal/commitlog"
	"github.com/surgetank/surgetank/internal/vfs"
)

// pattern returns the bytes of a snapshot at an offset.
func pattern(at commitlog.Offset, size int) []byte {
	r := rand.New(rand.NewPCG(uint64(at), 3))
	b := make([]byte, size)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

func save(s *Snapshots, at commitlog.Offset, size int) error {
	return s.Save(at, func(w io.Writer) error {
		_, err := w.Write(pattern(at, size))
		return err
	})
}

// latest returns the newest snapshot, read to its end.
func latest(fs vfs.FS) (commitlog.Offset, []byte, error) {
	s, err := OpenSnapshots(fs, "snaps")
	if err != nil {
		return 0, nil, err
	}
	at, r, err := s.Latest()
	if err != nil || r == nil {
		return at, nil, err
	}
	data, err := io.ReadAll(r)
	return at, data, errorsJoin(err, r.Close())
}

// TestSnapshotCrashes crashes after every operation of several saves. The newest saved snapshot, or
// a newer one, must be intact.
func TestSnapshotCrashes(t *testing.T) {
	sizes := []int{0, 100, 5000, snapBlock + 10, 3}
	rng := rand.New(rand.NewPCG(1, 1))
	disk := vfs.NewMem()
	inject := vfs.NewInject(disk)
	saved := commitlog.Offset(0)
	states := 0
	inject.SetHook(func(op vfs.Op, name string) {
		if op&vfs.OpChange == 0 || t.Failed() {
			return
		}
		for _, mode := range modes {
			states++
			c := disk.CrashClone(rng, mode)
			at, data, err := latest(c)
			if err != nil || at < saved || at > saved+1 || at > 0 && !bytes.Equal(data, pattern(at, sizes[at-1])) {
				t.Errorf("crash %+v after %#x on %s with %d saved: snapshot at %d of %d bytes, %v", mode, op, name, saved, at, len(data), err)
				return
			}
			names, err := c.List("snaps")
			if err != nil || len(names) > keepSnapshots+1 {
				t.Errorf("crash %+v with %d saved left %v, %v", mode, saved, names, err)
			}
		}
	})
	s, err := OpenSnapshots(inject, "snaps")
	if err != nil {
		t.Fatal(err)
	}
	for i, size := range sizes {
		if err := save(s, commitlog.Offset(i+1), size); err != nil {
			t.Fatal(err)
		}
		saved = commitlog.Offset(i + 1)
	}
	t.Logf("%d crash states", states)
}

// TestSnapshotErrors makes the n-th operation of a Save fail, for every n. The older snapshots must
// stay, and the next Save must succeed.
func TestSnapshotErrors(t *testing.T) {
	for _, fault := range []vfs.Fault{{Err: syscall.EIO}, {Err: syscall.ENOSPC, Short: true}, {Err: syscall.EIO, Forever: true}} {
		for n := 1; ; n++ {
			disk := vfs.NewMem()
			inject := vfs.NewInject(disk)
			s, err := OpenSnapshots(inject, "snaps")
			if err != nil {
				t.Fatal(err)
			}
			if err := save(s, 1, 3000); err != nil {
				t.Fatal(err)
			}
			fault.Ops, fault.N = vfs.OpAny, n
			inject.SetFault(fault)
			saveErr := save(s, 2, 5000)
			if inject.Failed() == 0 {
				break
			}
			inject.SetFault(vfs.Fault{})
			for _, mode := range modes {
				at, data, err := latest(disk.CrashClone(rand.New(rand.NewPCG(uint64(n), 1)), mode))
				if err != nil || at == 0 || saveErr == nil && at < 2 || !bytes.Equal(data, pattern(at, int(1000+2000*at))) {
					t.Fatalf("%+v, then crash %+v: Save gave %v, the snapshot is at %d of %d bytes, %v", fault, mode, saveErr, at, len(data), err)
				}
			}
			if err := save(s, 3, 7000); err != nil {
				t.Fatalf("%+v: the next Save failed: %v", fault, err)
			}
			if at, data, err := latest(disk); at != 3 || err != nil || !bytes.Equal(data, pattern(3, 7000)) {
				t.Fatalf("%+v: after the next Save the snapshot is at %d, %v", fault, at, err)
			}
		}
	}
}

// TestSnapshotDamage flips every byte of a snapshot and cuts it at every length. Reading must
// return an error, and neither wrong bytes nor an older snapshot.
func TestSnapshotDamage(t *testing.T) {
	disk := vfs.NewMem()
	s, err := OpenSnapshots(disk, "snaps")
	if err != nil {
		t.Fatal(err)
	}
	for at := commitlog.Offset(1); at <= 2; at++ {
		if err := save(s, at, 700); err != nil {
			t.Fatal(err)
		}
	}
	rng := rand.New(rand.NewPCG(1, 1))
	size := snapHeader + snapBlockHead + 700 + snapBlockHead + snapFooterTail
	harmless := 0
	for i := range size {
		for _, damage := range []func([]byte) []byte{
			func(b []byte) []byte { b[i] ^= 1 << rng.IntN(8); return b },
			func(b []byte) []byte { return b[:i] },
		} {
			c := disk.CrashClone(rng, vfs.Crash{})
			if err := c.Corrupt("snaps/"+snapName(2), damage); err != nil {
				t.Fatal(err)
			}
			at, data, err := latest(c)
			switch {
			case errors.Is(err, commitlog.ErrCorrupt):
			case err == nil && at == 2 && bytes.Equal(data, pattern(2, 700)):
				harmless++
			default:
				t.Fatalf("damage at byte %d: snapshot at %d of %d bytes, %v", i, at, len(data), err)
			}
		}
	}
	if harmless > 0 {
		t.Errorf("%d damages were not noticed; every byte of a snapshot is covered by a checksum", harmless)
	}
}

func TestSnapshotAppended(t *testing.T) {
	disk := vfs.NewMem()
	s, err := OpenSnapshots(disk, "snaps")
	if err != nil {
		t.Fatal(err)
	}
	if err := save(s, 7, 10); err != nil {
		t.Fatal(err)
	}
	if err := disk.Corrupt("snaps/"+snapName(7), func(b []byte) []byte { return append(b, 0) }); err != nil {
		t.Fatal(err)
	}
	if _, _, err := latest(disk); !errors.Is(err, commitlog.ErrCorrupt) {
		t.Errorf("bytes behind the end gave %v", err)
	}
	if err := disk.Rename("snaps/"+snapName(7), "snaps/"+snapName(8)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := latest(disk); !errors.Is(err, commitlog.ErrCorrupt) {
		t.Errorf("a snapshot under another's name gave %v", err)
	}
}

func TestStatsQuantiles(t *testing.T) {
	var s stats
	for i := range 100 {
		s.synced(1000*1000*(1+time.Duration(i)/50), 1) // 50 times 1 ms, 50 times 2 ms
	}
	for q, want := range map[float64]float64{0.5: 1e6, 0.99: 2e6} {
		if got := float64(s.quantile(q)); got < want || got > want*1.07 {
			t.Errorf("quantile %v is %v ns, want %v to within 6 %%", q, got, want)
		}
	}
	for _, d := range []int{0, 1, 15, 16, 17, 31, 32, 33, 1000, 123456789} {
		if b := bucketOf(time.Duration(d)); bucketEnd(b) < time.Duration(d) || b > 0 && bucketEnd(b-1) >= time.Duration(d) {
			t.Errorf("%d is in bucket %d, which ends at %d behind %d", d, b, bucketEnd(b), bucketEnd(b-1))
		}
	}
}

// TestSnapshotUnfinished: OpenSnapshots does not remove an unfinished snapshot, because another
// process could be writing it. Save removes it.
func TestSnapshotUnfinished(t *testing.T) {
	disk := vfs.NewMem()
	s, err := OpenSnapshots(disk, "snaps")
	if err != nil {
		t.Fatal(err)
	}
	left := "snaps/" + snapName(5) + tmpExt
	f, err := disk.Open(left, vfs.Create)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if _, _, err := latest(disk); err != nil {
		t.Fatal(err)
	}
	if _, err := disk.Open(left, vfs.Read); err != nil {
		t.Error("opening the snapshots removed what another process may be writing")
	}
	if err := save(s, 6, 10); err != nil {
		t.Fatal(err)
	}
	if names, err := disk.List("snaps"); len(names) != 1 || err != nil {
		t.Errorf("after a Save there are %v, %v", names, err)
	}
}
