package postgres

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/pgtest"
	"github.com/surgetank/surgetank/sink"
	"github.com/surgetank/surgetank/sink/internal/opentest"
)

// backends counts the connections of sinks to a database.
func backends(t testing.TB, pg *pgtest.Server, dsn string) int {
	t.Helper()
	var n int
	rows := pg.Query(t, dsn, "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'surgetank %'")
	if _, err := fmt.Sscan(rows[0][0], &n); err != nil {
		t.Fatal(err)
	}
	return n
}

func awaitBackends(t testing.TB, pg *pgtest.Server, dsn string, want int) {
	t.Helper()
	deadline := time.After(time.Minute)
	for n := backends(t, pg, dsn); n != want; n = backends(t, pg, dsn) {
		select {
		case <-time.After(10 * time.Millisecond):
		case <-deadline:
			t.Fatalf("%d connections, want %d", n, want)
		}
	}
}

func TestIdleLanesHoldNoConnection(t *testing.T) {
	pg := pgtest.Shared(t)
	dsn := pg.Database(t)
	pg.Exec(t, dsn, "CREATE TABLE t (id int, v text DEFAULT 'd')")
	var mu sync.Mutex
	var verified []sink.State
	var refuse error
	o := open(t, spec(t, dsn, "t", `"columns":{"id":"$.id","v":"$.v"}`), 5, func(s sink.State) error {
		mu.Lock()
		defer mu.Unlock()
		verified = append(verified, s)
		return refuse
	})
	awaitBackends(t, pg, dsn, 1)
	for lane := range 5 {
		if _, err := o.Batch(lane, lane == 3, fmt.Sprintf(`{"id":%d}`, lane)); err != nil {
			t.Fatal(err)
		}
	}
	awaitBackends(t, pg, dsn, 5)
	if len(verified) != 4 {
		t.Errorf("%d new connections were verified, want 4", len(verified))
	}
	for _, l := range o.Lanes {
		l.Rest()
		l.Rest()
	}
	awaitBackends(t, pg, dsn, 0)
	if _, err := o.Batch(2, false, `{"id":7}`, `{"id":8,"v":"x"}`); err != nil {
		t.Fatal(err)
	}
	last := verified[len(verified)-1]
	if last.Owner != "o" || last.Epoch != o.State.Epoch || last.Queue != 1 || len(last.Lanes) != 5 || last.Lanes[2].Batch != 1 {
		t.Errorf("the progress to verify was %+v", last)
	}
	o.Lanes[2].Rest()

	// If Verify rejects the progress, nothing is written.
	refuse = &sink.Error{Class: sink.Stale, Row: -1, Reason: "an older copy"}
	if _, err := o.Batch(2, false, `{"id":9}`); opentest.ClassOf(err) != sink.Stale {
		t.Errorf("%v, want what Verify said", err)
	}
	if _, err := o.Batch(2, true, `{"id":9}`); opentest.ClassOf(err) != sink.Stale {
		t.Errorf("%v, want what Verify said", err)
	}
	awaitBackends(t, pg, dsn, 0)
	if got := fmt.Sprint(pg.Query(t, dsn, "SELECT count(*), count(*) FILTER (WHERE id = 9) FROM t")); got != "[[7 0]]" {
		t.Errorf("number of rows, and number of rows from refused batches: %s", got)
	}
}

// A pooler that keeps transactions together works like the server itself: values, splits, staging
// and migrations work, and the server's sessions keep no state.
func TestThroughPgBouncer(t *testing.T) {
	pg := pgtest.Start(t)
	for _, mode := range []string{"transaction", "session"} {
		t.Run(mode, func(t *testing.T) {
			size := 2 // fewer than lanes
			if mode == "session" {
				size = 8
			}
			through := pg.Bouncer(t, mode, size)
			for _, conflict := range []string{"", `,"on_conflict":{"keys":["id"],"do":"update"}`} {
				dsn := pg.Database(t)
				pg.Exec(t, dsn, `CREATE TABLE t (id int PRIMARY KEY, v numeric(10,2) CHECK (v >= 0), d text DEFAULT 'def', at timestamptz)`)
				s := spec(t, through(dsn), "t", `"columns":{"id":"$.id","v":"$.v","d":"$.d","at":"$.at"}`+conflict)
				s.Lanes, s.Batch.Max = 4, 40
				r := start(t, surgetank.QueueConfig{Retry: surgetank.RetryConfig{MaxAttempts: 1}}, s)
				const n = 4000
				var bodies []string
				for i := range n {
					switch {
					case i%97 == 0:
						bodies = append(bodies, fmt.Sprintf(`{"id":%d,"v":-1}`, i))
					case i%5 == 0:
						bodies = append(bodies, fmt.Sprintf(`{"id":%d,"v":%d.25}`, i, i))
					default:
						bodies = append(bodies, fmt.Sprintf(`{"id":%d,"v":%d.25,"d":"x","at":"2026-01-02T03:04:05Z"}`, i, i))
					}
				}
				bad := (n + 96) / 97
				r.publish(bodies[:n/2]...)
				r.until("the first half", func(s sink.Status) bool { return s.Applied+s.Parked >= n/4 })
				pg.Exec(t, dsn, "ALTER TABLE t ALTER v TYPE numeric(12,4), ALTER d SET DEFAULT 'new'")
				r.publish(bodies[n/2:]...)
				r.until("all", func(s sink.Status) bool { return s.Applied+s.Parked >= n })
				if st := r.r.Status(); st.Applied != uint64(n-bad) || st.Parked != uint64(bad) || st.Opens != 1 {
					t.Errorf("%+v, want %d parked and one opening", st, bad)
				}
				got := pg.Query(t, dsn, "SELECT count(*), count(DISTINCT id), count(*) FILTER (WHERE v <> id + 0.25) FROM t")
				if want := fmt.Sprintf("[[%d %d 0]]", n-bad, n-bad); fmt.Sprint(got) != want {
					t.Errorf("rows, keys, wrong values: %v, want %s", got, want)
				}
				r.r.Stop(context.Background())
				left := pg.Query(t, dsn, "SELECT relname FROM pg_class WHERE relpersistence = 't' AND relkind = 'r'")
				if len(left) != 0 && mode == "transaction" {
					t.Errorf("left in the server's sessions: %v", left)
				}
				for name, want := range map[string]string{"client_min_messages": "notice", "idle_in_transaction_session_timeout": "0", "bytea_output": "hex"} {
					for range 2 * size {
						if got := pg.Query(t, through(dsn), "SHOW "+name)[0][0]; got != want {
							t.Errorf("%s of another client is %s, want %s", name, got, want)
						}
					}
				}
			}
		})
	}
	t.Run("statement", func(t *testing.T) {
		dsn := pg.Database(t)
		pg.Exec(t, dsn, "CREATE TABLE t (id int)")
		s := spec(t, pg.Bouncer(t, "statement", 2)(dsn), "t", `"columns":{"id":"$.id"}`)
		target, err := New(s)
		if err != nil {
			t.Fatal(err)
		}
		defer target.Close()
		var e *surgetank.Error
		if err := target.Check(context.Background()); !errors.As(err, &e) || e.Field != "postgres.dsn" || !strings.Contains(e.Message, "pool_mode") {
			t.Errorf("set: %v", err)
		}
		if _, _, err := target.Open(context.Background(), sink.Claim{Instance: "i", Lanes: 1}); err == nil || !strings.Contains(err.Error(), "pool_mode") {
			t.Errorf("opened: %v", err)
		}
	})
}

func TestPermissionsAreNamed(t *testing.T) {
	pg := pgtest.Shared(t)
	dsn := pg.Database(t)
	role := "w" + dsn[strings.LastIndex(dsn, "/test")+5:strings.Index(dsn, "?")]
	pg.Exec(t, dsn, fmt.Sprintf(`CREATE ROLE %[1]s LOGIN; CREATE TABLE t (id int UNIQUE, v text DEFAULT 'd', other int); GRANT INSERT (id, v) ON t TO %[1]s;
		%[2]s; GRANT SELECT, INSERT ON surgetank_progress TO %[1]s; REVOKE TEMP ON DATABASE %[3]s FROM PUBLIC`,
		role, createProgress("public"), dsn[strings.LastIndex(dsn, "/")+1:strings.Index(dsn, "?")]))
	s := spec(t, strings.Replace(dsn, "postgres@", role+"@", 1), "t", `"columns":{"id":"$.id","v":"$.v"}`)
	for _, grant := range []string{"GRANT UPDATE, DELETE ON \"public\".surgetank_progress TO " + role, "GRANT TEMPORARY ON DATABASE"} {
		target, err := New(s)
		if err != nil {
			t.Fatal(err)
		}
		err = target.Check(context.Background())
		var e *surgetank.Error
		if !errors.As(err, &e) || e.Field != "postgres.table" || !strings.Contains(e.Message, grant) {
			t.Fatalf("%v, want %s", err, grant)
		}
		// The statement in the error message is enough.
		pg.Exec(t, dsn, e.Message[strings.Index(e.Message, "GRANT "):])
	}
	// Rights to columns alone are enough for a sink.
	if added, err := deliver(t, s, opentest.Message(`{"id":1}`), opentest.Message(`{"id":2,"v":"x"}`)); errors.Join(append(added, err)...) != nil {
		t.Fatal(added, err)
	}
	o := open(t, s, 1, nil)
	pg.Exec(t, dsn, "ALTER TABLE t ALTER v SET DEFAULT 'new'")
	if _, err := o.Batch(0, false, `{"id":3}`); err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(pg.Query(t, dsn, "SELECT id, v FROM t ORDER BY id")); got != "[[1 d] [2 x] [3 new]]" {
		t.Error(got)
	}
}

// TestAVanishedTable: a missing table is created again if the claim knows of no rows in it.
// Otherwise the claim refuses, and no table is created.
func TestAVanishedTable(t *testing.T) {
	pg := pgtest.Shared(t)
	for _, create := range []bool{true, false} {
		for _, gone := range []string{"DROP TABLE t", "DROP TABLE surgetank_progress", "DROP TABLE t, surgetank_progress"} {
			dsn := pg.Database(t)
			s := spec(t, dsn, "t", fmt.Sprintf(`"columns":{"id":"$.id","m":"message.id"},"create_table":%v`, create))
			if !create {
				pg.Exec(t, dsn, "CREATE TABLE t (id text, m text)")
			}
			o := open(t, s, 1, nil)
			if _, err := o.Batch(0, false, `{"id":1}`); err != nil {
				t.Fatal(err)
			}
			o.Target.Close()
			pg.Exec(t, dsn, gone)
			lost := strings.Contains(gone, "progress")
			if o.Claim.Written = (sink.Written{Epoch: 1, Applied: 1, Last: 1}); !lost {
				o.Claim.Written.Applied = 0
			}
			_, _, err := o.Target.Open(context.Background(), o.Claim)
			o.Target.Close()
			switch {
			case !create && strings.Contains(gone, "t,") || !create && !lost:
				if opentest.ClassOf(err) != sink.Down || !strings.Contains(err.Error(), "does not exist") {
					t.Errorf("%s, create %v: %v, want a wait", gone, create, err)
				}
			case lost:
				var r *sink.Refusal
				if !errors.As(err, &r) || r.Kind != sink.TargetEmpty {
					t.Errorf("%s, create %v: %v, want a refusal", gone, create, err)
				}
				if n := len(pg.Query(t, dsn, "SELECT 1 FROM pg_class WHERE relname = 't'")); (n == 1) != (gone == "DROP TABLE surgetank_progress") {
					t.Errorf("%s: the table was created before the claim was asked", gone)
				}
			case err != nil:
				t.Errorf("%s, create %v: %v", gone, create, err)
			}
		}
	}
}
