//go:build linux

package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/surgetank/surgetank/test/kit/histogram"
)

const mib = 1 << 20

// bounds returns the most resources that the server may use at the end, given the baseline. Memory
// can be higher because garbage accumulates between collections, and Go's scavenger decides how
// much memory the system gets back. Disk use varies: the log can keep its active segment, the next
// one and two for reuse, of 64 MiB each, and two snapshots.
func bounds(b usage) usage {
	return usage{
		RSS:        b.RSS*5/4 + 32*mib,
		Heap:       b.Heap*5/4 + 16*mib,
		Goroutines: b.Goroutines + 5,
		FDs:        b.FDs + 5,
		Disk:       max(b.Disk+64*mib, 5*64*mib),
		Queues:     0,
	}
}

// exceeds lists the resources that an idle server uses beyond their bounds.
func exceeds(u, baseline usage) (what []string) {
	b := bounds(baseline)
	for _, c := range []struct {
		name     string
		has, may int64
	}{{"memory (RSS)", u.RSS, b.RSS}, {"Go heap", u.Heap, b.Heap}, {"goroutines", u.Goroutines, b.Goroutines},
		{"file descriptors", u.FDs, b.FDs}, {"disk", u.Disk, b.Disk}, {"queues", u.Queues, b.Queues}} {
		if c.has > c.may {
			what = append(what, fmt.Sprintf("%s did not come back: %d, at most %d", c.name, c.has, c.may))
		}
	}
	return what
}

// broken lists the reasons why the run does not pass.
func (s *soak) broken() []string {
	list := s.l.Findings()
	t := s.l.Totals()
	if n := t.Broken() - int64(len(list)); n > 0 {
		list = append(list, fmt.Sprintf("… and %d findings more", n))
	}
	if s.end.At == 0 {
		return append(list, "the run did not come to its end")
	}
	list = append(list, exceeds(s.end, s.baseline)...)
	if t.Confirmed == 0 {
		list = append(list, "nothing was confirmed, so nothing was tested")
	}
	if s.kills > 0 && len(s.restarts) == 0 {
		list = append(list, "the server was never killed")
	}
	return list
}

func (s *soak) ok() bool { return len(s.broken()) == 0 }

// flat compares the p99 of the last third of some lines with the p99 of their first third. Each p99
// is over all measurements of its third.
func (s *soak) flat(lines []int, e2e bool) (first, last time.Duration, ratio float64) {
	third := len(lines) / 3
	if third == 0 {
		return 0, 0, 0
	}
	of := func(list []int) time.Duration {
		sum := &histogram.Histogram{}
		for _, i := range list {
			k := 2 * i
			if e2e {
				k++
			}
			sum.Merge(s.kept[k])
		}
		return sum.Quantile(0.99)
	}
	first, last = of(lines[:third]), of(lines[len(lines)-third:])
	if first > 0 {
		ratio = float64(last) / float64(first)
	}
	return first, last, ratio
}

// lines returns the indexes of the lines with kills or, if calm is true, of the lines without
// kills.
func (s *soak) lines(calm bool) (list []int) {
	for i, m := range s.minutes {
		if m.Calm == calm {
			list = append(list, i)
		}
	}
	return list
}

// drift returns the slope of a figure over time, per hour, by least squares. The samples must be
// comparable; see alike.
func drift(list []usage, of func(usage) int64) float64 {
	if len(list) < 8 {
		return 0
	}
	var n, sx, sy, sxx, sxy float64
	for _, u := range list {
		x, y := u.At.Hours(), float64(of(u))
		n, sx, sy, sxx, sxy = n+1, sx+x, sy+y, sxx+x*x, sxy+x*y
	}
	if d := n*sxx - sx*sx; d != 0 {
		return (n*sxy - sx*sy) / d
	}
	return 0
}

// alike selects comparable samples. While kills happen, they are of processes of about the same
// age. In the calm part, they are of the last process, after the first quarter of its life.
func (s *soak) alike() (killed, calm []usage) {
	if len(s.samples) == 0 {
		return nil, nil
	}
	last := s.samples[len(s.samples)-1]
	for _, u := range s.samples {
		lastLife := u.At > last.At-last.Age
		switch {
		case lastLife && u.Age > max(last.Age/4, s.kills):
			calm = append(calm, u)
		case !lastLife && u.Age > s.kills/2 && u.Age < s.kills*9/10:
			killed = append(killed, u)
		}
	}
	return killed, calm
}

func size(n int64) string { return fmt.Sprintf("%.1f MiB", float64(n)/mib) }

func (u usage) String() string {
	return fmt.Sprintf("RSS %s, PSS %s, heap %s, %d goroutines, %d fds, disk %s", size(u.RSS), size(u.PSS), size(u.Heap), u.Goroutines, u.FDs, size(u.Disk))
}

func ms(d time.Duration) string { return fmt.Sprintf("%.1f", float64(d.Microseconds())/1000) }

// String returns the minute as a line of progress.
func (m minute) String() string {
	return fmt.Sprintf("%5s  %6.0f confirmed/s %6.0f acked/s  %6d open  confirm p50/p99 %s/%s ms  end to end %s/%s ms  kills %d  %s",
		m.At.Round(time.Second), m.Confirmed, m.Acked, m.Open, ms(m.ConfirmP50), ms(m.ConfirmP99), ms(m.E2EP50), ms(m.E2EP99), m.Kills, m.Use)
}

// report returns the run as Markdown: its settings, its minutes, the resources at the end, the
// verdict.
func (s *soak) report(title string) string {
	var b strings.Builder
	t := s.l.Totals()
	say := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	say("## %s\n", title)
	say("%v of load at %.0f messages/s (capacity measured before: %.0f/s), a kill every %v for the first %.0f %% of it: %d kills, ready again after %v (median; longest %v).",
		s.length, s.target, s.capacity, s.kills, 100*(1-s.calm), len(s.restarts), median(s.restarts).Round(time.Millisecond), longest(s.restarts).Round(time.Millisecond))
	say("Came and went: %s. This program's own memory: %s at most.\n", s.churned, size(s.ownRSS))
	say("| published | confirmed | answer lost | deliveries | redelivered, allowed | dead-lettered | dedup ids sent twice | acked | lost | doubled | out of order | other |\n|---|---|---|---|---|---|---|---|---|---|---|---|")
	say("| %d | %d | %d | %d | %d | %d | %d | %d | %d | %d | %d | %d |\n", t.Published, t.Confirmed, t.Unknown, t.Deliveries, t.Redelivered, t.DeadLettered, t.Duplicates, t.Acked, t.Lost, t.Doubled, t.Disorder, t.Other)
	say("| | baseline | end | bound | |\n|---|---:|---:|---:|---|")
	lim := bounds(s.baseline)
	row := func(name, from, to, most string, good bool) {
		say("| %s | %s | %s | %s | %s |", name, from, to, most, word(good))
	}
	row("RSS", size(s.baseline.RSS), size(s.end.RSS), size(lim.RSS), s.end.RSS <= lim.RSS)
	row("Go heap", size(s.baseline.Heap), size(s.end.Heap), size(lim.Heap), s.end.Heap <= lim.Heap)
	row("disk", size(s.baseline.Disk), size(s.end.Disk), size(lim.Disk), s.end.Disk <= lim.Disk)
	for _, c := range []struct {
		name           string
		from, to, most int64
	}{{"goroutines", s.baseline.Goroutines, s.end.Goroutines, lim.Goroutines}, {"file descriptors", s.baseline.FDs, s.end.FDs, lim.FDs}, {"queues", s.baseline.Queues, s.end.Queues, lim.Queues}} {
		row(c.name, fmt.Sprint(c.from), fmt.Sprint(c.to), fmt.Sprint(c.most), c.to <= c.most)
	}
	say("")
	killed, calm := s.alike()
	rss, live := func(u usage) int64 { return u.RSS }, func(u usage) int64 { return u.Live }
	say("Drift of RSS: %+.1f MiB an hour between processes of the same age while kills went on (%d samples), %+.1f MiB an hour within the last process (%d samples over %v); of the live heap %+.1f MiB an hour there.",
		drift(killed, rss)/mib, len(killed), drift(calm, rss)/mib, len(calm), span(calm).Round(time.Second), drift(calm, live)/mib)
	for _, c := range []bool{false, true} {
		name := map[bool]string{false: "with kills", true: "calm"}[c]
		for _, e := range []bool{false, true} {
			what := map[bool]string{false: "publish to confirm", true: "publish to delivery"}[e]
			if first, last, ratio := s.flat(s.lines(c), e); ratio > 0 {
				flat := "flat"
				if ratio > 2 {
					flat = "NOT FLAT"
				}
				say("p99 %s, %s: %s ms in the first third, %s ms in the last: %.2f times, %s.", what, name, ms(first), ms(last), ratio, flat)
			}
		}
	}
	say("\n| time | | confirmed/s | acked/s | open | confirm p50 ms | p99 | end to end p50 ms | p99 | RSS | PSS | heap | live | goroutines | fds | disk |\n|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|")
	for _, m := range s.minutes {
		phase := fmt.Sprintf("%d kills", m.Kills)
		if m.Calm {
			phase = "calm"
		}
		say("| %s | %s | %.0f | %.0f | %d | %s | %s | %s | %s | %s | %s | %s | %s | %d | %d | %s |", m.At.Round(time.Second), phase, m.Confirmed, m.Acked, m.Open, ms(m.ConfirmP50), ms(m.ConfirmP99),
			ms(m.E2EP50), ms(m.E2EP99), size(m.Use.RSS), size(m.Use.PSS), size(m.Use.Heap), size(m.Use.Live), m.Use.Goroutines, m.Use.FDs, size(m.Use.Disk))
	}
	if len(s.troubles) > 0 {
		say("\nWhat clients were told while the server was up (no broken promise, but to be looked at):")
		keys := make([]string, 0, len(s.troubles))
		for k := range s.troubles {
			keys = append(keys, k)
		}
		slices.Sort(keys)
		for _, k := range keys {
			say("- %d × %s", s.troubles[k], k)
		}
	}
	if bad := s.broken(); len(bad) > 0 {
		say("\n**BROKEN** (seed %d):", s.seed)
		for _, f := range bad {
			say("- %s", f)
		}
	} else {
		say("\nVerdict: ok. Nothing lost, nothing doubled, nothing out of order; what was taken came back.")
	}
	return b.String()
}

func word(good bool) string {
	if good {
		return "ok"
	}
	return "**TOO MUCH**"
}

func longest(list []time.Duration) time.Duration {
	if len(list) == 0 {
		return 0
	}
	return slices.Max(list)
}

func span(list []usage) time.Duration {
	if len(list) == 0 {
		return 0
	}
	return list[len(list)-1].At - list[0].At
}
