package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/surgetank/surgetank"
)

type benchCmd struct {
	Messages   int  `short:"n" default:"100000" help:"Messages to publish. Default ${default}."`
	Size       int  `default:"1024" help:"Bytes of a body. Default ${default}."`
	Publishers int  `default:"8" help:"Publishers at a time, each with one batch in flight. Default ${default}."`
	Batch      int  `default:"100" help:"Messages in a batch. Default ${default}."`
	Consumers  int  `default:"4" help:"Consumers that receive and ack at the same time; 0: only publish. Default ${default}."`
	Keep       bool `help:"Leave the queue behind."`
	remote
	output
}

// benchShape is the JSON output of bench.
type benchShape struct {
	Messages          int64   `json:"messages"`
	Size              int     `json:"size"`
	ConfirmedPerSec   float64 `json:"confirmed_per_second"`
	BatchConfirmP50MS float64 `json:"batch_confirm_p50_ms"`
	BatchConfirmP99MS float64 `json:"batch_confirm_p99_ms"`
	AckedPerSec       float64 `json:"acked_per_second,omitempty"`
}

// Run measures a server from outside through package client, so the results include HTTP and this
// process.
func (c *benchCmd) Run(s *session) error {
	if c.Messages < 1 || c.Size < 0 || c.Size > surgetank.DefaultMaxMessage || c.Publishers < 1 || c.Batch < 1 || c.Consumers < 0 {
		return &failure{exitUsage, fmt.Errorf("counts must be positive and --size at most %d", surgetank.DefaultMaxMessage)}
	}
	return c.with(func(b surgetank.Broker) (err error) {
		queue := "bench-" + strings.ToLower(rand.Text()[:8])
		if _, _, err := b.DeclareQueue(s.ctx, queue, surgetank.QueueConfig{}, surgetank.DeclareNew); err != nil {
			return err
		}
		if !c.Keep {
			defer func() {
				ctx, cancel := context.WithTimeout(context.WithoutCancel(s.ctx), time.Minute)
				defer cancel()
				if _, derr := b.DeleteQueue(ctx, queue, surgetank.DeleteOptions{}); err == nil {
					err = derr
				}
			}()
		}
		r := &benchRun{benchCmd: c, broker: b, queue: queue}
		p := startProgress(s.stderr, func() string {
			return fmt.Sprintf("%s published, %s acked", count(r.published.Load()), count(r.acked.Load()))
		})
		shape, err := r.run(s.ctx)
		p.finish()
		if err != nil {
			return err
		}
		return c.print(s.stdout, shape, func(w io.Writer) error {
			_, err := fmt.Fprintf(w, "%s messages of %d bytes, %d publishers, batches of %d\npublished and confirmed  %s/s   a batch's confirm p50 %.1f ms, p99 %.1f ms\n",
				count(shape.Messages), shape.Size, c.Publishers, c.Batch, count(int64(shape.ConfirmedPerSec)), shape.BatchConfirmP50MS, shape.BatchConfirmP99MS)
			if err == nil && c.Consumers > 0 {
				_, err = fmt.Fprintf(w, "received and acked       %s/s\n", count(int64(shape.AckedPerSec)))
			}
			return err
		})
	})
}

type benchRun struct {
	*benchCmd
	broker           surgetank.Broker
	queue            string
	published, acked atomic.Int64

	mu    sync.Mutex
	took  []time.Duration
	first error
}

func (r *benchRun) fail(err error, cancel context.CancelFunc) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.first == nil {
		r.first = err
	}
	cancel()
}

func (r *benchRun) run(ctx context.Context) (benchShape, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	start := time.Now()
	var publishers, consumers sync.WaitGroup
	var next atomic.Int64
	body := []byte(strings.Repeat("x", r.Size))
	for range r.Publishers {
		publishers.Go(func() {
			for ctx.Err() == nil {
				n := min(int64(r.Batch), int64(r.Messages)-next.Add(int64(r.Batch))+int64(r.Batch))
				if n <= 0 {
					return
				}
				if err := r.publish(ctx, int(n), body); err != nil {
					r.fail(err, cancel)
				}
			}
		})
	}
	for range r.Consumers {
		consumers.Go(func() {
			for ctx.Err() == nil && r.acked.Load() < int64(r.Messages) {
				if err := r.consume(ctx); err != nil {
					r.fail(err, cancel)
				}
			}
		})
	}
	publishers.Wait()
	publishing := time.Since(start)
	consumers.Wait()
	all := time.Since(start)
	if r.first != nil {
		return benchShape{}, r.first
	}
	if err := ctx.Err(); err != nil {
		return benchShape{}, err
	}
	slices.Sort(r.took)
	at := func(q float64) float64 { return r.took[int(q*float64(len(r.took)-1))].Seconds() * 1000 }
	shape := benchShape{Messages: r.published.Load(), Size: r.Size, ConfirmedPerSec: float64(r.Messages) / publishing.Seconds(),
		BatchConfirmP50MS: at(0.5), BatchConfirmP99MS: at(0.99)}
	if r.Consumers > 0 {
		shape.AckedPerSec = float64(r.Messages) / all.Seconds()
	}
	return shape, nil
}

func (r *benchRun) publish(ctx context.Context, n int, body []byte) error {
	msgs := make([]surgetank.Publishing, n)
	for i := range msgs {
		msgs[i] = surgetank.Publishing{Queues: []string{r.queue}, Message: surgetank.Message{Body: body}}
	}
	began := time.Now()
	results, err := r.broker.Publish(ctx, msgs)
	if err != nil {
		return err
	}
	took := time.Since(began)
	for _, res := range results {
		if res.Err != nil {
			return res.Err
		}
	}
	r.published.Add(int64(n))
	r.mu.Lock()
	r.took = append(r.took, took)
	r.mu.Unlock()
	return nil
}

func (r *benchRun) consume(ctx context.Context) error {
	messages, err := r.broker.Receive(ctx, r.queue, surgetank.ReceiveOptions{Max: 500, Wait: 200 * time.Millisecond, Name: "surgetank bench"})
	if err != nil || len(messages) == 0 {
		return err
	}
	acks := make([]surgetank.Settlement, len(messages))
	for i, m := range messages {
		acks[i] = surgetank.Settlement{Receipt: m.Receipt, Op: surgetank.Ack}
	}
	results, err := r.broker.Settle(ctx, acks)
	if err != nil {
		return err
	}
	for _, err := range results {
		if err != nil {
			return err
		}
	}
	r.acked.Add(int64(len(acks)))
	return nil
}
