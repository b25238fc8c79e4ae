//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/surgetank/surgetank/test/kit/histogram"
	"github.com/surgetank/surgetank/test/kit/load"
)

// queueNames returns the names of n queues.
func queueNames(n int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("surgetank-bench-%04d", i)
	}
	return names
}

// measurePublish measures confirmed publishing of 1 KiB without a consumer.
func measurePublish(connections, window, queues int) func(context.Context, *options, target, *server) (result, error) {
	return func(ctx context.Context, o *options, t target, s *server) (result, error) {
		names := queueNames(queues)
		begin := time.Now()
		if err := s.declare(names, t.args); err != nil {
			return result{}, err
		}
		declared := time.Since(begin)
		l := &publishers{connections: connections, window: window, queues: names, size: 1024}
		running, err := l.start(ctx, s)
		if err != nil {
			return result{}, err
		}
		if err := load.Pause(running, o.warm); err != nil {
			return result{}, errors.Join(err, l.stop())
		}
		m := newMeter(s)
		l.recording.Store(true)
		failed := load.Pause(running, o.secs)
		l.recording.Store(false)
		r := m.finish(l.confirmed(), &histogram.Histogram{})
		if err := errors.Join(failed, l.stop()); err != nil {
			return result{}, err
		}
		latency := l.latency()
		r.P50, r.P99 = latency.Millis(.5), latency.Millis(.99)
		if queues > 1 {
			r.more(moreDeclare, declared.Seconds())
		}
		return r, nil
	}
}
