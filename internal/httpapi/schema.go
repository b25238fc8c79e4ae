package httpapi

import (
	"bytes"
	"encoding/json"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/settings"
)

// object is a JSON object whose members keep their order.
type object []member

type member struct {
	key   string
	value any
}

// MarshalJSON writes the members in their order.
func (o object) MarshalJSON() ([]byte, error) {
	b := []byte{'{'}
	for i, m := range o {
		if i > 0 {
			b = append(b, ',')
		}
		var text bytes.Buffer
		e := json.NewEncoder(&text)
		e.SetEscapeHTML(false)
		if err := e.Encode(m.value); err != nil {
			return nil, err
		}
		b = append(append(strconv.AppendQuote(b, m.key), ':'), text.Bytes()...)
	}
	return append(b, '}'), nil
}

// with returns the object with one more member. A member that is empty text is left out.
func (o object) with(key string, value any) object {
	if value == "" {
		return o
	}
	return append(slices.Clip(o), member{key, value})
}

// layout writes compact JSON text with line breaks. An object or array that fits into a line of 110
// bytes stays on one line. indent is a line break and the spaces after it.
func layout(out *bytes.Buffer, text []byte, indent string) error {
	open := text[0]
	if len(indent)+len(text) <= 110 || open != '{' && open != '[' {
		out.Write(text)
		return nil
	}
	d := json.NewDecoder(bytes.NewReader(text))
	if _, err := d.Token(); err != nil {
		return err
	}
	out.WriteByte(open)
	for first := true; d.More(); first = false {
		if !first {
			out.WriteByte(',')
		}
		out.WriteString(indent + " ")
		if open == '{' {
			key, err := d.Token()
			if err != nil {
				return err
			}
			out.WriteString(strconv.Quote(key.(string)) + ": ")
		}
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return err
		}
		if err := layout(out, value, indent+" "); err != nil {
			return err
		}
	}
	out.WriteString(indent)
	out.WriteByte(open + 2) // the closing bracket is two after the opening one
	return nil
}

// ref is the name of a schema of the document.
type ref string

func (r ref) schema() object { return object{{"$ref", "#/components/schemas/" + string(r)}} }

// objectSchema is the schema of an object with these members and no others.
func objectSchema(properties object, required []string) object {
	o := object{{"type", "object"}, {"properties", properties}, {"additionalProperties", false}}
	if len(required) > 0 {
		o = append(o, member{"required", required})
	}
	return o
}

// memberList has the members of a request's object: fields records them while a function reads
// nothing.
type memberList struct {
	docs       docs
	properties object
	required   []string
}

// describe returns the schema of the objects that read reads, and whether a member is required.
func describe(read func(*fields, *Limits), about docs) (schema object, required bool) {
	m := &memberList{docs: about}
	limits := Limits{}.withDefaults()
	read(&fields{describing: m}, &limits)
	for name := range about {
		if !slices.ContainsFunc(m.properties, func(p member) bool { return p.key == name }) {
			panic("there is a sentence about the member " + name + ", which is never read")
		}
	}
	return objectSchema(m.properties, m.required), len(m.required) > 0
}

// add records a member once.
func (m *memberList) add(name string, schema object) {
	if !slices.ContainsFunc(m.properties, func(p member) bool { return p.key == name }) {
		m.properties = append(m.properties, member{name, schema.with("description", m.docs[name])})
	}
}

// addInteger records an integer. A default outside the limits stands for a missing member.
func (m *memberList) addInteger(name string, least, most, def int64) {
	o := object{{"type", "integer"}, {"minimum", least}, {"maximum", most}}
	if least <= def && def <= most {
		o = o.with("default", def)
	}
	m.add(name, o)
}

// addDuration records a duration, and names its limit.
func (m *memberList) addDuration(name string, most time.Duration) {
	about := m.docs[name]
	if most < surgetank.MaxDuration {
		about = strings.TrimSpace(about + " At most " + settings.FormatDuration(most) + ".")
	}
	if !slices.ContainsFunc(m.properties, func(p member) bool { return p.key == name }) {
		m.properties = append(m.properties, member{name, ref("Duration").schema().with("description", about)})
	}
}

// docsOf returns the sentences about the fields of a struct, which its tags have.
func docsOf[T any]() docs {
	about := docs{}
	for t, i := reflect.TypeFor[T](), 0; i < t.NumField(); i++ {
		if text := t.Field(i).Tag.Get("doc"); text != "" {
			name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
			about[name] = text
		}
	}
	return about
}

// schemas derives JSON schemas from Go types, as encoding/json writes them. Struct tags add what a
// type does not say:
//
//	schema:"NAME"   the field has this schema of the document
//	enum:"a,b"      the field has one of these values
//	null:"true"     a pointer can be null; other nil pointers are missing members
//	min:"N"         the least value of a number; other numbers are counts, from 0
//	doc:"SENTENCE"  a description
type schemas map[reflect.Type]ref

// of returns the schema of a sample's type. A ref or an object stands for itself.
func (s schemas) of(sample any) object {
	switch v := sample.(type) {
	case ref:
		return v.schema()
	case object:
		return v
	}
	return s.ofType(reflect.TypeOf(sample))
}

func (s schemas) ofType(t reflect.Type) object {
	if name, ok := s[t]; ok {
		return name.schema()
	}
	return s.inline(t)
}

// inline returns the schema of a type, even if the document has a name for it.
func (s schemas) inline(t reflect.Type) object {
	switch {
	case t == reflect.TypeFor[time.Time]():
		return object{{"type", "string"}, {"format", "date-time"}}
	case t == reflect.TypeFor[surgetank.Code]():
		var codes []string
		for code := range statuses {
			codes = append(codes, string(code))
		}
		slices.Sort(codes)
		return object{{"enum", codes}}
	case t == reflect.TypeFor[*string](): // null in a list
		return object{{"type", []string{"string", "null"}}}
	case t == reflect.TypeFor[[]byte]():
		return object{{"type", "string"}, {"contentEncoding", "base64"}}
	}
	switch t.Kind() {
	case reflect.Bool:
		return object{{"type", "boolean"}}
	case reflect.String:
		return object{{"type", "string"}}
	case reflect.Int, reflect.Int64, reflect.Uint8, reflect.Uint64:
		return object{{"type", "integer"}, {"minimum", 0}}
	case reflect.Float64:
		return object{{"type", "number"}, {"minimum", 0}}
	case reflect.Pointer:
		return s.ofType(t.Elem())
	case reflect.Slice:
		return object{{"type", "array"}, {"items", s.ofType(t.Elem())}}
	case reflect.Map:
		return object{{"type", "object"}, {"additionalProperties", s.ofType(t.Elem())}}
	case reflect.Struct:
		properties, required := s.fields(t, nil, nil, false)
		return objectSchema(properties, required)
	}
	return object{} // an interface: any value
}

// fields adds the fields of a struct and of the structs that it embeds. optional is true inside an
// embedded pointer, which can be nil.
func (s schemas) fields(t reflect.Type, properties object, required []string, optional bool) (object, []string) {
	for i := range t.NumField() {
		f := t.Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.Anonymous && name == "" {
			inner := f.Type
			if inner.Kind() == reflect.Pointer {
				inner = inner.Elem()
			}
			properties, required = s.fields(inner, properties, required, optional || f.Type != inner)
			continue
		}
		properties = append(properties, member{name, s.field(f)})
		if options == "" && !optional {
			required = append(required, name)
		}
	}
	return properties, required
}

func (s schemas) field(f reflect.StructField) object {
	t := f.Type
	if t.Kind() == reflect.Pointer && f.Tag.Get("null") == "" {
		t = t.Elem()
	}
	o := s.ofType(t)
	if name := f.Tag.Get("schema"); name != "" {
		o = ref(name).schema()
	}
	if enum := f.Tag.Get("enum"); enum == "true" {
		o = object{{"const", true}}
	} else if values := strings.Split(enum, ","); len(values) > 1 {
		o = object{{"enum", values}}
	} else if enum != "" {
		o = object{{"const", enum}}
	}
	if least, err := strconv.Atoi(f.Tag.Get("min")); err == nil {
		o = object{{"type", "integer"}, {"minimum", least}}
	}
	return o.with("description", f.Tag.Get("doc"))
}
