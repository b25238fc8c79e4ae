package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/embedded"
)

var ctx = context.Background()

// open makes a broker with one queue in a new directory.
func open(dir string) (*embedded.Broker, error) {
	b, err := embedded.Open(dir, embedded.Options{})
	if err != nil {
		return nil, err
	}
	_, _, err = b.DeclareQueue(ctx, "q", surgetank.QueueConfig{}, surgetank.DeclareIfAbsent)
	return b, err
}

// flood runs producers for some time. Each keeps up to window sends unconfirmed. It returns
// confirms per second and, with a window of 1, the latencies.
func flood(producers, window int, d time.Duration, send func(done func(error)) error) (perSec float64, lat []time.Duration, err error) {
	var confirmed, failed atomic.Int64
	var wg sync.WaitGroup
	var mu sync.Mutex
	var measuring atomic.Bool
	stop := make(chan struct{})
	for range producers {
		wg.Go(func() {
			slots := make(chan struct{}, window)
			done := func(err error) {
				if err != nil {
					failed.Add(1)
				} else if measuring.Load() {
					confirmed.Add(1)
				}
				<-slots
			}
			var mine []time.Duration
			for {
				select {
				case <-stop:
					for range window {
						slots <- struct{}{}
					}
					mu.Lock()
					lat = append(lat, mine...)
					mu.Unlock()
					return
				case slots <- struct{}{}:
				}
				if window == 1 && producers == 1 {
					start, ok := time.Now(), make(chan error, 1)
					if e := send(func(err error) { ok <- err }); e != nil {
						failed.Add(1)
						ok <- e
					}
					done(<-ok)
					if measuring.Load() {
						mine = append(mine, time.Since(start))
					}
					continue
				}
				if e := send(done); e != nil {
					done(e)
				}
			}
		})
	}
	time.Sleep(d / 5) // warm-up
	measuring.Store(true)
	start := time.Now()
	time.Sleep(d)
	n := confirmed.Load()
	took := time.Since(start)
	close(stop)
	wg.Wait()
	if failed.Load() > 0 {
		err = fmt.Errorf("%d sends failed", failed.Load())
	}
	slices.Sort(lat)
	return float64(n) / took.Seconds(), lat, err
}

func sendTo(b surgetank.Broker, body []byte) func(func(error)) error {
	queues := []string{"q"}
	return func(done func(error)) error {
		return b.PublishAsync(ctx, []surgetank.Publishing{{Queues: queues, Message: surgetank.Message{Body: body}}},
			func(r []surgetank.PublishResult, err error) {
				if err == nil {
					err = r[0].Err
				}
				done(err)
			})
	}
}

func benchPublish(r *report, dir string) error {
	r.head("Confirmed publishes, 1 KiB", "bound: the same producers append to one file, one goroutine writes and fdatasyncs what has gathered")
	body := random(1024)
	for _, c := range []struct{ producers, window int }{{1, 1000}, {8, 1000}, {64, 1000}, {1, 1}, {64, 1}} {
		if *flagCase != "" && *flagCase != fmt.Sprintf("%dx%d", c.producers, c.window) {
			continue
		}
		var got, bound, ratios []float64
		for run := range *flagRuns {
			l, err := newLimit(dir)
			if err != nil {
				return err
			}
			raw, _, err := flood(c.producers, c.window, *flagSecs, func(done func(error)) error { return l.send(body, done) })
			l.close()
			if err != nil {
				return err
			}
			sub := filepath.Join(dir, fmt.Sprint(c.producers, "-", c.window, "-", run))
			b, err := open(sub)
			if err != nil {
				return err
			}
			mine, _, err := flood(c.producers, c.window, *flagSecs, sendTo(b, body))
			if err := errors.Join(err, b.Close(), os.RemoveAll(sub)); err != nil {
				return err
			}
			got, bound, ratios = append(got, mine), append(bound, raw), append(ratios, mine/raw)
		}
		r.row(row{fmt.Sprintf("%d publishers, %d in flight each", c.producers, c.window), rate(median(got)), rate(median(bound)),
			fmt.Sprintf("%.0f %%", 100*median(ratios))})
	}
	return nil
}

func benchLatency(r *report, dir string) error {
	r.head("Latency of a lone publisher, 1 KiB, one at a time", "bound: bare write and fdatasync of the same bytes, preallocated")
	body := random(1024)
	var rows [][4]float64
	for run := range *flagRuns {
		raw, err := rawSync(dir, 1024, *flagSecs)
		if err != nil {
			return err
		}
		sub := filepath.Join(dir, fmt.Sprint(run))
		b, err := open(sub)
		if err != nil {
			return err
		}
		time.Sleep(2 * time.Second) // the log prepares its next file while it is idle
		_, lat, err := flood(1, 1, *flagSecs, sendTo(b, body))
		if err := errors.Join(err, b.Close(), os.RemoveAll(sub)); err != nil {
			return err
		}
		rows = append(rows, [4]float64{float64(quantile(lat, .5)), float64(quantile(lat, .99)), float64(quantile(raw, .5)), float64(quantile(raw, .99))})
	}
	col := func(i int) float64 {
		var v []float64
		for _, x := range rows {
			v = append(v, x[i])
		}
		return median(v)
	}
	for i, name := range []string{"p50", "p99"} {
		m, raw := col(i), col(i+2)
		r.row(row{"publish→confirm " + name, ms(time.Duration(m)), ms(time.Duration(raw)), fmt.Sprintf("%.2f×", m/raw)})
	}
	r.row(row{"publish→confirm p99 against one fdatasync (p50)", ms(time.Duration(col(1))), ms(time.Duration(col(2))), fmt.Sprintf("%.2f×", col(1)/col(2))})
	return benchReceive(r, dir)
}
