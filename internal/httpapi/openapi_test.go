package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/embedded"
	"github.com/surgetank/surgetank/internal/settings"
)

// openDoc is openapi.json; its schemas are compiled on demand.
type openDoc struct {
	t        *testing.T
	root     map[string]any
	compiler *jsonschema.Compiler // caches compiled schemas
}

const docURL = "https://surgetank.invalid/openapi.json"

func openDocument(t *testing.T) *openDoc {
	t.Helper()
	root, err := jsonschema.UnmarshalJSON(bytes.NewReader(openAPI))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler() // draft 2020-12, as in OpenAPI 3.1
	if err := c.AddResource(docURL, root); err != nil {
		t.Fatal(err)
	}
	return &openDoc{t, root.(map[string]any), c}
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
func (d *openDoc) check(what string, text []byte, keys ...string) {
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

func (d *openDoc) operations() (list []operation) {
	for path, item := range d.root["paths"].(map[string]any) {
		for method, node := range item.(map[string]any) {
			list = append(list, operation{strings.ToUpper(method), path, node.(map[string]any)})
		}
	}
	slices.SortFunc(list, func(a, b operation) int { return strings.Compare(a.path+a.method, b.path+b.method) })
	return list
}

var update = flag.Bool("update", false, "write openapi.json")

// openapi.json equals the document that the routes and tables make.
func TestDocumentIsFresh(t *testing.T) {
	want, err := document()
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(openAPI, want) {
		return
	}
	if !*update {
		t.Fatal("openapi.json is stale; run go test ./internal/httpapi -run Fresh -update, and read the difference")
	}
	if err := os.WriteFile("openapi.json", want, 0o666); err != nil {
		t.Fatal(err)
	}
	t.Fatal("openapi.json is written; run the test again")
}

// Each route is an operation, and each operation is a route. An operation has an id of its own, a
// summary, a known tag, and a description of each path parameter.
func TestDocumentHasEveryRouteAndNoOther(t *testing.T) {
	r, d := newRig(t), openDocument(t)
	var routes, documented, tags []string
	for _, rt := range r.api.router.routes {
		routes = append(routes, rt.method+" "+rt.pattern)
	}
	for _, tag := range d.root["tags"].([]any) {
		tags = append(tags, tag.(map[string]any)["name"].(string))
	}
	ids := map[string]bool{}
	for _, op := range d.operations() {
		what := op.method + " " + op.path
		documented = append(documented, what)
		id, _ := op.node["operationId"].(string)
		if id == "" || ids[id] || op.node["summary"] == "" {
			t.Errorf("%s: the operationId %q is empty or used twice, or the summary is empty", what, id)
		}
		ids[id] = true
		if list := op.node["tags"].([]any); len(list) != 1 || !slices.Contains(tags, list[0].(string)) {
			t.Errorf("%s: the document does not list the tags %v", what, list)
		}
		var inPath []string
		params, _ := op.node["parameters"].([]any)
		for _, p := range params {
			if p := d.resolve(p.(map[string]any)); p["in"] == "path" {
				inPath = append(inPath, "{"+p["name"].(string)+"}")
			}
		}
		var want []string
		for segment := range strings.SplitSeq(op.path, "/") {
			if strings.HasPrefix(segment, "{") {
				want = append(want, segment)
			}
		}
		slices.Sort(inPath)
		slices.Sort(want)
		if !slices.Equal(inPath, want) {
			t.Errorf("%s: the described path parameters are %v, want %v", what, inPath, want)
		}
	}
	slices.Sort(routes)
	slices.Sort(documented)
	if !slices.Equal(routes, documented) {
		t.Errorf("the routes are\n%s\nand the operations of the document are\n%s", strings.Join(routes, "\n"), strings.Join(documented, "\n"))
	}
}

// resolve returns the node that a reference names, or the node itself.
func (d *openDoc) resolve(node map[string]any) map[string]any {
	name, isRef := node["$ref"].(string)
	if !isRef {
		return node
	}
	path, local := strings.CutPrefix(name, "#/")
	var v any = d.root
	for key := range strings.SplitSeq(path, "/") {
		m, _ := v.(map[string]any)
		v = m[key]
	}
	found, _ := v.(map[string]any)
	if !local || found == nil {
		d.t.Fatalf("the document has no %s", name)
	}
	return found
}

// Every reference of the document has its object, every component is used, and every schema is a
// JSON schema.
func TestDocumentReferences(t *testing.T) {
	d := openDocument(t)
	used := map[string]bool{}
	var walk func(v any)
	walk = func(v any) {
		switch v := v.(type) {
		case map[string]any:
			if name, isRef := v["$ref"].(string); isRef {
				d.resolve(v)
				used[name] = true
			}
			for _, inner := range v {
				walk(inner)
			}
		case []any:
			for _, inner := range v {
				walk(inner)
			}
		}
	}
	walk(d.root)
	for kind, list := range d.root["components"].(map[string]any) {
		for name := range list.(map[string]any) {
			if kind != "securitySchemes" && !used["#/components/"+kind+"/"+name] {
				t.Errorf("nothing refers to %s of components/%s", name, kind)
			}
			if kind == "schemas" {
				if _, err := d.compiler.Compile(docURL + "#" + pointer("components", kind, name)); err != nil {
					t.Errorf("components/schemas/%s: %v", name, err)
				}
			}
		}
	}
}

// A queue with every setting fits the document.
func TestDocumentHasTheSettings(t *testing.T) {
	d := openDocument(t)
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
	b := mustJSON(t, tree)
	d.check("settings", b, "components", "schemas", "QueueSettings")
	r := newRig(t)
	r.want(http.StatusCreated, "PUT", "/v1/queues/q", string(b)) // the rig compares the answer with the document
}

var (
	sharedMu  sync.Mutex
	sharedDoc *openDoc
)

// checkDocumented requires that the document lists the status of an answer for its route, and that
// the answer fits the schema. All tests of this package send their requests through it.
func checkDocumented(t *testing.T, api *API, req *http.Request, a answer) {
	t.Helper()
	sharedMu.Lock()
	defer sharedMu.Unlock()
	if sharedDoc == nil {
		sharedDoc = openDocument(t)
	}
	d := sharedDoc
	d.t = t
	found, _, _ := api.router.find(req.Method, req.URL.EscapedPath())
	if found == nil {
		d.check("the answer to an unknown path or method", []byte(a.body), "components", "schemas", "Problem")
		return
	}
	what := fmt.Sprintf("the answer %d of %s %s", a.status, req.Method, found.pattern)
	op := d.at("paths", found.pattern, strings.ToLower(found.method)).(map[string]any)
	response, listed := op["responses"].(map[string]any)[strconv.Itoa(a.status)].(map[string]any)
	if !listed {
		t.Errorf("openapi.json does not list %s: %s", what, a.body)
		return
	}
	keys := []string{"paths", found.pattern, strings.ToLower(found.method), "responses", strconv.Itoa(a.status)}
	if name, isRef := response["$ref"].(string); isRef {
		keys, response = strings.Split(strings.TrimPrefix(name, "#/"), "/"), d.resolve(response)
	}
	media, _, _ := strings.Cut(a.header.Get("Content-Type"), ";")
	if content := response["content"].(map[string]any); content[media] == nil {
		t.Errorf("%s has the Content-Type %s, which openapi.json does not list", what, media)
	} else if media != "text/plain" && req.Method != http.MethodHead && len(a.body) < 1<<20 {
		d.check(what, []byte(a.body), append(keys, "content", media, "schema")...)
	}
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

func (s *fakeSinks) LevelHistory(string) []surgetank.LevelChange { return nil }

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
func (d *openDoc) try(op operation, media, text string) {
	d.t.Helper()
	sinks := &fakeSinks{specs: map[string]json.RawMessage{"s": json.RawMessage(`{"queue":"orders"}`)}}
	b, err := embedded.Memory(embedded.Options{Shards: 2})
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { _ = b.Close() })
	r := newRigOver(d.t, b, func(o *Options) { o.Sinks = sinks }, withPolicies(d.t))
	r.want(201, "PUT", "/v1/vhosts/other", "{}")
	for _, q := range []string{"/v1/queues/orders", "/v1/queues/audit", "/v1/vhosts/other/queues/orders"} {
		r.want(201, "PUT", q, `{"shard":1}`)
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
		d.t.Errorf("the document does not list the status %s", status)
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
				d.t.Errorf("the server rejects the documented parameter %s as unknown", m["name"])
			}
		}
	}
}

// at returns the node at a path of the document.
func (d *openDoc) at(keys ...string) any {
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
