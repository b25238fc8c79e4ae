package httpapi

import (
	"encoding/json"
	"fmt"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// scanner reads JSON (RFC 8259) strictly and without building values. It checks syntax, UTF-8 and
// depth, and returns the exact bytes that it passed. The standard decoder replaces bad UTF-8, uses
// the last of duplicate keys and has no depth limit of its own; none of these is acceptable for a
// message.
type scanner struct {
	data  []byte
	pos   int
	depth int // how much deeper values may nest
}

// jsonError is an error in JSON text. offset counts bytes from the start of the text.
type jsonError struct {
	offset int
	what   string
}

func (e *jsonError) Error() string { return fmt.Sprintf("%s (at byte %d)", e.what, e.offset+1) }

func (s *scanner) fail(what string) error { return &jsonError{s.pos, what} }

func (s *scanner) space() {
	for s.pos < len(s.data) {
		switch s.data[s.pos] {
		case ' ', '\t', '\r', '\n':
			s.pos++
		default:
			return
		}
	}
}

// peek returns the next byte that is not space, or 0 at the end.
func (s *scanner) peek() byte {
	s.space()
	if s.pos == len(s.data) {
		return 0
	}
	return s.data[s.pos]
}

// end rejects anything but space up to the end.
func (s *scanner) end() error {
	if s.space(); s.pos < len(s.data) {
		return s.fail("something follows the JSON value")
	}
	return nil
}

// expect reads past one byte of punctuation.
func (s *scanner) expect(c byte, what string) error {
	if s.peek() != c {
		return s.fail(what)
	}
	s.pos++
	return nil
}

// skip reads past one value and returns its bytes.
func (s *scanner) skip() ([]byte, error) {
	c := s.peek()
	start := s.pos
	var err error
	switch {
	case c == '"':
		_, _, err = s.rawString()
	case c == '{':
		err = s.object(func([]byte, bool) error {
			_, err := s.skip()
			return err
		})
	case c == '[':
		err = s.array(func() error {
			_, err := s.skip()
			return err
		})
	case c == '-' || c >= '0' && c <= '9':
		err = s.number()
	case c == 't':
		err = s.word("true")
	case c == 'f':
		err = s.word("false")
	case c == 'n':
		err = s.word("null")
	case c == 0 && s.pos == len(s.data):
		err = s.fail("the JSON text ends too early")
	default:
		err = s.fail("this is not a JSON value")
	}
	return s.data[start:s.pos], err
}

// object reads past an object. It calls member after each colon with the raw key; escaped says
// whether the key contains escapes. member must read past the value.
func (s *scanner) object(member func(key []byte, escaped bool) error) error {
	if err := s.enter('{', "an object begins with {"); err != nil {
		return err
	}
	if s.peek() == '}' {
		s.leave()
		return nil
	}
	for {
		if s.peek() != '"' {
			return s.fail(`a key in double quotes is missing`)
		}
		key, escaped, err := s.rawString()
		if err != nil {
			return err
		}
		if err := s.expect(':', "a colon is missing behind the key"); err != nil {
			return err
		}
		if err := member(key, escaped); err != nil {
			return err
		}
		switch s.peek() {
		case ',':
			s.pos++
		case '}':
			s.leave()
			return nil
		default:
			return s.fail("a comma or } is missing")
		}
	}
}

// array reads past an array; element must read past each value.
func (s *scanner) array(element func() error) error {
	if err := s.enter('[', "an array begins with ["); err != nil {
		return err
	}
	if s.peek() == ']' {
		s.leave()
		return nil
	}
	for {
		if err := element(); err != nil {
			return err
		}
		switch s.peek() {
		case ',':
			s.pos++
		case ']':
			s.leave()
			return nil
		default:
			return s.fail("a comma or ] is missing")
		}
	}
}

func (s *scanner) enter(c byte, what string) error {
	if err := s.expect(c, what); err != nil {
		return err
	}
	if s.depth--; s.depth < 0 {
		return s.fail("the JSON value is nested too deeply")
	}
	return nil
}

func (s *scanner) leave() {
	s.pos++
	s.depth++
}

func (s *scanner) word(w string) error {
	if len(s.data)-s.pos < len(w) || string(s.data[s.pos:s.pos+len(w)]) != w {
		return s.fail("this is not a JSON value")
	}
	s.pos += len(w)
	return nil
}

func (s *scanner) digits() bool {
	start := s.pos
	for s.pos < len(s.data) && s.data[s.pos]-'0' <= 9 {
		s.pos++
	}
	return s.pos > start
}

func (s *scanner) at(c byte) bool { return s.pos < len(s.data) && s.data[s.pos] == c }

// number reads past a number: RFC 8259, section 6.
func (s *scanner) number() error {
	if s.at('-') {
		s.pos++
	}
	if s.at('0') {
		s.pos++
	} else if !s.digits() {
		return s.fail("a digit is missing")
	}
	if s.at('.') {
		s.pos++
		if !s.digits() {
			return s.fail("a digit is missing after the point")
		}
	}
	if s.at('e') || s.at('E') {
		s.pos++
		if s.at('+') || s.at('-') {
			s.pos++
		}
		if !s.digits() {
			return s.fail("a digit of the exponent is missing")
		}
	}
	return nil
}

// rawString reads past a string that begins here and returns the text between its quotes.
func (s *scanner) rawString() (raw []byte, escaped bool, err error) {
	s.pos++
	start, data := s.pos, s.data
	ascii := true
	for i := start; i < len(data); i++ {
		switch c := data[i]; {
		case c == '"':
			s.pos = i + 1
			if raw = data[start:i]; !ascii && !utf8.Valid(raw) {
				s.pos = start
				return nil, false, s.fail("the string is not valid UTF-8")
			}
			return raw, escaped, nil
		case c == '\\':
			escaped = true
			n := escapeLen(data[i:])
			if n == 0 {
				s.pos = i
				return nil, false, s.fail("this is not a JSON escape")
			}
			i += n - 1
		case c < ' ':
			s.pos = i
			return nil, false, s.fail("a control character must be written as an escape")
		case c >= utf8.RuneSelf:
			ascii = false
		}
	}
	s.pos = len(data)
	return nil, false, s.fail("the string has no end")
}

// escapeLen returns the length of the escape at the start of b, or 0 if there is none.
func escapeLen(b []byte) int {
	if len(b) < 2 {
		return 0
	}
	switch b[1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return 2
	case 'u':
		if _, ok := hex4(b); ok {
			return 6
		}
	}
	return 0
}

// hex4 reads \uXXXX.
func hex4(b []byte) (rune, bool) {
	if len(b) < 6 || b[0] != '\\' || b[1] != 'u' {
		return 0, false
	}
	var r rune
	for _, c := range b[2:6] {
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c >= 'a' && c <= 'f':
			c -= 'a' - 10
		case c >= 'A' && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	return r, true
}

// text reads past a string and decodes it. It rejects lone surrogates, because they are no
// characters.
func (s *scanner) text() (string, error) {
	if s.peek() != '"' {
		return "", s.fail("text in double quotes is expected here")
	}
	start := s.pos
	raw, escaped, err := s.rawString()
	if err != nil {
		return "", err
	}
	out, ok := unescape(raw, escaped)
	if !ok {
		s.pos = start
		return "", s.fail("the string holds half of a surrogate pair")
	}
	return out, nil
}

// unescape decodes the result of rawString. It returns false for a lone surrogate.
func unescape(raw []byte, escaped bool) (string, bool) {
	if !escaped {
		return string(raw), true
	}
	out := make([]byte, 0, len(raw))
	for i := 0; i < len(raw); {
		if raw[i] != '\\' {
			out = append(out, raw[i])
			i++
			continue
		}
		if raw[i+1] != 'u' {
			out = append(out, simpleEscapes[raw[i+1]])
			i += 2
			continue
		}
		r, _ := hex4(raw[i:])
		i += 6
		if utf16.IsSurrogate(r) {
			low, ok := hex4(raw[i:])
			if r = utf16.DecodeRune(r, low); !ok || r == utf8.RuneError {
				return "", false
			}
			i += 6
		}
		out = utf8.AppendRune(out, r)
	}
	return string(out), true
}

var simpleEscapes = [256]byte{'"': '"', '\\': '\\', '/': '/', 'b': '\b', 'f': '\f', 'n': '\n', 'r': '\r', 't': '\t'}

// tree reads a whole JSON text into maps, slices, strings, json.Number, bool and nil. It rejects
// duplicate keys.
func tree(data []byte, maxDepth int) (any, error) {
	s := &scanner{data: data, depth: maxDepth}
	v, err := s.tree()
	if err == nil {
		err = s.end()
	}
	return v, err
}

func (s *scanner) tree() (any, error) {
	switch s.peek() {
	case '"':
		return s.text()
	case '{':
		m := map[string]any{}
		err := s.object(func(raw []byte, escaped bool) error {
			key, ok := unescape(raw, escaped)
			if !ok {
				return s.fail("the key holds half of a surrogate pair")
			}
			if _, twice := m[key]; twice {
				return s.fail(fmt.Sprintf("the key %s is there twice", strconv.Quote(shorten(key))))
			}
			v, err := s.tree()
			m[key] = v
			return err
		})
		return m, err
	case '[':
		list := []any{}
		err := s.array(func() error {
			v, err := s.tree()
			list = append(list, v)
			return err
		})
		return list, err
	}
	raw, err := s.skip()
	if err != nil {
		return nil, err
	}
	switch raw[0] {
	case 't':
		return true, nil
	case 'f':
		return false, nil
	case 'n':
		return nil, nil
	}
	return json.Number(raw), nil
}

// isJSON reports whether b is exactly one JSON value with nothing around it. Such a value can be
// part of a document unchanged.
func isJSON(b []byte, maxDepth int) bool {
	if len(b) == 0 || b[0] <= ' ' {
		return false
	}
	s := scanner{data: b, depth: maxDepth}
	_, err := s.skip()
	return err == nil && s.pos == len(b)
}

func shorten(s string) string {
	if len(s) > 60 {
		return s[:60] + "…"
	}
	return s
}
