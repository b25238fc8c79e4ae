//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/surgetank/surgetank/test/kit/histogram"
	"github.com/surgetank/surgetank/test/kit/load"
	"github.com/surgetank/surgetank/test/kit/proc"
)

const backlogPublishers = 4

// measureBacklog publishes messages of 256 bytes without a consumer. It restarts the server after a
// kill -9 and after a clean stop, and measures each time from the start of the process to the first
// received message. Then 4 consumers receive all messages, and the program checks that each message
// was received once. An external server is not restarted.
func measureBacklog(ctx context.Context, o *options, t target, s *server) (result, error) {
	names := queueNames(1)
	if err := s.declare(names, t.args); err != nil {
		return result{}, err
	}
	each := max(1, o.backlog/backlogPublishers)
	count := int64(each * backlogPublishers)
	l := &publishers{connections: backlogPublishers, window: 1000, queues: names, size: 256, each: uint64(each)}
	l.recording.Store(true)
	m := newMeter(s)
	running, err := l.start(ctx, s)
	if err != nil {
		return result{}, err
	}
	stopWatching := context.AfterFunc(running, func() { l.once.Do(func() { close(l.halt) }) })
	l.working.Wait()
	failed := context.Cause(running)
	stopWatching()
	if err := errors.Join(failed, l.wait()); err != nil {
		return result{}, err
	}
	r := m.finish(l.confirmed(), l.latency())
	r.more(moreCount, float64(count))
	if err := load.Pause(ctx, 2*time.Second); err != nil { // background writing ends meanwhile
		return result{}, err
	}
	if pid := s.pid(); pid != 0 {
		r.more(moreAfterMB, float64(s.memory(pid))/1e6)
	}
	if !s.external() {
		r.more(moreDiskMB, float64(proc.Disk(s.dir))/1e6)
		// The kill is first, because after a clean stop there would be little to recover.
		for _, kill := range []bool{true, false} {
			if err := restart(ctx, s, names[0], kill, &r); err != nil {
				return result{}, err
			}
		}
	}
	err = drain(ctx, s, names[0], each, &r)
	return r, err
}

// restart stops and starts the server, and records the time from the start to the first delivery.
func restart(ctx context.Context, s *server, queue string, kill bool, r *result) error {
	figure := moreClean
	if kill {
		figure = moreKilled
	}
	stopping := time.Now()
	if err := s.stop(kill); err != nil {
		return err
	}
	if !kill {
		r.more(moreStop, time.Since(stopping).Seconds())
	}
	starting := time.Now()
	if err := s.start(); err != nil {
		return err
	}
	if err := awaitMessage(ctx, s, queue); err != nil {
		return err
	}
	r.more(figure, time.Since(starting).Seconds())
	return nil
}

// awaitMessage waits until a starting server delivers a message. The message is not acked, so it
// returns to the queue.
func awaitMessage(ctx context.Context, s *server, queue string) error {
	var last error
	for end := time.Now().Add(startLimit); time.Now().Before(end); {
		if last = oneMessage(s, queue); last == nil {
			return nil
		}
		select {
		case <-s.exited:
			return fmt.Errorf("the server ended while it recovered; its last output:\n%s", s.tail())
		default:
		}
		if err := load.Pause(ctx, pollEvery); err != nil {
			return err
		}
	}
	return fmt.Errorf("no message within %v of the start: %w", startLimit, last)
}

func oneMessage(s *server, queue string) error {
	conn, ch, err := s.open()
	if err != nil {
		return err
	}
	defer conn.Close() // returns the unacked message
	if err := ch.Qos(1, 0, false); err != nil {
		return err
	}
	deliveries, err := ch.Consume(queue, "", false, false, false, false, amqp.Table{})
	if err != nil {
		return err
	}
	select {
	case _, ok := <-deliveries:
		if !ok {
			return errConnectionLost
		}
		return nil
	case <-time.After(startLimit):
		return errors.New("a consumer was accepted and got nothing")
	}
}

// drain receives all messages, and counts lost and duplicate messages.
func drain(ctx context.Context, s *server, queue string, each int, r *result) error {
	seen := make([]atomic.Uint64, backlogPublishers*each/64+1)
	var duplicates, strangers atomic.Int64
	m := newMeter(s)
	rs, err := startReceivers(s, queue, 4, 500, func(id uint64) {
		publisher, n := int(id>>32), int(id&(1<<32-1))
		if publisher >= backlogPublishers || n >= each {
			strangers.Add(1)
			return
		}
		i := publisher*each + n
		if bit := uint64(1) << (i % 64); seen[i/64].Or(bit)&bit != 0 {
			duplicates.Add(1)
		}
	})
	if err != nil {
		return err
	}
	count := int64(backlogPublishers * each)
	missing := rs.await(ctx, count, idleLimit)
	took := rs.last().Sub(m.start).Seconds()
	got := m.finish(rs.count(), &histogram.Histogram{})
	err = errors.Join(missing, rs.close())
	if took > 0 {
		r.more(moreDrain, float64(rs.count())/took)
	}
	r.more(moreDrainCPU, got.ServerCPU)
	r.more(moreDuplicates, float64(duplicates.Load()))
	r.more(moreLost, float64(count-(rs.count()-duplicates.Load()-strangers.Load())))
	if n := strangers.Load(); n > 0 {
		err = errors.Join(err, fmt.Errorf("%d messages came that nobody published", n))
	}
	return err
}
