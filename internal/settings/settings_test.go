package settings

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/fullname"
	"github.com/surgetank/surgetank/test/hostile/fuzzing"
)

// tree decodes JSON as a door does.
func tree(t *testing.T, s string) map[string]any {
	t.Helper()
	var m map[string]any
	d := json.NewDecoder(strings.NewReader(s))
	d.UseNumber()
	if err := d.Decode(&m); err != nil {
		t.Fatalf("%s: %v", s, err)
	}
	return m
}

func TestDecodeEverything(t *testing.T) {
	got, err := Decode(tree(t, `{
		"group_by": "header:customer",
		"group": {"max_in_flight": 1, "rate": "50/s", "fair": true, "weights": {"acme": 3, "*": 2}},
		"level": {"rate": "2000/s", "burst": 200, "max_in_flight": 64, "fresh_share": 0.2, "fresh_age": "5m"}, "priority_step": "30s",
		"retry": {"max_attempts": 8, "initial": "1s", "factor": 2, "max": "10m", "jitter": 0.5},
		"dead_letter": "orders.dead",
		"dedup": {"window": "10m"},
		"ttl": "24h", "max_bytes": "50GiB", "max_messages": 1e6, "max_consumers": 50, "overflow": "drop_oldest",
		"max_priority": 9, "lease": "45s", "transient": true, "paused": true}`))
	if err != nil {
		t.Fatal(err)
	}
	want := surgetank.QueueConfig{
		GroupBy:    "header:customer",
		Group:      surgetank.GroupConfig{MaxInFlight: 1, Rate: 50, Fair: true, Weights: map[string]int{"acme": 3, "*": 2}},
		Level:      surgetank.LevelConfig{Rate: 2000, Burst: 200, MaxInFlight: 64, FreshShare: 0.2, FreshAge: 5 * time.Minute},
		Retry:      surgetank.RetryConfig{MaxAttempts: 8, Initial: time.Second, Factor: 2, Max: 10 * time.Minute, Jitter: 0.5},
		DeadLetter: "orders.dead", DedupWindow: 10 * time.Minute, TTL: 24 * time.Hour, MaxBytes: 50 << 30, MaxMessages: 1e6, MaxConsumers: 50,
		Overflow: surgetank.OverflowDropOldest, MaxPriority: 9, Lease: 45 * time.Second, Transient: true, Paused: true, PriorityStep: 30 * time.Second,
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Fatal(d)
	}
	empty, err := Decode(nil)
	if err != nil || !Equal(empty, surgetank.QueueConfig{}) {
		t.Fatalf("no settings: %+v, %v", empty, err)
	}
}

// A written 0 means 0 or is refused. It never means the default, as a zero field of QueueConfig
// does.
func TestDecodeZeros(t *testing.T) {
	got, err := Decode(tree(t, `{"retry":{"initial":"0s","jitter":0,"max_attempts":"unlimited"},"ttl":0}`))
	if err != nil {
		t.Fatal(err)
	}
	r := WithDefaults(got).Retry
	if r.Initial > 0 || r.Jitter > 0 || r.MaxAttempts >= 0 || got.TTL != 0 {
		t.Fatalf("%+v", got)
	}
}

func TestDecodeErrors(t *testing.T) {
	for _, tc := range []struct{ in, field, says string }{
		{`{"grup_by":"none"}`, "grup_by", "did you mean group_by?"},
		{`{"group":{"max_inflight":1}}`, "group.max_inflight", "did you mean group.max_in_flight?"},
		{`{"frobnicate":1}`, "frobnicate", "known keys are group_by, group,"},
		{`{"group.fair":true}`, "group.fair", "not a setting"},
		{`{"group":1}`, "group", "further keys (max_in_flight, rate, fair, weights), not a number"},
		{`{"group":null}`, "group", "not nothing"},
		{`{"level":{"adaptive":{"min":0}}}`, "level.adaptive", "leave the key out"},
		{`{"coalesce":{"keep":"last"}}`, "coalesce.keep", "set coalesce.by, too"},
		{`{"coalesce":{"window":"1s"}}`, "coalesce.window", "set coalesce.by, too"},
		{`{"coalesce":{"by":"x"}}`, "coalesce.by", "routing_key or group"},
		{`{"ttl":null}`, "ttl", "no value"},
		{`{"ttl":30}`, "ttl", "with its unit"},
		{`{"ttl":"30"}`, "ttl", "with its unit"},
		{`{"ttl":"-1s"}`, "ttl", "between 0s and 87600h"},
		{`{"ttl":"99999999h"}`, "ttl", "duration"},
		{`{"ttl":"87601h"}`, "ttl", "10 years"},
		{`{"lease":"0s"}`, "lease", "positive"},
		{`{"lease":"13h"}`, "lease", "12h"},
		{`{"retry":{"max":"0s"}}`, "retry.max", "positive"},
		{`{"retry":{"initial":"-1s"}}`, "retry.initial", "between 0s and"},
		{`{"retry":{"max_attempts":0}}`, "retry.max_attempts", `"unlimited"`},
		{`{"retry":{"max_attempts":-1}}`, "retry.max_attempts", `"unlimited"`},
		{`{"retry":{"max_attempts":1.5}}`, "retry.max_attempts", "1.5"},
		{`{"retry":{"factor":0.5}}`, "retry.factor", "between 1 and 1000"},
		{`{"retry":{"factor":1e400}}`, "retry.factor", "a number"},
		{`{"retry":{"factor":1001}}`, "retry.factor", "1000"},
		{`{"retry":{"jitter":2}}`, "retry.jitter", "between 0 and 1"},
		{`{"dedup":"10m"}`, "dedup", "(window, by), not text"},
		{`{"dead_letter":""}`, "dead_letter", "want text"},
		{`{"dead_letter":"v\u001fq"}`, "dead_letter", "control character"},
		{`{"max_bytes":-1}`, "max_bytes", "-1"},
		{`{"max_bytes":"50GiBs"}`, "max_bytes", "512MiB"},
		{`{"max_bytes":"1e30TiB"}`, "max_bytes", "too large"},
		{`{"max_bytes":true}`, "max_bytes", "true"},
		{`{"max_messages":"10"}`, "max_messages", "whole number"},
		{`{"max_messages":9223372036854775808}`, "max_messages", "whole number"},
		{`{"max_consumers":-1}`, "max_consumers", "between 0"},
		{`{"overflow":"drop"}`, "overflow", "drop_oldest"},
		{`{"max_priority":256}`, "max_priority", "255"},
		{`{"level":{"rate":"fast"}}`, "level.rate", "2000/s"},
		{`{"level":{"rate":"5/day"}}`, "level.rate", "2000/s"},
		{`{"level":{"rate":-1}}`, "level.rate", "between 0"},
		{`{"level":{"rate":"0x10/s"}}`, "level.rate", "2000/s"},
		{`{"level":{"rate":"nan/s"}}`, "level.rate", "2000/s"},
		{`{"level":{"burst":0}}`, "level.burst", "between 1"},
		{`{"level":{"max_in_flight":1e99}}`, "level.max_in_flight", "whole number"},
		{`{"level":{"fresh_share":1.5}}`, "level.fresh_share", "between 0 and 1"},
		{`{"level":{"fresh_age":"-1s"}}`, "level.fresh_age", "between 0s"},
		{`{"priority_step":"721h"}`, "priority_step", "720h"},
		{`{"group":{"weights":{"a":3}}}`, "group.weights", "set group.fair, too"},
		{`{"group":{"fair":false,"weights":{"a":3}}}`, "group.weights", "set group.fair, too"},
		{`{"group":{"fair":true,"weights":{"a":0}}}`, "group.weights", `"a": want a whole number between 1 and 1000, not 0`},
		{`{"group":{"fair":true,"weights":{"a":1001}}}`, "group.weights", "not 1001"},
		{`{"group":{"fair":true,"weights":{"a":1.5}}}`, "group.weights", `"a": want a whole number, not 1.5`},
		{`{"group":{"fair":true,"weights":{"a":"3"}}}`, "group.weights", "whole number"},
		{`{"group":{"fair":true,"weights":{"a":null}}}`, "group.weights", "whole number"},
		{`{"group":{"fair":true,"weights":{"":3}}}`, "group.weights", "group name is empty"},
		{`{"group":{"fair":true,"weights":{"a\u0000":3}}}`, "group.weights", "control character"},
		{`{"group":{"fair":true,"weights":[3]}}`, "group.weights", "want a map of names to numbers, not a list"},
		{`{"group":{"fair":true,"weights":3}}`, "group.weights", "not 3"},
		{`{"group":{"fair":true,"weights":null}}`, "group.weights", "no value"},
		{`{"group":{"fair":true,"weights":{` + manyNames(1001) + `}}}`, "group.weights", "1001 names; at most 1000"},
		{`{"group_by":"header:"}`, "group_by", "header:NAME"},
		{`{"group_by":["none"]}`, "group_by", "a list"},
		{`{"paused":"yes"}`, "paused", "true or false"},
		{`{"` + strings.Repeat("x", 1000) + `":1}`, strings.Repeat("x", 60), "known keys"},
	} {
		c, err := Decode(tree(t, tc.in))
		var e *surgetank.Error
		if !errors.As(err, &e) {
			t.Errorf("%.80s: accepted as %+v", tc.in, c)
			continue
		}
		if e.Code != surgetank.CodeInvalid || e.Field != tc.field || !strings.Contains(e.Message, tc.says) {
			t.Errorf("%.80s:\n got field %q, %q\nwant field %q, …%s…", tc.in, e.Field, e.Message, tc.field, tc.says)
		}
	}
}

// Valid settings are written and read back unchanged, also through JSON.
func TestRoundTrip(t *testing.T) {
	span := rapid.Map(rapid.Int64Range(0, int64(surgetank.MaxDuration)), func(n int64) time.Duration { return time.Duration(n) })
	rapid.Check(t, func(t *rapid.T) {
		c := surgetank.QueueConfig{
			GroupBy: rapid.SampledFrom([]string{"", "none", "routing_key", "header:x", "$.a.b"}).Draw(t, "group_by"),
			Group: surgetank.GroupConfig{MaxInFlight: rapid.IntRange(0, 1<<30).Draw(t, "g"), Fair: rapid.Bool().Draw(t, "fair"),
				Weights: rapid.MapOfN(rapid.SampledFrom([]string{"*", "a", "b.c", "é"}), rapid.IntRange(1, 1000), 0, 4).Draw(t, "weights"),
				Rate:    surgetank.Rate(rapid.Float64Range(0, 1e9).Draw(t, "grate"))},
			Level: surgetank.LevelConfig{Rate: surgetank.Rate(rapid.Float64Range(0, 1e9).Draw(t, "rate")),
				Burst: rapid.IntRange(0, 1<<30).Draw(t, "burst"), MaxInFlight: rapid.IntRange(0, 1<<30).Draw(t, "l"),
				FreshShare: rapid.Float64Range(0, 1).Draw(t, "fresh"), FreshAge: span.Draw(t, "fresh age")},
			Retry: surgetank.RetryConfig{MaxAttempts: rapid.IntRange(-1, 1<<30).Draw(t, "attempts"), Max: span.Draw(t, "max"),
				Initial: rapid.OneOf(rapid.Just(time.Duration(-1)), span).Draw(t, "initial"),
				Factor:  rapid.OneOf(rapid.Just(0.0), rapid.Float64Range(1, 1000)).Draw(t, "factor"),
				Jitter:  rapid.OneOf(rapid.Just(-1.0), rapid.Float64Range(0, 1)).Draw(t, "jitter")},
			DeadLetter:  rapid.SampledFrom([]string{"", "-", "orders.dead", "é"}).Draw(t, "dead"),
			DedupWindow: span.Draw(t, "dedup"), DedupBy: rapid.SampledFrom([]string{"", "$.id", "header:message-id"}).Draw(t, "dedup by"), TTL: span.Draw(t, "ttl"),
			MaxBytes: rapid.Int64Range(0, 1<<50).Draw(t, "bytes"), MaxMessages: rapid.Int64Range(0, 1<<50).Draw(t, "messages"), MaxConsumers: rapid.IntRange(0, 1<<30).Draw(t, "consumers"),
			Overflow:    rapid.SampledFrom([]surgetank.Overflow{"", "reject", "drop_oldest", "dead_letter"}).Draw(t, "overflow"),
			MaxPriority: rapid.Uint8().Draw(t, "priority"), Transient: rapid.Bool().Draw(t, "transient"), Paused: rapid.Bool().Draw(t, "paused"),
			Lease: min(surgetank.MaxLease, span.Draw(t, "lease")), PriorityStep: min(surgetank.MaxPriorityStep, span.Draw(t, "step")),
		}
		if !c.Group.Fair || len(c.Group.Weights) == 0 {
			c.Group.Weights = nil
		}
		for _, c := range []surgetank.QueueConfig{c, WithDefaults(c)} {
			b, err := json.Marshal(Encode(c))
			if err != nil {
				t.Fatal(err)
			}
			d := json.NewDecoder(strings.NewReader(string(b)))
			d.UseNumber()
			var m map[string]any
			if err := d.Decode(&m); err != nil {
				t.Fatal(err)
			}
			for what, in := range map[string]map[string]any{"tree": Encode(c), "JSON": m} {
				back, err := Decode(in)
				if err != nil {
					t.Fatalf("%s of %+v: %v", what, c, err)
				}
				if diff := cmp.Diff(c, back); diff != "" {
					t.Fatalf("%s %s: %s", what, b, diff)
				}
			}
		}
	})
}

// Every field of QueueConfig has one row in Table. The row's example can be read and written, and
// differs from the default.
func TestEveryFieldHasARow(t *testing.T) {
	var c surgetank.QueueConfig
	rows := map[any]*Setting{}
	for i := range Table {
		at := Table[i].at(&c)
		if other := rows[at]; other != nil {
			t.Errorf("%s and %s are one field", Table[i].Path, other.Path)
		}
		rows[at] = &Table[i]
	}
	var walk func(name string, v reflect.Value)
	walk = func(name string, v reflect.Value) {
		for i := range v.NumField() {
			name := name + "." + v.Type().Field(i).Name
			if v.Field(i).Kind() == reflect.Struct && rows[v.Field(i).Addr().Interface()] == nil {
				walk(name, v.Field(i))
				continue
			}
			s := rows[v.Field(i).Addr().Interface()]
			if s == nil {
				t.Errorf("QueueConfig%s has no row in Table", name)
				continue
			}
			delete(rows, v.Field(i).Addr().Interface())
			if s.Help == "" || s.Example == nil || (s.Zero == "") == (s.Default == nil && s.DefaultHelp == "") {
				t.Errorf("%s: want help, an example, and a default or the meaning of zero", s.Path)
			}
			var set surgetank.QueueConfig
			if err := s.set(&set, s.Example); err != nil {
				t.Errorf("%s: the example: %v", s.Path, err)
			}
			switches := 0
			if s.Needs != "" {
				if _, err := Decode(Encode(set)); surgetank.CodeOf(err) != surgetank.CodeInvalid {
					t.Errorf("%s without %s: %v", s.Path, s.Needs, err)
				}
				if err := Find(s.Needs).set(&set, Find(s.Needs).Example); err != nil {
					t.Errorf("%s: the example: %v", s.Needs, err)
				}
				switches = 1
			}
			back, err := Decode(Encode(set))
			if err != nil || !reflect.DeepEqual(back, set) || Equal(set, surgetank.QueueConfig{}) || leaves(Encode(set)) != 1+switches {
				t.Errorf("%s: the example %v came back as %+v, %v", s.Path, s.Example, back, err)
			}
		}
	}
	walk("", reflect.ValueOf(&c).Elem())
	for _, s := range rows {
		t.Errorf("%s is no field of QueueConfig", s.Path)
	}
}

// leaves counts the settings in a tree.
func leaves(tree map[string]any) (n int) {
	for key, v := range tree {
		if inner, section := v.(map[string]any); section && sections[key] {
			n += len(inner)
		} else {
			n++
		}
	}
	return n
}

// manyNames returns JSON for a map of n names.
func manyNames(n int) string {
	list := make([]string, n)
	for i := range list {
		list[i] = fmt.Sprintf(`"g%d":1`, i)
	}
	return strings.Join(list, ",")
}

func TestQualify(t *testing.T) {
	c := Qualify(surgetank.QueueConfig{DeadLetter: "d"}, "v")
	if c.DeadLetter != fullname.Of("v", "d") || Unqualify(c).DeadLetter != "d" {
		t.Fatalf("%q", c.DeadLetter)
	}
	for _, same := range []string{"", surgetank.DeadLetterDrop} {
		if c := Qualify(surgetank.QueueConfig{DeadLetter: same}, "v"); c.DeadLetter != same || Unqualify(c).DeadLetter != same {
			t.Fatalf("%q became %q", same, c.DeadLetter)
		}
	}
}

func TestScalars(t *testing.T) {
	for in, want := range map[string]int64{"0": 0, "4096": 4096, "512MiB": 512 << 20, "1.5GiB": 3 << 29, "10 kB": 10000, "2GB": 2e9, "7B": 7} {
		if got, err := ParseSize(in); err != nil || got != want {
			t.Errorf("ParseSize(%q) = %d, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "-1", "MiB", "1.5", "1_000", "0x10", "infMiB", "nanMiB", "1 000", "-1MiB"} {
		if got, err := ParseSize(in); err == nil {
			t.Errorf("ParseSize(%q) = %d", in, got)
		}
	}
	for in, want := range map[string]surgetank.Rate{"0": 0, "2000/s": 2000, "30/m": 0.5, "3600/h": 1, "2.5": 2.5, "1e3/s": 1000} {
		if got, err := ParseRate(in); err != nil || math.Abs(float64(got-want)) > 1e-12 {
			t.Errorf("ParseRate(%q) = %v, %v", in, got, err)
		}
	}
	for d, want := range map[time.Duration]string{
		0: "0s", 10 * time.Minute: "10m", 24 * time.Hour: "24h", time.Hour + 5*time.Second: "1h0m5s", 90 * time.Minute: "1h30m", 1500 * time.Millisecond: "1.5s",
	} {
		if got := FormatDuration(d); got != want {
			t.Errorf("FormatDuration(%d) = %q, want %q", d, got, want)
		}
	}
	for n, want := range map[int64]string{0: "0", 1000: "1000", 1024: "1KiB", 512 << 20: "512MiB", 1 << 41: "2TiB"} {
		if got := FormatSize(n); got != want {
			t.Errorf("FormatSize(%d) = %q, want %q", n, got, want)
		}
	}
}

// FuzzDecode checks that no tree makes Decode panic, and that accepted settings are written and
// read back unchanged.
func FuzzDecode(f *testing.F) {
	f.Add(`{"group":{"rate":"1/m"},"ttl":"1h","max_bytes":"1.5GiB","retry":{"jitter":0}}`)
	f.Add(`{"level":{"adaptive":[]},"x":{"y":null}}`)
	f.Add(`{"":[]}`)
	f.Fuzz(func(t *testing.T, s string) {
		fuzzing.Bounded(t, len(s), 2048, func() {
			var m map[string]any
			d := json.NewDecoder(strings.NewReader(s))
			d.UseNumber()
			if d.Decode(&m) != nil {
				return
			}
			c, err := Decode(m)
			if err != nil {
				var e *surgetank.Error
				if !errors.As(err, &e) || e.Code != surgetank.CodeInvalid {
					t.Fatalf("%s: %v", s, err)
				}
				return
			}
			if back, err := Decode(Encode(c)); err != nil || !Equal(back, c) {
				t.Fatalf("%s: %+v came back as %+v, %v", s, c, back, err)
			}
		})
	})
}

// TestASettingThatOthersNeedCanBeRemoved: a queue's settings have all defaults. The computed ones must
// not keep a queue from removing the setting that they need. Values that a user chose must stay.
func TestASettingThatOthersNeedCanBeRemoved(t *testing.T) {
	c := WithDefaults(surgetank.QueueConfig{Coalesce: surgetank.CoalesceConfig{By: "group", Window: time.Second}})
	c = WithoutNeedless(c)
	if c.Coalesce != (surgetank.CoalesceConfig{By: "group", Window: time.Second}) {
		t.Fatalf("%+v", c.Coalesce)
	}
	c.Coalesce.By, c.Coalesce.Window = "", 0
	if err := Validate(c); err != nil {
		t.Error(err)
	}
	chosen := surgetank.CoalesceConfig{By: "group", Keep: surgetank.KeepFirst, MaxWait: surgetank.NoMaxWait}
	if got := WithoutNeedless(surgetank.QueueConfig{Coalesce: chosen}).Coalesce; got != chosen {
		t.Errorf("%+v", got)
	}
}
