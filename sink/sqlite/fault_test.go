package sqlite

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/door/doortest"
	"github.com/surgetank/surgetank/sink"
)

// live is a sink with an in-memory broker.
type live struct {
	t *testing.T
	b *doortest.Broker
	r *sink.Runner
}

func startSink(t *testing.T, s sink.Spec) *live {
	t.Helper()
	target, err := New(s)
	if err != nil {
		t.Fatal(err)
	}
	b := doortest.NewBroker("q")
	r, err := sink.NewRunner(b, target, "s", strings.Repeat("a", 32), s, sink.Options{})
	if err != nil {
		t.Fatal(err)
	}
	r.Start()
	t.Cleanup(func() { r.Stop(context.Background()); _ = b.Close() })
	return &live{t, b, r}
}

func (l *live) publish(bodies ...string) {
	for _, s := range bodies {
		l.b.Add(surgetank.Message{Body: []byte(s)})
	}
}

// until waits for a condition of the sink's status.
func (l *live) until(what string, ok func(sink.Status) bool) {
	l.t.Helper()
	deadline := time.After(time.Minute)
	for !ok(l.r.Status()) {
		select {
		case <-time.After(5 * time.Millisecond):
		case <-deadline:
			l.t.Fatalf("%s: did not happen; the sink: %+v", what, l.r.Status())
		}
	}
}

// TestOneRowParksItself: a row with an error is parked and the other rows are written in order,
// even if the error ends the transaction.
func TestOneRowParksItself(t *testing.T) {
	for name, c := range map[string]struct {
		ddl  []string
		says string
	}{
		"RAISE(ABORT)":         {[]string{`CREATE TRIGGER f BEFORE INSERT ON t WHEN new.v = 'bad' BEGIN SELECT raise(ABORT, 'no'); END`}, "no"},
		"RAISE(ROLLBACK)":      {[]string{`CREATE TRIGGER f BEFORE INSERT ON t WHEN new.v = 'bad' BEGIN SELECT raise(ROLLBACK, 'no'); END`}, "no"},
		"RAISE(FAIL)":          {[]string{`CREATE TRIGGER f BEFORE INSERT ON t WHEN new.v = 'bad' BEGIN SELECT raise(FAIL, 'no'); END`}, "no"},
		"ON CONFLICT ROLLBACK": {[]string{`DROP TABLE t`, `CREATE TABLE t (id INTEGER, v TEXT, CHECK (v <> 'bad') ON CONFLICT ROLLBACK, UNIQUE (v, id) ON CONFLICT ROLLBACK)`, `INSERT INTO t VALUES (7, 'bad7')`}, "failed"},
		"SQL in a trigger":     {[]string{`CREATE TRIGGER f BEFORE INSERT ON t WHEN new.v = 'bad' BEGIN SELECT json('{'); END`}, "malformed JSON"},
		"a deferred reference": {[]string{`CREATE TABLE p (v TEXT PRIMARY KEY)`, `INSERT INTO p VALUES ('a')`, `DROP TABLE t`, `CREATE TABLE t (id INTEGER, v TEXT REFERENCES p DEFERRABLE INITIALLY DEFERRED)`}, "FOREIGN KEY"},
	} {
		t.Run(name, func(t *testing.T) {
			path := file(t, append([]string{"CREATE TABLE t (id INTEGER, v TEXT)"}, c.ddl...)...)
			before := len(all(t, path, "SELECT 1 FROM t"))
			l := startSink(t, spec(t, path, "t", `"columns":{"id":"$.id","v":"$.v"}`))
			var want []int64
			for i := range int64(40) {
				v := "a"
				if i%17 == 5 {
					v = "bad"
				} else {
					want = append(want, i)
				}
				if name == "ON CONFLICT ROLLBACK" {
					v += fmt.Sprint(i)
					if strings.HasPrefix(v, "bad") {
						v = "bad"
					}
				}
				l.publish(fmt.Sprintf(`{"id":%d,"v":%q}`, i, v))
			}
			next := int64(40)
			l.until("all decided", func(s sink.Status) bool {
				if s.HeldBack > 0 && s.Applied == uint64(len(want)) { // another row, as evidence
					want = append(want, next)
					l.publish(fmt.Sprintf(`{"id":%d,"v":"a"}`, next))
					next++
				}
				return s.Parked == 3 && s.Applied == uint64(len(want)) && s.State == sink.StateRunning
			})
			var got []int64
			for _, r := range all(t, path, "SELECT id FROM t ORDER BY rowid")[before:] {
				got = append(got, r[0].(int64))
			}
			if !slices.Equal(got, want) {
				t.Errorf("rows %v, want %v", got, want)
			}
			for _, d := range l.b.Dead() {
				if !strings.Contains(d.Reason, c.says) {
					t.Errorf("parked for %q, want %q", d.Reason, c.says)
				}
			}
			if st := l.r.Status(); st.Opens != 1 {
				t.Errorf("the target was opened %d times, want once", st.Opens)
			}
		})
	}
}

// TestTheTablesFaultParksNothing: no message is parked because of a column that the sink does not
// fill, or because of an error in the table of a trigger.
func TestTheTablesFaultParksNothing(t *testing.T) {
	for name, c := range map[string]struct{ ddl, mends []string }{
		"a column that the sink does not fill": {[]string{`CREATE TABLE t (id INTEGER, v TEXT, tenant TEXT NOT NULL)`},
			[]string{`CREATE TRIGGER late BEFORE INSERT ON t BEGIN SELECT 1; END`, `DROP TRIGGER late`}},
		"a trigger's table": {[]string{`CREATE TABLE t (id INTEGER, v TEXT)`, `CREATE TABLE log (id INTEGER, who TEXT NOT NULL)`,
			`CREATE TRIGGER f AFTER INSERT ON t BEGIN INSERT INTO log (id, who) VALUES (new.id, (SELECT max(n) FROM who)); END`, `CREATE TABLE who (n TEXT)`},
			[]string{`INSERT INTO who VALUES ('me')`}},
	} {
		t.Run(name, func(t *testing.T) {
			path := file(t, c.ddl...)
			columns := `"columns":{"id":"$.id","v":"$.v"}`
			s := spec(t, path, "t", columns)
			if strings.HasPrefix(name, "a column") {
				// The sink was created before the column existed.
				d := &table{spec: s, columns: []column{{Column: s.Table.Columns[0]}, {Column: s.Table.Columns[1]}}}
				conn, err := open(context.Background(), path, false)
				if err != nil {
					t.Fatal(err)
				}
				defer conn.close()
				e, ok := d.rowError(conn.exec(context.Background(), `INSERT INTO t (id, v) VALUES (1, 'a')`)).(*sink.Error)
				if !ok || e.Class != sink.TableFault || !strings.Contains(e.Reason, "tenant") {
					t.Errorf("%+v", e)
				}
				return
			}
			l := startSink(t, s)
			for i := range 60 {
				l.publish(fmt.Sprintf(`{"id":%d,"v":"a"}`, i))
			}
			l.until("waiting", func(s sink.Status) bool { return s.State == sink.StateWaiting && s.HeldBack == 60 })
			run(t, path, c.mends...)
			l.until("all rows", func(s sink.Status) bool { return s.Applied == 60 && s.Parked == 0 && s.State == sink.StateRunning })
		})
	}
}

// TestKeysKeepTheirOrderOverLanes: the last of all rows with the same key must win, however the
// messages spell the key.
func TestKeysKeepTheirOrderOverLanes(t *testing.T) {
	for typ, forms := range map[string][]string{
		"INTEGER":             {`%d`, `%d.0`, `%de0`, `"%d"`},
		"TEXT COLLATE NOCASE": {`"k%d"`, `"K%d"`},
		"TEXT COLLATE RTRIM":  {`"k%d"`, `"k%d  "`},
		"BLOB":                {`%d`, `%d.0`},
	} {
		t.Run(typ, func(t *testing.T) {
			path := file(t, "CREATE TABLE t (k "+typ+" UNIQUE, n INTEGER)")
			s := spec(t, path, "t", `"columns":{"k":"$.k","n":"$.n"},"on_conflict":{"keys":["k"],"do":"update"}`)
			s.Lanes, s.Batch.Max = 4, 7
			l := startSink(t, s)
			const n, keys = 600, 5
			for i := range n {
				l.publish(fmt.Sprintf(`{"k":%s,"n":%d}`, fmt.Sprintf(forms[i/keys%len(forms)], i%keys), i))
			}
			l.until("all rows", func(s sink.Status) bool { return s.Applied == n })
			if got := fmt.Sprint(all(t, path, fmt.Sprintf("SELECT count(*), sum(n >= %d) FROM t", n-keys))); got != fmt.Sprintf("[[%d %d]]", keys, keys) {
				t.Errorf("keys, and keys whose newest row won: %s", got)
			}
		})
	}
}
