package sink_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/embedded"
	"github.com/surgetank/surgetank/internal/door"
	"github.com/surgetank/surgetank/internal/shards/shardstest"
	"github.com/surgetank/surgetank/sink"
	"github.com/surgetank/surgetank/sink/sinktest"
)

// hooked is a target whose calls a test can delay or fail.
type hooked struct {
	sink.Target
	open   func() error
	commit func(ctx context.Context) error
	// Commits wait until the test closes release, which must be made inside the synctest bubble.
	release chan struct{}
}

// held makes commits wait until the test closes release.
func held() *hooked {
	h := &hooked{}
	h.commit = func(context.Context) error { <-h.release; return nil }
	return h
}

type hookedLane struct {
	sink.Lane
	h *hooked
}

func (h *hooked) Open(ctx context.Context, c sink.Claim) (sink.State, []sink.Lane, error) {
	if h.open != nil {
		if err := h.open(); err != nil {
			return sink.State{}, nil, err
		}
	}
	state, lanes, err := h.Target.Open(ctx, c)
	for i, l := range lanes {
		lanes[i] = &hookedLane{l, h}
	}
	return state, lanes, err
}

func (l *hookedLane) Commit(ctx context.Context, p sink.Progress) error {
	if l.h.commit != nil {
		if err := l.h.commit(ctx); err != nil {
			return err
		}
	}
	return l.Lane.Commit(ctx, p)
}

// inMemory runs a test in a bubble with a real broker, a queue, and a sink with a memory target.
func inMemory(t *testing.T, config surgetank.QueueConfig, h *hooked, opts sink.Options, f func(b *embedded.Broker, db *sinktest.Memory, r *sink.Runner)) {
	synctest.Test(t, func(t *testing.T) {
		b, err := embedded.Memory(embedded.Options{Shards: shardstest.N})
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		if _, _, err := b.DeclareQueue(context.Background(), "q", config, surgetank.DeclareNew); err != nil {
			t.Fatal(err)
		}
		db := sinktest.NewMemory(1)
		h.Target, _ = db.Target(sink.Spec{})
		h.release = make(chan struct{})
		spec := db.Spec().WithDefaults()
		r, err := sink.NewRunner(b, h, "s", "instance", spec, opts)
		if err != nil {
			t.Fatal(err)
		}
		r.Start()
		defer r.Stop(context.Background())
		f(b, db, r)
	})
}

func publish(t *testing.T, b surgetank.Broker, group string, from, to int) {
	t.Helper()
	var msgs []surgetank.Publishing
	for i := from; i < to; i++ {
		msgs = append(msgs, surgetank.Publishing{Queues: []string{"q"}, Message: surgetank.Message{Group: group, Body: fmt.Appendf(nil, `{"v":%d}`, i)}})
	}
	if _, err := b.Publish(context.Background(), msgs); err != nil {
		t.Fatal(err)
	}
}

func queue(t *testing.T, b surgetank.Broker) surgetank.QueueInfo {
	t.Helper()
	q, err := b.Queue(context.Background(), "q")
	if err != nil {
		t.Fatal(err)
	}
	return q
}

// pass lets time pass in the synctest bubble.
func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func TestWhileTheTargetIsDownNothingIsHandedOut(t *testing.T) {
	var down atomic.Bool
	down.Store(true)
	var probes atomic.Int64
	h := &hooked{open: func() error {
		probes.Add(1)
		if down.Load() {
			return errors.New("connection refused")
		}
		return nil
	}}
	inMemory(t, surgetank.QueueConfig{Retry: surgetank.RetryConfig{MaxAttempts: 1}}, h, sink.Options{}, func(b *embedded.Broker, db *sinktest.Memory, r *sink.Runner) {
		publish(t, b, "", 0, 100)
		pass(time.Minute)
		if q := queue(t, b); q.Delivered != 0 || q.Ready != 100 {
			t.Errorf("handed out %d, ready %d", q.Delivered, q.Ready)
		}
		if st := r.Status(); st.State != sink.StateWaiting || !strings.Contains(st.Error, "connection refused") {
			t.Errorf("status %+v", st)
		}
		if n := probes.Load(); n < 20 || n > 80 {
			t.Errorf("%d probes in a minute", n)
		}
		down.Store(false)
		pass(10 * time.Second)
		if st := r.Status(); st.State != sink.StateRunning || st.Applied != 100 || st.Error != "" {
			t.Errorf("status %+v", st)
		}
		// The queue allows one attempt, and waiting must not use it up.
		if q := queue(t, b); q.DeadLettered != 0 || *door.QueueFloor(&q) != 101 {
			t.Errorf("queue %+v", q)
		}
	})
}

func TestATargetThatGoesDownSpendsNoAttempts(t *testing.T) {
	var fail atomic.Int64
	fail.Store(5)
	h := &hooked{commit: func(context.Context) error {
		if fail.Add(-1) >= 0 {
			return errors.New("server closed the connection")
		}
		return nil
	}}
	inMemory(t, surgetank.QueueConfig{Retry: surgetank.RetryConfig{MaxAttempts: 1}}, h, sink.Options{}, func(b *embedded.Broker, db *sinktest.Memory, r *sink.Runner) {
		publish(t, b, "g", 0, 100)
		pass(time.Minute)
		rows, _ := db.Rows()
		if q := queue(t, b); len(rows) != 100 || q.DeadLettered != 0 {
			t.Errorf("%d rows, %d dead-lettered; the sink: %+v", len(rows), q.DeadLettered, r.Status())
		}
		for i, row := range rows {
			if row.V != int64(i) {
				t.Fatalf("row %d is of message %d", i, row.V)
			}
		}
	})
}

func TestLeasesLastAsLongAsTheCommit(t *testing.T) {
	h := held()
	opts := sink.Options{Lease: 3 * time.Second, CommitTimeout: time.Hour}
	inMemory(t, surgetank.QueueConfig{}, h, opts, func(b *embedded.Broker, db *sinktest.Memory, r *sink.Runner) {
		publish(t, b, "", 0, 50)
		pass(10 * time.Minute)
		if q := queue(t, b); q.LeasesLost != 0 || q.Leased != 30 { // a single lane leases up to three batches of 10 messages
			t.Errorf("%d leases lost, %d leased", q.LeasesLost, q.Leased)
		}
		close(h.release)
		pass(time.Second)
		if rows, _ := db.Rows(); len(rows) != 50 || r.Status().Duplicates != 0 || queue(t, b).Delivered != 50 {
			t.Errorf("%d rows; the sink: %+v", len(rows), r.Status())
		}
	})
}

func TestACommitThatHangsIsGivenUp(t *testing.T) {
	var hang atomic.Bool
	hang.Store(true)
	h := &hooked{commit: func(ctx context.Context) error {
		if hang.Load() {
			<-ctx.Done()
			return ctx.Err()
		}
		return nil
	}}
	inMemory(t, surgetank.QueueConfig{}, h, sink.Options{CommitTimeout: 5 * time.Second}, func(b *embedded.Broker, db *sinktest.Memory, r *sink.Runner) {
		publish(t, b, "", 0, 5)
		pass(5500 * time.Millisecond)
		if st := r.Status(); st.Opens < 2 && st.State != sink.StateWaiting {
			t.Errorf("status %+v", st)
		}
		hang.Store(false)
		pass(20 * time.Second)
		if rows, _ := db.Rows(); len(rows) != 5 {
			t.Errorf("%d rows; the sink: %+v", len(rows), r.Status())
		}
	})
}

func TestStopCutsAHangingCommitOff(t *testing.T) {
	h := &hooked{commit: func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }}
	inMemory(t, surgetank.QueueConfig{}, h, sink.Options{}, func(b *embedded.Broker, _ *sinktest.Memory, r *sink.Runner) {
		publish(t, b, "", 0, 5)
		pass(time.Second)
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		before := time.Now()
		r.Stop(ctx)
		if took := time.Since(before); took != 2*time.Second {
			t.Errorf("stopping took %v", took)
		}
		if q := queue(t, b); q.Ready != 5 || q.Leased != 0 {
			t.Errorf("ready %d, leased %d", q.Ready, q.Leased)
		}
	})
}

func TestBatchesGoWhenFullOrAfterTheirWait(t *testing.T) {
	inMemory(t, surgetank.QueueConfig{}, &hooked{}, sink.Options{}, func(b *embedded.Broker, db *sinktest.Memory, r *sink.Runner) {
		synctest.Wait()
		publish(t, b, "", 0, 10) // the number is batch.max of the suite's spec
		synctest.Wait()
		if rows, _ := db.Rows(); len(rows) != 10 {
			t.Errorf("a full batch waited: %d rows", len(rows))
		}
		publish(t, b, "", 10, 15)
		synctest.Wait()
		if rows, _ := db.Rows(); len(rows) != 10 {
			t.Errorf("a batch that is not full did not wait: %d rows", len(rows))
		}
		pass(time.Millisecond) // the time of batch.wait
		if rows, _ := db.Rows(); len(rows) != 15 {
			t.Errorf("%d rows after the wait", len(rows))
		}
		if st := r.Status(); st.Batches != 2 {
			t.Errorf("%d batches", st.Batches)
		}
	})
}

func TestMemoryIsBoundedByBytes(t *testing.T) {
	h := held()
	inMemory(t, surgetank.QueueConfig{}, h, sink.Options{MaxBytes: 10_000, CommitTimeout: time.Hour}, func(b *embedded.Broker, db *sinktest.Memory, r *sink.Runner) {
		var msgs []surgetank.Publishing
		for i := range 30 {
			body := fmt.Appendf(nil, `{"v":%d,"pad":"%s"}`, i, strings.Repeat("x", 1000))
			msgs = append(msgs, surgetank.Publishing{Queues: []string{"q"}, Message: surgetank.Message{Body: body}})
		}
		if _, err := b.Publish(context.Background(), msgs); err != nil {
			t.Fatal(err)
		}
		pass(time.Minute)
		if held := r.Status().Held; held > 11 {
			t.Errorf("%d messages of 1 kB are held, 10 kB are allowed", held)
		}
		close(h.release)
		pass(time.Minute)
		if rows, _ := db.Rows(); len(rows) != 30 {
			t.Errorf("%d rows", len(rows))
		}
	})
}
