package worker

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/surgetank/surgetank"
)

// TestTargetDown: a handler that returns TargetDown opens the queue's breaker. No attempt counts,
// although the queue allows one. The probe succeeds, and then all messages are handled.
func TestTargetDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := open(t, surgetank.QueueConfig{Retry: surgetank.RetryConfig{MaxAttempts: 1}})
		publish(t, b, "0", "1", "2")
		down := true
		var mu sync.Mutex // guards handled and down
		var handled []string
		stop := start(t, b, func(_ context.Context, d *surgetank.Delivery) error {
			mu.Lock()
			defer mu.Unlock()
			if down {
				down = false
				return TargetDown(errors.New("connection refused"))
			}
			if d.Attempt != 1 {
				t.Errorf("message %s: attempt %d", d.Body, d.Attempt)
			}
			handled = append(handled, string(d.Body))
			return nil
		}, Options{Concurrency: 1})
		synctest.Wait()
		i := info(t, b, "q")
		mu.Lock()
		if i.Level == nil || i.Level.Breaker != "open" || i.Level.BreakerCause != "down_reported" || len(handled) != 0 {
			t.Fatalf("level %+v, handled %v", i.Level, handled)
		}
		mu.Unlock()
		<-time.After(time.Minute)
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		if i = info(t, b, "q"); len(handled) != 3 || i.Acked != 3 || i.DeadLettered != 0 {
			t.Errorf("handled %v, acked %d, parked %d", handled, i.Acked, i.DeadLettered)
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
}

// TestTargetBusy: a handler that returns TargetBusy stops an adaptive queue for the time that the
// target asked for. No attempt counts.
func TestTargetBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := open(t, surgetank.QueueConfig{Level: surgetank.LevelConfig{Adaptive: surgetank.AdaptiveConfig{On: true}}, Retry: surgetank.RetryConfig{MaxAttempts: 1}})
		publish(t, b, "0", "1")
		begin := time.Now()
		var mu sync.Mutex // guards at
		var at []time.Duration
		stop := start(t, b, func(_ context.Context, d *surgetank.Delivery) error {
			mu.Lock()
			defer mu.Unlock()
			if at = append(at, time.Since(begin)); len(at) == 1 {
				return TargetBusy(20*time.Second, errors.New("HTTP 429"))
			}
			if d.Attempt != 1 {
				t.Errorf("message %s: attempt %d", d.Body, d.Attempt)
			}
			return nil
		}, Options{Concurrency: 1})
		synctest.Wait()
		mu.Lock()
		if i := info(t, b, "q"); i.Level == nil || i.Level.PausedUntil.IsZero() || len(at) != 1 {
			t.Fatalf("level %+v, handled %d times", i.Level, len(at))
		}
		mu.Unlock()
		<-time.After(time.Minute)
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		if len(at) != 3 || at[1] < 20*time.Second {
			t.Errorf("handled at %v, and the target asked for 20s", at)
		}
		if i := info(t, b, "q"); i.Acked != 2 || i.DeadLettered != 0 {
			t.Errorf("acked %d, parked %d", i.Acked, i.DeadLettered)
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
}
