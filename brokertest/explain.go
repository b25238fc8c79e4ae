package brokertest

import (
	"strings"
	"time"

	"github.com/surgetank/surgetank"
)

// explain requires that a broker says why a message waits, who holds what blocks it, and what
// comes before it.
func explain(e *env) {
	e.declare("q", surgetank.QueueConfig{Group: surgetank.GroupConfig{MaxInFlight: 1}, Retry: surgetank.RetryConfig{Initial: time.Hour, Jitter: -1}})
	why := func(o surgetank.ExplainOptions, verdict string) surgetank.Explanation {
		w, err := e.b.Explain(e.ctx, "q", o)
		e.must(err)
		if w.Verdict != verdict || w.Text == "" {
			e.Fatalf("%+v waits because %q: %q, want %q", o, w.Verdict, w.Text, verdict)
		}
		return w
	}
	why(surgetank.ExplainOptions{}, "empty")
	g := func(body string) surgetank.Publishing {
		m := message("q", body)
		m.Message.Group = "g"
		return m
	}
	ids := e.publish(g("1"), g("2"), g("3"))
	why(surgetank.ExplainOptions{}, "no_consumer")
	sub := e.subscribe("q", surgetank.SubscribeOptions{Credit: 5, Name: "worker"})
	got := e.collect(sub, 1)
	w := why(surgetank.ExplainOptions{ID: ids[1]}, "group_in_flight")
	if len(w.Leases) != 1 || w.Leases[0].ID != ids[0] || w.Leases[0].Name != "worker" || w.Leases[0].Since.IsZero() || !strings.Contains(w.Text, "worker") {
		e.Errorf("the holder is not named: %+v", w)
	}
	why(surgetank.ExplainOptions{ID: ids[0]}, "leased")
	w = why(surgetank.ExplainOptions{}, "group_in_flight")
	if len(w.Groups) != 1 || w.Groups[0].Group != "g" || w.Groups[0].Waiting != 2 || w.Groups[0].InFlight != 1 || w.Drain.Backlog != 3 || w.Drain.Text == "" {
		e.Errorf("the queue's groups and drain are %+v, %+v", w.Groups, w.Drain)
	}
	e.nack(got[0], surgetank.Settlement{Op: surgetank.Nack, Delay: surgetank.RetryBackoff, Reason: "no such customer"})
	w = why(surgetank.ExplainOptions{ID: ids[2]}, "behind")
	if w.Ahead != 2 || w.Behind == nil || w.Behind.Verdict != "back_off" || w.Behind.ID != ids[0] || w.Behind.Failure != "no such customer" || w.NextTry.IsZero() {
		e.Errorf("behind the back-off: %+v, %+v", w, w.Behind)
	}
	w = why(surgetank.ExplainOptions{Group: "g"}, "back_off")
	if w.ID != ids[0] || w.Attempt != 1 || !w.Until.Equal(w.NextTry) {
		e.Errorf("the group: %+v", w)
	}
	e.must(e.b.PauseQueue(e.ctx, "q", time.Hour))
	if w = why(surgetank.ExplainOptions{ID: ids[2]}, "paused"); w.Until.IsZero() {
		e.Errorf("the end of the pause is missing: %+v", w)
	}
	for _, o := range []surgetank.ExplainOptions{{Group: "nowhere"}, {ID: surgetank.MessageID{Queue: ids[0].Queue, Seq: 99}}, {ID: surgetank.MessageID{Queue: ids[0].Queue + 77, Seq: 1}}} {
		_, err := e.b.Explain(e.ctx, "q", o)
		e.code(err, surgetank.CodeNotFound)
	}
	_, err := e.b.Explain(e.ctx, "q", surgetank.ExplainOptions{Group: "g", ID: ids[0]})
	e.code(err, surgetank.CodeInvalid)
	_, err = e.b.Explain(e.ctx, "nope", surgetank.ExplainOptions{})
	e.code(err, surgetank.CodeNotFound)
	for _, group := range []string{"\x00\x05", strings.Repeat("g", 1000)} {
		_, err = e.b.Explain(e.ctx, "q", surgetank.ExplainOptions{Group: group})
		e.code(err, surgetank.CodeInvalid)
	}
}
