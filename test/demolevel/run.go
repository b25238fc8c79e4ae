package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/surgetank/surgetank/client"
	"github.com/surgetank/surgetank/internal/pgtest"
	"github.com/surgetank/surgetank/internal/settings"
	"github.com/surgetank/surgetank/test/build"
	"github.com/surgetank/surgetank/test/kit/load"
	"github.com/surgetank/surgetank/test/kit/server"
)

// options are the program's flags.
type options struct {
	undisturbed time.Duration // of the first measurement
	rest        time.Duration // without a drain, before each drain
	rate        float64       // foreground transactions a second
	rows        int           // backlog that is drained in single rows
	batchRows   int           // backlog that is drained in batches
	lanes       int           // of the sink
	slow, down  time.Duration // how long the database is slowed, and stays away
	after       time.Duration // foreground after a disturbed drain
	outages     bool          // run the disturbed drains
	only        string        // a text in the names of the drains to run
	careless    bool          // the workers report an outage like any failure; only a test sets it
	binary      string        // the surgetank program; empty: built from this module
	say         func(format string, args ...any)
}

// result is what a run found.
type result struct {
	options
	load        string // of the machine, at the start
	adaptive    bool   // this build has level.adaptive
	breaker     bool   // this build has level.breaker
	undisturbed latency
	drains      []*drain
	samples     []sample
}

// world is the running processes.
type world struct {
	result
	dir        string
	pg         *pgtest.Server
	server     *server.Server
	client     *client.Client
	foreground *foreground
}

// knows reports whether this build has a queue setting.
func knows(path string) bool {
	for i := range settings.Table {
		if p := settings.Table[i].Path; p == path || strings.HasPrefix(p, path+".") {
			return true
		}
	}
	return false
}

// run runs the whole demonstration. The error says why it could not finish.
func run(ctx context.Context, o options) (_ *result, err error) {
	dir, err := os.MkdirTemp("", "surgetank-level-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	w := &world{dir: dir, result: result{options: o, adaptive: knows("level.adaptive"), breaker: knows("level.breaker")}}
	defer w.end()
	if err := w.prepare(ctx); err != nil {
		return nil, err
	}
	w.foreground = &foreground{dsn: w.pg.DSN("postgres"), rate: o.rate, start: time.Now()}
	loaded, stop := context.WithCancel(ctx)
	var running sync.WaitGroup
	running.Go(func() { w.foreground.run(loaded) })
	err = w.phases(ctx)
	stop()
	running.Wait()
	w.samples = w.foreground.samples
	if err != nil {
		return nil, fmt.Errorf("%w\nlast words of the server:\n%s\nand of PostgreSQL:\n%s", err, w.server.Tail(3000), tailOf(w.pg.Words(), 2000))
	}
	return &w.result, nil
}

func tailOf(s string, n int) string { return s[max(0, len(s)-n):] }

// end ends all processes, even after a failed prepare.
func (w *world) end() {
	if w.client != nil {
		_ = w.client.Close() // its server ends next
	}
	if w.server != nil {
		w.server.Kill()
	}
	if w.pg != nil {
		w.pg.Close()
	}
}

func (w *world) prepare(ctx context.Context) error {
	if w.binary == "" {
		var err error
		if w.binary, err = build.Server(ctx, w.dir, "surgetank", "", nil); err != nil {
			return err
		}
	}
	bin, err := pgtest.Find()
	if err != nil {
		return err
	}
	if w.pg, err = pgtest.New(bin, "max_connections=200"); err != nil {
		return err
	}
	if err := w.exec(ctx, foregroundSchema); err != nil {
		return err
	}
	w.server = &server.Server{Binary: w.binary, Data: filepath.Join(w.dir, "data"), Log: filepath.Join(w.dir, "server.log")}
	if err := w.server.Start(ctx); err != nil {
		return err
	}
	w.client, err = client.Dial(w.server.URL(), client.Options{})
	return err
}

// exec runs statements in the database.
func (w *world) exec(ctx context.Context, sql string) error {
	conn, err := connect(ctx, w.pg.DSN("postgres"))
	if err != nil {
		return err
	}
	defer closeConn(conn)
	_, err = conn.Exec(ctx, sql)
	return err
}

// now is the time on the run's clock.
func (w *world) now() time.Duration { return time.Since(w.foreground.start) }

// phases measures the undisturbed foreground and then drains one backlog after the other.
func (w *world) phases(ctx context.Context) error {
	w.load = machineLoad()
	if err := load.Pause(ctx, w.rest); err != nil { // connections, caches
		return err
	}
	quiet, err := w.measure(ctx, w.options.undisturbed)
	if err != nil {
		return err
	}
	w.result.undisturbed = quiet
	w.say("undisturbed foreground: p50 %s ms, p99 %s ms", millis(quiet.P50), millis(quiet.P99))
	for _, d := range plan(w.options) {
		if err := w.fill(ctx, d); err != nil {
			return fmt.Errorf("publishing %s: %w", d.name, err)
		}
		if d.before, err = w.measure(ctx, w.rest); err != nil {
			return err
		}
		if err := w.drain(ctx, d); err != nil {
			return fmt.Errorf("drain %s: %w", d.name, err)
		}
		w.drains = append(w.drains, d)
		d.load = machineLoad()
		w.say("%s: %d rows in %.1f s; foreground p50 %s ms, p99 %s ms, %d failed", d.title, d.messages, d.took().Seconds(),
			millis(d.foreground.P50), millis(d.foreground.P99), d.foreground.Failed)
	}
	return nil
}

// measure lets only the foreground run for d.
func (w *world) measure(ctx context.Context, d time.Duration) (latency, error) {
	from := w.now()
	if err := load.Pause(ctx, d); err != nil {
		return latency{}, err
	}
	return w.foreground.between(from, w.now()), nil
}

// machineLoad returns the machine's load of the last minute, or "unknown".
func machineLoad() string {
	text, err := os.ReadFile("/proc/loadavg")
	if fields := strings.Fields(string(text)); err == nil && len(fields) > 0 {
		return fields[0]
	}
	return "unknown"
}
