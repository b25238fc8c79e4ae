package httpapi

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/auth"
	"github.com/surgetank/surgetank/internal/settings"
)

// fields reads the members of an object one by one and records the first error. done rejects
// members that were not read.
//
// A function that reads a request's body with fields also describes the body: with describing set,
// the methods read nothing and record each member's schema for openapi.json. So such a function
// must always ask for the same members, whatever their values are.
type fields struct {
	prefix string
	m      map[string]any
	raw    []byte // text of a request's whole object; it has the order of the members
	known  []string
	err    error

	describing *memberList // collects the members when the body is described; nil when a request is read
}

func newFields(prefix string, m map[string]any) *fields { return &fields{prefix: prefix, m: m} }

func (f *fields) fail(name, format string, args ...any) {
	if f.err == nil {
		name = f.prefix + name
		f.err = surgetank.FieldErrorf(name, "%s: %s", name, fmt.Sprintf(format, args...))
	}
}

// take returns a member's value, or false if it is missing. null is not a valid value for any
// member.
func (f *fields) take(name string) (any, bool) {
	f.known = append(f.known, name)
	v, ok := f.m[name]
	if ok && v == nil {
		f.fail(name, "it is null; leave it out instead")
		return nil, false
	}
	return v, ok
}

func (f *fields) has(name string) bool { _, ok := f.m[name]; return ok }

// tree returns an object that the caller reads itself. The parameter of is the object's schema.
func (f *fields) tree(name string, of ref) map[string]any {
	if f.describing != nil {
		f.describing.add(name, of.schema())
		return nil
	}
	v, ok := f.take(name)
	m, isMap := v.(map[string]any)
	if ok && !isMap {
		f.fail(name, "want an object")
	}
	return m
}

func (f *fields) text(name string, maxLen int) string {
	if f.describing != nil {
		f.describing.add(name, object{{"type", "string"}, {"maxLength", maxLen}})
		return ""
	}
	v, ok := f.take(name)
	if !ok {
		return ""
	}
	s, isText := v.(string)
	switch {
	case !isText:
		f.fail(name, "want text")
	case len(s) > maxLen:
		f.fail(name, "it has %d bytes; at most %d are allowed", len(s), maxLen)
	}
	return s
}

// choice returns a text that is one of the choices, or "" if it is missing.
func (f *fields) choice(name string, choices ...string) string {
	if f.describing != nil {
		f.describing.add(name, object{{"enum", choices}})
		return ""
	}
	v, ok := f.take(name)
	s, isText := v.(string)
	if ok && (!isText || !slices.Contains(choices, s)) {
		f.fail(name, "want %s, not %.40q", orList(choices), fmt.Sprint(v))
	}
	return s
}

// secret returns a text that answers never contain.
func (f *fields) secret(name string, maxLen int) auth.Secret {
	if f.describing != nil {
		f.describing.add(name, object{{"type", "string"}, {"minLength", 1}, {"maxLength", maxLen}, {"writeOnly", true}})
		return ""
	}
	return auth.Secret(f.text(name, maxLen))
}

func (f *fields) flag(name string, def bool) bool {
	if f.describing != nil {
		f.describing.add(name, object{{"type", "boolean"}, {"default", def}})
		return def
	}
	v, ok := f.take(name)
	if !ok {
		return def
	}
	b, isBool := v.(bool)
	if !isBool {
		f.fail(name, "want true or false")
	}
	return b
}

// optionalFlag returns nil for a missing member.
func (f *fields) optionalFlag(name string) *bool {
	if f.describing != nil {
		f.describing.add(name, object{{"type", "boolean"}})
	}
	if v := f.flag(name, false); f.has(name) {
		return &v
	}
	return nil
}

func (f *fields) integer(name string, least, most, def int64) int64 {
	if f.describing != nil {
		f.describing.addInteger(name, least, most, def)
		return def
	}
	v, ok := f.take(name)
	if !ok {
		return def
	}
	n, isNumber := v.(json.Number)
	i, err := strconv.ParseInt(string(n), 10, 64)
	if !isNumber || err != nil || i < least || i > most {
		f.fail(name, "want a whole number between %d and %d", least, most)
		return def
	}
	return i
}

func (f *fields) duration(name string, least, most, def time.Duration) time.Duration {
	if f.describing != nil {
		f.describing.addDuration(name, most)
		return def
	}
	v, ok := f.take(name)
	if !ok {
		return def
	}
	s, isText := v.(string)
	if !isText {
		f.fail(name, `want a duration as text, such as "500ms", "1.5s" or "20m"`)
		return def
	}
	d, err := settings.ParseDuration(s)
	switch {
	case err != nil:
		f.fail(name, "%s", err)
		return def
	case d < least || d > most:
		f.fail(name, "want a duration between %v and %v, not %v", least, most, d)
		return def
	}
	return d
}

// leaseOrForever returns the duration of a lease, which may be without end.
func (f *fields) leaseOrForever(name string) time.Duration {
	if f.describing != nil {
		f.describing.add(name, object{{"oneOf", []any{ref("Duration").schema(), object{{"const", "forever"}}}}})
		return 0
	}
	if v, _ := f.m[name].(string); v == "forever" {
		f.known = append(f.known, name)
		return surgetank.LeaseForever
	}
	return f.duration(name, time.Millisecond, surgetank.MaxLease, 0)
}

func (f *fields) rate(name string) surgetank.Rate {
	if f.describing != nil {
		f.describing.add(name, ref("Rate").schema())
		return 0
	}
	v, ok := f.take(name)
	if !ok {
		return 0
	}
	var r surgetank.Rate
	var err error
	switch v := v.(type) {
	case string:
		r, err = settings.ParseRate(v)
	case json.Number:
		var n float64
		if n, err = v.Float64(); err == nil {
			r, err = settings.ParseRate(strconv.FormatFloat(n, 'f', -1, 64))
		}
	default:
		err = fmt.Errorf(`want a rate, such as "2000/s"`)
	}
	if err != nil {
		f.fail(name, "%s", err)
	}
	return r
}

// texts returns a list of texts.
func (f *fields) texts(name string, most int) []string {
	if f.describing != nil {
		f.describing.add(name, object{{"type", "array"}, {"items", object{{"type", "string"}}}, {"maxItems", most}})
		return nil
	}
	v, ok := f.take(name)
	if !ok {
		return nil
	}
	list, isList := v.([]any)
	if !isList {
		f.fail(name, "want a list of texts")
		return nil
	}
	if len(list) > most {
		if f.err == nil {
			f.err = &surgetank.Error{Code: surgetank.CodeTooLarge, Field: f.prefix + name,
				Message: fmt.Sprintf("%s%s: it has %d items; at most %d are allowed at once", f.prefix, name, len(list), most)}
		}
		return nil
	}
	out := make([]string, len(list))
	for i, item := range list {
		if out[i], ok = item.(string); !ok {
			f.fail(fmt.Sprintf("%s[%d]", name, i), "want text")
			return nil
		}
	}
	return out
}

// objects returns a list of objects. The parameter of is the schema of each object.
func (f *fields) objects(name string, most int, of ref) []*fields {
	if f.describing != nil {
		f.describing.add(name, object{{"type", "array"}, {"items", of.schema()}, {"maxItems", most}})
		return nil
	}
	v, ok := f.take(name)
	if !ok {
		return nil
	}
	list, isList := v.([]any)
	if !isList || len(list) > most {
		f.fail(name, "want a list of at most %d objects", most)
		return nil
	}
	out := make([]*fields, len(list))
	for i, item := range list {
		m, isMap := item.(map[string]any)
		if !isMap {
			f.fail(fmt.Sprintf("%s[%d]", name, i), "want an object")
			return nil
		}
		out[i] = newFields(fmt.Sprintf("%s%s[%d].", f.prefix, name, i), m)
	}
	return out
}

// need rejects an object in which the member is missing.
func (f *fields) need(name string) {
	if f.describing != nil {
		f.describing.required = append(f.describing.required, name)
		return
	}
	if !f.has(name) {
		f.fail(name, "it is missing")
	}
}

// done returns the first error, or rejects a member that was not read.
func (f *fields) done() error {
	if f.err != nil {
		return f.err
	}
	unknown := ""
	for name := range f.m {
		if !slices.Contains(f.known, name) && (unknown == "" || name < unknown) {
			unknown = name
		}
	}
	if len(f.m) > 0 && (unknown != "" || f.has("") && !slices.Contains(f.known, "")) {
		f.fail(shorten(unknown), "this request knows no such member; it knows %s", orNothing(f.known))
	}
	return f.err
}
