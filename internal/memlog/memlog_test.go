package memlog

import (
	"errors"
	"testing"

	"go.uber.org/goleak"

	"github.com/surgetank/surgetank/internal/commitlog"
	"github.com/surgetank/surgetank/internal/commitlog/commitlogtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func suiteStore(manual bool) commitlogtest.Store {
	s := NewStore()
	store := commitlogtest.Store{
		Open: func(from commitlog.Offset) (commitlog.Replay, commitlog.Log, error) {
			r, l, err := s.Open(Options{From: from, Manual: manual})
			if err != nil {
				return nil, nil, err
			}
			return r, l, nil
		},
		Fail:      s.Fail,
		Snapshots: func() (commitlog.Snapshots, error) { return s.Snapshots(), nil },
	}
	if manual {
		store.Pump = func(l commitlog.Log) {
			for l.(*Log).Pump() > 0 {
			}
		}
	}
	return store
}

func TestSuite(t *testing.T) {
	t.Run("goroutine", func(t *testing.T) {
		commitlogtest.Run(t, func(*testing.T) commitlogtest.Store { return suiteStore(false) })
	})
	t.Run("manual", func(t *testing.T) {
		commitlogtest.Run(t, func(*testing.T) commitlogtest.Store { return suiteStore(true) })
	})
}

func TestCrashLosesWhatWasNotPumped(t *testing.T) {
	s := NewStore()
	_, l, err := s.Open(Options{Manual: true})
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
	r, l, err := s.Open(Options{Manual: true})
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
