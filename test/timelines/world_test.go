package timelines

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/broker"
	"github.com/surgetank/surgetank/internal/commitlog"
	"github.com/surgetank/surgetank/internal/memlog"
	"github.com/surgetank/surgetank/sink"
	"github.com/surgetank/surgetank/sink/sinktest"
	"github.com/surgetank/surgetank/test/targets/judge"
)

// world is one run.
type world struct {
	t      *testing.T
	rng    *rand.Rand
	log    []string
	db     *sinktest.Memory
	faults *sinktest.Faults
	dirs   []*directory

	messages map[int]*judge.Message
	next     int
	erased   []int // messages that were written and whose rows the user deleted
	causes   judge.Cause
	lanes    int
	grouped  bool
	moment   *moment
	saved    *saved
}

// moment is an earlier state of the database.
type moment struct {
	at     sinktest.Moment
	erased []int
}

// saved is an earlier state of a directory.
type saved struct {
	store *memlog.Store
	holds map[int]judge.Presence
}

// directory is one data directory and the process that uses it.
type directory struct {
	name  string
	store *memlog.Store
	holds map[int]judge.Presence

	b    *broker.Broker
	m    *sink.Manager
	gate *gate
}

func (w *world) say(format string, args ...any) {
	w.log = append(w.log, fmt.Sprintf(format, args...))
}

// spec returns the sink's settings. The in-memory database ignores the address in the settings.
func (w *world) spec() []byte {
	return fmt.Appendf(nil, `{"queue":"q","sqlite":{"path":"x.db","table":"t","columns":{"id":"message.id","grp":"message.group","v":"$.v"}},"lanes":%d,"batch":{"max":%d,"wait":"2ms"}}`,
		w.lanes, 1+w.rng.IntN(6))
}

// open starts a process with a directory.
func (w *world) open(d *directory) {
	w.t.Helper()
	b, err := broker.Open(broker.Options{
		Snapshots: d.store.Snapshots(), Seed: w.rng.Uint64(),
		OpenLog: func(from commitlog.Offset, _ broker.LogHooks) (commitlog.Replay, commitlog.Log, error) {
			return d.store.Open(memlog.Options{From: from})
		},
	})
	if err != nil {
		w.t.Fatal(err)
	}
	d.b, d.gate = b, &gate{faults: w.faults}
	factory := func(s sink.Spec) (sink.Target, error) {
		target, err := w.db.Target(s)
		return d.gate.wrap(w.faults.Wrap(target)), err
	}
	// Each process has its own random numbers, because processes recognize themselves by random
	// ids.
	seed := rand.New(rand.NewPCG(w.rng.Uint64(), w.rng.Uint64()))
	var mu sync.Mutex
	random := func() uint64 { mu.Lock(); defer mu.Unlock(); return seed.Uint64() }
	d.m, err = sink.NewManager(context.Background(), b, map[string]sink.Factory{"sqlite": factory},
		sink.Options{Lease: 3 * time.Second, Rand: random, Logger: slog.New(slog.NewTextHandler(w.logger(), nil))})
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) logger() io.Writer {
	if *seedFlag == 0 {
		return io.Discard
	}
	return w.t.Output()
}

// shut ends a process in order.
func (w *world) shut(d *directory) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	d.m.Close(ctx)
	if err := d.b.Close(); err != nil {
		w.t.Error(err)
	}
}

// crash ends a process at this instant. The durable part of its log and its commits in the database
// remain. The log ends before or after the connections, so some committed messages lose their acks.
func (w *world) crash(d *directory) {
	var left *memlog.Store
	if w.rng.IntN(2) == 0 {
		left = d.store.Copy()
		d.gate.sever()
	} else {
		d.gate.sever()
		left = d.store.Copy()
	}
	w.shut(d) // the process's later actions reach neither the log nor the database
	d.store = left
}

func newWorld(t *testing.T, seed uint64) *world {
	rng := rand.New(rand.NewPCG(seed, 3))
	w := &world{t: t, rng: rng, db: sinktest.NewMemory(seed), messages: map[int]*judge.Message{}, lanes: 1 + rng.IntN(3), grouped: rng.IntN(2) == 0}
	w.faults = sinktest.NewFaults(seed, []float64{0, 0.02, 0.1}[rng.IntN(3)])
	d := &directory{name: "a", store: memlog.NewStore(), holds: map[int]judge.Presence{}}
	w.dirs = []*directory{d}
	w.open(d)
	ctx := context.Background()
	config := surgetank.QueueConfig{}
	if _, _, err := d.b.DeclareQueue(ctx, "q", config, surgetank.DeclareNew); err != nil {
		t.Fatal(err)
	}
	if _, _, err := d.m.Put(ctx, "s", w.spec()); err != nil {
		t.Fatal(err)
	}
	return w
}

// publish publishes messages to a directory. All messages are confirmed when it returns.
func (w *world) publish(d *directory, count int) {
	var list []surgetank.Publishing
	var sent []int
	for range count {
		w.next++
		n := w.next
		m := &judge.Message{N: n, Key: fmt.Sprint(n), Poison: w.rng.IntN(40) == 0}
		if w.grouped {
			m.Group = fmt.Sprint(d.name, "-", w.rng.IntN(3))
		}
		v := n
		if m.Poison {
			v = -n
		}
		w.messages[n] = m
		sent = append(sent, n)
		list = append(list, surgetank.Publishing{Queues: []string{"q"}, Message: surgetank.Message{Group: m.Group, Body: fmt.Appendf(nil, `{"v":%d}`, v)}})
	}
	results, err := d.b.Publish(context.Background(), list)
	if err != nil {
		w.t.Fatal(err)
	}
	for i, r := range results {
		if r.Err != nil {
			w.t.Fatal(r.Err)
		}
		d.holds[sent[i]] = judge.Sure
	}
}

// pass waits on the simulated clock while all other goroutines run.
func (w *world) pass(d time.Duration) { <-time.After(d) }

// state returns the sink's status.
func (w *world) state(d *directory) (s sink.Status) {
	text, err := d.m.Get(context.Background(), "s")
	if err == nil {
		err = json.Unmarshal(text, &s)
	}
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

func stopped(s sink.RunState) bool { return s == sink.StateRefused || s == sink.StateFenced }

// drain waits until every queue is empty or its sink has stopped. It returns false if neither
// happens in time.
func (w *world) drain() bool {
	for range 2000 {
		over := true
		for _, d := range w.dirs {
			info, err := d.b.Queue(context.Background(), "q")
			if err != nil {
				w.t.Fatal(err)
			}
			over = over && (info.Ready+info.Leased+info.Delayed+info.Blocked == 0 || stopped(w.state(d).State))
		}
		if over {
			return true
		}
		w.pass(500 * time.Millisecond)
	}
	return false
}

// collect reads the final state into a history.
func (w *world) collect() *judge.History {
	h := &judge.History{Mode: judge.Insert, Messages: w.messages, Causes: w.causes, Removed: map[int]bool{}}
	for _, d := range w.dirs {
		s := w.state(d)
		server := &judge.Server{Name: d.name, Holds: d.holds, State: string(s.State), Reason: s.Error, Waiting: map[int]bool{}, Parked: map[int]string{}}
		for n := range w.peek(d, "q") {
			server.Waiting[n] = true
		}
		server.Parked = w.peek(d, "q.dead")
		h.Servers = append(h.Servers, server)
	}
	h.Applied = append(h.Applied, w.erased...)
	for _, n := range w.erased {
		h.Removed[n] = true
	}
	for _, n := range w.written() {
		h.Applied = append(h.Applied, n)
		h.Rows = append(h.Rows, judge.Row{N: n, Key: fmt.Sprint(n)})
	}
	return h
}

// written lists the messages whose rows are in the table.
func (w *world) written() (list []int) {
	rows, err := w.db.Rows()
	if err != nil {
		w.t.Fatal(err)
	}
	return values(rows)
}

func values(rows []sinktest.Row) (list []int) {
	for _, r := range rows {
		list = append(list, int(r.V))
	}
	return list
}

func (w *world) peek(d *directory, queue string) map[int]string {
	found := map[int]string{}
	list, err := d.b.Peek(context.Background(), queue, surgetank.PeekOptions{Max: 1000, MaxBytes: 1 << 20})
	if surgetank.CodeOf(err) == surgetank.CodeNotFound {
		return found
	}
	if err != nil {
		w.t.Fatal(err)
	}
	for _, m := range list {
		n := 0
		if _, err := fmt.Sscanf(string(m.Body), `{"v":%d}`, &n); err != nil {
			w.t.Fatal(err)
		}
		reason := ""
		if len(m.Deaths) > 0 {
			reason = m.Deaths[0].Detail
		}
		found[max(n, -n)] = reason
	}
	return found
}

func (w *world) save(d *directory) *saved {
	return &saved{store: d.store.Copy(), holds: maps.Clone(d.holds)}
}
