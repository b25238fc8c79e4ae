package httpapi

import (
	"net/http"
	"strings"
	"testing"

	"github.com/surgetank/surgetank"
)

// TestAnswersAreBounded: while clients do not read their answers, other clients get "busy". The
// attempts and order of messages do not change.
func TestAnswersAreBounded(t *testing.T) {
	r := newRig(t, func(o *Options) { o.Limits.MaxAnswers = 4000 })
	r.want(http.StatusCreated, "PUT", "/v1/queues/q", "{}")
	for range 4 {
		r.want(http.StatusCreated, "POST", "/v1/queues/q/messages", strings.Repeat("x", 1500))
	}
	r.want(http.StatusOK, "GET", "/v1/queues/q/messages?max=4", "") // a single answer may be larger than the limit
	for _, unread := range []int64{4000, 1000} {                    // first no memory is left, then too little for the fetched messages
		r.api.answers.used.Add(unread)
		r.wantProblem(r.do("POST", "/v1/queues/q/receive", `{"max":4}`), http.StatusTooManyRequests, surgetank.CodeBusy)
		r.wantProblem(r.do("GET", "/v1/queues/q/messages?max=4", ""), http.StatusTooManyRequests, surgetank.CodeBusy)
		r.api.answers.used.Add(-unread)
	}
	m := r.want(http.StatusOK, "POST", "/v1/queues/q/receive", `{"max":4}`).json(t)
	list, _ := m["messages"].([]any)
	if len(list) != 4 {
		t.Fatalf("%d messages after the answers were read, want 4", len(list))
	}
	for _, one := range list {
		if a := one.(map[string]any)["attempt"]; a != 1.0 {
			t.Errorf("a message that did not fit into an answer has attempt %v, want none counted", a)
		}
	}
	if n := r.api.answers.used.Load(); n != 0 {
		t.Errorf("%d bytes of answers are still counted", n)
	}
}

// TestSettledAnswersAreSent: without memory for an answer, messages that their delivery acks are
// not fetched. After they were fetched, they are always sent.
func TestSettledAnswersAreSent(t *testing.T) {
	r := newRig(t, func(o *Options) { o.Limits.MaxAnswers = 4000 })
	r.want(http.StatusCreated, "PUT", "/v1/queues/q", "{}")
	r.want(http.StatusCreated, "POST", "/v1/queues/q/messages", strings.Repeat("x", 3500))
	r.api.answers.used.Add(4000)
	r.wantProblem(r.do("POST", "/v1/queues/q/receive", `{"ack":false}`), http.StatusTooManyRequests, surgetank.CodeBusy)
	r.api.answers.used.Add(-1000)
	m := r.want(http.StatusOK, "POST", "/v1/queues/q/receive", `{"ack":false}`).json(t)
	if list, _ := m["messages"].([]any); len(list) != 1 {
		t.Fatalf("got %v", m)
	}
}
