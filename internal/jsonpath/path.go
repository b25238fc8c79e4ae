package jsonpath

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Limits of a path.
const (
	MaxPathLen   = 1024 // bytes of an expression
	MaxPathSteps = 64   // names and indexes in it
	maxIndex     = 1<<31 - 1
)

// Path is a parsed expression. The zero Path finds nothing; make one with Parse. It is safe for use
// by many goroutines.
type Path struct {
	expr  string
	steps []step
	set   *Set // of this path alone
}

// step is one field name, or one array index.
type step struct {
	name    string
	index   int
	isIndex bool
}

// PathError says what is wrong with an expression, and where.
type PathError struct {
	Expr   string // as it was given; cut after MaxPathLen bytes
	Offset int    // of the byte at fault
	Reason string // what is wrong there and what to write instead
}

// Error gives the expression, the place and the reason in one sentence.
func (e *PathError) Error() string {
	return fmt.Sprintf("%.80q is not a JSON path: at byte %d: %s", e.Expr, e.Offset, e.Reason)
}

// Parse reads an expression. The error is a *PathError.
func Parse(expr string) (Path, error) {
	p := parser{expr: expr}
	if err := p.parse(); err != nil {
		return Path{}, err
	}
	path := Path{expr: expr, steps: p.steps}
	path.set = NewSet(path)
	return path, nil
}

// Expr gives the expression that was parsed.
func (p Path) Expr() string { return p.expr }

// String gives the scalar at the path as text: a string's characters, a number as it is written,
// "true" or "false". It is false for a body that is not JSON, a path that leads nowhere, null, an
// object, an array, and a string that has no UTF-8 form (half a surrogate pair).
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

// Identity gives the scalar at the path as text that identifies it. Equal numbers give equal texts
// however they are written (CanonicalNumber). A string that has no UTF-8 form gives the bytes as
// they are written. It is false where String finds nothing for another reason.
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

// dotted reads ".name"; a name ends at the next . or [.
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

// bracketed reads [7], ["name"] or ['name']. Inside quotes a backslash takes the next character as
// it is.
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
