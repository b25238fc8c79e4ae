package lease_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/lease"
	"github.com/surgetank/surgetank/internal/natstest"
)

// limit is the longest time of one wait. It is an error only, never a measurement.
const limit = 90 * time.Second

// member is a node of a test with a supervisor for each log.
type member struct {
	*lease.Node
	t     testing.TB
	conn  *nats.Conn
	terms chan *lease.Term
}

// options are the options of a test's nodes: the times are shorter than the defaults if tests wait
// for them.
func options(bucket, name string) lease.Options {
	return lease.Options{Name: name, Address: "addr-" + name, Bucket: bucket, Pause: 200 * time.Millisecond, TTL: time.Minute}
}

// connect connects to server i, and to the others when it is gone.
func connect(t testing.TB, c *natstest.Cluster, i int) *nats.Conn {
	t.Helper()
	nc, err := nats.Connect(c.URL(i%3)+","+c.URLs(), nats.DontRandomize(), nats.MaxReconnects(-1), nats.ReconnectBufSize(-1), nats.ReconnectWait(50*time.Millisecond), nats.PingInterval(2*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc
}

func logNames(n int) (names []string) {
	for i := range n {
		names = append(names, fmt.Sprintf("l%02d", i))
	}
	return names
}

// join opens a node that campaigns for logs.
func join(t testing.TB, nc *nats.Conn, o lease.Options, logs []string) *member {
	t.Helper()
	if testing.Verbose() {
		o.Logger = slog.New(slog.NewTextHandler(t.Output(), nil)).With("name", o.Name)
	}
	n, err := lease.Open(t.Context(), nc, o)
	if err != nil {
		t.Fatal(err)
	}
	m := &member{Node: n, t: t, conn: nc, terms: make(chan *lease.Term, 1000)}
	t.Cleanup(n.Close)
	for _, l := range logs {
		c, err := n.Campaign(l)
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			for term := range c {
				m.terms <- term
				select {
				case <-term.Leave():
					term.Resign()
				case <-term.Lost():
				}
			}
		}()
	}
	return m
}

// await waits until the node's table fulfils a condition.
func (m *member) await(what string, ok func(*lease.Table) bool) {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(m.t.Context(), limit)
	defer cancel()
	for {
		table, changed := m.Table()
		if ok(table) {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			m.t.Fatalf("waited for: %s; the table is %+v", what, table)
		}
	}
}

// owners returns the number of logs that each node owns, by its name.
func owners(table *lease.Table) map[string]int {
	m := map[string]int{}
	for _, o := range table.Owners {
		m[o.Name]++
	}
	return m
}

// awaitOwners waits until nodes own all logs.
func (m *member) awaitOwners(logs int, names ...string) {
	m.t.Helper()
	m.await(fmt.Sprintf("%d logs owned by %v", logs, names), func(table *lease.Table) bool {
		n := 0
		for _, name := range names {
			n += owners(table)[name]
		}
		return n == logs && len(table.Owners) == logs
	})
}

// term waits for a term of the node.
func (m *member) term() *lease.Term {
	m.t.Helper()
	select {
	case term := <-m.terms:
		return term
	case <-time.After(limit):
		m.t.Fatal("no term began")
		return nil
	}
}

func wait(t *testing.T, what string, c <-chan struct{}) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(limit):
		t.Fatalf("waited for: %s", what)
	}
}

// TestCluster runs nodes on three NATS servers. Each test has its own bucket.
func TestCluster(t *testing.T) {
	c := natstest.Start(t, natstest.Options{Servers: 3})
	t.Run("nodes", func(t *testing.T) {
		for _, test := range []struct {
			name string
			run  func(*testing.T, *natstest.Cluster)
		}{{"Terms", testTerms}, {"Crash", testCrash}, {"Hang", testHang}, {"Replaced", testReplaced}, {"Join", testJoin}, {"Late", testLate}, {"Bucket", testBucket}, {"ConnectionClosed", testConnectionClosed}} {
			t.Run(test.name, func(t *testing.T) { t.Parallel(); test.run(t, c) })
		}
	})
	if testing.Short() {
		return
	}
	t.Run("ServerStops", func(t *testing.T) { testServerStops(t, c) })
}

// testTerms: a term begins, is seen by others with its data, and ends by a resignation and a
// withdrawal.
func testTerms(t *testing.T, c *natstest.Cluster) {
	a := join(t, connect(t, c, 0), options("TERMS", "a"), []string{"x"})
	b := join(t, connect(t, c, 1), options("TERMS", "b"), nil)
	first := a.term()
	if err := first.Announce("epoch 7"); err != nil {
		t.Fatal(err)
	}
	if err := first.Announce(strings.Repeat("x", 1<<20)); surgetank.CodeOf(err) != surgetank.CodeInvalid {
		t.Errorf("a long announcement: %v", err)
	}
	b.await("the announced data", func(table *lease.Table) bool {
		o := table.Owners["x"]
		return o.Node == a.ID() && o.Name == "a" && o.Address == "addr-a" && o.Data == "epoch 7" && o.Term == first.Number
	})
	first.Resign()
	wait(t, "the end of the first term", first.Lost())
	second := a.term()
	if second.Number <= first.Number {
		t.Errorf("term %d follows term %d", second.Number, first.Number)
	}
	first.Resign() // it has ended already
	if err := first.Announce("old"); err != nil {
		t.Error(err)
	}
	a.Withdraw("x")
	wait(t, "the end of the second term", second.Lost())
	if second.Reason() == "" || first.Reason() == second.Reason() {
		t.Errorf("the reasons are %q and %q", first.Reason(), second.Reason())
	}
	b.await("a free log", func(table *lease.Table) bool { return table.Owners["x"].Node == "" })
	if _, owned := b.Owner("x"); owned {
		t.Error("a free log has an owner")
	}
}

// testCrash: a node is gone without a word. The others acquire its logs.
func testCrash(t *testing.T, c *natstest.Cluster) {
	logs := logNames(6)
	a := join(t, connect(t, c, 0), options("CRASH", "a"), logs)
	b := join(t, connect(t, c, 1), options("CRASH", "b"), logs)
	d := join(t, connect(t, c, 2), options("CRASH", "d"), logs)
	d.await("a share for each node", func(table *lease.Table) bool {
		o := owners(table)
		return o["a"] == 2 && o["b"] == 2 && o["d"] == 2
	})
	begin := time.Now()
	a.conn.Close()
	b.awaitOwners(6, "b", "d")
	t.Logf("the logs of the node that was gone have owners after %v", time.Since(begin).Round(time.Millisecond))
	d.await("a share for each node", func(table *lease.Table) bool { return owners(table)["b"] == 3 && owners(table)["d"] == 3 })
}

// testHang: a node hangs, but its connection answers pings. Another node acquires its log. When the
// node continues, its term ends.
func testHang(t *testing.T, c *natstest.Cluster) {
	a := join(t, connect(t, c, 0), options("HANG", "a"), []string{"x"})
	term := a.term()
	b := join(t, connect(t, c, 1), options("HANG", "b"), []string{"x"})
	thaw := a.Freeze()
	begin := time.Now()
	next := b.term()
	t.Logf("the log of the node that hangs has an owner after %v", time.Since(begin).Round(time.Millisecond))
	if reason := term.Reason(); reason != "" || next.Number <= term.Number {
		t.Errorf("term %d begins, and term %d has ended: %q", next.Number, term.Number, reason)
	}
	thaw()
	wait(t, "the end of the term", term.Lost())
}

// testReplaced: a write with the owner's revision replaces a live owner, which stops.
func testReplaced(t *testing.T, c *natstest.Cluster) {
	nc := connect(t, c, 0)
	a := join(t, nc, options("REPLACED", "a"), []string{"x"})
	term := a.term()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	kv, err := js.KeyValue(t.Context(), "REPLACED")
	if err != nil {
		t.Fatal(err)
	}
	for { // a renewal can be faster
		e, err := kv.Get(t.Context(), "log.x")
		if err != nil {
			t.Fatal(err)
		}
		if _, err = kv.Update(t.Context(), "log.x", []byte(`{"node":"other","name":"other"}`), e.Revision()); err == nil {
			break
		}
		if !errors.Is(err, jetstream.ErrKeyExists) {
			t.Fatal(err)
		}
	}
	wait(t, "the end of the term", term.Lost())
	// The other node does not exist, so it is dead after a while.
	if next := a.term(); next.Number <= term.Number {
		t.Errorf("term %d follows term %d", next.Number, term.Number)
	}
}

// testJoin: logs move to nodes that join, and away from a node that is drained.
func testJoin(t *testing.T, c *natstest.Cluster) {
	logs := logNames(6)
	a := join(t, connect(t, c, 0), options("JOIN", "a"), logs)
	a.awaitOwners(6, "a")
	b := join(t, connect(t, c, 1), options("JOIN", "b"), logs)
	b.await("half of the logs", func(table *lease.Table) bool { return owners(table)["b"] == 3 })
	begin := time.Now()
	if err := a.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Logf("3 logs were moved in %v", time.Since(begin).Round(time.Millisecond))
	b.awaitOwners(6, "b")
	a.Undrain()
	a.await("half of the logs", func(table *lease.Table) bool { return owners(table)["a"] == 3 })
	begin = time.Now()
	a.Close()
	b.awaitOwners(6, "b")
	t.Logf("3 logs of a closed node have owners after %v", time.Since(begin).Round(time.Millisecond))
}

// testLate: an owner that does not resign after Leave loses the log.
func testLate(t *testing.T, c *natstest.Cluster) {
	o := options("LATE", "a")
	o.Leave, o.Pause = 100*time.Millisecond, -1
	a, err := lease.Open(t.Context(), connect(t, c, 0), o)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	terms, err := a.Campaign("x")
	if err != nil {
		t.Fatal(err)
	}
	term := <-terms
	b := join(t, connect(t, c, 1), options("LATE", "b"), []string{"x"})
	m := &member{Node: a, t: t}
	m.await("a candidate", func(table *lease.Table) bool { return len(table.Nodes) == 2 && table.Nodes[1].Candidate })
	if err := a.Move("x", b.ID()); err != nil {
		t.Fatal(err)
	}
	wait(t, "Leave", term.Leave())
	wait(t, "the end of the term", term.Lost())
	b.term()
	m.await("the new owner", func(table *lease.Table) bool { return table.Owners["x"].Node == b.ID() })
	if err := a.Move("x", ""); surgetank.CodeOf(err) != surgetank.CodeNotFound {
		t.Errorf("moving another node's log: %v", err)
	}
	if err := b.Move("x", "nobody"); surgetank.CodeOf(err) != surgetank.CodeInvalid {
		t.Errorf("moving a log to an unknown node: %v", err)
	}
}

// testBucket: a bucket with other settings and unfit connections and options are refused.
func testBucket(t *testing.T, c *natstest.Cluster) {
	nc := connect(t, c, 0)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateKeyValue(t.Context(), jetstream.KeyValueConfig{Bucket: "OTHER", History: 2, Replicas: 3}); err != nil {
		t.Fatal(err)
	}
	plain, err := nats.Connect(c.URL(0))
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	for name, open := range map[string]func() (*lease.Node, error){
		"bucket":     func() (*lease.Node, error) { return lease.Open(t.Context(), nc, options("OTHER", "a")) },
		"connection": func() (*lease.Node, error) { return lease.Open(t.Context(), plain, options("GOOD", "a")) },
		"name":       func() (*lease.Node, error) { return lease.Open(t.Context(), nc, options("GOOD", "")) },
		"TTL": func() (*lease.Node, error) {
			return lease.Open(t.Context(), nc, lease.Options{Name: "a", TTL: 1500 * time.Millisecond})
		},
	} {
		if n, err := open(); surgetank.CodeOf(err) != surgetank.CodeInvalid || err == nil {
			t.Errorf("%s: %v, %v", name, n, err)
		}
	}
}

// testConnectionClosed: when its connection is closed, a node ends all its terms.
func testConnectionClosed(t *testing.T, c *natstest.Cluster) {
	nc := connect(t, c, 0)
	a := join(t, nc, options("CLOSED", "a"), []string{"x"})
	term := a.term()
	nc.Close()
	wait(t, "the end of the term", term.Lost())
	wait(t, "the end of the node", a.Done())
	if _, err := a.Campaign("y"); surgetank.CodeOf(err) != surgetank.CodeClosed {
		t.Errorf("a campaign of a closed node: %v", err)
	}
}

// testServerStops: while the bucket's stream has no leader, because two of three servers are gone,
// no log moves. Afterwards nodes work as before.
func testServerStops(t *testing.T, c *natstest.Cluster) {
	logs := logNames(6)
	var nodes []*member
	for i := range 3 {
		o := options("STOPS", fmt.Sprint("n", i))
		o.DeadAfter = 20 * time.Second // the machine can be busy
		nodes = append(nodes, join(t, connect(t, c, i), o, logs))
	}
	spread := func(table *lease.Table) bool {
		o := owners(table)
		return o["n0"] == 2 && o["n1"] == 2 && o["n2"] == 2
	}
	for _, n := range nodes {
		n.await("a share for each node", spread)
	}
	before, _ := nodes[0].Table()
	leader := c.Leader(nodes[0].conn, "KV_STOPS")
	other := (leader + 1) % 3
	c.Halt(leader)
	c.Halt(other)
	for _, n := range nodes {
		n.await("a node that cannot write", func(table *lease.Table) bool { return !table.Able })
	}
	begin := time.Now()
	c.Boot(leader)
	c.Boot(other)
	for _, n := range nodes {
		n.await("a node that can write", func(table *lease.Table) bool { return table.Able })
	}
	t.Logf("the nodes can write again %v after the start of the servers", time.Since(begin).Round(time.Millisecond))
	after, _ := nodes[0].Table()
	for l, o := range before.Owners {
		if now := after.Owners[l]; now.Node != o.Node || now.Term != o.Term {
			t.Errorf("%s had the owner %s in term %d, and has %s in term %d", l, o.Name, o.Term, now.Name, now.Term)
		}
	}
	// The nodes still work.
	begin = time.Now()
	nodes[0].Close()
	nodes[1].awaitOwners(6, "n1", "n2")
	t.Logf("the logs of a closed node have owners after %v", time.Since(begin).Round(time.Millisecond))
}

// BenchmarkTakeover measures the time from the end of a node's connection until another node has
// all its logs.
func BenchmarkTakeover(b *testing.B) {
	c := natstest.Start(b, natstest.Options{Servers: 3})
	logs := logNames(12)
	a := join(b, connect(b, c, 0), options("TAKEOVER", "a"), logs)
	a.awaitOwners(12, "a")
	var times []time.Duration
	for i := range b.N {
		next := join(b, connect(b, c, i+1), options("TAKEOVER", fmt.Sprint("n", i)), logs)
		next.await("half of the logs", func(table *lease.Table) bool { return owners(table)[fmt.Sprint("n", i)] == 6 })
		begin := time.Now()
		a.conn.Close()
		next.awaitOwners(12, fmt.Sprint("n", i))
		times = append(times, time.Since(begin))
		a = next
	}
	slices.Sort(times)
	b.ReportMetric(times[len(times)/2].Seconds()*1000, "median-ms")
	b.ReportMetric(times[len(times)-1].Seconds()*1000, "max-ms")
}
