package postgres

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/surgetank/surgetank/internal/pgtest"
	"github.com/surgetank/surgetank/sink"
	"github.com/surgetank/surgetank/sink/sinktest"
)

// opened is one opening with its lanes, without a runner.
type opened struct {
	t      testing.TB
	target *Target
	lanes  []sink.Lane
	state  sink.State
	claim  sink.Claim
}

func open(t testing.TB, s sink.Spec, lanes int, verify func(sink.State) error) *opened {
	t.Helper()
	target := checked(t, s)
	t.Cleanup(target.Close)
	claim := sinktest.Claim(lanes)
	if verify != nil {
		claim.Verify = func() func(sink.State) error { return verify }
	}
	state, list, err := target.Open(context.Background(), claim)
	if err != nil {
		t.Fatal(err)
	}
	return &opened{t, target, list, state, claim}
}

func (o *opened) progress(lane int) sink.Progress {
	return sink.Progress{Epoch: o.state.Epoch, Batch: o.state.Lanes[lane].Batch, IDs: []byte{}}
}

// batch writes messages through a lane as the runner does, and again if the table has changed. With
// split it uses Begin, Write and Finish.
func (o *opened) batch(lane int, split bool, bodies ...string) (changes int, err error) {
	o.t.Helper()
	ctx, l := context.Background(), o.lanes[lane]
	for ; ; changes++ {
		l.Reset()
		for _, b := range bodies {
			m := message(b)
			err = errors.Join(err, l.Add(&m))
		}
		switch {
		case err != nil:
			if again, fresh := l.Fresh(ctx); fresh != nil || !again {
				return changes, errors.Join(err, fresh)
			}
			err = nil
			continue
		case split:
			if err = l.Begin(ctx); err == nil {
				if err = l.Write(ctx, 0, len(bodies)); err == nil {
					err = l.Finish(ctx, o.progress(lane))
				}
			}
			if err != nil {
				if back := l.Rollback(ctx); back != nil {
					return changes, back
				}
			}
		default:
			err = l.Commit(ctx, o.progress(lane))
		}
		var e *sink.Error
		if !errors.As(err, &e) || e.Class != sink.Changed {
			break
		}
		err = nil
	}
	if err == nil {
		o.state.Lanes[lane].Batch++
	}
	return changes, err
}

// TestTheTableIsThatOfTheTransaction makes one ordinary change of the table after the other. The
// next stored row must obey the changed table. Each change is tried directly and through the
// staging table, and both in one query and in parts.
func TestTheTableIsThatOfTheTransaction(t *testing.T) {
	pg := pgtest.Shared(t)
	dsn := pg.Database(t)
	for i, c := range []struct{ name, table, change, body, want string }{
		{"scale", "v numeric(10,2)", "ALTER TABLE t ALTER v TYPE numeric(12,4)", `{"id":2,"v":1.2345}`, "1.2345"},
		{"default", "v text DEFAULT 'old'", "ALTER TABLE t ALTER v SET DEFAULT 'new'", `{"id":2}`, "new"},
		{"a default comes", "v text", "ALTER TABLE t ALTER v SET DEFAULT 'new'", `{"id":2}`, "new"},
		{"a default goes", "v text DEFAULT 'old'", "ALTER TABLE t ALTER v DROP DEFAULT", `{"id":2}`, "<null>"},
		{"not null goes", "v text NOT NULL", "ALTER TABLE t ALTER v DROP NOT NULL", `{"id":2}`, "<null>"},
		{"jsonb to text", "v jsonb", "ALTER TABLE t ALTER v TYPE text USING v#>>'{}'", `{"id":2,"v":"x"}`, "x"},
		{"text to jsonb", "v text", "ALTER TABLE t ALTER v TYPE jsonb USING to_jsonb(v)", `{"id":2,"v":"x"}`, `"x"`},
		{"wider", "v varchar(5)", "ALTER TABLE t ALTER v TYPE varchar(50)", `{"id":2,"v":"longer than five"}`, "longer than five"},
		{"integer to text", "v int", "ALTER TABLE t ALTER v TYPE text", `{"id":2,"v":"1.0"}`, "1.0"},
		{"text to array", "v text", "ALTER TABLE t ALTER v TYPE text[] USING array[v]", `{"id":2,"v":["p","q"]}`, "{p,q}"},
		{"text to bytea", "v text", "ALTER TABLE t ALTER v TYPE bytea USING v::bytea", `{"id":2,"v":"\\x"}`, `\x5c78`},
		{"times", "v timestamp", "ALTER TABLE t ALTER v TYPE timestamptz", `{"id":2,"v":"2026-01-02T05:04:05+02:00"}`, "2026-01-02 03:04:05+00"},
		{"an enum grows", "v mood", "ALTER TYPE mood ADD VALUE 'great'", `{"id":2,"v":"great"}`, "great"},
		{"an enum is replaced", "v mood", "CREATE TYPE m2 AS ENUM ('x'); ALTER TABLE t ALTER v TYPE m2 USING 'x'::m2; DROP TYPE mood", `{"id":2,"v":"x"}`, "x"},
		{"an enum is renamed", "v mood", "ALTER TYPE mood RENAME TO m3", `{"id":2,"v":"bad"}`, "bad"},
		{"a domain's check", "v pos", "ALTER DOMAIN pos DROP CONSTRAINT pos_check; ALTER DOMAIN pos ADD CHECK (value > -5)", `{"id":2,"v":-1}`, "-1"},
		{"a domain's default", "v pos", "ALTER DOMAIN pos SET DEFAULT 7", `{"id":2}`, "7"},
		{"a domain's not null", "v posn", "ALTER DOMAIN posn DROP NOT NULL", `{"id":2,"v":null}`, "<null>"},
		{"made anew", "v int", "DROP TABLE t; CREATE TABLE t (w int, v text, id int UNIQUE)", `{"id":2,"v":"x"}`, "x"},
		{"columns swapped by name", "v int, w text", "ALTER TABLE t RENAME v TO x; ALTER TABLE t RENAME w TO v", `{"id":2,"v":"x"}`, "x"},
		{"tables swapped by name", "v int", "ALTER TABLE t RENAME TO old; CREATE TABLE t (id int UNIQUE, v text)", `{"id":2,"v":"x"}`, "x"},
		{"row-level security", "v text", "ALTER TABLE t ENABLE ROW LEVEL SECURITY; ALTER TABLE t FORCE ROW LEVEL SECURITY; CREATE POLICY p ON t USING (true) WITH CHECK (v <> 'no')", `{"id":2,"v":"x"}`, "x"},
		{"nothing that counts", "v text", "CREATE INDEX ON t (v); ANALYZE t; GRANT SELECT ON t TO PUBLIC; ALTER TABLE t ADD z int", `{"id":2,"v":"x"}`, "x"},
		{"a sequence", "v int GENERATED BY DEFAULT AS IDENTITY", "ALTER TABLE t ALTER v RESTART WITH 50", `{"id":2}`, "50"},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, way := range [][]string{{"straight", "staged in parts"}, {"straight in parts", "staged"}}[i%2] {
				pg.Exec(t, dsn, "DROP SCHEMA public CASCADE; CREATE SCHEMA public; CREATE TYPE mood AS ENUM ('ok', 'bad'); CREATE DOMAIN pos AS int CHECK (value > 0); CREATE DOMAIN posn AS int NOT NULL; CREATE TABLE t (id int UNIQUE, "+c.table+")")
				rest := `"columns":{"id":"$.id","v":"$.v"}`
				if strings.HasPrefix(way, "staged") {
					rest += `,"on_conflict":{"keys":["id"],"do":"update"}`
				}
				o := open(t, spec(t, dsn, "t", rest), 1, nil)
				first := `{"id":1,"v":null}`
				if strings.Contains(c.table, "NOT NULL") || strings.Contains(c.table, "posn") || strings.Contains(c.table, "IDENTITY") {
					first = `{"id":1,"v":1}`
				}
				if _, err := o.batch(0, false, first); err != nil {
					t.Fatalf("%s: before the change: %v", way, err)
				}
				pg.Exec(t, dsn, c.change)
				changes, err := o.batch(0, strings.HasSuffix(way, "parts"), c.body)
				if err != nil {
					t.Errorf("%s: %v", way, err)
					continue
				}
				if c.name == "nothing that counts" && changes != 0 {
					t.Errorf("%s: a change that makes no difference was reported", way)
				}
				o.target.Close()
				if got := pg.Query(t, dsn, "SET timezone = 'UTC'; SELECT v FROM t WHERE id = 2"); fmt.Sprint(got) != "[["+c.want+"]]" {
					t.Errorf("%s: stored %v, want %s", way, got, c.want)
				}
			}
		})
	}
}

func TestAColumnThatIsGoneIsWaitedFor(t *testing.T) {
	pg := pgtest.Shared(t)
	dsn := pg.Database(t)
	for change, says := range map[string]string{
		"ALTER TABLE t DROP v": `no column "v"`,
		"ALTER TABLE t DROP v; ALTER TABLE t ADD v int GENERATED ALWAYS AS (1) STORED": "is generated",
		"DROP TABLE t":                        "does not exist",
		"ALTER TABLE t ADD must int NOT NULL": `"must"`,
		"ALTER TABLE t SET UNLOGGED":          "UNLOGGED",
		"CREATE SCHEMA postgres; CREATE TABLE postgres.t (id int, v text)": "another schema",
	} {
		pg.Exec(t, dsn, "DROP SCHEMA IF EXISTS postgres CASCADE; DROP TABLE IF EXISTS t; CREATE TABLE t (id int, v text)")
		o := open(t, spec(t, dsn, "t", `"columns":{"id":"$.id","v":"$.v"}`), 1, nil)
		pg.Exec(t, dsn, change)
		_, err := o.batch(0, false, `{"id":1,"v":"x"}`)
		if class := errorClass(err); class != sink.Down || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %s, %v; want down, with %q", change, class, err, says)
		}
		o.target.Close()
	}
}

// errorClass returns the class that the runner gives an error.
func errorClass(err error) sink.Class {
	var e *sink.Error
	if errors.As(err, &e) {
		return e.Class
	}
	return sink.Down
}

// An error of a trigger or a value that resembles the guard's error is still the row's fault.
func TestAnErrorLikeTheGuardsIsTheRows(t *testing.T) {
	pg := pgtest.Shared(t)
	dsn := pg.Database(t)
	pg.Exec(t, dsn, `CREATE TABLE t (id int, v int); CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
		IF new.v = 1 THEN PERFORM 1/0; ELSIF new.v = 2 THEN PERFORM CAST('surgetank 0123456789abcdef stale 0' AS int); ELSIF new.v = 3 THEN PERFORM CAST(current_query() AS int); END IF; RETURN new; END $$;
		CREATE TRIGGER no BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION no()`)
	o := open(t, spec(t, dsn, "t", `"columns":{"id":"$.id","v":"$.v"}`), 1, nil)
	for _, body := range []string{`{"id":1,"v":1}`, `{"id":1,"v":2}`, `{"id":"surgetank changed"}`} {
		if _, err := o.batch(0, false, body); !errorClass(err).OfRow() {
			t.Errorf("%s: %v, want an error of a row", body, err)
		}
	}
	if _, err := o.batch(0, false, `{"id":1,"v":4}`); err != nil {
		t.Error(err)
	}
	o.state.Lanes[0].Batch--
	for _, split := range []bool{false, true} {
		if _, err := o.batch(0, split, `{"id":1,"v":4}`); errorClass(err) != sink.Stale {
			t.Errorf("a batch that was committed already: %v, want stale", err)
		}
	}
}

// TestMigrationsUnderLoad: a table is altered at random while two lanes write to it. Each migration
// records in its transaction which version of the table is valid from then on. A trigger records
// the version of each stored row. Every row must be what its version requires.
func TestMigrationsUnderLoad(t *testing.T) {
	pg := pgtest.Shared(t)
	versions := []struct{ name, alter, missing, given string }{
		{"numeric(12,4)", "ALTER v TYPE numeric(12,4) USING 0, ALTER v SET DEFAULT 1.5", "1.5000", "1.2346"},
		{"numeric(10,2)", "ALTER v TYPE numeric(10,2) USING 0, ALTER v SET DEFAULT 2", "2.00", "1.23"},
		{"text", "ALTER v TYPE text USING '', ALTER v SET DEFAULT 'd'", "d", "1.23456"},
		{"text without default", "ALTER v TYPE text USING ''", "<null>", "1.23456"},
		{"jsonb", "ALTER v TYPE jsonb USING '0', ALTER v SET DEFAULT '[]'", "[]", "1.23456"},
		{"text[]", "ALTER v TYPE text[] USING '{}', ALTER v SET DEFAULT '{x}'", "{x}", ""}, // a number is not an array: the row is bad
		{"float8", "ALTER v TYPE float8 USING 0", "<null>", "1.23456"},
	}
	for _, conflict := range []string{"", `,"on_conflict":{"keys":["id"],"do":"update"}`} {
		t.Run("conflict="+fmt.Sprint(conflict != ""), func(t *testing.T) {
			dsn := pg.Database(t)
			pg.Exec(t, dsn, `CREATE TABLE t (id int PRIMARY KEY, version int, v text); CREATE TABLE version (n int); INSERT INTO version VALUES (3);
				CREATE TABLE log (id int, version int, v text);
				CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO log SELECT new.id, n, to_jsonb(new)->>'v' FROM version; RETURN NULL; END $$;
				CREATE TRIGGER note AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION note()`)
			o := open(t, spec(t, dsn, "t", `"columns":{"id":"$.id","v":"$.v"}`+conflict), 2, nil)
			stop, altered := make(chan struct{}), make(chan int)
			go func() {
				rng, n := rand.New(rand.NewPCG(3, 9)), 0
				defer func() { altered <- n }()
				for {
					select {
					case <-stop:
						return
					default:
					}
					i := rng.IntN(len(versions))
					// Earlier values are deleted, so every change of type works.
					pg.Exec(t, dsn, fmt.Sprintf("BEGIN; LOCK TABLE t; DELETE FROM t; ALTER TABLE t ALTER v DROP DEFAULT; ALTER TABLE t %s; UPDATE version SET n = %d; COMMIT", versions[i].alter, i))
					n++
				}
			}()
			type result struct {
				lost, bad, changes int
				err                error
			}
			results := make(chan result)
			const batches = 150
			for lane := range 2 {
				go func() {
					var r result
					for i := range batches {
						id := 10 * (lane*batches + i)
						changes, err := o.batch(lane, i%3 == 0, fmt.Sprintf(`{"id":%d,"v":1.23456}`, id), fmt.Sprintf(`{"id":%d}`, id+1))
						r.changes += changes
						switch class := errorClass(err); {
						case err == nil:
						case class == sink.BadRow || class == sink.Retry:
							r.bad++
						default:
							r.err = errors.Join(r.err, err)
						}
					}
					results <- r
				}()
			}
			all := result{}
			for range 2 {
				select {
				case r := <-results:
					all.bad, all.changes, all.err = all.bad+r.bad, all.changes+r.changes, errors.Join(all.err, r.err)
				case <-time.After(3 * time.Minute):
					t.Fatal("the lanes hang")
				}
			}
			close(stop)
			n := <-altered
			if all.err != nil {
				t.Fatal(all.err)
			}
			seen := map[int]int{}
			var wrong []string
			rows := pg.Query(t, dsn, "SELECT id % 10, version, v FROM log")
			for _, row := range rows {
				var kind, version int
				if _, err := fmt.Sscan(row[0]+" "+row[1], &kind, &version); err != nil {
					t.Fatal(err)
				}
				seen[version]++
				want := versions[version].given
				if kind == 1 {
					want = versions[version].missing
				}
				if row[2] != want {
					wrong = append(wrong, fmt.Sprintf("%s: %s, want %s", versions[version].name, row[2], want))
				}
			}
			if diff := cmp.Diff([]string(nil), wrong); diff != "" {
				t.Error(diff)
			}
			if len(rows) != 2*(2*batches-all.bad) {
				t.Errorf("%d rows, want two for each of %d batches", len(rows), 2*batches-all.bad)
			}
			t.Logf("%d migrations, %d batches made anew, %d bad, rows by version %v", n, all.changes, all.bad, seen)
			if all.changes == 0 || n < 5 {
				t.Error("the migrations did not meet the batches")
			}
		})
	}
}
