package broker_test

import (
	"testing"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/broker"
	"github.com/surgetank/surgetank/internal/clock"
	"github.com/surgetank/surgetank/internal/commitlog"
	"github.com/surgetank/surgetank/internal/memlog"
	"github.com/surgetank/surgetank/internal/queue"
)

// TestALogThatDoesNotAnswerIsSeen: if the log does not answer, Stalled reports it, and nothing is
// confirmed in the meantime.
func TestALogThatDoesNotAnswerIsSeen(t *testing.T) {
	c := clock.NewManual(time.Unix(1e9, 0))
	var log *memlog.Stepped
	b, err := broker.OpenStepped(broker.Options{Clock: c,
		OpenLog: func(from commitlog.Offset, _ broker.LogHooks) (commitlog.Replay, commitlog.Log, error) {
			replay, l, err := memlog.NewStore().OpenStepped(memlog.Options{From: from})
			log = l
			return replay, l, err
		}}, broker.Stepping{})
	if err != nil {
		t.Fatal(err)
	}
	answered := false
	if err := b.Send(&queue.Declare{Name: "q", Mode: surgetank.DeclareNew}, func(error) { answered = true }); err != nil {
		t.Fatal(err)
	}
	b.Tick()
	c.Advance(3 * time.Second)
	b.Tick()
	if d := b.Stalled(); d != 3*time.Second || answered {
		t.Fatalf("stalled for %v, answered %v", d, answered)
	}
	for range 2 { // first the entry of the opening, then the entry of the declare
		log.Pump()
		b.Tick()
	}
	if d := b.Stalled(); d != 0 || !answered {
		t.Fatalf("stalled for %v, answered %v after the log answered", d, answered)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
}
