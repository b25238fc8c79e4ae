//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/surgetank/surgetank/test/kit/history"
	"github.com/surgetank/surgetank/test/kit/load"
	"github.com/surgetank/surgetank/test/kit/proxy"
	"github.com/surgetank/surgetank/test/kit/server"
)

// scenario is one fault: its number in the list of faults, its name, its requirements and its
// actions in a run.
type scenario struct {
	id    string
	fault string
	quick bool         // lasts a few seconds in the short mode, and is part of the tests
	slow  int          // factor for the usual time limit; 0 means 1
	needs func() error // returns an error if this machine lacks something; nil: nothing is needed
	// run injects the fault. An error means that the run could not be carried out; wrong behaviour
	// of the server is a finding.
	run func(ctx context.Context, r *run) error
}

// run is one run of a scenario: a directory, a server, clients, a journal.
type run struct {
	*campaign
	name    string
	dir     string
	rng     *rand.Rand // decides the schedule of faults
	journal *history.Journal
	server  *server.Server
	front   *proxy.Proxy // proxy for the server's AMQP door; nil: clients connect directly
	load    *clients

	injected  int
	notes     []string
	wrong     []history.Finding // broken promises that are not visible in the journal
	drained   bool
	beyond    bool                         // the run's own calls only prepare trials, which have their own checks
	traced    int                          // number of strace logs so far
	patience  time.Duration                // limit of waits for a system call; 0: the usual limit
	trialWrap func(argv []string) []string // changes the command lines of trials' servers
	trialArgs []string
	// trialStarted acts on the server of a trial when it is ready, before any client starts.
	// problem is a finding.
	trialStarted func(ctx context.Context, sv *server.Server) (problem string, err error)
	unmount      []string                                      // file systems to unmount at the end
	extra        func(h *history.History, rep *history.Report) // further checks of this scenario
}

// row is a line of the result table.
type row struct {
	ID, Fault string
	Injected  int
	Report    history.Report
	Notes     []string
	Skipped   string // the reason, if it was skipped
	Err       error
	Took      time.Duration
}

func (w *row) verdict() history.Verdict {
	switch {
	case w.Skipped != "":
		return "skipped"
	case w.Err != nil:
		return history.Unknown
	case w.Injected == 0:
		return history.Unknown // a fault that never happened shows nothing
	}
	return w.Report.Verdict()
}

// perform runs a scenario from beginning to end and checks the result.
func (c *campaign) perform(ctx context.Context, s scenario) (w row) {
	began := time.Now()
	w = row{ID: s.id, Fault: s.fault}
	defer func() { w.Took = time.Since(began) }()
	if s.needs != nil {
		if err := s.needs(); err != nil {
			w.Skipped = err.Error()
			return w
		}
	}
	r, err := c.newRun(s)
	if err != nil {
		w.Err = err
		return w
	}
	defer r.cleanUp()
	ctx, cancel := context.WithTimeout(ctx, c.limit*time.Duration(max(1, s.slow)))
	defer cancel()
	w.Err = s.run(ctx, r)
	if r.load != nil {
		r.load.abandon()
	}
	r.server.Kill()
	w.Injected, w.Notes = r.injected, r.notes
	h := &history.History{Ops: r.journal.Ops(), Queues: checked, Drained: r.drained}
	if w.Report.Calls = len(h.Ops); r.beyond {
		w.Report.Totals, _ = history.TotalQueue(&history.History{Ops: h.Ops, Queues: h.Queues})
	} else {
		w.Report = history.Check(h, c.limit)
	}
	w.Report.Add(r.wrong...)
	if r.extra != nil {
		r.extra(h, &w.Report)
	}
	if err := r.journal.Close(); err != nil {
		w.Err = errors.Join(w.Err, err)
	}
	if w.verdict() != history.Pass {
		r.keep = true
		w.Notes = append(w.Notes, kept+r.dir)
		if w.Err != nil {
			w.Notes = append(w.Notes, "the server's last words: "+r.server.Tail(600))
		}
	}
	return w
}

func (c *campaign) newRun(s scenario) (*run, error) {
	dir := filepath.Join(c.dir, s.id)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	j, err := history.Create(filepath.Join(dir, "journal.ndjson"), s.id+" "+s.fault, c.seed)
	if err != nil {
		return nil, err
	}
	h := fnv.New64a()
	h.Write([]byte(s.id)) // never fails
	own := *c
	return &run{
		campaign: &own, name: s.id, dir: dir, journal: j, rng: rand.New(rand.NewPCG(c.seed, h.Sum64())),
		server: &server.Server{Binary: c.binary, Data: filepath.Join(dir, "data"), Log: filepath.Join(dir, "server.log"), Watcher: j},
	}, nil
}

func (r *run) cleanUp() {
	r.server.Kill()
	for _, at := range r.unmount {
		_ = syscall.Unmount(at, syscall.MNT_DETACH) // after an error the namespace unmounts it
	}
	if !r.keep {
		_ = os.RemoveAll(r.dir) // a temporary directory; the campaign removes it again
	}
}

// times returns the number of injections for the short or the long mode.
func (r *run) times(short, long int) int {
	if r.long {
		return long
	}
	return short * max(1, r.scale)
}

// between draws a duration.
func (r *run) between(from, to time.Duration) time.Duration {
	return from + time.Duration(r.rng.Int64N(int64(to-from)))
}

// inject counts and records one injection.
func (r *run) inject(what string) {
	r.injected++
	if r.injections != nil {
		r.injections.Store(int64(r.injected))
	}
	now := r.journal.Now()
	r.journal.Add(history.Op{Kind: history.Fault, Outcome: history.Info, Call: now, Return: now, Code: what})
}

// fail records behaviour that breaks a promise.
func (r *run) fail(check, format string, args ...any) {
	r.wrong = append(r.wrong, history.Finding{Check: check, Value: r.name, Detail: fmt.Sprintf(format, args...)})
}

func (r *run) note(format string, args ...any) {
	r.notes = append(r.notes, fmt.Sprintf(format, args...))
}

// begin starts server, queues and clients.
func (r *run) begin(ctx context.Context, o loadOptions) error {
	if o.amqp > 0 {
		r.server.Listen("", server.AnyPort)
	}
	if err := r.server.Start(ctx); err != nil {
		return err
	}
	if err := r.declare(ctx); err != nil {
		return err
	}
	r.startLoad(ctx, o, r.server.URL)
	return nil
}

func (r *run) declare(ctx context.Context) error {
	c := r.client()
	defer c.Close()
	for _, q := range []string{grouped, plain} {
		if err := c.Declare(ctx, q, queueSettings[q]); err != nil {
			return err
		}
	}
	return nil
}

// client returns a client for the scenario's own calls.
func (r *run) client() *caller { return newCaller(98, r.server.URL, r.journal, 5*time.Second) }

func (r *run) startLoad(ctx context.Context, o loadOptions, base func() string) {
	r.load = newLoad(o, r.journal, base, r.rng.Uint64(), r.say)
	r.load.door = r.server.AMQP
	if r.front != nil {
		r.load.door = r.front.Address
	}
	r.load.start(ctx)
}

// end drains the queues and stops the server in order. The server's exit code must be 0.
func (r *run) end(ctx context.Context) error {
	drained, err := r.load.finish(ctx, 40*time.Second)
	r.drained = drained
	r.load = nil
	if err != nil {
		return fmt.Errorf("draining: %w", err)
	}
	r.server.Signal(syscall.SIGTERM)
	code, err := r.server.Wait(ctx)
	if err != nil {
		return err
	}
	if code != 0 {
		r.fail("exit", "a stop in order at the end left with exit code %d: %s", code, r.server.Tail(300))
	}
	return nil
}

// sleep lets the load run for a while. It returns an error when the run is over.
func (r *run) sleep(ctx context.Context, d time.Duration) error {
	return load.Pause(ctx, d)
}

// progress waits for a limited time until n more publishes are confirmed. It reports whether n were
// confirmed.
func (r *run) progress(ctx context.Context, n int64, within time.Duration) bool {
	from := r.load.confirmed.Load()
	return r.until(ctx, within, func() bool { return r.load.confirmed.Load() >= from+n })
}

// until waits for a condition.
func (r *run) until(ctx context.Context, within time.Duration, ok func() bool) bool {
	return load.Until(ctx, within, ok)
}
