package auth

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/surgetank/surgetank"
)

func number(n int) *int { return &n }

// storeWith is a Store with a user u, who has all permissions in "/", and a virtual host v.
func storeWith(t *testing.T) (*metaBroker, *Store) {
	t.Helper()
	ctx := context.Background()
	b := newMetaBroker()
	s, err := Open(ctx, b)
	if err != nil {
		t.Fatal(err)
	}
	p := Secret("p")
	if _, err := s.PutUser(ctx, "u", UserSpec{Password: &p}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.PutVhost(ctx, "v", ""); err != nil {
		t.Fatal(err)
	}
	for _, v := range []string{"/", "v"} {
		if err := s.PutPermission(ctx, "u", v, AllPermissions); err != nil {
			t.Fatal(err)
		}
	}
	return b, s
}

func (s *Store) tag(name string) *User { return &User{Name: name, id: s.state.Load().users[name].ID} }

// refusedBy returns the limit that a refusal names, or "" if there is none.
func refusedBy(t *testing.T, err error) string {
	t.Helper()
	if err == nil {
		return ""
	}
	var l *LimitError
	if !errors.As(err, &l) || surgetank.CodeOf(err) != surgetank.CodeBusy {
		t.Fatalf("%v is no LimitError", err)
	}
	var e *surgetank.Error
	if errors.As(err, &e); e.Limit != strings.Replace(l.What, " ", ".max_", 1) {
		t.Errorf("%v names the limit %q", err, e.Limit)
	}
	return l.What
}

func TestAdmissions(t *testing.T) {
	_, s := storeWith(t)
	ctx := context.Background()
	ok := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	u := s.tag("u")
	enter := func(who *User, vhost, want string) *Admission {
		t.Helper()
		a, err := s.Admit(who, vhost)
		if got := refusedBy(t, err); got != want {
			t.Fatalf("%q in %q: refused by %q, want %q", who, vhost, got, want)
		}
		return a
	}
	ok(s.PutVhostLimits(ctx, "/", VhostLimits{MaxConnections: number(2)}))
	ok(s.PutUserLimits(ctx, "u", UserLimits{MaxConnections: number(2), MaxChannels: number(3)}))
	a := enter(u, "/", "")
	b := enter(u, "v", "")
	enter(u, "v", UserConnections)
	local := enter(Local(), "/", "") // counted for the virtual host, but for no user
	enter(Local(), "/", VhostConnections)
	enter(u, "/", VhostConnections)
	local.Leave()
	local.Leave() // the second call has no effect
	enter(Local(), "/", "").Leave()

	for i, ad := range []*Admission{a, b, a, a, local} {
		want := ""
		if i == 3 {
			want = UserChannels
		}
		if got := refusedBy(t, ad.Channel()); got != want {
			t.Errorf("channel %d: refused by %q, want %q", i, got, want)
		}
	}
	a.EndChannel()
	ok(b.Channel())
	b.Leave() // ends its two channels too
	ok(a.Channel())
	ok(a.Channel())
	if refusedBy(t, a.Channel()) == "" {
		t.Error("a fourth channel")
	}
	// Consumers are counted like channels. EndConsumers subtracts several at once.
	ok(s.PutUserLimits(ctx, "u", UserLimits{MaxConsumers: number(2)}))
	for i, want := range []string{"", "", UserConsumers} {
		if got := refusedBy(t, a.Consumer()); got != want {
			t.Errorf("consumer %d: refused by %q, want %q", i, got, want)
		}
	}
	a.EndConsumers(5) // there were only two
	ok(a.Consumer())
	other := enter(u, "v", "")
	ok(other.Consumer())
	if refusedBy(t, a.Consumer()) != UserConsumers {
		t.Error("a third consumer over two connections")
	}
	other.Leave() // ends its consumer too
	ok(a.Consumer())
	ok(local.Consumer()) // the machine's own programs are not a user
	ok(s.PutUserLimits(ctx, "u", UserLimits{}))
	ok(a.Consumer())
	if n := s.state.Load().users["u"].Limits.Consumers(); n != DefaultMaxConsumers {
		t.Errorf("a user without a limit may have %d consumers", n)
	}
	// A limit that is raised, lowered or removed applies from then on. Existing connections stay.
	ok(s.PutUserLimits(ctx, "u", UserLimits{MaxConnections: number(0)}))
	enter(u, "v", UserConnections)
	ok(a.Channel())
	ok(s.PutUserLimits(ctx, "u", UserLimits{}))
	enter(u, "v", "").Leave()

	// A new user of the same name has its own count, and the end of the old user's connections does
	// not lower it.
	ok(s.DeleteUser(ctx, "u"))
	if _, err := s.Admit(u, "v"); surgetank.CodeOf(err) != surgetank.CodeDenied {
		t.Errorf("a deleted user: %v", err)
	}
	a.Leave()
	if n := len(s.admitted.users) + len(s.admitted.channels) + len(s.admitted.consumers) + len(s.admitted.vhosts); n != 0 {
		t.Errorf("%+v is left after all connections have ended", &s.admitted)
	}
	for _, l := range []VhostLimits{{MaxQueues: number(-1)}, {MaxConnections: number(MaxLimit + 1)}} {
		if err := s.PutVhostLimits(ctx, "/", l); surgetank.CodeOf(err) != surgetank.CodeInvalid {
			t.Errorf("%v", err)
		}
	}
	if err := s.PutUserLimits(ctx, "u", UserLimits{MaxConsumers: number(-1)}); surgetank.CodeOf(err) != surgetank.CodeInvalid {
		t.Errorf("%v", err)
	}
	if err := s.PutVhostLimits(ctx, "nowhere", VhostLimits{}); surgetank.CodeOf(err) != surgetank.CodeNotFound {
		t.Errorf("%v", err)
	}
}

func TestLimitsAndTopicsAreDurable(t *testing.T) {
	b, s := storeWith(t)
	ctx := context.Background()
	for _, err := range []error{
		s.PutVhostLimits(ctx, "v", VhostLimits{MaxQueues: number(0)}), s.PutUserLimits(ctx, "u", UserLimits{MaxChannels: number(7)}),
		s.PutTopicPermission(ctx, "u", "v", TopicPermission{Exchange: "x", Write: "a", Read: "{username}|b"}),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	again, err := Open(ctx, b)
	if err != nil {
		t.Fatal(err)
	}
	if n, limited := again.QueueLimit("v"); !limited || n != 0 {
		t.Errorf("queues %d, %v", n, limited)
	}
	if _, limited := again.QueueLimit("/"); limited {
		t.Error("a limit applies, but none was set")
	}
	if info, _ := again.GetUser("u"); info.Limits.MaxChannels == nil || *info.Limits.MaxChannels != 7 || info.Limits.MaxConnections != nil {
		t.Errorf("%+v", info)
	}
	u := again.tag("u")
	for _, tt := range []struct {
		op            Op
		vhost, x, key string
		want          bool
	}{
		{Write, "v", "x", "a", true}, {Write, "v", "x", "ab", false}, {Write, "v", "x", "b", false}, {Read, "v", "x", "u", true}, {Read, "v", "x", "b", true},
		{Read, "v", "x", "ub", false}, {Write, "v", "y", "zzz", true}, {Write, "/", "x", "zzz", true}, {Configure, "v", "x", "zzz", true},
	} {
		if err := again.Authorize(u, tt.vhost, tt.op, tt.x, tt.key); (err == nil) != tt.want {
			t.Errorf("%s %s of %s in %s: %v", tt.op, tt.key, tt.x, tt.vhost, err)
		}
	}
	if err := again.Authorize(u, "v", Write, "x", "a", "b"); surgetank.CodeOf(err) != surgetank.CodeDenied {
		t.Errorf("one of two keys: %v", err)
	}
	if err := again.Authorize(Local(), "v", Write, "x", "b"); err != nil {
		t.Errorf("the local administrator: %v", err)
	}
	// A virtual host created again has no topic permissions, and a removed permission is gone.
	if err := again.DeleteVhost(ctx, "v"); err != nil {
		t.Fatal(err)
	}
	if _, err := again.PutVhost(ctx, "v", ""); err != nil {
		t.Fatal(err)
	}
	if err := again.PutPermission(ctx, "u", "v", AllPermissions); err != nil {
		t.Fatal(err)
	}
	if err := again.Authorize(u, "v", Write, "x", "zzz"); err != nil || len(again.TopicPermissions("", "")) != 0 {
		t.Errorf("%v, %v", err, again.TopicPermissions("", ""))
	}
	if err := again.PutTopicPermission(ctx, "u", "v", TopicPermission{Exchange: "x", Write: "a)|(b"}); surgetank.CodeOf(err) != surgetank.CodeInvalid {
		t.Errorf("a pattern that slips out of its anchors: %v", err)
	}
	if err := again.PutTopicPermission(ctx, "u", "v", TopicPermission{Exchange: "x"}); err != nil {
		t.Fatal(err)
	}
	if err := again.Authorize(u, "v", Write, "x", ""); err == nil {
		t.Error("an empty pattern matched")
	}
	if err := again.DeleteTopicPermission(ctx, "u", "v", ""); err != nil || again.Authorize(u, "v", Write, "x", "") != nil {
		t.Errorf("%v", err)
	}
}
