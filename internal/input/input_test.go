package input

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"unicode/utf16"

	"github.com/surgetank/surgetank"
)

func le(s string) string { return string(utf16Bytes(s, false)) }
func be(s string) string { return string(utf16Bytes(s, true)) }

func utf16Bytes(s string, big bool) (b []byte) {
	for _, u := range utf16.Encode([]rune(s)) {
		if big {
			b = append(b, byte(u>>8), byte(u))
		} else {
			b = append(b, byte(u), byte(u>>8))
		}
	}
	return b
}

// read returns "N@line body" for each message, and then the error, if there is one.
func read(r io.Reader, o Options) (got []string, count int64) {
	in := NewReader(r, o)
	for {
		m, err := in.Next()
		if errors.Is(err, io.EOF) {
			return got, in.Count()
		}
		if err != nil {
			var e *LineError
			if !errors.As(err, &e) {
				return append(got, "ERROR "+err.Error()), 0
			}
			return append(got, fmt.Sprintf("ERROR %d %s %s", e.Line, e.Err.Code, e.Err.Message)), 0
		}
		got = append(got, fmt.Sprintf("%d@%d %s", m.N, m.Line, m.Body))
	}
}

const bom = "\xef\xbb\xbf"

// TestFormats tests each format with input as other programs write it. If the last entry of want
// begins with ERROR, reading must end with an error that begins with this text.
func TestFormats(t *testing.T) {
	long := strings.Repeat("x", 60)
	for _, c := range []struct {
		name   string
		format Format
		in     string
		want   []string
	}{
		{"nothing", Lines, "", nil},
		{"lines", Lines, "a\nb\n", []string{"1@1 a", "2@2 b"}},
		{"no end of the last line", Lines, "a\nb", []string{"1@1 a", "2@2 b"}},
		{"CRLF", Lines, "a\r\n\r\nb\r\n", []string{"1@1 a", "3@3 b"}},
		{"mixed ends", Lines, "a\nb\r\nc\r", []string{"1@1 a", "2@2 b", "3@3 c"}},
		{"spaces are a body", Lines, " \n\t\n", []string{"1@1  ", "2@2 \t"}},
		{"BOM", Lines, bom + "a\n", []string{"1@1 a"}},
		{"only a BOM", Lines, bom, nil},
		{"BOM inside stays", Lines, "a\n" + bom + "b\n", []string{"1@1 a", "2@2 " + bom + "b"}},
		{"UTF-16LE", Lines, "\xff\xfe" + le("ä\r\n\r\n😀b"), []string{"1@1 ä", "3@3 😀b"}},
		{"UTF-16BE", Lines, "\xfe\xff" + be("ä\n😀"), []string{"1@1 ä", "2@2 😀"}},
		{"only a UTF-16 BOM", Lines, "\xff\xfe", nil},
		{"UTF-16LE without BOM", Lines, le("a\nb"), []string{"ERROR 1 invalid the input is UTF-16 without a byte order mark"}},
		{"UTF-16BE without BOM", Lines, be("a\nb"), []string{"ERROR 1 invalid the input is UTF-16 without a byte order mark"}},
		{"UTF-32", Lines, "\xff\xfe\x00\x00a\x00\x00\x00", []string{"ERROR 1 invalid the input is UTF-32"}},
		{"half a UTF-16 character", Lines, "\xff\xfea\x00b", []string{"ERROR 1 invalid the input ends in the midst"}},
		{"half a pair", Lines, "\xff\xfea\x00\n\x00\x00\xd8b\x00", []string{"1@1 a", "ERROR 2 invalid half of a pair"}},
		{"lone CR", Lines, "a\nb\rc\n", []string{"1@1 a", "ERROR 2 invalid a carriage return"}},
		{"CR CR LF", Lines, "a\r\r\n", []string{"ERROR 1 invalid a carriage return"}},
		{"old Mac", Lines, "a\rb\r", []string{"ERROR 1 invalid a carriage return"}},
		{"NUL bytes and other bytes stay", Lines, "a\x00b\n\xff\xfe\xfd\n", []string{"1@1 a\x00b", "2@2 \xff\xfe\xfd"}},
		{"one byte", Lines, "a", []string{"1@1 a"}},
		{"a NUL byte alone", Lines, "\x00", []string{"1@1 \x00"}},
		{"as long as may be", Lines, long[:50] + "\r\n" + long[:50] + "\n" + long[:50], []string{"1@1 " + long[:50], "2@2 " + long[:50], "3@3 " + long[:50]}},
		{"too long", Lines, "a\n" + long[:51] + "\n", []string{"1@1 a", "ERROR 2 too_large"}},

		{"ndjson", NDJSON, bom + "{\"a\":1}\r\n \r\n [1, 2] \n\"x\"", []string{`1@1 {"a":1}`, "3@3 [1, 2]", `4@4 "x"`}},
		{"ndjson that is none", NDJSON, "1\n{\"a\":}\n", []string{"1@1 1", "ERROR 2 invalid it is not a JSON value"}},
		{"two values on a line", NDJSON, "1 2\n", []string{"ERROR 1 invalid it is not a JSON value"}},
		{"ndjson not UTF-8", NDJSON, "\"\xe4\"\n", []string{"ERROR 1 invalid the text is not UTF-8"}},
		{"ndjson with a CR between tokens", NDJSON, "{\"a\":\r1}\n", []string{"ERROR 1 invalid a carriage return"}},

		{"json values", JSON, bom + "{\r\n  \"a\": 1\r\n}\r\n2 \"x\"\n", []string{`1@1 {"a":1}`, "2@4 2", `3@4 "x"`}},
		{"json array", JSON, "[\n 1,\n [2, 3],\n {\"a\": \"\\r\"}\n]\n", []string{"1@2 1", "2@3 [2,3]", `3@4 {"a":"\r"}`}},
		{"json arrays", JSON, "[1,2][]\n[3]4", []string{"1@1 1", "2@1 2", "3@2 3", "4@2 4"}},
		{"json UTF-16", JSON, "\xff\xfe" + le("[\"ä\"]"), []string{`1@1 "ä"`}},
		{"json array without end", JSON, "[1,\n2", []string{"1@1 1", "2@2 2", "ERROR 2 invalid the JSON that begins here has no end"}},
		{"json object without end", JSON, "1\n{\"a\":", []string{"1@1 1", "ERROR 2 invalid the JSON that begins here has no end"}},
		{"json with a stray bracket", JSON, "1 ]", []string{"1@1 1", "ERROR 1 invalid"}},
		{"json without a comma", JSON, "[1 2]", []string{"1@1 1", "ERROR 1 invalid"}},
		{"json that is none", JSON, "hello", []string{"ERROR 1 invalid"}},
		{"json not UTF-8", JSON, "1\n\"\xe4\"", []string{"1@1 1", "ERROR 2 invalid the text is not UTF-8"}},
		{"json too long", JSON, "1 \"" + long + "\"", []string{"1@1 1", "ERROR 1 too_large"}},
		{"no json", JSON, " \r\n", nil},

		{"csv", CSV, bom + "id,name\r\n1,\"a, \"\"b\"\"\"\r\n\r\n2,\r\n", []string{`2@2 {"id":"1","name":"a, \"b\""}`, `4@4 {"id":"2","name":""}`}},
		{"csv with a line end in a field", CSV, "a,b\n1,\"x\r\ny\"\n2,z", []string{`2@2 {"a":"1","b":"x\ny"}`, `4@4 {"a":"2","b":"z"}`}},
		{"csv UTF-16", CSV, "\xff\xfe" + le("a,b\r\nä,\t\r\n"), []string{`2@2 {"a":"ä","b":"\t"}`}},
		{"csv of a header", CSV, "a,b\n", nil},
		{"no csv", CSV, "", nil},
		{"csv, fewer fields", CSV, "a,b\n1,2\n3\n", []string{`2@2 {"a":"1","b":"2"}`, "ERROR 3 invalid the row has 1 fields, and the header has 2"}},
		{"csv, more fields", CSV, "a,b\n1,2,3\n", []string{"ERROR 2 invalid the row has 3 fields"}},
		{"csv, lone quote", CSV, "a,b\n1,x\"y\n", []string{"ERROR 2 invalid column 4: a field that does not begin with a quote"}},
		{"csv, quote behind a quoted field", CSV, "a,b\n1,\"x\"y\n", []string{"ERROR 2 invalid column 5: a quote"}},
		{"csv, open quote", CSV, "a,b\n1,\"x\n2,y\n", []string{"ERROR 2 invalid a quote in this row is not closed"}},
		{"csv, name twice", CSV, "a,b,a\n1,2,3\n", []string{`ERROR 1 invalid the header names columns 1 and 3 both "a"`}},
		{"csv, no name", CSV, "a,\n1,2\n", []string{"ERROR 1 invalid the header has no name for column 2"}},
		{"csv, semicolons", CSV, "a;b\n1;2\n", []string{"ERROR 1 invalid the header \"a;b\" has one column"}},
		{"csv, NUL", CSV, "a\n1\x002\n", []string{"ERROR 2 invalid field 1: it holds a NUL byte"}},
		{"csv, not UTF-8", CSV, "a\n\xe4\n", []string{"ERROR 2 invalid field 1: the text is not UTF-8"}},
		{"csv, lone CR", CSV, "a,b\n1,x\ry\n", []string{"ERROR 2 invalid field 2: a carriage return"}},
		{"csv, old Mac", CSV, "a,b\r1,2\r", []string{"ERROR 1 invalid field 2: a carriage return"}},
		{"csv, row too long", CSV, "a\n" + long + "\n", []string{"ERROR 2 too_large"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			for way, r := range map[string]io.Reader{"at once": strings.NewReader(c.in), "byte by byte": iotest.OneByteReader(strings.NewReader(c.in)),
				"the end with the data": iotest.DataErrReader(strings.NewReader(c.in))} {
				got, _ := read(r, Options{Format: c.format, Max: 50})
				ok := len(got) == len(c.want)
				for i := range got {
					ok = ok && (got[i] == c.want[i] || strings.HasPrefix(c.want[i], "ERROR") && strings.HasPrefix(got[i], c.want[i]))
				}
				if !ok {
					t.Errorf("%s: got %q, want %q", way, got, c.want)
				}
			}
		})
	}
}

func TestDelimiter(t *testing.T) {
	comma, err := ParseDelimiter("tab")
	if got, _ := read(strings.NewReader("a\tb\n1\t2\n"), Options{Format: CSV, Max: 50, Comma: comma}); err != nil || len(got) != 1 || got[0] != `2@2 {"a":"1","b":"2"}` {
		t.Fatal(got, err)
	}
	for _, s := range []string{"ab", "\"", "\n", "\xff"} {
		r, err := ParseDelimiter(s)
		if err == nil {
			err = Options{Format: CSV, Comma: r}.Check()
		}
		if surgetank.CodeOf(err) != surgetank.CodeInvalid {
			t.Errorf("%q: %v", s, err)
		}
	}
	if err := (Options{Format: Lines, Comma: ';'}).Check(); surgetank.CodeOf(err) != surgetank.CodeInvalid {
		t.Error(err)
	}
}

// TestMemoryIsBounded: if a record never ends, reading fails after about Max bytes.
func TestMemoryIsBounded(t *testing.T) {
	for format, start := range map[Format]string{Lines: "", NDJSON: "", JSON: `["`, CSV: "a\n\""} {
		src := &endless{}
		got, _ := read(io.MultiReader(strings.NewReader(start), src), Options{Format: format, Max: 1000})
		if len(got) != 1 || !strings.Contains(got[0], "too_large") || src.n > 1<<20 {
			t.Errorf("%s: %.200q after %d bytes", format, got, src.n)
		}
	}
}

type endless struct{ n int }

func (e *endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'x'
	}
	e.n += len(p)
	return len(p), nil
}

// TestALineIsGivenOutWhenItIsThere: Next returns a line of a terminal before the next line is
// typed.
func TestALineIsGivenOutWhenItIsThere(t *testing.T) {
	in, out := io.Pipe()
	defer in.Close()
	go out.Write([]byte("a\n"))
	m, err := NewReader(in, Options{Format: Lines, Max: 50}).Next()
	if err != nil || string(m.Body) != "a" {
		t.Fatal(m, err)
	}
}

func TestReadErrorsAreNotTheEnd(t *testing.T) {
	for _, f := range []Format{Lines, CSV, NDJSON, JSON} {
		in := NewReader(io.MultiReader(strings.NewReader("1\n2"), iotest.ErrReader(errors.New("disk gone"))), Options{Format: f, Max: 50})
		var err error
		for err == nil {
			_, err = in.Next()
		}
		if errors.Is(err, io.EOF) || !strings.Contains(err.Error(), "disk gone") {
			t.Errorf("%s: %v", f, err)
		}
	}
}

// FuzzReader: for any input, reading ends, numbers rise, and bodies are within the limit and have
// no carriage return. Bodies of the JSON formats are JSON.
func FuzzReader(f *testing.F) {
	f.Add([]byte("a,b\r\n1,\"2\r\n\"\n"), uint8(1))
	f.Add([]byte("[{\"a\":1},2]\n3"), uint8(3))
	f.Add([]byte("\xff\xfea\x00\r\x00\n\x00"), uint8(0))
	f.Fuzz(func(t *testing.T, data []byte, kind uint8) {
		format := []Format{Lines, CSV, NDJSON, JSON}[kind%4]
		in := NewReader(bytes.NewReader(data), Options{Format: format, Max: 200})
		var last int64
		for range len(data) + 1 {
			m, err := in.Next()
			if err != nil {
				if errors.Is(err, io.EOF) && in.Count() < last {
					t.Fatalf("%d counted, the last was %d", in.Count(), last)
				}
				return
			}
			if m.N <= last || len(m.Body) == 0 || len(m.Body) > 200 || bytes.IndexByte(m.Body, '\r') >= 0 || format != Lines && !json.Valid(m.Body) {
				t.Fatalf("message %d (after %d): %q", m.N, last, m.Body)
			}
			last = m.N
		}
		t.Fatal("reading does not end")
	})
}
