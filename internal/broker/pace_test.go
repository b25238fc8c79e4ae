package broker

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/clock"
	"github.com/surgetank/surgetank/internal/commitlog"
	"github.com/surgetank/surgetank/internal/door"
	"github.com/surgetank/surgetank/internal/memlog"
	"github.com/surgetank/surgetank/internal/queue"
)

// slow is a log whose appends last 10 ms, with at most 4 entries in flight and 1 ms between two.
var slow = memlog.Options{Latency: 10 * time.Millisecond, Gaps: true,
	Pace: commitlog.Pace{Entries: 4, Bytes: 10_000, EntryBytes: 2_000, Gather: time.Millisecond}}

// paced is a broker on a slow log.
type paced struct {
	*byHand
	store *memlog.Store
	said  []string // what callers learned, with the time
}

func openPaced(t *testing.T, store *memlog.Store, c *clock.Manual, o memlog.Options) *paced {
	t.Helper()
	h := &paced{byHand: &byHand{t: t, clock: c, remote: o}, store: store}
	h.stepping.Drive = func() { h.pass(time.Millisecond) }
	if err := h.open(h.options(store, false)); err != nil {
		t.Fatal(err)
	}
	h.pass(20 * time.Millisecond) // the first entry
	if err := h.wait(&queue.Declare{Name: "q", Config: surgetank.QueueConfig{DedupWindow: time.Hour}, Mode: surgetank.DeclareIfAbsent}); err != nil {
		t.Fatal(err)
	}
	h.pass(20 * time.Millisecond)
	return h
}

// pass lets time pass in steps of a millisecond, and runs broker and log after each.
func (h *paced) pass(d time.Duration) {
	h.run()
	for range d / time.Millisecond {
		h.clock.Advance(time.Millisecond)
		h.run()
	}
}

func (h *paced) wait(c queue.Command) error {
	done := make(chan error, 1)
	if err := h.Send(c, func(err error) { done <- err }); err != nil {
		return err
	}
	return h.answer(done)
}

// put publishes a message whose confirm adds a line to said.
func (h *paced) put(name string, bytes int) {
	h.t.Helper()
	at := h.clock.Passed()
	msg := []surgetank.Publishing{{Queues: []string{"q"}, Message: surgetank.Message{Body: make([]byte, bytes), DedupID: name}}}
	err := h.PublishAsync(h.t.Context(), msg, func(r []surgetank.PublishResult, err error) {
		line := fmt.Sprintf("%s after %v", name, h.clock.Passed()-at)
		switch {
		case err != nil:
			line = name + " " + string(surgetank.CodeOf(err))
		case r[0].Duplicate:
			line += " duplicate"
		}
		h.said = append(h.said, line)
	})
	if err != nil {
		h.t.Fatal(err)
	}
}

func (h *paced) expect(want ...string) {
	h.t.Helper()
	if !slices.Equal(h.said, want) {
		h.t.Fatalf("callers learned\n%q\nwant\n%q", h.said, want)
	}
	h.said = nil
}

// TestEntriesInFlight: a message does not wait until the entries before are durable. Confirms come in
// order. An answer without an entry of its own waits for the newest entry in flight.
func TestEntriesInFlight(t *testing.T) {
	h := openPaced(t, memlog.NewStore(), clock.NewManual(start), slow)
	for _, name := range []string{"a", "b", "c"} {
		h.put(name, 10)
		h.pass(2 * time.Millisecond)
	}
	h.put("a", 10) // a duplicate, decided while the entry of c is the newest
	h.pass(3 * time.Millisecond)
	h.expect()
	h.pass(20 * time.Millisecond)
	h.expect("a after 10ms", "b after 10ms", "c after 10ms", "a after 8ms duplicate")
}

// TestGather: while an entry is in flight, messages gather for Pace.Gather or until they fill an
// entry. At most Pace.Entries are in flight.
func TestGather(t *testing.T) {
	h := openPaced(t, memlog.NewStore(), clock.NewManual(start), slow)
	entries := func() int { return len(h.pacing.sizes) }
	h.put("first", 10)
	if h.run(); entries() != 1 {
		t.Fatalf("%d entries after a message on an idle log", entries())
	}
	h.put("second", 10)
	h.put("third", 10)
	if h.run(); entries() != 1 {
		t.Fatal("the next entry did not wait for further messages")
	}
	if d := h.untilDue(); d != time.Millisecond {
		t.Fatalf("the loop would sleep for %v, want 1ms", d)
	}
	h.clock.Advance(time.Millisecond)
	if h.run(); entries() != 2 {
		t.Fatalf("%d entries after the time to gather", entries())
	}
	h.put("large", 1000)
	h.run()
	<-h.mailbox.wake
	h.put("full", 1000)
	if len(h.mailbox.wake) == 0 {
		t.Fatal("a full entry does not wake the loop")
	}
	if h.run(); entries() != 3 {
		t.Fatalf("%d entries in flight after a full one", entries())
	}
	for i := range 10 {
		h.put(fmt.Sprint(i), 1900)
		if h.run(); entries() > 4 {
			t.Fatalf("%d entries in flight, 4 are allowed", entries())
		}
	}
	if h.pass(100 * time.Millisecond); len(h.said) != 15 || entries() != 0 || h.pacing.bytes != 0 {
		t.Fatalf("%d confirms, %d entries and %d bytes in flight at the end", len(h.said), entries(), h.pacing.bytes)
	}
}

// TestBytesInFlight: no further entry is appended while Pace.Bytes are in flight.
func TestBytesInFlight(t *testing.T) {
	h := openPaced(t, memlog.NewStore(), clock.NewManual(start), slow)
	h.put("large", 10_000)
	h.pass(2 * time.Millisecond)
	h.put("later", 1)
	if h.pass(7 * time.Millisecond); len(h.pacing.sizes) != 1 {
		t.Fatalf("%d entries in flight, and the first has %d bytes", len(h.pacing.sizes), h.pacing.sizes[0])
	}
	h.pass(20 * time.Millisecond)
	h.expect("large after 10ms", "later after 18ms")
}

// TestQuietEntriesGather: commands for which no caller waits gather like others, even while nothing
// is in flight. Their entries go to the log together, and are not more than may be in flight.
func TestQuietEntriesGather(t *testing.T) {
	h := &paced{byHand: &byHand{t: t, clock: clock.NewManual(start), remote: slow}}
	o := h.options(memlog.NewStore(), false)
	o.Hold = time.Minute
	if err := h.open(o); err != nil {
		t.Fatal(err)
	}
	h.pass(20 * time.Millisecond)
	set := func() {
		if err := h.SetMetaLater("ns", "name", []byte("value")); err != nil {
			t.Fatal(err)
		}
		h.run()
	}
	for n := 1; n < slow.Pace.Entries; n++ {
		for range 5 {
			set()
		}
		if len(h.held.entries) != n {
			t.Fatalf("%d entries held after 5 commands in each of %d periods", len(h.held.entries), n)
		}
		h.clock.Advance(time.Millisecond)
	}
	set()
	if len(h.held.entries) > 0 || len(h.pacing.sizes) != slow.Pace.Entries {
		t.Fatalf("%d entries held, %d in flight", len(h.held.entries), len(h.pacing.sizes))
	}
}

// TestCrashWithEntriesInFlight: the power fails with four entries in flight, and the first ones are
// durable. The next opening has exactly these, and nothing that a caller was told is missing.
func TestCrashWithEntriesInFlight(t *testing.T) {
	for durable := range 5 {
		store, c := memlog.NewStore(), clock.NewManual(start)
		h := openPaced(t, store, c, slow)
		h.put("told", 10)
		h.pass(20 * time.Millisecond)
		h.expect("told after 10ms")
		for i := range 4 {
			h.put(fmt.Sprint(i), 10)
			h.pass(2 * time.Millisecond)
		}
		if n := len(h.pacing.sizes); n != 4 {
			t.Fatalf("%d entries in flight, want 4", n)
		}
		store.Crash(durable)
		h = openPaced(t, store, c, slow)
		got, err := h.Peek(t.Context(), "q", surgetank.PeekOptions{Max: 10})
		if err != nil || len(got) != 1+durable {
			t.Fatalf("%d messages after a crash with %d durable entries in flight: %v", len(got), durable, err)
		}
		for i, d := range got[1:] {
			if d.DedupID != fmt.Sprint(i) {
				t.Fatalf("message %d is %q", i, d.DedupID)
			}
		}
	}
}

// TestFailureWithEntriesInFlight: the log fails with several entries in flight. The outcome of each is
// uncertain, and no delivery of them leaves.
func TestFailureWithEntriesInFlight(t *testing.T) {
	store := memlog.NewStore()
	h := openPaced(t, store, clock.NewManual(start), slow)
	c := &queue.Attach{Queue: "q", Opts: door.SubscribeOptions{SubscribeOptions: surgetank.SubscribeOptions{Credit: 10}}}
	sub := h.NewSubscription(c)
	if err := h.wait(c); err != nil {
		t.Fatal(err)
	}
	h.pass(20 * time.Millisecond)
	for i := range 3 {
		h.put(fmt.Sprint(i), 10)
		h.pass(2 * time.Millisecond)
	}
	store.Fail(commitlog.ErrFenced)
	h.pass(20 * time.Millisecond)
	h.expect("0 uncertain", "1 uncertain", "2 uncertain")
	if ds, err := sub.TryReceive(nil, 10, 1<<20); len(ds) > 0 || err == nil {
		t.Fatalf("%d deliveries of entries that are not durable, %v", len(ds), err)
	}
	if h.Err() == nil {
		t.Fatal("the broker goes on after its log failed")
	}
}
