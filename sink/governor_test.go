package sink_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/embedded"
	"github.com/surgetank/surgetank/internal/shards/shardstest"
	"github.com/surgetank/surgetank/sink"
	"github.com/surgetank/surgetank/sink/sinktest"
)

const (
	rigLanes = 8
	plain    = 10_000 // the memory target writes rows with this value and higher ones
)

// slow is a target whose batches take longer the more of them run at the same time.
type slow struct {
	hooked
	mu       sync.Mutex
	capacity int // batches at the same time that take no longer than one
	running  int
	most     int // largest value of running since the last call of peak
	base     time.Duration
	err      error // the result of every commit
	down     atomic.Bool
}

func newSlow(capacity int) *slow {
	s := &slow{capacity: capacity, base: 100 * time.Millisecond}
	s.open = func() error {
		if s.down.Load() {
			return errors.New("connection refused")
		}
		return nil
	}
	s.commit = func(ctx context.Context) error {
		s.mu.Lock()
		s.running++
		s.most = max(s.most, s.running)
		took := s.base * time.Duration(max(s.running, s.capacity)) / time.Duration(s.capacity)
		err := s.err
		s.mu.Unlock()
		defer func() {
			s.mu.Lock()
			s.running--
			s.mu.Unlock()
		}()
		select {
		case <-time.After(took):
		case <-ctx.Done():
			return ctx.Err()
		}
		if s.down.Load() {
			return errors.New("server closed the connection")
		}
		return err
	}
	return s
}

func (s *slow) set(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

// peak returns the largest number of concurrent commits since the last call.
func (s *slow) peak() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.most
	s.most = s.running
	return n
}

// adaptiveSink runs a test with a sink of eight lanes that writes to s.
func adaptiveSink(t *testing.T, level surgetank.LevelConfig, s *slow, f func(b *embedded.Broker, db *sinktest.Memory, r *sink.Runner)) {
	synctest.Test(t, func(t *testing.T) {
		b, err := embedded.Memory(embedded.Options{Shards: shardstest.N})
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		config := surgetank.QueueConfig{Level: level, Retry: surgetank.RetryConfig{MaxAttempts: 1}}
		if _, _, err := b.DeclareQueue(context.Background(), "q", config, surgetank.DeclareNew); err != nil {
			t.Fatal(err)
		}
		db := sinktest.NewMemory(1)
		s.Target, _ = db.Target(sink.Spec{})
		spec := db.Spec()
		spec.Lanes = rigLanes
		r, err := sink.NewRunner(b, s, "s", "instance", spec.WithDefaults(), sink.Options{})
		if err != nil {
			t.Fatal(err)
		}
		r.Start()
		defer r.Stop(context.Background())
		f(b, db, r)
	})
}

func adaptive(a surgetank.AdaptiveConfig) surgetank.LevelConfig {
	a.On = true
	return surgetank.LevelConfig{Adaptive: a}
}

// configure changes the level of the queue.
func configure(t *testing.T, b *embedded.Broker, level surgetank.LevelConfig) {
	t.Helper()
	config := queue(t, b).Config
	config.Level = level
	if _, _, err := b.DeclareQueue(context.Background(), "q", config, surgetank.DeclareUpdate); err != nil {
		t.Fatal(err)
	}
	synctest.Wait()
}

// complete checks that every message is in the table once, with one attempt, and none was parked.
func complete(t *testing.T, b *embedded.Broker, db *sinktest.Memory, n int) {
	t.Helper()
	rows, _ := db.Rows()
	seen := map[int64]bool{}
	for _, row := range rows {
		seen[row.V] = true
	}
	if q := queue(t, b); len(rows) != n || len(seen) != n || q.DeadLettered != 0 || q.Dropped != 0 || q.LeasesLost != 0 {
		t.Errorf("%d rows of %d messages, want %d; the queue: %+v", len(rows), len(seen), n, q)
	}
}

func level(t *testing.T, r *sink.Runner) sink.Level {
	t.Helper()
	l := r.Status().Level
	if l == nil {
		t.Fatal("the sink has no adaptive limit")
	}
	return *l
}

func TestAFastTargetGetsMoreLanes(t *testing.T) {
	s := newSlow(rigLanes)
	adaptiveSink(t, adaptive(surgetank.AdaptiveConfig{}), s, func(b *embedded.Broker, db *sinktest.Memory, r *sink.Runner) {
		publish(t, b, "", plain, plain+20_000)
		pass(100 * time.Millisecond)
		if l := level(t, r); l.Limit != 1 || s.peak() != 1 {
			t.Errorf("the sink does not begin low: %+v", l)
		}
		pass(9 * time.Second)
		s.peak()
		pass(5 * time.Second)
		l := level(t, r)
		if l.Limit != rigLanes || s.peak() != rigLanes {
			t.Errorf("a target that is fast enough for all lanes gets %+v", l)
		}
		if len(l.History) < 3 || l.History[len(l.History)-1].Reason != "started" || l.History[0].To != rigLanes || l.Reason != l.History[0].Reason {
			t.Errorf("history %+v", l.History)
		}
		pass(2 * time.Minute)
		complete(t, b, db, 20_000)
		if l := level(t, r); l.Limit != 1 || l.Reason != "idle" {
			t.Errorf("after an idle minute: %+v", l)
		}
	})
}

func TestASlowTargetGetsFewerLanes(t *testing.T) {
	s := newSlow(rigLanes)
	adaptiveSink(t, adaptive(surgetank.AdaptiveConfig{}), s, func(b *embedded.Broker, db *sinktest.Memory, r *sink.Runner) {
		publish(t, b, "", plain, plain+20_000)
		pass(9 * time.Second)
		s.set(func() { s.capacity = 2 }) // eight batches now take four times as long as one
		pass(30 * time.Second)
		s.peak()
		pass(5 * time.Second)
		if l := level(t, r); l.Limit < 2 || l.Limit > 4 || s.peak() > l.Limit+1 {
			t.Errorf("at 1.5 times the latency, three lanes may write; the sink has %+v", l)
		}
		pass(10 * time.Minute)
		complete(t, b, db, 20_000)
	})
}

// A batch is often smaller than batch.max, because level.max_in_flight or bytes limit it. The limit
// must then still be found.
func TestBatchesThatAreNeverFullAreMeasured(t *testing.T) {
	s := newSlow(rigLanes)
	config := adaptive(surgetank.AdaptiveConfig{})
	config.MaxInFlight = rigLanes * 4 // 40 % of each lane's batch
	adaptiveSink(t, config, s, func(b *embedded.Broker, db *sinktest.Memory, r *sink.Runner) {
		const groups, each = 64, 100
		for i := range each { // the groups take turns, so every lane has messages
			for g := range groups {
				publish(t, b, fmt.Sprint("g", g), plain+i*groups+g, plain+i*groups+g+1)
			}
		}
		pass(20 * time.Second)
		if l := level(t, r); l.Limit < 3 {
			t.Errorf("the limit of a fast target stays at %+v", l)
		}
		pass(10 * time.Minute)
		complete(t, b, db, groups*each)
	})
}

func TestATargetThatIsDownOpensTheBreaker(t *testing.T) {
	s := newSlow(rigLanes)
	adaptiveSink(t, adaptive(surgetank.AdaptiveConfig{}), s, func(b *embedded.Broker, db *sinktest.Memory, r *sink.Runner) {
		publish(t, b, "", plain, plain+20_000)
		pass(9 * time.Second)
		s.down.Store(true)
		pass(20 * time.Second)
		q := queue(t, b)
		if q.Level == nil || q.Level.Breaker != "open" && q.Level.Breaker != "probing" || q.Leased != 0 || q.Level.BreakerCause != "down_reported" && q.Level.BreakerCause != "probe_failed" {
			t.Fatalf("the breaker is not open: %+v %+v", q, q.Level)
		}
		if l := level(t, r); l.Limit != 1 || l.Reason != "target_down" && l.Reason != "breaker_open" {
			t.Errorf("while the target is down: %+v", l)
		}
		rows, _ := db.Rows()
		before := len(rows)
		s.peak()
		s.set(func() { s.base = 500 * time.Millisecond })
		s.down.Store(false)
		pass(2300 * time.Millisecond) // the sink tests the target every two seconds
		rows, _ = db.Rows()
		if n, q := len(rows)-before, queue(t, b); n > 31 || q.Level.Probes != 1 || s.peak() != 1 {
			t.Errorf("after the return %d rows were written, by %d probes", n, q.Level.Probes)
		}
		pass(10 * time.Minute)
		if q := queue(t, b); q.Level.Breaker != "closed" || q.Level.Openings != 1 {
			t.Errorf("the breaker: %+v", q.Level)
		}
		if l := level(t, r); l.Limit < 4 && l.Reason != "idle" {
			t.Errorf("the load does not grow again: %+v", l)
		}
		complete(t, b, db, 20_000)
	})
}

func TestSettingsOfTheLimitChangeWhileRunning(t *testing.T) {
	s := newSlow(rigLanes)
	adaptiveSink(t, surgetank.LevelConfig{}, s, func(b *embedded.Broker, db *sinktest.Memory, r *sink.Runner) {
		publish(t, b, "", plain, plain+30_000)
		pass(time.Second)
		if r.Status().Level != nil || s.peak() != rigLanes {
			t.Fatalf("without level.adaptive all lanes write: %+v", r.Status().Level)
		}
		configure(t, b, adaptive(surgetank.AdaptiveConfig{}))
		pass(100 * time.Millisecond)
		s.peak()
		pass(50 * time.Millisecond)
		if l := level(t, r); l.Limit > 2 || s.peak() > 2 {
			t.Errorf("adaptive was turned on: %+v", l)
		}
		configure(t, b, adaptive(surgetank.AdaptiveConfig{Min: 2, Max: 3}))
		pass(5 * time.Second)
		s.peak()
		pass(2 * time.Second)
		if l := level(t, r); l.Limit != 3 || s.peak() != 3 {
			t.Errorf("max is 3: %+v", l)
		}
		// The target asks for a long pause. The lanes must notice at once that adaptive was turned
		// off.
		s.set(func() { s.err = &sink.Error{Class: sink.Retry, Row: -1, Reason: "slow down", Busy: true} })
		pass(time.Second)
		if l := level(t, r); l.Limit != 2 {
			t.Errorf("a busy target: %+v", l)
		}
		s.set(func() { s.err = nil })
		configure(t, b, surgetank.LevelConfig{})
		s.peak()
		pass(time.Second)
		if r.Status().Level != nil || s.peak() != rigLanes {
			t.Errorf("adaptive was turned off: %+v", r.Status().Level)
		}
		pass(5 * time.Minute)
		complete(t, b, db, 30_000)
	})
}

func TestAPauseThatTheTargetAskedFor(t *testing.T) {
	s := newSlow(rigLanes)
	adaptiveSink(t, adaptive(surgetank.AdaptiveConfig{}), s, func(b *embedded.Broker, db *sinktest.Memory, r *sink.Runner) {
		publish(t, b, "", plain, plain+20_000)
		pass(9 * time.Second)
		s.set(func() {
			s.err = &sink.Error{Class: sink.Retry, Row: -1, Reason: "HTTP 429", RetryAfter: 30 * time.Second}
		})
		pass(time.Second)
		l := level(t, r)
		if l.InForce != 0 || l.PausedUntil.IsZero() || l.Reason != "throttled" {
			t.Errorf("the target asked for a pause: %+v", l)
		}
		rows, _ := db.Rows()
		before := len(rows)
		s.set(func() { s.err = nil })
		s.peak()
		pass(28 * time.Second)
		if rows, _ := db.Rows(); len(rows) != before || s.peak() != 0 {
			t.Errorf("%d rows were written in the pause", len(rows)-before)
		}
		pass(2 * time.Minute)
		complete(t, b, db, 20_000)
		if st := r.Status(); st.Opens != 1 {
			t.Errorf("the target was opened %d times, want once", st.Opens)
		}
	})
}

func TestAfterAPauseTheSinkBeginsLow(t *testing.T) {
	s := newSlow(rigLanes)
	adaptiveSink(t, adaptive(surgetank.AdaptiveConfig{}), s, func(b *embedded.Broker, db *sinktest.Memory, r *sink.Runner) {
		publish(t, b, "", plain, plain+20_000)
		pass(9 * time.Second)
		if l := level(t, r); l.Limit != rigLanes {
			t.Fatalf("before the pause: %+v", l)
		}
		if err := b.PauseQueue(context.Background(), "q", 0); err != nil {
			t.Fatal(err)
		}
		pass(5 * time.Second)
		if err := b.ResumeQueue(context.Background(), "q"); err != nil {
			t.Fatal(err)
		}
		s.peak()
		pass(100 * time.Millisecond)
		if l := level(t, r); l.Limit != 1 || l.Reason != "resumed" || s.peak() != 1 {
			t.Errorf("after the pause: %+v", l)
		}
		pass(2 * time.Minute)
		complete(t, b, db, 20_000)
	})
}

// A consumer without a limit of its own joins. Then the limit of the queue applies to it.
func TestTheLimitOfTheQueueAppliesToOtherConsumers(t *testing.T) {
	s := newSlow(rigLanes)
	adaptiveSink(t, adaptive(surgetank.AdaptiveConfig{}), s, func(b *embedded.Broker, db *sinktest.Memory, r *sink.Runner) {
		synctest.Wait()
		publish(t, b, "", plain, plain+1000)
		pass(20 * time.Millisecond)
		if q := queue(t, b); q.Level.Limit != 0 || q.Leased < 100 {
			t.Errorf("only a sink reads the queue: %+v leased %d", q.Level, q.Leased)
		}
		pass(time.Minute)
		sub, err := b.Subscribe(context.Background(), "q", surgetank.SubscribeOptions{Credit: 100})
		if err != nil {
			t.Fatal(err)
		}
		defer sub.Close()
		publish(t, b, "", plain+1000, plain+1100)
		pass(5 * time.Millisecond)
		if q := queue(t, b); q.Level.Limit != 1 || q.Level.InFlight != 1 {
			t.Errorf("another consumer has joined: %+v", q.Level)
		}
	})
}

// Stop does not wait for a pause that the target asked for.
func TestStopInAPauseOfTheTarget(t *testing.T) {
	s := newSlow(rigLanes)
	adaptiveSink(t, adaptive(surgetank.AdaptiveConfig{}), s, func(b *embedded.Broker, _ *sinktest.Memory, r *sink.Runner) {
		s.set(func() { s.err = &sink.Error{Class: sink.Retry, Row: -1, Reason: "HTTP 429", RetryAfter: time.Hour} })
		publish(t, b, "", plain, plain+1000)
		pass(time.Second)
		before := time.Now()
		if err := r.Stop(context.Background()); err != nil {
			t.Error(err)
		}
		if took := time.Since(before); took > time.Second {
			t.Errorf("stopping took %v", took)
		}
		if q := queue(t, b); q.Ready != 1000 || q.Leased != 0 {
			t.Errorf("ready %d, leased %d", q.Ready, q.Leased)
		}
	})
}
