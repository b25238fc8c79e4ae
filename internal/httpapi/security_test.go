package httpapi

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/auth"
)

// fill replaces each parameter of a pattern by a value.
func fill(pattern string) string {
	return strings.NewReplacer("{v}", "%2F", "{p}", "p", "{x}", "x", "{q}", "q", "{s}", "s", "{u}", "u", "{n}", "n", "{k}", "k").Replace(pattern)
}

// Only the two health checks answer a client that is not logged in. For such a client, missing and
// existing paths look the same.
func TestNoRouteWithoutCredentials(t *testing.T) {
	r := newRig(t, func(o *Options) { o.TrustLoopback = nil })
	open := 0
	for _, rt := range r.api.router.routes {
		a := r.do(rt.method, fill(rt.pattern), "")
		if rt.access == public {
			open++
			if a.status != http.StatusOK {
				t.Errorf("%s %s: %d", rt.method, rt.pattern, a.status)
			}
			continue
		}
		r.wantProblem(a, http.StatusUnauthorized, surgetank.CodeDenied)
		if a.header.Get("WWW-Authenticate") == "" {
			t.Errorf("%s %s: no WWW-Authenticate", rt.method, rt.pattern)
		}
	}
	if open != 2 {
		t.Errorf("%d routes are public; /healthz and /readyz are", open)
	}
	r.wantProblem(r.do("GET", "/v1/nothing", ""), http.StatusUnauthorized, surgetank.CodeDenied)
	r.wantProblem(r.do("PATCH", "/v1/queues", ""), http.StatusUnauthorized, surgetank.CodeDenied)
}

// A user without any permission or tag reaches no route either, and each right opens only its own
// routes.
func TestRoutesByRole(t *testing.T) {
	r := newRig(t)
	r.queue("q", "{}")
	roles := map[string]struct {
		tags []string
		perm *auth.Permission
		may  []access
	}{
		"nothing":    {nil, nil, []access{loggedIn}},
		"configurer": {nil, &auth.Permission{Configure: "q"}, []access{loggedIn, inVhost, configure, see}},
		"writer":     {nil, &auth.Permission{Write: "q"}, []access{loggedIn, inVhost, write, see}},
		"reader":     {nil, &auth.Permission{Read: "q"}, []access{loggedIn, inVhost, read, see}},
		"elsewhere":  {nil, &auth.Permission{Configure: "x", Write: "x", Read: "x"}, []access{loggedIn, inVhost}},
		"monitor":    {[]string{auth.TagMonitoring}, nil, []access{loggedIn, see, monitor}},
		"admin":      {[]string{auth.TagAdministrator}, nil, []access{loggedIn, see, monitor, admin}},
	}
	pw := auth.Secret("pw")
	for name, role := range roles {
		if _, err := r.store.PutUser(t.Context(), name, auth.UserSpec{Password: &pw, Tags: &role.tags}); err != nil {
			t.Fatal(err)
		}
		if role.perm != nil {
			if err := r.store.PutPermission(t.Context(), name, "/", *role.perm); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, role := range roles {
		for _, rt := range r.api.router.routes {
			if rt.access == public {
				continue
			}
			// An unknown parameter stops the handler before it does anything, but after the access
			// check.
			a := r.do(rt.method, fill(rt.pattern)+"?stop=1", "", as(name, "pw"))
			allowed := false
			for _, m := range role.may {
				allowed = allowed || m == rt.access
			}
			if refused := a.status == http.StatusForbidden; refused == allowed {
				t.Errorf("%s: %s %s (access %d): status %d, allowed %v", name, rt.method, rt.pattern, rt.access, a.status, allowed)
			}
		}
	}
}

// A handler can check further rights besides its route's access.
func TestFurtherRights(t *testing.T) {
	r := newRig(t, withPolicies(t))
	for _, q := range []string{"mine", "mine.dead", "theirs"} {
		r.queue(q, "{}")
	}
	pw := auth.Secret("pw")
	if _, err := r.store.PutUser(t.Context(), "u", auth.UserSpec{Password: &pw}); err != nil {
		t.Fatal(err)
	}
	if err := r.store.PutPermission(t.Context(), "u", "/", auth.Permission{Configure: "mine.*", Write: "mine.*", Read: "mine.*"}); err != nil {
		t.Fatal(err)
	}
	u := as("u", "pw")
	r.want(200, "PUT", "/v1/queues/mine", `{"dead_letter":"mine.dead"}`, u)
	r.wantProblem(r.do("PUT", "/v1/queues/mine", `{"dead_letter":"theirs"}`, u), 403, "denied")
	r.wantProblem(r.do("PUT", "/v1/queues/mine?mode=merge", `{"dead_letter":"theirs"}`, u), 403, "denied")
	if err := r.store.PutPermission(t.Context(), "u", "/", auth.Permission{Configure: "mine", Write: "mine", Read: "mine"}); err != nil {
		t.Fatal(err)
	}
	a := r.do("PUT", "/v1/queues/mine", `{}`, u) // the queue's dead letters would be moved to mine.dead
	r.wantProblem(a, 403, "denied")
	if !strings.Contains(a.body, "mine.dead") || !strings.Contains(a.body, "dead_letter") {
		t.Errorf("the answer does not name the next step: %s", a.body)
	}
	r.want(200, "PUT", "/v1/queues/mine", `{"dead_letter":"-"}`, u)
	r.wantProblem(r.do("PUT", "/v1/queues/mine?mode=merge", `{"dead_letter":null}`, u), 403, "denied")
	r.want(200, "PUT", "/v1/queues/mine?mode=merge", `{"ttl":"1h"}`, u)
	if err := r.store.PutPermission(t.Context(), "u", "/", auth.Permission{Configure: "mine.*", Write: "mine.*", Read: "mine.*"}); err != nil {
		t.Fatal(err)
	}
	r.want(200, "POST", "/v1/queues/mine.dead/redrive", `{"to":"mine"}`, u)
	r.wantProblem(r.do("POST", "/v1/queues/mine.dead/redrive", `{"to":"theirs"}`, u), 403, "denied")
	r.wantProblem(r.do("POST", "/v1/queues/mine.dead/redrive", `{}`, u), 403, "denied") // the messages may go to any queue
	r.want(200, "POST", "/v1/queues/mine.dead/redrive", `{"queue":"mine"}`, u)

	names := func() (got []string) {
		for _, q := range r.want(200, "GET", "/v1/queues", "", u).json(t)["queues"].([]any) {
			got = append(got, q.(map[string]any)["name"].(string))
		}
		return got
	}
	if got := names(); len(got) != 2 {
		t.Fatalf("the user sees %v", got)
	}
	// A receipt is easy to guess, so it settles nothing for users who may not read its queue.
	r.want(201, "POST", "/v1/queues/theirs/messages", "x")
	list, all := receipts(t, r.want(200, "POST", "/v1/queues/theirs/receive", ""))
	r.wantProblem(r.do("POST", "/v1/settle", `{"settlements":[{"receipt":"`+list[0]["receipt"].(string)+`","op":"ack"}]}`, u), 403, "denied")
	r.wantProblem(r.do("POST", "/v1/transact", `{"settlements":[{"receipt":"`+list[0]["receipt"].(string)+`","op":"ack"}]}`, u), 403, "denied")
	r.wantProblem(r.do("POST", "/v1/queues/mine/ack", `{"receipts":`+all+`}`, u), 400, "invalid")
	// Another user's subscription is not found.
	sub := r.want(201, "POST", "/v1/queues/theirs/subscribe", `{"credit":1}`).json(t)["subscription"].(string)
	r.wantProblem(r.do("POST", "/v1/subscriptions/"+sub+"/receive", "", u), 404, "closed")
	// Nobody may read the records that the doors keep in the broker.
	if got := r.want(200, "GET", "/v1/meta/auth", "").body; got != "{\"values\":{}}\n" {
		t.Fatalf("clients can read the records of users: %s", got)
	}
	if _, err := r.store.PutVhost(t.Context(), "other", ""); err != nil {
		t.Fatal(err)
	}
	if got := r.want(200, "GET", "/v1/vhosts", "", u).body; strings.Contains(got, "other") {
		t.Fatalf("the user sees virtual hosts without a permission in them: %s", got)
	}
}

func TestLogin(t *testing.T) {
	const token = "a-token-of-this-machine"
	r := newRig(t, func(o *Options) {
		o.LocalToken = func(s string) bool { return s == token }
		o.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("127.0.0.2/32")}
	})
	pw := auth.Secret("pa:ss wörd")
	if _, err := r.store.PutUser(t.Context(), "ann", auth.UserSpec{Password: &pw}); err != nil {
		t.Fatal(err)
	}
	basic := func(s string) with {
		return header("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(s)))
	}
	from := func(remote string) with { return func(r *http.Request) { r.RemoteAddr = remote } }
	for _, tc := range []struct {
		name   string
		trust  bool
		status int
		change []with
	}{
		{"loopback, trusted", true, 200, nil},
		{"loopback over IPv6, trusted", true, 200, []with{from("[::1]:1")}},
		{"loopback mapped, trusted", true, 200, []with{from("[::ffff:127.0.0.1]:1")}},
		{"loopback, not trusted", false, 401, nil},
		{"remote, trusted server", true, 401, []with{from("192.0.2.1:1")}},
		{"no address", true, 401, []with{from("@")}},
		{"behind a proxy", true, 401, []with{header("X-Forwarded-For", "127.0.0.1")}},
		{"behind a proxy that says Forwarded", true, 401, []with{header("Forwarded", "for=127.0.0.1")}},
		{"remote that claims loopback", true, 401, []with{from("192.0.2.1:1"), header("X-Forwarded-For", "127.0.0.1")}},
		{"guest from loopback, with users", true, 401, []with{basic("guest:guest")}},
		{"a trusted proxy, for itself", false, 401, []with{from("127.0.0.2:1"), header("X-Forwarded-For", "127.0.0.1")}},
		{"behind a trusted proxy", true, 401, []with{from("127.0.0.2:1"), header("X-Forwarded-For", "127.0.0.1")}},
		{"this machine's token", false, 200, []with{basic(":" + token)}},
		{"this machine's token over IPv6", false, 200, []with{basic(":" + token), from("[::1]:1")}},
		{"this machine's token with a user", false, 401, []with{basic("ann:" + token)}},
		{"this machine's token from outside", false, 401, []with{basic(":" + token), from("192.0.2.1:1")}},
		{"this machine's token behind a proxy", false, 401, []with{basic(":" + token), header("X-Forwarded-For", "127.0.0.1")}},
		{"this machine's token behind a trusted proxy", false, 401, []with{basic(":" + token), from("127.0.0.2:1"), header("X-Forwarded-For", "127.0.0.1")}},
		{"half of this machine's token", false, 401, []with{basic(":" + token[:8])}},
		{"guest from outside", false, 401, []with{basic("guest:guest"), from("192.0.2.1:1")}},
		{"guest behind a proxy", false, 401, []with{basic("guest:guest"), header("Via", "1.1 x")}},
		{"right", false, 200, []with{basic("ann:pa:ss wörd"), from("192.0.2.1:1")}},
		{"wrong", true, 401, []with{basic("ann:nope")}}, // also if no login is needed
		{"no colon", true, 401, []with{basic("ann")}},
		{"empty password", true, 401, []with{basic("ann:")}},
		{"empty user", true, 401, []with{basic(":x")}},
		{"not base64", true, 401, []with{header("Authorization", "Basic !!!")}},
		{"bearer", true, 401, []with{header("Authorization", "Bearer x")}},
		{"empty", true, 401, []with{header("Authorization", "")}},
		{"huge", true, 401, []with{basic("ann:" + strings.Repeat("x", 1<<20))}},
		{"two", true, 401, []with{basic("ann:pa:ss wörd"), basic("guest:guest")}},
		{"cookie", false, 401, []with{header("Cookie", "session=x; user=guest")}},
		{"override", false, 401, []with{header("X-HTTP-Method-Override", "GET"), header("X-Original-URL", "/healthz")}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r.t = t
			r.api.opts.TrustLoopback = func() bool { return tc.trust }
			a := r.do("GET", "/v1/whoami", "", tc.change...)
			if a.status != tc.status {
				t.Fatalf("status %d, want %d: %s", a.status, tc.status, a.body)
			}
			if strings.Contains(a.body, "Set-Cookie") || a.header.Get("Set-Cookie") != "" {
				t.Fatal("the answer sets a cookie")
			}
		})
	}
}

func TestOrigins(t *testing.T) {
	r := newRig(t, func(o *Options) { o.Hosts = []string{"queue.internal"} })
	r.queue("q", "{}")
	host := func(h string) with { return func(r *http.Request) { r.Host = h } }
	for _, tc := range []struct {
		name   string
		status int
		change []with
	}{
		{"a program", 201, nil},
		{"localhost", 201, []with{host("LOCALHOST:1")}},
		{"127.0.0.1", 201, []with{host("127.0.0.1")}},
		{"::1", 201, []with{host("[::1]:8080")}},
		{"a host that was allowed", 201, []with{host("queue.internal:80")}},
		{"DNS rebinding", 421, []with{host("evil.example:8080")}},
		{"DNS rebinding that looks near", 421, []with{host("localhost.evil.example")}},
		{"another address", 421, []with{host("192.0.2.1")}},
		{"no host", 421, []with{host("")}},
		{"own page", 201, []with{header("Sec-Fetch-Site", "same-origin"), header("Origin", "http://localhost:8080")}},
		{"foreign page", 403, []with{header("Sec-Fetch-Site", "cross-site"), header("Origin", "http://evil.example")}},
		{"foreign page with text/plain", 403, []with{header("Sec-Fetch-Site", "cross-site"), header("Content-Type", "text/plain")}},
		{"sibling page", 403, []with{header("Sec-Fetch-Site", "same-site")}},
		{"old browser", 403, []with{header("Origin", "http://evil.example")}},
		{"Origin null", 403, []with{header("Origin", "null")}},
	} {
		a := r.do("POST", "/v1/queues/q/messages", "x", tc.change...)
		if a.status != tc.status {
			t.Errorf("%s: %d, want %d: %s", tc.name, a.status, tc.status, a.body)
		}
		if a.header.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%s: the answer has a CORS header", tc.name)
		}
	}
	preflight := r.do("OPTIONS", "/v1/queues/q/messages", "", header("Origin", "http://evil.example"), header("Access-Control-Request-Method", "POST"))
	if preflight.status == 200 || preflight.status == 204 || preflight.header.Get("Access-Control-Allow-Methods") != "" {
		t.Errorf("the preflight request was answered with %+v", preflight)
	}
}

func TestHeadersOnEveryAnswer(t *testing.T) {
	r := newRig(t)
	for _, path := range []string{"/healthz", "/v1/queues", "/v1/nothing", "/v1/queues/none", "/metrics", "/v1/queues/%0d%0aSet-Cookie:x"} {
		h := r.do("GET", path, "").header
		if h.Get("X-Content-Type-Options") != "nosniff" || !strings.Contains(h.Get("Content-Security-Policy"), "default-src 'none'") ||
			!strings.Contains(h.Get("Content-Security-Policy"), "frame-ancestors 'none'") || h.Get("Set-Cookie") != "" {
			t.Errorf("%s: %v", path, h)
		}
		if ct := h.Get("Content-Type"); strings.Contains(ct, "html") {
			t.Errorf("%s: %s", path, ct)
		}
	}
	for _, method := range []string{"TRACE", "CONNECT", "PATCH", "OPTIONS", "FOO"} {
		a := r.do(method, "/v1/queues", "", header("X-HTTP-Method-Override", "GET"))
		r.wantProblem(a, http.StatusMethodNotAllowed, "invalid")
		if a.header.Get("Allow") != "GET" {
			t.Errorf("%s: Allow %q", method, a.header.Get("Allow"))
		}
	}
	up := r.do("GET", "/v1/queues", "", header("Connection", "Upgrade"), header("Upgrade", "websocket"))
	if up.status == http.StatusSwitchingProtocols {
		t.Error("the server accepted an upgrade")
	}
}

// served is the API with a real listener.
func served(t *testing.T, l Limits, sl ServerLimits) (*rig, string) {
	t.Helper()
	r := newRig(t, func(o *Options) { o.Limits = l })
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := NewServer(r.api, sl, nil)
	done := make(chan struct{})
	go func() { defer close(done); srv.Serve(LimitListener(ln, sl)) }()
	t.Cleanup(func() { srv.Close(); <-done })
	r.queue("q", "{}")
	return r, ln.Addr().String()
}

// raw sends a request and returns the answer, or two answers if the request contains "more to
// come". If the server closes the connection before, the result ends with "closed".
func raw(t *testing.T, addr, request string) string {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	go io.WriteString(conn, request) // the server may stop reading; only its answer matters
	var got bytes.Buffer
	br := bufio.NewReader(conn)
	for {
		res, err := http.ReadResponse(br, nil)
		if err != nil {
			return got.String() + "closed"
		}
		body, _ := io.ReadAll(res.Body)
		fmt.Fprintf(&got, "%d %s\n", res.StatusCode, bytes.TrimSpace(body))
		if !strings.Contains(request, "more to come") || strings.Count(got.String(), "\n") > 1 {
			return got.String()
		}
	}
}

// Malformed and hostile requests over a real connection: each is rejected, and none disturbs the
// next.
func TestOnTheWire(t *testing.T) {
	r, addr := served(t, Limits{MaxBody: 1 << 16, MaxMessage: 1 << 12, BodyGrace: 50 * time.Millisecond, MinBodyRate: 1 << 20},
		ServerLimits{HeaderTimeout: 100 * time.Millisecond})
	post := "POST /v1/queues/q/messages HTTP/1.1\r\nHost: localhost\r\n"
	var headers strings.Builder
	for i := range 10_000 {
		fmt.Fprintf(&headers, "X-%d: y\r\n", i)
	}
	for _, tc := range []struct{ name, request, want string }{
		{"declared body above the limit", post + "Content-Length: 5000000000\r\n\r\n", "413 "},
		{"chunked body above the limit", post + "Transfer-Encoding: chunked\r\n\r\n2000\r\n" + strings.Repeat("x", 0x2000) + "\r\n0\r\n\r\n", "413 "},
		{"bad chunk size", post + "Transfer-Encoding: chunked\r\n\r\nZZ\r\nx\r\n", "400 "},
		{"huge chunk size", post + "Transfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFF\r\nx\r\n", "400 "},
		{"body and length differ", post + "Content-Length: 10\r\n\r\nabc", "408 "},
		{"two lengths", post + "Content-Length: 1\r\nContent-Length: 2\r\n\r\nxx", "400 "},
		{"negative length", post + "Content-Length: -1\r\n\r\n", "400 "},
		{"unknown transfer encoding", post + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", "501 "},
		{"slow header", "POST /v1/queues/q/messages HTTP/1.1\r\nHost: loc", "closed"},
		{"slow body", post + "Content-Length: 100\r\n\r\nx", "408 "},
		{"slow chunks", post + "Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n", "408 "},
		{"1 MiB header", "GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: " + strings.Repeat("y", 1<<20) + "\r\n\r\n", "431 "},
		{"10,000 headers", "GET /healthz HTTP/1.1\r\nHost: localhost\r\n" + headers.String() + "\r\n", "431 "},
		{"long request line", "GET /" + strings.Repeat("y", 1<<20) + " HTTP/1.1\r\nHost: localhost\r\n\r\n", "431 "},
		{"no host", "GET /healthz HTTP/1.1\r\n\r\n", "400 "},
		{"two hosts", "GET /healthz HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n", "400 "},
		{"absolute form names another host", "GET http://evil.example/healthz HTTP/1.1\r\nHost: localhost\r\n\r\n", "421 "},
		{"absolute form", "GET http://localhost/healthz HTTP/1.1\r\nHost: evil.example\r\n\r\n", "200 "},
		{"HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "421 "}, // HTTP/1.1 only: this is a request without a host
		{"not HTTP", "AMQP\x00\x00\x09\x01\r\n\r\n", "400 "},
		{"CR in a header", "GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: a\rb\r\n\r\n", "400 "},
		{"percent zero", "GET /v1/queues/%00 HTTP/1.1\r\nHost: localhost\r\n\r\n", "400 "},
		{"bad percent", "GET /v1/queues/%zz HTTP/1.1\r\nHost: localhost\r\n\r\n", "400 "},
		{"star", "OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n", "200 "}, // net/http answers this by itself, with an empty answer
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := raw(t, addr, tc.request); !strings.HasPrefix(got, tc.want) {
				t.Fatalf("got %.200q, want %q", got, tc.want)
			}
		})
	}
	for _, d := range r.stored("q") {
		if len(d.Body) > 0 {
			t.Fatalf("stored %q", d.Body)
		}
	}
	if n := r.api.bodies.used.Load(); n != 0 {
		t.Fatalf("%d bytes of bodies are still counted", n)
	}
	if got := raw(t, addr, post+"Content-Length: 2\r\n\r\nok"); !strings.HasPrefix(got, "201 ") {
		t.Fatalf("the server does not answer after the bad requests: %q", got)
	}
}

// A handler that panics answers with a problem object, and the server keeps running. The panic's
// text stays in the log.
func TestPanic(t *testing.T) {
	r := newRig(t, func(o *Options) { o.Ready = func() error { panic("secret words") } })
	a := r.do("GET", "/readyz", "")
	r.wantProblem(a, 500, "internal")
	if strings.Contains(a.body, "secret") {
		t.Fatalf("the answer is %s", a.body)
	}
	r.want(200, "GET", "/healthz", "")
}

// TestPeer: an address in a header is believed only from a trusted proxy, and only the address that
// this proxy has seen itself.
func TestPeer(t *testing.T) {
	trusted := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("127.0.0.1/32"), netip.MustParsePrefix("2001:db8::/64")}
	for _, tc := range []struct {
		what, from string
		headers    []string // name, value, …
		want       string   // "": unknown
	}{
		{"direct", "192.0.2.1:9", nil, "192.0.2.1"},
		{"direct from a proxy's machine", "127.0.0.1:9", nil, "127.0.0.1"},
		{"a stranger's header", "192.0.2.1:9", []string{"X-Forwarded-For", "198.51.100.7"}, ""},
		{"a proxy", "10.0.0.1:9", []string{"X-Forwarded-For", "198.51.100.7"}, "198.51.100.7"},
		{"a proxy on this machine", "127.0.0.1:9", []string{"X-Forwarded-For", "198.51.100.7"}, "198.51.100.7"},
		{"a proxy over IPv6", "[2001:db8::5]:9", []string{"X-Forwarded-For", "2001:db8:1::1"}, "2001:db8:1::1"},
		{"a proxy, mapped", "[::ffff:10.0.0.1]:9", []string{"X-Forwarded-For", "::ffff:198.51.100.7"}, "198.51.100.7"},
		{"two proxies", "10.0.0.1:9", []string{"X-Forwarded-For", "198.51.100.7, 10.0.0.2"}, "198.51.100.7"},
		{"a client that lies", "10.0.0.1:9", []string{"X-Forwarded-For", "203.0.113.9, 198.51.100.7"}, "198.51.100.7"},
		{"a client that lies in a line of its own", "10.0.0.1:9", []string{"X-Forwarded-For", "203.0.113.9", "X-Forwarded-For", "198.51.100.7"}, "198.51.100.7"},
		{"a client that claims to be a proxy", "10.0.0.1:9", []string{"X-Forwarded-For", "203.0.113.9, 10.9.9.9"}, "203.0.113.9"},
		{"with a port", "10.0.0.1:9", []string{"X-Forwarded-For", "198.51.100.7:4711"}, "198.51.100.7"},
		{"loopback", "10.0.0.1:9", []string{"X-Forwarded-For", "::1"}, ""},
		{"loopback that is a proxy", "10.0.0.1:9", []string{"X-Forwarded-For", "127.0.0.1"}, ""},
		{"no address", "10.0.0.1:9", []string{"X-Forwarded-For", "unknown"}, ""},
		{"empty", "10.0.0.1:9", []string{"X-Forwarded-For", ""}, ""},
		{"only others", "10.0.0.1:9", []string{"Via", "1.1 proxy"}, ""},
		{"Forwarded", "10.0.0.1:9", []string{"Forwarded", "for=203.0.113.9, For=\"198.51.100.7:80\";proto=https;by=10.0.0.1"}, "198.51.100.7"},
		{"Forwarded over IPv6", "10.0.0.1:9", []string{"Forwarded", "for=\"[2001:db8:1::1]:80\""}, "2001:db8:1::1"},
		{"Forwarded without for", "10.0.0.1:9", []string{"Forwarded", "for=198.51.100.7, proto=https"}, ""},
		{"both agree", "10.0.0.1:9", []string{"Forwarded", "for=198.51.100.7", "X-Forwarded-For", "198.51.100.7"}, "198.51.100.7"},
		{"both differ: one is the client's", "10.0.0.1:9", []string{"Forwarded", "for=203.0.113.9", "X-Forwarded-For", "198.51.100.7"}, ""},
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.RemoteAddr = tc.from
		for i := 0; i < len(tc.headers); i += 2 {
			r.Header.Add(tc.headers[i], tc.headers[i+1])
		}
		want, _ := netip.ParseAddr(tc.want)
		if got := Peer(r, trusted); got != want {
			t.Errorf("%s: %v, want %v", tc.what, got, want)
		}
	}
}

// TestTrustEnds: loopback counts as a login until a user exists. The next request already needs a
// login. Then every Host is accepted, as with a proxy.
func TestTrustEnds(t *testing.T) {
	r := newRig(t)
	if err := r.store.DeleteUser(t.Context(), "ann"); err != nil {
		t.Fatal(err)
	}
	r.api.opts.TrustLoopback = r.store.Unclaimed
	host := func(r *http.Request) { r.Host = "queue.example" }
	r.want(200, "GET", "/v1/users", "")
	r.want(421, "GET", "/v1/users", "", host)
	r.want(200, "GET", "/v1/users", "", as("guest", "guest"))
	r.want(201, "PUT", "/v1/users/ann", `{"password":"x","tags":["administrator"]}`)
	a := r.do("GET", "/v1/users", "")
	r.wantProblem(a, http.StatusUnauthorized, surgetank.CodeDenied)
	if !strings.Contains(a.body, "--token-file") || !strings.Contains(a.body, "--server") {
		t.Errorf("the answer does not name the next step: %s", a.body)
	}
	r.want(401, "GET", "/v1/users", "", as("guest", "guest"))
	r.want(401, "GET", "/v1/users", "", host)
	r.want(200, "GET", "/v1/users", "", as("ann", "x"), host)
	r.want(200, "DELETE", "/v1/users/guest", "", as("ann", "x"))
	r.want(200, "DELETE", "/v1/users/ann", "", as("ann", "x"))
	r.want(401, "GET", "/v1/users", "") // no user is left, and no one gets in
}
