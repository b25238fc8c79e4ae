//go:build linux

package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/surgetank/surgetank/test/kit/histogram"
	"github.com/surgetank/surgetank/test/kit/load"
)

// receivers are consumers of one queue that measure latencies.
type receivers struct {
	recording atomic.Bool
	each      []*receiver
}

type receiver struct {
	consumer *consumer
	count    atomic.Int64
	last     atomic.Int64        // time at which the newest message was received, nanoseconds since 1970
	latency  histogram.Histogram // latency from the time in the body, for messages received while recording
}

// startReceivers starts n consumers. If seen is not nil, the consumers' goroutines call it with the
// id of every message.
func startReceivers(s *server, queue string, n, prefetch int, seen func(id uint64)) (*receivers, error) {
	rs := &receivers{}
	for range n {
		r := &receiver{}
		c, err := s.consume(queue, prefetch, func(body []byte) {
			now := time.Now().UnixNano()
			if rs.recording.Load() {
				r.latency.Add(time.Duration(now - int64(binary.LittleEndian.Uint64(body[bodyTime:]))))
			}
			if seen != nil {
				seen(binary.LittleEndian.Uint64(body[bodyID:]))
			}
			r.count.Add(1)
			r.last.Store(now)
		})
		if err != nil {
			return nil, errors.Join(err, rs.close())
		}
		r.consumer = c
		rs.each = append(rs.each, r)
	}
	return rs, nil
}

func (rs *receivers) count() (n int64) {
	for _, r := range rs.each {
		n += r.count.Load()
	}
	return n
}

// last returns the time at which the newest message was received.
func (rs *receivers) last() time.Time {
	var at int64
	for _, r := range rs.each {
		at = max(at, r.last.Load())
	}
	return time.Unix(0, at)
}

// await waits until n messages have been received in total. It returns an error if no message was
// received for the time idle.
func (rs *receivers) await(ctx context.Context, n int64, idle time.Duration) error {
	begin := time.Now()
	for rs.count() < n {
		if since := time.Since(rs.last()); since > idle && time.Since(begin) > idle {
			return fmt.Errorf("%d of %d messages have not come, and none for %v", n-rs.count(), n, idle)
		}
		for i, r := range rs.each {
			select {
			case <-r.consumer.ended:
				return fmt.Errorf("consumer %d ended: %w", i, errors.Join(r.consumer.err, errConnectionLost))
			default:
			}
		}
		if err := load.Pause(ctx, pollEvery); err != nil {
			return err
		}
	}
	return nil
}

// close ends the consumers. Read the latencies only afterwards.
func (rs *receivers) close() error {
	var errs []error
	for _, r := range rs.each {
		errs = append(errs, r.consumer.close())
		<-r.consumer.ended
	}
	return errors.Join(errs...)
}

func (rs *receivers) allLatency() *histogram.Histogram {
	var all histogram.Histogram
	for _, r := range rs.each {
		all.Merge(&r.latency)
	}
	return &all
}

const idleLimit = 30 * time.Second // longest time without a message while messages are missing

// measureEndToEnd runs 4 publishers and 4 consumers of one queue. Each message is acked separately.
// At full speed (perSecond 0) the rate counts all messages from the start of the measurement until
// the queue is empty. So a server that builds up a backlog has a lower rate.
func measureEndToEnd(perSecond int) func(context.Context, *options, target, *server) (result, error) {
	return func(ctx context.Context, o *options, t target, s *server) (result, error) {
		names := queueNames(1)
		if err := s.declare(names, t.args); err != nil {
			return result{}, err
		}
		rs, err := startReceivers(s, names[0], 4, 500, nil)
		if err != nil {
			return result{}, err
		}
		l := &publishers{connections: 4, window: 1000, queues: names, size: 1024, perSecond: perSecond}
		running, err := l.start(ctx, s)
		if err != nil {
			return result{}, errors.Join(err, rs.close())
		}
		if err := load.Pause(running, o.warm); err != nil {
			return result{}, errors.Join(err, l.stop(), rs.close())
		}
		m, before := newMeter(s), rs.count()
		l.recording.Store(true)
		rs.recording.Store(true)
		failed := load.Pause(running, o.secs)
		l.recording.Store(false)
		rs.recording.Store(false)
		published, received := l.confirmed(), rs.count()
		r := m.finish(received-before, &histogram.Histogram{})
		if err := errors.Join(failed, l.stop()); err != nil {
			return result{}, errors.Join(err, rs.close())
		}
		backlog := l.sent() - rs.count()
		missing := rs.await(ctx, l.sent(), idleLimit)
		if perSecond == 0 {
			window := r.Seconds
			r = m.finish(rs.count()-before, &histogram.Histogram{})
			r.more(morePublished, float64(published)/window)
			r.more(moreBacklog, float64(backlog))
		}
		err = errors.Join(missing, rs.close())
		latency := rs.allLatency()
		r.P50, r.P99 = latency.Millis(.5), latency.Millis(.99)
		return r, err
	}
}
