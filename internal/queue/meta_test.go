package queue

import (
	"bytes"
	"encoding/binary"
	"io"
	"testing"
)

// TestSnapshotWithoutVersions: a snapshot of an older build has no versions. Its values have the
// lowest version, and the next change has a higher one.
func TestSnapshotWithoutVersions(t *testing.T) {
	m := New(Limits{}, 1)
	step := func(m *Machine, entry uint64, cmd Command) {
		t.Helper()
		out := Output{Entry: AppendHeader(nil, EntryHeader{Epoch: 1, Number: entry, Time: 1})}
		if m.Step(1, entry, []Command{cmd}, &out) != 1 {
			t.Fatal("the command did not finish")
		}
	}
	step(m, 1, &OpenEpoch{Epoch: 1, Incarnation: 1})
	step(m, 2, &SetMeta{Namespace: "n", Name: "x", Value: []byte("1")})
	m.StartSnapshot(2)
	var old []byte
	found := false
	for last := false; !last; {
		var piece []byte
		piece, last = m.SnapshotNext(1)
		for r := bytes.NewReader(piece); r.Len() > 0; {
			n, _ := binary.ReadUvarint(r)
			frame := make([]byte, n)
			_, _ = io.ReadFull(r, frame)
			if Kind(frame[0]) == kindSnapVersions {
				found = true
				continue
			}
			old = appendBytes(old, frame)
		}
	}
	if !found {
		t.Fatal("the snapshot has no versions")
	}
	r := bytes.NewReader(old)
	restored := New(Limits{}, 1)
	_, err := restored.Restore(r, func(n int) ([]byte, error) {
		b := make([]byte, n)
		_, err := io.ReadFull(r, b)
		return b, err
	})
	if err != nil {
		t.Fatal(err)
	}
	restored.Recovered(1)
	step(restored, 3, &OpenEpoch{Epoch: 2, Incarnation: 2})
	read := &Meta{Namespace: "n"}
	step(restored, 4, read)
	if v := read.State.Values["x"]; string(v.Value) != "1" || v.Version != oldVersion || read.State.Version != oldVersion {
		t.Fatalf("%+v", read.State)
	}
	c := &SetMeta{Namespace: "n", Name: "x", Value: []byte("2"), Conditional: true, Expected: oldVersion}
	if step(restored, 5, c); c.Err != nil || c.Version <= oldVersion {
		t.Fatalf("version %d, %v", c.Version, c.Err)
	}
}
