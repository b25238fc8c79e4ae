package translate

import (
	"encoding/binary"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/surgetank/surgetank/internal/amqp/wire"
)

func double(f float64) wire.Value {
	return wire.Value{Tag: 'd', Data: binary.BigEndian.AppendUint64(nil, math.Float64bits(f))}
}

func decimalValue(scale byte, n int32) wire.Value {
	return wire.Value{Tag: 'D', Data: binary.BigEndian.AppendUint32([]byte{scale}, uint32(n))}
}

func long(n int64) wire.Value {
	return wire.Value{Tag: 'l', Data: binary.BigEndian.AppendUint64(nil, uint64(n))}
}

func text(s string) wire.Value { return wire.Value{Tag: 'S', Data: []byte(s)} }

// TestIdentityOfEveryType: a group or id equals the given value, or the message is refused. It is
// never empty and never the name of a type.
func TestIdentityOfEveryType(t *testing.T) {
	big := wire.Value{Tag: 'L', Data: binary.BigEndian.AppendUint64(nil, math.MaxUint64)}
	for name, tc := range map[string]struct {
		v       wire.Value
		want    string
		refused string
	}{
		"text": {text("gü"), "gü", ""}, "bytes": {wire.Value{Tag: 'x', Data: []byte("b")}, "b", ""},
		"empty": {text(""), "", ""}, "void": {wire.Value{Tag: 'V'}, "", ""},
		"byte": {wire.Value{Tag: 'b', Data: []byte{0xff}}, "-1", ""}, "long": {long(1), "1", ""}, "large": {big, "18446744073709551615", ""},
		"double": {double(1), "1", ""}, "million": {double(1e6), "1000000", ""}, "half": {double(0.5), "0.5", ""},
		"decimal": {decimalValue(2, 100), "1", ""}, "negative decimal": {decimalValue(1, -15), "-1.5", ""},
		"true": {wire.Value{Tag: 't', Data: []byte{1}}, "true", ""}, "time": {wire.Value{Tag: 'T', Data: long(0).Data}, "1970-01-01T00:00:00Z", ""},
		"NaN": {double(math.NaN()), "", "of type double"}, "infinity": {double(math.Inf(1)), "", "of type double"},
		"table": {wire.Value{Tag: 'F'}, "", "of type table"}, "array": {wire.Value{Tag: 'A'}, "", "of type array"},
		"255 bytes": {text(strings.Repeat("g", 255)), strings.Repeat("g", 255), ""}, "256 bytes": {text(strings.Repeat("g", 256)), "", "256 bytes"},
		"Latin-1": {text("caf\xe9"), "", "UTF-8"}, "tab": {text("a\tb"), "", "control"}, "NUL": {text("a\x00"), "", "control"},
	} {
		for _, header := range []string{"x-group-id", "x-deduplication-header"} {
			c, err := ParseContent("", headersBlock(header, tc.v))
			switch {
			case tc.refused != "":
				if err == nil || !strings.Contains(err.Error(), tc.refused) || !strings.Contains(err.Error(), header) {
					t.Errorf("%s as %s: %v, want a refusal that says %q", name, header, err, tc.refused)
				}
			case err != nil:
				t.Errorf("%s as %s: %v", name, header, err)
			case c.Template.Group+c.Template.DedupID != tc.want:
				t.Errorf("%s as %s: %q%q, want %q", name, header, c.Template.Group, c.Template.DedupID, tc.want)
			}
		}
	}
}

func TestDelayOfEveryType(t *testing.T) {
	for name, tc := range map[string]struct {
		v       wire.Value
		want    time.Duration
		refused bool
	}{
		"long": {long(3000), 3 * time.Second, false}, "double": {double(3000), 3 * time.Second, false}, "fraction": {double(1.5), 1500 * time.Microsecond, false},
		"decimal": {decimalValue(1, 30000), 3 * time.Second, false}, "text": {text("3000"), 3 * time.Second, false}, "text with a point": {text("3000.0"), 3 * time.Second, false},
		"negative": {long(-1), 0, false}, "void": {wire.Value{Tag: 'V'}, 0, false}, "far": {double(1e300), millis(maxMillis), false},
		"far as text": {text("1e999"), millis(maxMillis), false},
		"unit":        {text("3s"), 0, true}, "words": {text("abc"), 0, true}, "empty": {text(""), 0, true}, "hex": {text("0x10"), 0, true}, "inf": {text("inf"), 0, true},
		"bool": {wire.Value{Tag: 't', Data: []byte{1}}, 0, true}, "NaN": {double(math.NaN()), 0, true}, "infinity": {double(math.Inf(1)), 0, true},
		"table": {wire.Value{Tag: 'F'}, 0, true}, "array": {wire.Value{Tag: 'A'}, 0, true}, "time": {wire.Value{Tag: 'T', Data: long(9).Data}, 0, true},
	} {
		c, err := ParseContent("", headersBlock("x-delay", tc.v))
		if tc.refused != (err != nil) || err == nil && c.Template.Delay != tc.want {
			t.Errorf("%s: %v, %v; want %v, refused %t", name, c, err, tc.want, tc.refused)
		}
	}
}

// TestHeadersForOtherDoorsKeepTheirIdentity: values that are equal have one text, because rules
// such as group_by compare this text.
func TestHeadersForOtherDoorsKeepTheirIdentity(t *testing.T) {
	for name, tc := range map[string]struct {
		v    wire.Value
		want string
	}{"float": {double(1e6), "1000000"}, "decimal": {decimalValue(2, 700), "7"}, "Latin-1": {text("caf\xe9"), "base64:Y2Fm6Q=="}} {
		c, err := ParseContent("", headersBlock("h", tc.v))
		if err != nil || len(c.Template.Headers) != 1 || c.Template.Headers[0].Value != tc.want {
			t.Errorf("%s: %v, %v", name, c.Template.Headers, err)
		}
	}
}

func headersBlock(name string, v wire.Value) []byte {
	table := append([]byte{byte(len(name))}, name...)
	table = append(table, v.Tag)
	switch v.Tag {
	case 'S', 'x', 'A', 'F':
		table = binary.BigEndian.AppendUint32(table, uint32(len(v.Data)))
	}
	p := wire.Properties{Flags: wire.HasHeaders, Headers: append(table, v.Data...)}
	return p.Append(nil)
}
