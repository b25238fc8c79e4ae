//go:build linux

package main

import (
	"context"
	"slices"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/surgetank/surgetank/test/kit/client"
	"github.com/surgetank/surgetank/test/kit/histogram"
)

// worker is a normal client that works while other clients misbehave: it publishes 1 KiB with a
// confirm, again and again.
type worker struct {
	*client.AMQP
}

const workQueue = "work"

func newWorker(ctx context.Context, c *caseRun) (*worker, error) {
	web := newWeb(c.p)
	defer web.Close()
	if err := web.Declare(ctx, workQueue, `{"max_messages":1000,"overflow":"drop_oldest"}`); err != nil {
		return nil, err
	}
	k, err := client.Dial(c.p.AMQP(), client.Options{}, true)
	if err != nil {
		return nil, err
	}
	c.atEnd(k.Close)
	return &worker{k}, nil
}

// p99 measures in seven periods of 1.5 s and returns the median of their p99, so that a single
// disturbance affects only one period.
func (w *worker) p99(ctx context.Context) time.Duration {
	body := []byte(strings.Repeat("w", 1024))
	var windows []time.Duration
	for range 7 {
		h := &histogram.Histogram{}
		for end := time.Now().Add(1500 * time.Millisecond); time.Now().Before(end); {
			began := time.Now()
			d, err := w.Ch.PublishWithDeferredConfirmWithContext(ctx, "", workQueue, false, false, amqp.Publishing{Body: body, DeliveryMode: amqp.Persistent})
			if err != nil {
				return time.Hour
			}
			if ok, err := d.WaitContext(ctx); err != nil || !ok {
				return time.Hour
			}
			h.Add(time.Since(began))
			time.Sleep(2 * time.Millisecond) // a client that has other work between its publishes
		}
		windows = append(windows, h.Quantile(0.99))
	}
	slices.Sort(windows)
	return windows[len(windows)/2]
}
