//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/surgetank/surgetank/test/kit/histogram"
)

// publishers are the publishers of a measurement. Do not change its fields after start.
type publishers struct {
	connections int
	window      int
	queues      []string
	size        int    // bytes of a body
	perSecond   int    // total rate of all publishers; 0: as fast as they can
	each        uint64 // number of messages of each publisher; 0: until stop

	recording atomic.Bool
	list      []*publisher
	working   sync.WaitGroup
	halt      chan struct{}
	once      sync.Once
	fail      context.CancelCauseFunc
}

// confirmLimit is the longest wait for the last confirms after publishing ended.
const confirmLimit = time.Minute

// start opens the connections and begins to publish. The returned context ends when a publisher
// fails, with the reason as its cause.
func (l *publishers) start(ctx context.Context, s *server) (context.Context, error) {
	ctx, l.fail = context.WithCancelCause(ctx)
	l.halt = make(chan struct{})
	for range l.connections {
		p, err := s.newPublisher(l.window, &l.recording)
		if err != nil {
			return ctx, errors.Join(err, l.stop())
		}
		l.list = append(l.list, p)
	}
	begin := time.Now()
	for i, p := range l.list {
		l.working.Go(func() {
			if err := l.publish(i, p, begin); err != nil {
				l.fail(fmt.Errorf("publisher %d: %w", i, err))
			}
		})
	}
	return ctx, nil
}

// publish sends the messages of publisher i. Each publisher begins with a different queue and, if
// the rate is limited, at a different time.
func (l *publishers) publish(i int, p *publisher, begin time.Time) error {
	body := newBody(l.size)
	queue := i * len(l.queues) / l.connections
	var gap time.Duration
	if l.perSecond > 0 {
		gap = time.Second * time.Duration(l.connections) / time.Duration(l.perSecond)
		begin = begin.Add(gap * time.Duration(i) / time.Duration(l.connections))
	}
	for n := uint64(0); l.each == 0 || n < l.each; n++ {
		select {
		case <-l.halt:
			return nil
		default:
		}
		var due time.Time
		if gap > 0 {
			due = begin.Add(gap * time.Duration(n))
			sleepUntil(due)
		}
		if err := p.publish(l.queues[queue], body, messageID(i, n), due, l.halt); err != nil {
			return err
		}
		if queue++; queue == len(l.queues) {
			queue = 0
		}
	}
	return nil
}

// sleepUntil sleeps in the kernel, which wakes a thread about 60 µs late. The runtime's own timers
// are up to 1 ms late in an idle process, and that would count as the server's latency.
func sleepUntil(due time.Time) {
	for left := time.Until(due); left > 0; left = time.Until(due) {
		request := unix.NsecToTimespec(int64(left))
		_ = unix.Nanosleep(&request, nil) // after an interruption, the loop sleeps the rest
	}
}

// stop ends publishing, waits for unconfirmed messages and closes the connections.
func (l *publishers) stop() error {
	l.once.Do(func() { close(l.halt) })
	return l.wait()
}

// wait waits until every publisher has sent its messages and all are confirmed, and closes the
// connections.
func (l *publishers) wait() error {
	l.working.Wait()
	defer l.fail(nil)
	errs := make([]error, len(l.list))
	var closing sync.WaitGroup
	for i, p := range l.list {
		closing.Go(func() { errs[i] = p.close(confirmLimit) })
	}
	closing.Wait()
	for i, p := range l.list {
		if n := p.refused.Load(); n > 0 {
			errs = append(errs, fmt.Errorf("publisher %d: the server refused (basic.nack) %d messages", i, n))
		}
	}
	return errors.Join(errs...)
}

// confirmed returns the number of confirms received while recording. sent returns the number of all
// sent messages; call it after stop or wait.
func (l *publishers) confirmed() (n int64) {
	for _, p := range l.list {
		n += p.confirmed.Load()
	}
	return n
}

func (l *publishers) sent() (n int64) {
	for _, p := range l.list {
		n += int64(p.tag)
	}
	return n
}

// latency returns the recorded times from publish to confirm. Call it after stop or wait.
func (l *publishers) latency() *histogram.Histogram {
	var all histogram.Histogram
	for _, p := range l.list {
		all.Merge(&p.latency)
	}
	return &all
}
