package flow

import (
	"testing"
	"time"

	"github.com/surgetank/surgetank"
)

// receive leases one message. It returns nil if no message comes.
func receive(t *testing.T, b surgetank.Broker, queue string, wait time.Duration) *surgetank.Delivery {
	t.Helper()
	list, err := b.Receive(t.Context(), queue, surgetank.ReceiveOptions{Wait: wait})
	if err != nil {
		t.Fatal(err)
	}
	if len(list) == 0 {
		return nil
	}
	return &list[0]
}

func settle(t *testing.T, b surgetank.Broker, s surgetank.Settlement) {
	t.Helper()
	results, err := b.Settle(t.Context(), []surgetank.Settlement{s})
	if err != nil || results[0] != nil {
		t.Fatal(err, results)
	}
}

// TestAdaptiveLevel runs the example of the section "Adaptive level": the limit begins with one
// message, grows with answers, and is shown with its history.
func TestAdaptiveLevel(t *testing.T) {
	c, _ := serve(t, "Adaptive level", nil)
	for range 3 {
		if _, err := surgetank.Send(t.Context(), c, "orders", surgetank.Message{Body: []byte("x")}); err != nil {
			t.Fatal(err)
		}
	}
	first := receive(t, c, "orders", time.Minute)
	if second := receive(t, c, "orders", 0); first == nil || second != nil {
		t.Fatalf("the first probe has the messages %v and %v, want one", first, second)
	}
	i, err := c.Queue(t.Context(), "orders")
	if err != nil || i.Level == nil || i.Level.Limit != 1 || i.Level.InFlight != 1 || i.Level.Breaker != "closed" {
		t.Fatalf("%+v, %v", i.Level, err)
	}
	settle(t, c, surgetank.Settlement{Receipt: first.Receipt, Op: surgetank.Ack, Elapsed: 5 * time.Millisecond})
	if receive(t, c, "orders", time.Minute) == nil {
		t.Fatal("nothing came after an ack")
	}
	if h, err := c.LevelHistory(t.Context(), "orders"); err != nil || len(h.Changes) != 1 || h.Changes[0].Reason != "started" {
		t.Fatalf("%+v, %v", h, err)
	}
	if _, err := c.Receive(t.Context(), "orders", surgetank.ReceiveOptions{NoAck: true}); surgetank.CodeOf(err) != surgetank.CodeInvalid {
		t.Fatalf("a consumer without acks: %v", err)
	}
}

// TestBreaker runs the example of the section "Breaker": a report opens the breaker, and the
// attempt does not count. A command opens and closes the breaker for all queues of a target.
func TestBreaker(t *testing.T) {
	c, _ := serve(t, "Breaker", nil)
	for _, q := range []string{"orders", "invoices", "refunds"} {
		if _, err := surgetank.Send(t.Context(), c, q, surgetank.Message{Body: []byte("x")}); err != nil {
			t.Fatal(err)
		}
	}
	d := receive(t, c, "orders", time.Minute)
	settle(t, c, surgetank.Settlement{Receipt: d.Receipt, Op: surgetank.Nack, Delay: surgetank.RetryBackoff, Target: surgetank.TargetDown, Reason: "connection refused"})
	i, err := c.Queue(t.Context(), "orders")
	if err != nil || i.Level == nil || i.Level.Breaker == "closed" || i.Level.Openings != 1 || i.Level.BreakerCause != "down_reported" {
		t.Fatalf("%+v, %v", i.Level, err)
	}
	again := receive(t, c, "orders", time.Minute) // the probe
	if again == nil || again.Attempt != 1 {
		t.Fatalf("%+v: the attempt counted", again)
	}
	settle(t, c, surgetank.Settlement{Receipt: again.Receipt, Op: surgetank.Ack})
	if h, err := c.LevelHistory(t.Context(), "orders"); err != nil || len(h.Outages) != 1 || h.Outages[0].Probes != 1 {
		t.Fatalf("%+v, %v", h, err)
	}

	if err := c.OpenBreaker(t.Context(), "invoices", surgetank.BreakerOptions{Reason: "new disk"}); err != nil {
		t.Fatal(err)
	}
	if d := receive(t, c, "refunds", 0); d != nil {
		t.Fatalf("%+v was delivered although its target is held", d)
	}
	if i, err := c.Queue(t.Context(), "refunds"); err != nil || i.Level == nil || i.Level.Breaker != "held" || i.Level.BreakerWhy != "new disk" || i.Waiting == "" {
		t.Fatalf("%+v, %v", i, err)
	}
	if err := c.CloseBreaker(t.Context(), "refunds", surgetank.BreakerOptions{}); err != nil {
		t.Fatal(err)
	}
	if receive(t, c, "refunds", time.Minute) == nil {
		t.Fatal("nothing came after the breaker was closed")
	}
}
