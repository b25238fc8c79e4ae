package queue

import (
	"testing"

	"github.com/surgetank/surgetank"
)

// TestTokensAtTheirEnd: a token is positive and grows up to the last number. After that, leases
// have no token: none repeats or falls below an earlier one. After a restart, tokens go on.
func TestTokensAtTheirEnd(t *testing.T) {
	r := newRig(t, Limits{}, 1)
	r.step(&Declare{Name: "q", Config: surgetank.QueueConfig{Group: surgetank.GroupConfig{MaxInFlight: 1}, Retry: surgetank.RetryConfig{MaxAttempts: -1}}})
	p := surgetank.Publishing{Queues: []string{"q"}, Message: surgetank.Message{Group: "g", Body: []byte("m")}}
	r.step(&Publish{Msgs: []Incoming{{Publishing: &p}}, Results: make([]surgetank.PublishResult, 1)})
	lease := func() (h Handout) {
		c := &Attach{Queue: "q", Now: true}
		c.Opts.Credit, c.Opts.ManualCredit = 1, true
		out := r.step(c)
		if len(out.Handouts) != 1 {
			t.Fatalf("%d hand-outs", len(out.Handouts))
		}
		h = out.Handouts[0]
		q := r.m.byName["q"]
		s := surgetank.Settlement{Receipt: surgetank.Receipt{ID: q.idOf(h.Seq), Epoch: r.m.Epoch(), Incarnation: r.m.Incarnation(), Lease: h.Lease}, Op: surgetank.Nack, Uncounted: true}
		r.step(&Settle{Items: []surgetank.Settlement{s}, Results: make([]error, 1)})
		return h
	}
	first := lease().Token
	r.m.nextLease = 1<<leaseBits - 2
	last := lease().Token
	if first <= 0 || last <= first {
		t.Errorf("tokens %d, then %d", first, last)
	}
	for range 2 {
		if token := lease().Token; token != 0 {
			t.Errorf("a lease beyond the last token has the token %d", token)
		}
	}
	r.m = r.replayed(len(r.log))
	r.step(&OpenEpoch{Epoch: r.m.Epoch() + 1, Incarnation: 77})
	if token := lease().Token; token <= last {
		t.Errorf("after a restart, the token is %d after %d", token, last)
	}
	r.m.epoch = maxTokenEpoch
	if token := lease().Token; token <= last {
		t.Errorf("the last epoch has the token %d", token)
	}
	r.m.epoch++
	if token := lease().Token; token != 0 {
		t.Errorf("an epoch beyond the last one has the token %d", token)
	}
}
