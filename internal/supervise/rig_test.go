package supervise_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/broker"
	"github.com/surgetank/surgetank/internal/commitlog"
	"github.com/surgetank/surgetank/internal/door"
	"github.com/surgetank/surgetank/internal/memlog"
	"github.com/surgetank/surgetank/internal/supervise"
)

var errDisk = errors.New("injected: the disk failed")

// rig is a Supervisor over brokers on a log in memory.
type rig struct {
	t     *testing.T
	store *memlog.Store
	s     *supervise.Supervisor

	mu       sync.Mutex
	last     uint64        // the incarnation of the newest opening
	failAt   int           // the append that fails, counted over all openings from 1; 0: none
	appends  int           // appends so far
	refuse   []error       // errors of the next openings
	hold     chan struct{} // if not nil, an opening waits until it is closed
	openings int
	watched  func() // if not nil, it is called when an opening gets a watch
}

// watching is an opening that tells about its watches.
type watching struct {
	supervise.Instance
	told func()
}

func (w watching) WatchMeta(ctx context.Context, namespace string, feed *door.MetaFeed) (func(), error) {
	w.told()
	return w.Instance.WatchMeta(ctx, namespace, feed)
}

func newRig(t *testing.T, o supervise.Options) *rig {
	r := &rig{t: t, store: memlog.NewStore()}
	o.Open = r.open
	s, err := supervise.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	r.s = s
	return r
}

func (r *rig) open(ctx context.Context, again bool) (supervise.Instance, error) {
	r.mu.Lock()
	hold, after := r.hold, r.last
	var refusal error
	if len(r.refuse) > 0 {
		refusal, r.refuse = r.refuse[0], r.refuse[1:]
	}
	r.mu.Unlock()
	if hold != nil {
		select {
		case <-hold:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if refusal != nil {
		return nil, refusal
	}
	if !again {
		after = 0
	}
	b, err := broker.Open(broker.Options{Snapshots: r.store.Snapshots(), After: after,
		OpenLog: func(from commitlog.Offset, _ broker.LogHooks) (commitlog.Replay, commitlog.Log, error) {
			replay, log, err := r.store.Open(memlog.Options{From: from})
			if err != nil {
				return nil, nil, err
			}
			return replay, &failingLog{log, r}, nil
		}})
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last = b.Incarnation()
	r.openings++
	if r.watched != nil {
		return watching{b, r.watched}, nil
	}
	return b, nil
}

// failingLog makes the append with the number rig.failAt fail.
type failingLog struct {
	*memlog.Log
	r *rig
}

func (l *failingLog) Append(data []byte, done func(commitlog.Offset, error)) {
	l.r.mu.Lock()
	if l.r.appends++; l.r.appends == l.r.failAt {
		l.r.store.Fail(errDisk)
	}
	l.r.mu.Unlock()
	l.Log.Append(data, done)
}

// failNow makes the log fail, and waits until no opening serves.
func (r *rig) failNow() {
	r.t.Helper()
	r.store.Fail(errDisk)
	if err := r.s.SetMeta(r.t.Context(), "test", "fail", []byte("x")); surgetank.CodeOf(err) != surgetank.CodeUncertain {
		r.t.Fatalf("a write to a failing log: %v", err)
	}
}

// block delays the next openings until the returned function is called.
func (r *rig) block() (release func()) {
	c := make(chan struct{})
	r.mu.Lock()
	r.hold = c
	r.mu.Unlock()
	return func() {
		r.mu.Lock()
		r.hold = nil
		r.mu.Unlock()
		close(c)
	}
}

func (r *rig) declare(name string, config surgetank.QueueConfig) surgetank.QueueInfo {
	r.t.Helper()
	info, _, err := r.s.DeclareQueue(r.t.Context(), name, config, surgetank.DeclareIfAbsent)
	if err != nil {
		r.t.Fatal(err)
	}
	return info
}

func (r *rig) set(name, value string) {
	r.t.Helper()
	if err := r.s.SetMeta(r.t.Context(), "test", name, []byte(value)); err != nil {
		r.t.Fatal(err)
	}
}

func publishing(queue string, n int) []surgetank.Publishing {
	return []surgetank.Publishing{{Queues: []string{queue}, Message: surgetank.Message{Body: fmt.Append(nil, n), DedupID: fmt.Sprint("id ", n)}}}
}

func (r *rig) publish(queue string, from, to int) {
	r.t.Helper()
	for n := from; n <= to; n++ {
		res, err := r.s.Publish(r.t.Context(), publishing(queue, n))
		if err != nil || res[0].Err != nil {
			r.t.Fatal(n, res, err)
		}
	}
}

// receive returns the bodies of the next messages, within an hour of the bubble's time.
func receive(t *testing.T, sub surgetank.Subscription, n int) (list []surgetank.Delivery) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	for len(list) < n {
		var err error
		if list, err = sub.Receive(ctx, list, n-len(list), 1<<20); err != nil {
			t.Fatalf("%d of %d messages: %v", len(list), n, err)
		}
	}
	return list
}

func bodies(list []surgetank.Delivery) (out []string) {
	for _, d := range list {
		s := string(d.Body)
		if d.Redelivered {
			s += "r"
		}
		out = append(out, s)
	}
	return out
}

func code(t *testing.T, what string, err error, want surgetank.Code) {
	t.Helper()
	if surgetank.CodeOf(err) != want {
		t.Errorf("%s: %v (%s), want %q", what, err, surgetank.CodeOf(err), want)
	}
}
