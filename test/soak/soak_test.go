//go:build linux

package main

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/surgetank/surgetank/test/kit/ledger"
)

// TestSmoke is a small run with kills. `make soak` starts the full run. The small run is too short
// to judge memory, and other activity on the machine must not fail the test. So only the promises
// are checked.
func TestSmoke(t *testing.T) {
	if testing.Short() {
		t.Skip("a run of real processes; not under -short")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	s, err := run(ctx, options{length: 16 * time.Second, warmUp: 3 * time.Second, rate: 600, kills: 4 * time.Second, calm: 0.25,
		settle: 10 * time.Second, tick: 4 * time.Second, progress: t.Logf})
	if s != nil {
		t.Log(s.report("smoke"))
	}
	if err != nil {
		t.Fatal(err)
	}
	if n := s.l.Totals().Broken(); n > 0 || s.end.At == 0 || len(s.restarts) < 2 {
		t.Errorf("seed %d: %d findings, %d kills, end %+v: %s", s.seed, n, len(s.restarts), s.end, strings.Join(s.broken(), "\n"))
	}
}

// TestVerdict: a run must fail if resources stay above the baseline, or if a promise was not
// tested.
func TestVerdict(t *testing.T) {
	base := usage{RSS: 100 * mib, Heap: 50 * mib, Goroutines: 20, FDs: 20, Disk: 200 * mib, At: time.Second}
	good := func() *soak {
		s := &soak{l: ledger.New(), baseline: base, end: base, restarts: []time.Duration{1}}
		s.kills = time.Second
		q := s.l.Stream("q", false)
		s.l.Published(q, s.l.Next(q, 0, false), ledger.Confirmed)
		return s
	}
	if s := good(); !s.ok() {
		t.Error("a good run fails:", s.broken())
	}
	for name, spoil := range map[string]func(*soak){
		"memory": func(s *soak) { s.end.RSS *= 2 }, "heap": func(s *soak) { s.end.Heap *= 3 }, "goroutines": func(s *soak) { s.end.Goroutines += 6 },
		"descriptors": func(s *soak) { s.end.FDs += 6 }, "disk": func(s *soak) { s.end.Disk += 200 * mib }, "queues": func(s *soak) { s.end.Queues = 1 },
		"findings": func(s *soak) { s.l.Report("x") }, "nothing confirmed": func(s *soak) { s.l = ledger.New() }, "never killed": func(s *soak) { s.restarts = nil },
		"cut short": func(s *soak) { s.end = usage{} },
	} {
		if s := good(); true {
			if spoil(s); s.ok() {
				t.Errorf("%s: a bad run passes", name)
			}
		}
	}
}

func TestDrift(t *testing.T) {
	var list []usage
	for i := range 20 {
		list = append(list, usage{At: time.Duration(i) * time.Minute, RSS: int64(100+i) * mib})
	}
	if got := drift(list, func(u usage) int64 { return u.RSS }) / mib; got < 59.9 || got > 60.1 {
		t.Errorf("a MiB a minute is %v MiB an hour", got)
	}
}
