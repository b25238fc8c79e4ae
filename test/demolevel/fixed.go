package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// fixedLimits and fixedBatches are the limits and batch sizes of the drains of -fixed.
var (
	fixedLimits  = []int{1, 2, 4, 8, 16, 32}
	fixedBatches = []int{50, 200, 1000, 4000}
)

// fixedPlan lists drains with a fixed limit, and the naive drains for comparison. Their figures show
// what a controller of the limit can reach on a machine.
func fixedPlan(o options) []*drain {
	var list []*drain
	for round := range o.rounds {
		add := func(d drain) {
			d.name = fmt.Sprintf("%s_%d", d.name, round)
			switch {
			case d.batches:
				d.messages = o.batchRows
			case d.limit > 0: // a small limit gets fewer messages, so that all drains take seconds
				d.messages = o.rows / 10 * min(10, 1+d.limit/2)
			default:
				d.messages = o.rows
			}
			list = append(list, &d)
		}
		add(drain{name: "naive_rows", title: "64 naive workers, single rows"})
		for _, n := range fixedLimits {
			add(drain{name: fmt.Sprintf("fixed_rows_%d", n), title: fmt.Sprintf("single rows, limit %d", n), limit: n})
		}
		add(drain{name: "naive_batches", title: "64 naive workers, batches of 200", batches: true})
		for lanes := 1; lanes <= o.lanes; lanes++ {
			for _, n := range fixedBatches {
				add(drain{name: fmt.Sprintf("fixed_batches_%d_%d", lanes, n), title: fmt.Sprintf("sink, %d lanes, batches of %d", lanes, n), batches: true, sink: true, limit: lanes, batch: n})
			}
		}
	}
	return list
}

// medians returns the median figures of the drains with equal titles. Latencies are compared with
// the foreground just before the drain.
func (r *result) medians() string {
	var titles []string
	of := map[string][]*drain{}
	for _, d := range r.drains {
		if of[d.title] == nil {
			titles = append(titles, d.title)
		}
		of[d.title] = append(of[d.title], d)
	}
	var b strings.Builder
	b.WriteString("| drain, median | runs | p99 just before, ms | foreground p50, ms | p99, ms | p99 ÷ undisturbed | drain, s | ÷ naive | rows/s | other programs, % |\n|---|---:|---:|---:|---:|---:|---:|---:|---:|---|\n")
	for _, title := range titles {
		list := of[title]
		p99 := median(list, func(d *drain) time.Duration { return d.foreground.P99 })
		took := median(list, (*drain).took)
		longer := 0.0 // compared for the same number of rows
		if n := r.naive(list[0]); n != nil {
			longer = ratio(took, median(of[n.title], (*drain).took)) * float64(n.messages) / float64(list[0].messages)
		}
		others := make([]string, len(list))
		for i, d := range list {
			others[i] = fmt.Sprintf("%.0f", 100*d.others)
		}
		fmt.Fprintf(&b, "| %s | %d | %s | %s | %s | %.1f | %.1f | %.2f | %.0f | %s |\n", title, len(list), millis(median(list, func(d *drain) time.Duration { return d.before.P99 })),
			millis(median(list, func(d *drain) time.Duration { return d.foreground.P50 })), millis(p99), ratio(p99, r.undisturbed.P99), took.Seconds(), longer,
			float64(list[0].messages)/took.Seconds(), strings.Join(others, ", "))
	}
	return b.String()
}

// median returns the median of a figure of some drains.
func median[T cmp.Ordered](list []*drain, figure func(*drain) T) T {
	v := make([]T, len(list))
	for i, d := range list {
		v[i] = figure(d)
	}
	slices.Sort(v)
	return v[len(v)/2]
}
