package auth

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/fullname"
)

var (
	loopback = netip.MustParseAddr("127.0.0.1")
	remote   = netip.MustParseAddr("192.0.2.7")
)

func open(t *testing.T, b *metaBroker) (*Store, *testClock) {
	t.Helper()
	c := &testClock{t: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
	s, err := Open(t.Context(), b, WithClock(c.now))
	if err != nil {
		t.Fatal(err)
	}
	return s, c
}

func ptr[T any](v T) *T { return &v }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantCode(t *testing.T, err error, code surgetank.Code) {
	t.Helper()
	if got := surgetank.CodeOf(err); got != code {
		t.Fatalf("got error %v (code %q), want code %q", err, got, code)
	}
}

func login(t *testing.T, s *Store, name, password string) *User {
	t.Helper()
	u, err := s.Authenticate(t.Context(), name, password, loopback)
	must(t, err)
	return u
}

func TestFirstOpeningAndReopening(t *testing.T) {
	b := newMetaBroker()
	s, _ := open(t, b)
	login(t, s, "guest", "guest")
	if !s.VhostExists("/") || s.VhostExists("nope") {
		t.Fatal("want exactly the virtual host /")
	}
	must(t, s.DeleteUser(t.Context(), "guest"))
	_, err := s.PutUser(t.Context(), "ann", UserSpec{Password: ptr(Secret("pw")), Tags: ptr([]string{"b", "a", "b"})})
	must(t, err)
	must(t, s.PutPermission(t.Context(), "ann", "/", Permission{Read: "q.*"}))

	again, _ := open(t, b)
	want := []UserInfo{{Name: "ann", Tags: []string{"a", "b"}, HasPassword: true}}
	if d := cmp.Diff(want, again.Users()); d != "" {
		t.Fatalf("after reopening (guest must stay deleted): %s", d)
	}
	ann := login(t, again, "ann", "pw")
	must(t, again.Authorize(ann, "/", Read, "q1"))
	wantCode(t, again.Authorize(ann, "/", Write, "q1"), surgetank.CodeDenied)
}

// A crash between the first records leaves a store that the next Open completes.
func TestFirstOpeningInterrupted(t *testing.T) {
	for stop := range 3 {
		b := newMetaBroker()
		n := 0
		b.fail = func(string, string) error {
			if n++; n > stop {
				return surgetank.Errorf(surgetank.CodeUncertain, "power cut")
			}
			return nil
		}
		if _, err := Open(t.Context(), b); surgetank.CodeOf(err) != surgetank.CodeUncertain {
			t.Fatalf("want the broker's error, got %v", err)
		}
		b.fail = func(string, string) error { return nil }
		s, _ := open(t, b)
		u := login(t, s, "guest", "guest")
		must(t, s.Authorize(u, "/", Configure, "x"))
	}
}

func TestAuthenticate(t *testing.T) {
	s, _ := open(t, newMetaBroker())
	_, err := s.PutUser(t.Context(), "ann", UserSpec{Password: ptr(Secret("s3cret"))})
	must(t, err)
	_, err = s.PutUser(t.Context(), "guest", UserSpec{Password: ptr(Secret("guessed"))})
	must(t, err)
	mapped := netip.MustParseAddr("::ffff:127.0.0.1")
	for _, tc := range []struct {
		name, password string
		peer           netip.Addr
		ok             bool
	}{
		{"guest", "guessed", loopback, true},
		{"guest", "guessed", netip.MustParseAddr("127.8.9.10"), true},
		{"guest", "guessed", netip.IPv6Loopback(), true},
		{"guest", "guessed", mapped, true},
		{"guest", "guessed", remote, false},
		{"guest", "guessed", netip.Addr{}, false}, // through a proxy
		{"guest", "guess", loopback, false},
		{"guest", "guest", remote, false},
		{"guest", "guest", netip.Addr{}, false},
		{"guest", "", loopback, false},
		{"", "guessed", loopback, false},
		{"ann", "s3cret", remote, true},
		{"ann", "s3cret", netip.Addr{}, true},
		{"ann", "s3cret ", loopback, false},
		{"Ann", "s3cret", loopback, false},
		{"nobody", "s3cret", loopback, false},
		{"nobody", "", loopback, false},
		{strings.Repeat("n", 256), "x", loopback, false},
		{"ann", strings.Repeat("p", MaxPasswordLen+1), loopback, false},
	} {
		t.Run(fmt.Sprintf("%.8s/%.8s/%v", tc.name, tc.password, tc.peer), func(t *testing.T) {
			s.byPeer, s.byUser = newThrottle(), newThrottle()
			u, err := s.Authenticate(t.Context(), tc.name, tc.password, tc.peer)
			if tc.ok != (err == nil) || tc.ok != (u != nil) {
				t.Fatalf("got %v, %v", u, err)
			}
			if !tc.ok {
				wantCode(t, err, surgetank.CodeDenied)
				if _, other := s.Authenticate(t.Context(), "no such user", "x", remote); other.Error() != err.Error() {
					t.Fatalf("the answer %q differs from %q", err, other)
				}
			}
		})
	}
}

// Each refusal costs one hash, for known and unknown users alike. A password that was right costs
// no further hash.
func TestAuthenticateCost(t *testing.T) {
	s, c := open(t, newMetaBroker())
	_, err := s.PutUser(t.Context(), "ann", UserSpec{Password: ptr(Secret("right"))})
	must(t, err)
	_, err = s.PutUser(t.Context(), "guest", UserSpec{Password: ptr(Secret("guessed"))})
	must(t, err)
	cost := func(name, password string, peer netip.Addr) int64 {
		s.byPeer, s.byUser = newThrottle(), newThrottle()
		before := s.hasher.calls.Load()
		s.Authenticate(t.Context(), name, password, peer)
		return s.hasher.calls.Load() - before
	}
	for _, tc := range []struct {
		what, name, password string
		peer                 netip.Addr
		want                 int64
	}{
		{"wrong password", "ann", "wrong", remote, 1},
		{"unknown user", "bob", "wrong", remote, 1},
		{"first right", "ann", "right", remote, 1},
		{"second right", "ann", "right", remote, 0},
		{"guest from loopback", "guest", "guessed", loopback, 1},
		{"guest from outside, right password, cached", "guest", "guessed", remote, 1},
	} {
		if got := cost(tc.name, tc.password, tc.peer); got != tc.want {
			t.Errorf("%s: %d hashes, want %d", tc.what, got, tc.want)
		}
	}
	c.advance(cacheTTL)
	if got := cost("ann", "right", remote); got != 1 {
		t.Errorf("after the cache's time: %d hashes, want 1", got)
	}
	_, err = s.PutUser(t.Context(), "ann", UserSpec{Password: ptr(Secret("new"))})
	must(t, err)
	if _, err := s.Authenticate(t.Context(), "ann", "right", remote); err == nil {
		t.Error("the old password still works from the cache")
	}
	if p := s.state.Load().users["ann"].phc; p.memory != 19456 || p.time != 2 || p.lanes != 1 {
		t.Errorf("cost is m=%d t=%d p=%d", p.memory, p.time, p.lanes)
	}
}

// TestThrottle: after too many failures of its peer or its user, a login waits in line. There a
// right password succeeds and a wrong one fails.
func TestThrottle(t *testing.T) {
	s, c := open(t, newMetaBroker())
	s.line.pause = 0
	_, err := s.PutUser(t.Context(), "ann", UserSpec{Password: ptr(Secret("right"))})
	must(t, err)
	try := func(name, password, peer string) surgetank.Code {
		_, err := s.Authenticate(t.Context(), name, password, netip.MustParseAddr(peer))
		return surgetank.CodeOf(err)
	}
	for i := range bucketSize {
		if code := try("bob", "x", "192.0.2.1"); code != surgetank.CodeDenied {
			t.Fatalf("failure %d: %s", i, code)
		}
	}
	for _, tc := range []struct {
		what, name, peer string
		late             bool
	}{
		{"same user, same peer", "bob", "192.0.2.1", true},
		{"same user, another peer", "bob", "198.51.100.1", true},
		{"another user, same peer", "ann", "192.0.2.1", true},
		{"another user, another peer", "ann", "198.51.100.1", false},
		{"same user on the machine itself", "bob", "127.0.0.1", false},
	} {
		if got := s.late(tc.name, netip.MustParseAddr(tc.peer)); got != tc.late {
			t.Errorf("%s: the login waits in line: %v", tc.what, got)
		}
	}
	if code := try("ann", "wrong", "192.0.2.1"); code != surgetank.CodeDenied {
		t.Errorf("wrong, in line: %q", code)
	}
	if code := try("ann", "right", "192.0.2.1"); code != "" {
		t.Errorf("right, in line: %q", code)
	}
	c.advance(bucketSize * maxRefill)
	if s.late("bob", netip.MustParseAddr("192.0.2.1")) {
		t.Error("a login is late although the buckets are full again")
	}
	// Each further failure doubles the time until a login need not wait, up to 30 s.
	th, now := newThrottle(), c.now()
	for range bucketSize {
		th.failed("bob", now)
	}
	for _, want := range []time.Duration{2 * time.Second, 4 * time.Second, 8 * time.Second, 16 * time.Second, 30 * time.Second, 30 * time.Second} {
		if wait := th.wait("bob", now); wait != want {
			t.Fatalf("wait %v, want %v", wait, want)
		}
		now = now.Add(want)
		th.failed("bob", now)
	}
}

func TestThrottleIsBounded(t *testing.T) {
	th, now := newThrottle(), time.Now()
	for i := range 3 * maxBuckets {
		th.failed(fmt.Sprint(i), now)
	}
	if n := len(th.buckets); n > maxBuckets {
		t.Fatalf("%d buckets", n)
	}
	if a, b := peerKey(netip.MustParseAddr("2001:db8::1")), peerKey(netip.MustParseAddr("2001:db8::2:0:0:9%eth0")); a != b {
		t.Fatalf("%s and %s are one network", a, b)
	}
}

func TestConcurrentLoginsHashOnce(t *testing.T) {
	s, _ := open(t, newMetaBroker())
	before := s.hasher.calls.Load()
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			if _, err := s.Authenticate(context.Background(), "guest", "guest", loopback); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := s.hasher.calls.Load() - before; n > maxHashes {
		t.Fatalf("%d hashes for one password", n)
	}
}

func TestAuthenticateGivesUpWithItsContext(t *testing.T) {
	s, _ := open(t, newMetaBroker())
	for range maxHashes {
		must(t, s.hasher.acquire(t.Context()))
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := s.Authenticate(ctx, "guest", "guest", loopback)
	wantCode(t, err, surgetank.CodeBusy)
}

func TestAuthorizeMatrix(t *testing.T) {
	s, _ := open(t, newMetaBroker())
	ctx := t.Context()
	for _, v := range []string{"a", "b"} {
		_, err := s.PutVhost(ctx, v, "")
		must(t, err)
	}
	users := map[string]*User{"local": Local(), "nobody": nil, "admin": login(t, s, "guest", "guest")}
	for name, perms := range map[string]map[string]Permission{
		"all":    {"/": AllPermissions, "a": AllPermissions},
		"reader": {"a": {Read: "q.*"}},
		"writer": {"a": {Write: "q1|q2"}},
		"maker":  {"a": {Configure: "q1"}},
		"empty":  {"a": {}},
		"none":   {},
	} {
		_, err := s.PutUser(ctx, name, UserSpec{Password: ptr(Secret("x"))})
		must(t, err)
		for v, p := range perms {
			must(t, s.PutPermission(ctx, name, v, p))
		}
		users[name] = login(t, s, name, "x")
	}

	const ok, denied, absent = surgetank.Code(""), surgetank.CodeDenied, surgetank.CodeNotFound
	for _, tc := range []struct {
		user, vhost, resource  string
		enter                  surgetank.Code
		configure, write, read surgetank.Code
	}{
		{"local", "/", "q", ok, ok, ok, ok},
		{"local", "b", "q", ok, ok, ok, ok},
		{"local", "nope", "q", absent, absent, absent, absent},
		{"nobody", "/", "q", denied, denied, denied, denied},
		{"admin", "/", "q", ok, ok, ok, ok},
		{"admin", "a", "q", denied, denied, denied, denied}, // managing includes no reading
		{"all", "a", "q", ok, ok, ok, ok},
		{"all", "a", "two\nlines", ok, ok, ok, ok},
		{"all", "b", "q", denied, denied, denied, denied},
		{"all", "nope", "q", absent, absent, absent, absent},
		{"reader", "a", "q7", ok, denied, denied, ok},
		{"reader", "a", "xq7", ok, denied, denied, denied}, // a pattern must match from the start of the name
		{"reader", "b", "q7", denied, denied, denied, denied},
		{"writer", "a", "q2", ok, denied, ok, denied},
		{"writer", "a", "q1|q2", ok, denied, denied, denied},
		{"writer", "a", "q12", ok, denied, denied, denied}, // a pattern must match up to the end of the name, also after |
		{"writer", "a", "q2\n", ok, denied, denied, denied},
		{"maker", "a", "q1", ok, ok, denied, denied},
		{"maker", "a", "", ok, denied, denied, denied},
		{"empty", "a", "", ok, denied, denied, denied}, // empty pattern: matches not even the empty name
		{"none", "a", "q", denied, denied, denied, denied},
	} {
		u := users[tc.user]
		got := [4]surgetank.Code{surgetank.CodeOf(s.AuthorizeVhost(u, tc.vhost))}
		for i, op := range []Op{Configure, Write, Read} {
			got[i+1] = surgetank.CodeOf(s.Authorize(u, tc.vhost, op, tc.resource))
		}
		if want := [4]surgetank.Code{tc.enter, tc.configure, tc.write, tc.read}; got != want {
			t.Errorf("%s in %s on %q: enter, configure, write, read = %q, want %q", tc.user, tc.vhost, tc.resource, got, want)
		}
	}
	for _, op := range []Op{0, 4, 255} {
		wantCode(t, s.Authorize(users["all"], "/", op, "q"), denied)
	}
}

func TestTags(t *testing.T) {
	s, _ := open(t, newMetaBroker())
	for tag, want := range map[string][2]surgetank.Code{
		TagAdministrator: {"", ""}, TagMonitoring: {surgetank.CodeDenied, ""}, "other": {surgetank.CodeDenied, surgetank.CodeDenied},
	} {
		_, err := s.PutUser(t.Context(), tag, UserSpec{Password: ptr(Secret("x")), Tags: &[]string{tag}})
		must(t, err)
		u := login(t, s, tag, "x")
		got := [2]surgetank.Code{surgetank.CodeOf(s.AuthorizeAdmin(u)), surgetank.CodeOf(s.AuthorizeMonitor(u))}
		if got != want {
			t.Errorf("%s: admin, monitor = %q, want %q", tag, got, want)
		}
		if !s.HasTag(u, tag) || s.HasTag(u, TagImpersonator) {
			t.Errorf("%s: HasTag is wrong", tag)
		}
	}
	wantCode(t, s.AuthorizeAdmin(nil), surgetank.CodeDenied)
	must(t, s.AuthorizeAdmin(Local()))
}

// A user or virtual host that is deleted and created again inherits nothing.
func TestNewLifeInheritsNothing(t *testing.T) {
	s, _ := open(t, newMetaBroker())
	ctx := t.Context()
	put := func() {
		_, err := s.PutUser(ctx, "ann", UserSpec{Password: ptr(Secret("x"))})
		must(t, err)
	}
	put()
	_, err := s.PutVhost(ctx, "v", "")
	must(t, err)
	must(t, s.PutPermission(ctx, "ann", "v", AllPermissions))
	old := login(t, s, "ann", "x")
	must(t, s.Authorize(old, "v", Read, "q"))

	must(t, s.DeleteVhost(ctx, "v"))
	wantCode(t, s.Authorize(old, "v", Read, "q"), surgetank.CodeNotFound)
	_, err = s.PutVhost(ctx, "v", "")
	must(t, err)
	wantCode(t, s.Authorize(old, "v", Read, "q"), surgetank.CodeDenied)
	if p := s.Permissions("", "v"); len(p) != 0 {
		t.Fatalf("the new virtual host has permissions %v", p)
	}

	must(t, s.PutPermission(ctx, "ann", "v", AllPermissions))
	must(t, s.DeleteUser(ctx, "ann"))
	wantCode(t, s.Authorize(old, "v", Read, "q"), surgetank.CodeDenied)
	put()
	must(t, s.PutPermission(ctx, "ann", "v", AllPermissions))
	wantCode(t, s.Authorize(old, "v", Read, "q"), surgetank.CodeDenied)
	must(t, s.Authorize(login(t, s, "ann", "x"), "v", Read, "q"))
}

func TestDeleteVhostIsFinishedByTheNextOpening(t *testing.T) {
	b := newMetaBroker()
	s, _ := open(t, b)
	ctx := t.Context()
	_, err := s.PutVhost(ctx, "v", "")
	must(t, err)
	inside, outside := fullname.Of("v", "q"), "q"
	b.queues[inside], b.queues[outside] = true, true
	b.fail = func(op, _ string) error {
		if op == "delete" {
			return surgetank.Errorf(surgetank.CodeClosed, "stopped")
		}
		return nil
	}
	wantCode(t, s.DeleteVhost(ctx, "v"), surgetank.CodeClosed)
	if s.VhostExists("v") {
		t.Fatal("a virtual host that is being deleted can still be entered")
	}
	_, err = s.PutVhost(ctx, "v", "")
	wantCode(t, err, surgetank.CodeExists)
	b.fail = func(string, string) error { return nil }
	s, _ = open(t, b)
	if s.VhostExists("v") || b.queues[inside] || !b.queues[outside] {
		t.Fatalf("not finished: %v", b.queues)
	}
	wantCode(t, s.DeleteVhost(ctx, "/"), surgetank.CodeInvalid)
	wantCode(t, s.DeleteVhost(ctx, "v"), surgetank.CodeNotFound)
}

func TestChanged(t *testing.T) {
	b := newMetaBroker()
	s, _ := open(t, b)
	other, _ := open(t, b)
	ctx := t.Context()
	for name, change := range map[string]func() error{
		"0 user":       func() error { _, err := s.PutUser(ctx, "ann", UserSpec{Password: ptr(Secret("x"))}); return err },
		"1 vhost":      func() error { _, err := s.PutVhost(ctx, "v", ""); return err },
		"2 permission": func() error { return s.PutPermission(ctx, "guest", "/", Permission{}) },
		"3 other":      func() error { _, err := other.PutVhost(ctx, "w", ""); s.records.Refresh(); return err },
	} {
		changed, generation := s.Changed(), s.Generation()
		select {
		case <-changed:
			t.Fatalf("%s: closed before the change", name)
		default:
		}
		must(t, change())
		select {
		case <-changed:
		default:
			t.Fatalf("%s: not closed", name)
		}
		if s.Generation() == generation {
			t.Fatalf("%s: same generation", name)
		}
	}
}

// A change that was not made durable is not in force. A damaged record allows nothing and does not
// affect the others.
func TestFailedChangesAndDamage(t *testing.T) {
	b := newMetaBroker()
	s, _ := open(t, b)
	b.fail = func(string, string) error { return surgetank.Errorf(surgetank.CodeFull, "disk full") }
	_, err := s.PutUser(t.Context(), "ann", UserSpec{Password: ptr(Secret("x"))})
	wantCode(t, err, surgetank.CodeFull)
	wantCode(t, s.DeleteUser(t.Context(), "guest"), surgetank.CodeFull)
	wantCode(t, s.PutPermission(t.Context(), "guest", "/", Permission{}), surgetank.CodeFull)
	if len(s.Users()) != 1 || s.Permissions("guest", "/")[0].Read != ".*" {
		t.Fatal("a change that failed is in force")
	}
	b.fail = func(string, string) error { return nil }
	good := string(b.values()["user/guest"])
	for name, bad := range map[string]string{
		"not JSON":      `{`,
		"unknown field": `{"v":1,"name":"guest","deny":true}`,
		"newer":         `{"v":2,"name":"guest"}`,
		"other name":    `{"v":1,"name":"root"}`,
		"bad pattern":   `{"v":1,"name":"guest","permissions":[{"vhost":"/","read":"("}]}`,
		"bad hash":      `{"v":1,"name":"guest","hash":"$argon2id$v=19$m=4294967295,t=1,p=1$AAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAA"}`,
		"trailing":      good + "{}",
	} {
		b.put("user/guest", bad)
		s.records.Refresh()
		if len(s.Users()) != 0 || !s.VhostExists("/") {
			t.Fatalf("%s: the damaged record is in force, or others are lost", name)
		}
		_, err := Open(t.Context(), b)
		wantCode(t, err, surgetank.CodeCorrupt)
	}
	b.put("user/guest", good)
	s.records.Refresh()
	if len(s.Users()) != 1 {
		t.Fatal("the repaired record is not in force")
	}
	b.put("token/x", "{}")
	_, err = Open(t.Context(), b)
	wantCode(t, err, surgetank.CodeCorrupt)
}

func TestValidation(t *testing.T) {
	s, _ := open(t, newMetaBroker())
	ctx := t.Context()
	pw := UserSpec{Password: ptr(Secret("x"))}
	for _, tc := range []struct {
		what, field string
		do          func() error
	}{
		{"no name", "name", func() error { _, err := s.PutUser(ctx, "", pw); return err }},
		{"colon", "name", func() error { _, err := s.PutUser(ctx, "a:b", pw); return err }},
		{"control", "name", func() error { _, err := s.PutUser(ctx, "a\x1fb", pw); return err }},
		{"long", "name", func() error { _, err := s.PutUser(ctx, strings.Repeat("a", 256), pw); return err }},
		{"no password", "password", func() error { _, err := s.PutUser(ctx, "a", UserSpec{}); return err }},
		{"empty password", "password", func() error { _, err := s.PutUser(ctx, "guest", UserSpec{Password: ptr(Secret(""))}); return err }},
		{"NUL", "password", func() error { _, err := s.PutUser(ctx, "a", UserSpec{Password: ptr(Secret("a\x00b"))}); return err }},
		{"tags", "tags", func() error {
			_, err := s.PutUser(ctx, "a", UserSpec{Password: pw.Password, Tags: &[]string{""}})
			return err
		}},
		{"vhost", "name", func() error { _, err := s.PutVhost(ctx, "a\nb", ""); return err }},
		{"description", "description", func() error { _, err := s.PutVhost(ctx, "a", strings.Repeat("d", 2000)); return err }},
		{"pattern", "write", func() error { return s.PutPermission(ctx, "guest", "/", Permission{Write: "(a"}) }},
		{"pattern that breaks out", "read", func() error { return s.PutPermission(ctx, "guest", "/", Permission{Read: "a)|(.*"}) }},
		{"pattern with an open quote", "read", func() error { return s.PutPermission(ctx, "guest", "/", Permission{Read: `\Qa`}) }},
		{"huge pattern", "read", func() error { return s.PutPermission(ctx, "guest", "/", Permission{Read: "((a{100}){100}){100}"}) }},
		{"long pattern", "configure", func() error {
			return s.PutPermission(ctx, "guest", "/", Permission{Configure: strings.Repeat("a", 1025)})
		}},
	} {
		var e *surgetank.Error
		if err := tc.do(); !errors.As(err, &e) || e.Code != surgetank.CodeInvalid || e.Field != tc.field {
			t.Errorf("%s: got %#v, want an invalid %s", tc.what, err, tc.field)
		}
	}
	wantCode(t, s.PutPermission(ctx, "nobody", "/", Permission{}), surgetank.CodeNotFound)
	wantCode(t, s.PutPermission(ctx, "guest", "nope", Permission{}), surgetank.CodeNotFound)
	wantCode(t, s.DeletePermission(ctx, "nobody", "/"), surgetank.CodeNotFound)
	wantCode(t, s.DeleteUser(ctx, "nobody"), surgetank.CodeNotFound)
}

func TestSecretsDoNotShow(t *testing.T) {
	const password = "hunter2-hunter2"
	var log bytes.Buffer
	b := newMetaBroker()
	s, err := Open(t.Context(), b, WithLogger(slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))))
	must(t, err)
	spec := UserSpec{Password: ptr(Secret(password))}
	_, err = s.PutUser(t.Context(), "ann", spec)
	must(t, err)
	u := login(t, s, "ann", password)
	_, err = s.Authenticate(t.Context(), "guest", password, loopback)
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "secret", *spec.Password)
	asJSON, jsonErr := json.Marshal(map[string]any{"p": spec.Password, "info": s.Users()})
	must(t, jsonErr)
	for what, text := range map[string]string{
		"log": log.String(), "records": b.records(), "error": err.Error(), "user": fmt.Sprintf("%v %+v %#v", u, u, u),
		"secret": fmt.Sprintf("%v %+v %#v %s %q %v", *spec.Password, *spec.Password, *spec.Password, *spec.Password, *spec.Password, UserSpec{}),
		"json":   string(asJSON),
	} {
		if strings.Contains(text, password) {
			t.Errorf("%s shows the password: %s", what, text)
		}
	}
	for _, u := range s.Users() {
		if strings.Contains(fmt.Sprintf("%+v", u), "argon2id") {
			t.Errorf("the hash is visible in %+v", u)
		}
	}
}
