package jetlog

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/surgetank/surgetank/internal/commitlog"
	"github.com/surgetank/surgetank/internal/commitlog/commitlogtest"
	"github.com/surgetank/surgetank/internal/jetlog/fenced"
	"github.com/surgetank/surgetank/internal/natstest"
)

// calm is a cluster of three servers for the tests that do not disturb it.
var calm = sync.OnceValue(func() *natstest.Cluster { return natstest.StartIn(calmDir, natstest.Options{Servers: 3}) })

var (
	calmDir string
	nextID  atomic.Int64
)

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "jetlog")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	calmDir = dir
	code := m.Run()
	calm().Stop()
	if err := os.RemoveAll(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = max(code, 1)
	}
	os.Exit(code)
}

// connect connects to a cluster until the test ends.
func connect(t testing.TB, url string) *nats.Conn {
	t.Helper()
	nc, err := Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc
}

// rig is a new log in a cluster.
type rig struct {
	t       testing.TB
	cluster *natstest.Cluster
	nc      *nats.Conn
	id      string
}

func newRig(t testing.TB, c *natstest.Cluster) *rig {
	t.Helper()
	r := &rig{t: t, cluster: c, nc: connect(t, c.URLs()), id: fmt.Sprintf("t%d", nextID.Add(1))}
	if err := Create(t.Context(), r.nc, Config{ID: r.id, MaxBytes: 1 << 30}); err != nil {
		t.Fatal(err)
	}
	return r
}

// options returns the options of an opening. The servers' settings are checked by a test of their
// own.
func (r *rig) options() Options { return Options{Conn: r.nc, ID: r.id, UnsafeSync: true} }

func open(ctx context.Context, o Options, from commitlog.Offset) (commitlog.Replay, *Log, error) {
	l, err := Acquire(ctx, o)
	if err != nil {
		return nil, nil, err
	}
	replay, err := l.Open(ctx, from)
	if err != nil {
		return nil, nil, errors.Join(err, l.Close())
	}
	return replay, l, nil
}

// injector makes one Send of a stream fail.
type injector struct {
	fenced.Stream
	err    *atomic.Pointer[error]
	answer func(fenced.Answer)
}

func (i *injector) Listen(answer func(fenced.Answer), disturbed func()) {
	i.answer = answer
	i.Stream.Listen(answer, disturbed)
}

func (i *injector) Send(epoch, n, after uint64, record []byte) error {
	if err := i.err.Swap(nil); err != nil {
		return &fenced.FinalError{Err: *err}
	}
	return i.Stream.Send(epoch, n, after, record)
}

// TestSuite runs the suite of all logs on three servers with three replicas.
func TestSuite(t *testing.T) {
	commitlogtest.Run(t, func(t *testing.T) commitlogtest.Store {
		r := newRig(t, calm())
		var fault atomic.Pointer[error]
		o := r.options()
		o.stream = func(s fenced.Stream) fenced.Stream { return &injector{Stream: s, err: &fault} }
		var forSnapshots *Log
		return commitlogtest.Store{
			Open: func(from commitlog.Offset) (commitlog.Replay, commitlog.Log, error) {
				replay, l, err := open(t.Context(), o, from)
				if err != nil {
					return nil, nil, err
				}
				return replay, l, nil
			},
			Fail: func(err error) { fault.Store(&err) },
			Snapshots: func() (commitlog.Snapshots, error) {
				if forSnapshots == nil {
					replay, l, err := open(t.Context(), o, 0)
					if err != nil {
						return nil, err
					}
					t.Cleanup(func() { _ = l.Close() }) // nothing was appended
					forSnapshots = l
					if err := replay.Close(); err != nil {
						return nil, err
					}
				}
				return forSnapshots.Snapshots(), nil
			},
		}
	})
}
