//go:build linux

package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/surgetank/surgetank/test/build"
	"github.com/surgetank/surgetank/test/kit/histogram"
	"github.com/surgetank/surgetank/test/kit/ledger"
	"github.com/surgetank/surgetank/test/kit/load"
	"github.com/surgetank/surgetank/test/kit/proc"
)

// options are the options of a run. withDefaults sets zero fields.
type options struct {
	length   time.Duration // duration of the load, without warm-up and end
	warmUp   time.Duration
	share    float64       // the load's share of the capacity
	rate     float64       // messages a second instead of a share; 0: measure
	kills    time.Duration // time between kills; 0: no kills
	calm     float64       // share of the length, at its end, without kills
	settle   time.Duration // longest wait for the memory to fall
	tick     time.Duration // time between lines of progress
	binary   string
	keep     bool
	seed     uint64
	serve    []string // further flags for the server
	progress func(format string, args ...any)
}

func (o options) withDefaults() options {
	if o.warmUp == 0 {
		o.warmUp = min(45*time.Second, o.length/4)
	}
	if o.share == 0 {
		o.share = 0.7
	}
	if o.settle == 0 {
		o.settle = 150 * time.Second // an idle Go process collects every two minutes
	}
	if o.tick == 0 {
		o.tick = time.Minute
	}
	if o.seed == 0 {
		o.seed = rand.Uint64()
	}
	return o
}

// minute is a line of progress.
type minute struct {
	At                     time.Duration
	Calm                   bool
	Confirmed, Acked       float64 // messages a second
	Open                   int64
	ConfirmP50, ConfirmP99 time.Duration
	E2EP50, E2EP99         time.Duration
	Kills                  int
	Use                    usage
}

// soak is a run and its results.
type soak struct {
	options
	began    time.Time
	dir      string
	p        *process
	l        *ledger.Ledger
	capacity float64
	target   float64

	mu       sync.Mutex
	baseline usage
	end      usage
	samples  []usage  // one sample every few seconds
	minutes  []minute // the lines of progress
	restarts []time.Duration
	kept     []*histogram.Histogram // two for each line of the report: confirm latency, then latency to delivery
	troubles map[string]int
	churned  string
	ownRSS   int64 // highest memory use of this program
}

// run carries out a whole run. The error says why the run could not be carried out; broken promises
// are in the verdict.
func run(ctx context.Context, o options) (_ *soak, err error) {
	s := &soak{options: o.withDefaults(), began: time.Now()}
	if s.dir, err = os.MkdirTemp("", "surgetank-soak-"); err != nil {
		return nil, err
	}
	defer func() {
		if !s.keep && err == nil && s.ok() {
			_ = os.RemoveAll(s.dir) // a temporary directory
		} else {
			s.progress("kept: %s", s.dir)
		}
	}()
	if s.binary == "" {
		if s.binary, err = build.Server(ctx, s.dir, "surgetank", "", nil); err != nil {
			return nil, err
		}
	}
	if s.binary, err = filepath.Abs(s.binary); err != nil {
		return nil, err
	}
	s.progress("seed %d", s.seed)
	s.l = ledger.New()
	s.p = newProcess(s.binary, s.dir, s.serve...)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	s.p.onDeath = func(err error) {
		s.l.Report("%v: %s", err, s.p.Tail(600))
		cancel(err)
	}
	s.p.began = s.l.Began() // the process and the ledger use one clock
	if err := s.p.start(ctx); err != nil {
		return nil, err
	}
	defer s.p.kill()
	go func() { // drops finished messages
		for load.Sleep(ctx.Done(), time.Second) {
			s.l.Sweep()
		}
	}()
	if err := s.phases(ctx); err != nil {
		if cause := context.Cause(ctx); cause != nil && s.l.Totals().Broken() > 0 {
			return s, nil // the server ended by itself: the verdict reports the finding
		}
		return s, err
	}
	stop, done := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
	defer done()
	if err := s.p.Stop(stop); err != nil {
		s.l.Report("the stop in order at the end failed: %v", err)
	}
	return s, nil
}

func (s *soak) phases(ctx context.Context) error {
	if err := s.measure(ctx); err != nil {
		return fmt.Errorf("measuring the capacity: %w", err)
	}
	var err error
	if s.baseline, err = s.idle(ctx, nil); err != nil {
		return fmt.Errorf("reading the baseline: %w", err)
	}
	s.progress("baseline, idle after the warm-up: %s", s.baseline)
	s.target = s.rate
	if s.target == 0 {
		s.target = s.capacity * s.share
	}
	s.progress("holding %.0f messages/s for %v", s.target, s.length)
	if err := s.hold(ctx); err != nil {
		return err
	}
	if s.end, err = s.idle(ctx, &s.baseline); err != nil {
		return fmt.Errorf("reading the end: %w", err)
	}
	s.progress("end, idle after the load: %s", s.end)
	return nil
}

// measure finds the capacity. It raises the rate in steps, with the same mix of clients, until the
// acks fall behind. The first third of each step is not measured. The best result of a step is the
// capacity.
func (s *soak) measure(ctx context.Context) error {
	d := newLoad(s.p, s.l, s.seed)
	rate := 1000.0
	if err := d.start(ctx, rate); err != nil {
		return err
	}
	step := max(s.warmUp/20, 500*time.Millisecond)
	fails := 0
	for end := time.Now().Add(s.warmUp); time.Now().Before(end) && ctx.Err() == nil; {
		d.setRate(rate)
		if !load.Sleep(ctx.Done(), step/2) {
			break
		}
		before, from := s.l.Totals(), time.Now()
		if !load.Sleep(ctx.Done(), step) {
			break
		}
		after, took := s.l.Totals(), time.Since(from).Seconds()
		got := min(float64(after.Acked-before.Acked), float64(after.Confirmed-before.Confirmed)) / took
		if open, _ := s.l.Pending(); open < int64(got)*4+2000 { // while a backlog shrinks, acks can exceed the capacity
			s.capacity = max(s.capacity, got)
		}
		if got > 0.85*rate {
			rate *= 1.35
			fails = 0
		} else if fails++; fails > 1 {
			rate = max(s.capacity, 500)
		}
	}
	s.progress("capacity of this server with these clients, on this machine at this hour: %.0f messages/s", s.capacity)
	if s.rate == 0 && s.capacity < 20 {
		return fmt.Errorf("only %.0f messages a second came through; the server's log is %s", s.capacity, s.p.Log)
	}
	return s.finish(ctx, d)
}

// hold runs the load for the length of the run, with kills and lines of progress.
func (s *soak) hold(ctx context.Context) error {
	d := newLoad(s.p, s.l, s.seed+1)
	if err := d.start(ctx, s.target); err != nil {
		return err
	}
	rng := rand.New(rand.NewPCG(s.seed, 77))
	start := time.Now()
	killsEnd := start.Add(time.Duration(float64(s.length) * (1 - s.calm)))
	end := start.Add(s.length)
	nextKill, nextLine := start.Add(s.kills/2), start.Add(s.tick)
	line := s.l.Totals()
	lineAt := start
	sample := time.NewTicker(min(2*time.Second, s.length/10))
	defer sample.Stop()
	for time.Now().Before(end) {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-sample.C:
		}
		now := time.Now()
		if s.kills > 0 && now.After(nextKill) && now.Before(killsEnd) {
			s.p.kill()
			if !load.Sleep(ctx.Done(), time.Duration(rng.Int64N(int64(200*time.Millisecond)))) {
				return context.Cause(ctx)
			}
			began := time.Now()
			if err := s.p.start(ctx); err != nil {
				s.l.Report("after a kill: %v: %s", err, s.p.Tail(600))
				return err
			}
			s.restarts = append(s.restarts, time.Since(began))
			nextKill = now.Add(s.kills*4/5 + time.Duration(rng.Int64N(int64(s.kills)*2/5)))
			continue
		}
		u, err := s.p.look(ctx)
		if err != nil {
			continue // the server was killed, or is very busy: wait for the next sample
		}
		s.samples = append(s.samples, u)
		s.ownRSS = max(s.ownRSS, proc.RSS(os.Getpid()))
		if now.Before(nextLine) {
			continue
		}
		nextLine = nextLine.Add(s.tick)
		after, took := s.l.Totals(), now.Sub(lineAt).Seconds()
		confirm, e2e := d.confirm.Take(), d.end2end.Take()
		s.kept = append(s.kept, confirm, e2e)
		open, _ := s.l.Pending()
		m := minute{At: now.Sub(start), Calm: now.After(killsEnd.Add(s.tick / 2)), Confirmed: float64(after.Confirmed-line.Confirmed) / took, Acked: float64(after.Acked-line.Acked) / took,
			Open: open, ConfirmP50: confirm.Quantile(0.5), ConfirmP99: confirm.Quantile(0.99), E2EP50: e2e.Quantile(0.5), E2EP99: e2e.Quantile(0.99),
			Kills: len(s.restarts), Use: u}
		line, lineAt = after, now
		s.minutes = append(s.minutes, m)
		s.progress("%s", m)
	}
	s.troubles = d.troubles()
	s.churned = fmt.Sprintf("%d connections, %d consumers, %d queues, %d streams (groups among them)", d.connections.Load(), d.consumers.Load(), d.queues.Load(), s.l.Totals().Streams)
	return s.finish(ctx, d)
}

// finish stops a load, drains and deletes the queues, and judges the open messages.
func (s *soak) finish(ctx context.Context, d *clients) error {
	close(d.stop)
	d.pubs.Wait()
	d.drain.Store(true)
	w := newWeb(s.p)
	defer w.Close()
	err := s.drained(ctx, w)
	close(d.quit)
	d.cons.Wait()
	if err != nil {
		return err
	}
	s.l.Finish()
	list, err := w.Queues(ctx)
	if err != nil {
		return fmt.Errorf("listing the queues: %w", err)
	}
	for _, q := range list {
		base := strings.TrimSuffix(q.Name, ".dead")
		if _, ours := standing[base]; !ours {
			if !strings.HasSuffix(q.Name, ".dead") {
				s.l.Report("the queue %s is still there after it was deleted, with %d messages", q.Name, q.Messages())
			}
		}
		if err := w.Delete(ctx, q.Name); err != nil {
			return fmt.Errorf("deleting %s: %w", q.Name, err)
		}
	}
	return ctx.Err()
}

// drained waits until every queue reports that it is empty.
func (s *soak) drained(ctx context.Context, w *web) error {
	limit := time.Now().Add(2*time.Minute + s.length/10)
	quiet := 0
	for {
		list, err := w.Queues(ctx)
		total := int64(0)
		for i := range list {
			total += list[i].Messages()
		}
		if err == nil && total == 0 {
			if quiet++; quiet == 4 {
				return nil
			}
		} else {
			quiet = 0
		}
		if time.Now().After(limit) {
			if err == nil {
				s.l.Report("the queues were not empty after %v without publishers: %d messages", 2*time.Minute+s.length/10, total)
			}
			return err
		}
		if !load.Sleep(ctx.Done(), 250*time.Millisecond) {
			return context.Cause(ctx)
		}
	}
}

// idle samples the server until its usage is within the bound, for a limited time. Without a bound
// it waits until the figures are stable.
func (s *soak) idle(ctx context.Context, bound *usage) (usage, error) {
	var last usage
	same := 0
	began := time.Now()
	for {
		u, err := s.p.look(ctx)
		if err != nil {
			return u, err
		}
		u.RSS, u.Heap = min(u.RSS, nonzero(last.RSS, u.RSS)), min(u.Heap, nonzero(last.Heap, u.Heap)) // the lowest since the load ended
		if bound != nil {
			if len(exceeds(u, *bound)) == 0 {
				return u, nil
			}
		} else if last.FDs == u.FDs && last.Goroutines == u.Goroutines && last.Disk == u.Disk && last.RSS-u.RSS < 1<<20 {
			if same++; same >= 12 && time.Since(began) > s.settle/5 {
				return u, nil
			}
		} else {
			same = 0
		}
		last = u
		if time.Since(began) > s.settle {
			return u, nil
		}
		if !load.Sleep(ctx.Done(), 500*time.Millisecond) {
			return u, context.Cause(ctx)
		}
	}
}

func nonzero(a, b int64) int64 {
	if a == 0 {
		return b
	}
	return a
}

// median returns the middle value, or 0 without values.
func median(list []time.Duration) time.Duration {
	if len(list) == 0 {
		return 0
	}
	list = slices.Sorted(slices.Values(list))
	return list[len(list)/2]
}
