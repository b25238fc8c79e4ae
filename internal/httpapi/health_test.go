package httpapi

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/auth"
	"github.com/surgetank/surgetank/internal/fullname"
)

func TestReady(t *testing.T) {
	var state error
	r := newRig(t, func(o *Options) { o.Ready = func() error { return state } })
	r.want(200, "GET", "/readyz", "")
	state = errors.New("the log at /secret/path failed")
	a := r.do("GET", "/readyz", "")
	r.wantProblem(a, 503, "closed")
	if strings.Contains(a.body, "secret") {
		t.Fatalf("/readyz shows the reason to everybody: %s", a.body)
	}
	r.want(200, "GET", "/healthz", "")
}

// TestReadyForAcks: while messages are refused, consumers still reach the server, and only a probe
// for publishers fails.
func TestReadyForAcks(t *testing.T) {
	why := ""
	r := newRig(t, func(o *Options) { o.Refusing = func() string { return why } })
	for _, path := range []string{"/readyz", "/readyz?for=publish"} {
		if a := r.want(200, "GET", path, ""); strings.TrimSpace(a.body) != `{"status":"ready"}` {
			t.Errorf("%s answers %s", path, a.body)
		}
	}
	why = "the disk is full"
	if a := r.want(200, "GET", "/readyz", ""); !strings.Contains(a.body, `"publish":"refused"`) || !strings.Contains(a.body, why) {
		t.Errorf("/readyz does not say that messages are refused: %s", a.body)
	}
	r.wantProblem(r.do("GET", "/readyz?for=publish", ""), 503, "full")
	r.wantProblem(r.do("GET", "/readyz?for=nobody", ""), 400, "invalid")
}

func TestMetrics(t *testing.T) {
	extra := prometheus.NewGauge(prometheus.GaugeOpts{Name: "surgetank_extra", Help: "One more."})
	r := newRig(t, func(o *Options) { o.Collectors = []prometheus.Collector{extra} })
	r.queue("orders", "{}")
	r.want(201, "POST", "/v1/queues/orders/messages?raw=lines", "1\n2\n3\n")
	r.want(200, "POST", "/v1/queues/orders/receive", "{}")
	r.do("GET", "/no/such/"+strings.Repeat("path", 100), "")
	r.do("BREW", "/v1/queues", "")
	text := r.want(200, "GET", "/metrics", "").body
	for _, want := range []string{
		`surgetank_queue_messages{queue="orders",state="ready",vhost="/"} 2`, `surgetank_queue_messages{queue="orders",state="leased",vhost="/"} 1`,
		`surgetank_queue_published_total{queue="orders",vhost="/"} 3`, `surgetank_queue_delivered_total{queue="orders",vhost="/"} 1`,
		`surgetank_queue_oldest_age_seconds{queue="orders",vhost="/"}`, `surgetank_queues 1`, `surgetank_broker_up 1`, `surgetank_extra 0`,
		`surgetank_build_info{version="1.2.3-test"} 1`, `surgetank_http_requests_total{method="POST",route="/v1/queues/{q}/messages",status="201"} 1`,
		`surgetank_http_requests_total{method="GET",route="none",status="404"} 1`, `surgetank_http_requests_total{method="other",route="none",status="405"} 1`, `go_goroutines`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the metrics lack %s", want)
		}
	}
	if strings.Contains(text, "pathpath") || strings.Contains(text, "BREW") {
		t.Error("text of a request became a label")
	}
}

// However many queues clients create, the number of series is limited and the sums are complete.
func TestMetricsAreBounded(t *testing.T) {
	r := newRig(t)
	for i := range maxQueueSeries + 20 {
		if _, _, err := r.broker.DeclareQueue(t.Context(), fmt.Sprintf("q%04d", i), surgetank.QueueConfig{}, surgetank.DeclareNew); err != nil {
			t.Fatal(err)
		}
	}
	r.want(201, "POST", "/v1/queues/q1015/messages", "x")
	text := r.want(200, "GET", "/metrics", "").body
	if n := strings.Count(text, "surgetank_queue_bytes{"); n != maxQueueSeries+1 {
		t.Fatalf("the queues have %d series, want the limit and one sum", n)
	}
	for _, want := range []string{`surgetank_queue_messages{queue="q1015",state="ready",vhost="/"} 1`, `surgetank_queue_messages{queue="",state="ready",vhost=""} 0`} {
		if !strings.Contains(text, want) {
			t.Errorf("the metrics lack %s", want)
		}
	}
}

func TestSinks(t *testing.T) {
	r := newRig(t)
	r.wantProblem(r.do("GET", "/v1/sinks", ""), 404, "not_found") // this server has no sinks
	r.wantProblem(r.do("PUT", "/v1/sinks/s", "{}"), 404, "not_found")
	r = newRig(t, func(o *Options) { o.Sinks = &fakeSinks{specs: map[string]json.RawMessage{}} })
	r.want(201, "PUT", "/v1/sinks/s", `{"queue":"q","batch":{"max":1000}}`)
	if got := r.want(200, "GET", "/v1/sinks/s", "").body; compact(t, got) != `{"queue":"q","batch":{"max":1000}}` {
		t.Fatalf("got %s", got)
	}
	r.want(201, "PUT", "/v1/queues/q", `{}`)
	r.want(201, "PUT", "/v1/queues/other", `{}`)
	for path, want := range map[string]string{"/v1/queues/q": `[{"name":"s","state":"waiting","reason":"the table is gone"}]`, "/v1/queues/other": `null`} {
		got, err := json.Marshal(r.want(200, "GET", path, "").json(t)["sinks"])
		if err != nil || !sameJSON(t, got, []byte(want)) {
			t.Errorf("%s shows the sinks %s, want %s", path, got, want)
		}
	}
	// A reason can quote messages, so a user who may only publish does not see it.
	r.want(201, "PUT", "/v1/users/pub", `{"password":"hunter2"}`)
	r.want(200, "PUT", "/v1/vhosts/%2F/permissions/pub", `{"configure":"","write":"q","read":""}`)
	if got := r.want(200, "GET", "/v1/queues/q", "", as("pub", "hunter2")).body; strings.Contains(got, "gone") || !strings.Contains(got, `"state":"waiting"`) {
		t.Errorf("a publisher sees %s", got)
	}
	r.want(200, "PUT", "/v1/sinks/s", `{}`)
	r.want(200, "POST", "/v1/sinks/s/pause", "")
	r.want(200, "GET", "/v1/sinks", "")
	r.want(200, "DELETE", "/v1/sinks/s", "")
	r.wantProblem(r.do("GET", "/v1/sinks/s", ""), 404, "not_found")
	r.wantProblem(r.do("PUT", "/v1/sinks/s", `{"a":1,"a":2}`), 400, "invalid")
	r.wantProblem(r.do("PUT", "/v1/sinks/a%00", `{}`), 400, "invalid")
}

func TestUsersOverHTTP(t *testing.T) {
	r := newRig(t)
	m := r.wantProblem(r.do("PUT", "/v1/users/bob", `{"tags":["monitoring"]}`), 400, "invalid")
	if m["field"] != "password" {
		t.Fatalf("the answer is %v", m)
	}
	a := r.want(201, "PUT", "/v1/users/bob", `{"password":"hunter2","tags":["administrator"]}`)
	if strings.Contains(a.body, "hunter2") || strings.Contains(a.body, "argon2") {
		t.Fatalf("the answer is %s", a.body)
	}
	bob := as("bob", "hunter2")
	if w := r.want(200, "GET", "/v1/whoami", "", bob).json(t); w["user"] != "bob" || w["administrator"] != true || w["local"] != false {
		t.Fatalf("%v", w)
	}
	r.want(201, "PUT", "/v1/vhosts/v", `{}`, bob) // the creator has all permissions there
	r.want(201, "PUT", "/v1/vhosts/v/queues/q", `{}`, bob)
	r.wantProblem(r.do("PUT", "/v1/queues/q", `{}`, bob), 403, "denied") // but not elsewhere
	r.wantProblem(r.do("PUT", "/v1/vhosts/v/permissions/bob", `{"write":".*"}`, bob), 400, "invalid")
	r.wantProblem(r.do("PUT", "/v1/vhosts/v/permissions/bob", `{"configure":"(","write":"","read":""}`, bob), 400, "invalid")
	r.want(200, "PUT", "/v1/vhosts/v/permissions/bob", `{"configure":"","write":"","read":"q"}`, bob)
	r.wantProblem(r.do("PUT", "/v1/vhosts/v/queues/q", `{}`, bob), 403, "denied")
	r.want(200, "DELETE", "/v1/vhosts/v", "", bob)
	if _, err := r.broker.Queue(t.Context(), fullname.Of("v", "q")); surgetank.CodeOf(err) != surgetank.CodeNotFound {
		t.Fatal("the queue of the deleted virtual host still exists")
	}
	r.want(200, "DELETE", "/v1/users/bob", "", bob)
	r.wantProblem(r.do("GET", "/v1/whoami", "", bob), 401, "denied")
	if _, err := r.store.GetUser("bob"); surgetank.CodeOf(err) != surgetank.CodeNotFound {
		t.Fatal(err)
	}
	if r.store.HasTag(auth.Local(), "x") != true { // the local administrator has every tag
		t.Fatal("the local administrator lacks a tag")
	}
}

func TestMetaOverHTTP(t *testing.T) {
	r := newRig(t)
	r.want(200, "PUT", "/v1/meta/app/k%2F1", "\x00\x01", header("Content-Type", "application/octet-stream"))
	if got := r.want(200, "GET", "/v1/meta/app", "").body; got != `{"values":{"k/1":"AAE="}}`+"\n" {
		t.Fatalf("got %s", got)
	}
	r.wantProblem(r.do("PUT", "/v1/meta/app/big", strings.Repeat("x", 1<<20+1)), 413, "too_large")
	r.want(200, "DELETE", "/v1/meta/app/k%2F1", "")
	if got := r.want(200, "GET", "/v1/meta/app", "").body; got != `{"values":{}}`+"\n" {
		t.Fatalf("got %s", got)
	}
}

func TestSubscriptionLimits(t *testing.T) {
	r := newRig(t, func(o *Options) { o.Limits.Subscriptions = 1 })
	r.queue("q", "{}")
	r.wantProblem(r.do("POST", "/v1/queues/nope/subscribe", `{}`), 404, "not_found")
	id := r.want(201, "POST", "/v1/queues/q/subscribe", `{"credit":1,"lease":"forever","pool":"p","pool_limit":5}`).json(t)["subscription"].(string)
	r.wantProblem(r.do("POST", "/v1/queues/q/subscribe", `{}`), 429, "busy")
	for _, body := range []string{`{"lease":"always"}`, `{"credit":-1}`, `{"pool_limit":1}`, `{"priority":1e99}`, `{"x":1}`} {
		r.wantProblem(r.do("POST", "/v1/queues/q/subscribe", body), 400, "invalid")
	}
	r.want(200, "DELETE", "/v1/subscriptions/"+id, "")
	r.wantProblem(r.do("POST", "/v1/subscriptions/"+id+"/receive", ""), 404, "closed")
	r.wantProblem(r.do("DELETE", "/v1/subscriptions/"+id, ""), 404, "closed")
	r.want(201, "POST", "/v1/queues/q/subscribe", `{"credit":1}`)
	if len(r.api.subs.pools) != 0 {
		t.Fatal("the pool exists after its last subscription ended")
	}
}

// A subscription over HTTP can raise the limit of its groups. It shows the queue's floor.
func TestSubscriptionGroupRun(t *testing.T) {
	r := newRig(t)
	r.want(201, "PUT", "/v1/queues/q", `{"group":{"max_in_flight":1}}`)
	for _, body := range []string{"1", "2", "3"} {
		r.want(201, "POST", "/v1/queues/q/messages", body, header("Surgetank-Group", "a"))
	}
	id := r.want(201, "POST", "/v1/queues/q/subscribe", `{"credit":10,"group_run":2}`).json(t)["subscription"].(string)
	path := "/v1/subscriptions/" + id
	got := r.want(200, "POST", path+"/receive", `{"wait":"10s"}`).json(t)
	list := got["messages"].([]any)
	if len(list) != 2 || got["floor"] != 1.0 {
		t.Fatalf("got %v, want two messages and the floor 1", got)
	}
	for _, m := range list {
		r.want(200, "POST", "/v1/settle", `{"settlements":[{"receipt":"`+m.(map[string]any)["receipt"].(string)+`","op":"ack"}]}`)
	}
	if got := r.want(200, "POST", path+"/receive", `{"wait":"10s"}`).json(t); len(got["messages"].([]any)) != 1 || got["floor"] != 2.0 {
		t.Errorf("got %v, want the third message, which was leased when the first was acked, and the floor 2", got)
	}
}

// Subscriptions with one pool share its limit, also across queues.
func TestSubscriptionPool(t *testing.T) {
	r := newRig(t)
	subscribe := func(queue, limit string) string {
		r.want(201, "PUT", "/v1/queues/"+queue, "{}")
		return "/v1/subscriptions/" + r.want(201, "POST", "/v1/queues/"+queue+"/subscribe", `{"credit":10,"pool":"p"`+limit+`}`).json(t)["subscription"].(string)
	}
	receive := func(path, body string) int {
		return len(r.want(200, "POST", path+"/receive", body).json(t)["messages"].([]any))
	}
	a, b := subscribe("a", `,"pool_limit":2`), subscribe("b", "")
	for _, queue := range []string{"a", "b", "b"} {
		r.want(201, "POST", "/v1/queues/"+queue+"/messages", "x")
	}
	if na, nb := receive(a, `{"wait":"10s"}`), receive(b, `{"wait":"10s"}`); na != 1 || nb != 1 {
		t.Fatalf("%d and %d messages, want one from each queue", na, nb)
	}
	r.want(200, "POST", b+"/credit", `{"pool_limit":3}`)
	if n := receive(b, `{"wait":"10s"}`); n != 1 {
		t.Errorf("%d messages after the limit was raised, want 1", n)
	}
}

// sameJSON compares two JSON values.
func sameJSON(t *testing.T, a, b []byte) bool {
	t.Helper()
	var x, y any
	if err := errors.Join(json.Unmarshal(a, &x), json.Unmarshal(b, &y)); err != nil {
		t.Fatal(err)
	}
	return reflect.DeepEqual(x, y)
}
