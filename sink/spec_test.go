package sink

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/surgetank/surgetank/internal/seqset"

	"github.com/surgetank/surgetank"
)

const goodSpec = `{"queue":"orders","postgres":{"dsn":"postgres://u:p@h/db","table":"s.orders","columns":{"z":"$.id","a":"$","body":"body","h":{"from":"header.X","type":"varchar(5)"}},
	"on_conflict":{"keys":["z"],"do":"update"}},"batch":{"max":50,"wait":"5ms"},"lanes":2}`

func TestParseSpecKeepsWhatIsWritten(t *testing.T) {
	s, err := ParseSpec([]byte(goodSpec))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, c := range s.Table.Columns {
		names = append(names, c.Name+"="+c.From.String()+c.Type)
	}
	if got, want := fmt.Sprint(names), "[z=$.id a=$ body=body h=header.Xvarchar(5)]"; got != want {
		t.Errorf("columns %s, want %s", got, want)
	}
	if s.Queue != "orders" || s.Kind != "postgres" || s.Lanes != 2 || s.Batch.Max != 50 || !s.Table.OnConflict.Update {
		t.Errorf("%+v", s)
	}
	again, err := ParseSpec(s.Encode())
	if err != nil || string(again.Encode()) != string(s.Encode()) {
		t.Errorf("%v: %s became %s", err, s.Encode(), again.Encode())
	}
}

func TestTheBrakesSetting(t *testing.T) {
	for text, want := range map[string]int{`"lanes":2`: DefaultBrake, `"brake":7`: 7, `"brake":"off"`: BrakeOff, `"brake":false`: BrakeOff, `"brake":0`: BrakeOff} {
		s, err := ParseSpec([]byte(strings.Replace(goodSpec, `"lanes":2`, text, 1)))
		if err != nil || s.Brake != want {
			t.Errorf("%s: %d, %v, want %d", text, s.Brake, err, want)
		}
		if again, err := ParseSpec(s.Encode()); err != nil || again.Brake != want {
			t.Errorf("%s came back as %d, %v", text, again.Brake, err)
		}
	}
}

func TestParseSpecRefuses(t *testing.T) {
	replace := func(old, new string) string {
		if !strings.Contains(goodSpec, old) {
			t.Fatalf("%s is not in the good settings", old)
		}
		return strings.Replace(goodSpec, old, new, 1)
	}
	for _, c := range []struct{ spec, field, says string }{
		{`[]`, "", "must be an object"},
		{`{"queue":"q"`, "", "not JSON"},
		{goodSpec + "{}", "", "follows the end"},
		{replace(`"lanes"`, `"lane"`), "lane", "known here are queue"},
		{replace(`"dsn"`, `"path"`), "postgres.path", "known here are dsn"},
		{replace(`"do":`, `"does":`), "postgres.on_conflict.does", "known here are keys, do, add"},
		{replace(`"update"`, `"replace"`), "postgres.on_conflict.do", "update, add or nothing"},
		{replace(`["z"]`, `["q"]`), "postgres.on_conflict.keys", "not among the columns"},
		{replace(`["z"]`, `["z","z"]`), "postgres.on_conflict.keys", "twice"},
		{replace(`["z"]`, `[]`), "postgres.on_conflict.keys", "empty"},
		{replace(`"$.id"`, `"$.id[*]"`), "postgres.columns.z", "at byte 5"},
		{replace(`"$.id"`, `"messages.id"`), "postgres.columns.z", "is not a source"},
		{replace(`"from":`, `"form":`), "postgres.columns.h.form", "known here are from, type"},
		{replace(`"from":"header.X",`, ``), "postgres.columns.h", "is missing"},
		{replace(`"header.X"`, `"head.X"`), "postgres.columns.h", "is not a source"},
		{replace(`varchar(5)`, `int); drop table x; --`), "postgres.columns.h.type", "not the name of a type"},
		{replace(`varchar(5)`, `int /* x`), "postgres.columns.h.type", "not the name of a type"},
		{replace(`"varchar(5)"`, `5`), "postgres.columns.h.type", "must be a text"},
		{replace(`"$.id"`, `7`), "postgres.columns.z", "from and type"},
		{replace(`"a":`, `"z":`), "postgres.columns.z", "twice"},
		{replace(`"5ms"`, `5`), "batch.wait", "must be a text"},
		{replace(`"5ms"`, `"5"`), "batch.wait", "is not a duration"},
		{replace(`"5ms"`, `"2h"`), "batch.wait", "between"},
		{replace(`50`, `"50"`), "batch.max", "whole number"},
		{replace(`50`, `1000000`), "batch.max", "between"},
		{replace(`"lanes":2`, `"lanes":65`), "lanes", "between"},
		{replace(`"lanes":2`, `"brake":-1`), "brake", "off or between"},
		{replace(`"lanes":2`, `"brake":"never"`), "brake", "number of messages or off"},
		{replace(`"lanes":2`, `"brake":2000000`), "brake", "between"},
		{replace(`s.orders`, `a.b.c`), "postgres.table", "more than a schema"},
		{replace(`s.orders`, ``), "postgres.table", "empty"},
		{replace(`postgres://u:p@h/db`, ``), "postgres.dsn", "empty"},
		{replace(`"batch"`, `"sqlite":{"path":"x"},"batch"`), "sqlite", "one target"},
		{`{"queue":"q"}`, "postgres", "needs a target"},
		{replace(`"orders"`, `""`), "queue", "empty"},
		{`{"queue":"q","webhook":{"url":"x"}}`, "webhook", "not available yet"},
		{`{"x":"` + strings.Repeat("x", MaxSpecBytes) + `"}`, "", "at most"},
	} {
		_, err := ParseSpec([]byte(c.spec))
		var e *surgetank.Error
		if !errors.As(err, &e) || e.Field != c.field || !strings.Contains(e.Message, c.says) {
			t.Errorf("%.120s: %v, want %q at %q", c.spec, err, c.says, c.field)
		}
	}
}

func TestRedact(t *testing.T) {
	for in, want := range map[string]string{
		"postgres://u:secret@h:5/db?sslmode=disable":           "postgres://u:***@h:5/db?sslmode=disable",
		"postgres://u@h/db":                                    "postgres://u@h/db",
		"postgresql://h/db?password=secret&sslpassword=secret": "postgresql://h/db?password=***&sslpassword=***",
		"postgres://u:se cret@h/db%zz":                         "***",
		"host=h password=secret user=u":                        "host=h password=*** user=u",
		"host=h password = 'sec ret\\' x' user=u":              "host=h password=*** user=u",
		"PASSWORD=secret":                                      "PASSWORD=***",
		"mysql://u:secret@h":                                   "***",
		"host=h dbname=d":                                      "host=h dbname=d",
		// Text that may be part of a password is hidden.
		"postgres://u:12/secret@h/db":        "***",
		"postgres://u:12?secret@h/db":        "***",
		"postgres://u:12#secret@h/db":        "***",
		"postgres://u:sec@ret@h/db":          "postgres://u:***@h/db",
		"host=h password=two words":          "***",
		"host=h password='open":              "***",
		"host=h password='a'b":               "***",
		"host=h password=it's user=u":        "host=h password=*** user=u",
		"host=h password=a\\ b user=u":       "host=h password=*** user=u",
		"password=":                          "password=***",
		"secret":                             "***",
		"postgres://h1:1,h2:2/db?password=x": "postgres://h1:1,h2:2/db?password=***",
	} {
		if got := redact(in); got != want {
			t.Errorf("%s is shown as %s, want %s", in, got, want)
		}
	}
}

func TestSplitTable(t *testing.T) {
	for in, want := range map[string]string{
		`t`: `["t"]`, `s.t`: `["s" "t"]`, `"a.b"`: `["a.b"]`, `"a""b".T`: `["a\"b" "T"]`, `s."t"`: `["s" "t"]`,
		``: "error", `.t`: "error", `t.`: "error", `a.b.c`: "error", `"a`: "error", `"a"b`: "error", `a"b`: "error", `""`: "error", "a\x00": "error",
	} {
		parts, err := SplitTable(in)
		got := fmt.Sprintf("%q", parts)
		if err != nil {
			got = "error"
		}
		if got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
}

func TestIDsComeBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var ids seqset.Set
		for _, id := range rapid.SliceOfDistinct(rapid.Uint64Range(0, 1<<40), rapid.ID[uint64]).Draw(t, "far apart") {
			ids.Add(id, id)
		}
		from := rapid.Uint64Range(0, 1<<50).Draw(t, "from")
		ids.Add(from, from+uint64(rapid.IntRange(0, 300).Draw(t, "run")))
		got, err := readIDs(appendIDs(nil, ids))
		if err != nil || !slices.Equal(got, ids) {
			t.Fatalf("%v, %v; want %v", got, err, ids)
		}
	})
	if n := len(appendIDs(nil, seqset.Set{{First: 1 << 40, Last: 1<<40 + 999}})); n > 12 {
		t.Errorf("a run of 1000 takes %d bytes", n)
	}
}

func FuzzReadIDs(f *testing.F) {
	f.Add([]byte{1, 5, 3})
	f.Add([]byte{1, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		ids, err := readIDs(b)
		if err != nil {
			return
		}
		for i, r := range ids {
			if r.First > r.Last || i > 0 && ids[i-1].Last >= r.First {
				t.Fatalf("%v is not a set of ascending runs", ids)
			}
		}
	})
}

func FuzzParseSpec(f *testing.F) {
	f.Add([]byte(goodSpec))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := ParseSpec(b)
		if err != nil {
			return
		}
		again, err := ParseSpec(s.Encode())
		if err != nil || string(again.Encode()) != string(s.Encode()) {
			t.Fatalf("%s does not come back: %v", s.Encode(), err)
		}
	})
}
