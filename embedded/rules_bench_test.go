package embedded_test

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/embedded"
)

// rule is one row of BenchmarkRules: the same messages without the rule and with the rule.
type rule struct {
	name    string
	off, on surgetank.QueueConfig
	vary    func(m *surgetank.Message, i int) // changes the message with number i; nil: all are equal
	nack    func(i int) bool                  // tells whether the hand-out with number i fails
}

// rules has the rows of BenchmarkRules in internal/queue, with the same settings.
var rules = func() []rule {
	type config = surgetank.QueueConfig
	type level = surgetank.LevelConfig
	adaptive := surgetank.AdaptiveConfig{On: true, Min: pathCredit, Max: 2 * pathCredit}
	fair, strict := surgetank.GroupConfig{Fair: true}, surgetank.GroupConfig{MaxInFlight: 1}
	retry := surgetank.RetryConfig{Initial: time.Millisecond, Jitter: surgetank.NoJitter}
	budget, reasons := retry, retry
	budget.Budget = 0.5
	reasons.ByReason = map[string]surgetank.RetryRule{"deadlock": {Initial: time.Millisecond}, "HTTP 4": {MaxAttempts: 1}, "the lease ended": {Initial: time.Second}}
	tenth := func(i int) bool { return i%10 == 0 }
	coalesce := config{Coalesce: surgetank.CoalesceConfig{By: "header:k"}}
	first := config{Coalesce: surgetank.CoalesceConfig{By: "header:k", Keep: surgetank.KeepFirst}}
	return []rule{
		{name: "nothing"},
		{name: "nothing, groups", vary: grouped},
		{name: "group.fair", on: config{Group: fair}, vary: grouped},
		{name: "group.weights", on: config{Group: surgetank.GroupConfig{Fair: true, Weights: map[string]int{"group-1": 3, "*": 2}}}, vary: grouped},
		{name: "level.fresh_share", on: config{Level: level{FreshShare: 0.2}}},
		{name: "level.fresh_share, fair", off: config{Group: fair}, on: config{Group: fair, Level: level{FreshShare: 0.2}}, vary: grouped},
		{name: "priority_step", off: config{MaxPriority: 3}, on: config{MaxPriority: 3, PriorityStep: time.Minute}, vary: prioritized},
		{name: "priority_step, fair", off: config{MaxPriority: 3, Group: fair}, on: config{MaxPriority: 3, PriorityStep: time.Minute, Group: fair}, vary: prioritized},
		{name: "level.breaker", on: config{Level: level{Breaker: surgetank.BreakerErrors}}},
		{name: "level.adaptive", on: config{Level: level{Adaptive: adaptive, Breaker: surgetank.BreakerOff}}},
		{name: "adaptive and breaker", on: config{Level: level{Adaptive: adaptive, Breaker: surgetank.BreakerErrors}}},
		{name: "adaptive and breaker, groups", off: config{Group: strict}, on: config{Group: strict, Level: level{Adaptive: adaptive, Breaker: surgetank.BreakerErrors}}, vary: grouped},
		{name: "level.target", off: config{Level: level{Breaker: surgetank.BreakerOff}}, on: config{Level: level{Target: "db"}}},
		{name: "level.rate", on: config{Level: level{Rate: 1e6, Burst: 1e6}}},
		{name: "level.max_in_flight", on: config{Level: level{MaxInFlight: 2 * pathCredit}}},
		{name: "accept.rate", on: config{Accept: surgetank.AcceptConfig{Rate: 1e6, Burst: 1e6}}},
		{name: "group.rate", on: config{Group: surgetank.GroupConfig{Rate: 1e6}}, vary: grouped},
		{name: "fencing tokens", off: config{Group: surgetank.GroupConfig{MaxInFlight: 2}}, on: config{Group: strict}, vary: grouped},
		{name: "retry.budget", off: config{Retry: retry}, on: config{Retry: budget}},
		{name: "retry.budget, a tenth fails", off: config{Retry: retry}, on: config{Retry: budget}, nack: tenth},
		{name: "retry.by_reason, a tenth fails", off: config{Retry: retry}, on: config{Retry: reasons}, nack: tenth},
		{name: "coalesce, no key", on: coalesce},
		{name: "coalesce, all different", on: coalesce, vary: keyed(1)},
		{name: "coalesce, two to one", on: coalesce, vary: keyed(2)},
		{name: "coalesce first, two to one", on: first, vary: keyed(2)},
		{name: "dedup_window", on: config{DedupWindow: time.Second}, vary: identified},
	}
}()

// groupNames are the groups of grouped.
var groupNames = func() (names [1000]string) {
	for i := range names {
		names[i] = fmt.Sprint("group-", i)
	}
	return names
}()

func grouped(m *surgetank.Message, i int) { m.Group = groupNames[i*7%len(groupNames)] }

func prioritized(m *surgetank.Message, i int) {
	grouped(m, i)
	m.Priority = uint8(i % 4)
}

// keyed gives each run of same messages one value of the header k.
func keyed(same int) func(*surgetank.Message, int) {
	return func(m *surgetank.Message, i int) {
		m.Headers = []surgetank.Header{{Name: "k", Value: "document-" + strconv.Itoa(i/same)}}
	}
}

func identified(m *surgetank.Message, i int) { m.DedupID = "order-" + strconv.Itoa(i) }

const (
	pathBatch  = 100
	pathCredit = 400
	pathWaits  = 5000
	pathBody   = 256
)

// hotPath publishes, receives and acks messages of one queue of a broker in memory. A turn
// publishes 100 messages and waits for their confirms. Then it receives and settles 100 messages.
// 5,000 messages wait, and 400 are leased. With half as many deliveries as messages, none wait.
type hotPath struct {
	b    *embedded.Broker
	sub  surgetank.Subscription
	rule *rule
	pubs []surgetank.Publishing
	buf  []surgetank.Delivery
	held []surgetank.Settlement
	next int // number of the next message
	got  int // deliveries so far
}

func newPath(tb testing.TB, r *rule, config surgetank.QueueConfig) *hotPath {
	b, err := embedded.Memory(embedded.Options{})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { b.Close() })
	p := &hotPath{b: b, rule: r, pubs: make([]surgetank.Publishing, pathBatch)}
	for i := range p.pubs {
		p.pubs[i] = surgetank.Publishing{Queues: []string{"q"}, Message: surgetank.Message{Body: make([]byte, pathBody)}}
	}
	if _, _, err := b.DeclareQueue(tb.Context(), "q", config, surgetank.DeclareOrUpdate); err != nil {
		tb.Fatal(err)
	}
	for range pathWaits / pathBatch {
		p.publish(tb)
	}
	if p.sub, err = b.Subscribe(tb.Context(), "q", surgetank.SubscribeOptions{Credit: pathCredit}); err != nil {
		tb.Fatal(err)
	}
	for range 200 {
		p.turn(tb)
	}
	if p.got == 0 {
		tb.Fatal("the queue delivers nothing")
	}
	return p
}

func (p *hotPath) publish(tb testing.TB) {
	if p.rule.vary != nil {
		for i := range p.pubs {
			p.rule.vary(&p.pubs[i].Message, p.next)
			p.next++
		}
	}
	results, err := p.b.Publish(tb.Context(), p.pubs)
	if err != nil {
		tb.Fatal(err)
	}
	for i := range results {
		if err := results[i].Err; err != nil || results[i].Duplicate {
			tb.Fatalf("a message was not stored: %v", err)
		}
	}
}

func (p *hotPath) turn(tb testing.TB) {
	p.publish(tb)
	var err error
	if p.buf, err = p.sub.TryReceive(p.buf[:0], pathCredit, 1<<30); err != nil {
		tb.Fatal(err)
	}
	for i := range p.buf {
		s := p.buf[i].Ack()
		if p.got++; p.rule.nack != nil && p.rule.nack(p.got) {
			s.Op, s.Reason, s.Delay = surgetank.Nack, "deadlock detected", surgetank.NoDelay
		}
		p.held = append(p.held, s)
	}
	n := min(pathBatch, len(p.held))
	results, err := p.b.Settle(tb.Context(), p.held[:n])
	if err != nil {
		tb.Fatal(err)
	}
	for _, err := range results {
		if err != nil {
			tb.Fatal(err)
		}
	}
	p.held = append(p.held[:0], p.held[n:]...)
}

// run runs n turns. It returns the processor time of the process for each message, in nanoseconds.
func (p *hotPath) run(tb testing.TB, n int) float64 {
	start := cpuTime()
	for range n {
		p.turn(tb)
	}
	return float64(cpuTime()-start) / float64(n*pathBatch)
}

// BenchmarkRules measures what each rule costs a user of an embedded broker: publish, confirm,
// delivery and ack of a message, with a log in memory. It runs a broker without the rule and a
// broker with the rule in turns, for about 40 ms each. It reports the processor time of the whole
// process for a message with both brokers, and the median of their ratios with its error. One
// operation is one such round.
//
//	go test ./embedded -run - -bench Rules -benchtime 100x
func BenchmarkRules(b *testing.B) {
	for i := range rules {
		r := &rules[i]
		b.Run(r.name, func(b *testing.B) {
			const turns = 100
			off, on := newPath(b, r, r.off), newPath(b, r, r.on)
			var offs, ons, ratios []float64
			b.ResetTimer()
			for range b.N {
				x := off.run(b, turns)
				y := on.run(b, 2*turns)
				x = (x + off.run(b, turns)) / 2
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

func median(list []float64) float64 {
	slices.Sort(list)
	return list[len(list)/2]
}
