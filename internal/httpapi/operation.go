package httpapi

import (
	"net/http"
	"strings"

	"github.com/surgetank/surgetank"
)

// route is one method on one path, with everything that the router, the handlers and openapi.json
// need. Segments in braces are parameters.
type route struct {
	method, pattern string
	access          access
	handle          handler

	tag, summary string
	about        string           // sentences for the description; may be empty
	needs        string           // rights that the handler checks; empty: access says all
	params       []param          // query parameters and request headers
	body         body             // nil: the route has no use for a body
	replies      []reply          // answers with a status below 400
	codes        []surgetank.Code // errors besides those that all routes of this form can return
}

// body describes a request's body, in each of the media types that it can have.
type body []content

// content is a body of one media type. Its schema comes from the function that reads the body, or
// is given.
type content struct {
	media   string
	read    func(*fields, *Limits)
	docs    docs
	schema  any    // a ref or an object
	must    bool   // the body may not be empty; only for a body without read
	example string // JSON, unless the media type is another
}

// reply describes an answer. of is a sample of the Go type that the handler encodes, a ref, or an
// object.
type reply struct {
	status  int
	about   string
	of      any
	example string
	media   string // empty: JSON
}

const jsonMedia = "application/json"

// docs has a sentence for each member of an object that needs one.
type docs map[string]string

// jsonBody describes a JSON object by the function that reads it.
func jsonBody[T any](example string, read func(*fields, *Limits) T, about docs) body {
	return body{{media: jsonMedia, read: func(f *fields, l *Limits) { read(f, l) }, docs: about, example: example}}
}

// jsonOf describes a JSON body with a schema of the document.
func jsonOf(schema any, example string) body {
	return body{{media: jsonMedia, schema: schema, example: example}}
}

// must says that the body may not be empty.
func (b body) must() body {
	b[0].must = true
	return b
}

// ndjson is the content of a body with one message object per line.
func ndjson(schema ref, lines ...string) content {
	return content{media: ndjsonTypes[0], schema: schema, example: strings.Join(lines, "\n") + "\n"}
}

// rawContent is the content of a body of any bytes.
func rawContent(about, example string) content {
	return content{media: "*/*", schema: object{{"description", about}}, example: example}
}

func ok(about string, of any, example string) []reply {
	return []reply{{status: http.StatusOK, about: about, of: of, example: example}}
}

func created(about string, of any, example string) []reply {
	return []reply{{status: http.StatusCreated, about: about, of: of, example: example}}
}

// put describes the answers of a route that creates or changes something.
func put(existed string, of any, example string) []reply {
	return append(ok(existed, of, example), created("It was created.", of, example)...)
}

// inEveryVhost returns routes below /v1 twice: for the default virtual host, and for any virtual
// host.
func inEveryVhost(routes []route) []route {
	var list []route
	for _, base := range []string{"/v1", "/v1/vhosts/{v}"} {
		for _, r := range routes {
			r.pattern = base + r.pattern
			list = append(list, r)
		}
	}
	return list
}
