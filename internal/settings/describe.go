package settings

import (
	"fmt"
	"strings"
	"time"

	"github.com/surgetank/surgetank"
)

// DefaultText returns the default for the documentation.
func (s *Setting) DefaultText() string {
	switch {
	case s.DefaultHelp != "":
		return s.DefaultHelp
	case s.Default != nil:
		c := WithDefaults(surgetank.QueueConfig{})
		return fmt.Sprintf("`%v`", s.get(&c))
	}
	return s.Zero
}

// Usage lists the settings for the command line: key, help and default.
func Usage() string {
	var b strings.Builder
	for i := range Table {
		s := &Table[i]
		fmt.Fprintf(&b, "  %-20s %s Default: %s.\n", s.Path, s.Help, s.DefaultText())
	}
	return strings.ReplaceAll(b.String(), "`", "")
}

// Markdown returns the settings as a table for the documentation.
func Markdown() string {
	var b strings.Builder
	b.WriteString("| key | meaning | default | key in RabbitMQ's policies |\n|---|---|---|---|\n")
	for i := range Table {
		s := &Table[i]
		word := s.RabbitMQ
		if word != "" {
			word = "`" + word + "`"
		} else if s.NoPolicy != "" {
			word = "(not in policies)"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", s.Path, s.Help, s.DefaultText(), word)
	}
	return b.String()
}

// Schema returns the JSON Schema (OpenAPI 3.1) of a tree of settings. It refers to the schemas
// Duration, Size and Rate.
func Schema() map[string]any {
	object := func() map[string]any {
		return map[string]any{"type": "object", "properties": map[string]any{}, "additionalProperties": false}
	}
	top := object()
	top["description"] = "Settings of a queue, as in the configuration file. A missing setting has its default."
	for i := range Table {
		s := &Table[i]
		into := top["properties"].(map[string]any)
		section, key, nested := strings.Cut(s.Path, ".")
		if nested {
			if into[section] == nil {
				into[section] = object()
			}
			into = into[section].(map[string]any)["properties"].(map[string]any)
		} else {
			key = section
		}
		value := s.schema()
		value["description"] = strings.ReplaceAll(s.Help+" Default: "+s.DefaultText()+".", "`", "")
		into[key] = value
	}
	return top
}

func (s *Setting) schema() map[string]any {
	var c config
	ref := func(name string) map[string]any { return map[string]any{"$ref": "#/components/schemas/" + name} }
	number := func(kind string) map[string]any {
		m := map[string]any{"type": kind, "minimum": s.Min}
		if s.Max > 0 {
			m["maximum"] = s.Max
		}
		if s.None == Unlimited {
			delete(m, "maximum")
			return map[string]any{"oneOf": []any{m, map[string]any{"const": s.None}}}
		}
		return m
	}
	switch s.at(&c).(type) {
	case *bool:
		return map[string]any{"type": "boolean"}
	case *map[string]int:
		return map[string]any{"type": "object", "additionalProperties": number("integer"), "maxProperties": surgetank.MaxWeights}
	case *reasonRules:
		return rulesSchema()
	case *time.Time:
		return map[string]any{"type": "string", "format": "date-time"}
	case *surgetank.Overflow, *surgetank.Keep, *surgetank.BreakerMode:
		return map[string]any{"enum": anys(s.Choices)}
	case *surgetank.AdaptiveConfig:
		return adaptiveSchema()
	case *timeDuration:
		return ref("Duration")
	case *surgetank.Rate:
		return ref("Rate")
	case *float64:
		return number("number")
	case *int, *uint8, *int64:
		if s.Bytes {
			return ref("Size")
		}
		return number("integer")
	}
	return map[string]any{"type": "string"}
}

// anys returns a list in the form of a JSON decoder.
func anys(list []string) []any {
	out := make([]any, len(list))
	for i := range list {
		out[i] = list[i]
	}
	return out
}
