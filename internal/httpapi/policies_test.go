package httpapi

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/auth"
	"github.com/surgetank/surgetank/internal/policy"
)

func TestPoliciesOverHTTP(t *testing.T) {
	r := newRig(t, withPolicies(t))
	r.queue("orders", `{"ttl":"1h","retry":{"max_attempts":5}}`)
	r.queue("other", `{}`)
	a := r.want(http.StatusCreated, "PUT", "/v1/vhosts/%2F/policies/p", `{"pattern":"^orders","settings":{"message-ttl":60000,"max-length":10,"level":{"rate":"5/s"}}}`)
	if m := a.json(t); m["name"] != "p" || m["apply_to"] != "all" || m["priority"] != 0.0 {
		t.Errorf("the answer is %v", m)
	}
	r.want(http.StatusOK, "PUT", "/v1/vhosts/%2F/policies/p", `{"pattern":"^orders","apply_to":"queues","priority":3,"settings":{"message-ttl":60000,"max-length":10}}`)
	q := r.want(http.StatusOK, "GET", "/v1/queues/orders", "").json(t)
	in, declared := q["settings"].(map[string]any), q["declared"].(map[string]any)
	if q["policy"] != "p" || in["ttl"] != "1m" || in["max_messages"] != 10.0 || in["level"] != nil || declared["ttl"] != "1h" || declared["max_messages"] != nil {
		t.Errorf("the answer is %v", q)
	}
	if q := r.want(http.StatusOK, "GET", "/v1/queues/other", "").json(t); q["policy"] != nil || q["declared"] != nil {
		t.Errorf("the answer is %v", q)
	}
	for body, field := range map[string]string{
		`{"pattern":"(","settings":{"ttl":"1h"}}`: "pattern", `{"settings":{"ttl":"1h"}}`: "pattern", `{"pattern":"a"}`: "settings",
		`{"pattern":"a","settings":{}}`: "settings", `{"pattern":"a","settings":{"paused":true}}`: "settings.paused",
		`{"pattern":"a","settings":{"message-ttl":"x"}}`: "settings.message-ttl", `{"pattern":"a","settings":5}`: "settings",
		`{"pattern":"a","apply_to":"x","settings":{"ttl":"1h"}}`: "apply_to", `{"pattern":"a","priority":1.5,"settings":{"ttl":"1h"}}`: "priority",
		`{"pattern":"a","settings":{"ttl":"1h"},"more":1}`: "more", `{"pattern":"a","settings":{"retry":{"factor":0}}}`: "settings.retry.factor",
	} {
		a := r.do("PUT", "/v1/vhosts/%2F/policies/bad", body)
		r.wantProblem(a, http.StatusBadRequest, surgetank.CodeInvalid)
		if got := a.json(t)["field"]; got != field {
			t.Errorf("%s: field %v, want %s", body, got, field)
		}
	}
	r.wantProblem(r.do("PUT", "/v1/vhosts/nowhere/policies/p", `{"pattern":"a","settings":{"ttl":"1h"}}`), http.StatusNotFound, surgetank.CodeNotFound)
	if a := r.want(http.StatusOK, "GET", "/v1/policies?vhost=%2F", ""); strings.Count(a.body, `"name"`) != 1 {
		t.Errorf("the answer is %s", a.body)
	}
	r.want(http.StatusOK, "DELETE", "/v1/vhosts/%2F/policies/p", "")
	r.wantProblem(r.do("GET", "/v1/vhosts/%2F/policies/p", ""), http.StatusNotFound, surgetank.CodeNotFound)
	if q := r.want(http.StatusOK, "GET", "/v1/queues/orders", "").json(t); q["settings"].(map[string]any)["ttl"] != "1h" {
		t.Errorf("the answer is %v", q)
	}
	without := newRig(t)
	without.wantProblem(without.do("GET", "/v1/policies", ""), http.StatusNotFound, surgetank.CodeNotFound)
}

// Queues that doors use for themselves are in no list, and their names are not found. If a queue's
// dead letters pass through such a queue, its settings show a placeholder, which a client can send
// back.
func TestDoorsOwnQueuesAreHidden(t *testing.T) {
	r := newRig(t, withPolicies(t))
	passage := policy.Passage("/")
	if _, _, err := r.broker.DeclareQueue(t.Context(), passage, policy.PassageConfig, surgetank.DeclareNew); err != nil {
		t.Fatal(err)
	}
	if _, _, err := r.broker.DeclareQueue(t.Context(), "q", surgetank.QueueConfig{DeadLetter: passage}, surgetank.DeclareNew); err != nil {
		t.Fatal(err)
	}
	list := r.want(http.StatusOK, "GET", "/v1/queues?all_vhosts=true", "")
	if strings.Contains(list.body, "amq.internal") || !strings.Contains(list.body, `"dead_letter":"amq.dead-letters"`) {
		t.Errorf("the answer is %s", list.body)
	}
	for _, c := range [][2]string{{"GET", ""}, {"DELETE", ""}, {"PUT", "{}"}, {"POST", "/purge"}, {"GET", "/messages"}} {
		target := "/v1/vhosts/amq.internal/queues/%2F"
		if strings.HasPrefix(c[1], "/") {
			target += c[1]
		}
		r.wantProblem(r.do(c[0], target, ""), http.StatusNotFound, surgetank.CodeNotFound)
	}
	r.want(http.StatusOK, "PUT", "/v1/queues/q", `{"dead_letter":"amq.dead-letters","ttl":"1h"}`)
	info, err := r.broker.Queue(t.Context(), "q")
	if err != nil || info.Config.DeadLetter != passage {
		t.Errorf("dead letters are moved to %q, %v", info.Config.DeadLetter, err)
	}
}

// Every limit is set and applied over this door.
func TestLimitsOverHTTP(t *testing.T) {
	r := newRig(t, withPolicies(t))
	if err := r.store.PutPermission(t.Context(), "ann", "/", auth.AllPermissions); err != nil {
		t.Fatal(err)
	}
	v := r.want(http.StatusOK, "PUT", "/v1/vhosts/%2F/limits", `{"max_queues":2,"max_connections":2}`).json(t)
	if fmt.Sprint(v["limits"]) != "map[max_connections:2 max_queues:2]" {
		t.Errorf("the answer is %v", v)
	}
	u := r.want(http.StatusOK, "PUT", "/v1/users/ann/limits", `{"max_connections":1,"max_channels":0}`).json(t)
	if fmt.Sprint(u["limits"]) != "map[max_channels:0 max_connections:1]" {
		t.Errorf("the answer is %v", u)
	}
	r.queue("a", "{}")
	r.queue("b", "{}")
	r.wantProblem(r.do("PUT", "/v1/queues/c", "{}"), http.StatusTooManyRequests, surgetank.CodeFull)
	r.want(http.StatusOK, "PUT", "/v1/queues/b", `{"ttl":"1h"}`)

	subscribe := func(change ...with) answer { return r.do("POST", "/v1/queues/a/subscribe", `{"credit":1}`, change...) }
	first := subscribe(as("ann", "x"))
	id := first.json(t)["subscription"].(string)
	r.wantProblem(subscribe(as("ann", "x")), http.StatusTooManyRequests, surgetank.CodeBusy) // the user's limit
	local := subscribe().json(t)["subscription"].(string)
	r.wantProblem(subscribe(), http.StatusTooManyRequests, surgetank.CodeBusy) // the virtual host's limit
	r.want(http.StatusOK, "DELETE", "/v1/subscriptions/"+local, "")
	r.wantProblem(subscribe(as("ann", "x")), http.StatusTooManyRequests, surgetank.CodeBusy)
	if a := r.do("DELETE", "/v1/subscriptions/"+id, "", as("ann", "x")); a.status != http.StatusOK {
		t.Fatalf("the answer is %s", a.body)
	}
	if a := subscribe(as("ann", "x")); a.status != http.StatusCreated {
		t.Errorf("the answer is %s", a.body)
	}
	r.want(http.StatusOK, "PUT", "/v1/vhosts/%2F/limits", `{}`)
	r.queue("c", "{}")

	// Limits of consumers: for the user, whose first subscription exists, and for the queue.
	r.want(http.StatusOK, "PUT", "/v1/users/ann/limits", `{"max_consumers":2}`)
	second := subscribe(as("ann", "x")).json(t)["subscription"].(string)
	refused := r.wantProblem(subscribe(as("ann", "x")), http.StatusTooManyRequests, surgetank.CodeBusy)
	if !strings.Contains(refused["detail"].(string), "2 user consumers") {
		t.Errorf("the answer is %v", refused)
	}
	if a := r.do("POST", "/v1/subscriptions/"+second+"/cancel", "", as("ann", "x")); a.status != http.StatusOK { // lowers the number of subscriptions, once
		t.Fatalf("the answer is %s", a.body)
	}
	third := subscribe(as("ann", "x"))
	if third.status != http.StatusCreated {
		t.Fatalf("the answer is %s", third.body)
	}
	for _, id := range []string{second, third.json(t)["subscription"].(string)} {
		if a := r.do("DELETE", "/v1/subscriptions/"+id, "", as("ann", "x")); a.status != http.StatusOK {
			t.Fatalf("the answer is %s", a.body)
		}
		if id == second {
			r.wantProblem(subscribe(as("ann", "x")), http.StatusTooManyRequests, surgetank.CodeBusy)
		}
	}
	r.want(http.StatusOK, "PUT", "/v1/users/ann/limits", `{"max_consumers":0}`)
	r.wantProblem(subscribe(as("ann", "x")), http.StatusTooManyRequests, surgetank.CodeBusy)
	r.want(http.StatusOK, "PUT", "/v1/users/ann/limits", `{}`)
	r.want(http.StatusOK, "PUT", "/v1/queues/a?mode=merge", `{"max_consumers":1}`)
	for range 2 { // a refused request does not count
		full := r.wantProblem(subscribe(as("ann", "x")), http.StatusTooManyRequests, surgetank.CodeFull)
		if !strings.Contains(full["detail"].(string), "raise max_consumers") {
			t.Errorf("the answer is %v", full)
		}
	}
	r.wantProblem(r.do("POST", "/v1/queues/a/receive", `{"wait":"20s"}`), http.StatusTooManyRequests, surgetank.CodeFull)
	r.want(http.StatusOK, "POST", "/v1/queues/a/receive", `{}`)
	for _, body := range []string{`{"max_queues":-1}`, `{"max_queues":"2"}`, `{"max_channels":1}`, `{"max_queues":null}`} {
		r.wantProblem(r.do("PUT", "/v1/vhosts/%2F/limits", body), http.StatusBadRequest, surgetank.CodeInvalid)
	}
}

func TestTopicPermissionsOverHTTP(t *testing.T) {
	r := newRig(t)
	r.want(http.StatusOK, "PUT", "/v1/vhosts/%2F/topic-permissions/ann/amq.topic", `{"write":"a[.].*","read":""}`)
	if a := r.want(http.StatusOK, "GET", "/v1/topic-permissions?user=ann", ""); !strings.Contains(a.body, `{"user":"ann","vhost":"/","exchange":"amq.topic","write":"a[.].*","read":""}`) {
		t.Errorf("the answer is %s", a.body)
	}
	r.wantProblem(r.do("PUT", "/v1/vhosts/%2F/topic-permissions/ann/x", `{"write":"("}`), http.StatusBadRequest, surgetank.CodeInvalid)
	r.wantProblem(r.do("PUT", "/v1/vhosts/%2F/topic-permissions/ann/x", `{"write":"(","read":""}`), http.StatusBadRequest, surgetank.CodeInvalid)
	r.wantProblem(r.do("PUT", "/v1/vhosts/%2F/topic-permissions/nobody/x", `{"write":"","read":""}`), http.StatusNotFound, surgetank.CodeNotFound)
	r.want(http.StatusOK, "DELETE", "/v1/vhosts/%2F/topic-permissions/ann/amq.topic", "")
	if a := r.want(http.StatusOK, "GET", "/v1/topic-permissions", ""); strings.Contains(a.body, "ann") {
		t.Errorf("the answer is %s", a.body)
	}
}
