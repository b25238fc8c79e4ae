package settings

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/surgetank/surgetank"
)

// ByName reports whether the setting is a map from names to numbers, or from reasons to rules.
func (s *Setting) ByName() bool {
	var c config
	switch s.at(&c).(type) {
	case *map[string]int, *reasonRules:
		return true
	}
	return false
}

// readNames decodes a map from names to numbers. An empty map is the same as no map.
func (s *Setting) readNames(into *map[string]int, v any) error {
	tree, ok := v.(map[string]any)
	if !ok {
		return fmt.Errorf("want a map of names to numbers, not %s", shownAs(v))
	}
	if len(tree) == 0 {
		*into = nil
		return nil
	}
	names := make(map[string]int, len(tree))
	for _, name := range slices.Sorted(maps.Keys(tree)) {
		n, err := wholeNumber(tree[name])
		if err != nil {
			return fmt.Errorf("%.60q: %w", name, err)
		}
		names[name] = int(n)
	}
	if err := s.checkNames(names); err != nil {
		return err
	}
	*into = names
	return nil
}

// checkNames checks a map of groups to numbers.
func (s *Setting) checkNames(names map[string]int) error {
	if len(names) > surgetank.MaxWeights {
		return fmt.Errorf("it has %d names; at most %d are allowed. Give the others one number with the name %q", len(names), surgetank.MaxWeights, surgetank.OtherGroups)
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		if err := surgetank.ValidateName("group", name); err != nil {
			return sentence(err)
		}
		if n := names[name]; float64(n) < s.Min || float64(n) > s.Max {
			return fmt.Errorf("%.60q: want a whole number between %v and %v, not %d", name, s.Min, s.Max, n)
		}
	}
	return nil
}

// writeNames returns the tree of a map.
func writeNames(names map[string]int) map[string]any {
	tree := make(map[string]any, len(names))
	for name, n := range names {
		tree[name] = n
	}
	return tree
}

// ForgetNames changes a merge patch so that its maps replace the maps of now: each name that only
// now has becomes null in the patch. Maps that the patch does not contain stay unchanged.
func ForgetNames(patch map[string]any, now surgetank.QueueConfig) {
	for i := range Table {
		s := &Table[i]
		section, key, _ := strings.Cut(s.Path, ".")
		if rules, is := s.at(&now).(*reasonRules); is {
			inner, _ := patch[section].(map[string]any)
			if given, ok := inner[key].(map[string]any); ok {
				forgetRules(given, *rules)
			}
		}
		had, is := s.at(&now).(*map[string]int)
		if !is {
			continue
		}
		inner, _ := patch[section].(map[string]any)
		names, _ := inner[key].(map[string]any)
		for name := range *had {
			if _, stays := names[name]; names != nil && !stays {
				names[name] = nil
			}
		}
	}
}

// CutName splits the path of one name in a map, "group.weights.acme", into the setting's path and
// the name. The name is "" if the path is not of this form. A name can contain dots.
func CutName(path string) (setting, name string) {
	for i := range Table {
		if s := &Table[i]; s.ByName() {
			if name, below := strings.CutPrefix(path, s.Path+"."); below {
				return s.Path, name
			}
		}
	}
	return path, ""
}

// plain returns c with nil in place of empty maps.
func plain(c config) config {
	for i := range Table {
		if names, is := Table[i].at(&c).(*map[string]int); is && len(*names) == 0 {
			*names = nil
		}
	}
	if len(c.Retry.ByReason) == 0 {
		c.Retry.ByReason = nil
	}
	return c
}
