package topology

import (
	"strings"

	"github.com/surgetank/surgetank/internal/amqp/translate"
	"github.com/surgetank/surgetank/internal/amqp/wire"
)

// headersMatch is how a binding of a headers exchange is asked.
type headersMatch struct {
	any    bool // one field is enough
	withX  bool // fields that start with "x-" count too
	fields wire.Table
}

// parseHeadersMatch reads a binding's arguments.
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

// matches tells whether a message's headers satisfy the binding. A void value asks only for
// presence.
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
