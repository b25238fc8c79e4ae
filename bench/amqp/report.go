package main

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// disturbed is how many cores other programs may use before a figure is marked.
const disturbed = 0.3

// figure formats a number with three significant digits and thousands separators.
func figure(v float64) string {
	switch {
	case v == 0:
		return "0"
	case v < 1000:
		return strconv.FormatFloat(v, 'f', max(0, 3-digits(v)), 64)
	}
	s := strconv.FormatFloat(v, 'f', 0, 64)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// digits returns the number of digits before the point. For 0.0x it returns -1.
func digits(v float64) (n int) {
	for ; v >= 1; v /= 10 {
		n++
	}
	for ; v < 0.1; v *= 10 {
		n--
	}
	return n
}

// line returns the terminal's output for a run.
func (r result) line() string {
	s := fmt.Sprintf("  %-16s #%d  %9s/s  p50 %s ms  p99 %s ms  server %s s/M, %.2f cores  client %s s/M, %.2f cores  other %.2f  peak %s MB",
		r.Target, r.Run, figure(r.Rate), figure(r.P50), figure(r.P99), figure(r.ServerCPU), r.ServerCores, figure(r.ClientCPU), r.ClientCores, r.OtherCores, figure(r.PeakMB))
	for _, name := range sortedKeys(r.More) {
		s += fmt.Sprintf("  %s=%s", name, figure(r.More[name]))
	}
	return s
}

func sortedKeys(m map[string]float64) []string {
	return slices.Sorted(maps.Keys(m))
}

// heading is a table's column: its name, and the function that returns its figure.
type heading struct {
	name string
	of   func(result) float64
}

var columns = []heading{
	{"p50 ms", p50Of}, {"p99 ms", p99Of}, {"server CPU s/M", serverCPUOf},
	{"client CPU s/M", func(r result) float64 { return r.ClientCPU }},
	{"client's ceiling/s", result.ceiling},
	{"server cores", func(r result) float64 { return r.ServerCores }},
	{"client cores", func(r result) float64 { return r.ClientCores }},
	{"other cores", func(r result) float64 { return r.OtherCores }},
	{"flushes/s", func(r result) float64 { return r.Flushes }},
	{"disk MB/s", func(r result) float64 { return r.DiskMBps }},
	{"peak MB", peakOf},
}

// report writes the markdown file.
func report(all summaries, machine string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# Surgetank and RabbitMQ over AMQP 0-9-1\n\n%s.\n\n", machine)
	b.WriteString(method)
	writeProducts(&b, all)
	for _, w := range reportOrder(all) {
		writeTable(&b, all, w)
	}
	writeGoals(&b, all)
	return b.String()
}

const method = `One client program (bench/amqp, amqp091-go) and every server on the same cores. Each run starts a server on an empty
directory, goes on for a second and is then measured; servers take turns; figures are medians, of the rate also lowest and
highest. Messages are persistent, queues durable, bodies random bytes. *CPU s/M* is CPU seconds for a million messages, of the
server's whole process tree and of the client. *Other cores* is everything else on the machine; above 0.3 a row is marked (!)
and should be measured again. *Flushes* are the disk's own count: they show who syncs. *Peak* is the proportional set size of
the server's processes, sampled twice a second. *Client's ceiling* is the rate at which the client alone would use every core:
a server that costs nothing could not be faster (where publishers wait for one another, as with one message in flight, it says
little). A backlog's kill -9 comes before its clean restart.

`

// writeProducts lists the product of each target.
func writeProducts(b *strings.Builder, all summaries) {
	b.WriteString("| target | server | client | a confirm means | measured (UTC) |\n|---|---|---|---|---|\n")
	for _, t := range reportTargets(all) {
		var products, clients, times []string
		for key, s := range all { // the order of the map does not matter: the lists are sorted
			if key[1] != t {
				continue
			}
			for _, r := range s.runs {
				products, clients, times = append(products, r.Product), append(clients, r.Client), append(times, r.Time)
			}
		}
		slices.Sort(times)
		fmt.Fprintf(b, "| %s | %s | %s | %s | %s to %s |\n", t, unique(products), unique(clients), confirmMeans[t], times[0], times[len(times)-1])
	}
}

var confirmMeans = map[string]string{
	classic:   "written, not synced: lost at a power cut",
	quorum:    "synced to disk",
	surgetank: "synced to disk",
	anyServer: "what that server promises",
	floor:     "nothing: it was read, and is forgotten",
}

func unique(words []string) string {
	slices.Sort(words)
	return strings.Join(slices.Compact(words), "; ")
}

// knownTargets and knownWorkloads define the report's order. Other names follow them.
var (
	knownTargets   = []string{classic, quorum, surgetank, anyServer}
	knownWorkloads = []string{publish1, publish8, sync1, sync64, endToEnd, endToEnd5k, queues1000, backlog2m}
)

func reportTargets(all summaries) []string { return ordered(all, 1, knownTargets) }
func reportOrder(all summaries) []string   { return ordered(all, 0, knownWorkloads) }

// ordered returns one part of the keys: the known names in their order, and then the other names.
func ordered(all summaries, part int, known []string) []string {
	var names []string
	for key := range all {
		names = append(names, key[part])
	}
	slices.SortFunc(names, func(a, b string) int {
		i, j := slices.Index(known, a), slices.Index(known, b)
		if i != j && i >= 0 && j >= 0 {
			return i - j
		}
		if i != j && (i < 0 || j < 0) {
			return j - i
		}
		return strings.Compare(a, b)
	})
	return slices.Compact(names)
}

// writeTable prints a workload's table with the figures that all workloads have. Below the table it
// prints the figures of this workload alone.
func writeTable(b *strings.Builder, all summaries, workload string) {
	fmt.Fprintf(b, "\n## %s\n\n| target | messages/s | runs |", workload)
	for _, h := range columns {
		fmt.Fprintf(b, " %s |", h.name)
	}
	b.WriteString("\n|---|" + strings.Repeat("---|", len(columns)+2) + "\n")
	extra := map[string]float64{}
	for _, t := range reportTargets(all) {
		s, ok := all[[2]string{workload, t}]
		if !ok {
			continue
		}
		rates := s.values(rateOf)
		mark := ""
		if s.median(func(r result) float64 { return r.OtherCores }) > disturbed {
			mark = " (!)"
		}
		fmt.Fprintf(b, "| %s%s | %s (%s–%s) | %d |", t, mark, figure(s.median(rateOf)), figure(rates[0]), figure(rates[len(rates)-1]), len(s.runs))
		for _, h := range columns {
			fmt.Fprintf(b, " %s |", figure(s.median(h.of)))
		}
		b.WriteString("\n")
		for _, r := range s.runs {
			maps.Copy(extra, r.More)
		}
	}
	if len(extra) == 0 {
		return
	}
	names := sortedKeys(extra)
	fmt.Fprintf(b, "\n| target | %s |\n|---|%s\n", strings.ReplaceAll(strings.Join(names, " | "), "_", " "), strings.Repeat("---|", len(names)))
	for _, t := range reportTargets(all) {
		s, ok := all[[2]string{workload, t}]
		if !ok {
			continue
		}
		fmt.Fprintf(b, "| %s |", t)
		for _, name := range names {
			fmt.Fprintf(b, " %s |", figure(s.median(moreOf(name))))
		}
		b.WriteString("\n")
	}
}

// writeGoals prints every goal whose figures were measured.
func writeGoals(b *strings.Builder, all summaries) {
	var lines []string
	for _, w := range knownWorkloads {
		for _, g := range goals() {
			if g.workload != w {
				continue
			}
			v, ok := g.value(all)
			if !ok {
				continue
			}
			verdict := "missed"
			if g.met(v) {
				verdict = "met"
			}
			if ids := g.sameRun(all); len(slices.Compact(slices.Clone(ids))) > 1 {
				verdict += ", but measured in different runs"
			}
			lines = append(lines, fmt.Sprintf("| %s | %s | %s%s | %s | %s |\n", g.workload, g.what, figure(v), g.unit, g.wanted(), verdict))
		}
	}
	if len(lines) == 0 {
		return
	}
	b.WriteString("\n## Surgetank against its goals\n\n| workload | figure | measured | wanted | |\n|---|---|---|---|---|\n")
	b.WriteString(strings.Join(lines, ""))
}
