package httpapi

import (
	"context"
	"encoding/json"
	"fmt"
	"github.com/surgetank/surgetank/internal/shards/shardstest"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/auth"
	"github.com/surgetank/surgetank/internal/fullname"
)

func TestQueueSettings(t *testing.T) {
	r := newRig(t)
	in := `{"group_by":"header:customer","group":{"max_in_flight":1,"rate":"50/s","fair":true},"level":{"rate":"2000/s","burst":200,"max_in_flight":64},
		"retry":{"max_attempts":8,"initial":"1s","factor":2,"max":"10m","jitter":0.5},"dead_letter":"orders.dead","dedup":{"window":"10m"},
		"ttl":"24h","max_bytes":"50GiB","overflow":"drop_oldest","lease":"30s"}`
	a := r.want(http.StatusCreated, "PUT", "/v1/queues/orders", in)
	shown := a.json(t)["settings"]
	var want any
	if err := json.Unmarshal([]byte(in), &want); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, shown); d != "" {
		t.Fatalf("difference: %s", d)
	}
	b, err := json.Marshal(shown)
	if err != nil {
		t.Fatal(err)
	}
	// The displayed settings can be sent again and change nothing; the second time nothing is
	// created.
	again := r.want(http.StatusOK, "PUT", "/v1/queues/orders", string(b))
	if d := cmp.Diff(shown, again.json(t)["settings"]); d != "" {
		t.Fatalf("difference: %s", d)
	}
	r.wantProblem(r.do("PUT", "/v1/queues/orders?mode=create", "{}"), http.StatusConflict, "exists")
	r.wantProblem(r.do("PUT", "/v1/queues/nope?mode=update", "{}"), http.StatusNotFound, "not_found")
	r.want(http.StatusOK, "PUT", "/v1/queues/orders?mode=create_if_absent", "{}")
	if d := cmp.Diff(shown, r.want(http.StatusOK, "GET", "/v1/queues/orders", "").json(t)["settings"]); d != "" {
		t.Fatalf("create_if_absent changed the settings: %s", d)
	}
	for body, field := range map[string]string{
		`{"level":{"adaptive":{"min":0}}}`: "level.adaptive", `{"coalesce":{"by":"x"}}`: "coalesce.by", `{"ttl":"1x"}`: "ttl", `{"grup":1}`: "grup",
		`{"retry":{"factor":0}}`: "retry.factor", `{"max_bytes":1.5}`: "max_bytes", `{"max_bytes":-1}`: "max_bytes", `{"lease":1e400}`: "lease",
	} {
		if m := r.wantProblem(r.do("PUT", "/v1/queues/x", body), 400, "invalid"); m["field"] != field {
			t.Errorf("%s: field %v", body, m["field"])
		}
	}
	r.wantProblem(r.do("GET", "/v1/queues/x", ""), 404, "not_found")
}

func TestQueueNamesAndVhosts(t *testing.T) {
	r := newRig(t)
	r.want(http.StatusCreated, "PUT", "/v1/vhosts/v%2F1", `{"description":"d"}`)
	for path, full := range map[string]string{
		"/v1/queues/a%2Fb":                 fullname.Of("/", "a/b"),
		"/v1/queues/%2E%2E":                "..",
		"/v1/vhosts/%2F/queues/plain":      "plain",
		"/v1/vhosts/v%2F1/queues/q":        fullname.Of("v/1", "q"),
		"/v1/queues/%C3%A9%20%25%3F%23%2B": "é %?#+",
	} {
		r.want(http.StatusCreated, "PUT", path, `{"dead_letter":"dl"}`)
		info, err := r.broker.Queue(t.Context(), full)
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		vhost, _ := fullname.Split(full)
		if info.Config.DeadLetter != fullname.Of(vhost, "dl") {
			t.Errorf("%s: dead letters are moved to %q", path, info.Config.DeadLetter)
		}
		if s := r.want(http.StatusOK, "GET", path, "").json(t)["settings"].(map[string]any)["dead_letter"]; s != "dl" {
			t.Errorf("%s: shows %q", path, s)
		}
	}
	for path, status := range map[string]int{
		"/v1/queues/a%00b": 400, "/v1/queues/a%1Fb": 400, "/v1/queues/%ff": 400, "/v1/queues/" + strings.Repeat("a", 256): 400,
		"/v1/queues/" + strings.Repeat("a", 8192): 400, "/v1/queues//": 404, "/v1//queues": 404, "/v1/queues/": 404, "/v1/queues/../queues/a": 404,
		"/v1/./queues": 404, "/v1/vhosts/nope/queues/q": 404, "/v1/vhosts/a%1Fb/queues/q": 404, "/V1/queues": 404, "/": 404,
	} {
		if a := r.do("GET", path, ""); a.status != status {
			t.Errorf("%.60s: %d, want %d: %s", path, a.status, status, a.body)
		}
	}
	list := r.want(http.StatusOK, "GET", "/v1/vhosts/v%2F1/queues", "").json(t)["queues"].([]any)
	if len(list) != 1 || list[0].(map[string]any)["vhost"] != "v/1" {
		t.Fatalf("the messages are %v", list)
	}
}

func TestListQueuesInPages(t *testing.T) {
	r := newRig(t)
	r.want(http.StatusCreated, "PUT", "/v1/vhosts/v", "{}")
	for i := range 5 {
		r.queue(fmt.Sprintf("q%d", i), "{}")
		r.want(http.StatusCreated, "PUT", fmt.Sprintf("/v1/vhosts/v/queues/w%d", i), "{}")
	}
	for base, want := range map[string]string{
		"/v1/queues?max=2": "q0 q1|q2 q3|q4", "/v1/queues?max=5": "q0 q1 q2 q3 q4", "/v1/queues?max=3&all_vhosts=true": "q0 q1 q2|q3 q4 w0|w1 w2 w3|w4",
		"/v1/vhosts/v/queues?prefix=w3": "w3",
	} {
		var pages []string
		for next := ""; ; {
			m := r.want(http.StatusOK, "GET", base+"&after="+strings.ReplaceAll(next, "\n", "%0A"), "").json(t)
			var names []string
			for _, q := range m["queues"].([]any) {
				names = append(names, q.(map[string]any)["name"].(string))
			}
			pages = append(pages, strings.Join(names, " "))
			if next, _ = m["next"].(string); next == "" {
				break
			}
		}
		if got := strings.Join(pages, "|"); got != want {
			t.Errorf("%s: %s, want %s", base, got, want)
		}
	}
	r.wantProblem(r.do("GET", "/v1/queues?max=-1", ""), 400, "invalid")
	r.wantProblem(r.do("GET", "/v1/queues?max=1e3", ""), 400, "invalid")
	r.wantProblem(r.do("GET", "/v1/queues?name=.*", ""), 400, "invalid")
}

// receipts reads the answer of a receive.
func receipts(t *testing.T, a answer) (list []map[string]any, all string) {
	t.Helper()
	var quoted []string
	for _, m := range a.json(t)["messages"].([]any) {
		one := m.(map[string]any)
		list = append(list, one)
		quoted = append(quoted, `"`+one["receipt"].(string)+`"`)
	}
	return list, `[` + strings.Join(quoted, ",") + `]`
}

func TestReceiveAndSettle(t *testing.T) {
	shardstest.One(t, "the test compares message ids")
	r := newRig(t)
	r.queue("q", `{"retry":{"max_attempts":2,"initial":"0s"}}`)
	r.queue("other", "{}")
	r.want(http.StatusCreated, "POST", "/v1/queues/q/messages", lines(`{"body":{"n": 1},"group":"g","key":"k","headers":{"h":"v"}}`, `{"body_base64":"AP8=","content_type":"x/y"}`, `{"body":3}`),
		header("Content-Type", ndjsonType))

	got := r.want(http.StatusOK, "POST", "/v1/queues/q/receive", `{"max":10,"wait":"1s","lease":"1m"}`)
	list, all := receipts(t, got)
	if len(list) != 3 || list[0]["id"] != "1-1" || list[0]["attempt"] != 1.0 || list[0]["group"] != "g" || list[0]["key"] != "k" || list[1]["body_base64"] != "AP8=" ||
		list[1]["content_type"] != "x/y" || list[0]["deadline"] == nil || list[0]["time"] == nil {
		t.Fatalf("the answer is %s", got.body)
	}
	contains(t, "the body as it was", got.body, `"body":{"n": 1}`)
	if a := r.want(http.StatusOK, "POST", "/v1/queues/q/receive", "{}"); a.body != "{\"messages\":[]}\n" {
		t.Fatalf("the answer is %s", a.body)
	}
	first, second, third := list[0]["receipt"].(string), list[1]["receipt"].(string), list[2]["receipt"].(string)

	// The path of another queue cannot settle them, whatever its permissions are.
	m := r.wantProblem(r.do("POST", "/v1/queues/other/ack", `{"receipts":`+all+`}`), 400, "invalid")
	contains(t, "detail", m["detail"].(string), "another queue")

	ext := r.want(http.StatusOK, "POST", "/v1/queues/q/extend", `{"receipts":`+all+`,"lease":"2m"}`).json(t)
	if ext["done"] != 3.0 || ext["failed"] != 0.0 {
		t.Fatalf("the answer is %v", ext)
	}
	ack := r.want(http.StatusOK, "POST", "/v1/queues/q/ack", `{"receipts":["`+first+`","`+first+`"]}`)
	if got := compact(t, ack.body); !strings.HasPrefix(got, `{"done":1,"failed":1,"results":[{"receipt":"`+first+`","ok":true},{"receipt":"`+first+`","ok":false,"code":"lease_lost","detail":"`) {
		t.Fatalf("got %s", got)
	}
	r.want(http.StatusOK, "POST", "/v1/queues/q/nack", `{"receipts":["`+second+`"],"delay":"0s","reason":"later","count":false}`)
	list, _ = receipts(t, r.want(http.StatusOK, "POST", "/v1/queues/q/receive", `{}`))
	if len(list) != 1 || list[0]["id"] != "1-2" || list[0]["attempt"] != 1.0 {
		t.Fatalf("after an uncounted nack: %v", list)
	}
	r.want(http.StatusOK, "POST", "/v1/settle", `{"settlements":[{"receipt":"`+list[0]["receipt"].(string)+`","op":"ack"},{"receipt":"`+third+`","op":"nack","dead_letter":true,"reason":"bad total"}]}`)
	dead := r.want(http.StatusOK, "GET", "/v1/queues/q.dead/messages", "").json(t)["messages"].([]any)[0].(map[string]any)
	death := dead["deaths"].([]any)[0].(map[string]any)
	if death["reason"] != "rejected" || death["detail"] != "bad total" || death["queue"] != "q" || dead["state"] != "ready" || dead["receipt"] != nil {
		t.Fatalf("the messages are %v", dead)
	}
	if n := r.want(http.StatusOK, "GET", "/v1/queues/q", "").json(t); n["ready"].(float64)+n["leased"].(float64)+n["delayed"].(float64) != 0 {
		t.Fatalf("%v", n)
	}
}

func TestSettleRefused(t *testing.T) {
	r := newRig(t, func(o *Options) { o.Limits.MaxReceipts = 3 })
	r.queue("q", "{}")
	for name, tc := range map[string]struct {
		path, body string
		status     int
		code       surgetank.Code
		says       string
	}{
		"no body":          {"q/ack", ``, 400, "invalid", "missing"},
		"no receipts":      {"q/ack", `{}`, 400, "invalid", "missing"},
		"not a list":       {"q/ack", `{"receipts":"1.1.1.1"}`, 400, "invalid", "list"},
		"not text":         {"q/ack", `{"receipts":[1]}`, 400, "invalid", "text"},
		"not a receipt":    {"q/ack", `{"receipts":["1-1"]}`, 400, "invalid", "not a receipt"},
		"too many":         {"q/ack", `{"receipts":["1.1.1.1","1.1.1.1","1.1.1.1","1.1.1.1"]}`, 413, "too_large", "at most 3"},
		"delay on ack":     {"q/ack", `{"receipts":[],"delay":"1s"}`, 400, "invalid", "no such member"},
		"negative delay":   {"q/nack", `{"receipts":[],"delay":"-1s"}`, 400, "invalid", "between"},
		"huge lease":       {"q/extend", `{"receipts":[],"lease":"13h"}`, 400, "invalid", "between"},
		"reject and delay": {"q/nack", `{"receipts":[],"delay":"1s","dead_letter":true}`, 400, "invalid", "not tried again"},
		"long reason":      {"q/nack", `{"receipts":[],"reason":"` + strings.Repeat("x", 1025) + `"}`, 400, "invalid", "1024"},
		"duplicate key":    {"q/ack", `{"receipts":[],"receipts":[]}`, 400, "invalid", "twice"},
		"trailing":         {"q/ack", `{"receipts":[]} x`, 400, "invalid", "follows"},
		"depth":            {"q/ack", strings.Repeat(`{"a":`, 100_000), 400, "invalid", "deeply"},
		"array":            {"q/ack", `[]`, 400, "invalid", "object"},
		"null":             {"q/receive", `{"max":null}`, 400, "invalid", "null"},
		"max 0":            {"q/receive", `{"max":0}`, 400, "invalid", "between 1"},
		"max -1":           {"q/receive", `{"max":-1}`, 400, "invalid", "between 1"},
		"max 1.5":          {"q/receive", `{"max":1.5}`, 400, "invalid", "whole"},
		"max 1e400":        {"q/receive", `{"max":1e400}`, 400, "invalid", "whole"},
		"max text":         {"q/receive", `{"max":"10"}`, 400, "invalid", "whole"},
		"wait too long":    {"q/receive", `{"wait":"1h"}`, 400, "invalid", "between"},
		"wait number":      {"q/receive", `{"wait":20}`, 400, "invalid", "duration"},
		"lease forever":    {"q/receive", `{"lease":"forever"}`, 400, "invalid", "duration"},
		"unknown":          {"q/receive", `{"visibility":1}`, 400, "invalid", "max, wait, lease, max_bytes"},
		"no queue":         {"nope/receive", `{}`, 404, "not_found", "nope"},
		"body on purge":    {"q/purge", `{"x":1}`, 400, "invalid", "no body"},
	} {
		t.Run(name, func(t *testing.T) {
			r.t = t
			m := r.wantProblem(r.do("POST", "/v1/queues/"+tc.path, tc.body), tc.status, tc.code)
			contains(t, "detail", m["detail"].(string), tc.says)
		})
	}
	// An unknown receipt means a lost lease, not an invalid request.
	r.t = t
	a := r.want(http.StatusOK, "POST", "/v1/queues/q/ack", `{"receipts":["1.zz.1.1"]}`)
	contains(t, "result", a.body, "lease_lost")
	for what, change := range map[string]with{"text": header("Content-Type", "text/plain"), "form": header("Content-Type", "application/x-www-form-urlencoded")} {
		if a := r.do("POST", "/v1/queues/q/ack", `{"receipts":[]}`, change); a.status != 415 {
			t.Errorf("%s: %d", what, a.status)
		}
	}
}

func TestControl(t *testing.T) {
	shardstest.One(t, "a dead letter for another shard arrives after its confirm")
	r := newRig(t)
	r.queue("q", "{}")
	r.queue("to", "{}")
	post := func(path, body string) string { return r.want(http.StatusOK, "POST", "/v1/queues/"+path, body).body }
	r.want(http.StatusCreated, "POST", "/v1/queues/q/messages?raw=lines", "a\nb\nc\n")
	if got := post("q/pause", ""); got != `{"paused":true}`+"\n" {
		t.Fatalf("got %s", got)
	}
	if got := post("q/receive", ""); got != "{\"messages\":[]}\n" {
		t.Fatalf("got %s", got)
	}
	post("q/resume", "{}")
	if got := post("q/pause", `{"for":"1h"}`); got != `{"paused":true}`+"\n" {
		t.Fatal(got)
	}
	if got := r.want(http.StatusOK, "GET", "/v1/queues/q", "").body; !strings.Contains(got, `"paused_until":"`) {
		t.Fatal(got)
	}
	for _, bad := range []string{`{"for":"0s"}`, `{"for":"-1m"}`, `{"for":"11y"}`, `{"for":10}`, `{"fro":"1h"}`} {
		r.want(http.StatusBadRequest, "POST", "/v1/queues/q/pause", bad)
	}
	post("q/resume", "{}")
	if got := compact(t, post("q/redrive", `{"to":"to","max":2,"dry_run":true}`)); got != `{"matched":2,"moved":0,"skipped":0,"dry_run":true}` {
		t.Fatalf("got %s", got)
	}
	if got := compact(t, post("q/redrive", `{"to":"to","max":2}`)); got != `{"matched":2,"moved":2,"skipped":0,"dry_run":false}` {
		t.Fatalf("got %s", got)
	}
	if got := post("to/purge", ""); got != `{"purged":2}`+"\n" {
		t.Fatalf("got %s", got)
	}
	r.wantProblem(r.do("POST", "/v1/queues/q/redrive", `{"to":"nope"}`), 404, "not_found")
	r.wantProblem(r.do("POST", "/v1/queues/q/redrive", `{"to":"a\u001fb"}`), 400, "invalid")
	r.wantProblem(r.do("POST", "/v1/queues/q/redrive", `{"to":"to","rate":"fast"}`), 400, "invalid")
	r.wantProblem(r.do("DELETE", "/v1/queues/q?if_empty=true", ""), 409, "exists")
	if got := r.want(http.StatusOK, "DELETE", "/v1/queues/q", "").body; got != `{"removed":1}`+"\n" {
		t.Fatalf("got %s", got)
	}
	r.wantProblem(r.do("DELETE", "/v1/queues/q", ""), 404, "not_found")
}

// If a client disconnects during the wait, or before it has read its messages, no lease remains.
func TestReceiveGivesBackWhenTheClientLeaves(t *testing.T) {
	r := newRig(t)
	r.queue("q", "{}")
	ctx, leave := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.do("POST", "/v1/queues/q/receive", `{"wait":"1m"}`, func(req *http.Request) { *req = *req.WithContext(ctx) })
	}()
	for { // until the request waits
		info, err := r.broker.Queue(t.Context(), "q")
		if err != nil {
			t.Fatal(err)
		}
		if info.Consumers == 1 {
			break
		}
	}
	leave()
	<-done
	r.want(http.StatusCreated, "POST", "/v1/queues/q/messages", "x")
	if m := r.want(http.StatusOK, "GET", "/v1/queues/q", "").json(t); m["ready"] != 1.0 || m["consumers"] != 0.0 {
		t.Fatalf("the answer is %v", m)
	}

	// The connection breaks while the answer is written.
	r.api.ServeHTTP(brokenWriter{http.Header{}}, r.request("POST", "/v1/queues/q/receive", `{"lease":"1h"}`))
	list, _ := receipts(t, r.want(http.StatusOK, "POST", "/v1/queues/q/receive", `{"wait":"10s"}`))
	if len(list) != 1 || list[0]["attempt"] != 1.0 {
		t.Fatalf("the messages are %v", list)
	}
}

// brokenWriter is a connection on which every write fails.
type brokenWriter struct{ h http.Header }

func (w brokenWriter) Header() http.Header     { return w.h }
func (brokenWriter) WriteHeader(int)           {}
func (brokenWriter) Write([]byte) (int, error) { return 0, http.ErrHandlerTimeout }

func TestLongPollsEndWithTheAPI(t *testing.T) {
	r := newRig(t)
	r.queue("q", "{}")
	done := make(chan answer)
	go func() { done <- r.do("POST", "/v1/queues/q/receive", `{"wait":"1m"}`) }()
	for {
		if info, err := r.broker.Queue(t.Context(), "q"); err != nil {
			t.Fatal(err)
		} else if info.Consumers == 1 {
			break
		}
	}
	r.api.Close()
	if a := <-done; a.status != http.StatusOK || a.body != "{\"messages\":[]}\n" {
		t.Fatalf("%+v", a)
	}
	r.wantProblem(r.do("GET", "/readyz", ""), 503, "closed")
}

func TestTransact(t *testing.T) {
	shardstest.One(t, "a transaction stays within one shard")
	r := newRig(t)
	r.queue("in", "{}")
	r.queue("out", "{}")
	r.want(http.StatusCreated, "POST", "/v1/queues/in/messages", "x")
	list, _ := receipts(t, r.want(http.StatusOK, "POST", "/v1/queues/in/receive", ""))
	receipt := list[0]["receipt"].(string)
	r.wantProblem(r.do("POST", "/v1/transact", `{"messages":[{"queue":"nope","body":1}],"settlements":[{"receipt":"`+receipt+`","op":"ack"}]}`), 404, "not_found")
	body := `{"messages":[{"queue":"out","body":{"a":1}}],"settlements":[{"receipt":"` + receipt + `","op":"ack"}]}`
	r.want(http.StatusCreated, "POST", "/v1/transact", body)
	a := r.do("POST", "/v1/transact", body) // the lease is gone now
	r.wantProblem(a, http.StatusGone, "lease_lost")
	if len(r.stored("in")) != 0 || len(r.stored("out")) != 1 {
		t.Fatal("the transaction was done in part")
	}
}

// A returned message shows why and until when it waits. The messages that wait for it in its group
// show this too, and the queue shows the totals. A reason can quote a message, so only users who
// may read the queue or monitor the server see reasons.
func TestWhatBacksOff(t *testing.T) {
	r, d := newRig(t), openDocument(t)
	r.queue("q", `{"group":{"max_in_flight":1}}`)
	r.want(201, "POST", "/v1/queues/q/messages", lines(`{"body":1,"group":"g"}`, `{"body":2,"group":"g"}`, `{"body":3,"delay":"24h"}`), header("Content-Type", ndjsonType))
	_, all := receipts(t, r.want(200, "POST", "/v1/queues/q/receive", `{"max":5}`))
	r.want(200, "POST", "/v1/queues/q/nack", `{"receipts":`+all+`,"reason":"no customer 4711","delay":"1h"}`)
	peeked := r.want(200, "GET", "/v1/queues/q/messages", "")
	d.check("peek", []byte(peeked.body), "components", "schemas", "Messages")
	list := peeked.json(t)["messages"].([]any)
	for i, want := range []map[string]string{{"state": "delayed", "failure": "no customer 4711", "due": "20"}, {"state": "blocked", "waiting": "Messages of group \"g\" are ahead"}, {"state": "delayed", "due": "20"}} {
		for _, member := range []string{"state", "due", "failure", "waiting"} {
			got, _ := list[i].(map[string]any)[member].(string)
			if !strings.HasPrefix(got, want[member]) || got != "" && want[member] == "" {
				t.Errorf("message %d: %s is %q, want %q", i+1, member, got, want[member])
			}
		}
	}
	pw := auth.Secret("pw")
	for name, role := range map[string]struct {
		tags []string
		perm auth.Permission
		sees bool
	}{
		"reader": {nil, auth.Permission{Read: "q"}, true}, "writer": {nil, auth.Permission{Write: "q"}, false},
		"configurer": {nil, auth.Permission{Configure: "q.*"}, false}, "monitor": {[]string{auth.TagMonitoring}, auth.Permission{}, true},
	} {
		if _, err := r.store.PutUser(t.Context(), name, auth.UserSpec{Password: &pw, Tags: &role.tags}); err != nil {
			t.Fatal(err)
		}
		if err := r.store.PutPermission(t.Context(), name, "/", role.perm); err != nil {
			t.Fatal(err)
		}
		a := r.want(200, "GET", "/v1/queues/q", "", as(name, "pw"))
		d.check("queue", []byte(a.body), "components", "schemas", "Queue")
		q := a.json(t)
		if reason, _ := q["failure"].(string); (reason == "no customer 4711") != role.sees || q["backing_off"] != 1.0 || q["next_try"] == nil {
			t.Errorf("%s sees %v", name, a.body)
		}
		status := 403
		if role.sees {
			status = 200
		}
		if a := r.want(status, "GET", "/v1/queues/q/why?group=g", "", as(name, "pw")); role.sees {
			d.check("why", []byte(a.body), "paths", "/v1/queues/{q}/why", "get", "responses", "200", "content", "application/json", "schema")
		}
	}
	if a := r.want(200, "PUT", "/v1/queues/q?mode=create_if_absent", "{}", as("configurer", "pw")); strings.Contains(a.body, "4711") {
		t.Errorf("a user who may only configure sees the reason: %s", a.body)
	}
}
