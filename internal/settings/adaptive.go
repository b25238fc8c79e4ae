package settings

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/surgetank/surgetank"
)

// The written form of level.adaptive is true or false, or a map of bounds. An empty map means true.

// Bounds of level.adaptive. They equal the bounds of package adapt, so that clients need not link
// that package.
const (
	AdaptiveMax          = 65535
	AdaptiveToleranceMin = 1.2
	AdaptiveToleranceMax = 10
)

func readAdaptive(into *surgetank.AdaptiveConfig, v any) error {
	if on, is := v.(bool); is {
		*into = surgetank.AdaptiveConfig{On: on}
		return nil
	}
	tree, is := v.(map[string]any)
	if !is {
		return fmt.Errorf("want true, false or a map of min, max and tolerance, not %s", shownAs(v))
	}
	c := surgetank.AdaptiveConfig{On: true}
	for _, key := range slices.Sorted(maps.Keys(tree)) {
		var err error
		var n int64
		switch key {
		case "min":
			n, err = wholeNumber(tree[key])
			c.Min = int(n)
		case "max":
			n, err = wholeNumber(tree[key])
			c.Max = int(n)
		case "tolerance":
			c.Tolerance, err = number(tree[key])
		default:
			return fmt.Errorf("%.60q is not one of its keys; known keys are min, max, tolerance", key)
		}
		if err == nil && (key != "tolerance" && n == 0 || key == "tolerance" && c.Tolerance == 0) {
			err = errors.New("it must not be 0; leave the key out for the default")
		}
		if err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
	}
	if err := checkAdaptive(&c); err != nil {
		return err
	}
	*into = c
	return nil
}

func checkAdaptive(c *surgetank.AdaptiveConfig) error {
	if !c.On {
		if *c != (surgetank.AdaptiveConfig{}) {
			return errors.New("it has bounds and is off; set On, too")
		}
		return nil
	}
	least := max(1, c.Min)
	switch most := c.Max; {
	case c.Min < 0 || c.Min > AdaptiveMax:
		return fmt.Errorf("min is %d; want a number from 1 to %d", c.Min, AdaptiveMax)
	case most != 0 && (most < least || most > AdaptiveMax):
		return fmt.Errorf("max is %d; want a number from %d (min) to %d", most, least, AdaptiveMax)
	case c.Tolerance != 0 && !(c.Tolerance >= AdaptiveToleranceMin && c.Tolerance <= AdaptiveToleranceMax):
		return fmt.Errorf("tolerance is %g; want a number from %g to %d. With less, a target whose latency is unsteady is drained very slowly",
			c.Tolerance, AdaptiveToleranceMin, AdaptiveToleranceMax)
	}
	return nil
}

func writeAdaptive(c surgetank.AdaptiveConfig) any {
	tree := map[string]any{}
	if c.Min != 0 {
		tree["min"] = c.Min
	}
	if c.Max != 0 {
		tree["max"] = c.Max
	}
	if c.Tolerance != 0 {
		tree["tolerance"] = c.Tolerance
	}
	if len(tree) == 0 {
		return c.On
	}
	return tree
}

func adaptiveSchema() map[string]any {
	limit := map[string]any{"type": "integer", "minimum": 1, "maximum": AdaptiveMax}
	return map[string]any{"oneOf": []any{
		map[string]any{"type": "boolean"},
		map[string]any{"type": "object", "additionalProperties": false, "properties": map[string]any{
			"min": limit, "max": limit,
			"tolerance": map[string]any{"type": "number", "minimum": AdaptiveToleranceMin, "maximum": AdaptiveToleranceMax},
		}},
	}}
}
