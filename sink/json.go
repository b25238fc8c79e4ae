package sink

import "github.com/surgetank/surgetank/internal/jsonpath"

// JSON is one JSON value in a body. It shares the body's memory.
type JSON struct{ v jsonpath.Value }

// JSONKind is the kind of a JSON value. Null and missing values are kinds of a Cell.
type JSONKind uint8

const (
	JSONFalse JSONKind = iota + 2
	JSONTrue
	JSONNumber
	JSONString
	JSONArray
	JSONObject
)

// Kind returns the kind of the value.
func (j JSON) Kind() JSONKind { return JSONKind(j.v.Kind) }

// Raw returns the value as it is written in the body, a string with its quotes.
func (j JSON) Raw() []byte { return j.v.Raw }

// Text returns a string's characters, and any other value as it is written. It returns false for a
// string without a UTF-8 form, because an escape is half of a surrogate pair.
func (j JSON) Text() (string, bool) { return j.v.Text() }

// AppendText appends the result of Text to dst.
func (j JSON) AppendText(dst []byte) ([]byte, bool) { return j.v.AppendText(dst) }
