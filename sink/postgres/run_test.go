package postgres

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/embedded"
	"github.com/surgetank/surgetank/internal/pgtest"
	"github.com/surgetank/surgetank/internal/shards/shardstest"
	"github.com/surgetank/surgetank/sink"
)

// running is an in-memory broker with a queue and a sink.
type running struct {
	t *testing.T
	b *embedded.Broker
	r *sink.Runner
}

func start(t *testing.T, config surgetank.QueueConfig, s sink.Spec) *running {
	t.Helper()
	b, err := embedded.Memory(embedded.Options{Shards: shardstest.N})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := b.DeclareQueue(context.Background(), "q", config, surgetank.DeclareNew); err != nil {
		t.Fatal(err)
	}
	target := checked(t, s)
	r, err := sink.NewRunner(b, target, "s", strings.Repeat("r", 32), s, sink.Options{})
	if err != nil {
		t.Fatal(err)
	}
	r.Start()
	t.Cleanup(func() {
		r.Stop(context.Background())
		_ = b.Close()
	})
	return &running{t, b, r}
}

func (r *running) publish(bodies ...string) {
	r.t.Helper()
	var msgs []surgetank.Publishing
	for _, s := range bodies {
		msgs = append(msgs, surgetank.Publishing{Queues: []string{"q"}, Message: surgetank.Message{Body: []byte(s)}})
	}
	if _, err := r.b.Publish(context.Background(), msgs); err != nil {
		r.t.Fatal(err)
	}
}

// until waits for a condition of the sink's status.
func (r *running) until(what string, ok func(sink.Status) bool) {
	r.t.Helper()
	deadline := time.After(time.Minute)
	for !ok(r.r.Status()) {
		select {
		case <-time.After(5 * time.Millisecond):
		case <-deadline:
			r.t.Fatalf("%s: did not happen; the sink: %+v", what, r.r.Status())
		}
	}
}

func TestASchemaThatChangesParksNothing(t *testing.T) {
	pg := pgtest.Shared(t)
	dsn := pg.Database(t)
	pg.Exec(t, dsn, "CREATE TABLE t (k int, v text)")
	r := start(t, surgetank.QueueConfig{Retry: surgetank.RetryConfig{MaxAttempts: 1}}, spec(t, dsn, "t", `"columns":{"k":"$.k","v":"$.v"}`))
	r.publish(`{"k":1}`)
	r.until("the first row", func(s sink.Status) bool { return s.Applied == 1 })
	pg.Exec(t, dsn, "ALTER TABLE t RENAME COLUMN v TO w")
	r.publish(`{"k":2}`, `{"k":3}`)
	r.until("waiting for the column", func(s sink.Status) bool {
		return s.State == sink.StateWaiting && strings.Contains(s.Error, `no column "v"`)
	})
	pg.Exec(t, dsn, "ALTER TABLE t RENAME COLUMN w TO v")
	r.until("all rows", func(s sink.Status) bool { return s.Applied == 3 && s.Parked == 0 && s.State == sink.StateRunning })
}

// TestLanesThatMeetOnKeys: lanes write the same keys again and again, in an order that differs from
// the keys' order. All rows must be written, and the last message of each key must win.
func TestLanesThatMeetOnKeys(t *testing.T) {
	pg := pgtest.Shared(t)
	dsn := pg.Database(t)
	pg.Exec(t, dsn, "CREATE TABLE t (k int PRIMARY KEY, n int, grp text)")
	s := spec(t, dsn, "t", `"columns":{"k":"$.k","n":"$.n","grp":"message.group"},"on_conflict":{"keys":["k"],"do":"update"}`)
	s.Lanes, s.Batch.Max = 4, 50
	r := start(t, surgetank.QueueConfig{GroupBy: "$.k", Group: surgetank.GroupConfig{MaxInFlight: 1}}, s)
	const n, keys = 4000, 60
	var bodies []string
	for i := range n {
		bodies = append(bodies, fmt.Sprintf(`{"k":%d,"n":%d}`, i*7919%keys, i))
	}
	r.publish(bodies...)
	r.until("all rows", func(s sink.Status) bool { return s.Applied == n && s.Parked == 0 })
	// Every key is a group, so its last message wins.
	got := pg.Query(t, dsn, fmt.Sprintf("SELECT count(*), count(*) FILTER (WHERE n >= %d), count(*) FILTER (WHERE grp = k::text) FROM t", n-keys))[0]
	if want := fmt.Sprint([]int{keys, keys, keys}); fmt.Sprint(got) != want {
		t.Errorf("keys, keys with their last value, rows with their group: %v, want %v", got, want)
	}
}

func TestAnotherTransactionInTheWayIsWaitedFor(t *testing.T) {
	pg := pgtest.Shared(t)
	dsn := pg.Database(t)
	pg.Exec(t, dsn, "CREATE TABLE t (k int PRIMARY KEY, n int)")
	s := spec(t, dsn+"&options=-c%20lock_timeout%3D200ms", "t", `"columns":{"k":"$.k","n":"$.n"},"on_conflict":{"keys":["k"],"do":"update"}`)
	r := start(t, surgetank.QueueConfig{Retry: surgetank.RetryConfig{MaxAttempts: 1}}, s)
	r.publish(`{"k":1,"n":1}`)
	r.until("the first row", func(s sink.Status) bool { return s.Applied == 1 })

	target, err := New(s)
	if err != nil {
		t.Fatal(err)
	}
	other, err := target.(*Target).connect(context.Background(), "other")
	if err != nil {
		t.Fatal(err)
	}
	conn := other.PgConn
	defer hangUp(conn)
	if err := exec(context.Background(), conn, "BEGIN; UPDATE t SET n = 5"); err != nil {
		t.Fatal(err)
	}
	r.publish(`{"k":1,"n":2}`, `{"k":2,"n":2}`)
	r.until("a retry", func(s sink.Status) bool { return s.Retries > 0 && strings.Contains(s.LastError, "55P03") })
	if err := exec(context.Background(), conn, "COMMIT"); err != nil {
		t.Fatal(err)
	}
	r.until("all rows", func(s sink.Status) bool { return s.Applied == 3 && s.Parked == 0 })
	if got := fmt.Sprint(pg.Query(t, dsn, "SELECT k, n FROM t ORDER BY k")); got != "[[1 2] [2 2]]" {
		t.Error(got)
	}
}
