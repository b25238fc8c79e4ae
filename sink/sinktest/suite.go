// Package sinktest tests targets of sinks. Run is the test suite that every target passes. Memory
// is a target in memory, and Faults makes a target fail on request.
package sinktest

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/door"
	"github.com/surgetank/surgetank/internal/door/doortest"
	"github.com/surgetank/surgetank/internal/hidden"
	"github.com/surgetank/surgetank/sink"
)

// Row is one row of the suite's table. Rows are ordered by insertion.
//
//	id     message.id, not a key: a message applied twice is visible
//	grp    message.group, null or text
//	v      $.v, an integer of at least 0, never null
type Row struct {
	ID, Group string
	V         int64
}

// Harness is one empty database with the suite's table.
type Harness interface {
	// Spec returns a sink that writes to the table, with the columns of Row.
	Spec() sink.Spec
	// Target makes another handle to the same database, as another process would.
	Target(sink.Spec) (sink.Target, error)
	// Rows reads the table in the order of insertion.
	Rows() ([]Row, error)
}

// Config is the input of Run.
type Config struct {
	New       func(t *testing.T, seed uint64) Harness
	Bubble    bool // run in a synctest bubble: waiting costs no real time, and a hang is detected
	Histories int  // number of seeds of the history test
	Judge     bool // New returns a Memory, so the judgement tests run too
	Calm      bool // few faults, for targets where a pause costs real time
}

// Claim returns a claim for direct calls of a target's Open. It is the claim of a new sink on a
// queue that never had a message.
func Claim(lanes int) sink.Claim {
	c := sink.Claim{Instance: "i", Sink: "s", Owner: "o", Lanes: lanes}
	*hidden.Of(&c) = func(...door.NumberRange) (door.History, error) {
		return door.History{Queue: 1, Floor: 1, Next: 1}, nil
	}
	return c
}

// TableSpec makes a spec for Row's table.
func TableSpec(kind, address, table string) sink.Spec { return tableSpec(kind, address, table) }

func tableSpec(kind, address, table string) sink.Spec {
	column := func(name, from string) sink.Column {
		s, err := sink.ParseSource(from)
		if err != nil {
			panic(err) // a constant of this file is wrong
		}
		return sink.Column{Name: name, From: s}
	}
	return sink.Spec{Queue: "q", Kind: kind, Address: address, Lanes: 1, Table: sink.TableSpec{Table: table,
		Columns: []sink.Column{column("id", "message.id"), column("grp", "message.group"), column("v", "$.v")}},
		Batch: sink.BatchSpec{Max: 10, Wait: time.Millisecond}}
}

var seedFlag = flag.Uint64("seed", 0, "run only the history with this seed")

// Run runs the suite that every target must pass.
func Run(t *testing.T, c Config) {
	tests := map[string]func(t *testing.T, h Harness){
		"AppliesAndAcks": testApplies,
		"BadRows":        testBadRows,
		"TakesOver":      testTakesOver,
		"QueueMadeAnew":  testRemade,
		"RefusesRewound": testRewound,
		"MoreAndLess":    testLanesChange,
	}
	for _, name := range slices.Sorted(maps.Keys(tests)) {
		t.Run(name, func(t *testing.T) {
			c.bubble(t, func(t *testing.T) { tests[name](t, c.New(t, 1)) })
		})
	}
	c.seeds(t, "Histories", func(t *testing.T, h Harness, seed uint64, seen map[string]int) { history(t, h, seed, c.Calm, seen) })
	if c.Judge {
		c.seeds(t, "Judgements", func(t *testing.T, h Harness, seed uint64, seen map[string]int) { judgement(t, h.(*Memory), seed, seen) })
	}
}

// seeds runs a test for each seed.
func (c Config) seeds(t *testing.T, name string, f func(t *testing.T, h Harness, seed uint64, seen map[string]int)) {
	t.Run(name, func(t *testing.T) {
		first, last := uint64(1), uint64(c.Histories)
		if testing.Short() {
			last = max(3, last/10)
		}
		if *seedFlag != 0 {
			first, last = *seedFlag, *seedFlag
		}
		seen := map[string]int{}
		for seed := first; seed <= last && !t.Failed(); seed++ {
			c.bubble(t, func(t *testing.T) { f(t, c.New(t, seed), seed, seen) })
		}
		t.Logf("%d histories; injected %v", last-first+1, seen)
	})
}

func (c Config) bubble(t *testing.T, f func(t *testing.T)) {
	if c.Bubble {
		synctest.Test(t, f)
		return
	}
	f(t)
}

// patience limits a wait for an event that must happen. It does not limit performance: inside a
// synctest bubble waiting costs no real time.
const patience = 10 * time.Minute

func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

func start(t *testing.T, b surgetank.Broker, h Harness, spec sink.Spec, faults *Faults) *sink.Runner {
	t.Helper()
	target, err := h.Target(spec)
	if err != nil {
		t.Fatal(err)
	}
	if faults != nil {
		target = faults.Wrap(target)
	}
	r, err := sink.NewRunner(b, target, "s", strings.Repeat("a", 32), spec, sink.Options{Lease: 3 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	r.Start()
	return r
}

func drain(t *testing.T, b *doortest.Broker, r *sink.Runner) {
	t.Helper()
	if err := b.Drained(within(t)); err != nil {
		t.Fatalf("%d messages are left; the sink: %+v", b.Open(), r.Status())
	}
}

func ended(t *testing.T, r *sink.Runner) sink.Status {
	t.Helper()
	select {
	case <-r.Done():
	case <-within(t).Done():
		t.Fatalf("the sink did not end: %+v", r.Status())
	}
	return r.Status()
}

func body(v int64) []byte { return fmt.Appendf(nil, `{"v":%d}`, v) }

func testApplies(t *testing.T, h Harness) {
	b := doortest.NewBroker("q")
	defer b.Close()
	for i := range int64(25) {
		b.Add(surgetank.Message{Body: body(i), Group: "g"})
	}
	r := start(t, b, h, h.Spec(), nil)
	drain(t, b, r)
	r.Stop(context.Background())
	rows, err := h.Rows()
	if err != nil {
		t.Fatal(err)
	}
	if len(rows) != 25 {
		t.Fatalf("%d rows, want 25", len(rows))
	}
	for i, row := range rows {
		if want := (Row{ID: fmt.Sprintf("1-%d", i+1), Group: "g", V: int64(i)}); row != want {
			t.Errorf("row %d is %+v, want %+v", i, row, want)
		}
	}
	if st := r.Status(); st.Applied != 25 || st.State != sink.StateStopped || st.Parked != 0 || st.Duplicates != 0 || st.Batches < 3 {
		t.Errorf("status %+v", st)
	}
}

func testBadRows(t *testing.T, h Harness) {
	b := doortest.NewBroker("q")
	defer b.Close()
	bodies := []string{`{"v":0}`, `{"v":-1}`, `{"v":1}`, `{`, `{"v":2}`, `{"w":1}`, `{"v":"x"}`, `{"v":null}`, `{"v":3}`, `{"v":-4}`,
		`{"v":-5}`, `{"v":-6}`, `{"v":4}`, ``}
	for _, s := range bodies {
		b.Add(surgetank.Message{Body: []byte(s), Group: "g"})
	}
	spec := h.Spec()
	spec.Batch.Max = 20
	r := start(t, b, h, spec, nil)
	drain(t, b, r)
	r.Stop(context.Background())
	rows, err := h.Rows()
	if err != nil {
		t.Fatal(err)
	}
	var got []int64
	for _, row := range rows {
		got = append(got, row.V)
	}
	if want := []int64{0, 1, 2, 3, 4}; !slices.Equal(got, want) {
		t.Errorf("rows %v, want %v", got, want)
	}
	dead := b.Dead()
	if len(dead) != 9 || r.Status().Parked != 9 {
		t.Errorf("%d messages parked, want 9: %v", len(dead), dead)
	}
	for _, d := range dead {
		if d.Reason == "" || len(d.Reason) > 1024 {
			t.Errorf("message %v was parked with the reason %q", d.ID, d.Reason)
		}
	}
}

func testTakesOver(t *testing.T, h Harness) {
	b := doortest.NewBroker("q")
	defer b.Close()
	b.Add(surgetank.Message{Body: body(1)})
	first := start(t, b, h, h.Spec(), nil)
	drain(t, b, first)
	second := start(t, b, h, h.Spec(), nil)
	defer second.Stop(context.Background())
	// The older sink detects the newer one at its next commit. The broker chooses which sink gets a
	// message, so several messages can be needed.
	for i := range int64(1000) {
		b.Add(surgetank.Message{Body: body(i)})
		drain(t, b, second)
		select {
		case <-first.Done():
			if st := first.Status(); st.State != sink.StateFenced || st.Error == "" {
				t.Errorf("the older sink ended with %+v", st)
			}
			rows, err := h.Rows()
			if err != nil {
				t.Fatal(err)
			}
			if len(rows) != int(i)+2 {
				t.Errorf("%d rows, want %d", len(rows), i+2)
			}
			return
		default:
		}
	}
	t.Errorf("the older sink was never fenced: %+v", first.Status())
}

func testRemade(t *testing.T, h Harness) {
	b := doortest.NewBroker("q")
	defer b.Close()
	for i := range int64(5) {
		b.Add(surgetank.Message{Body: body(i)})
	}
	r := start(t, b, h, h.Spec(), nil)
	defer r.Stop(context.Background())
	drain(t, b, r)
	b.Remake()
	for i := range int64(3) {
		b.Add(surgetank.Message{Body: body(i)})
	}
	drain(t, b, r)
	rows, err := h.Rows()
	if err != nil {
		t.Fatal(err)
	}
	if len(rows) != 8 {
		t.Errorf("%d rows, want 8: numbers of the old queue were treated as numbers of the new queue", len(rows))
	}
}

func testRewound(t *testing.T, h Harness) {
	b := doortest.NewBroker("q")
	defer b.Close()
	for i := range int64(30) {
		b.Add(surgetank.Message{Body: body(i)})
		if i == 20 {
			r := start(t, b, h, h.Spec(), nil)
			drain(t, b, r)
			r.Stop(context.Background())
		}
	}
	r := start(t, b, h, h.Spec(), nil) // stores the current floor
	drain(t, b, r)
	r.Stop(context.Background())
	b.Rewind()
	r = start(t, b, h, h.Spec(), nil)
	if st := ended(t, r); st.State != sink.StateRefused || !strings.Contains(st.Error, "older") {
		t.Errorf("a broker restored from an old copy: %+v", st)
	}
}

func testLanesChange(t *testing.T, h Harness) {
	b := doortest.NewBroker("q")
	defer b.Close()
	faults := NewFaults(9, 0)
	total := 0
	for _, lanes := range []int{4, 1, 7, 2} {
		for i := range int64(40) {
			b.Add(surgetank.Message{Body: body(i), Group: fmt.Sprint(i % 11)})
			total++
		}
		spec := h.Spec()
		spec.Lanes = lanes
		r := start(t, b, h, spec, faults)
		drain(t, b, r)
		b.Kill()
		ended(t, r)
		b.Restart()
	}
	rows, err := h.Rows()
	if err != nil {
		t.Fatal(err)
	}
	if len(rows) != total {
		t.Errorf("%d rows, want %d", len(rows), total)
	}
}

// history runs a sink through random events. The target fails at every point, leases and acks are
// lost, the broker is killed and restarted, the number of lanes changes, and a second sink opens
// the target. At the end the row of every good message must exist once, every bad message must be
// parked, and each group must be in order.
func history(t *testing.T, h Harness, seed uint64, calm bool, seen map[string]int) {
	rng := rand.New(rand.NewPCG(seed, 3))
	b := doortest.NewBroker("q")
	defer b.Close()
	b.GroupLimit = rng.IntN(3)
	lose := rng.Float64() * 0.05
	loseRng := rand.New(rand.NewPCG(seed, 4))
	rates := []float64{0, 0.05, 0.2, 0.4}
	if calm {
		rates = []float64{0.05, 0.1}
	}
	faults := NewFaults(seed, rates[rng.IntN(len(rates))])

	good, bad := map[string]int64{}, map[string]bool{}
	groups := 1 + rng.IntN(12)
	publish := func(n int) {
		for range n {
			m := surgetank.Message{}
			if g := rng.IntN(groups + 1); g > 0 {
				m.Group = fmt.Sprint("g", g)
			}
			v := rng.Int64N(1000)
			wrong := rng.IntN(15) == 0
			m.Body = body(v)
			if wrong {
				m.Body = []byte([]string{`{"v":-1}`, `{"v":"no"}`, `[]`, `{"v":`}[rng.IntN(4)])
			}
			if id := b.Add(m); wrong {
				bad[id.String()] = true
			} else {
				good[id.String()] = v
			}
		}
	}
	spec := func() sink.Spec {
		s := h.Spec()
		s.Lanes = 1 + rng.IntN(5)
		s.Batch.Max = 1 + rng.IntN(20)
		return s
	}
	publish(50 + rng.IntN(100))
	b.SetLoseAck(func() bool { return loseRng.Float64() < lose }) // called with the broker's lock held
	r := start(t, b, h, spec(), faults)
	for range 2 + rng.IntN(6) {
		publish(rng.IntN(40))
		if err := b.Await(within(t), 1+rng.IntN(8)); err != nil {
			t.Fatalf("seed %d: the sink makes no progress; the sink: %+v", seed, r.Status())
		}
		switch rng.IntN(5) {
		case 0:
			b.LoseLeases()
		case 1:
			b.Kill()
			ended(t, r)
			b.Restart()
			r = start(t, b, h, spec(), faults)
		case 2:
			r.Stop(context.Background())
			r = start(t, b, h, spec(), faults)
		case 3:
			second := start(t, b, h, spec(), faults)
			publish(20)
			if r = survivor(t, b, r, second); r == nil {
				r = start(t, b, h, spec(), faults)
			}
		}
	}
	faults.Stop()
	b.SetLoseAck(nil)
	if err := b.Drained(within(t)); err != nil {
		t.Fatalf("seed %d: %d messages are left; the sink: %+v", seed, b.Open(), r.Status())
	}
	r.Stop(context.Background())
	for k, v := range faults.Seen() {
		seen[k] += v
	}
	verify(t, h, b, seed, good, bad)
}

// survivor waits until one of two sinks is fenced and returns the other sink. If no messages are
// left to commit, possibly neither sink is fenced. Then both are stopped.
func survivor(t *testing.T, b *doortest.Broker, first, second *sink.Runner) *sink.Runner {
	ctx, cancel := context.WithCancel(within(t))
	defer cancel()
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		_ = b.Drained(ctx)
	}()
	defer func() { cancel(); <-drained }()
	select {
	case <-first.Done():
		return second
	case <-second.Done():
		return first
	case <-drained:
		first.Stop(context.Background())
		second.Stop(context.Background())
		return nil
	}
}

func verify(t *testing.T, h Harness, b *doortest.Broker, seed uint64, good map[string]int64, bad map[string]bool) {
	t.Helper()
	rows, err := h.Rows()
	if err != nil {
		t.Fatal(err)
	}
	last := map[string]uint64{}
	count := map[string]int{}
	for _, row := range rows {
		count[row.ID]++
		if v, ok := good[row.ID]; !ok || v != row.V {
			t.Errorf("seed %d: row %+v does not belong to a good message", seed, row)
		}
		id, err := surgetank.ParseMessageID(row.ID)
		if err != nil {
			t.Fatal(err)
		}
		if row.Group != "" && id.Seq <= last[row.Group] {
			t.Errorf("seed %d: in group %s message %d came after %d", seed, row.Group, id.Seq, last[row.Group])
		}
		last[row.Group] = id.Seq
	}
	for id := range good {
		if count[id] != 1 {
			t.Errorf("seed %d: message %s has %d rows", seed, id, count[id])
		}
	}
	dead := map[string]int{}
	for _, d := range b.Dead() {
		dead[d.ID.String()]++
	}
	if !maps.EqualFunc(dead, bad, func(n int, _ bool) bool { return n == 1 }) {
		t.Errorf("seed %d: parked %v, bad were %v", seed, dead, bad)
	}
}
