package postgres

import (
	"bytes"
	"encoding/json"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/surgetank/surgetank/sink"
)

// kind is the part of a column's type that matters for writing its values. PostgreSQL's own input
// functions do the rest.
type kind uint8

const (
	kindOther kind = iota // all other types, whose input functions read the text: text, numeric, uuid, enums …
	kindJSON              // json, jsonb: any JSON value, unchanged
	kindBytes
	kindInteger
	kindTimeZone // timestamptz
	kindTime     // timestamp
	kindDate     // date, time, timetz
	kindArray
)

// kindOf returns the kind for a base type's name.
func kindOf(typeName string) kind {
	switch typeName {
	case "json", "jsonb":
		return kindJSON
	case "bytea":
		return kindBytes
	case "int2", "int4", "int8":
		return kindInteger
	case "timestamptz":
		return kindTimeZone
	case "timestamp":
		return kindTime
	case "date", "time", "timetz":
		return kindDate
	}
	return kindOther
}

// null is SQL's null in COPY's text format.
const null = `\N`

// timeFormat is the format of times; PostgreSQL stores microseconds.
const timeFormat = "2006-01-02T15:04:05.000000Z07:00"

// append writes a cell as a field of COPY's text format.
func (c *column) append(dst []byte, cell *sink.Cell) ([]byte, error) {
	switch cell.Kind {
	case sink.CellNull:
		return append(dst, null...), nil
	case sink.CellText:
		if c.kind == kindJSON {
			return escape(dst, appendString(nil, cell.Text)), nil
		}
		return c.characters(dst, []byte(cell.Text))
	case sink.CellInt:
		return strconv.AppendInt(dst, cell.Int, 10), nil
	case sink.CellTime:
		if c.kind == kindJSON {
			return cell.Time.AppendFormat(dst, `"`+timeFormat+`"`), nil
		}
		return cell.Time.AppendFormat(dst, timeFormat), nil
	case sink.CellBytes:
		if c.kind == kindBytes {
			return appendHex(dst, cell.Bytes), nil
		}
		if bytes.IndexByte(cell.Bytes, 0) >= 0 || !utf8.Valid(cell.Bytes) {
			return dst, sink.BadRowf("column %q holds text, but the body is not UTF-8 without NUL; a bytea column takes any body", c.Name)
		}
		return escape(dst, cell.Bytes), nil
	}
	return c.json(dst, cell.JSON)
}

// json writes a JSON value for the column's type. For json and jsonb the value stays unchanged. For
// other types a string becomes its characters, and other values stay as written. Numbers stay text,
// so no digit is lost.
func (c *column) json(dst []byte, v sink.JSON) ([]byte, error) {
	switch {
	case c.kind == kindJSON:
		return escape(dst, v.Raw()), nil
	case v.Kind() == sink.JSONNumber && c.kind == kindInteger:
		return appendInteger(dst, v.Raw()), nil
	case v.Kind() == sink.JSONArray && c.kind == kindArray:
		return c.array(dst, v.Raw())
	case v.Kind() != sink.JSONString:
		if c.kind == kindBytes {
			return appendHex(dst, v.Raw()), nil
		}
		return escape(dst, v.Raw()), nil
	}
	s, ok := v.AppendText(nil)
	if !ok {
		return dst, sink.BadRowf("column %q: %s holds half of a surrogate pair, which is no character", c.Name, c.From)
	}
	return c.characters(dst, s)
}

// characters writes text from a message.
func (c *column) characters(dst, s []byte) ([]byte, error) {
	switch c.kind {
	case kindBytes:
		return appendHex(dst, s), nil
	case kindTimeZone, kindTime:
		return c.time(dst, string(s))
	case kindDate:
		if len(s) == 0 || s[0] < '0' || s[0] > '9' {
			return dst, sink.BadRowf("column %q: %.60q is not a date or time in digits", c.Name, s)
		}
	}
	if bytes.IndexByte(s, 0) >= 0 {
		return dst, sink.BadRowf("column %q: %s holds a NUL character, which PostgreSQL's text cannot hold", c.Name, c.From)
	}
	return escape(dst, s), nil
}

// The accepted forms of a time: RFC 3339, also without its zone, with T or a space. PostgreSQL
// would accept more, such as "now" and "tomorrow". The stored values would depend on the time of
// the write, not on the message.
var zoned = []string{time.RFC3339Nano, "2006-01-02 15:04:05.999999999Z07:00"}
var unzoned = []string{"2006-01-02T15:04:05.999999999", "2006-01-02 15:04:05.999999999"}

func (c *column) time(dst []byte, s string) ([]byte, error) {
	for _, form := range zoned {
		if t, err := time.Parse(form, s); err == nil {
			if c.kind == kindTime {
				t = t.UTC()
				return t.AppendFormat(dst, "2006-01-02T15:04:05.999999999"), nil
			}
			return t.AppendFormat(dst, time.RFC3339Nano), nil
		}
	}
	if c.kind == kindTime {
		for _, form := range unzoned {
			if t, err := time.Parse(form, s); err == nil {
				return t.AppendFormat(dst, form), nil
			}
		}
	}
	return dst, sink.BadRowf("column %q: %.60q is not a time by RFC 3339, as in 2026-01-02T15:04:05Z", c.Name, s)
}

// escape writes text for COPY. Backslashes and the characters that end fields and lines get a
// backslash.
func escape(dst, s []byte) []byte {
	from := 0
	for i, b := range s {
		if !special[b] {
			continue
		}
		dst = append(dst, s[from:i]...)
		from = i + 1
		switch b {
		case '\n':
			b = 'n'
		case '\r':
			b = 'r'
		case '\t':
			b = 't'
		}
		dst = append(dst, '\\', b)
	}
	return append(dst, s[from:]...)
}

var special = [256]bool{'\\': true, '\n': true, '\r': true, '\t': true}

// appendHex writes bytes in bytea's hexadecimal form, with the backslash escaped for COPY.
func appendHex(dst, b []byte) []byte {
	const digits = "0123456789abcdef"
	dst = append(dst, `\\x`...)
	for _, c := range b {
		dst = append(dst, digits[c>>4], digits[c&15])
	}
	return dst
}

// appendInteger writes a number for an integer column. PostgreSQL's input functions accept digits
// only, but 1.0, 1e3 and 12.50e1 are whole too. Other numbers, or more digits than any integer has,
// are left for PostgreSQL to reject.
func appendInteger(dst, s []byte) []byte {
	if bytes.IndexAny(s, ".eE") < 0 {
		return append(dst, s...)
	}
	mantissa, exponent := s, 0
	if i := bytes.IndexAny(s, "eE"); i >= 0 {
		var err error
		if exponent, err = strconv.Atoi(string(bytes.TrimPrefix(s[i+1:], []byte("+")))); err != nil || exponent > 40 || exponent < -40 {
			return append(dst, s...)
		}
		mantissa = s[:i]
	}
	whole, fraction, _ := bytes.Cut(bytes.TrimPrefix(mantissa, []byte("-")), []byte("."))
	digits := append(append([]byte(nil), whole...), fraction...)
	point := max(len(whole)+exponent, 0) // position of the decimal point in digits
	for len(digits) < point {
		digits = append(digits, '0')
	}
	if len(bytes.Trim(digits[point:], "0")) > 0 {
		return append(dst, s...) // the fraction is not zero
	}
	digits = bytes.TrimLeft(digits[:point], "0")
	switch {
	case len(digits) == 0:
		return append(dst, '0')
	case len(digits) > 40:
		return append(dst, s...)
	case s[0] == '-':
		dst = append(dst, '-')
	}
	return append(dst, digits...)
}

// appendString writes text as a JSON string.
func appendString(dst []byte, s string) []byte {
	b, _ := json.Marshal(s) // a string always encodes
	return append(dst, b...)
}
