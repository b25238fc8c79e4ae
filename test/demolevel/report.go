package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/surgetank/surgetank/test/kit/report"
)

// The aims of the demonstration.
const (
	aimLatency = 1.5 // foreground p99 during an adaptive drain, divided by the undisturbed p99
	aimTime    = 1.5 // time of an adaptive drain, divided by the time of the naive drain
)

func millis(d time.Duration) string { return fmt.Sprintf("%.1f", float64(d)/float64(time.Millisecond)) }

// ratio returns a divided by b, or 0 if one of the times is missing.
func ratio(a, b time.Duration) float64 {
	if b == 0 {
		return 0
	}
	return float64(a) / float64(b)
}

// broken lists the broken promises. It does not judge latencies and times.
func (r *result) broken() []string {
	var list []string
	say := func(d *drain, format string, args ...any) {
		list = append(list, d.title+": "+fmt.Sprintf(format, args...))
	}
	for _, d := range r.drains {
		if !d.whole() {
			say(d, "%d of %d messages are in the table, %d were parked", d.rows, d.messages, d.parked)
		}
		if d.adaptive && d.spent > 0 {
			say(d, "%d messages lost an attempt", d.spent)
		}
		if d.disturbed == nil {
			continue
		}
		if d.disturbed.leftAtKill == 0 {
			say(d, "the backlog was drained before the database was killed; publish more messages")
		}
		if _, second := d.disturbed.calm(r.samples, d.quiet()+r.after); second {
			say(d, "there was a second outage after the return of the database")
		}
	}
	return list
}

// naive returns the naive drain with which an adaptive drain is compared, or nil.
func (r *result) naive(d *drain) *drain {
	for _, n := range r.drains {
		if !n.adaptive && n.batches == d.batches {
			return n
		}
	}
	return nil
}

// markdown returns the tables of the run.
func (r *result) markdown() string {
	var b strings.Builder
	if !r.adaptive {
		b.WriteString("**The level is not adaptive:** this build has no `level.adaptive`, so the queues have no limit.\n\n")
	}
	if !r.breaker {
		b.WriteString("**No breaker:** this build has no `level.breaker`.\n\n")
	}
	fmt.Fprintf(&b, "Undisturbed foreground, %.0f transactions a second, measured first and just before each drain: p50 %s ms, p99 %s ms. Load of the machine: %s.\n\n", r.rate, millis(r.undisturbed.P50), millis(r.undisturbed.P99), r.load)
	fmt.Fprintf(&b, "The sink has %d lanes; `level.adaptive` sets how many of them write at the same time, and the size of their batches.\n\n", r.lanes)
	header := "| drain | rows | p99 just before, ms | foreground p50, ms | p99, ms | p99 ÷ undisturbed | drain, s | ÷ naive | rows/s | missing | parked | load | others, % |\n|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n"
	var verdicts []string
	for _, d := range r.drains {
		if d.outage {
			continue
		}
		b.WriteString(header)
		header = ""
		slower := ratio(d.foreground.P99, r.undisturbed.P99)
		var longer, naive float64 // 0: the naive drain was left out
		if n := r.naive(d); n != nil {
			longer, naive = ratio(d.took(), n.took())*float64(n.messages)/float64(d.messages), ratio(n.foreground.P99, r.undisturbed.P99)
		}
		fmt.Fprintf(&b, "| %s | %d | %s | %s | %s | %.1f | %.1f | %.2f | %.0f | %d | %d | %s | %.0f |\n", d.title, d.messages, millis(d.before.P99), millis(d.foreground.P50), millis(d.foreground.P99),
			slower, d.took().Seconds(), longer, float64(d.messages)/d.took().Seconds(), int64(d.messages)-d.rows, d.parked, d.load, 100*d.others)
		if d.adaptive {
			verdicts = append(verdicts, fmt.Sprintf("- %s: foreground p99 × %.1f (aim: at most %.1f) %s; naive × %.1f. Drain time × %.2f of the naive one (aim: at most %.1f) %s.\n",
				d.title, slower, aimLatency, reached(slower <= aimLatency), naive, longer, aimTime, reached(longer <= aimTime)))
		}
	}
	if len(verdicts) > 0 {
		b.WriteString("\n" + strings.Join(verdicts, ""))
	}
	if r.rounds > 1 || r.fixed {
		b.WriteString("\n" + r.medians())
	}
	r.outageTable(&b)
	if broken := r.broken(); len(broken) > 0 {
		fmt.Fprintf(&b, "\nBROKEN:\n- %s\n", strings.Join(broken, "\n- "))
	}
	return b.String()
}

func reached(ok bool) string {
	if ok {
		return "reached"
	}
	return "missed"
}

// outageTable adds the foreground's figures in each part of the disturbed drains.
func (r *result) outageTable(b *strings.Builder) {
	header := "\n| disturbed drain | part | s | foreground p50, ms | p99, ms | p99 ÷ undisturbed | failed |\n|---|---|---:|---:|---:|---:|---:|\n"
	var verdicts []string
	for _, d := range r.drains {
		if d.disturbed == nil {
			continue
		}
		b.WriteString(header)
		header = ""
		o := d.disturbed
		for _, p := range []struct {
			name     string
			from, to time.Duration
		}{
			{"before", d.began, o.slowed}, {"slowed", o.slowed, o.normal}, {"until the kill", o.normal, o.killed}, {"down", o.killed, o.back},
			{"back, drain goes on", o.back, d.quiet()}, {"drained", d.quiet(), d.quiet() + r.after},
		} {
			l := latencyOf(r.samples, p.from, p.to)
			fmt.Fprintf(b, "| %s | %s | %.1f | %s | %s | %.1f | %d of %d |\n", d.title, p.name, (p.to - p.from).Seconds(), millis(l.P50), millis(l.P99), ratio(l.P99, r.undisturbed.P99), l.Failed, l.Count)
		}
		after, second := o.calm(r.samples, d.quiet()+r.after)
		outage := "no second outage"
		if second {
			outage = "A SECOND OUTAGE"
		}
		verdicts = append(verdicts, fmt.Sprintf("- %s: %d messages left at the kill; drained %.1f s after the return; attempts spent: %d; parked: %d; rows: %d of %d; the breaker opened %d times and returned %d attempts. After the return the foreground's p99 was × %.1f, its worst transaction %s ms, failed %d: %s.\n",
			d.title, o.leftAtKill, max(0, d.ended-o.back).Seconds(), d.spent, d.parked, d.rows, d.messages, d.openings, d.refunds, ratio(after.P99, r.undisturbed.P99), millis(after.Max), after.Failed, outage))
	}
	if len(verdicts) > 0 {
		b.WriteString("\n" + strings.Join(verdicts, ""))
	}
}

// record appends the tables to the day's file and writes the plots into the same directory.
func (r *result) record(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	stamp := time.Now().UTC().Format("2006-01-02-1504")
	var text strings.Builder
	fmt.Fprintf(&text, "## %s\n\n%s/%s, %d CPUs, %s.\n\n%s", report.Now(), runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), runtime.Version(), r.markdown())
	for _, f := range r.figures() {
		name := "demo-level-" + stamp + f.suffix + ".svg"
		if err := os.WriteFile(filepath.Join(dir, name), f.svg(), 0o644); err != nil {
			return err
		}
		fmt.Fprintf(&text, "\n![%s](%s)\n", f.title, name)
	}
	text.WriteString("\n")
	return report.Append(dir, "demo-level-DATE.md", text.String())
}

// namedFigure is a figure and the last part of its file's name.
type namedFigure struct {
	figure
	suffix string
}

// figures returns the plot of the drains and one of each disturbed drain.
func (r *result) figures() []namedFigure {
	level := func(c chart) chart {
		c.log, c.level, c.levelName = true, float64(r.undisturbed.P99)/1e6, "undisturbed"
		return c
	}
	latencies := level(chart{title: "foreground p99 of each second, ms"})
	backlogs := chart{title: "remaining backlog, % of the messages"}
	limits := chart{title: "adaptive limit, jobs or lanes at the same time"}
	all := []namedFigure{{}}
	for _, d := range r.drains {
		share := make([]point, len(d.backlog))
		for i, p := range d.backlog {
			share[i] = point{p.X, 100 * p.Y / float64(d.messages)}
		}
		if o := d.disturbed; o != nil {
			color := 1
			if d.batches {
				color = 3
			}
			at := func(t time.Duration) float64 { return (t - d.began).Seconds() }
			bands := []band{{"slowed", at(o.slowed), at(o.normal)}, {"down", at(o.killed), at(o.back)}}
			p99 := level(chart{title: latencies.title + "; a gap: every transaction failed", bands: bands})
			p99.lines = r.seconds(line{title: d.title, color: color}, d.began, d.quiet()+r.after)
			charts := []chart{p99, {title: backlogs.title, bands: bands, lines: []line{{d.title, color, share}}}}
			if len(d.limits) > 0 {
				charts = append(charts, chart{title: limits.title, bands: bands, lines: []line{{d.title, color, d.limits}}})
			}
			all = append(all, namedFigure{figure{d.title, charts}, "-" + d.name})
			continue
		}
		color := len(backlogs.lines)
		latencies.lines = append(latencies.lines, r.seconds(line{title: d.title, color: color}, d.began, d.ended)...)
		backlogs.lines = append(backlogs.lines, line{d.title, color, share})
		if len(d.limits) > 0 {
			limits.lines = append(limits.lines, line{d.title, color, d.limits})
		}
	}
	charts := []chart{latencies, backlogs}
	if len(limits.lines) > 0 {
		charts = append(charts, limits)
	}
	all[0].figure = figure{"Draining a backlog into a database that others use", charts}
	return all
}

// seconds returns the foreground's p99 of each second as lines. A second without a successful
// transaction interrupts the line.
func (r *result) seconds(l line, from, to time.Duration) []line {
	lines := []line{l}
	for at := from; at < to; at += time.Second {
		now := latencyOf(r.samples, at, min(at+time.Second, to))
		last := &lines[len(lines)-1]
		switch {
		case now.P99 > 0:
			last.points = append(last.points, point{(at - from).Seconds() + 0.5, float64(now.P99) / 1e6})
		case len(last.points) > 0 && now.Failed > 0:
			lines = append(lines, l)
		}
	}
	return lines
}
