package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/surgetank/surgetank"
)

// consume receives and acks messages until stop is called, and passes every body to see.
func consume(b surgetank.Broker, credit int, see func(body []byte)) (stop func() error, err error) {
	sub, err := b.Subscribe(ctx, "q", surgetank.SubscribeOptions{Credit: credit})
	if err != nil {
		return nil, err
	}
	done := make(chan error, 1)
	go func() {
		var buf []surgetank.Delivery
		for {
			var err error
			buf, err = sub.Receive(ctx, buf[:0], 256, 1<<20)
			if err != nil {
				if surgetank.CodeOf(err) == surgetank.CodeClosed {
					err = nil
				}
				done <- err
				return
			}
			acks := make([]surgetank.Settlement, len(buf))
			for i := range buf {
				see(buf[i].Body)
				acks[i].Receipt = buf[i].Receipt
			}
			if err := b.SettleAsync(ctx, acks, nil); err != nil {
				done <- err
				return
			}
		}
	}()
	return func() error { return errors.Join(sub.Close(), <-done) }, nil
}

// benchReceive measures the latency from publish to receive at a steady rate. The latency counts
// from the scheduled time of each send.
func benchReceive(r *report, dir string) error {
	const perSec = 5000
	r.head("Publish→receive at 5,000/s, 1 KiB, with acks", "from the scheduled time of each send")
	var p50, p99 []float64
	for run := range *flagRuns {
		sub := filepath.Join(dir, fmt.Sprint("recv", run))
		b, err := open(sub)
		if err != nil {
			return err
		}
		var mu sync.Mutex
		var lat []time.Duration
		start := time.Now()
		stop, err := consume(b, 1000, func(body []byte) {
			d := time.Since(start) - time.Duration(binary.LittleEndian.Uint64(body))
			mu.Lock()
			lat = append(lat, d)
			mu.Unlock()
		})
		if err != nil {
			return err
		}
		queues := []string{"q"}
		total := int(flagSecs.Seconds() * perSec)
		for i := 0; i < total; {
			due := int(time.Since(start).Seconds() * perSec)
			for ; i < due && i < total; i++ {
				body := make([]byte, 1024)
				binary.LittleEndian.PutUint64(body, uint64(time.Duration(i)*time.Second/perSec))
				if err := b.PublishAsync(ctx, []surgetank.Publishing{{Queues: queues, Message: surgetank.Message{Body: body}}}, func([]surgetank.PublishResult, error) {}); err != nil {
					return err
				}
			}
			time.Sleep(100 * time.Microsecond)
		}
		for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
			mu.Lock()
			n := len(lat)
			mu.Unlock()
			if n >= total {
				break
			}
		}
		if err := errors.Join(stop(), b.Close(), os.RemoveAll(sub)); err != nil {
			return err
		}
		slices.Sort(lat)
		lat = lat[:len(lat):len(lat)]
		p50, p99 = append(p50, float64(quantile(lat, .5))), append(p99, float64(quantile(lat, .99)))
	}
	r.row(row{"publish→receive p50", ms(time.Duration(median(p50))), "", ""})
	r.row(row{"publish→receive p99", ms(time.Duration(median(p99))), "", ""})
	return nil
}

// benchE2E publishes and consumes at full speed at the same time, and measures until the queue is
// empty.
func benchE2E(r *report, dir string) error {
	r.head("End to end with acks, 1 KiB, flat out", "4 publishers with 1,000 in flight, 4 consumers with credit 500; bound: publishing alone, as above")
	body := random(1024)
	var got, bound []float64
	for run := range *flagRuns {
		l, err := newLimit(dir)
		if err != nil {
			return err
		}
		raw, _, err := flood(4, 1000, *flagSecs, func(done func(error)) error { return l.send(body, done) })
		l.close()
		if err != nil {
			return err
		}
		sub := filepath.Join(dir, fmt.Sprint(run))
		b, err := open(sub)
		if err != nil {
			return err
		}
		var received atomic.Int64
		var stops []func() error
		for range 4 {
			stop, err := consume(b, 500, func([]byte) { received.Add(1) })
			if err != nil {
				return err
			}
			stops = append(stops, stop)
		}
		start := time.Now()
		if _, _, err := flood(4, 1000, *flagSecs, sendTo(b, body)); err != nil {
			return err
		}
		for {
			info, err := b.Queue(ctx, "q")
			if err != nil {
				return err
			}
			if info.Ready+info.Leased+info.Delayed+info.Blocked == 0 {
				break
			}
			time.Sleep(time.Millisecond)
		}
		got, bound = append(got, float64(received.Load())/time.Since(start).Seconds()), append(bound, raw)
		for _, stop := range stops {
			err = errors.Join(err, stop())
		}
		if err := errors.Join(err, b.Close(), os.RemoveAll(sub)); err != nil {
			return err
		}
	}
	r.row(row{"published, received and acked", rate(median(got)), rate(median(bound)), fmt.Sprintf("%.0f %%", 100*median(got)/median(bound))})
	return nil
}
