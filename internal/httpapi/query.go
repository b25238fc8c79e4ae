package httpapi

import (
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/surgetank/surgetank"
)

// param is a query parameter or a request header of a route. call.query checks the values of query
// parameters; functions of the handlers check headers.
type param struct {
	name, about string
	kind        paramKind
	max         uint64   // largest value of a number
	choices     []string // values of a choice; the first is the default if preset is true
	preset      bool
	schema      any // schema of a header
}

type paramKind uint8

const (
	textKind paramKind = iota
	numberKind
	flagKind
	choiceKind
	headerKind
)

func textParam(name, about string) param { return param{name: name, about: about} }

func numberParam(name string, max uint64, about string) param {
	return param{name: name, about: about, kind: numberKind, max: max}
}

func flagParam(name, about string) param { return param{name: name, about: about, kind: flagKind} }

func choiceParam(name, about string, choices ...string) param {
	return param{name: name, about: about, kind: choiceKind, choices: choices}
}

// presetParam is a choice whose first value is the default.
func presetParam(name, about string, choices ...string) param {
	p := choiceParam(name, about, choices...)
	p.preset = true
	return p
}

func headerParam(name string, schema any, about string) param {
	return param{name: name, about: about, kind: headerKind, schema: schema}
}

// check checks the value of a query parameter. An empty value is a missing one.
func (p *param) check(v string) error {
	switch {
	case v == "":
	case p.kind == numberKind:
		if n, err := strconv.ParseUint(v, 10, 64); err != nil || n > p.max {
			return surgetank.FieldErrorf(p.name, "%s is a whole number up to %d, not %.40q", p.name, p.max, v)
		}
	case p.kind == flagKind:
		if v != "true" && v != "false" {
			return surgetank.FieldErrorf(p.name, "%s is true or false, not %.40q", p.name, v)
		}
	case p.kind == choiceKind:
		if !slices.Contains(p.choices, v) {
			return surgetank.FieldErrorf(p.name, "%s is %s, not %.40q", p.name, orList(p.choices), v)
		}
	}
	return nil
}

// orList writes a list as in "a, b or c".
func orList(list []string) string {
	if n := len(list) - 1; n > 0 {
		return strings.Join(list[:n], ", ") + " or " + list[n]
	}
	return strings.Join(list, "")
}

// query has the checked query parameters of a request.
type query struct {
	route  *route
	values url.Values
}

// text returns "" for a missing parameter. A handler may ask only for parameters of its route: a
// parameter that openapi.json does not have is a defect.
func (q query) text(name string) string {
	if !slices.ContainsFunc(q.route.params, func(p param) bool { return p.name == name && p.kind != headerKind }) {
		panic("the route " + q.route.pattern + " declares no parameter " + name)
	}
	return q.values.Get(name)
}

func (q query) flag(name string) bool { return q.text(name) == "true" }

// number returns 0 for a missing number.
func (q query) number(name string) uint64 {
	n, _ := strconv.ParseUint(q.text(name), 10, 64) // call.query has checked the value
	return n
}

// query returns the query parameters. Only parameters of the route are allowed, at most once each.
func (c *call) query() (query, error) {
	if c.r.URL.RawQuery == "" {
		return query{c.route, nil}, nil
	}
	q, err := url.ParseQuery(c.r.URL.RawQuery)
	if err != nil {
		return query{}, surgetank.FieldErrorf("query", "the query of the URL is malformed")
	}
	known := 0
	for i := range c.route.params {
		p := &c.route.params[i]
		values, given := q[p.name]
		if !given || p.kind == headerKind {
			continue
		}
		known++
		if len(values) > 1 {
			return query{}, surgetank.FieldErrorf(p.name, "the parameter %s is there %d times; send it once", p.name, len(values))
		}
		if err := p.check(values[0]); err != nil {
			return query{}, err
		}
	}
	if known < len(q) {
		return query{}, c.unknownParameter(q)
	}
	return query{c.route, q}, nil
}

// unknownParameter names the first unknown parameter, and the parameters that exist.
func (c *call) unknownParameter(q url.Values) error {
	var names []string
	for _, p := range c.route.params {
		if p.kind != headerKind {
			names = append(names, p.name)
		}
	}
	unknown := ""
	for name := range q {
		if !slices.Contains(names, name) && (unknown == "" || name < unknown) {
			unknown = name
		}
	}
	return surgetank.FieldErrorf(shorten(unknown), "there is no parameter %.60q here; there is %s", unknown, orNothing(names))
}
