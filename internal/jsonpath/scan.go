package jsonpath

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"unicode/utf8"
)

// MaxDepth is the deepest nesting of arrays and objects. A deeper body is an error, because it is
// surely a mistake, and databases refuse it, too.
const MaxDepth = 512

// SyntaxError describes why a body is not JSON.
type SyntaxError struct {
	Offset int // position of the wrong byte
	Reason string
}

// Error returns the position and the reason.
func (e *SyntaxError) Error() string {
	return fmt.Sprintf("the body is not JSON: at byte %d: %s", e.Offset, e.Reason)
}

// scanner scans one body. Its methods return false after they called fail. b[i] is the next byte.
type scanner struct {
	b      []byte
	i      int
	depth  int
	out    []Value
	failed int
	reason string
	key    [64]byte // buffer for an unescaped name; longer names allocate
}

func (s *scanner) fail(at int, reason string) bool {
	s.failed, s.reason = at, reason
	return false
}

func (s *scanner) error() error { return &SyntaxError{s.failed, s.reason} }

func (s *scanner) space() {
	for s.i < len(s.b) {
		if c := s.b[s.i]; c != ' ' && c != '\n' && c != '\r' && c != '\t' {
			return
		}
		s.i++
	}
}

// value reads one value. n is the value's node in the tree of paths, or nil if no path leads to the
// value.
func (s *scanner) value(n *node) bool {
	if s.i == len(s.b) {
		return s.fail(s.i, "it ends where a value is expected")
	}
	start := s.i
	v := Value{}
	ok := true
	switch c := s.b[s.i]; {
	case c == '"':
		v.Kind = String
		v.plain, ok = s.str()
	case c == '{':
		v.Kind = Object
		ok = s.enter() && s.object(n)
		s.depth--
	case c == '[':
		v.Kind = Array
		ok = s.enter() && s.array(n)
		s.depth--
	case c == '-' || c >= '0' && c <= '9':
		v.Kind = Number
		ok = s.number()
	case c == 't':
		v.Kind = True
		ok = s.word("true")
	case c == 'f':
		v.Kind = False
		ok = s.word("false")
	case c == 'n':
		v.Kind = Null
		ok = s.word("null")
	default:
		ok = s.fail(s.i, "a value is expected")
	}
	if !ok {
		return false
	}
	if n != nil {
		v.Raw = s.b[start:s.i:s.i]
		for _, p := range n.paths {
			s.out[p] = v
		}
	}
	return true
}

// enter is called at the start of an object or array. At its end the caller decreases depth.
func (s *scanner) enter() bool {
	s.depth++
	s.i++
	if s.depth > MaxDepth {
		return s.fail(s.i-1, tooDeep)
	}
	return true
}

var tooDeep = fmt.Sprintf("it nests deeper than %d levels", MaxDepth)

func (s *scanner) word(w string) bool {
	if len(s.b)-s.i < len(w) || string(s.b[s.i:s.i+len(w)]) != w {
		return s.fail(s.i, "a value is expected")
	}
	s.i += len(w)
	return true
}

// object reads an object after "{".
func (s *scanner) object(n *node) bool {
	s.space()
	if s.i < len(s.b) && s.b[s.i] == '}' {
		s.i++
		return true
	}
	for {
		s.space()
		if s.i == len(s.b) || s.b[s.i] != '"' {
			return s.fail(s.i, "a field name in quotes is expected")
		}
		start := s.i + 1
		plain, ok := s.str()
		if !ok {
			return false
		}
		var child *node
		if n != nil && len(n.names) > 0 {
			child = s.child(n, s.b[start:s.i-1], plain)
		}
		s.space()
		if s.i == len(s.b) || s.b[s.i] != ':' {
			return s.fail(s.i, "a colon is expected after a field name")
		}
		s.i++
		s.space()
		if !s.value(child) {
			return false
		}
		s.space()
		if s.i == len(s.b) {
			return s.fail(s.i, "it ends inside an object")
		}
		c := s.b[s.i]
		if c != ',' && c != '}' {
			return s.fail(s.i, "a comma or } is expected")
		}
		s.i++
		if c == '}' {
			return true
		}
	}
}

// child returns the node for a field, or nil if no path leads through the field. If an earlier
// field had the same name, child deletes the values found in it.
func (s *scanner) child(n *node, name []byte, plain bool) *node {
	if !plain {
		var ok bool
		if name, ok = unescape(s.key[:0], name); !ok {
			return nil
		}
	}
	child := n.field(name)
	if child != nil {
		for _, p := range child.below {
			s.out[p] = Value{}
		}
	}
	return child
}

// array reads an array after "[".
func (s *scanner) array(n *node) bool {
	s.space()
	if s.i < len(s.b) && s.b[s.i] == ']' {
		s.i++
		return true
	}
	for index := 0; ; index++ {
		var child *node
		if n != nil && len(n.elems) > 0 {
			child = n.elem(index)
		}
		s.space()
		if !s.value(child) {
			return false
		}
		s.space()
		if s.i == len(s.b) {
			return s.fail(s.i, "it ends inside an array")
		}
		c := s.b[s.i]
		if c != ',' && c != ']' {
			return s.fail(s.i, "a comma or ] is expected")
		}
		s.i++
		if c == ']' {
			return true
		}
	}
}

// number reads a number (RFC 8259 section 6).
func (s *scanner) number() bool {
	if s.b[s.i] == '-' {
		s.i++
	}
	switch {
	case s.i < len(s.b) && s.b[s.i] == '0':
		s.i++
	case !s.digits():
		return false
	}
	if s.i < len(s.b) && s.b[s.i] == '.' {
		s.i++
		if !s.digits() {
			return false
		}
	}
	if s.i < len(s.b) && s.b[s.i]|0x20 == 'e' {
		s.i++
		if s.i < len(s.b) && (s.b[s.i] == '+' || s.b[s.i] == '-') {
			s.i++
		}
		return s.digits()
	}
	return true
}

func (s *scanner) digits() bool {
	start := s.i
	for s.i < len(s.b) && s.b[s.i]-'0' <= 9 {
		s.i++
	}
	if s.i == start {
		return s.fail(s.i, "a digit is expected")
	}
	return true
}

// str reads a string with its quotes. plain means that it has no escapes.
func (s *scanner) str() (plain, ok bool) {
	s.i++
	plain = true
	for {
		s.i += ordinary(s.b[s.i:])
		if s.i >= len(s.b) {
			return false, s.fail(len(s.b), "it ends inside a string")
		}
		switch c := s.b[s.i]; {
		case c == '"':
			s.i++
			return plain, true
		case c == '\\':
			plain = false
			if !s.escape() {
				return false, false
			}
		case c < 0x20:
			return false, s.fail(s.i, "a control character in a string must be escaped")
		case c < utf8.RuneSelf:
			s.i++
		default:
			r, size := utf8.DecodeRune(s.b[s.i:])
			if r == utf8.RuneError && size == 1 {
				return false, s.fail(s.i, "the string is not UTF-8")
			}
			s.i += size
		}
	}
}

// ordinary counts the leading bytes that need no check: printable ASCII except the quote and the
// backslash. It tests eight bytes at a time. A borrow in the subtraction can set wrong flags only
// above the first right flag, so the lowest flag is used.
func ordinary(b []byte) int {
	const ones, highs = 0x0101010101010101, 0x8080808080808080
	i := 0
	for ; len(b)-i >= 8; i += 8 {
		w := binary.LittleEndian.Uint64(b[i:])
		q := w ^ ones*'"'
		e := w ^ ones*'\\'
		flags := ((q-ones)&^q | (e-ones)&^e | (w-ones*0x20)&^w | w) & highs
		if flags != 0 {
			return i + bits.TrailingZeros64(flags)/8
		}
	}
	for ; i < len(b); i++ {
		if c := b[i]; c == '"' || c == '\\' || c < 0x20 || c >= utf8.RuneSelf {
			break
		}
	}
	return i
}

func (s *scanner) escape() bool {
	if s.i+1 >= len(s.b) {
		return s.fail(len(s.b), "it ends inside a string")
	}
	switch s.b[s.i+1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		s.i += 2
		return true
	case 'u':
		if len(s.b)-s.i < 6 {
			return s.fail(len(s.b), "it ends inside a string")
		}
		for _, c := range s.b[s.i+2 : s.i+6] {
			if hexDigit[c] == notHex {
				return s.fail(s.i, `\u must be followed by four hexadecimal digits`)
			}
		}
		s.i += 6
		return true
	}
	return s.fail(s.i, "this escape is not one of JSON's")
}
