package httpapi

import (
	"context"
	"encoding/json"
	"fmt"
	"github.com/surgetank/surgetank/internal/shards/shardstest"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/auth"
	"github.com/surgetank/surgetank/internal/door"
	"github.com/surgetank/surgetank/internal/door/doortest"
)

// tap records the handler's calls to the broker.
type tap struct {
	door.Broker
	sent []surgetank.Message
}

func (b *tap) PublishAsync(ctx context.Context, msgs []surgetank.Publishing, done func([]surgetank.PublishResult, error)) error {
	b.sent = nil
	for _, m := range msgs {
		b.sent = append(b.sent, m.Message)
	}
	return b.Broker.PublishAsync(ctx, msgs, done)
}

func newTappedRig(t *testing.T) (*rig, *tap) {
	b := new(tap)
	r := newRig(t, func(o *Options) {
		b.Broker = o.Broker
		o.Broker = b
	})
	return r, b
}

func TestPublishOneRaw(t *testing.T) {
	shardstest.One(t, "the test compares message ids")
	r, b := newTappedRig(t)
	r.queue("q", `{"max_priority":9,"dedup":{"window":"1h"}}`)
	a := r.want(http.StatusCreated, "POST", "/v1/queues/q/messages", "\x00 any bytes \xff", header("Content-Type", "image/png; x=1"),
		header("Surgetank-Group", "g"), header("Surgetank-Dedup-Id", "d"), header("Surgetank-Delay", "1h"), header("Surgetank-TTL", "24h"),
		header("Surgetank-Priority", "7"), header("Surgetank-Key", "k.é"), header("Surgetank-Header-Customer", "acme"), header("Surgetank-Header-Customer", "again"))
	if got := a.body; got != `{"published":1,"duplicates":0,"ids":["1-1"]}`+"\n" {
		t.Fatalf("got %s", got)
	}
	got := b.sent[0]
	want := surgetank.Message{Body: []byte("\x00 any bytes \xff"), ContentType: "image/png", Group: "g", DedupID: "d", Delay: time.Hour, TTL: 24 * time.Hour,
		Priority: 7, Key: "k.é", Headers: []surgetank.Header{{Name: "customer", Value: "acme"}, {Name: "customer", Value: "again"}}}
	if d := cmp.Diff(want, got); d != "" {
		t.Fatalf("difference: %s", d)
	}
	again := r.want(http.StatusCreated, "POST", "/v1/queues/q/messages", "other", header("Surgetank-Dedup-Id", "d"))
	if got := again.body; got != `{"published":1,"duplicates":1,"ids":["1-1"]}`+"\n" {
		t.Fatalf("got %s", got)
	}
}

// An empty body is a message too, and curl's default type counts as no type.
func TestPublishOneRawTypes(t *testing.T) {
	r := newRig(t)
	r.queue("q", "{}")
	r.want(http.StatusCreated, "POST", "/v1/queues/q/messages", "")
	r.want(http.StatusCreated, "POST", "/v1/queues/q/messages", "a=1", header("Content-Type", "application/x-www-form-urlencoded"))
	r.want(http.StatusCreated, "POST", "/v1/queues/q/messages", `{"a":1} `, header("Content-Type", "application/json; charset=utf-8"))
	var got []string
	for _, d := range r.stored("q") {
		got = append(got, d.ContentType+":"+string(d.Body))
	}
	if want := []string{":", ":a=1", `application/json:{"a":1} `}; !slices.Equal(got, want) {
		t.Fatalf("%q", got)
	}
}

func TestPublishNDJSON(t *testing.T) {
	shardstest.One(t, "the test compares message ids")
	r, b := newTappedRig(t)
	r.queue("q", `{"max_priority":9}`)
	body := lines(
		`{"body": {"b" : 1,"a":[1e400, "\ud83d\ude00é"]}}`,
		``,
		`{"body_base64":"AP8=","content_type":"x/y","group":"gü","dedup_id":"d","delay":"1.5s","ttl":"2h","priority":9,"key":"a.b"}`,
		`  {"headers":{"h":"v","\u0041":"1"},"body":null}  `,
		`{"headers":[{"name":"n","value":""},{"value":"2","name":"n"}],"body":" "}`+"\r",
		`{"b\u006fdy":7}`,
	)
	a := r.want(http.StatusCreated, "POST", "/v1/queues/q/messages", body, header("Content-Type", ndjsonType))
	if got := a.body; got != `{"published":5,"duplicates":0,"ids":["1-1","1-2","1-3","1-4","1-5"]}`+"\n" {
		t.Fatalf("got %s", got)
	}
	const j = "application/json"
	want := []surgetank.Message{
		{Body: []byte(`{"b" : 1,"a":[1e400, "\ud83d\ude00é"]}`), ContentType: j}, // stored byte for byte
		{Body: []byte{0, 255}, ContentType: "x/y", Group: "gü", DedupID: "d", Delay: 1500 * time.Millisecond, TTL: 2 * time.Hour, Priority: 9, Key: "a.b"},
		{Body: []byte("null"), ContentType: j, Headers: []surgetank.Header{{Name: "h", Value: "v"}, {Name: "A", Value: "1"}}},
		{Body: []byte(`" "`), ContentType: j, Headers: []surgetank.Header{{Name: "n", Value: ""}, {Name: "n", Value: "2"}}},
		{Body: []byte("7"), ContentType: j},
	}
	if d := cmp.Diff(want, b.sent); d != "" {
		t.Fatalf("difference: %s", d)
	}
	for i, d := range r.stored("q") {
		if string(d.Body) != string(want[i].Body) {
			t.Fatalf("%d: stored %q", i, d.Body)
		}
	}
}

func TestPublishRawLines(t *testing.T) {
	shardstest.One(t, "the test compares message ids")
	r := newRig(t)
	r.queue("q", `{"dedup":{"window":"1h"}}`)
	post := func(ids, body string, change ...with) string {
		return r.want(http.StatusCreated, "POST", "/v1/queues/q/messages?raw=lines&ids="+ids, body, change...).body
	}
	if got := post("ranges", "\xef\xbb\xbf{\"a\":1}\n\r\n x\r\nlast", header("Content-Type", ndjsonType), header("Surgetank-Group", "g"),
		header("Surgetank-Dedup-Prefix", "file:"), header("Surgetank-Dedup-First", "100")); got != `{"published":3,"duplicates":0,"ranges":[{"first":"1-1","count":3}]}`+"\n" {
		t.Fatalf("got %s", got)
	}
	// The same file with one more line: only the new line is stored.
	if got := post("ranges", "{\"a\":1}\n\n x\r\nlast\nnew\n", header("Content-Type", "text/plain"), header("Surgetank-Dedup-Prefix", "file:"), header("Surgetank-Dedup-First", "100")); got !=
		`{"published":4,"duplicates":3,"ranges":[{"first":"1-1","count":3,"duplicate":true},{"first":"1-4","count":1}]}`+"\n" {
		t.Fatalf("got %s", got)
	}
	if got := post("none", "z\n", header("Content-Type", "text/plain")); got != `{"published":1,"duplicates":0}`+"\n" {
		t.Fatalf("got %s", got)
	}
	var got []string
	for _, d := range r.stored("q") {
		got = append(got, fmt.Sprintf("%s|%s|%s|%s", d.Body, d.Group, d.DedupID, d.ContentType))
	}
	want := []string{`{"a":1}|g|file:100|application/json`, " x|g|file:102|application/json", "last|g|file:103|application/json",
		"new||file:104|text/plain", "z|||text/plain"}
	if d := cmp.Diff(want, got); d != "" {
		t.Fatalf("difference: %s", d)
	}
}

// The other formats: their messages, numbers and types. Package input tests each format in detail.
func TestPublishFormats(t *testing.T) {
	r := newRig(t)
	for i, tc := range []struct {
		query, body string
		want        []string // body|dedup id
	}{
		{"format=lines", "\xff\xfea\x00\r\x00\n\x00", []string{"a|f:0"}},
		{"format=csv", "\xef\xbb\xbfid,name\r\n1,\"a, b\"\r\n\r\n2,\r\n", []string{`{"id":"1","name":"a, b"}|f:1`, `{"id":"2","name":""}|f:3`}},
		{"format=csv&delimiter=%3B", "id;name\n1;x\n", []string{`{"id":"1","name":"x"}|f:1`}},
		{"format=ndjson", "{\"a\": 1}\r\n\r\n2", []string{`{"a": 1}|f:0`, "2|f:2"}},
		{"format=json", "[{\"a\": 1},\r\n 2]", []string{`{"a":1}|f:0`, "2|f:1"}},
	} {
		q := fmt.Sprintf("q%d", i)
		r.queue(q, `{"dedup":{"window":"1h"}}`)
		// The type of the request is the type of the file. The type of the messages follows from
		// the format.
		r.want(http.StatusCreated, "POST", "/v1/queues/"+q+"/messages?"+tc.query, tc.body, header("Content-Type", "text/csv"), header("Surgetank-Dedup-Prefix", "f:"))
		var got []string
		kind := "application/json"
		if tc.query == "format=lines" {
			kind = "text/csv"
		}
		for _, d := range r.stored(q) {
			got = append(got, string(d.Body)+"|"+d.DedupID)
			if d.ContentType != kind {
				t.Errorf("%s: content type %q", tc.query, d.ContentType)
			}
		}
		if d := cmp.Diff(tc.want, got); d != "" {
			t.Errorf("%s: %s", tc.query, d)
		}
	}
	// Without a format a CSV is one message, unchanged.
	r.queue("whole", "{}")
	r.want(http.StatusCreated, "POST", "/v1/queues/whole/messages", "a,b\r\n1,2\r\n", header("Content-Type", "text/csv"))
	if got := r.stored("whole"); len(got) != 1 || string(got[0].Body) != "a,b\r\n1,2\r\n" {
		t.Fatalf("%+v", got)
	}
	// Lines of NDJSON can have the same line ends.
	r.queue("objects", "{}")
	r.want(http.StatusCreated, "POST", "/v1/queues/objects/messages", "{\"body\":1}\r\n\r\n{\"body\":2}\r\n", header("Content-Type", ndjsonType))
	if got := r.stored("objects"); len(got) != 2 || string(got[0].Body) != "1" {
		t.Fatalf("%+v", got)
	}
}

// If a body that is divided into messages has an error, the answer names the line and nothing is
// stored.
func TestPublishCutRefused(t *testing.T) {
	r := newRig(t, func(o *Options) { o.Limits = Limits{MaxBody: 4096, MaxMessage: 2000, MaxLines: 5} })
	r.queue("q", "{}")
	const good = `{"body":1}`
	for _, tc := range []struct {
		name, target, body string
		status             int
		code               surgetank.Code
		field              string
		line               float64
		says               string
	}{
		{"format=xml", "?format=xml", good, 400, "invalid", "format", 0, "lines, csv"},
		{"two formats", "?raw=lines&format=csv", good, 400, "invalid", "format", 0, "leave raw out"},
		{"delimiter of lines", "?format=lines&delimiter=tab", good, 400, "invalid", "delimiter", 0, "csv"},
		{"delimiter of two", "?format=csv&delimiter=ab", good, 400, "invalid", "delimiter", 0, "one character"},
		{"only empty lines", "?raw=lines", "\n\r\n", 400, "invalid", "", 0, "no message"},
		{"a CR inside a line", "?raw=lines", "a\nb\rc\n", 400, "invalid", "line", 2, "carriage return"},
		{"a CR inside an object", "", good + "\n{\"body\":\r1}", 400, "invalid", "line", 2, "carriage return"},
		{"a mark before an object", "", "\xef\xbb\xbf" + good, 400, "invalid", "line", 1, "byte order mark of UTF-8"},
		{"objects in UTF-16", "", "\xff\xfe{\x00}\x00", 400, "invalid", "line", 1, "byte order mark of UTF-16"},
		{"UTF-16 without a mark", "?raw=lines", "a\x00b\x00", 400, "invalid", "line", 0, "UTF-16"},
		{"ragged CSV", "?format=csv", "a,b\n1\n", 400, "invalid", "line", 2, "1 fields"},
		{"CSV of many rows", "?format=csv", "a\n" + strings.Repeat("1\n", 6), 413, "too_large", "", 0, "more than 5 lines"},
		{"JSON that is none", "?format=json", "[1,", 400, "invalid", "line", 1, "no end"},
		{"CSV of long names", "?format=csv", strings.Repeat("n", 1800) + "\n1\n2\n3\n", 413, "too_large", "", 0, "4KiB"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r.t = t
			kind := ""
			if tc.target == "" {
				kind = ndjsonType
			}
			m := r.wantProblem(r.do("POST", "/v1/queues/q/messages"+tc.target, tc.body, header("Content-Type", kind)), tc.status, tc.code)
			line, _ := m["line"].(float64)
			field, _ := m["field"].(string)
			if detail := m["detail"].(string); line != tc.line || field != tc.field || !strings.Contains(detail, tc.says) {
				t.Errorf("the problem has line %v, field %q and detail %q", line, field, detail)
			}
			if n := len(r.stored("q")); n != 0 {
				t.Errorf("%d messages of a refused request are stored", n)
			}
		})
	}
}

// If any message has an error, the answer names the line and the member, and nothing of the request
// is stored.
func TestPublishRefused(t *testing.T) {
	small := func(o *Options) {
		o.Limits = Limits{MaxBody: 4096, MaxMessage: 200, MaxLines: 5}
	}
	r := newRig(t, small)
	r.queue("q", "{}")
	long := strings.Repeat("x", 300)
	deep := strings.Repeat("[", 100_000)
	const good = `{"body":1}`
	nd := header("Content-Type", ndjsonType)
	for _, tc := range []struct {
		name, target, body string
		status             int
		code               surgetank.Code
		field              string
		line               float64
		says               string
		change             []with
	}{
		{"not JSON", "", "nope", 400, "invalid", "", 2, "line 2", nil},
		{"array", "", `[1]`, 400, "invalid", "", 2, "line 2", nil},
		{"cut", "", `{"body":`, 400, "invalid", "body", 2, "too early", nil},
		{"trailing data", "", `{"body":1} {"body":2}`, 400, "invalid", "", 2, "something follows", nil},
		{"trailing comma", "", `{"body":1,}`, 400, "invalid", "", 2, "key in double quotes", nil},
		{"comment", "", `{"body":1} // x`, 400, "invalid", "", 2, "something follows", nil},
		{"single quotes", "", `{'body':1}`, 400, "invalid", "", 2, "double quotes", nil},
		{"NaN", "", `{"body":NaN}`, 400, "invalid", "body", 2, "not a JSON value", nil},
		{"Infinity", "", `{"body":-Infinity}`, 400, "invalid", "body", 2, "digit", nil},
		{"leading zero", "", `{"body":01}`, 400, "invalid", "", 2, "comma", nil},
		{"hex", "", `{"body":0x1}`, 400, "invalid", "", 2, "comma", nil},
		{"bad escape", "", `{"body":"\x"}`, 400, "invalid", "body", 2, "escape", nil},
		{"raw control character", "", "{\"body\":\"a\tb\"}", 400, "invalid", "body", 2, "control character", nil},
		{"invalid UTF-8", "", "{\"body\":\"\xff\"}", 400, "invalid", "body", 2, "UTF-8", nil},
		{"deep", "", `{"body":` + deep[:1000], 400, "invalid", "body", 2, "deeply", nil},
		{"lone surrogate in a name", "", `{"body":1,"group":"\ud800"}`, 400, "invalid", "group", 2, "surrogate", nil},
		{"NUL in a name", "", `{"body":1,"group":"a\u0000"}`, 400, "invalid", "group", 2, "control", nil},
		{"duplicate", "", `{"body":1,"body":2}`, 400, "invalid", "body", 2, "twice", nil},
		{"duplicate by escape", "", `{"body":1,"b\u006fdy":2}`, 400, "invalid", "", 2, "twice", nil},
		{"unknown member", "", `{"body":1,"grup":"x"}`, 400, "invalid", "grup", 2, "grup", nil},
		{"queue where the path names it", "", `{"body":1,"queue":"x"}`, 400, "invalid", "queue", 2, "queue", nil},
		{"no body", "", `{"group":"x"}`, 400, "invalid", "body", 2, "no body", nil},
		{"two bodies", "", `{"body":1,"body_base64":""}`, 400, "invalid", "body_base64", 2, "both", nil},
		{"base64 without padding", "", `{"body_base64":"AP8"}`, 400, "invalid", "body_base64", 2, "base64", nil},
		{"base64 with bits left", "", `{"body_base64":"AP9="}`, 400, "invalid", "body_base64", 2, "base64", nil},
		{"base64 with a line break", "", `{"body_base64":"AP\n8="}`, 400, "invalid", "body_base64", 2, "line breaks", nil},
		{"base64 for URLs", "", `{"body_base64":"__8="}`, 400, "invalid", "body_base64", 2, "base64", nil},
		{"base64 not text", "", `{"body_base64":7}`, 400, "invalid", "body_base64", 2, "base64", nil},
		{"delay without unit", "", `{"body":1,"delay":"30"}`, 400, "invalid", "delay", 2, "unit", nil},
		{"delay as number", "", `{"body":1,"delay":30}`, 400, "invalid", "delay", 2, "1.5s", nil},
		{"negative delay", "", `{"body":1,"delay":"-1s"}`, 400, "invalid", "delay", 2, "positive", nil},
		{"endless delay", "", `{"body":1,"delay":"999999h"}`, 400, "invalid", "delay", 2, "10 years", nil},
		{"zero ttl", "", `{"body":1,"ttl":"0s"}`, 400, "invalid", "ttl", 2, "positive", nil},
		{"priority 256", "", `{"body":1,"priority":256}`, 400, "invalid", "priority", 2, "255", nil},
		{"priority -1", "", `{"body":1,"priority":-1}`, 400, "invalid", "priority", 2, "255", nil},
		{"priority 1.0", "", `{"body":1,"priority":1.0}`, 400, "invalid", "priority", 2, "255", nil},
		{"priority text", "", `{"body":1,"priority":"1"}`, 400, "invalid", "priority", 2, "255", nil},
		{"empty dedup id", "", `{"body":1,"dedup_id":""}`, 400, "invalid", "dedup_id", 2, "empty", nil},
		{"null group", "", `{"body":1,"group":null}`, 400, "invalid", "group", 2, "text", nil},
		{"long dedup id", "", `{"body":1,"dedup_id":"` + long + `"}`, 413, "too_large", "dedup_id", 2, "255", nil},
		{"header not text", "", `{"body":1,"headers":{"a":1}}`, 400, "invalid", "headers", 2, "text", nil},
		{"header twice", "", `{"body":1,"headers":{"a":"1","a":"2"}}`, 400, "invalid", "headers", 2, "twice", nil},
		{"header item", "", `{"body":1,"headers":[{"name":"a"}]}`, 400, "invalid", "headers", 2, "missing", nil},
		{"header item with more", "", `{"body":1,"headers":[{"name":"a","value":"b","c":"d"}]}`, 400, "invalid", "headers", 2, "each once", nil},
		{"header without name", "", `{"body":1,"headers":{"":"1"}}`, 400, "invalid", "headers", 2, "empty", nil},
		{"headers number", "", `{"body":1,"headers":7}`, 400, "invalid", "headers", 2, "object", nil},
		{"large message", "", `{"body":"` + long + `"}`, 413, "too_large", "body", 2, "200", nil},
		{"large base64", "", `{"body_base64":"` + strings.Repeat("AAAA", 70) + `"}`, 413, "too_large", "body_base64", 2, "200", nil},
		{"too many lines", "", lines(good, good, good, good, good), 413, "too_large", "", 0, "5 lines", nil},
		{"body above the limit", "", strings.Repeat(" ", 5000), 413, "too_large", "", 0, "4KiB", nil},
		{"headers with NDJSON", "", good, 400, "invalid", "Surgetank-*", 0, "own group", []with{header("Surgetank-Group", "x")}},
		{"gzip", "", good, 415, "invalid", "Content-Encoding", 0, "unpacked", []with{header("Content-Encoding", "gzip")}},
		{"malformed type", "", good, 415, "invalid", "Content-Type", 0, "malformed", []with{header("Content-Type", "a/b/c;;")}},
		{"unknown parameter", "?foo=1", good, 400, "invalid", "foo", 0, "format, delimiter, raw, ids", nil},
		{"parameter twice", "?ids=list&ids=none", good, 400, "invalid", "ids", 0, "once", nil},
		{"raw=yes", "?raw=yes", good, 400, "invalid", "raw", 0, "lines", nil},
		{"ids=some", "?ids=some", good, 400, "invalid", "ids", 0, "ranges", nil},
		{"long raw line", "?raw=lines", long, 413, "too_large", "line", 2, "200", nil},
		{"one dedup id for all lines", "?raw=lines", "x", 400, "invalid", "Surgetank-Dedup-Id", 0, "Prefix", []with{header("Surgetank-Dedup-Id", "x")}},
		{"headers times lines", "?raw=lines", "x", 413, "too_large", "", 0, "each of 2", []with{header("Surgetank-Header-X", strings.Repeat("v", 3000))}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r.t = t
			change := tc.change
			if tc.name != "malformed type" {
				change = append([]with{nd}, change...)
			}
			a := r.do("POST", "/v1/queues/q/messages"+tc.target, good+"\n"+tc.body, change...)
			m := r.wantProblem(a, tc.status, tc.code)
			if f, _ := m["field"].(string); f != tc.field && tc.field != "" {
				t.Errorf("field %q, want %q: %s", f, tc.field, a.body)
			}
			if l, _ := m["line"].(float64); l != tc.line {
				t.Errorf("line %v, want %v: %s", l, tc.line, a.body)
			}
			contains(t, "detail", m["detail"].(string), tc.says)
			if n := len(r.stored("q")); n != 0 {
				t.Fatalf("%d messages of a refused request are stored", n)
			}
		})
	}
	for name, h := range map[string]with{
		"unknown option":  header("Surgetank-Grup", "x"),
		"option twice":    func(r *http.Request) { r.Header["Surgetank-Group"] = []string{"a", "b"} },
		"empty group":     header("Surgetank-Group", ""),
		"bad UTF-8":       header("Surgetank-Group", "\xff"),
		"bad delay":       header("Surgetank-Delay", "1"),
		"bad ttl":         header("Surgetank-TTL", "-1s"),
		"bad priority":    header("Surgetank-Priority", "high"),
		"prefix":          header("Surgetank-Dedup-Prefix", "x"),
		"header not UTF8": header("Surgetank-Header-X", "\xff"),
	} {
		t.Run(name, func(t *testing.T) {
			r.t = t
			m := r.wantProblem(r.do("POST", "/v1/queues/q/messages", "x", h), 400, "invalid")
			if f, _ := m["field"].(string); !strings.HasPrefix(f, "Surgetank-") {
				t.Fatalf("the problem names the field %q, want none", f)
			}
			if n := len(r.stored("q")); n != 0 {
				t.Fatalf("%d messages of a refused request are stored", n)
			}
		})
	}
	r.t = t
	r.wantProblem(r.do("POST", "/v1/queues/nope/messages", "x"), 404, "not_found")
}

// If the broker refuses some messages, the answer says which, and has the results of the others.
func TestPublishRefusedInPart(t *testing.T) {
	shardstest.One(t, "the test compares message ids")
	r := newRig(t)
	r.queue("q", `{"max_messages":2}`)
	a := r.do("POST", "/v1/queues/q/messages?raw=lines", "a\nb\nc\nd\n")
	m := r.wantProblem(a, http.StatusTooManyRequests, surgetank.CodeFull)
	if a.header.Get("Retry-After") == "" || m["retry_after"] == "" {
		t.Fatalf("the header Retry-After is missing: %v", a.header)
	}
	got, _ := json.Marshal(map[string]any{"published": m["published"], "ids": m["ids"]})
	if string(got) != `{"ids":["1-1","1-2",null,null],"published":2}` {
		t.Fatalf("the answer is %s", a.body)
	}
	e := m["errors"].([]any)[0].(map[string]any)
	if e["first"] != 2.0 || e["last"] != 3.0 || e["code"] != "full" {
		t.Fatalf("the answer is %s", a.body)
	}
}

// busyBroker has no room: PublishAsync waits until its context ends.
type busyBroker struct{ door.Broker }

func (b *busyBroker) PublishAsync(ctx context.Context, _ []surgetank.Publishing, _ func([]surgetank.PublishResult, error)) error {
	<-ctx.Done()
	return surgetank.Errorf(surgetank.CodeBusy, "no room was left in the mailbox")
}

func TestPublishBusy(t *testing.T) {
	r := newRig(t, func(o *Options) {
		o.Broker = &busyBroker{o.Broker}
		o.Limits.AcceptWait = time.Millisecond
	})
	r.queue("q", "{}")
	a := r.do("POST", "/v1/queues/q/messages", "x")
	r.wantProblem(a, http.StatusTooManyRequests, surgetank.CodeBusy)
	if a.header.Get("Retry-After") != "1" {
		t.Fatalf("%v", a.header)
	}
	if n := r.api.bodies.used.Load(); n != 0 {
		t.Fatalf("%d bytes of bodies are still counted", n)
	}
}

func TestBodiesAreBounded(t *testing.T) {
	r := newRig(t, func(o *Options) { o.Limits.MaxBodies = 1000 })
	r.want(http.StatusCreated, "PUT", "/v1/queues/q", "{}")
	r.wantProblem(r.do("POST", "/v1/queues/q/messages", strings.Repeat("x", 2000)), http.StatusTooManyRequests, surgetank.CodeBusy)
	r.want(http.StatusCreated, "POST", "/v1/queues/q/messages", strings.Repeat("x", 900))
	if n := r.api.bodies.used.Load(); n != 0 {
		t.Fatalf("%d bytes of bodies are still counted", n)
	}
}

func TestPublishMany(t *testing.T) {
	r := newRig(t)
	r.queue("a", "{}")
	r.queue("b", "{}")
	nd := header("Content-Type", ndjsonType)
	r.want(http.StatusCreated, "POST", "/v1/publish", lines(`{"queue":"a","body":1}`, `{"queues":["a","b"],"body":2}`, `{"body":3,"queue":"b"}`), nd)
	if len(r.stored("a")) != 2 || len(r.stored("b")) != 2 {
		t.Fatal("the messages are in other queues than the request names")
	}
	r.wantProblem(r.do("POST", "/v1/publish", `{"body":1}`, nd), 400, "invalid")
	r.wantProblem(r.do("POST", "/v1/publish", `{"body":1,"queue":"a","queues":["b"]}`, nd), 400, "invalid")
	r.wantProblem(r.do("POST", "/v1/publish", `{"body":1,"queue":"a\u001fb"}`, nd), 400, "invalid")
	r.wantProblem(r.do("POST", "/v1/publish", `{"body":1,"queue":"a"}`), 415, "invalid")

	secret := auth.Secret("pw")
	if _, err := r.store.PutUser(t.Context(), "w", auth.UserSpec{Password: &secret}); err != nil {
		t.Fatal(err)
	}
	if err := r.store.PutPermission(t.Context(), "w", "/", auth.Permission{Write: "a"}); err != nil {
		t.Fatal(err)
	}
	m := r.wantProblem(r.do("POST", "/v1/publish", lines("", `{"queue":"a","body":1}`, `{"queue":"b","body":1}`), nd, as("w", "pw")), 403, "denied")
	if m["line"] != 3.0 {
		t.Fatalf("the answer is %v", m)
	}
	r.wantProblem(r.do("POST", "/v1/publish", `{"queue":"a","body":1,"opaque_base64":"AA=="}`, nd, as("w", "pw")), 403, "denied")
	if len(r.stored("a")) != 2 {
		t.Fatal("a refused request stored something")
	}
}

// The handler's own work for 10,000 raw lines must stay near a microsecond per line. This is a
// measurement, not a test: go test -bench RawLines ./internal/httpapi
func BenchmarkRawLines(b *testing.B) {
	const n = 10_000
	body := strings.Repeat(strings.Repeat("x", 255)+"\n", n)
	fake := &instantBroker{Broker: doortest.NewBroker("q"), results: make([]surgetank.PublishResult, n)}
	store, err := auth.Open(b.Context(), fake)
	if err != nil {
		b.Fatal(err)
	}
	a := New(Options{Broker: fake, Auth: store, TrustLoopback: always})
	b.ReportAllocs()
	for b.Loop() {
		req := httptest.NewRequest("POST", "http://localhost/v1/queues/q/messages?raw=lines", strings.NewReader(body))
		req.RemoteAddr = "127.0.0.1:1"
		w := httptest.NewRecorder()
		if a.ServeHTTP(w, req); w.Code != http.StatusCreated {
			b.Fatal(w.Body)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/line")
}

// instantBroker confirms at once.
type instantBroker struct {
	door.Broker
	results []surgetank.PublishResult
}

func (b *instantBroker) PublishAsync(_ context.Context, _ []surgetank.Publishing, done func([]surgetank.PublishResult, error)) error {
	done(b.results, nil)
	return nil
}
