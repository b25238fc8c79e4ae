package policy

import (
	"context"
	"encoding/json"
	"errors"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/embedded"
	"github.com/surgetank/surgetank/internal/auth"
	"github.com/surgetank/surgetank/internal/door"
	"github.com/surgetank/surgetank/internal/door/doortest"
	"github.com/surgetank/surgetank/internal/fullname"
	"github.com/surgetank/surgetank/internal/settings"
	"github.com/surgetank/surgetank/internal/shards/shardstest"
)

// A policy can set each setting that a queue does not set itself: a queue declared without the
// setting gets the policy's value.
func TestAPolicySetsEverySetting(t *testing.T) {
	for i := range settings.Table {
		s := &settings.Table[i]
		var want surgetank.QueueConfig
		if err := s.Set(&want, s.Example); err != nil {
			t.Fatalf("%s: the example: %v", s.Path, err)
		}
		given := nested(s.Path, s.Example)
		if s.Needs != "" {
			if _, err := parseSettings(given); err == nil {
				t.Errorf("%s is accepted without %s", s.Path, s.Needs)
			}
			_, key, _ := strings.Cut(s.Needs, ".")
			section, _, _ := strings.Cut(s.Path, ".")
			given[section].(map[string]any)[key] = true
		}
		r, err := parseSettings(given)
		if s.NoPolicy != "" {
			if err == nil || !strings.Contains(err.Error(), s.NoPolicy) {
				t.Errorf("%s: %v", s.Path, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", s.Path, err)
			continue
		}
		if got := r.effective(fullname.DefaultVhost, surgetank.QueueConfig{}); !s.Same(&got, &want) {
			t.Errorf("%s: under the policy the settings are %+v", s.Path, got)
		}
	}
}

// nested makes a tree with one setting.
func nested(path string, v any) map[string]any {
	if section, key, inner := strings.Cut(path, "."); inner {
		return map[string]any{section: map[string]any{key: v}}
	}
	return map[string]any{path: v}
}

func tree(t *testing.T, text string) map[string]any {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal([]byte(text), &m); err != nil {
		t.Fatal(err)
	}
	return m
}

func TestSettingsOfPolicies(t *testing.T) {
	for text, want := range map[string]string{
		`{}`:                           "there are none",
		`{"nope":1}`:                   `"nope" is not a setting`,
		`{"transient":true}`:           "decided when it is declared",
		`{"paused":true}`:              "operator",
		`{"ttl":"1h","message-ttl":5}`: "same setting as message-ttl",
		`{"dead_letter":"d","dead-letter-exchange":"x"}`: "same setting",
		`{"message-ttl":-1}`:                             "settings.message-ttl",
		`{"message-ttl":"x"}`:                            "settings.message-ttl",
		`{"message-ttl":1.5}`:                            "settings.message-ttl",
		`{"max-length":0}`:                               "settings.max-length",
		`{"expires":0}`:                                  "settings.expires",
		`{"overflow":"explode"}`:                         "settings.overflow",
		`{"dead-letter-exchange":5}`:                     "settings.dead-letter-exchange",
		`{"federation-upstream":"x"}`:                    "no federation",
		`{"retry":{"max_attempts":0}}`:                   "settings.retry.max_attempts",
		`{"retry":5}`:                                    "settings.retry",
		`{"dead-letter-exchange":"` + strings.Repeat("x", 300) + `"}`: "settings.dead-letter-exchange",
	} {
		_, err := compile(Policy{Name: "p", Pattern: ".", Settings: tree(t, text)})
		var e *surgetank.Error
		if !errors.As(err, &e) || e.Code != surgetank.CodeInvalid || !strings.Contains(e.Message, want) {
			t.Errorf("%s: %v, want one with %q", text, err, want)
		}
	}
	for _, p := range []Policy{
		{Name: "", Pattern: "."}, {Name: "p"}, {Name: "p", Pattern: "("}, {Name: "p", Pattern: ".", ApplyTo: "shovels"},
		{Name: "p", Pattern: strings.Repeat("a", MaxPatternLen+1)}, {Name: "p", Pattern: ".", Priority: MaxPriority + 1},
	} {
		p.Settings = map[string]any{"ttl": "1h"}
		if _, err := compile(p); surgetank.CodeOf(err) != surgetank.CodeInvalid {
			t.Errorf("%+v: %v", p, err)
		}
	}
	if _, err := compile(Policy{Name: "p", Pattern: ".", Settings: tree(t, `{"ha-mode":"all","queue-mode":"lazy","max-length":5}`)}); err != nil {
		t.Errorf("keys about replication: %v", err)
	}
}

// TestEffective combines every declared limit or setting with a policy's limit or setting.
func TestEffective(t *testing.T) {
	dlx := surgetank.QueueConfig{Retry: surgetank.RetryConfig{MaxAttempts: -1, Initial: -1}, DeadLetter: Passage("/"), Overflow: surgetank.OverflowDeadLetter}
	rabbit := surgetank.QueueConfig{Retry: surgetank.RetryConfig{MaxAttempts: -1, Initial: -1}, DeadLetter: surgetank.DeadLetterDrop, Overflow: surgetank.OverflowDropOldest}
	with := func(c surgetank.QueueConfig, change func(*surgetank.QueueConfig)) surgetank.QueueConfig {
		change(&c)
		return c
	}
	plain := surgetank.QueueConfig{}
	for _, c := range []struct {
		name, settings string
		own, want      surgetank.QueueConfig
	}{
		{"limit where none was", `{"ttl":"1m"}`, plain, with(plain, func(c *config) { c.TTL = time.Minute })},
		{"the policy's limit is lower", `{"ttl":"1m"}`, surgetank.QueueConfig{TTL: time.Hour}, surgetank.QueueConfig{TTL: time.Minute}},
		{"the queue's limit is lower", `{"message-ttl":60000}`, surgetank.QueueConfig{TTL: time.Second}, surgetank.QueueConfig{TTL: time.Second}},
		{"attempts without limit", `{"delivery-limit":2}`, rabbit, with(rabbit, func(c *config) { c.Retry.MaxAttempts = 3 })},
		{"attempts unlimited by name", `{"delivery-limit":-1,"dead-letter-strategy":"at-least-once"}`, rabbit, rabbit},
		{"attempts unlimited by name, limited by default", `{"delivery-limit":-1}`, settings.WithDefaults(plain), with(settings.WithDefaults(plain), func(c *config) { c.Retry.MaxAttempts = -1 })},
		{"attempts unlimited by name, limited by declaration", `{"delivery-limit":-1}`, with(plain, func(c *config) { c.Retry.MaxAttempts = 3 }), with(plain, func(c *config) { c.Retry.MaxAttempts = 3 })},
		{"attempts by default", `{"delivery-limit":50}`, settings.WithDefaults(plain), with(settings.WithDefaults(plain), func(c *config) { c.Retry.MaxAttempts = 51 })},
		{"attempts said", `{"delivery-limit":50}`, with(plain, func(c *config) { c.Retry.MaxAttempts = 3 }), with(plain, func(c *config) { c.Retry.MaxAttempts = 3 })},
		{"the declaration wins", `{"group_by":"routing_key","overflow":"reject"}`, surgetank.QueueConfig{GroupBy: "header:a", Overflow: surgetank.OverflowDeadLetter},
			surgetank.QueueConfig{GroupBy: "header:a", Overflow: surgetank.OverflowDeadLetter}},
		{"defaults give way", `{"group_by":"routing_key","overflow":"reject-publish"}`, rabbit,
			with(rabbit, func(c *config) { c.GroupBy, c.Overflow = "routing_key", surgetank.OverflowReject })},
		{"a dead-letter exchange takes what makes room", `{"dead-letter-exchange":"x"}`, rabbit, dlx},
		{"and so it does when drop-head is said", `{"dead-letter-exchange":"x","overflow":"drop-head"}`, rabbit, dlx},
		{"but not what is dropped on purpose", `{"dead-letter-exchange":"x","overflow":"drop_oldest"}`, rabbit, with(dlx, func(c *config) { c.Overflow = surgetank.OverflowDropOldest })},
		{"a dead-letter exchange of its own", `{"dead-letter-exchange":"y"}`, dlx, dlx},
		{"a queue for dead letters", `{"dead_letter":"d"}`, rabbit, with(rabbit, func(c *config) { c.DeadLetter = "d" })},
		{"a burst follows its rate", `{"level":{"rate":10}}`, settings.WithDefaults(surgetank.QueueConfig{Level: surgetank.LevelConfig{Rate: 1000}}),
			with(settings.WithDefaults(plain), func(c *config) { c.Level.Rate = 10 })},
	} {
		p, err := compile(Policy{Name: "p", Pattern: ".", Settings: tree(t, c.settings)})
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if got := p.rules.effective("/", c.own); !settings.Equal(got, c.want) {
			t.Errorf("%s:\n got %+v\nwant %+v", c.name, settings.WithDefaults(got), settings.WithDefaults(c.want))
		}
	}
}

// flaky is a broker whose durable steps can fail.
type flaky struct {
	door.Broker
	mu   sync.Mutex
	fail func(op, name string) error
	// watch, if set, is called before a queue is declared. The function that it returns is called
	// afterwards.
	watch func(name string) func()
}

func (f *flaky) check(op, name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fail == nil {
		return nil
	}
	return f.fail(op, name)
}

func (f *flaky) SetMetaIf(ctx context.Context, ns, name string, v []byte, expected uint64) (uint64, error) {
	if err := f.check("meta", name); err != nil {
		return 0, err
	}
	return f.Broker.SetMetaIf(ctx, ns, name, v, expected)
}

func (f *flaky) DeclareQueue(ctx context.Context, name string, c surgetank.QueueConfig, mode surgetank.DeclareMode) (surgetank.QueueInfo, bool, error) {
	if err := f.check("declare", name); err != nil {
		return surgetank.QueueInfo{}, false, err
	}
	if f.watch != nil {
		defer f.watch(name)()
	}
	return f.Broker.DeclareQueue(ctx, name, c, mode)
}

type rig struct {
	t     *testing.T
	raw   *flaky
	users *auth.Store
	*Broker
}

func newRig(t *testing.T) *rig {
	t.Helper()
	b, err := embedded.Memory(embedded.Options{Shards: shardstest.N})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	r := &rig{t: t, raw: &flaky{Broker: doortest.Of(t, b)}}
	r.reopen()
	return r
}

// reopen acts like a restart.
func (r *rig) reopen() {
	r.t.Helper()
	if r.Broker != nil {
		r.Unfollow()
		r.users.Close()
	}
	var err error
	if r.users, err = auth.Open(r.t.Context(), r.raw); err != nil {
		r.t.Fatal(err)
	}
	if r.Broker, err = Open(r.t.Context(), r.raw, r.users, nil); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) ok(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) put(vhost, name, pattern string, priority int, settings string) {
	r.t.Helper()
	_, err := r.PutPolicy(r.t.Context(), Policy{Vhost: vhost, Name: name, Pattern: pattern, Priority: priority, Settings: tree(r.t, settings)})
	r.ok(err)
}

func (r *rig) declare(name string, c surgetank.QueueConfig, mode surgetank.DeclareMode) surgetank.QueueInfo {
	r.t.Helper()
	info, _, err := r.DeclareQueue(r.t.Context(), name, c, mode)
	r.ok(err)
	return info
}

// wants checks a queue's TTL in force, its declared TTL, and its policy.
func (r *rig) wants(name string, ttl, declared time.Duration, policy string) {
	r.t.Helper()
	info, err := r.Queue(r.t.Context(), name)
	r.ok(err)
	if info.Config.TTL != ttl || info.Declared().TTL != declared || info.Policy != policy {
		r.t.Errorf("queue %s: ttl %v declared %v policy %q; want %v, %v, %q", name, info.Config.TTL, info.Declared().TTL, info.Policy, ttl, declared, policy)
	}
}

func TestPoliciesComeAndGo(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	r.declare("orders.a", surgetank.QueueConfig{TTL: time.Hour}, surgetank.DeclareNew)
	r.declare("other", surgetank.QueueConfig{}, surgetank.DeclareNew)
	r.put("/", "low", "^orders", 0, `{"ttl":"1m"}`)
	r.wants("orders.a", time.Minute, time.Hour, "low")
	r.wants("other", 0, 0, "")
	if info := r.declare("orders.b", surgetank.QueueConfig{}, surgetank.DeclareIfAbsent); info.Config.TTL != time.Minute || info.Policy != "low" {
		t.Errorf("a new queue: %+v", info)
	}
	r.put("/", "high", "a$", 5, `{"max-length":7}`) // only high applies: low's ttl does not
	r.wants("orders.a", time.Hour, time.Hour, "high")
	r.wants("orders.b", time.Minute, 0, "low")

	// A queue's own settings change while a policy applies. A pause is not a setting.
	r.declare("orders.b", surgetank.QueueConfig{TTL: time.Second}, surgetank.DeclareOrUpdate)
	r.wants("orders.b", time.Second, time.Second, "low")
	r.ok(r.PauseQueue(ctx, "orders.b", time.Hour))
	end := func() time.Time { info, _ := r.Queue(ctx, "orders.b"); return info.Config.PausedUntil }
	until := end()
	r.put("/", "low", "^orders", 0, `{"ttl":"1ms"}`)
	r.wants("orders.b", time.Millisecond, time.Second, "low")
	if info, _ := r.Queue(ctx, "orders.b"); !info.Config.Paused || !info.Declared().Paused {
		t.Error("the queue is no longer paused")
	}
	if until.IsZero() || end() != until {
		t.Errorf("a policy moved the end of the pause from %v to %v", until, end())
	}
	r.reopen()
	r.wants("orders.a", time.Hour, time.Hour, "high")
	r.wants("orders.b", time.Millisecond, time.Second, "low")

	r.ok(r.DeletePolicy(ctx, "/", "high"))
	r.wants("orders.a", time.Millisecond, time.Hour, "low")
	r.ok(r.DeletePolicy(ctx, "/", "low"))
	r.wants("orders.a", time.Hour, time.Hour, "")
	r.wants("orders.b", time.Second, time.Second, "")
	if end() != until {
		t.Errorf("without policies, the pause ends at %v instead of %v", end(), until)
	}
	if err := r.DeletePolicy(ctx, "/", "low"); surgetank.CodeOf(err) != surgetank.CodeNotFound {
		t.Errorf("deleting it again: %v", err)
	}
	for _, name := range []string{"orders.a", "orders.b"} {
		_, err := r.DeleteQueue(ctx, name, surgetank.DeleteOptions{})
		r.ok(err)
	}
	if meta, _ := r.raw.Meta(ctx, Namespace); len(meta.Values) != 0 {
		t.Errorf("%d records remain after the queues and policies are deleted", len(meta.Values))
	}
}

// A queue that is deleted and created again inherits nothing, and neither does a virtual host.
func TestNewLivesInheritNothing(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	_, err := r.users.PutVhost(ctx, "v", "")
	r.ok(err)
	full := fullname.Of("v", "q")
	r.put("v", "p", ".*", 0, `{"ttl":"1m"}`)
	r.declare(full, surgetank.QueueConfig{TTL: time.Hour}, surgetank.DeclareNew)
	// The plain broker deletes the queue, as when a virtual host is deleted.
	_, err = r.raw.DeleteQueue(ctx, full, surgetank.DeleteOptions{})
	r.ok(err)
	r.declare(full, surgetank.QueueConfig{}, surgetank.DeclareNew)
	r.wants(full, time.Minute, 0, "p")

	r.ok(r.users.DeleteVhost(ctx, "v"))
	_, err = r.users.PutVhost(ctx, "v", "")
	r.ok(err)
	r.declare(full, surgetank.QueueConfig{}, surgetank.DeclareNew)
	r.wants(full, 0, 0, "")
	if list := r.Policies(""); len(list) != 0 {
		t.Errorf("policies of the earlier virtual host: %v", list)
	}
	r.reopen()
	r.wants(full, 0, 0, "")
	if _, err := r.PutPolicy(ctx, Policy{Vhost: "w", Name: "p", Pattern: ".", Settings: map[string]any{"ttl": "1h"}}); surgetank.CodeOf(err) != surgetank.CodeNotFound {
		t.Errorf("a policy in no virtual host: %v", err)
	}
}

// Any durable step can fail, or can be the last before a crash. After a restart every queue has the
// settings of its declaration and the policies, and no declaration is lost.
func TestEveryStepMayBeTheLast(t *testing.T) {
	broken := surgetank.Errorf(surgetank.CodeInternal, "broken")
	none := func(*rig) {}
	for _, run := range []struct {
		name    string
		prepare func(r *rig)
		do      func(r *rig) error
		ttls    []time.Duration // TTLs that can be in force afterwards
	}{
		{"put", none, func(r *rig) error { return r.minute() }, []time.Duration{time.Hour, time.Minute}},
		{"change", func(r *rig) { r.put("/", "p", ".", 0, `{"ttl":"1s"}`) }, func(r *rig) error { return r.minute() }, []time.Duration{time.Second, time.Minute}},
		{"delete", func(r *rig) { r.put("/", "p", ".", 0, `{"ttl":"1m"}`) }, func(r *rig) error { return r.DeletePolicy(r.t.Context(), "/", "p") },
			[]time.Duration{time.Hour, time.Minute}},
	} {
		for step, done := 1, false; !done; step++ {
			r := newRig(t)
			r.declare("q", surgetank.QueueConfig{TTL: time.Hour}, surgetank.DeclareNew)
			run.prepare(r)
			n := 0
			r.raw.fail = func(string, string) error {
				if n++; n >= step {
					return broken
				}
				return nil
			}
			err := run.do(r)
			done = n < step
			r.raw.fail = nil
			r.reopen()
			info, qerr := r.Queue(t.Context(), "q")
			r.ok(qerr)
			if !slices.Contains(run.ttls, info.Config.TTL) || info.Declared().TTL != time.Hour {
				t.Errorf("%s, step %d (%v): ttl %v, declared %v", run.name, step, err, info.Config.TTL, info.Declared().TTL)
			}
			if policies := r.Policies("/"); (len(policies) == 1) != (info.Policy == "p") {
				t.Errorf("%s, step %d: policies %v, the queue's is %q", run.name, step, policies, info.Policy)
			}
			if done && err != nil || step > 20 {
				t.Fatalf("%s: step %d: %v", run.name, step, err)
			}
		}
	}
}

// minute puts a policy with a TTL of one minute.
func (r *rig) minute() error {
	_, err := r.PutPolicy(r.t.Context(), Policy{Vhost: "/", Name: "p", Pattern: ".", Settings: map[string]any{"ttl": "1m"}})
	return err
}

func TestLimitOfQueues(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	two := 2
	r.ok(r.users.PutVhostLimits(ctx, "/", auth.VhostLimits{MaxQueues: &two}))
	r.declare("a", surgetank.QueueConfig{}, surgetank.DeclareIfAbsent)
	r.declare("b", surgetank.QueueConfig{}, surgetank.DeclareOrUpdate)
	_, _, err := r.DeclareQueue(ctx, "c", surgetank.QueueConfig{}, surgetank.DeclareIfAbsent)
	if surgetank.CodeOf(err) != surgetank.CodeFull || !strings.Contains(err.Error(), "cannot declare queue 'c': queue limit in vhost '/' (2) is reached") {
		t.Errorf("above the limit: %v", err)
	}
	if e, is := err.(*surgetank.Error); !is || e.Limit != surgetank.LimitVhostQueues {
		t.Errorf("the error names another limit: %+v", err)
	}
	r.declare("a", surgetank.QueueConfig{TTL: time.Hour}, surgetank.DeclareOrUpdate) // existing queues can be changed
	_, err = r.DeleteQueue(ctx, "a", surgetank.DeleteOptions{})
	r.ok(err)

	// Of many simultaneous declarations, only as many succeed as the limit allows, because queues
	// are counted one by one.
	two = 5
	r.ok(r.users.PutVhostLimits(ctx, "/", auth.VhostLimits{MaxQueues: &two}))
	var wg sync.WaitGroup
	var inside atomic.Int32
	r.raw.watch = func(string) func() {
		if inside.Add(1) > 1 {
			t.Error("two queues are being made at once; each was counted without the other")
		}
		for range 200 {
			runtime.Gosched()
		}
		return func() { inside.Add(-1) }
	}
	for i := range 8 {
		wg.Go(func() {
			_, _, _ = r.DeclareQueue(ctx, "n"+string(rune('0'+i)), surgetank.QueueConfig{}, surgetank.DeclareIfAbsent)
		})
	}
	wg.Wait()
	r.raw.watch = nil
	if list, _ := r.Queues(ctx); len(list) != 5 {
		t.Errorf("%d queues, the limit is 5", len(list))
	}
	r.ok(r.users.PutVhostLimits(ctx, "/", auth.VhostLimits{}))
	r.declare("c", surgetank.QueueConfig{}, surgetank.DeclareIfAbsent)
}
