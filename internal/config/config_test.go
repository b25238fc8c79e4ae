package config

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/test/hostile/fuzzing"
)

func env(name string) (string, bool) {
	v, ok := map[string]string{"RATE": "250", "PG": "postgres://u:p@h/d", "LIST": "[1, 2]", "EMPTY": ""}[name]
	return v, ok
}

func parse(t *testing.T, text string) (*File, Problems) {
	t.Helper()
	f, err := Parse("f.yaml", []byte(text), env)
	if err == nil {
		return f, nil
	}
	var ps Problems
	if !errors.As(err, &ps) || surgetank.CodeOf(err) != surgetank.CodeInvalid {
		t.Fatalf("the error is not of Problems: %v", err)
	}
	return nil, ps
}

func TestWholeFile(t *testing.T) {
	f, ps := parse(t, `
server:
  data: /var/lib/surgetank
  http: 127.0.0.1:9000
  amqp: off
  max_message: 32MiB
  log: {level: debug, format: json}
  scrub: {every: 12h, rate: 1MiB}
  disk: {segment: 16MiB, waste: 32MiB}
queues:
  orders:
    group_by: $.payload.repository.full_name
    group: {max_in_flight: 1}
    level:
      rate: ${RATE}/s
      burst: ${RATE}
      max_in_flight: 64
    retry: {max_attempts: 8, initial: 1s, factor: 2, max: 10m, jitter: 0.5}
    dead_letter: ${NAME:-orders}.dead
    dedup: {window: 10m}
    max_bytes: 50GiB
  "odd name.with dots":
sinks:
  orders-to-db:
    queue: orders
    postgres: {dsn: "${PG}", table: orders, columns: {zid: {from: $.id, type: "numeric(12,2)"}, price: $.price, x: "header.$${x}"}}
    lanes: 4
`)
	if ps != nil {
		t.Fatal(ps)
	}
	want := &File{
		Path: "f.yaml",
		Server: Server{Data: "/var/lib/surgetank", HTTP: "127.0.0.1:9000", AMQP: "off", MaxMessage: 32 << 20,
			LogLevel: slog.LevelDebug, LogFormat: "json",
			ScrubEvery: 12 * time.Hour, ScrubRate: 1 << 20, SegmentBytes: 16 << 20, WasteBytes: 32 << 20},
		Queues: []Queue{
			{Name: "orders", Config: surgetank.QueueConfig{
				GroupBy: "$.payload.repository.full_name", Group: surgetank.GroupConfig{MaxInFlight: 1},
				Level:      surgetank.LevelConfig{Rate: 250, Burst: 250, MaxInFlight: 64},
				Retry:      surgetank.RetryConfig{MaxAttempts: 8, Initial: time.Second, Factor: 2, Max: 10 * time.Minute, Jitter: 0.5},
				DeadLetter: "orders.dead", DedupWindow: 10 * time.Minute, MaxBytes: 50 << 30,
			}},
			{Name: "odd name.with dots"},
		},
	}
	sinks := f.Sinks
	f.Sinks = nil
	if diff := cmp.Diff(want, f, cmpopts.IgnoreUnexported(Queue{})); diff != "" {
		t.Error(diff)
	}
	if len(sinks) != 1 || sinks[0].Name != "orders-to-db" {
		t.Fatalf("sinks: %+v", sinks)
	}
	spec := sinks[0].Spec
	if spec.Queue != "orders" || spec.Address != "postgres://u:p@h/d" || spec.Lanes != 4 {
		t.Errorf("sink: %+v", spec)
	}
	var columns []string
	for _, c := range spec.Table.Columns {
		columns = append(columns, c.Name)
	}
	if got := spec.Table.Columns[0]; got.From.String() != "$.id" || got.Type != "numeric(12,2)" {
		t.Errorf("a column with a type became %+v", got)
	}
	if diff := cmp.Diff([]string{"zid", "price", "x"}, columns); diff != "" {
		t.Errorf("columns lost their order or text: %s", diff)
	}
	if got := spec.Table.Columns[2].From.String(); got != "header.${x}" {
		t.Errorf("an escaped variable became %q", got)
	}
	if shown := spec.Redacted().Encode(); !sinks[0].SameAs(shown) || sinks[0].SameAs([]byte("{}")) {
		t.Errorf("SameAs does not know its own settings as they are shown: %s", shown)
	}
}

// TestOver: a file that does not set paused leaves a paused queue paused.
func TestOver(t *testing.T) {
	f, ps := parse(t, "queues: {a: {ttl: 1h}, b: {paused: false}}")
	if ps != nil {
		t.Fatal(ps)
	}
	now := surgetank.QueueConfig{Paused: true, PausedUntil: time.Date(2040, 1, 2, 3, 4, 5, 0, time.UTC), TTL: time.Minute}
	if got := f.Queues[0].Over(now); !got.Paused || got.TTL != time.Hour || got.PausedUntil != now.PausedUntil {
		t.Errorf("a: %+v", got)
	}
	if got := f.Queues[1].Over(now); got.Paused || !got.PausedUntil.IsZero() {
		t.Errorf("b: %+v", got)
	}
	for i, want := range []bool{false, true} {
		patch := f.Queues[i].Patch(now)
		if _, has := patch["paused_until"]; has != want {
			t.Errorf("%s: the patch has paused_until: %v, want %v", f.Queues[i].Name, has, want)
		}
	}
}

// TestPatchOfNames: if the file does not contain a name of a map, the patch removes the name. A
// plain merge would keep it.
func TestPatchOfNames(t *testing.T) {
	f, ps := parse(t, `queues: {a: {group: {fair: true, weights: {x: 3, "*": 2}}}, b: {}}`)
	if ps != nil {
		t.Fatal(ps)
	}
	now := surgetank.QueueConfig{Group: surgetank.GroupConfig{Fair: true, Weights: map[string]int{"x": 1, "y": 5}}}
	group, _ := f.Queues[0].Patch(now)["group"].(map[string]any)
	if diff := cmp.Diff(map[string]any{"x": 3, "*": 2, "y": nil}, group["weights"]); diff != "" {
		t.Error(diff)
	}
	group, _ = f.Queues[1].Patch(now)["group"].(map[string]any)
	if v, is := group["weights"]; !is || v != nil {
		t.Errorf("a file without weights patches them with %v", v)
	}
}

// TestMistakes compares the mistakes of each file, and their positions, with want.
func TestMistakes(t *testing.T) {
	for _, c := range []struct {
		name, file string
		want       []string // prefixes of the problems, or of their texts after the position
	}{
		{"unknown keys everywhere", "queus: {}\nqueues:\n  a:\n    retries: 3\n    retry: {attempts: 3}\nserver: {port: 1}", []string{
			"f.yaml:1:1: queus: this key is not known; known here: server",
			"f.yaml:4:5: queues.a.retries:",
			"f.yaml:5:13: queues.a.retry.attempts:",
			"f.yaml:6:10: server.port:",
		}},
		{"several bad values of one queue", "queues:\n  a:\n    ttl: soon\n    level: {rate: fast, burst: -1}\n    overflow: explode", []string{
			"f.yaml:3:5: queues.a.ttl:",
			"f.yaml:4:13: queues.a.level.rate:",
			"f.yaml:4:25: queues.a.level.burst:",
			"f.yaml:5:5: queues.a.overflow:",
		}},
		{"missing variable", "queues:\n  a:\n    ttl: ${TTL}\n    lease: x\n", []string{
			"f.yaml:3:10: queues.a.ttl: the environment variable TTL is not set",
			"f.yaml:4:5: queues.a.lease:",
		}},
		{"bad variables", "queues:\n  a: {ttl: '${}', lease: '${A', group_by: '${a-b}'}", []string{
			"f.yaml:2:12: queues.a.ttl:", "f.yaml:2:26: queues.a.lease:", "f.yaml:2:43: queues.a.group_by:",
		}},
		{"a variable is never structure", "queues:\n  a:\n    group: ${LIST}", []string{"f.yaml:3:5: queues.a.group:"}},
		{"key twice", "queues:\n  a: {}\n  a: {}", []string{"f.yaml:3:3: queues.a: this key is here a second time; the first is in line 2"}},
		{"two documents", "queues: {}\n---\nqueues: {}", []string{"f.yaml:2:1: a second document"}},
		{"not a map", "- a\n", []string{"f.yaml:1:1: the file must be a map"}},
		{"section not a map", "queues: [a]\nsinks: 3\nserver: x", []string{"f.yaml:1:9: queues:", "f.yaml:2:8: sinks:", "f.yaml:3:9: server:"}},
		{"queue not a map", "queues: {a: 3}", []string{"f.yaml:1:13: queues.a:"}},
		{"bad name", "queues: {\"a\\tb\": {}}", []string{"f.yaml:1:10: queues:"}},
		{"sink without queue", "sinks:\n  s: {sqlite: {path: x, table: t, columns: {a: body}}}", []string{"f.yaml:2:3: sinks.s.queue:"}},
		{"sink settings", "sinks:\n  s:\n    queue: q\n    lanes: many\n    sqlite:\n      path: x\n      table: t\n      columns:\n        a: nonsense\n        b: body\n        b: body\n", []string{
			"f.yaml:4:5: sinks.s.lanes:", "f.yaml:9:9: sinks.s.sqlite.columns.a:", "f.yaml:11:9: sinks.s.sqlite.columns.b:",
		}},
		{"column settings", "sinks:\n  s:\n    queue: q\n    sqlite:\n      path: x\n      table: t\n      columns:\n        a: {from: nonsense}\n        b: {from: body, typ: int}\n        c: 5\n", []string{
			"f.yaml:8:9: sinks.s.sqlite.columns.a:", "f.yaml:9:25: sinks.s.sqlite.columns.b.typ:", "f.yaml:10:9: sinks.s.sqlite.columns.c:",
		}},
		{"syntax", "queues:\n  a: {ttl: 1s\n  b: x", []string{"f.yaml:"}},
		{"tabs", "queues:\n\ta: 1", []string{"f.yaml:2:1: this is not YAML"}},
		{"merge key", "x: &x {ttl: 1s}\nqueues: {a: {<<: *x}}", []string{"f.yaml:1:1: x:", "f.yaml:2:14: queues.a: merge keys"}},
		{"tag", "queues: {a: {ttl: !!binary aGk=}}", []string{"f.yaml:1:19: queues.a.ttl: the tag"}},
		{"not finite", "queues: {a: {retry: {factor: .inf}}}", []string{"f.yaml:1:30: queues.a.retry.factor:"}},
		{"server", "server: {http: nowhere, log: {level: loud, colour: red}, tls: {cert: x}}", []string{
			"f.yaml:1:38: server.log.level:", "f.yaml:1:44: server.log.colour:",
		}},
		{"scrub", "server: {scrub: {every: soon, rate: fast, speed: 1}}", []string{
			"f.yaml:1:25: server.scrub.every:", "f.yaml:1:37: server.scrub.rate:", "f.yaml:1:43: server.scrub.speed:",
		}},
		{"disk", "server: {disk: {segment: small, waste: much, speed: 1}}", []string{
			"f.yaml:1:26: server.disk.segment:", "f.yaml:1:40: server.disk.waste:", "f.yaml:1:46: server.disk.speed:",
		}},
		{"segment too small", "server: {disk: {segment: 4KiB}}", []string{"f.yaml:1:26: server.disk.segment: segment must be between 1MiB"}},
		{"scrub too often", "server: {scrub: {every: 10ms}}", []string{"f.yaml:1:25: server.scrub.every: every must be off or between 1s"}},
		{"scrub too slow", "server: {scrub: {rate: 1KiB}}", []string{"f.yaml:1:24: server.scrub.rate: rate must be at least"}},
		{"server address", "server: {http: nowhere}", []string{"f.yaml:1:16: server.http: \"nowhere\" is not an address"}},
		{"half of TLS", "server: {tls: {cert: x}}", []string{"f.yaml:1:15: server.tls: cert and key belong together"}},
		{"AMQPS alone", "server: {amqps: ':5671'}", []string{"f.yaml:1:17: server.amqps:"}},
		{"nothing listens", "server: {http: off, amqp: off}", []string{"f.yaml:1:9: server: http and amqp are both off"}},
		{"empty text", "server: {data: ''}", []string{"f.yaml:1:16: server.data:"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, ps := parse(t, c.file)
			if len(ps) != len(c.want) {
				t.Errorf("%d problems, want %d", len(ps), len(c.want))
			}
			for i, p := range ps {
				if i >= len(c.want) || !strings.HasPrefix(p.String(), c.want[i]) {
					t.Errorf("problem %d: %s", i, p)
				}
			}
		})
	}
}

func TestScrubOff(t *testing.T) {
	if f, ps := parse(t, "server: {scrub: {every: off}}"); ps != nil || f.Server.ScrubEvery >= 0 {
		t.Errorf("%v %+v", ps, f)
	}
}

func TestEmptyFilesAreFine(t *testing.T) {
	for _, text := range []string{"", "# nothing\n", "queues:\nsinks:\nserver:\n", "---\n"} {
		if f, ps := parse(t, text); ps != nil || len(f.Queues)+len(f.Sinks) != 0 {
			t.Errorf("%q: %v", text, ps)
		}
	}
}

// TestAliases: an alias is replaced by a whole value. The limit of values prevents that a small
// file becomes very large.
func TestAliases(t *testing.T) {
	f, ps := parse(t, "queues:\n  a: &a {ttl: 1h}\n  b: *a\n")
	if ps != nil || f.Queues[1].Config.TTL != time.Hour {
		t.Errorf("%v %+v", ps, f)
	}
	var bomb strings.Builder
	bomb.WriteString("queues:\n  a0: &a0 [x]\n")
	for i := 1; i < 25; i++ {
		prev := "*a" + string(rune('0'+(i-1)/10)) + string(rune('0'+(i-1)%10))
		if i == 1 {
			prev = "*a0"
		}
		name := "a" + string(rune('0'+i/10)) + string(rune('0'+i%10))
		bomb.WriteString("  " + name + ": &" + name + " [" + prev + "," + prev + "," + prev + "]\n")
	}
	if _, ps := parse(t, bomb.String()); len(ps) == 0 || len(ps) > maxProblems {
		t.Errorf("%d problems of an alias bomb", len(ps))
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	if _, err := Load(filepath.Join(dir, "none.yaml")); surgetank.CodeOf(err) != surgetank.CodeNotFound {
		t.Errorf("missing file: %v", err)
	}
	path := filepath.Join(dir, "f.yaml")
	if err := os.WriteFile(path, []byte("queues: {a: {ttl: 1h}}"), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := Load(path)
	if err != nil || len(f.Queues) != 1 {
		t.Errorf("%v %+v", err, f)
	}
	if err := os.Truncate(path, MaxFile+1); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(path); surgetank.CodeOf(err) != surgetank.CodeTooLarge {
		t.Errorf("large file: %v", err)
	}
}

// FuzzParse: for every file, the reader ends without a panic, and each mistake has a position.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"", "queues: {a: {ttl: 1h}}", "sinks: {s: {queue: q, sqlite: {path: x}}}", "a: &a [*a]", "server: {http: ':1'}\n---\n",
		"queues: {a: {retry: {max: ${X:-1s}}}}", "? [a]\n: b", "queues: {a.b: {group.x: 1, group: {x.y: 2}}}"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		fuzzing.Bounded(t, len(data), 2048, func() {
			_, err := Parse("f", data, env)
			if err == nil {
				return
			}
			var ps Problems
			if !errors.As(err, &ps) || len(ps) == 0 || len(ps) > maxProblems {
				t.Fatalf("error without problems: %v", err)
			}
			for _, p := range ps {
				if p.Line < 1 && len(data) <= MaxFile {
					t.Fatalf("problem without a place: %v", p)
				}
			}
		})
	})
}
