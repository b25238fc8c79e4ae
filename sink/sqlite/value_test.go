package sqlite

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/sink"
)

// declared are types as people declare them.
var declared = []string{"", "BLOB", "TEXT", "varchar(20)", "clob", "STRING", "UUID", "DATETIME", "date", "BOOLEAN", "MONEY", "decimal(20,2)", "NUMERIC", "NUMBER", "INTEGER", "bigint", "REAL", "double precision", "ANY"}

// A text comes back with its characters, whatever the column is declared; only columns that are declared numbers take a number for it or refuse it.
func TestTextKeepsItsCharacters(t *testing.T) {
	path := file(t)
	texts := rapid.OneOf(rapid.StringMatching(`[ \t]?[-+]?[0-9]{0,20}(\.[0-9]{0,4})?([eE][-+]?[0-9]{0,4})?[ \n]?`), rapid.StringMatching(`0?[0-9]{1,3}`), rapid.String(),
		rapid.SampledFrom([]string{"01234", "1.10", "12e4567", "0x10", "1_000", "Infinity", "nan", "-0", ".5", "5.", "9223372036854775807", "9223372036854775808", "1e5", "\x00", "1\x00", "٣"}))
	rapid.Check(t, func(r *rapid.T) {
		text := texts.Draw(r, "text")
		typeName := rapid.SampledFrom(declared).Draw(r, "type")
		strict := rapid.Bool().Draw(r, "strict")
		sql := fmt.Sprintf("CREATE TABLE t (v %s)", typeName)
		switch typeName {
		case "BLOB", "TEXT", "INTEGER", "REAL", "ANY":
			if strict {
				sql += " STRICT"
			}
		}
		run(t, path, "DROP TABLE IF EXISTS t", "DROP TABLE IF EXISTS surgetank_progress", sql)
		body, err := json.Marshal(map[string]string{"v": text})
		if err != nil {
			r.Fatal(err)
		}
		if json.Unmarshal(body, &map[string]string{}) != nil || string(body) == "" {
			return
		}
		var back map[string]string
		if err := json.Unmarshal(body, &back); err != nil {
			r.Fatal(err)
		}
		text = back["v"] // JSON has no place for broken UTF-8
		added, err := deliver(t, spec(t, path, "t", `"columns":{"v":"$.v"}`), message(string(body)))
		err = errors.Join(append(added, err)...)
		kind := affinityOf(typeName, strict)
		numbers := kind == affinityInteger || kind == affinityReal || kind == affinityDecimal
		if err != nil {
			var e *sink.Error
			if !errors.As(err, &e) || e.Class != sink.BadRow || kind != affinityInteger && kind != affinityReal && !(strict && typeName == "BLOB") {
				r.Fatalf("%s %q: %v", sql, text, err)
			}
			return
		}
		v := all(t, path, "SELECT v FROM t")[0][0]
		if b, ok := v.([]byte); ok {
			v = string(b)
		}
		if got := fmt.Sprint(v); got != text && !(numbers && jsonNumber(text)) {
			r.Fatalf("%s: %q came back as %q", sql, text, got)
		}
	})
}

// A JSON number comes back as the same number; only columns that are declared REAL round it.
func TestNumbersKeepTheirDigits(t *testing.T) {
	for _, c := range []struct{ typeName, number, want string }{
		{"", "1.10", "1.1"}, {"", "12345678901234567.89", "12345678901234567.89"}, {"", "12345678901234567890", "12345678901234567890"}, {"", "1e999", "1e999"},
		{"decimal(20,2)", "12.50", "12.5"}, {"decimal(20,2)", "12345678901234567.89", "12345678901234567.89"}, {"decimal(20,2)", "-0.07", "-0.07"}, {"STRING", "98765432109876543210", "98765432109876543210"},
		{"INTEGER", "9007199254740993", "9007199254740993"}, {"INTEGER", "9007199254740993.0", "bad"}, {"INTEGER", "1.5", "1.5"}, {"INTEGER", "1e3", "1000"}, {"INTEGER", "98765432109876543210", "bad"},
		{"REAL", "0.1234567890123456789", "0.12345678901234568"}, {"REAL", "1e999", "bad"}, {"TEXT", "1.10", "1.10"}, {"BOOLEAN", "1", "1"},
	} {
		path := file(t, "CREATE TABLE t (v "+c.typeName+")")
		added, err := deliver(t, spec(t, path, "t", `"columns":{"v":"$.v"}`), message(`{"v":`+c.number+`}`))
		got := "bad"
		if err := errors.Join(append(added, err)...); err == nil {
			got = fmt.Sprint(all(t, path, "SELECT v FROM t")[0][0])
			if b, ok := all(t, path, "SELECT v FROM t")[0][0].([]byte); ok {
				got = string(b)
			}
		}
		if got != c.want {
			t.Errorf("%s in %q: %s, want %s", c.number, c.typeName, got, c.want)
		}
	}
}

func TestCreateTableTakesTypes(t *testing.T) {
	path := file(t)
	s := spec(t, path, "t", `"columns":{"id":{"from":"$.id","type":"integer"},"v":{"from":"$.v","type":"TEXT"},"w":"$.w"},"create_table":true`)
	if added, err := deliver(t, s, message(`{"id":1,"v":1.10,"w":2}`)); errors.Join(append(added, err)...) != nil {
		t.Fatal(added, err)
	}
	if got := fmt.Sprint(all(t, path, "SELECT type FROM pragma_table_info('t')"), all(t, path, "SELECT id, v, w FROM t")); got != "[[INTEGER] [TEXT] [] [TEXT]] [[1 1.10 2]]" {
		t.Error(got)
	}
	for _, wrong := range []string{"bigserial", "INTEGER PRIMARY KEY", "TEXT, x", "varchar(20)"} {
		one := s
		one.Table.Table, one.Table.Columns = "fresh", append([]sink.Column(nil), s.Table.Columns...)
		one.Table.Columns[0].Type = wrong
		target, err := New(one)
		if err != nil {
			t.Fatal(err)
		}
		var e *surgetank.Error
		if err := target.Check(context.Background()); !errors.As(err, &e) || e.Field != "sqlite.columns.id.type" {
			t.Errorf("type %s: %v", wrong, err)
		}
	}
}
