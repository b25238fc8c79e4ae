package postgres

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/pgtest"
	"github.com/surgetank/surgetank/sink"
)

const sumColumns = `"columns":{"id":"$.id","hits":"$.hits","bytes":"$.bytes","last":"$.last"},"on_conflict":{"keys":["id"],"do":"add","add":["hits","bytes"]}`

// TestSums: the rows of a batch with the same key are added to each other and to the existing row.
// The other columns get the values of the last message.
func TestSums(t *testing.T) {
	pg := pgtest.Shared(t)
	dsn := pg.Database(t)
	pg.Exec(t, dsn, `CREATE TABLE t (id text PRIMARY KEY, hits int DEFAULT 1, bytes numeric(20,2), last text)`)
	pg.Exec(t, dsn, `INSERT INTO t VALUES ('a', 10, NULL, 'old')`)
	s := spec(t, dsn, "t", sumColumns)
	checked(t, s)
	var msgs []surgetank.Delivery
	for _, body := range []string{
		`{"id":"a","hits":1,"bytes":0.10,"last":"first"}`, `{"id":"b","hits":2,"bytes":7,"last":"b1"}`, `{"id":"a","hits":2,"bytes":0.20,"last":"second"}`,
		`{"id":"a","last":"third"}`, `{"id":"b","hits":null,"bytes":null,"last":"b2"}`, `{"id":"c","hits":null,"bytes":null}`, `{"id":"a","hits":-5,"bytes":1e2,"last":"fourth"}`,
	} {
		msgs = append(msgs, surgetank.Delivery{Message: surgetank.Message{Body: []byte(body)}})
	}
	added, err := deliver(t, s, msgs...)
	if err != nil {
		t.Fatal(added, err)
	}
	got := fmt.Sprint(pg.Query(t, dsn, "SELECT id, coalesce(hits::text, 'null'), coalesce(bytes::text, 'null'), coalesce(last, 'null') FROM t ORDER BY id"))
	if want := "[[a 9 100.30 fourth] [b 2 7.00 b2] [c null null null]]"; got != want { // the message without hits counts its column's default
		t.Errorf("got %s, want %s", got, want)
	}
}

// TestSumsRefused: a column that cannot be added is refused when the sink is set.
func TestSumsRefused(t *testing.T) {
	pg := pgtest.Shared(t)
	dsn := pg.Database(t)
	pg.Exec(t, dsn, `CREATE TABLE t (id text PRIMARY KEY, hits text, bytes bigint, last text)`)
	target, err := New(spec(t, dsn, "t", sumColumns))
	if err != nil {
		t.Fatal(err)
	}
	if err := target.Check(context.Background()); err == nil || !strings.Contains(err.Error(), "sum(text)") {
		t.Errorf("a text column was accepted: %v", err)
	}
}

// TestASumThatDoesNotFit: only the messages whose sum does not fit are parked.
func TestASumThatDoesNotFit(t *testing.T) {
	pg := pgtest.Shared(t)
	dsn := pg.Database(t)
	pg.Exec(t, dsn, `CREATE TABLE t (id text PRIMARY KEY, hits int, bytes bigint, last text)`)
	pg.Exec(t, dsn, `INSERT INTO t VALUES ('full', 2147483640, 0, '')`)
	s := spec(t, dsn, "t", sumColumns)
	var msgs []surgetank.Delivery
	for _, body := range []string{`{"id":"full","hits":1}`, `{"id":"b","hits":2}`, `{"id":"full","hits":100}`} {
		msgs = append(msgs, surgetank.Delivery{Message: surgetank.Message{Body: []byte(body)}})
	}
	_, err := deliver(t, s, msgs...)
	if e, ok := err.(*sink.Error); !ok || !e.Class.OfRow() {
		t.Errorf("the error of a sum is not an error of a row: %v", err)
	}
}

// TestSumsThroughFailures: counters are exact after crashes of PostgreSQL, of the network and of
// the broker, in the middle of commits. A trigger counts the rows that were written.
func TestSumsThroughFailures(t *testing.T) {
	pg := pgtest.Start(t)
	const counters = 12
	n, rounds := 40_000, 12
	if testing.Short() {
		n, rounds = 12_000, 6
	}
	c := &chaos{t: t, rng: rand.New(rand.NewPCG(9, 9)), pg: pg, proxy: pgtest.NewProxy(t, pg.Addr()), dsn: pg.Database(t), dir: t.TempDir(), columns: sumColumns}
	pg.Exec(t, c.dsn, `CREATE TABLE t (id text PRIMARY KEY, hits bigint NOT NULL, bytes bigint NOT NULL, last bigint);
		CREATE TABLE written (id text);
		CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO written VALUES (NEW.id); RETURN NULL; END $$;
		CREATE TRIGGER note AFTER INSERT OR UPDATE ON t FOR EACH ROW EXECUTE FUNCTION note()`)
	checked(t, spec(t, c.dsn, "t", sumColumns))
	c.open()
	defer func() { c.close(true) }()
	ctx := context.Background()
	_, _, err := c.broker.DeclareQueue(ctx, "q", surgetank.QueueConfig{}, surgetank.DeclareNew)
	c.must(err)
	hits, bytes := map[int]int{}, map[int]int{}
	for i := 0; i < n; i += 500 {
		var msgs []surgetank.Publishing
		for j := i; j < i+500; j++ {
			k := min(c.rng.IntN(counters), c.rng.IntN(counters)) // lower counters are hit more often
			hits[k]++
			bytes[k] += j
			msgs = append(msgs, surgetank.Publishing{Queues: []string{"q"}, Message: surgetank.Message{Body: fmt.Appendf(nil, `{"id":"counter %d","hits":1,"bytes":%d,"last":%d,"pad":%q}`, k, j, j, strings.Repeat("x", 100))}})
		}
		_, err := c.broker.Publish(ctx, msgs)
		c.must(err)
	}
	c.failures(rounds, 60_000)
	var want [][]string
	for k := range counters {
		if hits[k] > 0 {
			want = append(want, []string{fmt.Sprintf("counter %d", k), fmt.Sprint(hits[k]), fmt.Sprint(bytes[k])})
		}
	}
	got := pg.Query(t, c.dsn, "SELECT id, hits, bytes FROM t ORDER BY substr(id, 9)::int")
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("counters %v, want %v", got, want)
	}
	written := pg.Query(t, c.dsn, "SELECT count(*) FROM written")[0][0]
	t.Logf("%d messages, %s rows written; the sink: %+v", n, written, c.sink.Status())
}
