package sqlite

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/sink"
	"github.com/surgetank/surgetank/sink/internal/opentest"
)

// declared lists column types that users declare.
var declared = []string{"", "BLOB", "TEXT", "varchar(20)", "clob", "STRING", "UUID", "DATETIME", "date", "BOOLEAN", "MONEY", "decimal(20,2)", "NUMERIC", "NUMBER", "INTEGER", "bigint", "REAL", "double precision", "ANY"}

// Text keeps its characters in every column, except that columns of number types convert it to a
// number or reject it.
func TestTextKeepsItsCharacters(t *testing.T) {
	var columns []string
	for i, d := range declared {
		columns = append(columns, fmt.Sprintf("c%d %s", i, d))
	}
	strict := []string{"BLOB", "TEXT", "INTEGER", "REAL", "ANY"}
	path := file(t, "CREATE TABLE loose ("+strings.Join(columns, ", ")+")", "CREATE TABLE strict (c0 "+strings.Join([]string{"BLOB", "c1 TEXT", "c2 INTEGER", "c3 REAL", "c4 ANY"}, ", ")+") STRICT")
	ctx := context.Background()
	d, err := open(ctx, path, false)
	if err != nil {
		t.Fatal(err)
	}
	defer d.close()
	texts := rapid.OneOf(rapid.StringMatching(`[ \t]?[-+]?[0-9]{0,20}(\.[0-9]{0,4})?([eE][-+]?[0-9]{0,4})?[ \n]?`), rapid.StringMatching(`0?[0-9]{1,3}`), rapid.String(),
		rapid.SampledFrom([]string{"01234", "1.10", "12e4567", "0x10", "1_000", "Infinity", "nan", "-0", ".5", "5.", "9223372036854775807", "9223372036854775808", "1e5", "\x00", "1\x00", "1.5\x002", "٣"}))
	rapid.Check(t, func(r *rapid.T) {
		text := texts.Draw(r, "text")
		if err := d.exec(ctx, "BEGIN"); err != nil {
			r.Fatal(err)
		}
		defer d.rollback()
		for table, types := range map[string][]string{"loose": declared, "strict": strict} {
			for i, typeName := range types {
				kind := affinityOf(typeName, table == "strict")
				c := column{Column: sink.Column{Name: "c"}, declared: typeName, affinity: kind}
				number := kind == affinityInteger || kind == affinityReal
				v, err := c.value(&sink.Cell{Kind: sink.CellText, Text: text})
				if err == nil {
					err = d.exec(ctx, fmt.Sprintf("INSERT INTO %s (c%d) VALUES (?)", table, i), v)
					if err != nil && table == "strict" && typeName != "TEXT" && typeName != "ANY" {
						continue // a STRICT table does not accept text for a number or a BLOB
					}
				}
				if err != nil {
					if e, ok := err.(*sink.Error); !ok || e.Class != sink.BadRow || !number {
						r.Fatalf("%s %s: %v", table, typeName, err)
					}
					continue
				}
				rows, err := d.query(ctx, fmt.Sprintf("SELECT c%d FROM %s ORDER BY rowid DESC LIMIT 1", i, table))
				if err != nil {
					r.Fatal(err)
				}
				got := fmt.Sprint(rows[0][0])
				if b, ok := rows[0][0].([]byte); ok {
					got = string(b)
				}
				if got != text && !((number || kind == affinityDecimal) && jsonNumber(text)) {
					r.Fatalf("%s %s: %q came back as %q", table, typeName, text, got)
				}
			}
		}
	})
}

// A JSON number keeps its value. Only REAL columns round it.
func TestNumbersKeepTheirDigits(t *testing.T) {
	for _, c := range []struct{ typeName, number, want string }{
		{"", "1.10", "1.1"}, {"", "12345678901234567.89", "12345678901234567.89"}, {"", "12345678901234567890", "12345678901234567890"}, {"", "1e999", "1e999"},
		{"decimal(20,2)", "12.50", "12.5"}, {"decimal(20,2)", "12345678901234567.89", "12345678901234567.89"}, {"decimal(20,2)", "-0.07", "-0.07"}, {"STRING", "98765432109876543210", "98765432109876543210"},
		{"INTEGER", "9007199254740993", "9007199254740993"}, {"INTEGER", "9007199254740993.0", "bad"}, {"INTEGER", "1.5", "1.5"}, {"INTEGER", "1e3", "1000"}, {"INTEGER", "98765432109876543210", "bad"},
		{"REAL", "0.1234567890123456789", "0.12345678901234568"}, {"REAL", "1e999", "bad"}, {"TEXT", "1.10", "1.10"}, {"BOOLEAN", "1", "1"},
	} {
		path := file(t, "CREATE TABLE t (v "+c.typeName+")")
		added, err := deliver(t, spec(t, path, "t", `"columns":{"v":"$.v"}`), opentest.Message(`{"v":`+c.number+`}`))
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
	if added, err := deliver(t, s, opentest.Message(`{"id":1,"v":1.10,"w":2}`)); errors.Join(append(added, err)...) != nil {
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
