// Package demo shows the main purpose of Surgetank on one screen. A spike of writes is stored on
// disk as fast as it arrives, and drains into a database at a chosen rate. The rows are then
// counted in the database itself. The demo uses what every user has: the server as a separate
// process, and the HTTP interface.
package demo

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/cmd/surgetank/internal/feed"
	"github.com/surgetank/surgetank/internal/input"
	"github.com/surgetank/surgetank/internal/server/child"
)

// Options are the demo's flags. Binary and Out are required.
type Options struct {
	Binary   string  // the surgetank program that runs as the server
	Messages int64   // number of invented orders to send if there is no Input
	Input    string  // NDJSON file to send instead of invented orders
	Rate     float64 // rows a second written to the database
	Postgres string  // DSN; empty: SQLite in the temporary directory
	Crash    bool    // kill the server in the middle
	Keep     bool    // keep directory and table after the demo

	// PutSink creates the sink; Dial connects to the server.
	PutSink func(ctx context.Context, server, name string, spec map[string]any) error
	Dial    func(server string) (surgetank.Broker, error)
	// Show receives the live figures a few times a second during the demo.
	Show func(Live)
	// Say prints a line of text.
	Say func(format string, args ...any)
}

// Live are the figures at one moment.
type Live struct {
	Elapsed      time.Duration
	Published    int64 // confirmed lines
	Applied      int64
	Backlog      int64
	InRate       float64 // average rate of about the last second
	OutRate      float64
	OldestAge    time.Duration
	TimeToDrain  time.Duration // time to drain at OutRate; 0 if unknown
	ServerIsDown bool
	Total        int64 // lines to be published; 0 if unknown
}

// Result is the comparison of the confirmed lines with the rows.
type Result struct {
	Published int64   `json:"published"` // lines confirmed
	Applied   int64   `json:"applied"`   // rows in the table
	Lost      int64   `json:"lost"`      // confirmed lines that are not in the table
	Doubled   int64   `json:"doubled"`   // extra rows of the same line
	Parked    int64   `json:"parked"`    // lost lines in the dead-letter queue, with the database's reason
	Crashes   int     `json:"crashes"`
	Seconds   float64 `json:"seconds"`
	Reason    string  `json:"reason,omitempty"` // why a message was parked
}

// OK reports whether every line is in the database exactly once.
func (r Result) OK() bool { return r.Lost == 0 && r.Doubled == 0 }

const (
	queueName  = "orders"
	sinkName   = "orders-to-db"
	lineHeader = "line" // header that carries each line's number to the table for counting
)

// Run plays the demo to its end.
func Run(ctx context.Context, o Options) (res Result, err error) {
	dir, err := os.MkdirTemp("", "surgetank-demo-")
	if err != nil {
		return res, err
	}
	d := &demo{Options: o, dir: dir, table: "orders"}
	if !o.Keep {
		defer func() {
			if rerr := os.RemoveAll(dir); err == nil && rerr != nil {
				err = fmt.Errorf("removing the demo's directory: %w", rerr)
			}
		}()
	}
	if o.Postgres != "" {
		d.table = "surgetank_demo_" + strings.ToLower(rand.Text()[:8])
	}
	log, err := os.OpenFile(filepath.Join(dir, "server.log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return res, err
	}
	defer log.Close()
	d.server = child.New(o.Binary, filepath.Join(dir, "data"), log, "--amqp", "off")
	defer d.server.Kill()
	res, err = d.play(ctx)
	if err != nil {
		if tail := lastLines(filepath.Join(dir, "server.log"), 5); tail != "" {
			err = fmt.Errorf("%w\nthe end of the server's log:\n%s", err, tail)
		}
	}
	return res, err
}

type demo struct {
	Options
	dir    string
	table  string
	server *child.Server
	broker surgetank.Broker

	start   time.Time
	stats   feed.Stats
	total   int64
	down    atomic.Bool
	crashes int
}

func (d *demo) play(ctx context.Context) (res Result, err error) {
	if err := d.server.Start(ctx); err != nil {
		return res, err
	}
	src, err := d.source()
	if err != nil {
		return res, err
	}
	if d.broker, err = d.Dial(d.server.Ready.HTTP); err != nil {
		return res, err
	}
	defer d.broker.Close()
	target := "SQLite, " + d.databasePath()
	if d.Postgres != "" {
		target = "PostgreSQL, table " + d.table
	}
	d.Say("server  %s, data in %s", d.server.Ready.HTTP, d.dir)
	d.Say("sink    %s, at most %s rows a second", target, group(int64(d.Rate)))

	config := surgetank.QueueConfig{DedupWindow: time.Hour, Level: surgetank.LevelConfig{Rate: surgetank.Rate(d.Rate)}}
	if d.Input == "" {
		config.GroupBy, config.Group.MaxInFlight = "$.customer", 1
	}
	if _, _, err := d.broker.DeclareQueue(ctx, queueName, config, surgetank.DeclareNew); err != nil {
		return res, err
	}
	if err := d.PutSink(ctx, d.server.Ready.HTTP, sinkName, d.sinkSpec()); err != nil {
		return res, fmt.Errorf("setting the sink: %w", err)
	}
	if err := d.flow(ctx, src); err != nil {
		return res, err
	}
	return d.reconcile(ctx)
}

// source opens the input, or invents orders.
func (d *demo) source() (feed.Source, error) {
	if d.Input == "" {
		d.total = d.Messages
		return newOrders(d.Messages), nil
	}
	f, err := os.Open(d.Input)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	// Counting first costs one pass. With the count, the live figures can show a total.
	buf := make([]byte, 1<<20)
	for {
		n, err := f.Read(buf)
		d.total += int64(strings.Count(string(buf[:n]), "\n"))
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
	}
	return feed.NewFiles([]string{d.Input}, nil, input.Options{Format: input.Lines, Max: surgetank.DefaultMaxMessage}), nil
}

// flow sends the spike and waits until all of it is applied. With Options.Crash, it kills the
// server in the middle.
func (d *demo) flow(ctx context.Context, src feed.Source) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	d.start = time.Now()
	d.Say("spike   %s writes, as fast as they are confirmed on disk", group(d.total))
	published := make(chan error, 1)
	go func() {
		o := feed.Options{Queue: queueName, Run: "demo", Window: time.Hour, NumberHeader: lineHeader, GiveUp: time.Minute}
		if d.Input == "" {
			o.Group = customer
		}
		published <- feed.Publish(ctx, d.broker, src, o, &d.stats)
	}()

	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	watch := watcher{demo: d}
	sending, took := true, time.Duration(0)
	for {
		select {
		case err := <-published:
			if err != nil {
				return fmt.Errorf("publishing: %w", err)
			}
			sending, took, published = false, time.Since(d.start), nil
			r := d.stats.Snapshot()
			d.Say("landed  %s writes confirmed in %.1f s, %s/s; the database gets them at its own pace",
				group(r.Confirmed), took.Seconds(), group(int64(float64(r.Confirmed)/took.Seconds())))
		case <-d.server.Exited():
			return errors.New("the server ended by itself")
		case <-tick.C:
			if d.Crash && d.crashes == 0 && d.stats.Snapshot().Confirmed >= d.total/2 {
				if err := d.crash(ctx); err != nil {
					return err
				}
			}
			stored, err := watch.look(ctx)
			if err != nil {
				return err
			}
			if !sending && stored == 0 {
				return nil
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// crash kills the server without warning and restarts it.
func (d *demo) crash(ctx context.Context) error {
	d.crashes++
	d.Say("crash   kill -9 of the server (pid %d), in the middle of the spike, after %s writes", d.server.Ready.PID, group(d.stats.Snapshot().Confirmed))
	began := time.Now()
	d.server.Kill()
	if err := d.server.Start(ctx); err != nil {
		return fmt.Errorf("starting the server again: %w", err)
	}
	d.Say("back    on the same data after %.2f s (pid %d)", time.Since(began).Seconds(), d.server.Ready.PID)
	return nil
}

// customer finds an order's customer without parsing JSON. This works because the orders are made
// in this package.
func customer(body []byte) string {
	_, rest, _ := strings.Cut(string(body), `"customer":"`)
	c, _, _ := strings.Cut(rest, `"`)
	return c
}

// watcher computes the live figures from the queue's statistics.
type watcher struct {
	*demo
	at      []time.Time // times of the samples of about the last second
	in, out []int64
}

// look reads and shows the queue's statistics. It returns the number of stored messages.
func (w *watcher) look(ctx context.Context) (stored int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	q, err := w.broker.Queue(ctx, queueName)
	if err != nil {
		switch surgetank.CodeOf(err) {
		case surgetank.CodeClosed, surgetank.CodeUnavailable, surgetank.CodeUncertain, surgetank.CodeBusy:
			return -1, nil // try again; a server that is gone is seen as exited
		}
		return 0, err
	}
	stored = q.Ready + q.Blocked + q.Delayed + q.Leased
	confirmed := w.stats.Snapshot().Confirmed
	applied := max(confirmed-stored, 0)
	now := time.Now()
	w.at, w.in, w.out = append(w.at, now), append(w.in, confirmed), append(w.out, applied)
	for len(w.at) > 2 && now.Sub(w.at[0]) > time.Second {
		w.at, w.in, w.out = w.at[1:], w.in[1:], w.out[1:]
	}
	l := Live{Elapsed: now.Sub(w.start), Published: confirmed, Applied: applied, Backlog: stored, OldestAge: q.OldestAge, Total: w.total}
	if span := now.Sub(w.at[0]).Seconds(); span > 0 {
		l.InRate = float64(confirmed-w.in[0]) / span
		l.OutRate = max(float64(applied-w.out[0])/span, 0)
	}
	if l.OutRate > 0 {
		l.TimeToDrain = time.Duration(float64(stored) / l.OutRate * float64(time.Second))
	}
	w.Show(l)
	return stored, nil
}

func lastLines(path string, n int) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// group writes a number with thousands separated.
func group(n int64) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
