//go:build linux

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/surgetank/surgetank/test/build"
	"github.com/surgetank/surgetank/test/kit/load"
)

// With -memory the program checks that a server's memory is limited, whatever clients do. Each case
// starts a server, runs clients that misbehave as fast as they can, and measures the server's
// memory. The clients are raw (see raw.go): they must be many, ignore answers, and use less memory
// than they cause in the server.

// memoryOptions configure the cases.
type memoryOptions struct {
	messages    int // number of messages in the backlog, 1 KiB each
	connections int // number of idle connections
	polls       int // number of long polls
	flood       time.Duration
	only        string // run cases whose name matches this expression
	binary      string
	progress    func(format string, args ...any)
}

// memoryCase is one kind of misbehaviour.
type memoryCase struct {
	name    string
	backlog bool // the data directory has the backlog
	full    bool // the file system is small enough to fill
	// run misbehaves until the server's memory is highest. It returns while the clients are still
	// connected. bound limits the growth of the server's RSS.
	run func(ctx context.Context, c *caseRun) (bound int64, err error)
}

// caseRun is a running case.
type caseRun struct {
	memoryOptions
	p     *process
	peak  atomic.Int64
	notes []string
	wrong []string
	mu    sync.Mutex
	ends  []func() // clients to close at the end
}

func (c *caseRun) note(format string, args ...any) {
	c.notes = append(c.notes, fmt.Sprintf(format, args...))
}

func (c *caseRun) fail(format string, args ...any) {
	c.wrong = append(c.wrong, fmt.Sprintf(format, args...))
}

// atEnd registers f to be called after the measurement. It is safe for use by many goroutines.
func (c *caseRun) atEnd(f func()) {
	c.mu.Lock()
	c.ends = append(c.ends, f)
	c.mu.Unlock()
}

// memoryRow is a line of the table.
type memoryRow struct {
	Name                string
	Before, Peak, After int64
	Bound, Back         int64 // limits for Peak and After
	Notes, Wrong        []string
	Skipped             string
	Took                time.Duration
}

func (w *memoryRow) verdict() string {
	switch {
	case w.Skipped != "":
		return "SKIPPED: " + w.Skipped
	case len(w.Wrong) > 0 || w.Peak > w.Bound || w.After > w.Back:
		return "**NOT HELD**"
	}
	return "held"
}

// comesBack is how much more memory than before the case a server may use after the clients have
// gone. It covers the collector's room between two collections, and half-used pages.
const comesBack = 96 * mib

// perReturned is the additional memory for a message of the backlog that was leased and returned:
// its number of attempts, and its position in the order.
const perReturned = 64

// errSkip says that a case cannot run on this machine.
type errSkip struct{ why string }

func (e errSkip) Error() string { return e.why }

// memoryRun runs the cases one after another.
func memoryRun(ctx context.Context, o memoryOptions, cases []memoryCase) (rows []memoryRow, err error) {
	re, err := regexp.Compile(o.only)
	if err != nil {
		return nil, fmt.Errorf("-only: %w", err)
	}
	dir, err := os.MkdirTemp("", "surgetank-memory-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	if o.binary == "" {
		if o.binary, err = build.Server(ctx, dir, "surgetank", "", nil); err != nil {
			return nil, err
		}
	}
	if o.binary, err = filepath.Abs(o.binary); err != nil {
		return nil, err
	}
	for i, k := range cases {
		if !re.MatchString(k.name) {
			continue
		}
		home := filepath.Join(dir, fmt.Sprint(i))
		if k.backlog {
			home = filepath.Join(dir, "backlog")
			if err := o.fill(ctx, home); err != nil {
				return rows, fmt.Errorf("making the backlog: %w", err)
			}
		}
		w, err := o.perform(ctx, k, home)
		if err != nil {
			return rows, fmt.Errorf("%s: %w", k.name, err)
		}
		o.progress("%s", w.line())
		for _, n := range append(w.Wrong, w.Notes...) {
			o.progress("  %s", n)
		}
		rows = append(rows, w)
	}
	if len(rows) == 0 {
		return nil, fmt.Errorf("no case is called %s", o.only)
	}
	return rows, nil
}

// perform runs one case with a server of its own.
func (o memoryOptions) perform(ctx context.Context, k memoryCase, home string) (w memoryRow, err error) {
	began := time.Now()
	w.Name = k.name
	defer func() { w.Took = time.Since(began) }()
	if err := os.MkdirAll(home, 0o700); err != nil {
		return w, err
	}
	binary := o.binary
	if k.full {
		if binary, err = onSmallDisk(home, o.binary); err != nil {
			w.Skipped = err.Error()
			return w, nil
		}
	}
	p := newProcess(binary, home)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	p.onDeath = func(err error) { cancel(fmt.Errorf("%w: %s", err, p.Tail(600))) }
	if err := p.start(ctx); err != nil {
		return w, err
	}
	defer p.kill()
	c := &caseRun{memoryOptions: o, p: p}
	w.Before = c.calm(ctx)
	c.peak.Store(w.Before)
	watching, stop := context.WithCancel(ctx)
	var watch sync.WaitGroup
	watch.Go(func() {
		for load.Sleep(watching.Done(), 50*time.Millisecond) {
			c.peak.Store(max(c.peak.Load(), c.rss()))
		}
	})
	bound, err := k.run(ctx, c)
	stop()
	watch.Wait()
	w.Peak, w.Bound, w.Back = c.peak.Load(), w.Before+bound, w.Before+comesBack
	for _, end := range c.ends {
		end()
	}
	var skip errSkip
	if errors.As(err, &skip) {
		w.Skipped = skip.why
		return w, nil
	}
	if err != nil {
		return w, cmp.Or(context.Cause(ctx), err)
	}
	if k.backlog {
		w.Back += int64(o.messages) * perReturned
	}
	for until := time.Now().Add(150 * time.Second); ; { // an idle Go process collects garbage every two minutes
		if w.After = c.rss(); w.After <= w.Back || time.Now().After(until) {
			break
		}
		if !load.Sleep(ctx.Done(), 200*time.Millisecond) {
			return w, context.Cause(ctx)
		}
	}
	w.Notes, w.Wrong = c.notes, c.wrong
	return w, nil
}

func (c *caseRun) rss() int64 { return c.p.RSS() }

// calm waits until the memory of a newly started server is stable.
func (c *caseRun) calm(ctx context.Context) int64 {
	last, same := c.rss(), 0
	for same < 5 && load.Sleep(ctx.Done(), 200*time.Millisecond) {
		now := c.rss()
		if same++; now-last > mib/4 || last-now > mib/4 {
			same = 0
		}
		last = now
	}
	return last
}

// fill makes a data directory with the backlog, once for all cases: a queue with the given number
// of messages of 1 KiB each.
func (o memoryOptions) fill(ctx context.Context, home string) error {
	if _, err := os.Stat(home); err == nil {
		return nil
	}
	if err := os.MkdirAll(home, 0o700); err != nil {
		return err
	}
	began := time.Now()
	p := newProcess(o.binary, home)
	if err := p.start(ctx); err != nil {
		return err
	}
	defer p.kill()
	w := newWeb(p)
	defer w.Close()
	if err := w.Declare(ctx, backlogQueue, `{"lease":"10m"}`); err != nil {
		return err
	}
	line := `{"body":"` + strings.Repeat("x", 1022) + "\"}\n"
	const most = 1000
	var left atomic.Int64
	left.Store(int64(o.messages))
	var g sync.WaitGroup
	var failed atomic.Pointer[error]
	for range 4 {
		g.Go(func() {
			w := newWeb(p)
			defer w.Close()
			for failed.Load() == nil {
				n := left.Add(-most) + most
				if n <= 0 {
					return
				}
				body := []byte(strings.Repeat(line, int(min(n, most))))
				a := w.Do(ctx, "POST", "/v1/queues/"+backlogQueue+"/messages", "application/x-ndjson", body, 0)
				if err := a.Err(); err != nil {
					failed.Store(&err)
				}
			}
		})
	}
	g.Wait()
	if err := failed.Load(); err != nil {
		return *err
	}
	o.progress("a backlog of %d messages of 1 KiB was made in %v", o.messages, time.Since(began).Round(time.Second))
	stop, done := context.WithTimeout(ctx, time.Minute)
	defer done()
	return p.Stop(stop)
}

const backlogQueue = "backlog"

// onSmallDisk writes a script that runs the server in a mount namespace of its own, with a small
// file system for its data.
func onSmallDisk(home, binary string) (string, error) {
	if os.Getuid() != 0 {
		return "", errors.New("mounting a small file system takes root")
	}
	script := filepath.Join(home, "surgetank-on-a-small-disk")
	text := fmt.Sprintf("#!/bin/sh\nmkdir -p %[1]s/data && mount -t tmpfs -o size=512m tmpfs %[1]s/data && exec %[2]s \"$@\"\n", home, binary)
	if err := os.WriteFile(script, []byte("#!/bin/sh\nexec unshare -m "+script+".inner \"$@\"\n"), 0o700); err != nil {
		return "", err
	}
	return script, os.WriteFile(script+".inner", []byte(text), 0o700)
}

const memoryHead = "| what | RSS before | peak | bound | after, clients gone | bound | verdict |\n|---|---:|---:|---:|---:|---:|---|\n"

func (w *memoryRow) line() string {
	if w.Skipped != "" {
		return fmt.Sprintf("| %s | | | | | | %s |", w.Name, w.verdict())
	}
	return fmt.Sprintf("| %s | %s | %s | %s | %s | %s | %s |", w.Name, size(w.Before), size(w.Peak), size(w.Bound), size(w.After), size(w.Back), w.verdict())
}

// memoryReport returns the table as Markdown, and the reasons why it does not pass.
func memoryReport(title string, rows []memoryRow) (text string, bad []string) {
	var b strings.Builder
	b.WriteString("## " + title + "\n\n" + memoryHead)
	for i := range rows {
		b.WriteString(rows[i].line() + "\n")
	}
	b.WriteString("\n")
	for i := range rows {
		w := &rows[i]
		for _, n := range w.Wrong {
			fmt.Fprintf(&b, "- %s: **%s**\n", w.Name, n)
		}
		for _, n := range w.Notes {
			fmt.Fprintf(&b, "- %s: %s\n", w.Name, n)
		}
		if v := w.verdict(); v != "held" && (w.Skipped == "" || os.Getenv("CI") == "true") {
			bad = append(bad, w.Name)
		}
	}
	return b.String(), bad
}
