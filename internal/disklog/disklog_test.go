package disklog

import (
	"path/filepath"
	"testing"

	"go.uber.org/goleak"

	"github.com/surgetank/surgetank/internal/commitlog"
	"github.com/surgetank/surgetank/internal/commitlog/commitlogtest"
	"github.com/surgetank/surgetank/internal/vfs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// suiteStore returns a store for the test suite of all logs. open is Open or OpenStepped.
func suiteStore[L commitlog.Log](base vfs.FS, o Options, open func(Options) (commitlog.Replay, L, error)) commitlogtest.Store {
	inject := vfs.NewInject(base)
	o.FS = inject
	store := commitlogtest.Store{
		Open: func(from commitlog.Offset) (commitlog.Replay, commitlog.Log, error) {
			inject.SetFault(vfs.Fault{})
			o.From = from
			r, l, err := open(o)
			if err != nil {
				return nil, nil, err
			}
			return r, l, nil
		},
		Fail: func(err error) {
			inject.SetFault(vfs.Fault{Ops: vfs.OpWrite | vfs.OpSync, N: 1, Forever: true, Err: err}) // Forever, because a single fault could hit maintenance while the append succeeds
		},
		Snapshots: func() (commitlog.Snapshots, error) { return OpenSnapshots(inject, o.Dir) },
	}
	var l L
	if _, stepped := any(l).(*Stepped); stepped {
		store.Pump = func(l commitlog.Log) { l.(*Stepped).Pump() }
	}
	return store
}

func TestSuite(t *testing.T) {
	for _, test := range []struct {
		name string
		make func(t *testing.T) commitlogtest.Store
	}{
		{"files", func(t *testing.T) commitlogtest.Store {
			return suiteStore(vfs.OS{}, Options{Dir: filepath.Join(t.TempDir(), "data"), SegmentBytes: 1 << 20}, Open)
		}},
		{"files, small segments, nothing cached", func(t *testing.T) commitlogtest.Store {
			return suiteStore(vfs.OS{}, Options{Dir: filepath.Join(t.TempDir(), "data"), SegmentBytes: MinSegmentBytes, CacheBytes: -1}, Open)
		}},
		{"memory, small segments", func(*testing.T) commitlogtest.Store {
			return suiteStore(vfs.NewMem(), Options{Dir: "data", SegmentBytes: MinSegmentBytes}, Open)
		}},
		{"memory, stepped, nothing cached", func(*testing.T) commitlogtest.Store {
			return suiteStore(vfs.NewMem(), Options{Dir: "data", SegmentBytes: MinSegmentBytes, CacheBytes: -1}, OpenStepped)
		}},
		{"memory, stepped, small cache", func(*testing.T) commitlogtest.Store {
			return suiteStore(vfs.NewMem(), Options{Dir: "data", SegmentBytes: 32 << 10, CacheBytes: 4096}, OpenStepped)
		}},
	} {
		t.Run(test.name, func(t *testing.T) { commitlogtest.Run(t, test.make) })
	}
}
