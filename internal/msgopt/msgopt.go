// Package msgopt defines each option of a message once: its name in JSON, its HTTP request header,
// its limit and its meaning. The HTTP interface reads and writes options with Table. The client and
// the command line use the same shapes.
package msgopt

import (
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/door"
	"github.com/surgetank/surgetank/internal/settings"
)

// Option is a field of surgetank.Message other than the body.
type Option struct {
	Name   string // name of the member in a JSON message
	Header string // request header of a message that is not JSON, in canonical form; "" if there is none
	Help   string // a sentence for the documentation
	Max    int    // most bytes of a text; 0: the option is not a text
	at     func(*surgetank.Message) any
}

// At returns a pointer to the option's field in m.
func (o *Option) At(m *surgetank.Message) any { return o.at(m) }

// Table has every option, in the order of writing.
var Table = []Option{
	{"group", "Surgetank-Group", "Messages of one group keep their order. The queue's `group_by` applies if it is missing.",
		surgetank.MaxNameLen, func(m *surgetank.Message) any { return &m.Group }},
	{"key", "Surgetank-Key", "The address that the publisher used. `group_by: routing_key` reads it.",
		surgetank.MaxNameLen, func(m *surgetank.Message) any { return &m.Key }},
	{"dedup_id", "Surgetank-Dedup-Id", "A second message with this id, within the queue's dedup window, is confirmed and not stored.",
		surgetank.MaxDedupIDLen, func(m *surgetank.Message) any { return &m.DedupID }},
	{"priority", "Surgetank-Priority", "Higher priorities are delivered first, if the queue has `max_priority`.",
		0, func(m *surgetank.Message) any { return &m.Priority }},
	{"delay", "Surgetank-Delay", "The message is delivered no earlier than this time after its confirmation.",
		0, func(m *surgetank.Message) any { return &m.Delay }},
	{"ttl", "Surgetank-Ttl", "The message is dead-lettered if it waits longer. The queue's own `ttl` applies if it is shorter.",
		0, func(m *surgetank.Message) any { return &m.TTL }},
	{"content_type", "", "The media type of the body. A request's own Content-Type applies to a message that is not JSON.",
		surgetank.MaxNameLen, func(m *surgetank.Message) any { return &m.ContentType }},
	{"headers", "", "Names and values, in order. Request headers `Surgetank-Header-NAME` set those of a message that is not JSON.",
		0, func(m *surgetank.Message) any { return &m.Headers }},
	{"opaque_base64", "", "Properties that another door stored with the message. Setting them needs the tag administrator or impersonator.",
		0, func(m *surgetank.Message) any { return door.Opaque(m) }},
}

// Names returns the names of the options that every publisher is allowed to set.
func Names() []string {
	var list []string
	for i := range Table {
		if Table[i].Name != "opaque_base64" {
			list = append(list, Table[i].Name)
		}
	}
	return list
}

var byHeader = func() map[string]*Option {
	m := map[string]*Option{}
	for i := range Table {
		if Table[i].Header != "" {
			m[Table[i].Header] = &Table[i]
		}
	}
	return m
}()

// ByHeader returns the option of a request header in canonical form, or nil.
func ByHeader(name string) *Option { return byHeader[name] }

// AppendMembers appends the options of m that are set, as members of a JSON object. A comma
// precedes each member. text appends a JSON string.
func AppendMembers(b []byte, m *surgetank.Message, text func([]byte, string) []byte) []byte {
	for i := range Table {
		o := &Table[i]
		switch p := o.at(m).(type) {
		case *string:
			if *p != "" {
				b = text(name(b, o), *p)
			}
		case *uint8:
			if *p != 0 {
				b = strconv.AppendUint(name(b, o), uint64(*p), 10)
			}
		case *time.Duration:
			if *p != 0 {
				b = append(name(b, o), '"')
				b = append(append(b, settings.FormatDuration(*p)...), '"')
			}
		case *[]surgetank.Header:
			if len(*p) == 0 {
				continue
			}
			b = append(name(b, o), '[')
			for k, h := range *p {
				if k > 0 {
					b = append(b, ',')
				}
				b = text(append(b, `{"name":`...), h.Name)
				b = append(text(append(b, `,"value":`...), h.Value), '}')
			}
			b = append(b, ']')
		case *[]byte:
			if len(*p) > 0 {
				b = append(name(b, o), '"')
				b = append(base64.StdEncoding.AppendEncode(b, *p), '"')
			}
		}
	}
	return b
}

// AppendText writes a JSON string. It writes bytes that are not UTF-8 unchanged: the server then
// refuses the message with the name of the field, which is better than a silent change.
func AppendText(b []byte, s string) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c == '\n':
			b = append(b, '\\', 'n')
		case c == '\t':
			b = append(b, '\\', 't')
		case c < ' ':
			b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		default:
			b = append(b, c)
		}
	}
	return append(b, '"')
}

func name(b []byte, o *Option) []byte {
	return append(append(append(b, `,"`...), o.Name...), `":`...)
}

// Shape has the options of a message as encoding/json reads and writes them. The tag schema is for
// openapi.json.
type Shape struct {
	Group       string             `json:"group,omitempty"`
	Key         string             `json:"key,omitempty"`
	DedupID     string             `json:"dedup_id,omitempty"`
	Priority    uint8              `json:"priority,omitempty"`
	Delay       string             `json:"delay,omitempty" schema:"Duration"`
	TTL         string             `json:"ttl,omitempty" schema:"Duration"`
	ContentType string             `json:"content_type,omitempty"`
	Headers     []surgetank.Header `json:"headers,omitempty"`
	Opaque      []byte             `json:"opaque_base64,omitempty"`
}

// Show returns the shape of a message's options.
func Show(m *surgetank.Message) Shape {
	return Shape{m.Group, m.Key, m.DedupID, m.Priority, duration(m.Delay), duration(m.TTL), m.ContentType, m.Headers, *door.Opaque(m)}
}

func duration(d time.Duration) string {
	if d == 0 {
		return ""
	}
	return settings.FormatDuration(d)
}

// Message returns a message with the options and no body. It fails if a duration cannot be parsed.
func (s *Shape) Message() (surgetank.Message, error) {
	m := surgetank.Message{Group: s.Group, Key: s.Key, DedupID: s.DedupID, Priority: s.Priority, ContentType: s.ContentType, Headers: s.Headers}
	*door.Opaque(&m) = s.Opaque
	var err error
	if m.Delay, err = parse("delay", s.Delay); err != nil {
		return m, err
	}
	m.TTL, err = parse("ttl", s.TTL)
	return m, err
}

func parse(name, s string) (time.Duration, error) {
	if s == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(s)
	if err != nil {
		return 0, fmt.Errorf("%s is %.40q, which is no duration", name, s)
	}
	return d, nil
}

// Markdown returns a table of the options for the documentation.
func Markdown() string {
	var b strings.Builder
	b.WriteString("| member | request header | meaning |\n|---|---|---|\n")
	for i := range Table {
		o := &Table[i]
		header := ""
		if o.Header != "" {
			header = "`" + o.Header + "`"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", o.Name, header, o.Help)
	}
	return b.String()
}
