package postgres

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/embedded"
	"github.com/surgetank/surgetank/internal/pgtest"
	"github.com/surgetank/surgetank/internal/shards/shardstest"
	"github.com/surgetank/surgetank/sink"
)

// chaos is a broker on disk, a sink, a network proxy and a separate PostgreSQL server. Each of them
// fails during the test.
type chaos struct {
	t     *testing.T
	rng   *rand.Rand
	pg    *pgtest.Server
	proxy *pgtest.Proxy
	dsn   string // the server's address, without the proxy
	dir   string
	// columns is the sink's columns as JSON. If it is empty, the sink has the columns of the
	// suite's table.
	columns string
	broker  *embedded.Broker
	sink    *sink.Runner
}

// open opens broker and sink, with a random number of lanes.
func (c *chaos) open() {
	c.t.Helper()
	b, err := embedded.Open(c.dir, embedded.Options{Shards: shardstest.N})
	if err != nil {
		c.t.Fatal(err)
	}
	c.broker = b
	through := strings.Replace(c.dsn, c.pg.Addr(), c.proxy.Addr(), 1)
	s := spec(c.t, through, "t", cmp.Or(c.columns, `"columns":{"id":"message.id","grp":"message.group","v":"$.v"}`))
	s.Lanes, s.Batch.Max = 1+c.rng.IntN(5), 20+c.rng.IntN(300)
	target, err := New(s)
	if err != nil {
		c.t.Fatal(err)
	}
	if c.sink, err = sink.NewRunner(b, target, "s", strings.Repeat("c", 32), s, sink.Options{CommitTimeout: 2 * time.Second, Lease: 5 * time.Second}); err != nil {
		c.t.Fatal(err)
	}
	c.sink.Start()
}

// close ends broker and sink. If kindly is false, commits are interrupted.
func (c *chaos) close(kindly bool) {
	c.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	if !kindly {
		cancel()
	}
	c.sink.Stop(ctx)
	cancel()
	if err := c.broker.Close(); err != nil {
		c.t.Fatal(err)
	}
}

func (c *chaos) must(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

// fail causes a failure of this kind and returns its name.
func (c *chaos) fail(kind int) string {
	c.t.Helper()
	switch kind {
	case 0:
		c.must(c.pg.Kill())
		c.must(c.pg.Start())
		return "kill -9 of PostgreSQL"
	case 1:
		c.proxy.Cut()
		return "connections reset"
	case 2: // data that was sent arrives after the sink has given up
		c.proxy.Hold()
		before := c.sink.Status().Opens
		for st := c.sink.Status(); st.State != sink.StateWaiting && st.Opens == before && st.State == sink.StateRunning; st = c.sink.Status() {
			<-time.After(10 * time.Millisecond)
			if n, err := c.left(); err == nil && n == 0 {
				break
			}
		}
		c.proxy.Release()
		return "network cut for longer than a commit may take"
	case 3:
		if _, err := pgtest.Query(c.dsn, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'surgetank sink %' LIMIT 1"); err != nil {
			c.t.Fatal(err)
		}
		return "one lane's connection ended"
	case 4:
		c.close(false)
		c.open()
		return "broker and sink restarted with commits cut off"
	}
	c.close(true)
	c.open()
	return "broker and sink restarted"
}

func (c *chaos) left() (int64, error) {
	q, err := c.broker.Queue(context.Background(), "q")
	return q.Ready + q.Blocked + q.Delayed + q.Leased, err
}

// failures causes one failure per round, each after the sink has sent about this number of bytes.
// Then it waits until all messages are settled.
func (c *chaos) failures(rounds, bytes int) {
	t := c.t
	t.Helper()
	never := make(chan struct{})
	for i := range rounds {
		stop := time.AfterFunc(30*time.Second, func() { close(never) })
		moved := c.proxy.Await(5_000+c.rng.IntN(bytes), never)
		stop.Stop()
		if left, err := c.left(); !moved || err == nil && left == 0 {
			t.Logf("all done before round %d", i)
			break
		}
		t.Logf("%s: %+v", c.fail(i%6), c.sink.Status())
	}
	deadline := time.After(time.Minute)
	for {
		left, err := c.left()
		c.must(err)
		if left == 0 {
			return
		}
		select {
		case <-deadline:
			t.Fatalf("%d messages are left; the sink: %+v", left, c.sink.Status())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// TestOnceThroughFailures writes 20,000 messages during every kind of failure. Then each good
// message must have exactly one row, in order.
func TestOnceThroughFailures(t *testing.T) {
	pg := pgtest.Start(t)
	const groups = 40
	n, rounds := 20_000, 12
	if testing.Short() {
		n, rounds = 6_000, 6
	}
	c := &chaos{t: t, rng: rand.New(rand.NewPCG(7, 7)), pg: pg, proxy: pgtest.NewProxy(t, pg.Addr()), dsn: pg.Database(t), dir: t.TempDir()}
	pg.Exec(t, c.dsn, suiteTable)
	checked(t, harness{c.dsn}.Spec())
	c.open()
	defer func() { c.close(true) }()
	ctx := context.Background()
	_, _, err := c.broker.DeclareQueue(ctx, "q", surgetank.QueueConfig{Group: surgetank.GroupConfig{MaxInFlight: 1}}, surgetank.DeclareNew)
	c.must(err)
	bad := 0
	for i := 0; i < n; i += 500 {
		var msgs []surgetank.Publishing
		for j := i; j < i+500; j++ {
			v := j
			if j%997 == 0 {
				v, bad = -1, bad+1
			}
			m := surgetank.Message{Body: fmt.Appendf(nil, `{"v":%d,"pad":%q}`, v, strings.Repeat("x", 200))}
			if g := j % (groups + 1); g > 0 {
				m.Group = fmt.Sprint("g", g)
			}
			msgs = append(msgs, surgetank.Publishing{Queues: []string{"q"}, Message: m})
		}
		_, err := c.broker.Publish(ctx, msgs)
		c.must(err)
	}
	c.failures(rounds, 40_000)
	dead, err := c.broker.Queue(ctx, "q.dead")
	c.must(err)
	got := pg.Query(t, c.dsn, `SELECT count(*), count(DISTINCT id),
		(SELECT count(*) FROM (SELECT split_part(id, '-', 2)::int AS seq, lag(split_part(id, '-', 2)::int) OVER (PARTITION BY grp ORDER BY ord) AS before
			FROM t WHERE grp IS NOT NULL) o WHERE seq <= before) FROM t`)[0]
	want := fmt.Sprint([]string{fmt.Sprint(n - bad), fmt.Sprint(n - bad), "0"})
	t.Logf("published %d  applied %s  parked %d  different %s  out of order %s; the sink: %+v", n, got[0], dead.Ready, got[1], got[2], c.sink.Status())
	if fmt.Sprint(got) != want || dead.Ready != int64(bad) {
		t.Errorf("rows, different ids, out of order: %v, want %v; %d parked, want %d", got, want, dead.Ready, bad)
	}
}
