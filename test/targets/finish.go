//go:build linux

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/surgetank/surgetank/test/targets/judge"
)

// result is the result of a round.
type result struct {
	plan      *plan
	err       error // the round could not be run or read
	findings  []judge.Finding
	report    judge.Report // the verdict before a sink was resumed
	way       string       // the way in which the sink was resumed
	notes     []string
	log       []string
	dir       string // the round's directory, if it is kept
	took      time.Duration
	published int
}

func (r *result) ok() bool { return r.err == nil && len(r.findings) == 0 }

// round runs one round of the campaign.
func (c *campaign) round(w *world) *result {
	r := &result{plan: w.plan, dir: w.dir}
	defer func() {
		w.close()
		r.notes, r.log, r.took, r.published = w.notes, w.log, time.Since(w.born), w.next
	}()
	if r.err = w.play(); r.err != nil {
		return r
	}
	if r.err = w.settle(); r.err != nil {
		return r
	}
	h, err := w.collect()
	if err != nil {
		r.err = err
		return r
	}
	r.report = judge.Check(h)
	r.findings = append(w.findings, r.report.Findings...)
	if len(r.findings) == 0 && r.report.Refused {
		r.way, r.findings, r.err = w.goOn()
	}
	return r
}

// play builds the world and performs the plan.
func (w *world) play() error {
	if err := w.build(); err != nil {
		return err
	}
	w.advance(30)
	for _, a := range w.plan.actions {
		w.say("%s (after %d messages)", a.name, w.count())
		if err := a.run(w); err != nil {
			return fmt.Errorf("%s: %w", a.name, err)
		}
		w.advance(10 + w.plan.rng.IntN(40))
	}
	return nil
}

func (w *world) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.next
}

// settle undoes all faults and publishes a last batch, which makes each sink check its target. Then
// it waits until everything is written or the sinks have stopped.
func (w *world) settle() error {
	w.say("the end: mend and drain")
	for _, f := range w.mend {
		if err := f(); err != nil {
			return fmt.Errorf("mending: %w", err)
		}
	}
	if w.plan.partitioned {
		if err := w.morePartitions(max(w.upto, w.count()/width*width) + 20*width); err != nil {
			return err
		}
	}
	for _, n := range w.nodes {
		n.pub.end()
	}
	if err := w.drained(25 * time.Second); err != nil {
		w.say("not drained: %v", err)
	}
	return nil
}

// collect reads the final state into a history.
func (w *world) collect() (*judge.History, error) {
	h := &judge.History{Mode: w.plan.mode, Messages: w.messages, Causes: w.causes, Removed: map[int]bool{}}
	for _, n := range w.nodes {
		s := &judge.Server{Name: n.name, Holds: n.holds, Waiting: map[int]bool{}}
		state, err := n.sink()
		if err != nil {
			return nil, err
		}
		s.State, s.Reason = state.State, state.Reason
		if state.Refusal != nil && w.compared { // otherwise the numbers are older than the last messages
			s.Numbers = &state.Refusal.Numbers
		}
		waiting, err := n.peek("q")
		if err != nil {
			return nil, err
		}
		for m := range waiting {
			s.Waiting[m] = true
		}
		if s.Parked, err = n.peek("q.dead"); err != nil {
			return nil, err
		}
		h.Servers = append(h.Servers, s)
	}
	var err error
	if h.Applied, err = w.db.applied(); err != nil {
		return nil, fmt.Errorf("reading what was written: %w", err)
	}
	if h.Rows, err = w.db.rows(w); err != nil {
		return nil, fmt.Errorf("reading the table: %w", err)
	}
	if w.emptied {
		gone, err := w.db.gone()
		if err != nil && !strings.Contains(err.Error(), "gone_t") { // the target may have gone back to a time before the table existed
			return nil, err
		}
		for _, n := range gone {
			h.Removed[n] = true
		}
	}
	return h, nil
}

// remove deletes a round's directory.
func (r *result) remove() {
	_ = os.RemoveAll(filepath.Clean(r.dir)) // a temporary directory
	r.dir = ""
}
