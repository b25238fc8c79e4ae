package httpapi

import (
	"bytes"
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/surgetank/surgetank"
)

// document makes openapi.json from the routes, the types of answers, and the tables of settings and
// message options. A test calls it; a server sends the file.
func document() ([]byte, error) {
	limits := Limits{}.withDefaults()
	var paths object
	for _, r := range allRoutes(&limits) {
		i := slices.IndexFunc(paths, func(m member) bool { return m.key == r.pattern })
		if i < 0 {
			i = len(paths)
			paths = append(paths, member{r.pattern, object(nil)})
		}
		operation, err := r.operation()
		if err != nil {
			return nil, err
		}
		paths[i].value = append(paths[i].value.(object), member{strings.ToLower(r.method), operation})
	}
	doc := object{
		{"openapi", "3.1.0"},
		{"info", object{
			{"title", "Surgetank"}, {"version", "1"},
			{"license", object{{"name", "Apache-2.0"}, {"identifier", "Apache-2.0"}}},
			{"description", aboutAPI},
		}},
		{"servers", []object{{{"url", "http://127.0.0.1:8080"}}}},
		{"security", []object{{{"basic", []string{}}}, {}}},
		{"tags", tags()},
		{"paths", paths},
		{"components", object{
			{"securitySchemes", object{{"basic", object{{"type", "http"}, {"scheme", "basic"}, {"description",
				"User name and password. While the server has no user besides guest, requests from its own machine need none."}}}}},
			{"parameters", pathParameters()},
			{"responses", problemResponses()},
			{"schemas", componentSchemas()},
		}},
	}
	text, err := doc.MarshalJSON()
	if err != nil {
		return nil, err
	}
	var compact, out bytes.Buffer
	if err := json.Compact(&compact, text); err != nil {
		return nil, err
	}
	err = layout(&out, compact.Bytes(), "\n")
	out.WriteByte('\n')
	return out.Bytes(), err
}

const aboutAPI = "The HTTP API of Surgetank, a durable message queue. Names in paths are percent-encoded, a slash as %2F. " +
	"Durations are Go strings, times RFC 3339. Request bodies are strict: unknown or duplicate members and parameters are refused. " +
	"A 2xx answer to a write means that it is on disk. " +
	"After uncertain the request may have been stored or not. Repeat it with the same dedup ids, or with the same publisher and numbers."

func tags() []object {
	var list []object
	for _, name := range []string{"queues", "messages", "subscriptions", "sinks", "access", "policies", "meta", "health"} {
		list = append(list, object{{"name", name}})
	}
	return list
}

// pathParams names the parameters of patterns in the document.
var pathParams = []struct{ segment, name, about string }{
	{"{q}", "queue", "A queue."},
	{"{v}", "vhost", "A virtual host; the default one is %2F."},
	{"{u}", "user", "A user."},
	{"{x}", "exchange", "A topic exchange."},
	{"{p}", "policy", "A policy."},
	{"sinks/{s}", "sink", "A sink."},
	{"subscriptions/{s}", "subscription", "The id of a subscription, from the answer of subscribe."},
	{"{n}", "namespace", "A namespace."},
	{"{k}", "key", "A value's name."},
}

func pathParameters() (o object) {
	for _, p := range pathParams {
		name := p.segment[strings.Index(p.segment, "{")+1 : len(p.segment)-1]
		o = append(o, member{p.name, object{
			{"name", name}, {"in", "path"}, {"required", true}, {"schema", object{{"type", "string"}}}, {"description", p.about},
		}})
	}
	return o
}

// operation describes a route.
func (r *route) operation() (object, error) {
	o := object{{"operationId", r.id()}, {"summary", r.summary}, {"tags", []string{r.tag}}}
	o = o.with("description", strings.TrimSpace(r.about+" "+r.rights()))
	if params := r.parameters(); len(params) > 0 {
		o = append(o, member{"parameters", params})
	}
	if len(r.body) > 0 {
		body, err := r.body.describe()
		if err != nil {
			return nil, err
		}
		o = append(o, member{"requestBody", body})
	}
	var responses object
	for _, p := range r.replies {
		c := content{media: p.media, schema: p.of, example: p.example}
		if c.media == "" {
			c.media = jsonMedia
		}
		described, err := c.describe(named.of(p.of))
		if err != nil {
			return nil, err
		}
		responses = append(responses, member{strconv.Itoa(p.status), object{{"description", p.about}, {"content", object{{c.media, described}}}}})
	}
	for _, status := range r.failures() {
		responses = append(responses, member{strconv.Itoa(status), object{{"$ref", "#/components/responses/Problem" + strconv.Itoa(status)}}})
	}
	responses = append(responses, member{"default", object{{"$ref", "#/components/responses/Problem"}}})
	o = append(o, member{"responses", responses})
	if r.access == public {
		o = append(o, member{"security", []object{}})
	}
	return o, nil
}

// id is the method and the path in words: get-queues-q.
func (r *route) id() string {
	path := strings.TrimPrefix(r.pattern, "/v1")
	return strings.ToLower(r.method) + strings.NewReplacer("/", "-", ".", "-", "{", "", "}", "").Replace(path)
}

// rights says what a user needs.
func (r *route) rights() string {
	if r.needs != "" {
		return r.needs
	}
	return map[access]string{
		public:    "Anybody may.",
		loggedIn:  "Any user may.",
		inVhost:   "Needs any permission in the virtual host.",
		configure: "Needs configure.",
		write:     "Needs write.",
		read:      "Needs read.",
		see:       "Needs any permission on the queue, or the tag monitoring.",
		monitor:   "Needs the tag monitoring or administrator.",
		admin:     "Needs the tag administrator.",
	}[r.access]
}

func (r *route) parameters() (list []object) {
	for _, p := range pathParams {
		if strings.Contains(r.pattern+"/", p.segment+"/") {
			list = append(list, object{{"$ref", "#/components/parameters/" + p.name}})
		}
	}
	for i := range r.params {
		list = append(list, r.params[i].describe())
	}
	return list
}

func (p *param) describe() object {
	in, schema := "query", any(object{{"type", "string"}})
	switch p.kind {
	case numberKind:
		schema = object{{"type", "integer"}, {"minimum", 0}, {"maximum", p.max}}
	case flagKind:
		schema = object{{"type", "boolean"}}
	case choiceKind:
		enum := object{{"enum", p.choices}}
		if p.preset {
			enum = enum.with("default", p.choices[0])
		}
		schema = enum
	case headerKind:
		in, schema = "header", named.of(p.schema)
	}
	return object{{"name", p.name}, {"in", in}, {"schema", schema}, {"description", p.about}}
}

func (b body) describe() (object, error) {
	required := b[0].must
	var contents object
	for _, c := range b {
		schema := object{}
		if c.read != nil {
			schema, required = describe(c.read, c.docs)
		} else {
			schema = named.of(c.schema)
		}
		described, err := c.describe(schema)
		if err != nil {
			return nil, err
		}
		contents = append(contents, member{c.media, described})
	}
	return object{{"required", required}, {"content", contents}}, nil
}

func (c *content) describe(schema object) (object, error) {
	o := object{{"schema", schema}}
	if c.media != jsonMedia || c.example == "" {
		return o.with("example", c.example), nil
	}
	if !json.Valid([]byte(c.example)) {
		return nil, surgetank.Errorf(surgetank.CodeInternal, "the example %s is not JSON", c.example)
	}
	return o.with("example", json.RawMessage(c.example)), nil
}

// failures returns the statuses of errors that a route can return, in ascending order.
func (r *route) failures() []int {
	// Any request can come from a foreign page or name a foreign host, and any handler can have a
	// defect.
	list := []int{http.StatusForbidden, http.StatusMisdirectedRequest, http.StatusInternalServerError}
	if r.access != public {
		list = append(list, http.StatusBadRequest, http.StatusUnauthorized, http.StatusTooManyRequests, http.StatusServiceUnavailable)
	}
	if strings.Contains(r.pattern, "{") {
		list = append(list, http.StatusNotFound)
	}
	if r.method != http.MethodGet { // the request has a body, or its handler checks that there is none
		list = append(list, http.StatusRequestTimeout, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType, http.StatusGatewayTimeout)
	}
	for _, code := range r.codes {
		list = append(list, statuses[code])
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// otherStatuses are the statuses that withStatus sets, because they say more than the error's code.
var otherStatuses = map[int]string{
	http.StatusUnauthorized:         "denied: the login is missing or wrong.",
	http.StatusRequestTimeout:       "invalid: the body came too slowly.",
	http.StatusUnsupportedMediaType: "invalid: the Content-Type or Content-Encoding is wrong.",
	http.StatusMisdirectedRequest:   "denied: the Host header names another host.",
}

// problemResponses returns a response for each HTTP status of an error. Its text lists the error
// codes that are sent with that status.
func problemResponses() object {
	problem := func(about string) object {
		return object{{"description", about}, {"content", object{{"application/problem+json", object{{"schema", ref("Problem").schema()}}}}}}
	}
	codes := map[int][]string{}
	for code, status := range statuses {
		codes[status] = append(codes[status], string(code))
	}
	texts := map[int]string{}
	for status, list := range codes {
		slices.Sort(list)
		texts[status] = "The code is " + orList(list) + "."
	}
	for status, text := range otherStatuses {
		texts[status] = "The code is " + text
	}
	texts[http.StatusTooManyRequests] += " The header Retry-After says when to try again."
	all := object{{"Problem", object{{"description", "What went wrong."}, {"content", object{{"application/problem+json", object{
		{"schema", ref("Problem").schema()}, {"example", object{
			{"type", "about:blank"}, {"title", "Not Found"}, {"status", 404}, {"detail", `there is no queue "orders"; make it first`}, {"code", "not_found"},
		}}}}}}}}}
	var list []int
	for status := range texts {
		list = append(list, status)
	}
	slices.Sort(list)
	for _, status := range list {
		all = append(all, member{"Problem" + strconv.Itoa(status), problem(texts[status])})
	}
	return all
}
