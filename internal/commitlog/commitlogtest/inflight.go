package commitlogtest

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"github.com/surgetank/surgetank/internal/commitlog"
)

// window is the number of entries that the tests keep in flight.
const window = 16

// testInFlight: while some entries are in flight, more are appended. Callbacks come in order, all
// entries can be read, and a reopened log replays them.
func testInFlight(t *testing.T, s Store) {
	h := openLog(t, s, 0)
	datas := texts("flight", 20*window)
	for i, d := range datas {
		if i >= window {
			h.wait(1)
		}
		h.append(d)
	}
	h.wait(window)
	all := make([]entry, len(datas))
	for i, d := range datas {
		if h.errs[i] != nil {
			t.Fatalf("append %d: %v", i, h.errs[i])
		}
		all[i] = entry{h.offsets[i], d}
		if i > 0 && all[i].at <= all[i-1].at {
			t.Fatalf("append %d has offset %d, after %d", i, all[i].at, all[i-1].at)
		}
		h.mustRead(all[i])
	}
	h.close()
	openLog(t, s, all[window].at, all[window+1:]...).close()
}

// testFailureInFlight: the log fails while entries are in flight. Each append is called back once and
// in order. After the first failure there is no success. The entries that a reopened log has are the
// first ones that were appended, with all confirmed ones.
func testFailureInFlight(t *testing.T, s Store) {
	h := openLog(t, s, 0)
	datas := texts("flight", 3*window)
	var order []int
	add := func(from, to int) {
		for i := from; i < to; i++ {
			h.log.Append(datas[i], func(at commitlog.Offset, err error) {
				h.mu.Lock()
				order, h.offsets, h.errs = append(order, i), append(h.offsets, at), append(h.errs, err)
				h.mu.Unlock()
				h.came <- struct{}{}
			})
		}
	}
	add(0, window)
	h.wait(window / 2)
	add(window, 2*window)
	s.Fail(errors.New("the connection is gone"))
	add(2*window, 3*window)
	h.wait(3*window - window/2)
	confirmed := 0
	for i, err := range h.errs {
		switch {
		case order[i] != i:
			t.Fatalf("callback %d was that of append %d", i, order[i])
		case err == nil && confirmed < i:
			t.Fatalf("append %d succeeded after append %d failed", i, confirmed)
		case err == nil:
			confirmed++
		case !errors.Is(err, commitlog.ErrFailed):
			t.Fatalf("append %d: %v, want ErrFailed", i, err)
		}
	}
	if confirmed == len(datas) {
		t.Fatal("no append failed")
	}
	if err := h.log.Close(); !errors.Is(err, commitlog.ErrFailed) {
		t.Fatalf("Close of a failed log gave %v, want ErrFailed", err)
	}
	replay, log, err := s.Open(0)
	if err != nil {
		t.Fatal(err)
	}
	got := readAll(t, replay)
	if len(got) < confirmed || len(got) > len(datas) {
		t.Fatalf("%d entries after the failure, %d were confirmed", len(got), confirmed)
	}
	for i, e := range got {
		if !bytes.Equal(e.data, datas[i]) {
			t.Fatalf("entry %d is not append %d: an entry before it is missing", i, i)
		}
		if i < confirmed && e.at != h.offsets[i] {
			t.Fatalf("entry %d is at %d, and was confirmed at %d", i, e.at, h.offsets[i])
		}
	}
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
}

// testGaps: an offset between two entries is no entry. A replay and a trim can begin there.
func testGaps(t *testing.T, s Store) {
	h := openLog(t, s, 0)
	all := h.put(texts("gap", 40)...)
	gap := 0 // the gap is before this entry
	for i := 1; i < len(all); i++ {
		if all[i].at > all[i-1].at+1 {
			gap = i
		}
	}
	if gap == 0 {
		h.close()
		t.Log("this log's offsets have no gaps")
		return
	}
	between := all[gap].at - 1
	if data, err := h.log.Read(between); err == nil {
		t.Fatalf("Read(%d) gave %d bytes, and no entry is there", between, len(data))
	}
	h.close()
	h = openLog(t, s, between, all[gap:]...)
	if err := h.log.Trim(between); err != nil {
		t.Fatal(err)
	}
	for _, e := range all[gap:] {
		h.mustRead(e)
	}
	h.close()
}

// testReadPart: any part of an entry can be read, and nothing beyond its end.
func testReadPart(t *testing.T, s Store) {
	h := openLog(t, s, 0)
	data := make([]byte, 100_000)
	for i := range data {
		data[i] = byte(i * 7)
	}
	all := h.put([]byte("before"), data, nil)
	for range 2 { // from memory, and after reopening
		for _, part := range [][2]int{{0, 0}, {0, 1}, {0, len(data)}, {1, 4095}, {4095, 2}, {len(data) - 1, 1}, {len(data), 0}} {
			got, err := commitlog.ReadPart(h.log, all[1].at, part[0], part[1])
			if err != nil || !bytes.Equal(got, data[part[0]:part[0]+part[1]]) {
				t.Fatalf("%d bytes at %d: %d bytes, %v", part[1], part[0], len(got), err)
			}
		}
		for _, part := range [][2]int{{0, len(data) + 1}, {len(data), 1}, {len(data) + 1, 0}, {-1, 1}, {1, -1}, {1, int(^uint(0) >> 1)}} {
			if got, err := commitlog.ReadPart(h.log, all[1].at, part[0], part[1]); !errors.Is(err, commitlog.ErrCorrupt) {
				t.Fatalf("%d bytes at %d: %d bytes, %v, want ErrCorrupt", part[1], part[0], len(got), err)
			}
		}
		if got, err := commitlog.ReadPart(h.log, all[2].at+1, 0, 1); err == nil {
			t.Fatalf("%d bytes of an entry that does not exist", len(got))
		}
		h.close()
		h = openLog(t, s, 0, all...)
	}
	h.close()
	if _, err := commitlog.ReadPart(h.log, all[1].at, 0, 1); !errors.Is(err, commitlog.ErrClosed) {
		t.Fatal(fmt.Errorf("ReadPart after Close: %w, want ErrClosed", err))
	}
}
