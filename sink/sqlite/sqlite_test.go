package sqlite

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/sink"
	"github.com/surgetank/surgetank/sink/internal/opentest"
	"github.com/surgetank/surgetank/sink/sinktest"
)

type harness struct{ path string }

func (h harness) Spec() sink.Spec { return sinktest.TableSpec("sqlite", h.path, "t") }

func (h harness) Target(s sink.Spec) (sink.Target, error) { return New(s) }

func (h harness) Rows() ([]sinktest.Row, error) {
	d, err := open(context.Background(), h.path, false)
	if err != nil {
		return nil, err
	}
	defer d.close()
	rows, err := d.query(context.Background(), "SELECT id, coalesce(grp, ''), v FROM t ORDER BY ord")
	var out []sinktest.Row
	for _, r := range rows {
		out = append(out, sinktest.Row{ID: r[0].(string), Group: r[1].(string), V: r[2].(int64)})
	}
	return out, err
}

// file makes a database file and runs statements in it.
func file(t testing.TB, statements ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "a b?c#.db")
	run(t, path, statements...)
	return path
}

func run(t testing.TB, path string, statements ...string) {
	t.Helper()
	d, err := open(context.Background(), path, true)
	if err != nil {
		t.Fatal(err)
	}
	defer d.close()
	for _, s := range statements {
		if err := d.exec(context.Background(), s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
}

func all(t testing.TB, path, query string) [][]driver.Value {
	t.Helper()
	d, err := open(context.Background(), path, false)
	if err != nil {
		t.Fatal(err)
	}
	defer d.close()
	rows, err := d.query(context.Background(), query)
	if err != nil {
		t.Fatal(err)
	}
	return rows
}

func TestSuite(t *testing.T) {
	sinktest.Run(t, sinktest.Config{
		New: func(t *testing.T, _ uint64) sinktest.Harness {
			h := harness{file(t, "CREATE TABLE t (ord INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT, grp TEXT, v INTEGER NOT NULL CHECK (typeof(v) = 'integer' AND v >= 0))")}
			checked(t, h.Spec())
			return h
		},
		Bubble:    true,
		Histories: 15,
	})
}

func spec(t testing.TB, path, table string, json string) sink.Spec {
	t.Helper()
	s, err := sink.ParseSpec(fmt.Appendf(nil, `{"queue":"q","sqlite":{"path":%q,"table":%q,%s}}`, path, table, json))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// checked makes a target and calls Check, as creating a sink does.
func checked(t testing.TB, s sink.Spec) *Target {
	t.Helper()
	target, err := New(s)
	if err != nil {
		t.Fatal(err)
	}
	if err := target.Check(context.Background()); err != nil {
		t.Fatal(err)
	}
	return target.(*Target)
}

// deliver writes messages as one batch through one lane.
func deliver(t testing.TB, s sink.Spec, msgs ...surgetank.Delivery) (added []error, commit error) {
	t.Helper()
	return opentest.Deliver(t, checked(t, s), msgs...)
}

func TestValuesKeepTheirForm(t *testing.T) {
	path := file(t, "CREATE TABLE t (i INTEGER, n NUMERIC, r REAL, s TEXT, a, b BLOB, j TEXT, id TEXT, tm TEXT, g TEXT, att INTEGER, h TEXT, d TEXT NOT NULL DEFAULT 'def')")
	s := spec(t, path, "t", `"columns":{"i":"$.i","n":"$.n","r":"$.r","s":"$.s","a":"$.a","b":"body","j":"$","id":"message.id",
		"tm":"message.time","g":"message.group","att":"message.attempt","h":"header.X-Name","d":"$.d"}`)
	m1 := opentest.Message(`{"i":9007199254740993,"n":1.5,"r":2,"s":12.50,"a":"x\u00e9","d":"given"}`)
	m1.Headers = []surgetank.Header{{Name: "x-name", Value: "v"}}
	m2 := opentest.Message(`{"i":1e3,"n":true,"r":null,"s":{"k":[1, 2]},"a":[1]}`)
	m2.Group = "g"
	added, err := deliver(t, s, m1, m2)
	if err := errors.Join(append(added, err)...); err != nil {
		t.Fatal(err)
	}
	got := all(t, path, "SELECT * FROM t")
	when := "2026-01-02T03:04:05.678900Z"
	want := [][]driver.Value{
		{int64(9007199254740993), 1.5, 2.0, "12.50", "xé", m1.Body, string(m1.Body), "1-7", when, nil, int64(2), "v", "given"},
		{int64(1000), int64(1), nil, `{"k":[1, 2]}`, "[1]", m2.Body, string(m2.Body), "1-7", when, "g", int64(2), nil, "def"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestBadValuesAreTheMessagesFault(t *testing.T) {
	path := file(t, "CREATE TABLE t (i INTEGER NOT NULL, s TEXT, b TEXT)")
	s := spec(t, path, "t", `"columns":{"i":"$.i","s":"$.s","b":"body"}`)
	for body, says := range map[string]string{
		`{"s":"x"}`:                    "$.i is missing",
		`{"i":12345678901234567890}`:   "64 bits",
		`{"i":1e999}`:                  "out of the range",
		`{"i":1,"s":"\ud800"}`:         "surrogate",
		`{"i":1`:                       "not JSON",
		"{\"i\":1,\"s\":\"\xff\"}":     "UTF-8",
		`{"i":null}`:                   "", // the error is the database's own message
		`{"i":1,"s":"good and plain"}`: "",
	} {
		added, err := deliver(t, s, opentest.Message(body))
		err = errors.Join(added[0], err)
		switch {
		case strings.Contains(body, "good"):
			if err != nil {
				t.Errorf("%s: %v", body, err)
			}
		default:
			var e *sink.Error
			if !errors.As(err, &e) || e.Class != sink.BadRow || !strings.Contains(e.Reason, says) {
				t.Errorf("%s: %v, want a bad row that says %q", body, err, says)
			}
		}
	}
}

func TestOnConflict(t *testing.T) {
	for _, c := range []struct{ do, want string }{{"update", "[[1 c] [2 b]]"}, {"nothing", "[[1 old] [2 b]]"}} {
		path := file(t, "CREATE TABLE t (k INTEGER PRIMARY KEY, v TEXT)", "INSERT INTO t VALUES (1, 'old')")
		s := spec(t, path, "t", `"columns":{"k":"$.k","v":"$.v"},"on_conflict":{"keys":["k"],"do":"`+c.do+`"}`)
		added, err := deliver(t, s, opentest.Message(`{"k":1,"v":"a"}`), opentest.Message(`{"k":2,"v":"b"}`), opentest.Message(`{"k":1,"v":"c"}`))
		if err := errors.Join(append(added, err)...); err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprint(all(t, path, "SELECT k, v FROM t ORDER BY k")); got != c.want {
			t.Errorf("do %s: %s, want %s", c.do, got, c.want)
		}
	}
}

func TestCheckSaysWhatIsMissing(t *testing.T) {
	path := file(t, "CREATE TABLE t (k INTEGER, v TEXT, g INTEGER GENERATED ALWAYS AS (k + 1), must TEXT NOT NULL)")
	columns := `"columns":{"k":"$.k","must":"$.m"}`
	for _, c := range []struct{ table, rest, field, says string }{
		{"nope", columns, "sqlite.table", "does not exist"},
		{"t", `"columns":{"x":"$.k","must":"$.m","y":"body"}`, "sqlite.columns", `no column "x", "y"`},
		{"t", `"columns":{"g":"$.k","must":"$.m"}`, "sqlite.columns.g", "generated"},
		{"t", `"columns":{"k":"$.k"}`, "sqlite.columns", `"must"`},
		{"t", columns + `,"on_conflict":{"keys":["k"],"do":"update"}`, "sqlite.on_conflict.keys", "ON CONFLICT"},
	} {
		target, err := New(spec(t, path, c.table, c.rest))
		if err != nil {
			t.Fatal(err)
		}
		err = target.Check(context.Background())
		var e *surgetank.Error
		if !errors.As(err, &e) || e.Field != c.field || !strings.Contains(e.Message, c.says) {
			t.Errorf("%s %s: %v, want %s: %s", c.table, c.rest, err, c.field, c.says)
		}
	}
	target, err := New(spec(t, filepath.Join(t.TempDir(), "none.db"), "t", columns))
	if err != nil {
		t.Fatal(err)
	}
	if err := target.Check(context.Background()); !errors.Is(err, surgetank.ErrInvalid) {
		t.Errorf("a missing file: %v", err)
	}
}

func TestCreateTable(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new.db")
	s := spec(t, path, `"odd ""name"`, `"columns":{"id":"$.id","all":"$","raw":"body","at":"message.time"},"create_table":true,"on_conflict":{"keys":["id"],"do":"update"}`)
	target, err := New(s)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := target.Check(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	if added, err := deliver(t, s, opentest.Message(`{"id":"a"}`), opentest.Message(`{"id":"b"}`), opentest.Message(`{"id":"a"}`)); errors.Join(append(added, err)...) != nil {
		t.Fatal(added, err)
	}
	if got := fmt.Sprint(all(t, path, `SELECT id, "all", at, message_id FROM "odd ""name" ORDER BY id`)); got !=
		`[[a {"id":"a"} 2026-01-02T03:04:05.678900Z 1-7] [b {"id":"b"} 2026-01-02T03:04:05.678900Z 1-7]]` {
		t.Error(got)
	}
}
