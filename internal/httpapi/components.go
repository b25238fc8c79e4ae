package httpapi

import (
	"reflect"
	"slices"
	"strings"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/auth"
	"github.com/surgetank/surgetank/internal/msgopt"
	"github.com/surgetank/surgetank/internal/policy"
	"github.com/surgetank/surgetank/internal/settings"
)

// named are the Go types that have a schema of their own in the document.
var named = schemas{
	reflect.TypeFor[problem]():                  "Problem",
	reflect.TypeFor[settings.Queue]():           "Queue",
	reflect.TypeFor[surgetank.Header]():         "Header",
	reflect.TypeFor[messageDoc]():               "Message",
	reflect.TypeFor[messagesAnswer]():           "Messages",
	reflect.TypeFor[publishedAnswer]():          "Published",
	reflect.TypeFor[settledAnswer]():            "Settled",
	reflect.TypeFor[auth.UserLimits]():          "UserLimits",
	reflect.TypeFor[auth.VhostLimits]():         "VhostLimits",
	reflect.TypeFor[auth.TopicPermissionInfo](): "TopicPermission",
	reflect.TypeFor[policy.Policy]():            "Policy",
	reflect.TypeFor[auth.UserInfo]():            "User",
	reflect.TypeFor[auth.VhostInfo]():           "Vhost",
	reflect.TypeFor[auth.PermissionInfo]():      "Permission",
	reflect.TypeFor[sinkAnswer]():               "Sink",
	reflect.TypeFor[deletedAnswer]():            "Deleted",
	reflect.TypeFor[pausedAnswer]():             "Paused",
}

var aboutTypes = map[ref]string{
	"Problem": "An error in the form of RFC 9457.",
}

func componentSchemas() object {
	settlement, _ := describe(func(f *fields, l *Limits) { readSettlement(f, l) }, nil)
	all := append(slices.Clone(basicSchemas),
		member{"QueueSettings", settings.Schema()},
		member{"NewMessage", messageSchema(false)},
		member{"RoutedMessage", messageSchema(true)},
		member{"Settlement", settlement},
	)
	var rest object
	for t, name := range named {
		if name != "Sink" {
			rest = append(rest, member{string(name), named.inline(t).with("description", aboutTypes[name])})
		}
	}
	slices.SortFunc(rest, func(a, b member) int { return strings.Compare(a.key, b.key) })
	return append(all, rest...)
}

// basicSchemas are the schemas of values whose Go type does not say enough.
var basicSchemas = object{
	{"Duration", object{
		{"type", "string"}, {"description", "A duration in Go's form, with its unit: 500ms, 1.5s, 20m, 24h; at most 10 years."},
		{"pattern", "^([0-9]+(\\.[0-9]*)?(ns|us|µs|ms|s|m|h))+$|^0$"}, {"examples", []string{"1.5s"}},
	}},
	{"Size", object{
		{"description", "A number of bytes, or text with B, kB, MB, GB, TB, KiB, MiB, GiB or TiB."},
		{"oneOf", []object{{{"type", "integer"}, {"minimum", 0}}, {{"type", "string"}, {"pattern", "^[0-9.]+ ?([kKMGT]?B|[KMGT]iB)?$"}}}},
		{"examples", []string{"512MiB"}},
	}},
	{"Rate", object{
		{"description", "A number per second, or text such as 2000/s, 30/m or 500/h. 0 is no limit."},
		{"oneOf", []object{{{"type", "number"}, {"minimum", 0}}, {{"type", "string"}, {"pattern", "^[0-9.eE+]+(/[a-z]+)?$"}}}},
		{"examples", []string{"2000/s"}},
	}},
	{"Name", object{
		{"type", "string"}, {"minLength", 1}, {"maxLength", surgetank.MaxNameLen},
		{"description", "UTF-8 without control characters, at most 255 bytes."},
	}},
	{"Publisher", object{
		{"type", "string"}, {"minLength", surgetank.MinPublisherLen}, {"maxLength", surgetank.MaxPublisherLen}, {"pattern", "^[!-~]*$"},
		{"description", "The id of a publisher: random text, new for every publisher and every start of a program."},
	}},
	{"Sequence", object{
		{"type", "integer"}, {"minimum", 1}, {"maximum", uint64(surgetank.MaxSequence)},
		{"description", "The number of a publisher's message. A new publisher begins with 1. " +
			"If a number is already confirmed, its message is confirmed again and not stored again."},
	}},
	{"PolicySettings", object{
		{"type", "object"}, {"minProperties", 1},
		{"description", "Settings of queues as in QueueSettings, except transient and paused, or RabbitMQ's keys: message-ttl, expires, max-length, " +
			"max-length-bytes, overflow, delivery-limit, consumer-timeout, dead-letter-exchange, dead-letter-routing-key, alternate-exchange."},
	}},
	{"Sink", object{
		{"type", "object"}, {"additionalProperties", true},
		{"description", "A sink's spec, without secrets, and its state; see the documentation of sinks. " +
			"Each member of columns is a source, or an object with from (the source) and type (for create_table)."},
	}},
}

// messageSchema describes what messageReader reads.
func messageSchema(routed bool) object {
	properties := object{
		{"body", object{{"description", "Any JSON value; it is stored unchanged, byte for byte, with content type application/json."}}},
		{"body_base64", object{{"type", "string"}, {"contentEncoding", "base64"}, {"description", "A body of any bytes."}}},
	}
	for i := range msgopt.Table {
		o := &msgopt.Table[i]
		properties = append(properties, member{o.Name, optionSchema(o).with("description", plain(o.Help))})
	}
	properties = append(properties, member{"publisher", ref("Publisher").schema()}, member{"sequence", ref("Sequence").schema()})
	about := "One message, with body or body_base64."
	if routed {
		about = "A message with its queues: queue or queues, and vhost if it is not the default one."
		properties = append(properties,
			member{"queue", ref("Name").schema()},
			member{"queues", object{{"type", "array"}, {"items", ref("Name").schema()}, {"minItems", 1}, {"maxItems", surgetank.MaxTargets}}},
			member{"vhost", ref("Name").schema()},
		)
	}
	return objectSchema(properties, nil).with("description", about)
}

// optionSchema returns the schema of a message's option in a request.
func optionSchema(o *msgopt.Option) object {
	switch o.At(new(surgetank.Message)).(type) {
	case *string:
		return ref("Name").schema()
	case *uint8:
		return object{{"type", "integer"}, {"minimum", 0}, {"maximum", surgetank.MaxPriority}}
	case *[]surgetank.Header:
		return object{{"oneOf", []object{
			{{"type", "object"}, {"additionalProperties", object{{"type", "string"}}}},
			{{"type", "array"}, {"items", objectSchema(object{{"name", ref("Name").schema()}, {"value", object{{"type", "string"}}}}, []string{"name", "value"})}, {"maxItems", surgetank.MaxHeaders}},
		}}}
	case *[]byte:
		return object{{"type", "string"}, {"contentEncoding", "base64"}}
	}
	return ref("Duration").schema()
}

// transactSchema describes the body of a transaction.
var transactSchema = objectSchema(object{
	{"messages", object{{"type", "array"}, {"items", ref("RoutedMessage").schema()}}},
	{"settlements", object{{"type", "array"}, {"items", ref("Settlement").schema()}}},
}, nil)

// plain removes the backquotes from a help text.
func plain(help string) string { return strings.ReplaceAll(help, "`", "") }
