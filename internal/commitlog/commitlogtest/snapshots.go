package commitlogtest

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/surgetank/surgetank/internal/commitlog"
)

func snapshotsOf(t *testing.T, s Store) commitlog.Snapshots {
	t.Helper()
	snaps, err := s.Snapshots()
	if err != nil {
		t.Fatal(err)
	}
	return snaps
}

func saveBytes(data []byte) func(io.Writer) error {
	return func(w io.Writer) error {
		for len(data) > 0 { // write in pieces of an odd size
			n := min(len(data), 70_001)
			if _, err := w.Write(data[:n]); err != nil {
				return err
			}
			data = data[n:]
		}
		return nil
	}
}

func checkLatest(t *testing.T, snaps commitlog.Snapshots, at commitlog.Offset, want []byte) {
	t.Helper()
	got, r, err := snaps.Latest()
	if err != nil {
		t.Fatalf("Latest: %v", err)
	}
	if r == nil {
		t.Fatal("Latest gave no snapshot")
	}
	data, err := io.ReadAll(r)
	if err != nil {
		t.Fatalf("reading the snapshot: %v", err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if got != at || !bytes.Equal(data, want) {
		t.Fatalf("the snapshot is at %d with %d bytes, want at %d with %d", got, len(data), at, len(want))
	}
}

func testSnapshots(t *testing.T, s Store) {
	snaps := snapshotsOf(t, s)
	if at, r, err := snaps.Latest(); at != 0 || r != nil || err != nil {
		t.Fatalf("Latest of an empty store gave %d, %v, %v", at, r, err)
	}
	for i, size := range []int{0, 1, 1000, 256 << 10, 256<<10 + 1, 1 << 20, 3} {
		data := bytes.Repeat([]byte{byte(i + 1)}, size)
		at := commitlog.Offset(10 * (i + 1))
		if err := snaps.Save(at, saveBytes(data)); err != nil {
			t.Fatalf("Save: %v", err)
		}
		checkLatest(t, snaps, at, data)
		checkLatest(t, snapshotsOf(t, s), at, data)
	}
}

func testSnapshotFailure(t *testing.T, s Store) {
	snaps := snapshotsOf(t, s)
	if err := snaps.Save(5, saveBytes([]byte("good"))); err != nil {
		t.Fatal(err)
	}
	cause := errors.New("no")
	err := snaps.Save(6, func(w io.Writer) error {
		if _, err := w.Write(make([]byte, 600<<10)); err != nil {
			return err
		}
		return cause
	})
	if !errors.Is(err, cause) {
		t.Fatalf("a failed Save gave %v, want its cause", err)
	}
	checkLatest(t, snapshotsOf(t, s), 5, []byte("good"))
	if err := snaps.Save(7, saveBytes([]byte("better"))); err != nil {
		t.Fatal(err)
	}
	checkLatest(t, snaps, 7, []byte("better"))
}
