package topology

import (
	"strings"

	"github.com/surgetank/surgetank/internal/amqp/translate"
	"github.com/surgetank/surgetank/internal/amqp/wire"
)

// headersMatch says how a binding of a headers exchange compares headers.
type headersMatch struct {
	any    bool // one equal field is enough
	withX  bool // fields that begin with "x-" count too
	fields wire.Table
}

// parseHeadersMatch parses a binding's arguments.
func parseHeadersMatch(args wire.Table) (m headersMatch, err error) {
	m.fields = args
	v, ok := args.Get("x-match")
	if !ok {
		return m, nil
	}
	s, ok := v.Str()
	if !ok {
		return m, wire.Errorf(wire.CodePreconditionFailed, "Invalid x-match field type %s (value %s); expected longstr",
			v.TypeName(), translate.ShowValue(v))
	}
	switch string(s) {
	case "all":
	case "any":
		m.any = true
	case "all-with-x":
		m.withX = true
	case "any-with-x":
		m.any, m.withX = true, true
	default:
		return m, wire.Errorf(wire.CodePreconditionFailed,
			"Invalid x-match field value <<\"%s\">>; expected all, any, all-with-x, or any-with-x", s)
	}
	return m, nil
}

// matches reports whether a message's headers match the binding. A void value matches any value
// that is present.
func (m headersMatch) matches(headers wire.Table) bool {
	for name, want := range m.fields.All() {
		if string(name) == "x-match" || !m.withX && strings.HasPrefix(string(name), "x-") {
			continue
		}
		got, ok := headers.Get(string(name))
		if ok && want.Tag != 'V' {
			ok = want.Equal(got)
		}
		if ok == m.any {
			return m.any
		}
	}
	return !m.any
}
