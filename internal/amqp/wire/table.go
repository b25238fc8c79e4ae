package wire

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"iter"
	"math"
	"time"
	"unicode/utf8"
)

// Limits of a field table. Some clients have crashed on tables with some hundred levels, so a
// broker must not pass such tables on. Real tables have fewer than five levels.
const (
	MaxTableDepth    = 32
	MaxTableElements = 8192 // elements of a table, including nested tables
)

// Table is a field table: its encoded bytes without the length. In this form it is sent and stored,
// so every value keeps its type, order and repetition. A Table from this package's parsers or from
// the Add methods is valid. Check others with Validate. The zero Table is empty.
type Table []byte

// Array is a field array. The rules of Table apply.
type Array []byte

// Value is one value of a table or array: its tag and its bytes. For S, x, A and F, the bytes do
// not include the length.
type Value struct {
	Tag  byte
	Data []byte
}

// fixedSize returns the size of a tag's value: -1 if a length precedes the value, -2 for unknown
// tags.
func fixedSize(tag byte) int {
	switch tag {
	case 'V':
		return 0
	case 't', 'b', 'B':
		return 1
	case 's', 'u':
		return 2
	case 'I', 'i', 'f':
		return 4
	case 'D':
		return 5
	case 'l', 'L', 'd', 'T':
		return 8
	case 'S', 'x', 'A', 'F':
		return -1
	}
	return -2
}

// cutValue parses the first value of b and returns it and the rest.
func cutValue(b []byte) (v Value, rest []byte, err error) {
	if len(b) == 0 {
		return v, nil, errShort
	}
	tag, b := b[0], b[1:]
	size := fixedSize(tag)
	switch size {
	case -2:
		return v, nil, fmt.Errorf("unknown field type %q", tag)
	case -1:
		if len(b) < 4 {
			return v, nil, errShort
		}
		n := binary.BigEndian.Uint32(b)
		b = b[4:]
		if uint64(n) > uint64(len(b)) {
			return v, nil, errShort
		}
		size = int(n)
	}
	if size > len(b) {
		return v, nil, errShort
	}
	return Value{tag, b[:size:size]}, b[size:], nil
}

// cutField parses the first name and value of b and returns them and the rest.
func cutField(b []byte) (name []byte, v Value, rest []byte, err error) {
	if len(b) == 0 || len(b) < 1+int(b[0]) {
		return nil, v, nil, errShort
	}
	name, b = b[1:1+int(b[0])], b[1+int(b[0]):]
	v, rest, err = cutValue(b)
	return name, v, rest, err
}

// Validate checks an untrusted table: layout, tags, nesting, count, and that names are UTF-8.
func (t Table) Validate() error {
	left := MaxTableElements
	return validateTable(t, 1, &left)
}

func validateTable(b []byte, depth int, left *int) error {
	for len(b) > 0 {
		name, v, rest, err := cutField(b)
		if err != nil {
			return err
		}
		if !utf8.Valid(name) {
			return fmt.Errorf("field name %q is not UTF-8", name)
		}
		if err := validateValue(v, depth, left); err != nil {
			return err
		}
		b = rest
	}
	return nil
}

func validateValue(v Value, depth int, left *int) error {
	if *left--; *left < 0 {
		return fmt.Errorf("more than %d fields", MaxTableElements)
	}
	if v.Tag != 'A' && v.Tag != 'F' {
		return nil
	}
	if depth == MaxTableDepth {
		return fmt.Errorf("tables nested more than %d deep", MaxTableDepth)
	}
	if v.Tag == 'F' {
		return validateTable(v.Data, depth+1, left)
	}
	for b := v.Data; len(b) > 0; {
		e, rest, err := cutValue(b)
		if err != nil {
			return err
		}
		if err := validateValue(e, depth+1, left); err != nil {
			return err
		}
		b = rest
	}
	return nil
}

// All iterates over the fields in order. It ends at the first malformed one.
func (t Table) All() iter.Seq2[[]byte, Value] {
	return func(yield func([]byte, Value) bool) {
		for b := []byte(t); len(b) > 0; {
			name, v, rest, err := cutField(b)
			if err != nil || !yield(name, v) {
				return
			}
			b = rest
		}
	}
}

// Rest returns the table without its first field. It fails if there is no field, or a malformed
// one.
func (t Table) Rest() (Table, error) {
	_, _, rest, err := cutField(t)
	return rest, err
}

// Get returns the first value with a name.
func (t Table) Get(name string) (Value, bool) {
	for b := []byte(t); len(b) > 0; {
		n, v, rest, err := cutField(b)
		if err != nil {
			break
		}
		if string(n) == name {
			return v, true
		}
		b = rest
	}
	return Value{}, false
}

// Without returns the table without the fields whose names drop selects. It returns t itself if
// there are none.
func (t Table) Without(drop func(name []byte) bool) Table {
	var out Table
	copied := false
	kept := 0 // bytes of t checked and kept so far
	for b := []byte(t); len(b) > 0; {
		name, _, rest, err := cutField(b)
		if err != nil {
			break
		}
		field := b[:len(b)-len(rest)]
		switch {
		case drop(name):
			if !copied {
				copied = true
				out = append(make(Table, 0, len(t)), t[:kept]...)
			}
		case copied:
			out = append(out, field...)
		}
		kept += len(field)
		b = rest
	}
	if !copied {
		return t
	}
	return out
}

// All iterates over the elements in order.
func (a Array) All() iter.Seq[Value] {
	return func(yield func(Value) bool) {
		for b := []byte(a); len(b) > 0; {
			v, rest, err := cutValue(b)
			if err != nil || !yield(v) {
				return
			}
			b = rest
		}
	}
}

// TypeName returns the type in the words of RabbitMQ's error texts.
func (v Value) TypeName() string {
	switch v.Tag {
	case 't':
		return "bool"
	case 'b':
		return "byte"
	case 'B':
		return "unsignedbyte"
	case 's':
		return "short"
	case 'u':
		return "unsignedshort"
	case 'I':
		return "signedint"
	case 'i':
		return "unsignedint"
	case 'l', 'L':
		return "long"
	case 'f':
		return "float"
	case 'd':
		return "double"
	case 'D':
		return "decimal"
	case 'S':
		return "longstr"
	case 'x':
		return "binary"
	case 'A':
		return "array"
	case 'T':
		return "timestamp"
	case 'F':
		return "table"
	}
	return "void"
}

// Int returns an integer of any width. It returns false for other types, and for an L above the
// range of int64.
func (v Value) Int() (int64, bool) {
	switch d := v.Data; v.Tag {
	case 'b':
		return int64(int8(d[0])), true
	case 'B':
		return int64(d[0]), true
	case 's':
		return int64(int16(binary.BigEndian.Uint16(d))), true
	case 'u':
		return int64(binary.BigEndian.Uint16(d)), true
	case 'I':
		return int64(int32(binary.BigEndian.Uint32(d))), true
	case 'i':
		return int64(binary.BigEndian.Uint32(d)), true
	case 'l':
		return int64(binary.BigEndian.Uint64(d)), true
	case 'L':
		n := binary.BigEndian.Uint64(d)
		return int64(n), n <= math.MaxInt64
	}
	return 0, false
}

// Str returns a long string's bytes.
func (v Value) Str() ([]byte, bool) { return v.Data, v.Tag == 'S' }

// Bool returns a boolean.
func (v Value) Bool() (value, ok bool) { return v.Tag == 't' && v.Data[0] != 0, v.Tag == 't' }

// Float returns a floating point number of either width.
func (v Value) Float() (float64, bool) {
	switch v.Tag {
	case 'f':
		return float64(math.Float32frombits(binary.BigEndian.Uint32(v.Data))), true
	case 'd':
		return math.Float64frombits(binary.BigEndian.Uint64(v.Data)), true
	}
	return 0, false
}

// Time returns a timestamp.
func (v Value) Time() (time.Time, bool) {
	if v.Tag != 'T' {
		return time.Time{}, false
	}
	return time.Unix(int64(binary.BigEndian.Uint64(v.Data)), 0).UTC(), true
}

// Table returns a nested table.
func (v Value) Table() (Table, bool) { return Table(v.Data), v.Tag == 'F' }

// Array returns a nested array.
func (v Value) Array() (Array, bool) { return Array(v.Data), v.Tag == 'A' }

// Equal compares values as RabbitMQ compares arguments: integers by value, of any width, and other
// values by type and bytes.
func (v Value) Equal(o Value) bool {
	a, ok1 := v.Int()
	b, ok2 := o.Int()
	if ok1 && ok2 {
		return a == b
	}
	return v.Tag == o.Tag && bytes.Equal(v.Data, o.Data)
}

// appendValue appends a value with its tag.
func appendValue(dst []byte, v Value) []byte {
	dst = append(dst, v.Tag)
	if fixedSize(v.Tag) == -1 {
		dst = binary.BigEndian.AppendUint32(dst, uint32(len(v.Data)))
	}
	return append(dst, v.Data...)
}

// Add appends a field. A name of more than 255 bytes is cut.
func (t Table) Add(name string, v Value) Table {
	return appendValue(appendShortstr(t, name), v)
}

// AddString appends a long string.
func (t Table) AddString(name, s string) Table { return t.Add(name, Value{'S', []byte(s)}) }

// AddBool appends a boolean.
func (t Table) AddBool(name string, b bool) Table {
	return t.Add(name, Value{'t', []byte{boolByte(b)}})
}

// AddInt appends a 64-bit integer.
func (t Table) AddInt(name string, n int64) Table {
	return t.Add(name, Value{'l', binary.BigEndian.AppendUint64(nil, uint64(n))})
}

// AddTime appends a timestamp, in whole seconds.
func (t Table) AddTime(name string, at time.Time) Table {
	return t.Add(name, Value{'T', binary.BigEndian.AppendUint64(nil, uint64(at.Unix()))})
}

// AddTable appends a nested table.
func (t Table) AddTable(name string, n Table) Table { return t.Add(name, Value{'F', n}) }

// AddArray appends a nested array.
func (t Table) AddArray(name string, a Array) Table { return t.Add(name, Value{'A', a}) }

// Add appends an element.
func (a Array) Add(v Value) Array { return appendValue(a, v) }

// AddString appends a long string.
func (a Array) AddString(s string) Array { return appendValue(a, Value{'S', []byte(s)}) }

// AddTable appends a table.
func (a Array) AddTable(t Table) Array { return appendValue(a, Value{'F', t}) }

func boolByte(b bool) byte {
	if b {
		return 1
	}
	return 0
}
