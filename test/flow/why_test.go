package flow

import (
	"strings"
	"testing"
	"time"

	"github.com/surgetank/surgetank"
)

// A message of a group waits for an earlier message that failed. The answer names the failure and
// the next try, and docs/flow-control.md lists every verdict that a client sees here.
func TestWhyIsThisWaiting(t *testing.T) {
	c, _ := serve(t, "Why is this waiting?", nil)
	shown := examples(t, "Why is this waiting?", "sh")[0]
	if !strings.Contains(shown, "--group") || !strings.Contains(shown, "--id") {
		t.Error("the examples of the command lack --group or --id")
	}
	var ids []surgetank.MessageID
	for range 3 {
		id, err := surgetank.Send(t.Context(), c, "orders", surgetank.Message{Headers: []surgetank.Header{{Name: "customer", Value: "acme"}}, Body: []byte("1")})
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	why := func(o surgetank.ExplainOptions, verdict string) surgetank.Explanation {
		t.Helper()
		e, err := c.Explain(t.Context(), "orders", o)
		if err != nil || e.Verdict != verdict {
			t.Fatalf("%+v: %q %q (%v), want %q", o, e.Verdict, e.Text, err, verdict)
		}
		if !strings.Contains(sectionOf(t, "Why is this waiting?"), "| `"+verdict+"` |") {
			t.Errorf("the verdict %q is not in the table", verdict)
		}
		return e
	}
	why(surgetank.ExplainOptions{Group: "acme"}, "no_consumer")
	sub, err := c.Subscribe(t.Context(), "orders", surgetank.SubscribeOptions{Credit: 1, Name: "billing"})
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Close()
	got, err := sub.Receive(t.Context(), nil, 1, 1<<20)
	if err != nil || len(got) != 1 {
		t.Fatal(got, err)
	}
	if e := why(surgetank.ExplainOptions{}, "group_in_flight"); !strings.Contains(e.Text, `"billing"`) {
		t.Errorf("the holder is not named: %s", e.Text)
	}
	if _, err := c.Settle(t.Context(), []surgetank.Settlement{{Receipt: got[0].Receipt, Op: surgetank.Nack, Delay: surgetank.RetryBackoff, Reason: "the ledger is locked"}}); err != nil {
		t.Fatal(err)
	}
	e := why(surgetank.ExplainOptions{ID: ids[2]}, "behind")
	if e.Ahead != 2 || e.Behind == nil || e.Behind.Failure != "the ledger is locked" || time.Until(e.NextTry) <= 0 {
		t.Errorf("behind: %+v, %+v", e, e.Behind)
	}
}
