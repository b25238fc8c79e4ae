package worker

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/embedded"
	"github.com/surgetank/surgetank/internal/shards/shardstest"
)

func open(t *testing.T, config surgetank.QueueConfig) surgetank.Broker {
	t.Helper()
	b, err := embedded.Memory(embedded.Options{Shards: shardstest.N})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	if _, _, err := b.DeclareQueue(t.Context(), "q", config, surgetank.DeclareNew); err != nil {
		t.Fatal(err)
	}
	return b
}

func publish(t *testing.T, b surgetank.Broker, bodies ...string) {
	t.Helper()
	var msgs []surgetank.Publishing
	for _, s := range bodies {
		msgs = append(msgs, surgetank.Publishing{Queues: []string{"q"}, Message: surgetank.Message{Body: []byte(s)}})
	}
	results, err := b.Publish(t.Context(), msgs)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range results {
		if r.Err != nil {
			t.Fatal(r.Err)
		}
	}
}

func info(t *testing.T, b surgetank.Broker, queue string) surgetank.QueueInfo {
	t.Helper()
	i, err := b.Queue(context.Background(), queue)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// start runs a worker. It returns a function that stops the worker and returns the error of Run.
func start(t *testing.T, b surgetank.Broker, h Handler, o Options) (stop func() error) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- Run(ctx, b, "q", h, o) }()
	stop = sync.OnceValue(func() error { cancel(); return <-done })
	t.Cleanup(func() { stop() })
	return stop
}

func TestEachMessageIsHandledAndAcked(t *testing.T) {
	b := open(t, surgetank.QueueConfig{})
	const n = 200
	var mu sync.Mutex
	seen := map[string]int{}
	all := make(chan struct{})
	stop := start(t, b, func(_ context.Context, d *surgetank.Delivery) error {
		mu.Lock()
		defer mu.Unlock()
		if seen[string(d.Body)]++; len(seen) == n {
			close(all)
		}
		return nil
	}, Options{Concurrency: 8})
	for i := range n {
		publish(t, b, fmt.Sprint(i))
	}
	<-all
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if i := info(t, b, "q"); i.Acked != n || i.Ready+i.Leased+i.Delayed+i.Blocked != 0 {
		t.Fatalf("%+v", i)
	}
	for body, times := range seen {
		if times != 1 {
			t.Fatalf("%s was handled %d times", body, times)
		}
	}
}

func TestConcurrencyIsKept(t *testing.T) {
	b := open(t, surgetank.QueueConfig{})
	var now atomic.Int64
	full, goOn := make(chan struct{}), make(chan struct{})
	start(t, b, func(ctx context.Context, _ *surgetank.Delivery) error {
		if now.Add(1) == 3 {
			close(full)
		}
		<-goOn
		now.Add(-1)
		return nil
	}, Options{Concurrency: 3})
	publish(t, b, "1", "2", "3", "4", "5")
	<-full
	if i := info(t, b, "q"); i.Leased != 3 || i.Ready != 2 {
		t.Fatalf("leased %d, ready %d", i.Leased, i.Ready)
	}
	close(goOn)
}

// The error of a handler chooses the settlement of its message.
func TestVerdicts(t *testing.T) {
	boom := errors.New("no such customer")
	for _, tc := range []struct {
		name                         string
		err                          error
		ready, delayed, dead, nacked int64
		attempts                     int
		reason, detail               string
	}{
		{"done", nil, 0, 0, 0, 0, 0, "", ""},
		{"an error waits for the back-off", boom, 0, 1, 0, 1, 0, "", ""},
		{"retry after", RetryAfter(time.Hour, boom), 0, 1, 0, 1, 0, "", ""},
		{"a wrapped retry after", fmt.Errorf("wrapped: %w", RetryAfter(time.Hour, nil)), 0, 1, 0, 1, 0, "", ""},
		{"return", Return(time.Hour, boom), 0, 1, 0, 1, 0, "", ""},
		{"reject", Reject(boom), 0, 0, 1, 0, 1, surgetank.ReasonRejected, "no such customer"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := open(t, surgetank.QueueConfig{Retry: surgetank.RetryConfig{Initial: time.Hour, Max: time.Hour}})
			handled := make(chan struct{}, 10)
			stop := start(t, b, func(context.Context, *surgetank.Delivery) error {
				handled <- struct{}{}
				return tc.err
			}, Options{})
			publish(t, b, "x")
			<-handled
			if err := stop(); err != nil {
				t.Fatal(err)
			}
			if i := info(t, b, "q"); i.Ready != tc.ready || i.Delayed != tc.delayed || int64(i.Nacked) != tc.nacked && tc.dead == 0 {
				t.Fatalf("ready %d, delayed %d, nacked %d", i.Ready, i.Delayed, i.Nacked)
			}
			if tc.dead == 0 {
				return
			}
			list, err := b.Peek(t.Context(), "q.dead", surgetank.PeekOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if d := list[0].Deaths[0]; d.Reason != tc.reason || d.Detail != tc.detail {
				t.Fatalf("%+v", d)
			}
		})
	}
}

// A handler that panics or ends its goroutine has failed. Its message is tried again. After the
// last attempt the message is dead-lettered with the reason. The worker goes on.
func TestHandlersThatFail(t *testing.T) {
	for says, fail := range map[string]func(){
		"panicked: index out of reach": func() { panic("index out of reach") },
		"ended its goroutine":          runtime.Goexit,
	} {
		b := open(t, surgetank.QueueConfig{Retry: surgetank.RetryConfig{MaxAttempts: 2, Initial: -1}})
		good := make(chan struct{})
		stop := start(t, b, func(_ context.Context, d *surgetank.Delivery) error {
			if string(d.Body) == "good" && info(t, b, "q").DeadLettered == 1 {
				close(good)
				return nil
			} else if string(d.Body) == "good" {
				return Return(0, nil)
			}
			fail()
			return nil
		}, Options{})
		publish(t, b, "bad", "good")
		<-good
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		list, err := b.Peek(t.Context(), "q.dead", surgetank.PeekOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if d := list[0].Deaths[0]; d.Reason != surgetank.ReasonAttempts || !strings.Contains(d.Detail, says) || d.Attempts != 2 {
			t.Fatalf("%+v", d)
		}
	}
}

// Invalid arguments return errors.
func TestCareless(t *testing.T) {
	b := open(t, surgetank.QueueConfig{})
	var none context.Context
	h := func(context.Context, *surgetank.Delivery) error { return nil }
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for name, err := range map[string]error{
		"no context":       Run(none, b, "q", h, Options{}),
		"no broker":        Run(t.Context(), nil, "q", h, Options{}),
		"no handler":       Run(t.Context(), b, "q", nil, Options{}),
		"no batch handler": RunBatches(t.Context(), b, "q", nil, Options{}),
		"no queue":         Run(t.Context(), b, "", h, Options{}),
	} {
		if c := surgetank.CodeOf(err); c != surgetank.CodeInvalid && c != surgetank.CodeNotFound {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := Run(ended, b, "q", h, Options{Concurrency: -1, Lease: -1, MaxBatch: -1, MaxBatchBytes: -1, StopTimeout: -1}); err != nil {
		t.Error(err)
	}
}

// shaky is a broker that is unavailable for some calls. Each of these calls returns the next error,
// and subscriptions end with an error.
type shaky struct {
	surgetank.Broker
	mu     sync.Mutex
	errs   []surgetank.Code
	failed map[string]int
}

func (s *shaky) fail(what string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.errs) == 0 {
		return nil
	}
	code := s.errs[0]
	s.errs = s.errs[1:]
	s.failed[what]++
	return surgetank.Errorf(code, "the server is away")
}

func (s *shaky) Subscribe(ctx context.Context, queue string, o surgetank.SubscribeOptions) (surgetank.Subscription, error) {
	if err := s.fail("subscribe"); err != nil {
		return nil, err
	}
	sub, err := s.Broker.Subscribe(ctx, queue, o)
	return &shakySub{sub, s}, err
}

func (s *shaky) Settle(ctx context.Context, list []surgetank.Settlement) ([]surgetank.SettleResult, error) {
	if err := s.fail("settle"); err != nil {
		return nil, err
	}
	return s.Broker.Settle(ctx, list)
}

type shakySub struct {
	surgetank.Subscription
	s *shaky
}

func (s *shakySub) Receive(ctx context.Context, buf []surgetank.Delivery, max, maxBytes int) ([]surgetank.Delivery, error) {
	if err := s.s.fail("receive"); err != nil {
		return buf, err
	}
	return s.Subscription.Receive(ctx, buf, max, maxBytes)
}

// A passing error of any call does not end a worker. A final error does.
func TestPassingErrors(t *testing.T) {
	all := []surgetank.Code{surgetank.CodeInvalid, surgetank.CodeNotFound, surgetank.CodeExists, surgetank.CodeLeaseLost, surgetank.CodeTooLarge, surgetank.CodeBusy,
		surgetank.CodeFull, surgetank.CodeDenied, surgetank.CodeClosed, surgetank.CodeUnavailable, surgetank.CodeUncertain, surgetank.CodeCorrupt, surgetank.CodeInternal}
	for _, code := range all {
		synctest.Test(t, func(t *testing.T) {
			b := open(t, surgetank.QueueConfig{})
			sh := &shaky{Broker: b, failed: map[string]int{}}
			if code.Passing() {
				sh.errs = slices.Repeat([]surgetank.Code{code}, 30)
			} else {
				sh.errs = []surgetank.Code{code}
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			handled := 0
			done := make(chan error, 1)
			go func() {
				done <- Run(ctx, sh, "q", func(context.Context, *surgetank.Delivery) error {
					if handled++; handled == 1 { // the settlement and all later calls fail, too
						sh.mu.Lock()
						sh.errs = slices.Repeat([]surgetank.Code{code}, 10)
						sh.mu.Unlock()
					}
					return nil
				}, Options{})
			}()
			publish(t, b, "1", "2", "3")
			if code.Passing() {
				for info(t, b, "q").Acked < 3 {
					<-time.After(time.Second) // time of the synctest bubble
				}
				cancel()
			}
			err := <-done
			switch {
			case code.Passing() && (err != nil || sh.failed["subscribe"] == 0 || sh.failed["settle"] == 0 || handled < 4):
				t.Errorf("%s: %v, failed %v, handled %d", code, err, sh.failed, handled)
			case !code.Passing() && surgetank.CodeOf(err) != code:
				t.Errorf("%s: %v", code, err)
			}
		})
	}
	if surgetank.Passing(nil) || surgetank.Passing(context.Canceled) || !surgetank.Passing(fmt.Errorf("x: %w", surgetank.ErrBusy)) {
		t.Error("Passing of nil, of the end of a context, or of a wrapped error")
	}
}

// A handler that runs longer than its lease keeps the message: no other consumer gets it.
func TestLeaseIsExtended(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // the clock moves when all goroutines wait
		b := open(t, surgetank.QueueConfig{})
		var calls atomic.Int64
		started, goOn := make(chan struct{}), make(chan struct{})
		stop := start(t, b, func(ctx context.Context, d *surgetank.Delivery) error {
			calls.Add(1)
			close(started)
			<-goOn
			return ctx.Err()
		}, Options{Lease: time.Minute, Concurrency: 2})
		publish(t, b, "x")
		<-started
		<-time.After(time.Hour)
		if i := info(t, b, "q"); i.LeasesLost != 0 || i.Leased != 1 {
			t.Errorf("leases lost %d, leased %d", i.LeasesLost, i.Leased)
		}
		close(goOn)
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		if i := info(t, b, "q"); i.Acked != 1 || calls.Load() != 1 {
			t.Fatalf("acked %d, calls %d", i.Acked, calls.Load())
		}
	})
}

// lossy is a broker whose extensions always fail with CodeLeaseLost.
type lossy struct{ surgetank.Broker }

func (b lossy) Settle(ctx context.Context, s []surgetank.Settlement) ([]surgetank.SettleResult, error) {
	if len(s) > 0 && s[0].Op == surgetank.Extend {
		results := make([]surgetank.SettleResult, len(s))
		for i := range results {
			results[i] = surgetank.Errorf(surgetank.CodeLeaseLost, "the lease has ended")
		}
		return results, nil
	}
	return b.Broker.Settle(ctx, s)
}

func TestHandlerLearnsOfALostLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := lossy{open(t, surgetank.QueueConfig{})}
		cause := make(chan error, 1)
		start(t, b, func(ctx context.Context, _ *surgetank.Delivery) error {
			<-ctx.Done()
			select {
			case cause <- context.Cause(ctx):
			default:
			}
			return Return(time.Hour, ctx.Err())
		}, Options{})
		publish(t, b, "x")
		if err := <-cause; !errors.Is(err, ErrLeaseLost) {
			t.Fatal(err)
		}
	})
}

// A stop finishes running handlers, settles their messages, and returns the other messages
// uncounted.
func TestGracefulStop(t *testing.T) {
	b := open(t, surgetank.QueueConfig{})
	publish(t, b, "1", "2", "3", "4", "5")
	begun, goOn := make(chan struct{}), make(chan struct{})
	var once sync.Once
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- RunBatches(ctx, b, "q", func(ctx context.Context, batch []surgetank.Delivery) error {
			once.Do(func() { close(begun) })
			<-goOn
			return ctx.Err() // ctx must not end while the worker stops within StopTimeout
		}, Options{MaxBatch: 2, Concurrency: 1})
	}()
	<-begun
	cancel()
	close(goOn)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	i := info(t, b, "q")
	if i.Acked != 2 || i.Ready != 3 || i.Leased != 0 {
		t.Fatalf("acked %d, ready %d, leased %d", i.Acked, i.Ready, i.Leased)
	}
	rest, err := b.Receive(t.Context(), "q", surgetank.ReceiveOptions{Max: 5})
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range rest {
		if d.Attempt != 1 {
			t.Fatalf("attempt %d of a message that no handler saw", d.Attempt)
		}
	}
}

func TestStopTimeoutEndsHandlers(t *testing.T) {
	b := open(t, surgetank.QueueConfig{})
	begun := make(chan struct{})
	stop := start(t, b, func(ctx context.Context, _ *surgetank.Delivery) error {
		close(begun)
		<-ctx.Done() // the handler runs until the worker ends its context
		return Return(0, ctx.Err())
	}, Options{StopTimeout: time.Millisecond})
	publish(t, b, "x")
	<-begun
	var cut *CutError
	if err := stop(); !errors.As(err, &cut) || cut.Messages != 1 {
		t.Fatal(err)
	}
	if i := info(t, b, "q"); i.Ready != 1 {
		t.Fatalf("%+v", i)
	}
}

func TestBatches(t *testing.T) {
	b := open(t, surgetank.QueueConfig{Retry: surgetank.RetryConfig{Initial: time.Hour, Max: time.Hour}})
	publish(t, b, "0", "1", "2", "3", "4", "5", "6")
	ctx, cancel := context.WithCancel(t.Context())
	var sizes []int
	err := RunBatches(ctx, b, "q", func(_ context.Context, batch []surgetank.Delivery) error {
		sizes = append(sizes, len(batch))
		total := 0
		for _, n := range sizes {
			total += n
		}
		if total == 7 {
			cancel()
		}
		answers := make(Errors, len(batch))
		for i := range batch {
			if string(batch[i].Body) == "3" {
				answers[i] = Reject(errors.New("three"))
			}
			if string(batch[i].Body) == "5" {
				answers[i] = errors.New("five")
			}
		}
		return fmt.Errorf("some failed: %w", answers)
	}, Options{MaxBatch: 4})
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range sizes {
		if n > 4 {
			t.Fatalf("sizes %v", sizes)
		}
	}
	if i := info(t, b, "q"); i.Acked != 5 || i.Delayed != 1 || i.DeadLettered != 1 {
		t.Fatalf("acked %d, delayed %d, dead %d", i.Acked, i.Delayed, i.DeadLettered)
	}
}

func TestEndsWithTheQueueAndTheBroker(t *testing.T) {
	b := open(t, surgetank.QueueConfig{})
	done := make(chan error, 1)
	run := func() {
		go func() {
			done <- Run(t.Context(), b, "q", func(context.Context, *surgetank.Delivery) error { return nil }, Options{})
		}()
		for info(t, b, "q").Consumers == 0 {
		}
	}
	run()
	if _, err := b.DeleteQueue(t.Context(), "q", surgetank.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := <-done; surgetank.CodeOf(err) != surgetank.CodeNotFound {
		t.Fatal(err)
	}
	if err := Run(t.Context(), b, "q", func(context.Context, *surgetank.Delivery) error { return nil }, Options{}); surgetank.CodeOf(err) != surgetank.CodeNotFound {
		t.Fatal(err)
	}
	if _, _, err := b.DeclareQueue(t.Context(), "q", surgetank.QueueConfig{}, surgetank.DeclareNew); err != nil {
		t.Fatal(err)
	}
	run()
	b.Close()
	if err := <-done; surgetank.CodeOf(err) != surgetank.CodeClosed {
		t.Fatal(err)
	}
}

func TestErrors(t *testing.T) {
	a := errors.New("a")
	e := Errors{nil, a, Reject(nil)}
	if !errors.Is(e, a) || e.Error() != "2 of 3 messages failed, the first: a" || (Errors{nil}).Error() != "no message failed" {
		t.Fatal(e)
	}
	if s := verdict(RetryAfter(-time.Second, nil)); s.Delay != 0 || s.Reason == "" {
		t.Fatalf("%+v", s)
	}
}
