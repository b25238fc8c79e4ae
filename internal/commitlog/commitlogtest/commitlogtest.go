// Package commitlogtest is the test suite for every log. It tests only the promises of
// commitlog.Log that every log must keep.
package commitlogtest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"

	"github.com/surgetank/surgetank/internal/commitlog"
)

// Store is the storage of one log. Every test gets a new, empty Store.
type Store struct {
	// Open opens the log for a replay of the entries after an offset.
	Open func(from commitlog.Offset) (commitlog.Replay, commitlog.Log, error)
	// Pump runs a stepped log until it has nothing to do. It is nil for other logs.
	Pump func(commitlog.Log)
	// Fail makes the next write of the open log fail. It is required: without it, the test of
	// failures fails.
	Fail func(error)
	// Snapshots returns the snapshots of the log.
	Snapshots func() (commitlog.Snapshots, error)
}

// Run runs the suite. open creates a new store.
func Run(t *testing.T, open func(t *testing.T) Store) {
	t.Helper()
	tests := []struct {
		name string
		run  func(*testing.T, Store)
	}{
		{"appended entries are read back", testAppendRead},
		{"callbacks come in the order of the appends", testOrder},
		{"a reopened log replays everything in order", testReopen},
		{"replay starts behind an offset", testReplayFrom},
		{"replay from behind the end is refused", testReplayBeyond},
		{"offsets go on increasing after reopening", testOffsetsIncrease},
		{"an empty log replays nothing", testEmpty},
		{"entries of zero bytes and of many are kept", testSizes},
		{"an entry above the limit is refused", testTooLarge},
		{"trimmed entries are gone and the others stay", testTrim},
		{"trimming everything keeps the place", testTrimAll},
		{"replay across trimmed entries is refused", testReplayTrimmed},
		{"only one handle can append", testFencing},
		{"the first failure is final", testFailure},
		{"a closed log refuses", testClosed},
		{"reading what was never written fails", testReadUnknown},
		{"a part of an entry is read", testReadPart},
		{"several entries are in flight", testInFlight},
		{"no entry in flight succeeds after a failed one", testFailureInFlight},
		{"a position in a gap is no entry", testGaps},
		{"reads run beside appends and trims", testConcurrent},
		{"the newest snapshot is given", testSnapshots},
		{"a failed save leaves the older snapshot", testSnapshotFailure},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) { test.run(t, open(t)) })
	}
}

// handle is an open log and the offsets of the entries that it confirmed.
type handle struct {
	t     *testing.T
	store Store
	log   commitlog.Log

	mu      sync.Mutex
	offsets []commitlog.Offset
	errs    []error
	came    chan struct{}
}

// openLog opens the log, checks that the replay returns exactly the entries of want, and returns
// the handle.
func openLog(t *testing.T, s Store, from commitlog.Offset, want ...entry) *handle {
	t.Helper()
	replay, log, err := s.Open(from)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	got := readAll(t, replay)
	checkEntries(t, got, want)
	return &handle{t: t, store: s, log: log, came: make(chan struct{}, 1<<16)}
}

type entry struct {
	at   commitlog.Offset
	data []byte
}

func readAll(t *testing.T, r commitlog.Replay) []entry {
	t.Helper()
	var all []entry
	for {
		e, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("replay after %d entries: %v", len(all), err)
		}
		all = append(all, entry{e.Offset, bytes.Clone(e.Data)})
	}
	if err := r.Close(); err != nil {
		t.Fatalf("closing the replay: %v", err)
	}
	return all
}

func checkEntries(t *testing.T, got, want []entry) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("replay gave %d entries, want %d", len(got), len(want))
	}
	for i := range got {
		if got[i].at != want[i].at || !bytes.Equal(got[i].data, want[i].data) {
			t.Fatalf("replayed entry %d is at %d with %d bytes, want at %d with %d bytes",
				i, got[i].at, len(got[i].data), want[i].at, len(want[i].data))
		}
	}
}

func (h *handle) append(data []byte) {
	h.log.Append(data, func(at commitlog.Offset, err error) {
		h.mu.Lock()
		h.offsets, h.errs = append(h.offsets, at), append(h.errs, err)
		h.mu.Unlock()
		h.came <- struct{}{}
	})
}

// wait waits for n callbacks.
func (h *handle) wait(n int) {
	if h.store.Pump != nil {
		h.store.Pump(h.log)
	}
	for range n {
		<-h.came
	}
}

// put appends entries, waits until they are durable, and returns them with their offsets.
func (h *handle) put(datas ...[]byte) []entry {
	h.t.Helper()
	h.mu.Lock()
	start := len(h.offsets)
	h.mu.Unlock()
	for _, d := range datas {
		h.append(d)
	}
	h.wait(len(datas))
	h.mu.Lock()
	defer h.mu.Unlock()
	var out []entry
	for i, d := range datas {
		if err := h.errs[start+i]; err != nil {
			h.t.Fatalf("append %d: %v", i, err)
		}
		out = append(out, entry{h.offsets[start+i], d})
	}
	return out
}

func (h *handle) close() {
	h.t.Helper()
	if err := h.log.Close(); err != nil {
		h.t.Fatalf("Close: %v", err)
	}
}

func (h *handle) mustRead(e entry) {
	h.t.Helper()
	got, err := h.log.Read(e.at)
	if err != nil {
		h.t.Fatalf("Read(%d): %v", e.at, err)
	}
	if !bytes.Equal(got, e.data) {
		h.t.Fatalf("Read(%d) gave %d bytes that differ from the %d that were appended", e.at, len(got), len(e.data))
	}
}

// texts makes n different entries.
func texts(prefix string, n int) [][]byte {
	out := make([][]byte, n)
	for i := range out {
		out[i] = fmt.Appendf(nil, "%s-%d-%s", prefix, i, bytes.Repeat([]byte{byte('a' + i%26)}, i%300))
	}
	return out
}

func testAppendRead(t *testing.T, s Store) {
	h := openLog(t, s, 0)
	all := h.put(texts("one", 100)...)
	all = append(all, h.put(texts("two", 100)...)...)
	for _, e := range all {
		h.mustRead(e)
	}
	h.close()
}

func testOrder(t *testing.T, s Store) {
	h := openLog(t, s, 0)
	const n = 1000
	var order []int
	for i := range n {
		h.log.Append([]byte{byte(i)}, func(at commitlog.Offset, err error) {
			if err != nil {
				t.Errorf("append %d: %v", i, err)
			}
			h.mu.Lock()
			order = append(order, i)
			h.offsets = append(h.offsets, at)
			h.mu.Unlock()
			h.came <- struct{}{}
		})
	}
	h.wait(n)
	for i := range n {
		if order[i] != i {
			t.Fatalf("callback %d was that of append %d", i, order[i])
		}
		if h.offsets[i] < 1 || i > 0 && h.offsets[i] <= h.offsets[i-1] {
			t.Fatalf("offset %d is %d: offsets start at 1 or above and increase", i, h.offsets[i])
		}
	}
	h.close()
}

func testReopen(t *testing.T, s Store) {
	h := openLog(t, s, 0)
	all := h.put(texts("a", 50)...)
	h.close()
	for i := range 3 {
		h = openLog(t, s, 0, all...)
		all = append(all, h.put(texts(fmt.Sprint("b", i), 20)...)...)
		for _, e := range all {
			h.mustRead(e)
		}
		h.close()
	}
}

func testReplayFrom(t *testing.T, s Store) {
	h := openLog(t, s, 0)
	all := h.put(texts("a", 40)...)
	h.close()
	for _, k := range []int{1, 7, 39, 40} {
		h = openLog(t, s, all[k-1].at, all[k:]...)
		h.mustRead(all[0]) // an entry that is not replayed can still be read
		h.close()
	}
}

func testReplayBeyond(t *testing.T, s Store) {
	h := openLog(t, s, 0)
	all := h.put(texts("a", 3)...)
	h.close()
	_, l, err := s.Open(all[2].at + 1)
	if !errors.Is(err, commitlog.ErrCorrupt) {
		t.Fatalf("Open from behind the log's end gave %v, want ErrCorrupt: entries are missing", err)
	}
	if l != nil && !isNil(l) {
		t.Fatal("Open gave a log beside an error")
	}
	openLog(t, s, 0, all...).close() // and no data was lost
}

func testOffsetsIncrease(t *testing.T, s Store) {
	var last commitlog.Offset
	for i := range 5 {
		replay, log, err := s.Open(0)
		if err != nil {
			t.Fatal(err)
		}
		if err := replay.Close(); err != nil { // a replay may be closed unread
			t.Fatal(err)
		}
		h := &handle{t: t, store: s, log: log, came: make(chan struct{}, 16)}
		e := h.put([]byte{byte(i)})[0]
		if e.at <= last {
			t.Fatalf("offset %d came after %d", e.at, last)
		}
		last = e.at
		h.close()
	}
}

func testEmpty(t *testing.T, s Store) {
	openLog(t, s, 0).close()
	openLog(t, s, 0).close()
}

func testSizes(t *testing.T, s Store) {
	h := openLog(t, s, 0)
	var datas [][]byte
	for _, n := range []int{0, 1, 7, 8, 9, 511, 512, 513, 4095, 4096, 4097, 65536, 1 << 20, 3<<20 + 5, 0} {
		d := make([]byte, n)
		for i := range d {
			d[i] = byte(i*7 + n)
		}
		datas = append(datas, d)
	}
	all := h.put(datas...)
	for _, e := range all {
		h.mustRead(e)
	}
	h.close()
	h = openLog(t, s, 0, all...)
	for _, e := range all {
		h.mustRead(e)
	}
	h.close()
}

func testTooLarge(t *testing.T, s Store) {
	h := openLog(t, s, 0)
	all := h.put([]byte("before"))
	h.append(make([]byte, commitlog.MaxEntry+1))
	h.wait(1)
	if err := h.errs[1]; err == nil {
		t.Fatal("an entry above MaxEntry was accepted")
	}
	if err := h.log.Close(); err != nil && !errors.Is(err, commitlog.ErrFailed) {
		t.Fatalf("Close: %v", err)
	}
	openLog(t, s, 0, all...).close()
}

func testTrim(t *testing.T, s Store) {
	h := openLog(t, s, 0)
	all := h.put(texts("a", 200)...)
	if err := h.log.Trim(all[100].at); err != nil {
		t.Fatal(err)
	}
	if err := h.log.Trim(all[50].at); err != nil { // a trim to a lower offset has no effect
		t.Fatal(err)
	}
	for _, e := range all[100:] {
		h.mustRead(e)
	}
	for _, e := range all[:100] {
		// The log may free trimmed entries later. So Read returns either the intact entry or
		// ErrTrimmed.
		if data, err := h.log.Read(e.at); err == nil && !bytes.Equal(data, e.data) || err != nil && !errors.Is(err, commitlog.ErrTrimmed) {
			t.Fatalf("Read(%d) after Trim: %v", e.at, err)
		}
	}
	more := h.put(texts("b", 20)...)
	h.close()
	replay, log, err := s.Open(0)
	if err != nil {
		t.Fatal(err)
	}
	got := readAll(t, replay)
	want := append(append([]entry{}, all...), more...)
	if len(got) > len(want) || len(got) < 120 {
		t.Fatalf("%d entries after trimming 100 of 220", len(got))
	}
	checkEntries(t, got, want[len(want)-len(got):])
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
}

func testTrimAll(t *testing.T, s Store) {
	h := openLog(t, s, 0)
	all := h.put(texts("a", 30)...)
	last := all[29].at
	if err := h.log.Trim(last + 1); err != nil {
		t.Fatal(err)
	}
	h.close()
	replay, log, err := s.Open(last) // a replay after the last entry must work, because a snapshot can end there
	if err != nil {
		t.Fatal(err)
	}
	checkEntries(t, readAll(t, replay), nil)
	h = &handle{t: t, store: s, log: log, came: make(chan struct{}, 16)}
	if e := h.put([]byte("next"))[0]; e.at <= last {
		t.Fatalf("offset %d after %d: trimming must not lead offsets back", e.at, last)
	}
	h.close()
}

// testReplayTrimmed: a replay that needs trimmed entries must fail. A replay from 0 starts with the
// log's first entry.
func testReplayTrimmed(t *testing.T, s Store) {
	h := openLog(t, s, 0)
	var datas [][]byte
	for range 30 { // several segments, so that the log can free some
		datas = append(datas, make([]byte, 5000))
	}
	all := h.put(datas...)
	if err := h.log.Trim(all[29].at); err != nil {
		t.Fatal(err)
	}
	h.close()
	replay, log, err := s.Open(0)
	if err != nil {
		t.Fatal(err)
	}
	left := readAll(t, replay)
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	if len(left) > 28 {
		t.Log("this log keeps what was trimmed here, as it may: nothing to refuse")
		return
	}
	if _, _, err := s.Open(all[30-len(left)-2].at); !errors.Is(err, commitlog.ErrCorrupt) {
		t.Fatalf("replay from before the trimmed entries gave %v, want ErrCorrupt", err)
	}
	replay, log, err = s.Open(all[30-len(left)-1].at) // a replay from the last trimmed entry needs no trimmed entry
	if err != nil {
		t.Fatal(err)
	}
	checkEntries(t, readAll(t, replay), left)
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
}

// testFencing: a second opening either fences the older handle or fails while that handle is open.
// Two handles can never append.
func testFencing(t *testing.T, s Store) {
	h := openLog(t, s, 0)
	all := h.put([]byte("first"))
	replay, second, err := s.Open(0)
	if err != nil {
		if !errors.Is(err, commitlog.ErrLocked) {
			t.Fatalf("a second Open gave %v, want ErrLocked or success", err)
		}
		all = append(all, h.put([]byte("still mine"))...)
		h.close()
		openLog(t, s, 0, all...).close()
		return
	}
	checkEntries(t, readAll(t, replay), all)
	h.append([]byte("from the past"))
	h.wait(1)
	if err := h.errs[1]; !errors.Is(err, commitlog.ErrFenced) {
		t.Fatalf("the fenced handle's append gave %v, want ErrFenced", err)
	}
	h2 := &handle{t: t, store: s, log: second, came: make(chan struct{}, 16)}
	all = append(all, h2.put([]byte("second"))...)
	if err := h.log.Close(); err != nil {
		t.Fatalf("closing the fenced handle: %v", err)
	}
	all = append(all, h2.put([]byte("third"))...)
	h2.close()
	openLog(t, s, 0, all...).close()
}

func testFailure(t *testing.T, s Store) {
	if s.Fail == nil {
		t.Fatal("the store has no Fail: its handling of failures is untested")
	}
	h := openLog(t, s, 0)
	all := h.put(texts("a", 10)...)
	cause := errors.New("the disk is on fire")
	s.Fail(cause)
	for range 5 {
		h.append([]byte("lost"))
	}
	h.wait(5)
	for i, err := range h.errs[10:] {
		if !errors.Is(err, commitlog.ErrFailed) {
			t.Fatalf("append %d after the failure gave %v, want ErrFailed", i, err)
		}
	}
	if !errors.Is(h.errs[10], cause) {
		t.Fatalf("the first failure %v does not name its cause", h.errs[10])
	}
	h.append([]byte("later"))
	h.wait(1)
	if err := h.errs[15]; !errors.Is(err, commitlog.ErrFailed) {
		t.Fatalf("a later append gave %v, want ErrFailed", err)
	}
	if err := h.log.Close(); !errors.Is(err, commitlog.ErrFailed) {
		t.Fatalf("Close of a failed log gave %v, want ErrFailed", err)
	}
	replay, log, err := s.Open(0)
	if err != nil {
		t.Fatal(err)
	}
	got := readAll(t, replay)
	if len(got) < len(all) || len(got) > len(all)+6 {
		t.Fatalf("%d entries after the failure, want %d and at most 6 of unknown outcome", len(got), len(all))
	}
	checkEntries(t, got[:len(all)], all)
	h = &handle{t: t, store: s, log: log, came: make(chan struct{}, 16)}
	h.put([]byte("works again"))
	h.close()
}

func testClosed(t *testing.T, s Store) {
	h := openLog(t, s, 0)
	all := h.put([]byte("x"))
	h.append([]byte("y"))
	h.close() // Close stores the appended entries
	if len(h.errs) != 2 || h.errs[1] != nil {
		t.Fatalf("the append before Close ended with %v", h.errs)
	}
	all = append(all, entry{h.offsets[1], []byte("y")})
	h.append([]byte("z"))
	h.append([]byte("zz"))
	h.wait(3)
	for _, err := range h.errs[2:] {
		if !errors.Is(err, commitlog.ErrClosed) {
			t.Fatalf("an append after Close gave %v, want ErrClosed", err)
		}
	}
	if _, err := h.log.Read(all[0].at); !errors.Is(err, commitlog.ErrClosed) {
		t.Fatalf("Read after Close gave %v, want ErrClosed", err)
	}
	if err := h.log.Trim(1); !errors.Is(err, commitlog.ErrClosed) {
		t.Fatalf("Trim after Close gave %v, want ErrClosed", err)
	}
	if err := h.log.Close(); err != nil {
		t.Fatalf("a second Close gave %v, want nil", err)
	}
	openLog(t, s, 0, all...).close()
}

func testReadUnknown(t *testing.T, s Store) {
	h := openLog(t, s, 0)
	all := h.put([]byte("x"))
	for _, at := range []commitlog.Offset{0, all[0].at + 1, all[0].at + 1000, ^commitlog.Offset(0)} {
		if data, err := h.log.Read(at); err == nil {
			t.Fatalf("Read(%d) gave %d bytes of an entry that does not exist", at, len(data))
		}
	}
	h.close()
}

func testConcurrent(t *testing.T, s Store) {
	h := openLog(t, s, 0)
	all := h.put(texts("a", 300)...)
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range all {
				e := all[(i*7+g*31)%len(all)]
				data, err := h.log.Read(e.at)
				if err == nil && !bytes.Equal(data, e.data) || err != nil && !errors.Is(err, commitlog.ErrTrimmed) {
					t.Errorf("Read(%d): %v", e.at, err)
					return
				}
			}
		})
	}
	wg.Go(func() {
		for i := 0; i < 200; i += 10 {
			if err := h.log.Trim(all[i].at); err != nil {
				t.Errorf("Trim: %v", err)
				return
			}
		}
	})
	more := h.put(texts("b", 300)...)
	wg.Wait()
	for _, e := range more {
		h.mustRead(e)
	}
	h.close()
}

func isNil(l commitlog.Log) bool { return fmt.Sprintf("%v", l) == "<nil>" }
