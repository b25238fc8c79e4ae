package policy

import (
	"maps"
	"slices"
	"strings"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/fullname"
	"github.com/surgetank/surgetank/internal/settings"
)

// FromTree reads a policy from a configuration file: a map with the keys pattern and settings, and
// optionally vhost, apply_to and priority. It checks the whole policy. Errors are CodeInvalid and
// have the key's path as Field.
func FromTree(name string, tree map[string]any) (Policy, error) {
	p := Policy{Name: name, Vhost: fullname.DefaultVhost}
	for _, key := range slices.Sorted(maps.Keys(tree)) {
		v, ok := tree[key], true
		switch key {
		case "vhost":
			p.Vhost, ok = v.(string)
		case "pattern":
			p.Pattern, ok = v.(string)
		case "apply_to":
			var s string
			s, ok = v.(string)
			p.ApplyTo = Target(s)
		case "priority":
			var n int64
			if n, ok = whole(v); ok && (n < -MaxPriority || n > MaxPriority) {
				ok = false
			}
			p.Priority = int(n)
		case "settings":
			p.Settings, ok = v.(map[string]any)
		default:
			return p, surgetank.FieldErrorf(key, "%.60s: a policy has no such key; known here: vhost, pattern, apply_to, priority, settings", key)
		}
		if !ok {
			return p, surgetank.FieldErrorf(key, "%s: want %s", key, map[string]string{"vhost": "text", "pattern": "text", "apply_to": "text",
				"priority": "a whole number", "settings": "a map of settings"}[key])
		}
	}
	c, err := compile(p)
	if err != nil {
		return p, err
	}
	return c.Policy, nil
}

// Same reports whether two policies are equal. Numbers are compared by value, whatever decoder made
// them.
func Same(a, b Policy) bool {
	x, err1 := compile(a)
	y, err2 := compile(b)
	return err1 == nil && err2 == nil && x.Vhost == y.Vhost && x.Name == y.Name && x.Policy.Pattern == y.Policy.Pattern && x.ApplyTo == y.ApplyTo &&
		x.Priority == y.Priority && settings.Equal(x.rules.config, y.rules.config) && maps.Equal(x.rules.given, y.rules.given) && x.rules.door == y.rules.door &&
		strings.Join(slices.Sorted(maps.Keys(a.Settings)), ",") == strings.Join(slices.Sorted(maps.Keys(b.Settings)), ",")
}
