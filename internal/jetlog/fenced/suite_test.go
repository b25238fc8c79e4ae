package fenced_test

import (
	"context"
	"testing"
	"time"

	"github.com/surgetank/surgetank/internal/clock"
	"github.com/surgetank/surgetank/internal/commitlog"
	"github.com/surgetank/surgetank/internal/commitlog/commitlogtest"
	"github.com/surgetank/surgetank/internal/jetlog/fenced"
	"github.com/surgetank/surgetank/internal/jetlog/fenced/model"
)

// openStepped opens a log on a model.
func openStepped(s *model.Stream, from commitlog.Offset) (commitlog.Replay, *fenced.Stepped, error) {
	l, err := fenced.AcquireStepped(context.Background(), fenced.Options{Stream: s.Port(), Name: "test", Clock: s.Clock, Window: 8 << 10, CacheBytes: 32 << 10})
	if err != nil {
		return nil, nil, err
	}
	r, err := l.Open(context.Background(), from)
	if err != nil {
		_ = l.Close() // nothing was appended
		return nil, nil, err
	}
	return r, l, nil
}

// drain runs a log until no append waits.
func drain(s *model.Stream, l *fenced.Stepped) {
	for {
		wait, busy := l.Pump()
		if !busy {
			return
		}
		if !s.Step() {
			s.Clock.Advance(max(wait, time.Millisecond))
		}
	}
}

// suiteStore returns a store for the test suite of all logs.
func suiteStore(f model.Faults, data int, seed uint64) commitlogtest.Store {
	s := model.New(seed, clock.NewManual(time.Unix(1e9, 0)))
	s.Faults, s.Data = f, data
	var forSnapshots *fenced.Stepped
	return commitlogtest.Store{
		Open: func(from commitlog.Offset) (commitlog.Replay, commitlog.Log, error) {
			r, l, err := openStepped(s, from)
			if err != nil {
				return nil, nil, err
			}
			return r, l, nil
		},
		Pump: func(l commitlog.Log) { drain(s, l.(*fenced.Stepped)) },
		Fail: s.Fail,
		Snapshots: func() (commitlog.Snapshots, error) {
			if forSnapshots == nil {
				r, l, err := openStepped(s, 0)
				if err != nil {
					return nil, err
				}
				if err := r.Close(); err != nil {
					return nil, err
				}
				forSnapshots = l
			}
			return forSnapshots.Snapshots(), nil
		},
	}
}

// TestSuite runs the suite of all logs on a calm stream, and on one with faults.
func TestSuite(t *testing.T) {
	t.Run("calm", func(t *testing.T) {
		commitlogtest.Run(t, func(t *testing.T) commitlogtest.Store { return suiteStore(model.Faults{}, 700, 1) })
	})
	t.Run("faults", func(t *testing.T) {
		commitlogtest.Run(t, func(t *testing.T) commitlogtest.Store {
			return suiteStore(model.Faults{Lose: .01, LoseAnswer: .01, Late: .1, Reorder: .3, Stale: .1}, 64<<10, 2)
		})
	})
}

// TestSuiteWithGoroutine runs the suite on a log with a goroutine. Another goroutine is the net.
func TestSuiteWithGoroutine(t *testing.T) {
	commitlogtest.Run(t, func(t *testing.T) commitlogtest.Store {
		s := model.New(1, clock.NewManual(time.Unix(1e9, 0)))
		s.Data, s.Sent = 4000, make(chan struct{}, 1)
		net := make(chan struct{})
		go func() {
			defer close(net)
			for range s.Sent {
				for s.Step() {
				}
			}
		}()
		t.Cleanup(func() {
			close(s.Sent)
			<-net
		})
		open := func(from commitlog.Offset) (commitlog.Replay, *fenced.Log, error) {
			l, err := fenced.Acquire(t.Context(), fenced.Options{Stream: s.Port(), Name: "test", CacheBytes: 32 << 10, Silence: time.Hour, GiveUp: time.Hour})
			if err != nil {
				return nil, nil, err
			}
			r, err := l.Open(t.Context(), from)
			if err != nil {
				_ = l.Close() // nothing was appended
				return nil, nil, err
			}
			return r, l, nil
		}
		var forSnapshots *fenced.Log
		return commitlogtest.Store{
			Open: func(from commitlog.Offset) (commitlog.Replay, commitlog.Log, error) {
				r, l, err := open(from)
				if err != nil {
					return nil, nil, err
				}
				return r, l, nil
			},
			Fail: s.Fail,
			Snapshots: func() (commitlog.Snapshots, error) {
				if forSnapshots == nil {
					r, l, err := open(0)
					if err != nil {
						return nil, err
					}
					forSnapshots = l
					if err := r.Close(); err != nil {
						return nil, err
					}
				}
				return forSnapshots.Snapshots(), nil
			},
		}
	})
}
