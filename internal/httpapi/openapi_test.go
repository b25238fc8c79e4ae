package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"net/http"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/settings"
)

// document is openapi.json; its schemas are compiled on demand.
type document struct {
	t        *testing.T
	root     map[string]any
	compiler *jsonschema.Compiler // caches compiled schemas
}

const docURL = "https://surgetank.invalid/openapi.json"

func openDocument(t *testing.T) *document {
	t.Helper()
	root, err := jsonschema.UnmarshalJSON(bytes.NewReader(openAPI))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler() // draft 2020-12, as in OpenAPI 3.1
	if err := c.AddResource(docURL, root); err != nil {
		t.Fatal(err)
	}
	return &document{t, root.(map[string]any), c}
}

// pointer escapes keys for a JSON pointer in a URL's fragment.
func pointer(keys ...string) string {
	var b strings.Builder
	for _, k := range keys {
		k = strings.NewReplacer("~", "~0", "/", "~1").Replace(k)
		b.WriteString("/" + strings.NewReplacer("%", "%25", "{", "%7B", "}", "%7D", "+", "%2B").Replace(k))
	}
	return b.String()
}

// check requires that a JSON text fits the schema at a path of the document.
func (d *document) check(what string, text []byte, keys ...string) {
	d.t.Helper()
	schema, err := d.compiler.Compile(docURL + "#" + pointer(keys...))
	if err != nil {
		d.t.Fatalf("%s: %v", what, err)
	}
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		d.t.Fatalf("%s: %v in %s", what, err, text)
	}
	if err := schema.Validate(v); err != nil {
		d.t.Errorf("%s: %s does not fit its schema: %v", what, text, err)
	}
}

// operation is one method on one path of the document.
type operation struct {
	method, path string
	node         map[string]any
}

func (d *document) operations() (list []operation) {
	for path, item := range d.root["paths"].(map[string]any) {
		for method, node := range item.(map[string]any) {
			list = append(list, operation{strings.ToUpper(method), path, node.(map[string]any)})
		}
	}
	slices.SortFunc(list, func(a, b operation) int { return strings.Compare(a.path+a.method, b.path+b.method) })
	return list
}

func TestDocumentHasEveryRouteAndNoOther(t *testing.T) {
	r, d := newRig(t), openDocument(t)
	var routes, documented []string
	for _, rt := range r.api.router.routes {
		routes = append(routes, rt.method+" "+rt.pattern)
	}
	ids := map[string]bool{}
	for _, op := range d.operations() {
		documented = append(documented, op.method+" "+op.path)
		id, _ := op.node["operationId"].(string)
		if id == "" || ids[id] || op.node["summary"] == "" {
			t.Errorf("%s %s: operationId %q is missing or there twice, or it has no summary", op.method, op.path, id)
		}
		ids[id] = true
		params, _ := op.node["parameters"].([]any)
		inPath := 0
		for _, p := range params {
			if ref, ok := p.(map[string]any)["$ref"].(string); ok && strings.HasPrefix(ref, "#/components/parameters/") {
				inPath++
			}
		}
		if want := strings.Count(op.path, "{"); inPath != want {
			t.Errorf("%s %s: describes %d of %d path parameters", op.method, op.path, inPath, want)
		}
	}
	slices.Sort(routes)
	slices.Sort(documented)
	for _, s := range routes {
		if !slices.Contains(documented, s) {
			t.Errorf("the document lacks %s", s)
		}
	}
	for _, s := range documented {
		if !slices.Contains(routes, s) {
			t.Errorf("there is no route %s", s)
		}
	}
}

var update = flag.Bool("update", false, "write what openapi.json says of the settings of queues anew")

// The document lists the settings of the table, and a queue with every setting fits the document.
func TestDocumentMatchesTheSettings(t *testing.T) {
	d := openDocument(t)
	schemas := d.root["components"].(map[string]any)["schemas"].(map[string]any)
	want, err := json.MarshalIndent(settings.Schema(), "   ", " ")
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := jsonschema.UnmarshalJSON(bytes.NewReader(want))
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(schemas["QueueSettings"], parsed) {
		if !*update {
			t.Fatal("openapi.json does not have the settings of settings.Table; run go test ./internal/httpapi -run Settings -update")
		}
		begin := bytes.Index(openAPI, []byte("   \"QueueSettings\": {"))
		end := begin + bytes.Index(openAPI[begin:], []byte("\n   }"))
		text := slices.Concat(openAPI[:begin], []byte("   \"QueueSettings\": "), want, openAPI[end+len("\n   }"):])
		if err := os.WriteFile("openapi.json", text, 0o666); err != nil {
			t.Fatal(err)
		}
		t.Fatal("written; run the test again")
	}
	tree := map[string]any{}
	for i := range settings.Table {
		s := &settings.Table[i]
		section, key, nested := strings.Cut(s.Path, ".")
		into := tree
		if nested {
			if tree[section] == nil {
				tree[section] = map[string]any{}
			}
			into = tree[section].(map[string]any)
		} else {
			key = section
		}
		into[key] = s.Example
	}
	b, err := json.Marshal(tree)
	if err != nil {
		t.Fatal(err)
	}
	full := string(b)
	d.check("settings", b, "components", "schemas", "QueueSettings")
	r := newRig(t)
	a := r.want(http.StatusCreated, "PUT", "/v1/queues/q", full)
	d.check("queue", []byte(a.body), "components", "schemas", "Queue")
}

// fakeSinks is a manager without real sinks.
type fakeSinks struct{ specs map[string]json.RawMessage }

func (s *fakeSinks) List(context.Context) ([]json.RawMessage, error) {
	var list []json.RawMessage
	for _, v := range s.specs {
		list = append(list, v)
	}
	return list, nil
}

func (s *fakeSinks) Get(_ context.Context, name string) (json.RawMessage, error) {
	if v, ok := s.specs[name]; ok {
		return v, nil
	}
	return nil, surgetank.Errorf(surgetank.CodeNotFound, "there is no sink %q", name)
}

func (s *fakeSinks) Put(_ context.Context, name string, spec json.RawMessage) (json.RawMessage, bool, error) {
	_, had := s.specs[name]
	s.specs[name] = spec
	return spec, !had, nil
}

func (s *fakeSinks) Delete(ctx context.Context, name string) error {
	_, err := s.Get(ctx, name)
	delete(s.specs, name)
	return err
}

func (s *fakeSinks) Pause(ctx context.Context, name string) error {
	_, err := s.Get(ctx, name)
	return err
}

func (s *fakeSinks) OnQueue(queue string) []settings.QueueSink {
	var list []settings.QueueSink
	for name, v := range s.specs {
		var spec struct{ Queue string }
		if json.Unmarshal(v, &spec) == nil && spec.Queue == queue {
			list = append(list, settings.QueueSink{Name: name, State: "waiting", Reason: "the table is gone"})
		}
	}
	return list
}

func (s *fakeSinks) Resume(ctx context.Context, name, _ string) error { return s.Pause(ctx, name) }

// A server accepts each example request, after the named things exist. The answers fit their
// schemas, and so do the example answers.
func TestDocumentExamples(t *testing.T) {
	d := openDocument(t)
	d.check("problem", mustJSON(t, d.at("components", "responses", "Problem", "content", "application/problem+json", "example")), "components", "schemas", "Problem")
	tried := 0
	for _, op := range d.operations() {
		t.Run(op.method+" "+op.path, func(t *testing.T) {
			d.t = t
			for status, res := range op.node["responses"].(map[string]any) {
				content, _ := res.(map[string]any)["content"].(map[string]any)
				if j, ok := content["application/json"].(map[string]any); ok && j["example"] != nil {
					d.check("example of the answer "+status, mustJSON(t, j["example"]), "paths", op.path, strings.ToLower(op.method), "responses", status, "content", "application/json", "schema")
				}
			}
			request, _ := op.node["requestBody"].(map[string]any)
			content, _ := request["content"].(map[string]any)
			if len(content) == 0 {
				content = map[string]any{"": map[string]any{"example": ""}}
			}
			for media, c := range content {
				example := c.(map[string]any)["example"]
				text, isText := example.(string)
				if !isText {
					text = string(mustJSON(t, example))
					d.check("example of the request", []byte(text), "paths", op.path, strings.ToLower(op.method), "requestBody", "content", media, "schema")
				}
				if media == ndjsonType {
					for line := range strings.Lines(text) {
						d.check("line of the example", []byte(line), "paths", op.path, strings.ToLower(op.method), "requestBody", "content", media, "schema")
					}
				}
				tried++
				d.try(op, media, text)
			}
		})
	}
	if tried < 40 {
		t.Fatalf("only %d requests were tried", tried)
	}
}

// try sends an example to a server and checks the answer.
func (d *document) try(op operation, media, text string) {
	d.t.Helper()
	sinks := &fakeSinks{specs: map[string]json.RawMessage{"s": json.RawMessage(`{"queue":"orders"}`)}}
	r := newRig(d.t, func(o *Options) { o.Sinks = sinks }, withPolicies(d.t))
	r.want(201, "PUT", "/v1/vhosts/other", "{}")
	for _, q := range []string{"/v1/queues/orders", "/v1/queues/audit", "/v1/vhosts/other/queues/orders"} {
		r.want(201, "PUT", q, "{}")
		if op.method == "GET" {
			r.want(201, "POST", q+"/messages", lines(`{"body":{"total":7}}`), header("Content-Type", ndjsonType))
		}
	}
	r.want(200, "PUT", "/v1/vhosts/other/permissions/ann", `{"configure":"","write":"orders.*","read":".*"}`)
	s := "s"
	if strings.Contains(op.path, "subscriptions") {
		s = r.want(201, "POST", "/v1/queues/orders/subscribe", `{"credit":10,"pool":"p"}`).json(d.t)["subscription"].(string)
		r.want(201, "POST", "/v1/queues/orders/messages", "x")
	}
	r.want(200, "PUT", "/v1/vhosts/other/topic-permissions/ann/amq.topic", `{"write":"a","read":"b"}`)
	if op.method != "PUT" {
		r.want(201, "PUT", "/v1/vhosts/other/policies/p", `{"pattern":"orders","settings":{"ttl":"1h"}}`)
	}
	path := strings.NewReplacer("{p}", "p", "{x}", "amq.topic", "{v}", "other", "{q}", "orders", "{s}", s, "{u}", "ann", "{n}", "n", "{k}", "k").Replace(op.path)
	if op.method == "PUT" && strings.HasSuffix(op.path, "/vhosts/{v}") {
		path = "/v1/vhosts/new"
	}
	text = strings.ReplaceAll(text, `"wait":"20s"`, `"wait":"1ms"`) // nobody publishes here
	var change []with
	if media != "" && media != "*/*" {
		change = append(change, header("Content-Type", media))
	}
	a := r.do(op.method, path, text, change...)
	if a.status/100 != 2 {
		d.t.Errorf("the server answers %d to the example: %s", a.status, a.body)
		return
	}
	status := strconv.Itoa(a.status)
	node, ok := op.node["responses"].(map[string]any)[status].(map[string]any)
	if !ok {
		d.t.Errorf("the document does not know the status %s", status)
		return
	}
	if content, _ := node["content"].(map[string]any); content["application/json"] != nil {
		d.check("the server's answer", []byte(a.body), "paths", op.path, strings.ToLower(op.method), "responses", status, "content", "application/json", "schema")
	}
	// The server knows every query parameter of the document.
	params, _ := op.node["parameters"].([]any)
	for _, p := range params {
		if m := p.(map[string]any); m["in"] == "query" {
			a := r.do(op.method, path+"?"+m["name"].(string)+"=%00", "")
			if strings.Contains(a.body, "there is no parameter") {
				d.t.Errorf("the server knows no parameter %s", m["name"])
			}
		}
	}
}

// at returns the node at a path of the document.
func (d *document) at(keys ...string) any {
	var v any = d.root
	for _, k := range keys {
		v = v.(map[string]any)[k]
	}
	return v
}

func mustJSON(t *testing.T, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Errors and unusual answers fit the document too: all kinds of problems, and messages with every
// member.
func TestAnswersFitTheDocument(t *testing.T) {
	d := openDocument(t)
	r := newRig(t)
	r.queue("q", `{"max_messages":3,"retry":{"max_attempts":1},"max_priority":5}`)
	r.want(201, "POST", "/v1/queues/q/messages", lines(`{"body":1,"group":"g","key":"k","dedup_id":"d","priority":2,"headers":{"a":"b"},"ttl":"1h"}`, `{"body_base64":"AA=="}`), header("Content-Type", ndjsonType))
	_, all := receipts(t, r.want(200, "POST", "/v1/queues/q/receive", `{"max":5}`))
	r.want(200, "POST", "/v1/queues/q/nack", `{"receipts":`+all+`,"reason":"no"}`)
	for what, a := range map[string]answer{
		"dead letters": r.do("POST", "/v1/queues/q.dead/receive", `{"max":5}`), "peek": r.do("GET", "/v1/queues/q.dead/messages", ""),
	} {
		d.check(what, []byte(a.body), "components", "schemas", "Messages")
	}
	for what, a := range map[string]answer{
		"line": r.do("POST", "/v1/queues/q/messages", "x", header("Content-Type", ndjsonType)), "partial": r.do("POST", "/v1/queues/q/messages?raw=lines", "1\n2\n3\n4\n5"),
		"nothing there": r.do("GET", "/nope", ""), "method": r.do("PUT", "/v1/queues", ""), "field": r.do("PUT", "/v1/queues/x", `{"ttl":1}`),
	} {
		if a.status < 400 {
			t.Errorf("%s: status %d", what, a.status)
		}
		d.check(what, []byte(a.body), "components", "schemas", "Problem")
	}
	d.check("ranges", []byte(r.do("POST", "/v1/queues/q.dead/messages?raw=lines&ids=ranges", "1\n2").body), "components", "schemas", "Published")
}
