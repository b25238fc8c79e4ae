package shards_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/door"
	"github.com/surgetank/surgetank/internal/shards"
)

// at returns a hook that calls f once at a point.
func at(point string, f func()) func(string) {
	var once sync.Once
	return func(p string) {
		if p == point {
			once.Do(f)
		}
	}
}

// TestMoveGate: calls during the switch wait for it, and then reach the new shard.
func TestMoveGate(t *testing.T) {
	var b *shards.Broker
	var calls sync.WaitGroup
	results := make(chan error, 10)
	b = openOn(t, stores(2), at("after freeze of q", func() {
		started := make(chan struct{}, 3)
		call := func(f func() error) {
			calls.Go(func() {
				started <- struct{}{}
				results <- f()
			})
		}
		call(func() error {
			r, err := b.Publish(t.Context(), []surgetank.Publishing{{Queues: []string{"q"}, Message: surgetank.Message{Body: []byte("2")}}})
			if err == nil {
				err = r[0].Err
			}
			return err
		})
		call(func() error { return b.PauseQueue(t.Context(), "q", 0) })
		call(func() error {
			_, _, err := b.DeclareQueue(t.Context(), "q", surgetank.QueueConfig{}, surgetank.DeclareIfAbsent)
			return err
		})
		for range 3 {
			<-started
		}
	}))
	declare(t, b, "q", surgetank.QueueConfig{Shard: 1})
	publishTo(t, b, "q", "1")
	moveTo(t, b, "q", 2)
	calls.Wait()
	for range 3 {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
	i, err := b.Queue(t.Context(), "q")
	if err != nil || i.Shard != 2 || i.Ready != 2 || !i.Config.Paused {
		t.Errorf("%+v, %v", i, err)
	}
}

// TestMoveLeases: a lease that a move ends counts no attempt, its receipt is refused, and every
// kind of subscription goes on.
func TestMoveLeases(t *testing.T) {
	b := openOn(t, stores(2), nil)
	declare(t, b, "q", surgetank.QueueConfig{Shard: 1})
	manual, err := b.Subscribe(t.Context(), "q", surgetank.SubscribeOptions{ManualCredit: true, Credit: 3})
	if err != nil {
		t.Fatal(err)
	}
	h, err := b.History(t.Context(), "q")
	if err != nil {
		t.Fatal(err)
	}
	bound, err := b.Attach(t.Context(), "q", door.SubscribeOptions{Opening: h.Openings[len(h.Openings)-1].Incarnation})
	if err != nil {
		t.Fatal(err)
	}
	pool := door.NewPool()
	pooled, err := b.Attach(t.Context(), "q", door.SubscribeOptions{Pool: pool})
	if err != nil {
		t.Fatal(err)
	}
	pooled.SetPoolLimit(1)
	for i := range 4 {
		publishTo(t, b, "q", fmt.Sprint(i))
	}
	ds, err := manual.Receive(t.Context(), nil, 2, 1<<20)
	if err != nil || len(ds) != 2 {
		t.Fatal(len(ds), err)
	}
	r, err := b.MoveQueue(t.Context(), "q", surgetank.MoveOptions{Shard: 2, LeaseWait: -1})
	if err != nil || r.Returned != 3 { // two received, and one in the subscription
		t.Fatalf("%+v, %v", r, err)
	}
	for i := range ds {
		res, err := b.Settle(t.Context(), []surgetank.Settlement{ds[i].Ack()})
		if err != nil || surgetank.CodeOf(res[0]) != surgetank.CodeLeaseLost {
			t.Errorf("an old receipt: %v, %v", res, err)
		}
	}
	again, err := manual.Receive(t.Context(), nil, 10, 1<<20) // one credit is left
	if err != nil || len(again) != 1 || string(again[0].Body) != "0" || again[0].Attempt != 1 || !again[0].Redelivered || again[0].ID != ds[0].ID || again[0].Receipt == ds[0].Receipt {
		t.Fatalf("%+v, %v", again, err)
	}
	if _, err := bound.TryReceive(nil, 1, 1); surgetank.CodeOf(err) != surgetank.CodeUnavailable {
		t.Errorf("a subscription of one opening: %v", err)
	}
	pooled.AddCredit(10)
	if ds, err := pooled.Receive(t.Context(), nil, 10, 1<<20); err != nil || len(ds) != 1 {
		t.Errorf("the pool with limit 1 has %d messages, %v", len(ds), err)
	}
	if err := errors.Join(manual.Close(), pooled.Close()); err != nil {
		t.Error(err)
	}
	if _, err := manual.TryReceive(nil, 1, 1); surgetank.CodeOf(err) != surgetank.CodeClosed {
		t.Errorf("after Close: %v", err)
	}
	silent, err := b.Subscribe(t.Context(), "q", surgetank.SubscribeOptions{NoAck: true, Credit: 2})
	if err != nil {
		t.Fatal(err)
	}
	<-silent.Ready() // messages without an ack that were handed out are not lost
	moveTo(t, b, "q", 1)
	var got []surgetank.Delivery
	for len(got) < 3 {
		if got, err = silent.Receive(t.Context(), got, 10, 1<<20); err != nil {
			t.Fatal(err)
		}
	}
	h2, err := b.History(t.Context(), "q")
	if err != nil || h2.Queue != h.Queue || h2.Entry <= h.Entry || len(h2.Openings) != 3 || h2.Openings[0] != h.Openings[0] {
		t.Errorf("the history after two moves is %+v, before it was %+v, %v", h2, h, err)
	}
	for i := 1; i < len(h2.Openings); i++ {
		if h2.Openings[i].First <= h2.Openings[i-1].First {
			t.Errorf("the openings do not ascend: %+v", h2.Openings)
		}
	}
}

// TestMoveRefusals: a move that cannot be made changes nothing, and says why.
func TestMoveRefusals(t *testing.T) {
	var b *shards.Broker
	b = openOn(t, stores(2), at("after stage of q", func() {
		if _, err := b.MoveQueue(t.Context(), "q", surgetank.MoveOptions{Shard: 2}); surgetank.CodeOf(err) != surgetank.CodeExists {
			t.Errorf("a second move: %v", err)
		}
		if i, err := b.Queue(t.Context(), "q"); err != nil || i.Moving == nil || i.Moving.Shard != 2 || i.Moving.State != surgetank.MoveCopying {
			t.Errorf("during the move: %+v, %v", i.Moving, err)
		}
	}))
	declare(t, b, "q", surgetank.QueueConfig{Shard: 1})
	declare(t, b, "q.dead", surgetank.QueueConfig{})
	declare(t, b, "short", surgetank.QueueConfig{Shard: 1, Transient: true})
	declare(t, b, "keyed", surgetank.QueueConfig{Shard: 1, Coalesce: surgetank.CoalesceConfig{By: "group"}})
	publishTo(t, b, "q", "1")
	for _, c := range []struct {
		queue string
		shard int
		code  surgetank.Code
		text  string
	}{
		{"q", 0, surgetank.CodeInvalid, "no shard 0"},
		{"q", 3, surgetank.CodeInvalid, "no shard 3"},
		{"q", 1, surgetank.CodeInvalid, "in shard 1 already"},
		{"nope", 2, surgetank.CodeNotFound, "nope"},
		{"", 2, surgetank.CodeInvalid, ""},
		{"q.dead", 2, surgetank.CodeInvalid, `move "q"`},
		{"short", 2, surgetank.CodeInvalid, "transient"},
		{"keyed", 2, surgetank.CodeInvalid, "coalesces"},
	} {
		_, err := b.MoveQueue(t.Context(), c.queue, surgetank.MoveOptions{Shard: c.shard})
		if surgetank.CodeOf(err) != c.code || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%q to %d: %v", c.queue, c.shard, err)
		}
	}
	want := show(t, b, "q")
	for _, state := range []surgetank.MoveState{surgetank.MoveCopying, surgetank.MoveWaiting} {
		ctx, cancel := context.WithCancel(t.Context())
		_, err := b.MoveQueue(ctx, "q", surgetank.MoveOptions{Shard: 2, Progress: func(i surgetank.MoveInfo) {
			if i.State == state {
				cancel()
			}
		}})
		if err == nil {
			t.Errorf("a move that was given up while %s succeeded", state)
		}
		same(t, "q", show(t, b, "q"), want)
	}
	if _, err := b.MoveQueue(t.Context(), "q", surgetank.MoveOptions{Shard: 2, Progress: func(surgetank.MoveInfo) { panic("x") }}); surgetank.CodeOf(err) != surgetank.CodeInvalid {
		t.Errorf("a panic in Progress: %v", err)
	}
	moveTo(t, b, "q", 2)
	if d := receive(t, b, "q"); string(d.Body) != "1" {
		t.Errorf("%s", d.Body)
	}
}

// failingShard is a shard whose acks of transfers fail while fail is set.
type failingShard struct {
	door.Shard
	mu   sync.Mutex
	fail bool
	hits chan struct{}
}

func (f *failingShard) Settle(ctx context.Context, x []surgetank.Settlement) ([]surgetank.SettleResult, error) {
	f.mu.Lock()
	fail := f.fail && len(x) > 0 && x[0].Op == surgetank.Ack
	f.mu.Unlock()
	if !fail {
		return f.Shard.Settle(ctx, x)
	}
	select {
	case f.hits <- struct{}{}:
	default:
	}
	return nil, errors.New("the ack of a transfer is cut off")
}

// TestMoveKnowsTransfers: a message that arrived from a third shard and was not acked there is sent
// again to the new shard of its queue, which knows it.
func TestMoveKnowsTransfers(t *testing.T) {
	f := &failingShard{fail: true, hits: make(chan struct{}, 1)}
	b := openWith(t, stores(3), func(i int, s door.Shard) door.Shard {
		if i == 0 {
			f.Shard = s
			return f
		}
		return s
	})
	declare(t, b, "jobs", surgetank.QueueConfig{Shard: 1, DeadLetter: "parked"})
	declare(t, b, "parked", surgetank.QueueConfig{Shard: 2})
	const n = 20
	for i := range n {
		publishTo(t, b, "jobs", fmt.Sprint(i))
		d := receive(t, b, "jobs")
		if res, err := b.Settle(t.Context(), []surgetank.Settlement{d.Reject("bad")}); err != nil || res[0] != nil {
			t.Fatal(res, err)
		}
	}
	<-f.hits
	moveTo(t, b, "parked", 3)
	f.mu.Lock()
	f.fail = false
	f.mu.Unlock()
	for i := range n {
		if d := receive(t, b, "parked"); string(d.Body) != fmt.Sprint(i) {
			t.Fatalf("message %s comes as number %d", d.Body, i)
		}
	}
	publishTo(t, b, "jobs", "last")
	d := receive(t, b, "jobs")
	if res, err := b.Settle(t.Context(), []surgetank.Settlement{d.Reject("bad")}); err != nil || res[0] != nil {
		t.Fatal(res, err)
	}
	ds, err := b.Receive(t.Context(), "parked", surgetank.ReceiveOptions{Wait: time.Minute})
	if err != nil || len(ds) != 1 || string(ds[0].Body) != "last" {
		t.Errorf("%v, %v", ds, err)
	}
}

// TestMovePartlyStored: a numbered message for queues of two shards, of which one stored it, is
// completed or refused after the queues have come together. It is never stored twice, and never
// confirmed with a part missing.
func TestMovePartlyStored(t *testing.T) {
	b := openOn(t, stores(2), nil)
	const id = "publisher-of-this-test"
	send := func(n uint64, queues ...string) surgetank.PublishResult {
		t.Helper()
		r, err := b.Publish(t.Context(), []surgetank.Publishing{{Queues: queues, Publisher: id, Sequence: n, Message: surgetank.Message{Body: fmt.Append(nil, n)}}})
		if err != nil {
			t.Fatal(err)
		}
		return r[0]
	}
	ready := func(name string, want int64) {
		t.Helper()
		if i, err := b.Queue(t.Context(), name); err != nil || i.Ready != want {
			t.Errorf("%s has %d messages, want %d, %v", name, i.Ready, want, err)
		}
	}
	declare(t, b, "moves", surgetank.QueueConfig{Shard: 1, MaxMessages: 2})
	declare(t, b, "stays", surgetank.QueueConfig{Shard: 2, MaxMessages: 1})
	if r := send(1, "moves", "stays"); r.Err != nil {
		t.Fatal(r.Err)
	}
	if r := send(2, "moves", "stays"); surgetank.CodeOf(r.Err) != surgetank.CodeFull { // stays is full
		t.Fatalf("%+v", r)
	}
	receiveAck(t, b, "stays")
	if r := send(3, "moves", "stays"); surgetank.CodeOf(r.Err) != surgetank.CodeFull { // moves is full
		t.Fatalf("%+v", r)
	}
	receiveAck(t, b, "stays")
	moveTo(t, b, "moves", 2)
	receiveAck(t, b, "moves")
	ready("moves", 1)
	if r := send(1, "moves", "stays"); r.Err != nil || !r.Duplicate {
		t.Errorf("a message that both have: %+v", r)
	}
	if r := send(3, "moves", "stays"); surgetank.CodeOf(r.Err) != surgetank.CodeUncertain {
		t.Errorf("a message that the shard of stays has, and nobody knows for which queue: %+v", r)
	}
	ready("moves", 1)
	ready("stays", 0)
	if r := send(2, "moves", "stays"); r.Err != nil || r.Duplicate {
		t.Errorf("a message that only moves has: %+v", r)
	}
	ready("moves", 1)
	ready("stays", 1)
	if r := send(2, "moves", "stays"); r.Err != nil || !r.Duplicate {
		t.Errorf("the same again: %+v", r)
	}
	receiveAck(t, b, "stays")
	if r := send(4, "moves", "stays"); r.Err != nil || r.Duplicate {
		t.Errorf("a new message: %+v", r)
	}
	ready("moves", 2)
	ready("stays", 1)
	for i := range 12 { // the numbers stay known over many moves
		moveTo(t, b, "moves", 1+i%2)
		for n := range uint64(4) {
			if r := send(n+1, "moves"); r.Err != nil && n != 2 || n == 2 && r.Err == nil && !r.Duplicate || n != 2 && !r.Duplicate {
				t.Fatalf("after %d moves, number %d: %+v", i, n+1, r)
			}
		}
	}
	ready("moves", 2)
}

// TestMoveLongPoll: a receive that waits goes on waiting in the new shard.
func TestMoveLongPoll(t *testing.T) {
	b := openOn(t, stores(2), nil)
	declare(t, b, "q", surgetank.QueueConfig{Shard: 1})
	got := make(chan error, 1)
	go func() {
		ds, err := b.Receive(t.Context(), "q", surgetank.ReceiveOptions{Wait: time.Minute})
		if err == nil && (len(ds) != 1 || string(ds[0].Body) != "x") {
			err = fmt.Errorf("received %+v", ds)
		}
		got <- err
	}()
	for {
		i, err := b.Queue(t.Context(), "q")
		if err != nil {
			t.Fatal(err)
		}
		if i.Consumers == 1 {
			break
		}
		runtime.Gosched()
	}
	moveTo(t, b, "q", 2)
	publishTo(t, b, "q", "x")
	if err := <-got; err != nil {
		t.Error(err)
	}
}
