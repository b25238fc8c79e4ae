package wire

import (
	"bytes"
	"encoding/binary"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestFrames(t *testing.T) {
	frame := func(typ byte, ch uint16, payload string) string {
		return string(AppendFrame(nil, typ, ch, []byte(payload)))
	}
	for _, tt := range []struct {
		name, in, text string
	}{
		{"unknown type", "\x09\x00\x00", "FRAME_ERROR - type 9, all octets = <<>>: unknown_frame"},
		{"too large", "\x01\x00\x01\x00\x03\x0d\x40", "FRAME_ERROR - type 1, all octets = <<>>: {frame_too_large,200000,131064}"},
		{"largest size", "\x03\x00\x01\xff\xff\xff\xff", "FRAME_ERROR - type 3, all octets = <<>>: {frame_too_large,4294967295,131064}"},
		{"end", "\x01\x00\x01\x00\x00\x00\x04\x00\x14\x00\x0a\x00", "FRAME_ERROR - type 1, all octets = <<0,20,0,10>>: {invalid_frame_end_marker,0}"},
		{"heartbeat on a channel", frame(8, 3, ""), "UNEXPECTED_FRAME - type 8, all octets = <<>>"},
		{"heartbeat with payload", frame(8, 0, "a"), "FRAME_ERROR - type 8, all octets = <<97>>: unknown_frame"},
	} {
		_, n, err := NextFrame([]byte(tt.in), 131072)
		if n != 0 || err == nil || err.Error() != tt.text {
			t.Errorf("%s: %d, %v", tt.name, n, err)
		}
	}
	b := AppendBody(nil, 2, bytes.Repeat([]byte("x"), 10000), 4096)
	var sizes []int
	for len(b) > 0 {
		f, n, err := NextFrame(b, 4096)
		if err != nil || n == 0 || f.Type != FrameBody || f.Channel != 2 {
			t.Fatal(f, n, err)
		}
		sizes, b = append(sizes, len(f.Payload)), b[n:]
	}
	if d := cmp.Diff([]int{4088, 4088, 1824}, sizes); d != "" {
		t.Error(d)
	}
	if b := AppendBody(nil, 2, nil, 4096); len(b) != 0 {
		t.Errorf("an empty body has frames: % x", b)
	}
}

// allTags returns a table with one value of every tag.
func allTags() Table {
	var t Table
	for _, v := range []Value{
		{'t', []byte{1}}, {'b', []byte{0x80}}, {'B', []byte{0x80}}, {'s', []byte{0x80, 0}}, {'u', []byte{0x80, 0}},
		{'I', []byte{0x80, 0, 0, 0}}, {'i', []byte{0x80, 0, 0, 0}}, {'l', []byte{0x80, 0, 0, 0, 0, 0, 0, 0}},
		{'L', []byte{0x80, 0, 0, 0, 0, 0, 0, 0}}, {'f', []byte{0x7f, 0xc0, 0, 1}}, {'d', []byte{0x3f, 0xf0, 0, 0, 0, 0, 0, 0}},
		{'D', []byte{255, 0xff, 0xff, 0xff, 0xff}}, {'S', []byte("str\xff")}, {'x', []byte{0, 1}},
		{'A', Array(nil).AddString("e").AddTable(Table(nil).AddInt("n", 1))}, {'T', bytes.Repeat([]byte{0xff}, 8)},
		{'F', Table(nil).AddTime("at", time.Unix(5, 0))}, {'V', nil},
	} {
		t = t.Add(string(v.Tag), v)
	}
	return t.AddString("t", "a repeated name")
}

func TestTableKeepsEveryType(t *testing.T) {
	in := allTags()
	if err := in.Validate(); err != nil {
		t.Fatal(err)
	}
	var out Table
	types := ""
	for name, v := range in.All() {
		out = out.Add(string(name), v)
		types += v.TypeName() + " "
	}
	if !bytes.Equal(in, out) {
		t.Errorf("read and written again:\n% x\n% x", in, out)
	}
	want := "bool byte unsignedbyte short unsignedshort signedint unsignedint long long float double decimal " +
		"longstr binary array timestamp table void longstr "
	if types != want {
		t.Errorf("types %s", types)
	}
	ints := map[string]int64{"b": -128, "B": 128, "s": -32768, "u": 32768, "I": math.MinInt32, "i": 1 << 31, "l": math.MinInt64}
	for name, want := range ints {
		v, _ := in.Get(name)
		if got, ok := v.Int(); !ok || got != want {
			t.Errorf("%s: %d, %v", name, got, ok)
		}
	}
	if v, _ := in.Get("L"); v.Tag != 'L' {
		t.Error("no L")
	} else if _, ok := v.Int(); ok {
		t.Error("an L above int64 passed as an int64")
	}
	if v, ok := in.Get("absent"); ok || v.Tag != 0 {
		t.Error("a missing field was found")
	}
	if v, _ := in.Get("d"); true {
		if f, ok := v.Float(); !ok || f != 1 {
			t.Errorf("double %v %v", f, ok)
		}
	}
	for i := range in {
		if in[:i].Validate() == nil && !fieldBoundary(in, i) {
			t.Errorf("a table cut at %d was accepted as whole", i)
		}
	}
}

func fieldBoundary(t Table, at int) bool {
	for b := []byte(t); ; {
		if len(t)-len(b) == at {
			return true
		}
		_, _, rest, err := cutField(b)
		if err != nil || len(b) == 0 {
			return false
		}
		b = rest
	}
}

func TestTableLimits(t *testing.T) {
	nested := func(depth int, array bool) Table {
		t := Table(nil).AddBool("x", true)
		a := Array(nil).Add(Value{'V', nil})
		for range depth - 1 {
			t = Table(nil).AddTable("", t)
			a = Array(nil).Add(Value{'A', a})
		}
		if array {
			return Table(nil).AddArray("", a)
		}
		return t
	}
	var wide, wider Table
	for range MaxTableElements {
		wide = wide.Add("", Value{'V', nil})
	}
	wider = wide.Add("", Value{'V', nil})
	hugeLength := append(Table{1, 'k', 'S'}, 0xff, 0xff, 0xff, 0xff)
	for _, tt := range []struct {
		name  string
		table Table
		want  string
	}{
		{"empty", nil, ""},
		{"as deep as allowed", nested(MaxTableDepth, false), ""},
		{"too deep", nested(MaxTableDepth+1, false), "nested"},
		{"arrays as deep as allowed", nested(MaxTableDepth-1, true), ""},
		{"arrays too deep", nested(MaxTableDepth, true), "nested"},
		{"3000 deep", nested(3000, false), "nested"},
		{"as wide as allowed", wide, ""},
		{"too wide", wider, "more than"},
		{"many in a nested one", Table(nil).AddTable("t", wide), "more than"},
		{"unknown tag", Table{1, 'k', 'Z', 0}, "unknown field type"},
		{"length past the end", hugeLength, "ends too early"},
		{"name past the end", Table{9, 'k'}, "ends too early"},
		{"no value", Table{1, 'k'}, "ends too early"},
		{"name not UTF-8", Table{1, 0xff, 'V'}, "not UTF-8"},
		{"bad element", Table(nil).AddArray("a", Array{'I', 0}), "ends too early"},
	} {
		err := tt.table.Validate()
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

func TestTableWithout(t *testing.T) {
	in := Table(nil).AddBool("a", true).AddInt("b", 1).AddString("c", "d").AddBool("a", false)
	if got := in.Without(func(n []byte) bool { return string(n) == "zz" }); &got[0] != &in[0] {
		t.Error("the table was copied although no field was dropped")
	}
	got := in.Without(func(n []byte) bool { return string(n) == "a" })
	if want := Table(nil).AddInt("b", 1).AddString("c", "d"); !bytes.Equal(got, want) {
		t.Errorf("% x, want % x", got, want)
	}
	if got := in.Without(func(n []byte) bool { return true }); len(got) != 0 {
		t.Errorf("left % x", got)
	}
}

func TestValueEqual(t *testing.T) {
	num := func(tag byte, b ...byte) Value { return Value{tag, b} }
	for _, tt := range []struct {
		a, b Value
		want bool
	}{
		{num('I', 0, 0, 0, 1), num('l', 0, 0, 0, 0, 0, 0, 0, 1), true},
		{num('b', 0xff), num('B', 0xff), false},
		{num('I', 0, 0, 0, 1), Value{'S', []byte("1")}, false},
		{num('t', 1), num('b', 1), false},
		{Value{'S', []byte("a")}, Value{'x', []byte("a")}, false},
		{Value{'V', nil}, Value{'V', nil}, true},
	} {
		if tt.a.Equal(tt.b) != tt.want || tt.b.Equal(tt.a) != tt.want {
			t.Errorf("%v and %v: not %v", tt.a, tt.b, tt.want)
		}
	}
}

func allProperties() Properties {
	return Properties{
		Flags: 0xfffc, ContentType: []byte("text/plain"), ContentEncoding: []byte("gzip"), Headers: allTags(), DeliveryMode: 2,
		Priority: 9, CorrelationID: []byte("c"), ReplyTo: []byte("r"), Expiration: []byte("100"), MessageID: []byte("m"),
		Timestamp: math.MaxUint64, Type: []byte("t"), UserID: []byte("u"), AppID: []byte("a"), Cluster: []byte("cl"),
	}
}

func TestPropertiesRoundTrip(t *testing.T) {
	all := allProperties()
	for flag := uint32(1); flag <= 1<<16; flag <<= 1 { // each flag alone, and finally all of them
		p := all
		if p.Flags = uint16(flag) & 0xfffc; flag == 1<<16 {
			p.Flags = 0xfffc
		}
		b := p.Append(nil)
		got, err := ParseProperties(b)
		if err != nil {
			t.Fatal(err)
		}
		if again := got.Append(nil); !bytes.Equal(again, b) {
			t.Errorf("flags %#x: % x became % x", p.Flags, b, again)
		}
		for i := range b {
			if _, err := ParseProperties(b[:i]); err == nil {
				t.Errorf("flags %#x: a block cut at %d was accepted as whole", p.Flags, i)
			}
		}
		if _, err := ParseProperties(append(b, 0)); codeOf(err) != CodeSyntaxError {
			t.Errorf("flags %#x: one extra byte: %v", p.Flags, err)
		}
	}
	got, _ := ParseProperties(all.Append(nil))
	if d := cmp.Diff(all, got); d != "" {
		t.Error(d)
	}
	b := all.Append(nil)
	if n := testing.AllocsPerRun(100, func() { _, _ = ParseProperties(b) }); n != 0 {
		t.Errorf("parsing properties allocates %v times", n)
	}
}

func TestMalformedContent(t *testing.T) {
	for _, block := range []string{"\xff\xff\xff\xff\xff\xff", "\x00\x01", "\x00\x02"} {
		if _, err := ParseProperties([]byte(block)); codeOf(err) != CodeSyntaxError {
			t.Errorf("% x: %v", block, err)
		}
	}
	h := AppendHeader(nil, 1, 1234, []byte{0, 0})
	f, n, err := NextFrame(h, 4096)
	if err != nil || n != len(h) || f.Type != FrameHeader {
		t.Fatal(f, n, err)
	}
	got, err := ParseHeader(f.Payload)
	if err != nil || got.Class != ClassBasic || got.BodySize != 1234 || !bytes.Equal(got.Block, []byte{0, 0}) {
		t.Errorf("%+v, %v", got, err)
	}
	for i := range f.Payload {
		if _, err := ParseHeader(f.Payload[:i]); codeOf(err) != CodeFrameError {
			t.Errorf("cut at %d: %v", i, err)
		}
	}
	binary.BigEndian.PutUint16(f.Payload[2:], 7)
	if _, err := ParseHeader(f.Payload); codeOf(err) != CodeUnexpectedFrame {
		t.Errorf("weight 7: %v", err)
	}
}

func TestErrorTexts(t *testing.T) {
	e := Errorf(CodeNotFound, "no queue '%s'", strings.Repeat("é", 200))
	if len(e.Text) > 255 || !strings.HasPrefix(e.Text, "NOT_FOUND - no queue 'é") || !strings.HasSuffix(e.Text, "é...") {
		t.Errorf("%d bytes: %s", len(e.Text), e.Text)
	}
	if s := strings.Repeat("x", 255); Clip(s) != s {
		t.Error("255 bytes were cut")
	}
	for _, c := range []Code{CodeAccessRefused, CodeNotFound, CodeResourceLocked, CodePreconditionFailed, CodeContentTooLarge} {
		if c.Connection() {
			t.Errorf("%v ends a connection", c)
		}
	}
	for _, c := range []Code{CodeConnectionForced, CodeFrameError, CodeSyntaxError, CodeCommandInvalid, CodeChannelError,
		CodeUnexpectedFrame, CodeResourceError, CodeNotAllowed, CodeNotImplemented, CodeInternalError} {
		if !c.Connection() {
			t.Errorf("%v ends only a channel", c)
		}
	}
}
