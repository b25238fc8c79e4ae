package settings

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/surgetank/surgetank"
)

// ruleKeys are the keys of a rule in retry.by_reason. They have the meaning of the same keys of
// retry, and the same entries of Table check their values.
var ruleKeys = []string{"max_attempts", "initial", "factor", "max", "jitter"}

// IsRuleKey reports whether key is one of the keys of a rule in retry.by_reason.
func IsRuleKey(key string) bool { return slices.Contains(ruleKeys, key) }

// reasonRules is the type of retry.by_reason.
type reasonRules = map[string]surgetank.RetryRule

// byReason returns the accessors of a map from reasons to rules. A policy replaces the whole map.
func byReason(at func(*config) *reasonRules) place {
	return place{
		at:   func(c *config) any { return at(c) },
		copy: func(onto, from *config) { *at(onto) = maps.Clone(*at(from)) },
		same: func(a, b *config) bool { return maps.Equal(*at(a), *at(b)) },
	}
}

// ofRule returns queue settings whose Retry has the values of a rule.
func ofRule(r surgetank.RetryRule) *config {
	return &config{Retry: surgetank.RetryConfig{MaxAttempts: r.MaxAttempts, Initial: r.Initial, Factor: r.Factor, Max: r.Max, Jitter: r.Jitter}}
}

// ruleOf reverses ofRule.
func ruleOf(c *config) surgetank.RetryRule {
	r := &c.Retry
	return surgetank.RetryRule{MaxAttempts: r.MaxAttempts, Initial: r.Initial, Factor: r.Factor, Max: r.Max, Jitter: r.Jitter}
}

// readRules decodes a map from reasons to rules. An empty map is the same as no map.
func readRules(into *reasonRules, v any) error {
	tree, ok := v.(map[string]any)
	if !ok {
		return fmt.Errorf("want a map of reasons to rules, not %s", shownAs(v))
	}
	rules := make(reasonRules, len(tree))
	for _, reason := range slices.Sorted(maps.Keys(tree)) {
		members, ok := tree[reason].(map[string]any)
		if !ok {
			return fmt.Errorf("%.60q: want a rule with %s, not %s", reason, strings.Join(ruleKeys, ", "), shownAs(tree[reason]))
		}
		c := &config{}
		for _, key := range slices.Sorted(maps.Keys(members)) {
			if !IsRuleKey(key) {
				return fmt.Errorf("%.60q: there is no key %.60q; the keys are %s", reason, key, strings.Join(ruleKeys, ", "))
			}
			if members[key] == nil {
				return fmt.Errorf("%.60q: %s has no value; leave the key out for the value of retry.%[2]s", reason, key)
			}
			if err := Find("retry."+key).set(c, members[key]); err != nil {
				return fmt.Errorf("%.60q: %s: %w", reason, key, err)
			}
		}
		rules[reason] = ruleOf(c)
	}
	if err := checkRules(rules); err != nil {
		return err
	}
	if *into = rules; len(rules) == 0 {
		*into = nil
	}
	return nil
}

// checkRules checks a map from reasons to rules.
func checkRules(rules reasonRules) error {
	if len(rules) > surgetank.MaxReasons {
		return fmt.Errorf("it has %d reasons; at most %d are allowed. Use shorter beginnings of reasons", len(rules), surgetank.MaxReasons)
	}
	seen := map[string]string{}
	for _, reason := range slices.Sorted(maps.Keys(rules)) {
		if err := surgetank.ValidateName("reason", reason); err != nil {
			return sentence(err)
		}
		lower := strings.ToLower(reason)
		if other, twice := seen[lower]; twice {
			return fmt.Errorf("%.60q and %.60q differ only in case, which does not count; leave one out", other, reason)
		}
		seen[lower] = reason
		c := ofRule(rules[reason])
		for _, key := range ruleKeys {
			s := Find("retry." + key)
			if err := s.check(s.at(c)); err != nil {
				return fmt.Errorf("%.60q: %s: %w", reason, key, err)
			}
		}
	}
	return nil
}

// writeRules returns the tree of a map from reasons to rules.
func writeRules(rules reasonRules) map[string]any {
	tree := make(map[string]any, len(rules))
	for reason, rule := range rules {
		members := map[string]any{}
		for _, key := range ruleKeys {
			if v := Find("retry." + key).get(ofRule(rule)); v != nil {
				members[key] = v
			}
		}
		tree[reason] = members
	}
	return tree
}

// rulesSchema is the JSON Schema of a map from reasons to rules.
func rulesSchema() map[string]any {
	members := map[string]any{}
	for _, key := range ruleKeys {
		s := Find("retry." + key)
		members[key] = s.schema()
	}
	rule := map[string]any{"type": "object", "properties": members, "additionalProperties": false}
	return map[string]any{"type": "object", "additionalProperties": rule, "maxProperties": surgetank.MaxReasons}
}

// forgetRules sets to null, in a merge patch, each rule and each member of a rule that is in rules
// but not in the patch.
func forgetRules(patch map[string]any, rules reasonRules) {
	for reason := range rules {
		given, stays := patch[reason]
		if !stays {
			patch[reason] = nil
			continue
		}
		if members, ok := given.(map[string]any); ok {
			for _, key := range ruleKeys {
				if _, stays := members[key]; !stays {
					members[key] = nil
				}
			}
		}
	}
}
