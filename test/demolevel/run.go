package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/surgetank/surgetank/client"
	"github.com/surgetank/surgetank/internal/pgtest"
	"github.com/surgetank/surgetank/internal/settings"
	"github.com/surgetank/surgetank/test/build"
	kit "github.com/surgetank/surgetank/test/kit/client"
	"github.com/surgetank/surgetank/test/kit/load"
	"github.com/surgetank/surgetank/test/kit/server"
)

// options are the program's flags.
type options struct {
	undisturbed time.Duration // duration of the first measurement
	rest        time.Duration // time without a drain before each drain
	rate        float64       // foreground transactions a second
	rows        int           // size of the backlog that is drained in single rows
	batchRows   int           // size of the backlog that is drained in batches
	lanes       int           // number of lanes of the sink
	slow, down  time.Duration // how long the database is slowed, and how long it is down
	after       time.Duration // time of the foreground alone after a disturbed drain
	outages     bool          // run the disturbed drains
	fixed       bool          // drain with fixed limits instead
	calm        float64       // before each drain, wait until other programs use less than this share; repeat disturbed drains
	rounds      int           // how often each drain is run
	only        string        // a text in the names of the drains to run
	careless    bool          // the workers report an outage like any failure; only a test sets it
	data        string        // directory for the data of the Surgetank server; empty: beside the database
	binary      string        // the surgetank program; empty: built from this module
	say         func(format string, args ...any)
}

// result has the measurements of a run.
type result struct {
	options
	load        string  // the computer's load at the start
	adaptive    bool    // this build has level.adaptive
	breaker     bool    // this build has level.breaker
	undisturbed latency // latency in all parts of the run in which only the foreground works
	drains      []*drain
	from, until time.Duration // start and end of the first measurement
	samples     []sample
}

// figure computes the latencies from all samples of the foreground. It runs at the end, because a
// slow transaction is recorded late.
func (r *result) figure(samples []sample) {
	r.samples = samples
	quiet := during(samples, r.from, r.until)
	for _, d := range r.drains {
		d.before = latencyOf(samples, d.rest, d.began)
		d.foreground = latencyOf(samples, d.began, d.ended)
		quiet = append(quiet, during(samples, d.rest, d.began)...)
	}
	r.undisturbed = latencyOf(quiet, 0, math.MaxInt64)
}

// world is the running processes.
type world struct {
	result
	dir        string // of everything else
	data       string // of the Surgetank server's data
	pg         *pgtest.Server
	server     *server.Server
	client     *client.Client
	http       *kit.HTTP
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
	data := dir
	if o.data != "" {
		if data, err = os.MkdirTemp(o.data, "surgetank-level-"); err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(data)) }()
	}
	w := &world{dir: dir, data: data, result: result{options: o, adaptive: knows("level.adaptive"), breaker: knows("level.breaker")}}
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
	w.figure(w.foreground.samples)
	if err != nil {
		return nil, fmt.Errorf("%w\nlast words of the server:\n%s\nand of PostgreSQL:\n%s", err, w.server.Tail(3000), tailOf(w.pg.Words(), 2000))
	}
	return &w.result, nil
}

func tailOf(s string, n int) string { return s[max(0, len(s)-n):] }

// end ends all processes, even after a failed prepare.
func (w *world) end() {
	if w.client != nil {
		_ = w.client.Close() // an error does not matter: the server ends next
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
	w.server = &server.Server{Binary: w.binary, Data: filepath.Join(w.data, "data"), Log: filepath.Join(w.dir, "server.log")}
	if err := w.server.Start(ctx); err != nil {
		return err
	}
	w.http = kit.NewHTTP(w.server.URL, 10*time.Second)
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
	if err := load.Pause(ctx, w.rest); err != nil { // until connections are open and caches are filled
		return err
	}
	w.from = w.now()
	if err := load.Pause(ctx, w.options.undisturbed); err != nil {
		return err
	}
	w.until = w.now()
	first := w.foreground.between(w.from, w.until)
	w.say("undisturbed foreground: p50 %s ms, p99 %s ms", millis(first.P50), millis(first.P99))
	for _, d := range plan(w.options) {
		for try := range calmTries {
			if w.calm > 0 {
				if err := calm(ctx, w.calm); err != nil {
					return err
				}
			}
			d, err := w.measure(ctx, *d)
			if err != nil {
				return err
			}
			if w.calm == 0 || d.others < w.calm || try == calmTries-1 {
				w.drains = append(w.drains, d)
				break
			}
		}
	}
	return nil
}

// calmTries is how often a drain is run that other programs disturb.
const calmTries = 3

// measure publishes a backlog, rests, and drains the backlog.
func (w *world) measure(ctx context.Context, one drain) (*drain, error) {
	d := &one
	if err := w.fill(ctx, d); err != nil {
		return nil, fmt.Errorf("publishing %s: %w", d.name, err)
	}
	from := usageNow()
	d.rest = w.now()
	if err := load.Pause(ctx, w.options.rest); err != nil {
		return nil, err
	}
	if err := w.drain(ctx, d); err != nil {
		return nil, fmt.Errorf("drain %s: %w", d.name, err)
	}
	d.others = usageNow().othersSince(from)
	d.load = machineLoad()
	l, before := w.foreground.between(d.began, d.ended), w.foreground.between(d.rest, d.began)
	w.say("%s: %d rows in %.1f s; foreground p50 %s ms, p99 %s ms, before %s ms, %d failed; other programs %.0f %%", d.title, d.messages, d.took().Seconds(),
		millis(l.P50), millis(l.P99), millis(before.P99), l.Failed, 100*d.others)
	if len(d.limits) > 0 {
		w.say("%s: the limit over time: %s", d.title, steps(d.limits))
	}
	if len(d.sizes) > 0 {
		w.say("%s: the batch size over time: %s", d.title, steps(d.sizes))
	}
	return d, nil
}

// steps lists the changes of a limit, each with its second.
func steps(limits []point) string {
	var b strings.Builder
	last := math.NaN()
	for _, p := range limits {
		if p.Y != last {
			fmt.Fprintf(&b, " %.1fs:%.0f", p.X, p.Y)
			last = p.Y
		}
	}
	return b.String()
}

// machineLoad returns the machine's load of the last minute, or "unknown".
func machineLoad() string {
	text, err := os.ReadFile("/proc/loadavg")
	if fields := strings.Fields(string(text)); err == nil && len(fields) > 0 {
		return fields[0]
	}
	return "unknown"
}
