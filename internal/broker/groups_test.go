package broker

import (
	"strings"
	"testing"

	"github.com/surgetank/surgetank"
)

// TestIdentityFoundByRules: equal values lead to the same group or id, and different values to
// different ones. Every value leads to a group or id.
func TestIdentityFoundByRules(t *testing.T) {
	var g groupers
	g.set("path", "$.id")
	g.set("header", "header:Id")
	find := func(queue, v string) string {
		p := &surgetank.Publishing{Queues: []string{queue}, Message: surgetank.Message{Body: []byte(`{"id":` + v + `}`),
			Headers: []surgetank.Header{{Name: "id", Value: v}}}}
		id, _ := g.id(p)
		if group := g.find(p)[0]; group != id {
			t.Errorf("%s: the group %q and the id %q differ", v, group, id)
		}
		if id != "" && surgetank.ValidateName("group", id) != nil {
			t.Errorf("%s gives %q, which cannot be stored", v, id)
		}
		return id
	}
	same := [][]string{{"1", "1.0", "1e0", `"1"`}, {"-2.50", "-25e-1"}, {`"1.0"`}, {"true", `"true"`}, {`"\ud800"`}, {`"\ud801"`},
		{`"a\tb"`, `"a\u0009b"`}, {`"a\u0000"`}, {`"` + strings.Repeat("x", 255) + `"`}, {`"` + strings.Repeat("x", 256) + `"`}, {`"` + strings.Repeat("x", 257) + `"`}}
	known := map[string]string{}
	for _, values := range same {
		for _, v := range values {
			id := find("path", v)
			if id == "" || id != find("path", values[0]) {
				t.Errorf("%.40s gives %q, %.40s gives %q", v, id, values[0], find("path", values[0]))
			}
			if first, ok := known[id]; ok && first != values[0] {
				t.Errorf("%.40s and %.40s are one id", v, first)
			}
			known[id] = values[0]
		}
	}
	for _, v := range []string{"null", "[1]", "{}", `""`} {
		if id := find("path", v); id != "" {
			t.Errorf("%s gives %q, want nothing", v, id)
		}
	}
	a, b := find("header", "caf\xe9"), find("header", "caf\xea")
	if a == "" || a == b {
		t.Errorf("headers that are not UTF-8 give %q and %q", a, b)
	}
}
