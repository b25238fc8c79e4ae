package jsonpath

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Limits of a path.
const (
	MaxPathLen   = 1024 // bytes of a path
	MaxPathSteps = 64   // names and indexes in a path
	maxIndex     = 1<<31 - 1
)

// Path is a parsed path. The zero Path finds no value. Create a Path with Parse. Many goroutines
// may use one Path.
type Path struct {
	expr  string
	steps []step
	set   *Set // contains this path only
}

// step is one field name, or one array index.
type step struct {
	name    string
	index   int
	isIndex bool
}

// PathError describes a mistake in a path.
type PathError struct {
	Expr   string // the path, cut after MaxPathLen bytes
	Offset int    // position of the wrong byte
	Reason string // the mistake at Offset, and what to write instead
}

// Error returns the path, the position and the reason in one sentence.
func (e *PathError) Error() string {
	return fmt.Sprintf("%.80q is not a JSON path: at byte %d: %s", e.Expr, e.Offset, e.Reason)
}

// Parse parses a path. The error is a *PathError.
func Parse(expr string) (Path, error) {
	p := parser{expr: expr}
	if err := p.parse(); err != nil {
		return Path{}, err
	}
	path := Path{expr: expr, steps: p.steps}
	path.set = NewSet(path)
	return path, nil
}

// Expr returns the text that was parsed.
func (p Path) Expr() string { return p.expr }

// String returns the scalar at the path as text: a string's characters, a number as it is written,
// "true" or "false". It returns false if the body is not JSON, or if the path finds nothing, null,
// an object or an array. It also returns false for a string without a UTF-8 form (half a surrogate
// pair).
func (p Path) String(body []byte) (string, bool) {
	if p.set == nil {
		return "", false
	}
	var out [1]Value
	if err := p.set.Scan(body, out[:]); err != nil || !out[0].Kind.Scalar() {
		return "", false
	}
	return out[0].Text()
}

// Identity returns the scalar at the path as text that identifies it. Equal numbers have the same
// text in all spellings (CanonicalNumber). For a string without a UTF-8 form, it returns the bytes
// as they are written. In the other cases in which String returns false, Identity does, too.
func (p Path) Identity(body []byte) (string, bool) {
	if p.set == nil {
		return "", false
	}
	var out [1]Value
	if err := p.set.Scan(body, out[:]); err != nil || !out[0].Kind.Scalar() {
		return "", false
	}
	v := out[0]
	if v.Kind == Number {
		return CanonicalNumber(string(v.Raw)), true
	}
	if text, ok := v.Text(); ok {
		return text, true
	}
	return string(v.Raw), true
}

type parser struct {
	expr  string
	at    int
	steps []step
}

func (p *parser) fail(reason string, args ...any) error {
	return &PathError{Expr: p.expr[:min(len(p.expr), MaxPathLen)], Offset: p.at, Reason: fmt.Sprintf(reason, args...)}
}

func (p *parser) parse() error {
	switch {
	case len(p.expr) > MaxPathLen:
		p.at = MaxPathLen
		return p.fail("it is longer than %d bytes", MaxPathLen)
	case !utf8.ValidString(p.expr):
		return p.fail("it is not UTF-8")
	case p.expr == "" || p.expr[0] != '$':
		return p.fail("a path begins with $, as in $.customer.id")
	}
	for p.at = 1; p.at < len(p.expr); {
		if len(p.steps) == MaxPathSteps {
			return p.fail("it has more than %d steps", MaxPathSteps)
		}
		var err error
		switch p.expr[p.at] {
		case '.':
			err = p.dotted()
		case '[':
			err = p.bracketed()
		default:
			err = p.fail("expected . or [ but found %q", p.rune())
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (p *parser) rune() rune {
	r, _ := utf8.DecodeRuneInString(p.expr[p.at:])
	return r
}

// dotted reads ".name". A name ends at the next . or [.
func (p *parser) dotted() error {
	p.at++
	start := p.at
	for p.at < len(p.expr) && p.expr[p.at] != '.' && p.expr[p.at] != '[' {
		switch c := p.expr[p.at]; {
		case c == '*':
			return p.fail("* would give many values; name one field")
		case c <= ' ' || c == 0x7f || strings.IndexByte(`"'\]()?@,:`, c) >= 0:
			return p.fail(`%q cannot stand in a plain name; write ["name"] instead`, rune(c))
		}
		p.at++
	}
	if p.at == start {
		if p.at < len(p.expr) && p.expr[p.at] == '.' {
			return p.fail(".. would give many values; name every field on the way")
		}
		return p.fail("a field name must follow the dot")
	}
	p.steps = append(p.steps, step{name: p.expr[start:p.at]})
	return nil
}

// bracketed reads [7], ["name"] or ['name']. Inside quotes, a backslash quotes the next character.
func (p *parser) bracketed() error {
	p.at++
	if p.at == len(p.expr) {
		return p.fail("the bracket is not closed")
	}
	switch c := p.expr[p.at]; {
	case c == '"' || c == '\'':
		name, err := p.quoted(c)
		if err != nil {
			return err
		}
		p.steps = append(p.steps, step{name: name})
	case c >= '0' && c <= '9':
		start := p.at
		for p.at < len(p.expr) && p.expr[p.at] >= '0' && p.expr[p.at] <= '9' {
			p.at++
		}
		digits := p.expr[start:p.at]
		n, err := strconv.Atoi(digits)
		if err != nil || n > maxIndex || len(digits) > 1 && digits[0] == '0' {
			p.at = start
			return p.fail("%.20q is not an index; write 0, 1, 2 … at most %d", digits, maxIndex)
		}
		p.steps = append(p.steps, step{index: n, isIndex: true})
	case c == '*':
		return p.fail("[*] would give many values; name one element, as in [0]")
	case c == '-':
		return p.fail("elements are counted from the front; a negative index is not supported")
	default:
		return p.fail(`expected an index as in [0] or a name as in ["name"]`)
	}
	if p.at == len(p.expr) || p.expr[p.at] != ']' {
		return p.fail("expected ]; slices, lists and filters are not supported")
	}
	p.at++
	return nil
}

func (p *parser) quoted(quote byte) (string, error) {
	open := p.at
	p.at++
	var b strings.Builder
	for p.at < len(p.expr) {
		c := p.expr[p.at]
		p.at++
		switch {
		case c == quote:
			return b.String(), nil
		case c == '\\' && p.at < len(p.expr):
			b.WriteByte(p.expr[p.at])
			p.at++
		default:
			b.WriteByte(c)
		}
	}
	p.at = open
	return "", p.fail("the quoted name is not closed")
}
