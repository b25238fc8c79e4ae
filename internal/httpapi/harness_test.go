package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/embedded"
	"github.com/surgetank/surgetank/internal/auth"
	"github.com/surgetank/surgetank/internal/door"
	"github.com/surgetank/surgetank/internal/door/doortest"
	"github.com/surgetank/surgetank/internal/policy"
	"github.com/surgetank/surgetank/internal/shards/shardstest"
)

// rig is the API with an in-memory broker.
type rig struct {
	t      *testing.T
	broker door.Broker
	store  *auth.Store
	api    *API
	// the sender of requests that name no other sender
	remote, host string
}

// always trusts loopback, like a server without users of its own.
func always() bool { return true }

type rigOption func(*Options)

func newRig(t *testing.T, change ...rigOption) *rig {
	t.Helper()
	b, err := embedded.Memory(embedded.Options{Shards: shardstest.N})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return newRigOver(t, b, change...)
}

// seeded is the stored records of guest and ann (password x). They are made once, because password
// hashes are slow on purpose.
var seeded = sync.OnceValues(func() (map[string][]byte, error) {
	b, err := embedded.Memory(embedded.Options{Shards: shardstest.N})
	if err != nil {
		return nil, err
	}
	defer b.Close()
	ctx := context.Background()
	store, err := auth.Open(ctx, b)
	if err != nil {
		return nil, err
	}
	x := auth.Secret("x")
	if _, err := store.PutUser(ctx, "ann", auth.UserSpec{Password: &x}); err != nil {
		return nil, err
	}
	inner, err := door.Of(b)
	if err != nil {
		return nil, err
	}
	state, err := inner.Meta(ctx, auth.Namespace)
	return state.Bytes(), err
})

func newRigOver(t *testing.T, over surgetank.Broker, change ...rigOption) *rig {
	t.Helper()
	b := doortest.Of(t, over)
	records, err := seeded()
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range records {
		if err := b.SetMeta(t.Context(), auth.Namespace, name, value); err != nil {
			t.Fatal(err)
		}
	}
	store, err := auth.Open(t.Context(), b)
	if err != nil {
		t.Fatal(err)
	}
	o := Options{Broker: b, Auth: store, Version: "1.2.3-test", TrustLoopback: always}
	for _, c := range change {
		c(&o)
	}
	a := New(o)
	t.Cleanup(a.Close)
	return &rig{t: t, broker: o.Broker, store: store, api: a, remote: "127.0.0.1:40000", host: "localhost:8080"}
}

// withPolicies makes the rig's broker apply policies.
func withPolicies(t *testing.T) rigOption {
	return func(o *Options) {
		p, err := policy.Open(t.Context(), o.Broker, o.Auth, nil)
		if err != nil {
			t.Fatal(err)
		}
		o.Policies, o.Broker = p, p
	}
}

// answer is the answer to a request.
type answer struct {
	status int
	header http.Header
	body   string
}

func (a answer) json(t *testing.T) map[string]any {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal([]byte(a.body), &m); err != nil {
		t.Fatalf("status %d, not JSON: %q: %v", a.status, a.body, err)
	}
	return m
}

// with changes a request before it is sent.
type with func(*http.Request)

func header(name, value string) with { return func(r *http.Request) { r.Header.Add(name, value) } }

func as(user, password string) with {
	return func(r *http.Request) { r.SetBasicAuth(user, password) }
}

const (
	jsonType   = "application/json"
	ndjsonType = "application/x-ndjson"
)

// do sends a request directly to the handler, and compares the answer with openapi.json. A body
// that begins with { or [ is JSON unless a header says otherwise.
func (r *rig) do(method, target, body string, change ...with) answer {
	r.t.Helper()
	w := httptest.NewRecorder()
	req := r.request(method, target, body, change...)
	r.api.ServeHTTP(w, req)
	a := answer{w.Code, w.Header(), incarnations.ReplaceAllString(w.Body.String(), `"$1"`)}
	checkDocumented(r.t, r.api, req, a)
	return a
}

// incarnations matches the end of a message id, which is random.
var incarnations = regexp.MustCompile(`"(\d+-\d+)-[0-9a-z]{1,7}"`)

func (r *rig) request(method, target, body string, change ...with) *http.Request {
	r.t.Helper()
	var in io.Reader
	if body != "" {
		in = strings.NewReader(body)
	}
	req := httptest.NewRequest(method, "http://localhost:8080/", in)
	u, err := req.URL.Parse(target)
	if err != nil {
		r.t.Fatal(err)
	}
	if u.RawPath = target; strings.Contains(target, "?") { // as the server gets it, with all dots
		u.RawPath, _, _ = strings.Cut(target, "?")
	}
	if u.Path, err = url.PathUnescape(u.RawPath); err != nil {
		r.t.Fatal(err)
	}
	req.URL, req.RequestURI = u, target
	req.Host, req.RemoteAddr = r.host, r.remote
	for _, c := range change {
		c(req)
	}
	if body != "" && req.Header["Content-Type"] == nil && (body[0] == '{' || body[0] == '[') {
		req.Header.Set("Content-Type", jsonType)
	}
	return req
}

// want sends a request and requires a status.
func (r *rig) want(status int, method, target, body string, change ...with) answer {
	r.t.Helper()
	a := r.do(method, target, body, change...)
	if a.status != status {
		r.t.Fatalf("%s %s: status %d, want %d: %s", method, target, a.status, status, a.body)
	}
	return a
}

// wantProblem requires a complete problem object and returns it.
func (r *rig) wantProblem(a answer, status int, code surgetank.Code) map[string]any {
	r.t.Helper()
	if a.status != status || a.header.Get("Content-Type") != "application/problem+json" {
		r.t.Fatalf("status %d (%s), want a problem with %d: %s", a.status, a.header.Get("Content-Type"), status, a.body)
	}
	m := a.json(r.t)
	if m["code"] != string(code) || m["status"] != float64(status) || m["type"] != "about:blank" || m["title"] != http.StatusText(status) {
		r.t.Fatalf("want code %s and status %d: %s", code, status, a.body)
	}
	if s, _ := m["detail"].(string); len(s) < 15 {
		r.t.Fatalf("the detail of the problem has less than 15 bytes: %s", a.body)
	}
	return m
}

func (r *rig) queue(name, settings string) {
	r.t.Helper()
	r.want(http.StatusCreated, "PUT", "/v1/queues/"+name, settings)
}

// stored returns the messages of a queue without leasing them.
func (r *rig) stored(full string) []surgetank.Delivery {
	r.t.Helper()
	list, err := r.broker.Peek(context.Background(), full, surgetank.PeekOptions{Max: 1000, MaxBytes: 1 << 30})
	if err != nil {
		r.t.Fatal(err)
	}
	return list
}

func lines(s ...string) string { return strings.Join(s, "\n") + "\n" }

func contains(t *testing.T, what, s, part string) {
	t.Helper()
	if !strings.Contains(s, part) {
		t.Fatalf("%s is %q, which does not contain %q", what, s, part)
	}
}

func compact(t *testing.T, s string) string {
	t.Helper()
	var b bytes.Buffer
	if err := json.Compact(&b, []byte(s)); err != nil {
		t.Fatalf("%q: %v", s, err)
	}
	return b.String()
}
