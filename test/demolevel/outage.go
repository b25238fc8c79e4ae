package main

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/surgetank/surgetank/test/kit/load"
)

// heavyQuery keeps one core busy for about a tenth of a second.
const heavyQuery = "SELECT count(*) FROM generate_series(1, 1000) a, generate_series(1, 1000) b"

// disturbance slows the database down, kills it and starts it again, in the course of one drain.
type disturbance struct {
	left atomic.Int64 // messages that are not settled

	// Moments on the run's clock.
	slowed, normal time.Duration
	killed, back   time.Duration // back: the database accepts connections again
	leftAtKill     int64
}

// run waits until a share of the backlog is drained before each step, so that every step meets a
// backlog.
func (d *disturbance) run(ctx context.Context, w *world, all int64) error {
	if err := d.until(ctx, all*85/100); err != nil {
		return err
	}
	d.slowed = w.now()
	w.say("the database is slowed by %d heavy queries", heavy())
	d.slowDown(ctx, w, all*60/100)
	d.normal = w.now()
	if err := d.until(ctx, all*55/100); err != nil {
		return err
	}
	d.leftAtKill = d.left.Load()
	d.killed = w.now()
	w.say("kill -9 of the database, %d messages left", d.leftAtKill)
	if err := w.pg.Kill(); err != nil {
		return err
	}
	if err := load.Pause(ctx, w.down); err != nil {
		return err
	}
	if err := w.pg.Start(); err != nil {
		return err
	}
	d.back = w.now()
	w.say("the database is back")
	return nil
}

// until waits until at most n messages are not settled.
func (d *disturbance) until(ctx context.Context, n int64) error {
	for d.left.Load() > n {
		if err := load.Pause(ctx, 5*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

func heavy() int { return 4 * runtime.NumCPU() }

// slowDown runs heavy queries for a while. It stops early when at most enough messages are left.
func (d *disturbance) slowDown(ctx context.Context, w *world, enough int64) {
	ctx, cancel := context.WithTimeout(ctx, w.slow)
	defer cancel()
	var sessions sync.WaitGroup
	for range heavy() {
		sessions.Go(func() {
			conn, err := connect(ctx, w.pg.DSN("postgres"))
			if err != nil {
				return // the time is over, or the database has no room for one more session
			}
			defer closeConn(conn)
			for ctx.Err() == nil && d.left.Load() > enough {
				if _, err := conn.Exec(context.WithoutCancel(ctx), heavyQuery); err != nil {
					return
				}
			}
		})
	}
	sessions.Wait()
}

// calm returns the foreground's figures since the restart of the database, and whether there was a
// second outage: a failed transaction, or a second in which the foreground was not available.
func (d *disturbance) calm(samples []sample, end time.Duration) (after latency, second bool) {
	after = latencyOf(samples, d.back, end)
	second = after.Failed > 0
	for from := d.back; from < end; from += time.Second {
		if !latencyOf(samples, from, from+time.Second).available() {
			second = true
		}
	}
	return after, second
}
