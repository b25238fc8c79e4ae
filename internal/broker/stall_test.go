package broker_test

import (
	"runtime"
	"testing"
	"time"

	"github.com/surgetank/surgetank/internal/broker"
	"github.com/surgetank/surgetank/internal/clock"
	"github.com/surgetank/surgetank/internal/commitlog"
	"github.com/surgetank/surgetank/internal/memlog"
)

// TestStalledCountsFromTheLogsLastAnswer drives a broker by hand over a log that answers when it is told to.
func TestStalledCountsFromTheLogsLastAnswer(t *testing.T) {
	c := clock.NewManual(time.Unix(1_700_000_000, 0))
	var log *memlog.Log
	store := memlog.NewStore()
	b, err := broker.Open(broker.Options{Manual: true, Clock: c,
		OpenLog: func(from commitlog.Offset, _ func(bool)) (commitlog.Replay, commitlog.Log, error) {
			replay, l, err := store.Open(memlog.Options{From: from, Manual: true})
			log = l
			return replay, l, err
		}})
	if err != nil {
		t.Fatal(err)
	}
	settle := func() {
		for b.Tick() || log.Pump() > 0 {
		}
	}
	settle()
	want := func(d time.Duration, when string) {
		t.Helper()
		if got := b.Stalled(); got != d {
			t.Errorf("%s: stalled for %v, want %v", when, got, d)
		}
	}
	c.Advance(time.Hour)
	want(0, "idle for an hour")
	done := make(chan error, 2)
	set := func(name string) {
		go func() { done <- b.SetMeta(t.Context(), "test", name, []byte("x")) }()
		for !b.Tick() { // until the call is in the mailbox
			runtime.Gosched()
		}
	}
	set("a")
	want(0, "just appended")
	c.Advance(3 * time.Second)
	want(3*time.Second, "the log does not answer")
	set("b")
	c.Advance(time.Second)
	want(4*time.Second, "a second entry waits")
	if log.PumpN(1) != 1 {
		t.Fatal("the log stored nothing")
	}
	b.Tick()
	want(0, "one of two was stored")
	c.Advance(2 * time.Second)
	want(2*time.Second, "the other waits")
	settle()
	want(0, "all is stored")
	for range 2 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}
