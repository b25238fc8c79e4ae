package flow

import (
	"testing"
	"time"

	"github.com/surgetank/surgetank"
)

// If the reason of a nack has a rule, the message is tried again with the delays and the largest
// number of attempts of this rule. After a nack with another reason, retry applies.
func TestRetryByReason(t *testing.T) {
	c, _ := serve(t, "Retry by reason", nil)
	send := func() {
		t.Helper()
		if _, err := surgetank.Send(t.Context(), c, "orders", surgetank.Message{Body: []byte("1")}); err != nil {
			t.Fatal(err)
		}
	}
	fail := func(reason string) {
		t.Helper()
		got, err := c.Receive(t.Context(), "orders", surgetank.ReceiveOptions{Wait: time.Minute})
		if err != nil || len(got) != 1 {
			t.Fatal(got, err)
		}
		_, err = c.Settle(t.Context(), []surgetank.Settlement{{Receipt: got[0].Receipt, Op: surgetank.Nack, Delay: surgetank.RetryBackoff, Reason: reason}})
		if err != nil {
			t.Fatal(err)
		}
	}
	send()
	fail("HTTP 422: no such customer") // its rule permits one attempt
	dead, err := c.Receive(t.Context(), "orders.dead", surgetank.ReceiveOptions{})
	if err != nil || len(dead) != 1 || dead[0].Deaths[0].Attempts != 1 {
		t.Fatalf("%+v, %v", dead, err)
	}
	send()
	fail("Deadlock detected") // its rule waits 50 ms
	before := time.Now()
	fail("connection refused") // no rule: 5 s, as in retry
	q, err := c.Queue(t.Context(), "orders")
	if err != nil || q.BackingOff != 1 || q.Failure != "connection refused" || q.NextTry.Sub(before) < 2*time.Second {
		t.Errorf("%d back off until %v after %q, %v", q.BackingOff, q.NextTry, q.Failure, err)
	}
}
