package broker

import (
	"strings"
	"testing"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/clock"
	"github.com/surgetank/surgetank/internal/commitlog"
	"github.com/surgetank/surgetank/internal/door"
	"github.com/surgetank/surgetank/internal/memlog"
	"github.com/surgetank/surgetank/internal/queue"
)

// byHand is a stepped broker on a log in memory. The test runs the broker and the log.
type byHand struct {
	*Stepped
	t        *testing.T
	clock    *clock.Manual
	log      *memlog.Stepped
	stepping Stepping
	remote   memlog.Options // latency, gaps and pace of the log
}

func openByHand(t *testing.T, store *memlog.Store, c *clock.Manual, snapshots bool) (*byHand, error) {
	h := &byHand{t: t, clock: c}
	return h, h.open(h.options(store, snapshots))
}

// options returns the options of a broker on a store.
func (h *byHand) options(store *memlog.Store, snapshots bool) Options {
	o := Options{Clock: h.clock, SnapshotBytes: 200, SnapshotPiece: 50,
		OpenLog: func(from commitlog.Offset, _ LogHooks) (commitlog.Replay, commitlog.Log, error) {
			lo := h.remote
			lo.From, lo.Clock = from, h.clock
			r, l, err := store.OpenStepped(lo)
			h.log = l
			return r, l, err
		}}
	if snapshots {
		o.Snapshots = store.Snapshots()
	}
	return o
}

func (h *byHand) open(o Options) (err error) {
	if h.stepping.Drive == nil {
		h.stepping.Drive = h.run
	}
	h.Stepped, err = OpenStepped(o, h.stepping)
	return err
}

func (h *byHand) run() {
	for h.Tick() || h.log.Pump() > 0 {
	}
}

func (h *byHand) send(c queue.Command) {
	h.t.Helper()
	done := false
	if err := h.Send(c, func(err error) { done = err == nil }); err != nil {
		h.t.Fatal(err)
	}
	if h.run(); !done {
		h.t.Fatalf("%T was not answered", c)
	}
}

func (h *byHand) publish(m surgetank.Message) {
	p := surgetank.Publishing{Queues: []string{"q"}, Message: m}
	h.send(&queue.Publish{Msgs: []queue.Incoming{{Publishing: &p}}, Results: make([]surgetank.PublishResult, 1)})
}

func (h *byHand) received() int {
	c := &queue.Attach{Queue: "q", Now: true, Opts: door.SubscribeOptions{SubscribeOptions: surgetank.SubscribeOptions{Credit: 100, NoAck: true}}}
	s := h.NewSubscription(c)
	h.send(c)
	ds, _ := s.TryReceive(nil, 100, 1<<20)
	return len(ds)
}

var start = time.Unix(1_800_000_000, 0)

// TestClockSetBack: a delay lasts equally long if the clock is set back meanwhile.
func TestClockSetBack(t *testing.T) {
	store, c := memlog.NewStore(), clock.NewManual(start)
	h, err := openByHand(t, store, c, false)
	if err != nil {
		t.Fatal(err)
	}
	h.send(&queue.Declare{Name: "q"})
	h.publish(surgetank.Message{Delay: 10 * time.Second})
	c.Set(c.Now().Add(-time.Hour))
	h.run()
	c.Advance(9 * time.Second)
	if n := h.received(); n != 0 {
		t.Fatalf("after 9 of 10 seconds %d messages came", n)
	}
	c.Advance(time.Second)
	if n := h.received(); n != 1 {
		t.Fatalf("after 10 seconds %d messages came", n)
	}
	h.publish(surgetank.Message{Delay: 10 * time.Second})
	c.Set(c.Now().Add(-time.Hour))
	store.Crash(0)
	if h, err = openByHand(t, store, c, false); err != nil {
		t.Fatal(err)
	}
	c.Advance(10 * time.Second)
	if n := h.received(); n != 1 {
		t.Fatalf("10 seconds after a restart with the clock set back %d messages came", n)
	}
}

// TestLogWithoutItsBeginning: the log was trimmed, and the snapshot that covers the trimmed part is
// missing. Opening must fail with an error that says so.
func TestLogWithoutItsBeginning(t *testing.T) {
	store, c := memlog.NewStore(), clock.NewManual(start)
	h, err := openByHand(t, store, c, true)
	if err != nil {
		t.Fatal(err)
	}
	h.send(&queue.Declare{Name: "q"})
	for range 40 {
		h.publish(surgetank.Message{Body: make([]byte, 100)})
		h.received()
	}
	store.Crash(0)
	if at, _, _ := store.Snapshots().Latest(); at == 0 {
		t.Fatal("no snapshot was finished by hand")
	}
	if _, err := openByHand(t, store, c, true); err != nil {
		t.Fatal(err)
	}
	// If the log was trimmed, its first entries are gone.
	r, l, err := store.OpenStepped(memlog.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if e, err := r.Next(); err != nil || e.Offset == 1 {
		if err := l.Trim(10); err != nil {
			t.Fatal(err)
		}
	}
	_, err = openByHand(t, store, c, false)
	if surgetank.CodeOf(err) != surgetank.CodeCorrupt || !strings.Contains(err.Error(), "entr") {
		t.Fatalf("opening without the snapshot gave %v", err)
	}
}

// TestPlacesOfASnapshot: a snapshot contains the offsets of its own entries only, even if offsets
// have gaps.
func TestPlacesOfASnapshot(t *testing.T) {
	var p places
	for n := uint64(1); n <= 30; n++ {
		at := commitlog.Offset(n)
		if n > 20 {
			at += 100
		}
		p.add(n, at)
	}
	var again places
	for _, r := range p.copy(15) {
		again.add(r.number, r.offset)
	}
	again.last = 15
	for n := uint64(16); n <= 30; n++ {
		at, _ := p.offset(n)
		again.add(n, at)
	}
	for n := uint64(1); n <= 30; n++ {
		want, _ := p.offset(n)
		if got, ok := again.offset(n); !ok || got != want {
			t.Errorf("entry %d is at %d, found %d %v", n, want, got, ok)
		}
	}
}
