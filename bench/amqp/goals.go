package main

import (
	"fmt"
)

// goal is a bound that Surgetank should reach for one workload. Both compared figures should be
// from the same run.
type goal struct {
	workload string
	what     string
	atLeast  float64                                         // lower bound; if it is 0, atMost applies
	atMost   float64                                         //
	unit     string                                          // printed after the figures
	value    func(all summaries) (figure float64, have bool) // have: every needed figure was measured
	sameRun  func(all summaries) (invocations []string)      // invocations that measured the compared figures
}

// figure returns the median of a figure for a workload and a server. It returns false if there are
// no runs.
func (all summaries) figure(workload, target string, of func(result) float64) (float64, bool) {
	s, ok := all[[2]string{workload, target}]
	if !ok {
		return 0, false
	}
	return s.median(of), true
}

func rateOf(r result) float64      { return r.Rate }
func p50Of(r result) float64       { return r.P50 }
func p99Of(r result) float64       { return r.P99 }
func serverCPUOf(r result) float64 { return r.ServerCPU }
func peakOf(r result) float64      { return r.PeakMB }

func moreOf(name string) func(result) float64 {
	return func(r result) float64 { return r.More[name] }
}

// point selects a figure of one workload and server.
type point struct {
	workload, target string
	of               func(result) float64
}

// absolute makes a goal for one figure of Surgetank.
func absolute(workload, what string, of func(result) float64, atLeast, atMost float64, unit string) goal {
	return compare(workload, what, point{workload, surgetank, of}, point{}, atLeast, atMost, unit)
}

// compare makes a goal for the ratio of two figures. If bottom is zero, the goal is for the first
// figure alone.
func compare(workload, what string, top, bottom point, atLeast, atMost float64, unit string) goal {
	return goal{workload: workload, what: what, atLeast: atLeast, atMost: atMost, unit: unit,
		value: func(all summaries) (float64, bool) {
			v, ok := all.figure(top.workload, top.target, top.of)
			if bottom.of == nil || !ok {
				return v, ok
			}
			base, ok := all.figure(bottom.workload, bottom.target, bottom.of)
			if !ok || base == 0 {
				return 0, false
			}
			return v / base, true
		},
		sameRun: func(all summaries) []string {
			ids := []string{all.invocation(top.workload, top.target)}
			if bottom.of != nil {
				ids = append(ids, all.invocation(bottom.workload, bottom.target))
			}
			return ids
		},
	}
}

func (all summaries) invocation(workload, target string) string {
	if s := all[[2]string{workload, target}]; len(s.runs) > 0 {
		return s.runs[0].Invocation
	}
	return ""
}

// against makes a goal for the ratio of Surgetank's figure to that of a RabbitMQ queue.
func against(workload, what, rival string, of func(result) float64, atLeast, atMost float64) goal {
	return compare(workload, fmt.Sprintf("%s, against %s", what, rival), point{workload, surgetank, of}, point{workload, rival, of}, atLeast, atMost, "×")
}

// goals returns the project's goals. Every publishing and end-to-end rate should be above the rate
// of each kind of RabbitMQ queue. Where a goal has a number above 1, the lead should be larger.
func goals() []goal {
	const ahead = 1
	rate := "messages/s"
	list := []goal{
		against(publish1, rate, classic, rateOf, 4, 0),
		against(publish1, rate, quorum, rateOf, ahead, 0),
		against(publish8, rate, classic, rateOf, 4, 0),
		against(publish8, rate, quorum, rateOf, 2.5, 0),
		absolute(publish8, "server CPU a message", serverCPUOf, 0, 4, " µs"),
		against(sync1, rate, classic, rateOf, ahead, 0),
		against(sync1, rate, quorum, rateOf, ahead, 0),
		against(sync64, rate, classic, rateOf, 4, 0),
		against(sync64, rate, quorum, rateOf, ahead, 0),
		against(endToEnd, rate, classic, rateOf, 3, 0),
		against(endToEnd, rate, quorum, rateOf, 2, 0),
		absolute(endToEnd, "server CPU a message", serverCPUOf, 0, 6, " µs"),
		absolute(endToEnd5k, "latency p50", p50Of, 0, 0.5, " ms"),
		absolute(endToEnd5k, "latency p99", p99Of, 0, 3, " ms"),
		against(queues1000, rate, classic, rateOf, 4, 0),
		against(queues1000, rate, quorum, rateOf, ahead, 0),
		compare(queues1000, "messages/s, against one queue (publish-1k-8)", point{queues1000, surgetank, rateOf},
			point{publish8, surgetank, rateOf}, 0.9, 0, "×"),
		against(backlog2m, "publishing, messages/s", classic, rateOf, 4, 0),
		against(backlog2m, "publishing, messages/s", quorum, rateOf, ahead, 0),
		absolute(backlog2m, "peak memory", peakOf, 0, 150, " MB"),
		absolute(backlog2m, "first delivery after a clean stop", moreOf(moreClean), 0, 0.3, " s"),
		absolute(backlog2m, "first delivery after kill -9", moreOf(moreKilled), 0, 1, " s"),
		compare(backlog2m, "draining, messages/s, against e2e", point{backlog2m, surgetank, moreOf(moreDrain)},
			point{endToEnd, surgetank, rateOf}, 1, 0, "×"),
		against(backlog2m, "draining, messages/s", classic, moreOf(moreDrain), ahead, 0),
		against(backlog2m, "draining, messages/s", quorum, moreOf(moreDrain), ahead, 0),
		absolute(backlog2m, "messages lost", moreOf(moreLost), 0, 0, ""),
	}
	for _, w := range []string{publish1, publish8, sync64, endToEnd, endToEnd5k, queues1000, backlog2m} {
		list = append(list, against(w, "server CPU a message", classic, serverCPUOf, 0, 0.1))
	}
	for _, rival := range []string{classic, quorum} {
		list = append(list, against(endToEnd5k, "latency p50", rival, p50Of, 0, ahead), against(endToEnd5k, "latency p99", rival, p99Of, 0, ahead))
	}
	return list
}

// met reports whether a figure reaches the goal.
func (g goal) met(v float64) bool {
	if g.atLeast > 0 {
		return v >= g.atLeast
	}
	return v <= g.atMost
}

// wanted returns the goal's bound as text.
func (g goal) wanted() string {
	if g.atLeast > 0 {
		return fmt.Sprintf("≥ %s%s", figure(g.atLeast), g.unit)
	}
	return fmt.Sprintf("≤ %s%s", figure(g.atMost), g.unit)
}
