package postgres

import (
	"encoding/json"

	"github.com/surgetank/surgetank/internal/jsonpath"
	"github.com/surgetank/surgetank/sink"
)

var wholeValue = func() *jsonpath.Set {
	p, err := jsonpath.Parse("$")
	if err != nil {
		panic(err) // the constant is wrong
	}
	return jsonpath.NewSet(p)
}()

// array writes a JSON array for an array column, as a PostgreSQL array literal: {1,2,NULL,"text"}.
// Nested arrays become further dimensions, unless the column's elements have the type json or
// jsonb.
func (c *column) array(dst, raw []byte) ([]byte, error) {
	literal, err := c.elements(nil, raw)
	if err != nil {
		return dst, err
	}
	return escape(dst, literal), nil
}

func (c *column) elements(dst, raw []byte) ([]byte, error) {
	var list []json.RawMessage
	if err := json.Unmarshal(raw, &list); err != nil {
		return dst, sink.BadRowf("column %q: %s: %v", c.Name, c.From, err)
	}
	dst = append(dst, '{')
	for i, e := range list {
		if i > 0 {
			dst = append(dst, ',')
		}
		var v [1]jsonpath.Value
		if err := wholeValue.Scan(e, v[:]); err != nil {
			return dst, sink.BadRowf("column %q: %s: %v", c.Name, c.From, err)
		}
		var err error
		if dst, err = c.elementValue(dst, v[0]); err != nil {
			return dst, err
		}
	}
	return append(dst, '}'), nil
}

func (c *column) elementValue(dst []byte, v jsonpath.Value) ([]byte, error) {
	switch {
	case v.Kind == jsonpath.Null:
		return append(dst, "NULL"...), nil
	case c.element == kindJSON:
		return quote(dst, v.Raw), nil
	case v.Kind == jsonpath.Array:
		return c.elements(dst, v.Raw)
	case v.Kind == jsonpath.Number && c.element == kindInteger:
		return appendInteger(dst, v.Raw), nil
	}
	s, ok := v.AppendText(nil)
	if !ok {
		return dst, sink.BadRowf("column %q: %s holds half of a surrogate pair, which is no character", c.Name, c.From)
	}
	for _, b := range s {
		if b == 0 {
			return dst, sink.BadRowf("column %q: %s holds a NUL character, which PostgreSQL's text cannot hold", c.Name, c.From)
		}
	}
	switch c.element {
	case kindBytes:
		return quote(dst, appendHex(nil, s)[1:]), nil // one backslash: escape doubles it for COPY, quote doubles it for the literal
	case kindTime, kindTimeZone:
		one := column{Column: c.Column, kind: c.element}
		t, err := one.time(nil, string(s))
		if err != nil {
			return dst, err
		}
		return quote(dst, t), nil
	}
	return quote(dst, s), nil
}

// quote writes an element in double quotes.
func quote(dst, s []byte) []byte {
	dst = append(dst, '"')
	for _, b := range s {
		if b == '"' || b == '\\' {
			dst = append(dst, '\\')
		}
		dst = append(dst, b)
	}
	return append(dst, '"')
}
