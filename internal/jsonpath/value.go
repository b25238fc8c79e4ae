package jsonpath

import (
	"unicode/utf16"
	"unicode/utf8"
)

// Kind is the kind of the JSON value at a path.
type Kind uint8

const (
	Missing Kind = iota // there is no value
	Null
	False
	True
	Number
	String
	Array
	Object
)

// Scalar reports whether a value of this kind is a scalar: a string, number or boolean.
func (k Kind) Scalar() bool { return k >= False && k <= String }

// String returns the name of the kind for error messages.
func (k Kind) String() string {
	return [...]string{"missing", "null", "a boolean", "a boolean", "a number", "a string", "an array", "an object"}[k&7]
}

// Value is one JSON value in a body.
type Value struct {
	Raw  []byte // the value as written (a string with its quotes), in the body's memory
	Kind Kind
	// plain means a string without escapes. Its text is Raw without the quotes.
	plain bool
}

// Text returns a string's characters, and any other value as it is written. It returns false for a
// missing value, and for a string without a UTF-8 form, because an escape is half of a surrogate
// pair.
func (v Value) Text() (string, bool) {
	if v.plain {
		return string(v.Raw[1 : len(v.Raw)-1]), true
	}
	b, ok := v.AppendText(nil)
	return string(b), ok
}

// AppendText appends the result of Text to dst.
func (v Value) AppendText(dst []byte) ([]byte, bool) {
	switch {
	case v.Kind == Missing:
		return dst, false
	case v.Kind != String:
		return append(dst, v.Raw...), true
	case v.plain:
		return append(dst, v.Raw[1:len(v.Raw)-1]...), true
	}
	return unescape(dst, v.Raw[1:len(v.Raw)-1])
}

// unescape appends the characters of a string that the scanner has accepted.
func unescape(dst, s []byte) ([]byte, bool) {
	for i := 0; i < len(s); {
		c := s[i]
		if c != '\\' {
			dst = append(dst, c)
			i++
			continue
		}
		c = s[i+1]
		i += 2
		switch c {
		case 'b':
			c = '\b'
		case 'f':
			c = '\f'
		case 'n':
			c = '\n'
		case 'r':
			c = '\r'
		case 't':
			c = '\t'
		case 'u':
			r := hex4(s[i:])
			i += 4
			if utf16.IsSurrogate(r) {
				if i+6 > len(s) || s[i] != '\\' || s[i+1] != 'u' {
					return dst, false
				}
				r = utf16.DecodeRune(r, hex4(s[i+2:]))
				if r == utf8.RuneError {
					return dst, false
				}
				i += 6
			}
			dst = utf8.AppendRune(dst, r)
			continue
		}
		dst = append(dst, c) // the byte that the escape means; \" \\ and \/ mean themselves
	}
	return dst, true
}

func hex4(s []byte) rune {
	var r rune
	for _, c := range s[:4] {
		r = r<<4 | rune(hexDigit[c])
	}
	return r
}

// hexDigit contains the value of each hexadecimal digit, and notHex for every other byte.
var hexDigit = func() (t [256]byte) {
	for i := range t {
		switch c := byte(i); {
		case c >= '0' && c <= '9':
			t[i] = c - '0'
		case c >= 'a' && c <= 'f':
			t[i] = c - 'a' + 10
		case c >= 'A' && c <= 'F':
			t[i] = c - 'A' + 10
		default:
			t[i] = notHex
		}
	}
	return t
}()

const notHex = 0xff
