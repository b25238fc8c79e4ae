package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"
)

// benchContend measures publishers and consumers of one queue with a backlog: each side alone, then
// both sides together. Consumers must not be slow only because publishers have more calls in
// progress.
func benchContend(r *report, dir string) error {
	r.head("Publishers beside consumers, 100 B, a backlog waits",
		"a publisher with 5,000 in flight; consumers that share a prefetch of 500; bound: the same side alone")
	for _, consumers := range []int{1, 5} {
		var v [4][]float64 // published alone, consumed alone, published together, consumed together
		for run := range *flagRuns {
			for i, sides := range []struct{ publish, consume bool }{{true, false}, {false, true}, {true, true}} {
				sub := filepath.Join(dir, fmt.Sprint(consumers, "-", run, "-", i))
				n := 0
				if sides.consume {
					n = consumers
				}
				published, consumed, err := contend(sub, sides.publish, n)
				if err != nil {
					return err
				}
				switch i {
				case 0:
					v[0] = append(v[0], published)
				case 1:
					v[1] = append(v[1], consumed)
				default:
					v[2], v[3] = append(v[2], published), append(v[3], consumed)
				}
			}
		}
		for i, what := range []string{"published", "consumed"} {
			alone, both := median(v[i]), median(v[2+i])
			r.row(row{fmt.Sprintf("%s, %d consumers", what, consumers), rate(both), rate(alone), fmt.Sprintf("%.0f %%", 100*both/alone)})
		}
	}
	return nil
}

// contend runs publishers, consumers or both for flagSecs, and returns the messages per second of
// each.
func contend(dir string, publish bool, consumers int) (published, consumed float64, err error) {
	b, err := open(dir)
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, b.Close(), os.RemoveAll(dir)) }()
	body := random(100)
	var received atomic.Int64
	var stops []func() error
	if consumers > 0 {
		if err := fill(b, int(flagSecs.Seconds()*1.3*450_000), body); err != nil {
			return 0, 0, err
		}
	}
	for range consumers {
		stop, err := consume(b, 500/consumers, func([]byte) { received.Add(1) })
		if err != nil {
			return 0, 0, err
		}
		stops = append(stops, stop)
	}
	flooded := make(chan error, 1)
	if publish {
		go func() {
			var err error
			published, _, err = flood(1, 5000, *flagSecs, sendTo(b, body))
			flooded <- err
		}()
	} else {
		flooded <- nil
	}
	time.Sleep(*flagSecs / 5) // warm-up
	from, start := received.Load(), time.Now()
	time.Sleep(*flagSecs)
	consumed = float64(received.Load()-from) / time.Since(start).Seconds()
	err = <-flooded
	for _, stop := range stops {
		err = errors.Join(err, stop())
	}
	return published, consumed, err
}
