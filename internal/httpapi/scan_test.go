package httpapi

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/test/hostile/fuzzing"
)

// FuzzScan compares the scanner with the standard decoder. Accepted text is valid JSON with the
// same value. Rejected text is invalid, or breaks one of the stricter rules.
func FuzzScan(f *testing.F) {
	for _, s := range []string{`{"a":[1,-0.5e+10,true,false,null,"\u00e9\n"]}`, `"\ud83d\ude00"`, `"\ud83d"`, `[[[[]]]]`, `{"a":1,"a":2}`, ` 1 `, `01`, `"` + "\xff" + `"`, `{"":{}}`, `[1,]`, `-`, `1.`, `tru`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		fuzzing.Bounded(t, len(data), 2048, func() {
			const depth = 64
			v, err := tree(data, depth)
			valid := json.Valid(data)
			if err == nil && !valid {
				t.Fatalf("%q was accepted, but is not JSON", data)
			}
			s := &scanner{data: data, depth: depth}
			_, skipErr := s.skip()
			if skipErr == nil {
				skipErr = s.end()
			}
			if err == nil && skipErr != nil {
				t.Fatalf("%q: tree accepts the text, but skip rejects it: %v", data, skipErr)
			}
			if skipErr != nil && valid && utf8.Valid(data) && strings.Count(string(data), "[")+strings.Count(string(data), "{") <= depth {
				t.Fatalf("%q is JSON, but was rejected: %v", data, skipErr)
			}
			if skipErr == nil && !valid {
				t.Fatalf("skip accepted %q, which is not JSON", data)
			}
			if err != nil {
				return
			}
			var want any
			d := json.NewDecoder(bytes.NewReader(data))
			d.UseNumber()
			if err := d.Decode(&want); err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(want, v); d != "" {
				t.Fatalf("%q: %s", data, d)
			}
		})
	})
}

// FuzzMessage: no line makes the reader panic or return bad fields. An accepted line is JSON whose
// body is passed on unchanged.
func FuzzMessage(f *testing.F) {
	for _, s := range []string{`{"body":{"a": 1}}`, `{"body_base64":"AP8=","group":"g","headers":{"a":"b"},"delay":"1s"}`, `{"headers":[{"name":"a","value":"b"}],"body":null,"priority":9}`, `{"b\u006fdy":1}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		fuzzing.Bounded(t, len(line), 2048, func() {
			var p surgetank.Publishing
			s := &scanner{data: line, depth: maxBodyDepth}
			m := &messageReader{maxBody: 1 << 10, oneQueue: []string{"q"}}
			err := m.read(s, &p)
			if err == nil {
				err = asInvalid(s.end())
			}
			if err != nil {
				if c := surgetank.CodeOf(err); c != surgetank.CodeInvalid && c != surgetank.CodeTooLarge && c != surgetank.CodeDenied {
					t.Fatalf("%q: %v (code %s)", line, err, c)
				}
				return
			}
			msg := &p.Message
			if !json.Valid(line) || len(msg.Body) > 1<<10 || len(msg.Group) > surgetank.MaxNameLen || len(msg.DedupID) > surgetank.MaxDedupIDLen ||
				!utf8.ValidString(msg.Group+msg.DedupID+msg.Key+msg.ContentType) || msg.Delay < 0 || msg.TTL < 0 || len(msg.Headers) > surgetank.MaxHeaders {
				t.Fatalf("%q was read as %+v", line, p)
			}
			// A message that was read can be shown, and the shown form is JSON.
			d := surgetank.Delivery{Message: *msg}
			if out := appendDelivery(nil, &d); !json.Valid(out) {
				t.Fatalf("%q is shown as %q", line, out)
			}
		})
	})
}

// FuzzPath: no path makes the router panic, or find a route whose parameters do not lead back to
// the path.
func FuzzPath(f *testing.F) {
	r := &API{opts: Options{}}
	r.routes()
	for _, s := range []string{"/v1/queues/a%2Fb/messages", "/v1/vhosts/%2F/queues/q", "/v1//queues", "/%", "/v1/queues/%00"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, path string) {
		found, params, _ := r.router.find("GET", path)
		if found == nil {
			return
		}
		if strings.Count(path, "/") != strings.Count(found.pattern, "/") || len(params) != strings.Count(found.pattern, "{") {
			t.Fatalf("%q matched %s with %v", path, found.pattern, params)
		}
		for name, v := range params {
			if v == "" {
				t.Fatalf("%q: the parameter %s is empty", path, name)
			}
		}
	})
}

// JSON bodies are shown unchanged, others in base64. Both keep their bytes.
func TestShownBodies(t *testing.T) {
	for body, member := range map[string]string{
		`{"a": 1}`: "body", `[1,` + "\n" + `2]`: "body", `"x"`: "body", `7`: "body", `null`: "body", `"\ud800"`: "body", // JSON by its grammar
		``: "body_base64", ` 7`: "body_base64", `7 `: "body_base64", `{`: "body_base64", "\xff": "body_base64", `"` + "\xff" + `"`: "body_base64", `{} {}`: "body_base64", "text": "body_base64",
		strings.Repeat("[", 300) + strings.Repeat("]", 300): "body_base64", // deeper than decoders may read
	} {
		out := appendDelivery(nil, &surgetank.Delivery{Message: surgetank.Message{Body: []byte(body)}})
		var got struct {
			Body       json.RawMessage
			BodyBase64 []byte `json:"body_base64"`
		}
		if err := json.Unmarshal(out, &got); err != nil {
			t.Fatalf("%q: %v", out, err)
		}
		back := got.Body
		if member == "body_base64" {
			back = got.BodyBase64
		}
		if string(back) != body || !strings.Contains(string(out), `"`+member+`":`) {
			t.Errorf("%q is shown as %s", body, out)
		}
	}
}

// Names from another door cannot break the document.
func TestShownTextIsEscaped(t *testing.T) {
	d := surgetank.Delivery{Queue: "a\"\\\n\x00\xff\u2028é", Message: surgetank.Message{Headers: []surgetank.Header{{Name: "<script>", Value: "\x7f\u202e"}}}}
	out := appendDelivery(nil, &d)
	var m map[string]any
	if err := json.Unmarshal(out, &m); err != nil || !utf8.Valid(out) {
		t.Fatalf("%q: %v", out, err)
	}
	if m["queue"] != "a\"\\\n\x00\ufffd\u2028é" {
		t.Fatalf("%q", m["queue"])
	}
}
