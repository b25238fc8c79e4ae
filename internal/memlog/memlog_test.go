package memlog

import (
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/surgetank/surgetank/internal/clock"
	"github.com/surgetank/surgetank/internal/commitlog"
	"github.com/surgetank/surgetank/internal/commitlog/commitlogtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// suiteStore returns a store for the test suite of all logs. open is Store.Open or
// Store.OpenStepped.
func suiteStore[L commitlog.Log](o Options, open func(*Store, Options) (commitlog.Replay, L, error)) commitlogtest.Store {
	s := NewStore()
	store := commitlogtest.Store{
		Open: func(from commitlog.Offset) (commitlog.Replay, commitlog.Log, error) {
			o.From = from
			r, l, err := open(s, o)
			if err != nil {
				return nil, nil, err
			}
			return r, l, nil
		},
		Fail:      s.Fail,
		Snapshots: func() (commitlog.Snapshots, error) { return s.Snapshots(), nil },
	}
	var l L
	if _, stepped := any(l).(*Stepped); stepped {
		store.Pump = func(l commitlog.Log) { pumpAll(l.(*Stepped), o.Clock) }
	}
	return store
}

// pumpAll runs a log until nothing waits. A manual clock advances to the time of each entry.
func pumpAll(l *Stepped, c clock.Clock) {
	for {
		for l.Pump() > 0 {
		}
		d, waits := l.Due()
		if !waits {
			return
		}
		c.(*clock.Manual).Advance(d)
	}
}

func TestSuite(t *testing.T) {
	t.Run("goroutine", func(t *testing.T) {
		commitlogtest.Run(t, func(*testing.T) commitlogtest.Store { return suiteStore(Options{}, (*Store).Open) })
	})
	t.Run("stepped", func(t *testing.T) {
		commitlogtest.Run(t, func(*testing.T) commitlogtest.Store { return suiteStore(Options{}, (*Store).OpenStepped) })
	})
	t.Run("slow, with gaps", func(t *testing.T) {
		commitlogtest.Run(t, func(*testing.T) commitlogtest.Store {
			return suiteStore(Options{Latency: time.Millisecond, Gaps: true}, (*Store).Open)
		})
	})
	t.Run("slow, stepped, with gaps", func(t *testing.T) {
		commitlogtest.Run(t, func(*testing.T) commitlogtest.Store {
			return suiteStore(Options{Latency: 10 * time.Millisecond, Gaps: true, Clock: clock.NewManual(time.Unix(1e9, 0))}, (*Store).OpenStepped)
		})
	})
}

// TestLatency: each append lasts Options.Latency, and appends do not wait for each other.
func TestLatency(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, l, err := NewStore().Open(Options{Latency: 10 * time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		var took []time.Duration
		done := func(commitlog.Offset, error) { took = append(took, time.Since(start)) }
		for range 3 {
			l.Append(nil, done)
			l.Append(nil, done)
			time.Sleep(4 * time.Millisecond)
		}
		if err := l.Close(); err != nil { // Close waits for what is in flight
			t.Fatal(err)
		}
		if want := []time.Duration{10e6, 10e6, 14e6, 14e6, 18e6, 18e6}; !slices.Equal(took, want) {
			t.Fatalf("the callbacks came after %v, want %v", took, want)
		}
	})
}

func TestCrashLosesWhatWasNotPumped(t *testing.T) {
	s := NewStore()
	_, l, err := s.OpenStepped(Options{})
	if err != nil {
		t.Fatal(err)
	}
	var durable int
	done := func(_ commitlog.Offset, err error) {
		if err != nil {
			t.Errorf("callback with %v", err)
		}
		durable++
	}
	for i := range 10 {
		l.Append([]byte{byte(i)}, done)
	}
	if n := l.PumpN(4); n != 4 || durable != 4 {
		t.Fatalf("PumpN(4) did %d entries and %d callbacks", n, durable)
	}
	s.Crash(2)
	l.Append([]byte("too late"), done)
	if l.Pump() != 0 || durable != 4 {
		t.Fatal("a callback was called after the crash")
	}
	r, l, err := s.OpenStepped(Options{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 6 {
		e, err := r.Next()
		if err != nil || e.Offset != commitlog.Offset(i+1) || e.Data[0] != byte(i) {
			t.Fatalf("entry %d after the crash: %v %v", i, e, err)
		}
	}
	if _, err := r.Next(); err == nil {
		t.Fatal("more entries survived than the crash kept")
	}
	s.Corrupt(3)
	if _, err := l.Read(3); !errors.Is(err, commitlog.ErrCorrupt) {
		t.Fatalf("reading a corrupt entry gave %v", err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}
