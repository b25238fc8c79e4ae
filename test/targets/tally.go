//go:build linux

package main

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/surgetank/surgetank/test/kit/report"
	"github.com/surgetank/surgetank/test/targets/judge"
)

// tally counts the results of the rounds.
type tally struct {
	disks bool
	began time.Time

	mu       sync.Mutex
	rounds   int
	failed   int
	rows     map[string]*line // lines by name of action; "all" counts all rounds
	failures []string
	refusals map[string]int // number of rounds by chosen way
}

// line is one row of the result table: the rounds with one action.
type line struct {
	rounds, published, confirmed, applied, parked, refused, failed int
	kinds                                                          map[string]int // number of rounds by kind of finding
}

func newTally(disks bool) *tally {
	return &tally{disks: disks, began: time.Now(), rows: map[string]*line{}, refusals: map[string]int{}}
}

func (t *tally) add(r *result) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.rounds++
	names := slices.Compact(slices.Sorted(slices.Values(r.plan.names())))
	for _, name := range append(names, "all") {
		l := t.rows[name]
		if l == nil {
			l = &line{kinds: map[string]int{}}
			t.rows[name] = l
		}
		l.rounds++
		l.published += r.published
		l.confirmed += r.report.Confirmed
		l.applied += r.report.Applied
		l.parked += r.report.Parked
		if r.report.Refused && r.ok() {
			l.refused++
		}
		if !r.ok() {
			l.failed++
		}
		seen := map[string]bool{}
		for _, f := range r.findings {
			if !seen[f.Kind] {
				seen[f.Kind] = true
				l.kinds[f.Kind]++
			}
		}
	}
	if r.way != "" && r.ok() {
		t.refusals[r.way]++
	}
	verdict := "ok"
	if r.report.Refused {
		verdict = "refused with " + fmt.Sprint(len(r.report.Missing)) + " missing, then went on: " + r.way
	}
	if !r.ok() {
		t.failed++
		verdict = "FAILED"
		t.failures = append(t.failures, r.failure())
	}
	fmt.Printf("%4d seed %d %.1fs %s: %s\n", t.rounds, r.plan.seed, r.took.Seconds(), r.plan, verdict)
	for _, n := range r.notes {
		fmt.Printf("     note: %s\n", n)
	}
	if !r.ok() {
		fmt.Print(r.failure())
	}
}

// failure describes a failed round in full.
func (r *result) failure() string {
	var b strings.Builder
	fmt.Fprintf(&b, "FAILED seed %d (go run ./test/targets -seed %d): %s; %d published\n", r.plan.seed, r.plan.seed, r.plan, r.published)
	for _, l := range r.log {
		fmt.Fprintf(&b, "     %s\n", l)
	}
	for _, f := range r.findings {
		fmt.Fprintf(&b, "   - %s\n", f)
	}
	if r.err != nil {
		fmt.Fprintf(&b, "   - the round broke off: %v\n", r.err)
	}
	if r.dir != "" {
		fmt.Fprintf(&b, "   kept in %s\n", r.dir)
	}
	return b.String()
}

// kinds are the columns for findings.
var kinds = []string{judge.Lost, judge.Doubled, judge.Misplaced, judge.Parked, judge.Disorder, judge.Stuck, judge.FalseAlarm, judge.Words}

// table returns the result in Markdown, with a row for each action.
func (t *tally) table() string {
	var b strings.Builder
	b.WriteString("\n| action | rounds | confirmed | applied | parked | refused, rightly | " + strings.Join(kinds, " | ") + " | failed |\n|---|" + strings.Repeat("---:|", 6+len(kinds)) + "\n")
	var names []string
	for _, a := range actions {
		names = append(names, a.name)
	}
	for _, name := range append(names, "all") {
		l := t.rows[name]
		if l == nil {
			continue
		}
		fmt.Fprintf(&b, "| %s | %d | %d | %d | %d | %d |", name, l.rounds, l.confirmed, l.applied, l.parked, l.refused)
		for _, k := range kinds {
			fmt.Fprintf(&b, " %d |", l.kinds[k])
		}
		fmt.Fprintf(&b, " %d |\n", l.failed)
	}
	fmt.Fprintf(&b, "\n%d rounds in %.0f s, %d failed. Ways on that were taken: from target %d, from queue %d, accept loss %d.\n", t.rounds, time.Since(t.began).Seconds(),
		t.failed, t.refusals["target"], t.refusals["queue"], t.refusals["accept-loss"])
	if !t.disks {
		b.WriteString("No disk was filled: that needs root.\n")
	}
	return b.String()
}

// record appends the table to the day's file.
func (t *tally) record(dir string) error {
	text := fmt.Sprintf("## %s\n%s\n", report.Now(), t.table())
	for _, f := range t.failures {
		text += fmt.Sprintf("```\n%s```\n", f)
	}
	return report.Append(dir, "chaos-target-DATE.md", text)
}
