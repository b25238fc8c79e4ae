package broker

import (
	"testing"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/clock"
	"github.com/surgetank/surgetank/internal/commitlog"
	"github.com/surgetank/surgetank/internal/memlog"
	"github.com/surgetank/surgetank/internal/queue"
)

// TestTrimWaitsForWhatItRestsOn: messages are acked by an entry that is not durable when a snapshot is done. The crash erases the acks, so
// the messages are there again, and what was trimmed meanwhile must not be their bodies.
func TestTrimWaitsForWhatItRestsOn(t *testing.T) {
	store, c := memlog.NewStore(), clock.NewManual(start)
	open := func() *byHand {
		h := &byHand{t: t, clock: c}
		b, err := Open(Options{Manual: true, Clock: c, SnapshotBytes: 1500, SnapshotPiece: 1 << 20, Limits: queue.Limits{ExtentBytes: 100}, Snapshots: store.Snapshots(), Drive: func() { h.run() },
			OpenLog: func(from commitlog.Offset, _ func(bool)) (commitlog.Replay, commitlog.Log, error) {
				r, l, err := store.Open(memlog.Options{From: from, Manual: true})
				h.log = l
				return r, l, err
			}})
		if err != nil {
			t.Fatal(err)
		}
		h.Broker = b
		h.run()
		return h
	}
	h := open()
	h.send(&queue.Declare{Name: "q"})
	for range 4 {
		h.publish(surgetank.Message{Body: make([]byte, 100)})
	}
	send := func(cmd queue.Command) {
		if err := h.Send(cmd, func(error) {}); err != nil {
			t.Fatal(err)
		}
		for h.Tick() {
		}
	}
	send(&queue.SetMeta{Namespace: "test", Name: "filling", Value: make([]byte, 2000)})
	if !h.snap.active || h.snap.storing {
		t.Fatal("no snapshot waits for its last entry")
	}
	send(&queue.SetMeta{Namespace: "test", Name: "behind", Value: []byte("x")}) // so that the log may be trimmed up to a durable entry
	h.log.Pump()
	take := &queue.Attach{Queue: "q", Now: true, Opts: surgetank.SubscribeOptions{Credit: 100, NoAck: true}}
	h.NewSubscription(take)
	send(take) // the snapshot is stored and done, the entry that says that the messages are gone is not
	if at, _, err := store.Snapshots().Latest(); err != nil || at == 0 || h.durable == h.number {
		t.Fatalf("snapshot at %d (%v), entry %d of %d durable: not what this test is about", at, err, h.durable, h.number)
	}
	store.Crash(0)

	h = open()
	if n := h.received(); n != 4 {
		t.Fatalf("after the crash %d of 4 messages that nobody got came", n)
	}
	for range 20 { // and what nothing needs is trimmed in the end
		h.send(&queue.SetMeta{Namespace: "test", Name: "filling", Value: make([]byte, 2000)})
	}
	if n := store.Len(); n > 10 {
		t.Errorf("the log still has %d entries", n)
	}
}
