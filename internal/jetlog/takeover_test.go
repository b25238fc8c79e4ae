package jetlog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/surgetank/surgetank/internal/commitlog"
	"github.com/surgetank/surgetank/internal/jetlog/fenced"
	"github.com/surgetank/surgetank/internal/natstest"
)

// ledger is what many owners of one log have confirmed and read.
type ledger struct {
	t     testing.TB
	mu    sync.Mutex
	acked map[string]commitlog.Offset
	long  []string // the longest log that was read
}

func newLedger(t testing.TB) *ledger { return &ledger{t: t, acked: map[string]commitlog.Offset{}} }

func (g *ledger) confirmed(name string, at commitlog.Offset) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.acked[name] = at
}

func (g *ledger) count() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.acked)
}

// read reads a replay and compares it with what is known. Confirmed entries must be there, each
// owner's entries in order and once, and earlier reads must be a beginning of this one.
func (g *ledger) read(replay commitlog.Replay) {
	g.t.Helper()
	g.mu.Lock()
	must := make(map[string]commitlog.Offset, len(g.acked))
	for name, at := range g.acked {
		must[name] = at
	}
	g.mu.Unlock()
	var all []string
	at := map[string]commitlog.Offset{}
	next := map[int]int{}
	newest := 0
	for {
		e, err := replay.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			g.t.Fatal(err)
		}
		name, _, _ := bytes.Cut(e.Data, []byte(" "))
		var owner, n int
		if _, err := fmt.Sscanf(string(name), "%d:%d", &owner, &n); err != nil {
			g.t.Fatalf("entry %q at %d", name, e.Offset)
		}
		if n != next[owner] || owner < newest {
			g.t.Fatalf("entry %q at %d; the next one of owner %d is %d, and the newest owner is %d", name, e.Offset, owner, next[owner], newest)
		}
		next[owner], newest = n+1, owner
		all, at[string(name)] = append(all, string(name)), e.Offset
	}
	for name, offset := range must {
		if at[name] != offset {
			g.t.Fatalf("entry %q was confirmed at %d, and was read at %d", name, offset, at[name])
		}
	}
	for i, name := range g.long {
		if i >= len(all) || all[i] != name {
			g.t.Fatalf("entry %d was %q in an earlier read, and is missing or another one now", i, name)
		}
	}
	g.long = all
	if err := replay.Close(); err != nil {
		g.t.Fatal(err)
	}
}

// writer appends entries until an append fails or stop is called.
type writer struct {
	log    *Log
	ledger *ledger
	number int
	slots  chan struct{}
	quit   chan struct{}
	ended  chan struct{}
	mu     sync.Mutex
	sent   int
	err    error
}

func startWriter(g *ledger, l *Log, number, flight int) *writer {
	w := &writer{log: l, ledger: g, number: number, slots: make(chan struct{}, flight), quit: make(chan struct{}), ended: make(chan struct{})}
	go w.run()
	return w
}

func (w *writer) run() {
	defer close(w.ended)
	body := bytes.Repeat([]byte("x"), 8<<10)
	for i := 0; ; i++ {
		select {
		case <-w.quit:
			return
		case w.slots <- struct{}{}:
		}
		w.mu.Lock()
		failed := w.err != nil
		w.sent = i
		w.mu.Unlock()
		if failed {
			return
		}
		name := fmt.Sprintf("%d:%d", w.number, i)
		w.log.Append(fmt.Appendf(nil, "%s %s", name, body[:(i*977)%len(body)]), func(at commitlog.Offset, err error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			switch {
			case err != nil && w.err == nil:
				w.err = err
			case err == nil && w.err != nil:
				w.ledger.t.Errorf("entry %s was confirmed after an entry had failed", name)
			case err == nil:
				w.ledger.confirmed(name, at)
			}
			<-w.slots
		})
	}
}

// stop ends the writer and closes its log.
func (w *writer) stop() error {
	close(w.quit)
	<-w.ended
	err := w.log.Close()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return w.err
	}
	return err
}

// TestTakeovers: an owner is fenced by the next one again and again, while both write. No confirmed
// entry is lost, none is there twice, and the order is kept. No message has another condition than
// the end of the stream.
func TestTakeovers(t *testing.T) {
	rounds := 25
	if testing.Short() {
		rounds = 8
	}
	r := newRig(t, calm())
	tap, err := r.nc.Subscribe("surgetank.log."+r.id, func(m *nats.Msg) {
		for key := range m.Header {
			if key != headerCondition {
				t.Errorf("a message has the header %s", key)
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tap.Unsubscribe() }() // the connection is open
	g := newLedger(t)
	var writers []*writer
	for i := range rounds {
		o := r.options()
		o.Conn = connect(t, r.cluster.URL(i%3)) // the owners use different servers
		replay, l, err := open(t.Context(), o, 0)
		if err != nil {
			t.Fatal(err)
		}
		g.read(replay)
		before := g.count()
		writers = append(writers, startWriter(g, l, i+1, 12))
		r.cluster.Poll("entries are confirmed", func() bool { return g.count() >= before+25 })
	}
	for i, w := range writers {
		if err := w.stop(); i < len(writers)-1 && !errors.Is(err, commitlog.ErrFenced) || i == len(writers)-1 && err != nil {
			t.Errorf("owner %d ended with %v", i+1, err)
		}
	}
	replay, l, err := open(t.Context(), r.options(), 0)
	if err != nil {
		t.Fatal(err)
	}
	g.read(replay)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d takeovers, %d confirmed entries, %d in the log", rounds, g.count(), len(g.long))
}

// gate delays the Sends of a stream until it is opened.
type gate struct {
	fenced.Stream
	mu     sync.Mutex
	isShut bool
	held   []func() error
}

func (g *gate) Send(epoch, n, after uint64, record []byte) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	send := func() error { return g.Stream.Send(epoch, n, after, record) }
	if !g.isShut {
		return send()
	}
	record = bytes.Clone(record)
	g.held = append(g.held, send)
	return nil
}

func (g *gate) shut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.isShut = true
}

// open sends what was delayed.
func (g *gate) open() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.isShut = false
	for _, send := range g.held {
		if err := send(); err != nil {
			return err
		}
	}
	return nil
}

// TestVoidBlobs: appends of a fenced owner that were delayed arrive after the fence. The server
// stores the second one and confirms it, because it names the fence's position. It is void: its
// owner does not confirm it, and nobody reads it.
func TestVoidBlobs(t *testing.T) {
	r := newRig(t, calm())
	var way *gate
	o := r.options()
	o.stream = func(s fenced.Stream) fenced.Stream { way = &gate{Stream: s}; return way }
	replay, old, err := open(t.Context(), o, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := replay.Close(); err != nil {
		t.Fatal(err)
	}
	way.shut()
	const n = 4
	results := make(chan error, n)
	for i := range n {
		old.Append([]byte{byte(i)}, func(_ commitlog.Offset, err error) { results <- err })
	}
	r.cluster.Poll("the old owner has sent its entries", func() bool { way.mu.Lock(); defer way.mu.Unlock(); return len(way.held) == n })
	replay, next, err := open(t.Context(), r.options(), 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := way.open(); err != nil {
		t.Fatal(err)
	}
	for range n {
		if err := <-results; !errors.Is(err, commitlog.ErrFenced) {
			t.Errorf("an entry of the fenced owner ended with %v, want ErrFenced", err)
		}
	}
	r.cluster.Poll("the void blobs follow the fence", func() bool {
		b, err := next.stream.Bounds(t.Context())
		return err == nil && b.Last >= next.Epoch()+n-1
	})
	if e, err := replay.Next(); !errors.Is(err, io.EOF) {
		t.Errorf("the new owner read an entry at %d: %v", e.Offset, err)
	}
	done := make(chan error, 1)
	next.Append([]byte("new"), func(_ commitlog.Offset, err error) { done <- err })
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(old.Close(), next.Close()); err != nil {
		t.Fatal(err)
	}
	replay, last, err := open(t.Context(), r.options(), 0)
	if err != nil {
		t.Fatal(err)
	}
	if e, err := replay.Next(); err != nil || string(e.Data) != "new" {
		t.Errorf("the first entry is %q: %v", e.Data, err)
	}
	if _, err := replay.Next(); !errors.Is(err, io.EOF) {
		t.Errorf("a second entry: %v", err)
	}
	if err := last.Close(); err != nil {
		t.Fatal(err)
	}
}

// deaf loses some answers of a stream.
type deaf struct {
	fenced.Stream
	n int
}

func (d *deaf) Listen(answer func(fenced.Answer), disturbed func()) {
	d.Stream.Listen(func(a fenced.Answer) {
		if d.n++; d.n%7 != 3 {
			answer(a)
		}
	}, disturbed)
}

// TestLostAnswers: entries whose answers are lost are confirmed once, at the position at which they
// were stored the first time.
func TestLostAnswers(t *testing.T) {
	r := newRig(t, calm())
	g := newLedger(t)
	o := r.options()
	o.Silence = 50 * time.Millisecond
	o.stream = func(s fenced.Stream) fenced.Stream { return &deaf{Stream: s} }
	replay, l, err := open(t.Context(), o, 0)
	if err != nil {
		t.Fatal(err)
	}
	g.read(replay)
	w := startWriter(g, l, 1, 5)
	r.cluster.Poll("entries are confirmed", func() bool { return g.count() >= 100 })
	if err := w.stop(); err != nil {
		t.Fatal(err)
	}
	replay, l, err = open(t.Context(), r.options(), 0)
	if err != nil {
		t.Fatal(err)
	}
	g.read(replay)
	if len(g.long) != g.count() {
		t.Errorf("%d entries are in the log, and %d were confirmed", len(g.long), g.count())
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestLeaderChanges: the leader steps down, and servers stop, while an owner writes. The owner
// continues, and each of its entries is stored once.
func TestLeaderChanges(t *testing.T) {
	t.Parallel()
	c := natstest.Start(t, natstest.Options{Servers: 3})
	r := newRig(t, c)
	g := newLedger(t)
	replay, l, err := open(t.Context(), r.options(), 0)
	if err != nil {
		t.Fatal(err)
	}
	g.read(replay)
	w := startWriter(g, l, 1, 8)
	more := func() {
		t.Helper()
		n := g.count()
		c.Poll("more entries are confirmed", func() bool { return g.count() >= n+50 })
	}
	more()
	for range 3 {
		c.StepDown(r.nc, logStream(r.id))
		more()
	}
	for range 2 {
		leader := c.Leader(r.nc, logStream(r.id))
		c.Halt(leader)
		more()
		c.Boot(leader)
		more()
		c.Current(r.nc, logStream(r.id))
	}
	if err := w.stop(); err != nil {
		t.Fatal(err)
	}
	replay, l, err = open(context.Background(), r.options(), 0)
	if err != nil {
		t.Fatal(err)
	}
	g.read(replay)
	if len(g.long) != g.count() {
		t.Errorf("%d entries are in the log, and %d were confirmed", len(g.long), g.count())
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}
