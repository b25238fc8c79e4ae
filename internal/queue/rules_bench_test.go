package queue_test

import (
	"cmp"
	"encoding/binary"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/queue"
)

// rule is one row of BenchmarkRules: the same messages without the rule and with the rule.
type rule struct {
	name    string
	off, on surgetank.QueueConfig
	vary    func(in *queue.Incoming, i int)
	nack    func(i int) bool
}

// rules has a row for each rule of docs/flow-control.md that a setting turns on. "nothing" compares
// two equal queues, so it shows how exact the measurement is.
var rules = func() []rule {
	type config = surgetank.QueueConfig
	type level = surgetank.LevelConfig
	adaptive := surgetank.AdaptiveConfig{On: true, Min: pathCredit, Max: 2 * pathCredit}
	group := surgetank.GroupConfig{Fair: true}
	strict := config{Group: surgetank.GroupConfig{MaxInFlight: 1}}
	retry := surgetank.RetryConfig{Initial: time.Millisecond, Jitter: surgetank.NoJitter}
	budget, reasons := retry, retry
	budget.Budget = 0.5
	reasons.ByReason = map[string]surgetank.RetryRule{"deadlock": {Initial: time.Millisecond}, "HTTP 4": {MaxAttempts: 1}, "the lease ended": {Initial: time.Second}}
	tenth := func(i int) bool { return i%10 == 0 }
	return []rule{
		{name: "nothing"},
		{name: "nothing, groups", vary: grouped},
		{name: "group.fair", on: config{Group: group}, vary: grouped},
		{name: "group.weights", on: config{Group: surgetank.GroupConfig{Fair: true, Weights: map[string]int{"group-1": 3, "*": 2}}}, vary: grouped},
		{name: "level.fresh_share", on: config{Level: level{FreshShare: 0.2}}},
		{name: "level.fresh_share, fair", off: config{Group: group}, on: config{Group: group, Level: level{FreshShare: 0.2}}, vary: grouped},
		{name: "priority_step", off: config{MaxPriority: 3}, on: config{MaxPriority: 3, PriorityStep: time.Minute}, vary: prioritized},
		{name: "priority_step, fair", off: config{MaxPriority: 3, Group: group}, on: config{MaxPriority: 3, PriorityStep: time.Minute, Group: group}, vary: prioritized},
		{name: "level.breaker", on: config{Level: level{Breaker: surgetank.BreakerErrors}}},
		{name: "level.adaptive", on: config{Level: level{Adaptive: adaptive, Breaker: surgetank.BreakerOff}}},
		{name: "adaptive and breaker", on: config{Level: level{Adaptive: adaptive, Breaker: surgetank.BreakerErrors}}},
		{name: "adaptive and breaker, groups", off: strict, on: config{Group: strict.Group, Level: level{Adaptive: adaptive, Breaker: surgetank.BreakerErrors}}, vary: grouped},
		{name: "level.target", off: config{Level: level{Breaker: surgetank.BreakerOff}}, on: config{Level: level{Target: "db"}}},
		{name: "level.rate", on: config{Level: level{Rate: 1e6, Burst: 1e6}}},
		{name: "level.max_in_flight", on: config{Level: level{MaxInFlight: 2 * pathCredit}}},
		{name: "accept.rate", on: config{Accept: surgetank.AcceptConfig{Rate: 1e6, Burst: 1e6}}},
		{name: "group.rate", on: config{Group: surgetank.GroupConfig{Rate: 1e6}}, vary: grouped},
		{name: "fencing tokens", off: config{Group: surgetank.GroupConfig{MaxInFlight: 2}}, on: strict, vary: grouped},
		{name: "retry.budget", off: config{Retry: retry}, on: config{Retry: budget}},
		{name: "retry.budget, a tenth fails", off: config{Retry: retry}, on: config{Retry: budget}, nack: tenth},
		{name: "retry.by_reason, a tenth fails", off: config{Retry: retry}, on: config{Retry: reasons}, nack: tenth},
		{name: "coalesce, no key", on: config{Coalesce: surgetank.CoalesceConfig{By: "header:k"}}},
		{name: "coalesce, all different", on: config{Coalesce: surgetank.CoalesceConfig{By: "header:k"}}, vary: keyed(1)},
		{name: "coalesce, two to one", on: config{Coalesce: surgetank.CoalesceConfig{By: "header:k"}}, vary: keyed(2)},
		{name: "coalesce first, two to one", on: config{Coalesce: surgetank.CoalesceConfig{By: "header:k", Keep: surgetank.KeepFirst}}, vary: keyed(2)},
		{name: "dedup_window", on: config{DedupWindow: time.Second}, vary: identified},
	}
}()

func prioritized(in *queue.Incoming, i int) {
	grouped(in, i)
	in.Message.Priority = uint8(i % 4)
}

// keyed gives each run of same messages one coalescing key. The key is made in both queues, because
// the caller of the machine makes it.
func keyed(same int) func(*queue.Incoming, int) {
	return func(in *queue.Incoming, i int) {
		if in.Keys == nil {
			in.Keys = make([]queue.Key, 1)
		}
		in.Keys[0].Hash = queue.CoalesceKey(spread(i / same))
	}
}

func identified(in *queue.Incoming, i int) {
	in.Message.DedupID = "an id"
	in.Dedup = queue.DedupKey(spread(i))
}

// spread returns different bytes for each number, as a hash would.
func spread(i int) (k [16]byte) {
	binary.LittleEndian.PutUint64(k[:], uint64(i)*0x9e3779b97f4a7c15)
	binary.LittleEndian.PutUint64(k[8:], uint64(i))
	return k
}

// BenchmarkRules measures what each rule costs on the hot path of the machine. It runs a queue
// without the rule and a queue with the rule in turns, for some milliseconds each. It reports the
// processor time of a message in both queues, and the median of their ratios with its error. One
// operation is one such round.
//
//	go test ./internal/queue -run - -bench Rules -benchtime 300x
func BenchmarkRules(b *testing.B) {
	for _, u := range rules {
		b.Run(u.name, func(b *testing.B) {
			const turns = 50
			off, on := newPath(u.off, u.vary, u.nack), newPath(u.on, u.vary, u.nack)
			var offs, ons, ratios []float64
			b.ResetTimer()
			for range b.N {
				x := off.run(turns)
				y := on.run(2 * turns)
				x = (x + off.run(turns)) / 2
				offs, ons, ratios = append(offs, x), append(ons, y), append(ratios, y/x)
			}
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(median(offs), "off-ns/msg")
			b.ReportMetric(median(ons), "on-ns/msg")
			b.ReportMetric(median(ratios), "ratio")
			b.ReportMetric(notch(ratios), "±")
		})
	}
}

// notch returns how far the median of a sorted list can be from the true median, with a confidence
// of 95 % (McGill, Tukey and Larsen, 1978).
func notch(list []float64) float64 {
	n := len(list)
	return 1.57 * (list[n*3/4] - list[n/4]) / math.Sqrt(float64(n))
}

func median[T cmp.Ordered](list []T) T {
	slices.Sort(list)
	return list[len(list)/2]
}
