//go:build linux

package main

import (
	"fmt"
	"time"

	"github.com/surgetank/surgetank/test/targets/judge"
)

// goOn acts like a user whose sinks have stopped. If two copies of a directory run, it stops one of
// them. The remaining sink compares again, so that its numbers are current. goOn chooses one of the
// offered ways. Then everything must be written; only messages that the way announced may be
// missing or doubled.
func (w *world) goOn() (way string, _ []judge.Finding, _ error) {
	if w.causes&judge.Copied != 0 && len(w.nodes) > 1 {
		keep := w.plan.rng.IntN(2)
		w.say("%s goes on alone", w.nodes[keep].name)
		other := w.nodes[1-keep]
		if err := other.stop(); err != nil {
			return "", nil, err
		}
		w.nodes = []*node{w.nodes[keep]}
	}
	var last *node
	for _, n := range w.nodes {
		s, err := n.sink()
		if err != nil {
			return "", nil, err
		}
		if !stopped(s.State) {
			continue
		}
		if err := n.cli("sink", "resume", "rows"); err != nil {
			return "", broken("%v", err), nil
		}
		last = n
	}
	w.compared = true
	if last == nil {
		return "none needed", nil, nil // the stopped sink was on the removed server
	}
	_ = w.drained(20 * time.Second)
	s, err := last.sink()
	if err != nil {
		return "", nil, err
	}
	before, err := w.collect()
	if err != nil {
		return "", nil, err
	}
	r := judge.Check(before)
	if len(r.Findings) > 0 || !r.Refused {
		return "none needed", r.Findings, nil
	}
	if s.Refusal == nil || len(s.Refusal.Ways) == 0 {
		return "", broken("a sink that stays %s offers no way on: %s", s.State, s.Reason), nil
	}
	out := s.Refusal.Ways[w.plan.rng.IntN(len(s.Refusal.Ways))]
	w.say("%s: %s", s.Refusal.Kind, s.Reason)
	w.say("the way on: %s", out.Way)
	flags := []string{"--from", out.Way}
	if out.Way == "accept-loss" {
		flags = []string{"--accept-loss"}
	}
	if err := last.cli(append([]string{"sink", "resume", "rows", "--yes"}, flags...)...); err != nil {
		return out.Way, broken("%v", err), nil
	}
	if err := w.drained(20 * time.Second); err != nil {
		w.say("not drained: %v", err)
	}
	after, err := w.collect()
	if err != nil {
		return out.Way, nil, err
	}
	return out.Way, judge.After(before, after, judge.Way{Name: out.Way, Doubled: out.Doubled, Skipped: out.Skipped, Lost: out.Lost}), nil
}

// broken returns a finding about messages and ways.
func broken(format string, args ...any) []judge.Finding {
	return []judge.Finding{{Kind: judge.Words, Text: fmt.Sprintf(format, args...)}}
}
