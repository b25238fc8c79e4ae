package settings_test

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/settings"
)

// The rules of retry.by_reason are read and written with the keys of retry. An error names the
// wrong key.
func TestRulesByReason(t *testing.T) {
	tree := func(rules map[string]any) map[string]any {
		return map[string]any{"retry": map[string]any{"by_reason": rules}}
	}
	c, err := settings.Decode(tree(map[string]any{
		"deadlock": map[string]any{"initial": "0s", "factor": 1.5, "max": "5s", "jitter": 0, "max_attempts": "unlimited"},
		"HTTP 4":   map[string]any{"max_attempts": 1},
		"same":     map[string]any{},
	}))
	want := map[string]surgetank.RetryRule{
		"deadlock": {Initial: surgetank.NoDelay, Factor: 1.5, Max: 5 * time.Second, Jitter: surgetank.NoJitter, MaxAttempts: surgetank.Unlimited},
		"HTTP 4":   {MaxAttempts: 1}, "same": {},
	}
	if err != nil || !reflect.DeepEqual(c.Retry.ByReason, want) {
		t.Fatalf("%+v, %v", c.Retry.ByReason, err)
	}
	if again, err := settings.Decode(settings.Encode(c)); err != nil || !settings.Equal(c, again) {
		t.Errorf("written and read: %+v, %v", again.Retry.ByReason, err)
	}
	many := map[string]any{}
	for i := range surgetank.MaxReasons + 1 {
		many[strings.Repeat("x", i+1)] = map[string]any{}
	}
	for text, rules := range map[string]map[string]any{
		"max_attempts": {"a": map[string]any{"max_attempts": 0}}, "no key": {"a": map[string]any{"budget": 1}}, "only in case": {"a": map[string]any{}, "A": map[string]any{}},
		"at most 32": many, "want a rule": {"a": 5}, "empty": {"": map[string]any{}}, "initial": {"a": map[string]any{"initial": "soon"}}, "has no value": {"a": map[string]any{"max": nil}},
	} {
		_, err := settings.Decode(tree(rules))
		if surgetank.CodeOf(err) != surgetank.CodeInvalid || !strings.Contains(err.Error(), text) || !strings.Contains(err.Error(), "retry.by_reason") {
			t.Errorf("%v: %v, want a sentence with %q", rules, err, text)
		}
	}
	patch := map[string]any{"retry": map[string]any{"by_reason": map[string]any{"deadlock": map[string]any{"initial": "1s"}}}}
	settings.ForgetNames(patch, c)
	rules := patch["retry"].(map[string]any)["by_reason"].(map[string]any)
	if v, has := rules["same"]; !has || v != nil || rules["deadlock"].(map[string]any)["max"] != nil || len(rules["deadlock"].(map[string]any)) != 5 {
		t.Errorf("the rules and members that the file lacks stay: %v", rules)
	}
}
