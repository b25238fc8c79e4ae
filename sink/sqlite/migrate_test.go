package sqlite

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/surgetank/surgetank/sink"
	"github.com/surgetank/surgetank/sink/internal/opentest"
	"github.com/surgetank/surgetank/sink/sinktest"
)

// opening opens a checked target without a runner.
func opening(t testing.TB, s sink.Spec, lanes int) *opentest.Opened {
	t.Helper()
	return opentest.Open(t, checked(t, s), lanes, nil)
}

// rebuild returns the usual statements for changing a column in SQLite, in one transaction.
func rebuild(columns string) string {
	return "BEGIN; CREATE TABLE n (" + columns + "); DROP TABLE t; ALTER TABLE n RENAME TO t; COMMIT"
}

func TestTheTableIsThatOfTheTransaction(t *testing.T) {
	for _, c := range []struct{ name, table, change, body, want string }{
		{"integer to text", "v INTEGER", rebuild("id INTEGER UNIQUE, v TEXT"), `{"id":2,"v":1.10}`, "1.10"},
		{"text to real", "v TEXT", rebuild("id INTEGER UNIQUE, v REAL"), `{"id":2,"v":1.10}`, "1.1"},
		{"default", "v TEXT DEFAULT 'old'", rebuild("id INTEGER UNIQUE, v TEXT DEFAULT 'new'"), `{"id":2}`, "new"},
		{"a default comes", "v TEXT", rebuild("id INTEGER UNIQUE, v TEXT DEFAULT 'new'"), `{"id":2}`, "new"},
		{"not null goes", "v TEXT NOT NULL", rebuild("id INTEGER UNIQUE, v TEXT"), `{"id":2}`, "<nil>"},
		{"to strict", "v", rebuild("id INTEGER UNIQUE, v ANY) STRICT; CREATE TABLE z (a"), `{"id":2,"v":"01"}`, "01"},
		{"swapped by name", "v INTEGER, w TEXT", "ALTER TABLE t RENAME v TO x; ALTER TABLE t RENAME w TO v", `{"id":2,"v":1.10}`, "1.10"},
		{"nothing that counts", "v TEXT", "CREATE INDEX i ON t (v); ALTER TABLE t ADD z INTEGER", `{"id":2,"v":1.10}`, "1.10"},
	} {
		for _, way := range []string{"", `,"on_conflict":{"keys":["id"],"do":"update"}`} {
			for _, split := range []bool{false, true} {
				path := file(t, "CREATE TABLE t (id INTEGER UNIQUE, "+c.table+")")
				o := opening(t, spec(t, path, "t", `"columns":{"id":"$.id","v":"$.v"}`+way), 1)
				// Statements of both kinds are prepared before the change.
				if _, err := o.Batch(0, false, `{"id":1,"v":1}`, `{"id":8,"v":1}`); err != nil {
					t.Fatalf("%s: %v", c.name, err)
				}
				for _, s := range strings.Split(c.change, "; ") {
					run(t, path, "PRAGMA user_version = 1") // and a statement that changes nothing
					if strings.HasPrefix(c.change, "BEGIN") {
						run(t, path, c.change)
						break
					}
					run(t, path, s)
				}
				changes, err := o.Batch(0, split, c.body)
				if err != nil {
					t.Errorf("%s, split %v: %v", c.name, split, err)
					continue
				}
				if changes > 0 && c.name == "nothing that counts" {
					t.Errorf("%s: made anew %d times", c.name, changes)
				}
				if got := fmt.Sprint(all(t, path, "SELECT v FROM t WHERE id = 2")[0][0]); got != c.want {
					t.Errorf("%s, split %v: stored %s, want %s", c.name, split, got, c.want)
				}
				o.Target.Close()
			}
		}
	}
}

func TestAColumnThatIsGoneIsWaitedFor(t *testing.T) {
	for change, says := range map[string]string{
		"ALTER TABLE t DROP v":          `no column "v"`,
		"DROP TABLE t":                  "does not exist",
		rebuild("id, v AS (id)"):        "generated",
		rebuild("id, v, w NOT NULL"):    `"w"`,
		"DROP TABLE surgetank_progress": "surgetank_progress",
	} {
		path := file(t, "CREATE TABLE t (id, v)")
		o := opening(t, spec(t, path, "t", `"columns":{"id":"$.id","v":"$.v"}`), 1)
		run(t, path, change)
		_, err := o.Batch(0, false, `{"id":1,"v":"x"}`)
		if opentest.ClassOf(err) != sink.Down || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v; want down, with %q", change, err, says)
		}
		o.Target.Close()
	}
}

// TestMigrationsUnderLoad: a table is rebuilt at random while two lanes write to it. A trigger in
// each version of the table records the stored values.
func TestMigrationsUnderLoad(t *testing.T) {
	versions := []struct{ v, missing, given string }{
		{"v TEXT DEFAULT 'd'", "d", "1.10"},
		{"v TEXT", "<nil>", "1.10"},
		{"v REAL DEFAULT 5", "5", "1.1"},
		{"v NUMERIC DEFAULT 7", "7", "1.1"},
		{"v INTEGER", "<nil>", "1.1"},
	}
	path := file(t, "CREATE TABLE log (id, version, v)", "CREATE TABLE t (id, v)")
	alter := func(i int) {
		run(t, path, "BEGIN IMMEDIATE; CREATE TABLE n (id INTEGER, "+versions[i].v+"); DROP TABLE t; ALTER TABLE n RENAME TO t; "+
			fmt.Sprintf("CREATE TRIGGER note AFTER INSERT ON t BEGIN INSERT INTO log VALUES (new.id, %d, CAST(new.v AS TEXT)); END; COMMIT", i))
	}
	alter(0)
	s := spec(t, path, "t", `"columns":{"id":"$.id","v":"$.v"}`)
	o := opening(t, s, 2)
	const batches = 150
	rng := rand.New(rand.NewPCG(5, 5))
	results := make(chan error)
	turns := make(chan struct{}) // each turn is a few batches; a migration runs during the last ones
	var changed [2]int
	for lane := range 2 {
		go func() {
			var all error
			for i := range batches {
				<-turns
				id := 10 * (lane*batches + i)
				n, err := o.Batch(lane, i%3 == 0, fmt.Sprintf(`{"id":%d,"v":1.10}`, id), fmt.Sprintf(`{"id":%d}`, id+1))
				changed[lane] += n
				all = errors.Join(all, err)
			}
			results <- all
		}()
	}
	migrations, given := 0, 0
	for left := 2; left > 0; {
		select {
		case err := <-results:
			left--
			if err != nil {
				t.Fatal(err)
			}
		default:
			for range min(8, 2*batches-given) {
				turns <- struct{}{}
				given++
			}
			alter(rng.IntN(len(versions)))
			migrations++
		}
	}
	rows := all(t, path, "SELECT id % 10, version, v FROM log")
	for _, row := range rows {
		v := versions[row[1].(int64)]
		want := v.given
		if row[0].(int64) == 1 {
			want = v.missing
		}
		if got := strings.TrimSuffix(fmt.Sprint(row[2]), ".0"); got != want {
			t.Errorf("%s: stored %s, want %s", v.v, got, want)
		}
	}
	if len(rows) != 4*batches {
		t.Errorf("%d rows, want %d", len(rows), 4*batches)
	}
	t.Logf("%d migrations, batches made anew %v", migrations, changed)
	if migrations < 3 || changed[0]+changed[1] == 0 {
		t.Error("too few migrations, or none during a batch")
	}
}

// TestAFileWithoutItsName: if the sink's files are no longer the files at the path, the batch
// fails, so no message is acked.
func TestAFileWithoutItsName(t *testing.T) {
	for name, c := range map[string]struct {
		do    func(path string) error
		class sink.Class
	}{
		"deleted":  {func(path string) error { return os.Remove(path) }, sink.Down},
		"moved":    {func(path string) error { return os.Rename(path, path+".old") }, sink.Down},
		"no log":   {func(path string) error { return os.Remove(path + walSuffix) }, sink.Down},
		"replaced": {func(path string) error { return os.Rename(path+".copy", path) }, sink.Stale},
	} {
		for _, when := range []string{"before the batch", "within the batch"} {
			path := file(t, "CREATE TABLE t (id, message_id)")
			o := opening(t, spec(t, path, "t", `"columns":{"id":"$.id"},"create_table":true`), 1)
			if _, err := o.Batch(0, false, `{"id":1}`); err != nil {
				t.Fatal(err)
			}
			data, err := os.ReadFile(path)
			if err == nil {
				err = os.WriteFile(path+".copy", data, 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
			if when == "before the batch" {
				if err := c.do(path); err != nil {
					t.Skipf("this system keeps open files: %v", err)
				}
				if _, err = o.Batch(0, false, `{"id":2}`); opentest.ClassOf(err) != c.class {
					t.Errorf("%s %s: %v", name, when, err)
				}
			} else {
				ctx := context.Background()
				m := opentest.Message(`{"id":2}`)
				o.Lanes[0].Reset()
				if err := errors.Join(o.Lanes[0].Add(&m), o.Lanes[0].Begin(ctx), o.Lanes[0].Write(ctx, 0, 1), c.do(path)); err != nil {
					t.Fatal(err)
				}
				if err := o.Lanes[0].Finish(ctx, sink.Progress{Epoch: o.State.Epoch, Batch: 1, IDs: []byte{}}); opentest.ClassOf(err) != c.class {
					t.Errorf("%s %s: %v", name, when, err)
				}
				if err := o.Lanes[0].Rollback(ctx); err != nil {
					t.Fatal(err)
				}
			}
			o.Target.Close()
			if name == "deleted" || name == "moved" {
				o.Claim.LastEpoch, o.Claim.Written = 1, sink.Written{Epoch: 1, Applied: 1, Last: 1}
				_, _, err := o.Target.Open(context.Background(), o.Claim)
				var r *sink.Refusal
				if !errors.As(err, &r) || r.Kind != sink.TargetEmpty {
					t.Errorf("%s: opened again: %v", name, err)
				}
				o.Target.Close()
				if _, err := os.Stat(path); err == nil {
					t.Errorf("%s: the sink created the file again", name)
				}
			}
		}
	}
}

// TestAMissingFile: a missing file or table is created again only if the claim knows of no rows in
// it.
func TestAMissingFile(t *testing.T) {
	for _, create := range []bool{true, false} {
		for _, known := range []uint64{0, 1} {
			path := filepath.Join(t.TempDir(), "x.db")
			s := spec(t, path, "t", fmt.Sprintf(`"columns":{"id":"$.id"},"create_table":%v`, create))
			target, err := New(s)
			if err != nil {
				t.Fatal(err)
			}
			claim := sinktest.Claim(1)
			claim.Written.Applied = known
			_, _, err = target.Open(context.Background(), claim)
			target.Close()
			_, stat := os.Stat(path)
			var r *sink.Refusal
			switch {
			case create && known == 0:
				if err != nil || stat != nil {
					t.Errorf("a file without rows was not created again: %v", errors.Join(err, stat))
				}
				run(t, path, "DROP TABLE t")
				if _, _, err = target.Open(context.Background(), claim); err != nil {
					t.Errorf("a dropped table: %v", err)
				}
				target.Close()
			case stat == nil:
				t.Error("the file was created although its rows are missing")
			case create && !errors.As(err, &r):
				t.Errorf("opened without a file that had rows: %v", err)
			case !create && (opentest.ClassOf(err) != sink.Down || !strings.Contains(err.Error(), "is gone")):
				t.Errorf("opened without a file that the sink is not allowed to create: %v", err)
			}
		}
	}
}
