package queue

import (
	"fmt"
	"testing"

	"github.com/surgetank/surgetank"
)

// TestProbeIsFoundQuickly: the choice of a probe looks at a bounded number of messages. In a queue
// whose oldest messages all failed, a message without attempts is found among the oldest 256, and
// not looked for behind them.
func TestProbeIsFoundQuickly(t *testing.T) {
	for _, c := range []struct {
		failed int
		found  bool
	}{{probeLooks - 1, true}, {probeLooks, false}, {5 * probeLooks, false}} {
		r := newRig(t, Limits{}, 1)
		config := surgetank.QueueConfig{Group: surgetank.GroupConfig{MaxInFlight: 1}, Retry: surgetank.RetryConfig{MaxAttempts: -1, Initial: surgetank.NoDelay}}
		r.step(&Declare{Name: "q", Config: config})
		publish := func(n int) {
			var msgs []Incoming
			for i := range n {
				msgs = append(msgs, Incoming{Publishing: &surgetank.Publishing{Queues: []string{"q"}, Message: surgetank.Message{Group: fmt.Sprint(n, i), Body: []byte("m")}}})
			}
			r.step(&Publish{Msgs: msgs, Results: make([]surgetank.PublishResult, n)})
		}
		publish(c.failed)
		a := &Attach{Queue: "q", Now: true}
		a.Opts.Credit, a.Opts.ManualCredit = c.failed, true
		var items []surgetank.Settlement
		q := r.m.byName["q"]
		for _, h := range r.step(a).Handouts {
			items = append(items, surgetank.Settlement{Receipt: surgetank.Receipt{ID: q.idOf(h.Seq), Epoch: r.m.Epoch(), Incarnation: r.m.Incarnation(), Lease: h.Lease}, Op: surgetank.Nack})
		}
		r.step(&Settle{Items: items, Results: make([]error, len(items))})
		publish(2)
		q.needControl()
		h := q.next()
		if got := q.slots.get(q.frontOf(q.control.pick(q, h))).attempts == 0; got != c.found || q.slots.get(q.frontOf(h)).attempts == 0 {
			t.Errorf("%d failed messages: a message without attempts was chosen: %v, want %v", c.failed, got, c.found)
		}
	}
}
