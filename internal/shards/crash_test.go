package shards_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/broker"
	"github.com/surgetank/surgetank/internal/commitlog"
	"github.com/surgetank/surgetank/internal/door"
	"github.com/surgetank/surgetank/internal/memlog"
	"github.com/surgetank/surgetank/internal/queue"
	"github.com/surgetank/surgetank/internal/shards"
)

// spied calls at before and after each step of a transfer.
type spied struct {
	door.Shard
	at func(point string)
}

// stepName names a step of a move.
func stepName(op door.MoveOp) string {
	return map[door.MoveOp]string{door.MoveHold: "hold", door.MoveOutline: "outline", door.MoveRead: "read", door.MoveFreeze: "freeze", door.MoveThaw: "thaw", door.MovePack: "pack", door.MoveDepart: "depart",
		door.MoveStage: "stage", door.MoveCompare: "compare", door.MoveCopy: "copy", door.MoveUnpack: "unpack", door.MoveArrive: "arrive", door.MoveUnstage: "unstage"}[op]
}

func (s spied) Arrive(ctx context.Context, a door.Arrivals) (int, error) {
	s.at("before arrive")
	defer s.at("after arrive")
	return s.Shard.Arrive(ctx, a)
}

func (s spied) MoveStep(ctx context.Context, x *door.MoveStep) error {
	point := fmt.Sprintf("%s of %s", stepName(x.Op), x.Queue)
	s.at("before " + point)
	defer s.at("after " + point)
	return s.Shard.MoveStep(ctx, x)
}

func (s spied) Settle(ctx context.Context, x []surgetank.Settlement) ([]surgetank.SettleResult, error) {
	if len(x) == 0 || x[0].Op != surgetank.Ack {
		return s.Shard.Settle(ctx, x)
	}
	s.at("before ack")
	defer s.at("after ack")
	return s.Shard.Settle(ctx, x)
}

// openOn opens a router over the stores. at may be nil.
func openOn(t *testing.T, stores []*memlog.Store, at func(string)) *shards.Broker {
	t.Helper()
	return openWith(t, stores, func(_ int, s door.Shard) door.Shard {
		if at == nil {
			return s
		}
		return spied{s, at}
	})
}

// openWith opens a router over the stores. wrap returns what the router gets for a shard.
func openWith(t *testing.T, stores []*memlog.Store, wrap func(int, door.Shard) door.Shard) *shards.Broker {
	t.Helper()
	parts := make([]shards.Part, len(stores))
	for i, store := range stores {
		b, err := broker.Open(broker.Options{Snapshots: store.Snapshots(), Limits: queue.Limits{Shards: len(stores), TurnBytes: 300},
			OpenLog: func(from commitlog.Offset, _ broker.LogHooks) (commitlog.Replay, commitlog.Log, error) {
				r, l, err := store.Open(memlog.Options{From: from})
				return r, l, err
			}})
		if err != nil {
			t.Fatal(err)
		}
		parts[i] = shards.Part{Shard: wrap(i, b)}
	}
	r, err := shards.New(context.Background(), parts, shards.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return r
}

// image is the durable state of all shards at one point of the transfers.
type image struct {
	point  string
	stores []*memlog.Store
}

// TestTransferCrash ends all shards at every step of the transfers. Afterwards each message is in
// exactly one place: it still has to be rejected, or it arrives in its dead-letter queue once, in
// order and with its history.
func TestTransferCrash(t *testing.T) {
	stores := []*memlog.Store{memlog.NewStore(), memlog.NewStore()}
	var mu sync.Mutex
	var images []image
	acked := make(chan struct{}, 1)
	shoot := func(point string) {
		mu.Lock()
		defer mu.Unlock()
		if point == "after ack" {
			defer func() {
				select {
				case acked <- struct{}{}:
				default:
				}
			}()
		}
		m := image{point: point}
		for _, s := range stores { // the source first; the target changes only by this goroutine
			c := s.Copy()
			c.Crash(0)
			m.stores = append(m.stores, c)
		}
		images = append(images, m)
	}
	b := openOn(t, stores, shoot)
	declare(t, b, "jobs", surgetank.QueueConfig{Shard: 1, DeadLetter: "parked"})
	declare(t, b, "parked", surgetank.QueueConfig{Shard: 2})
	const n = 40
	var want []string
	for i := range n {
		body := fmt.Sprint(i)
		want = append(want, body)
		publishTo(t, b, "jobs", body)
	}
	reject := func(b surgetank.Broker, d surgetank.Delivery) {
		res, err := b.Settle(t.Context(), []surgetank.Settlement{{Receipt: d.Receipt, Op: surgetank.Reject}})
		if err != nil || res[0] != nil {
			t.Fatal(err, res)
		}
	}
	for range n {
		reject(b, receive(t, b, "jobs"))
	}
	for range n {
		receive(t, b, "parked")
	}
	<-acked // all messages can have been sent at once
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	points := map[string]int{}
	for i, m := range images {
		points[m.point]++
		t.Run(fmt.Sprintf("%d_%s", i, m.point), func(t *testing.T) {
			b := openOn(t, m.stores, nil)
			for {
				ds, err := b.Receive(t.Context(), "jobs", surgetank.ReceiveOptions{})
				if err != nil {
					t.Fatal(err)
				}
				if len(ds) == 0 {
					break
				}
				reject(b, ds[0])
			}
			var got []string
			for len(got) < n {
				d := receive(t, b, "parked")
				if len(d.Deaths) != 1 || d.Deaths[0].Queue != "jobs" {
					t.Errorf("message %s has the history %+v", d.Body, d.Deaths)
				}
				got = append(got, string(d.Body))
			}
			ds, err := b.Receive(t.Context(), "parked", surgetank.ReceiveOptions{})
			if err != nil || len(ds) > 0 {
				t.Errorf("%d messages more, %v", len(ds), err)
			}
			if !slices.Equal(got, want) {
				t.Errorf("got %v", got)
			}
		})
	}
	for _, p := range []string{"before arrive", "after arrive", "before ack", "after ack"} {
		if points[p] == 0 {
			t.Errorf("no image %s", p)
		}
	}
}

func publishTo(t *testing.T, b surgetank.Broker, name, body string) {
	t.Helper()
	r, err := b.Publish(t.Context(), []surgetank.Publishing{{Queues: []string{name}, Message: surgetank.Message{Body: []byte(body)}}})
	if err != nil || r[0].Err != nil {
		t.Fatal(err, r)
	}
}

// TestPublishSplit: a publish to several shards has one result for each message, and a numbered
// message that comes again stores only its missing part.
func TestPublishSplit(t *testing.T) {
	b := openOn(t, []*memlog.Store{memlog.NewStore(), memlog.NewStore(), memlog.NewStore()}, nil)
	for i, name := range []string{"a", "b", "c"} {
		declare(t, b, name, surgetank.QueueConfig{Shard: i + 1, MaxMessages: 1})
	}
	const id = "publisher-of-this-test"
	send := func(n uint64, queues ...string) surgetank.PublishResult {
		r, err := b.Publish(t.Context(), []surgetank.Publishing{{Queues: queues, Publisher: id, Sequence: n, Message: surgetank.Message{Body: fmt.Append(nil, n)}}})
		if err != nil {
			t.Fatal(err)
		}
		return r[0]
	}
	if r := send(1, "a", "b"); r.Err != nil || r.Duplicate || r.ID.Shard() != 1 {
		t.Fatalf("%+v", r)
	}
	if r := send(2, "b", "c"); surgetank.CodeOf(r.Err) != surgetank.CodeFull { // c stores it, b is full
		t.Fatalf("%+v", r)
	}
	receiveAck(t, b, "b")
	if r := send(2, "b", "c"); r.Err != nil || r.Duplicate {
		t.Fatalf("%+v", r)
	}
	if r := send(2, "b", "c"); r.Err != nil || !r.Duplicate {
		t.Fatalf("%+v", r)
	}
	for _, name := range []string{"a", "b", "c"} {
		if i, err := b.Queue(t.Context(), name); err != nil || i.Ready != 1 {
			t.Errorf("%s has %d messages, %v", name, i.Ready, err)
		}
	}
	receiveAck(t, b, "a")
	if r := send(3, "a", "nope"); surgetank.CodeOf(r.Err) != surgetank.CodeNotFound {
		t.Fatalf("%+v", r)
	}
	if i, err := b.Queue(t.Context(), "a"); err != nil || i.Ready != 0 {
		t.Errorf("a numbered message with an unknown queue was stored: %+v, %v", i.Ready, err)
	}
	publishTo(t, b, "a", "again")
	r, err := b.Publish(t.Context(), []surgetank.Publishing{{Queues: []string{"nope"}}, {Queues: []string{"a", "b"}}})
	if err != nil || surgetank.CodeOf(r[0].Err) != surgetank.CodeNotFound || surgetank.CodeOf(r[1].Err) != surgetank.CodeFull {
		t.Errorf("%+v, %v", r, err)
	}
	got := receive(t, b, "a")
	_, err = b.Transact(t.Context(), []surgetank.Publishing{{Queues: []string{"c"}}}, []surgetank.Settlement{{Receipt: got.Receipt}})
	if surgetank.CodeOf(err) != surgetank.CodeInvalid {
		t.Errorf("a transaction over two shards: %v", err)
	}
}

func receiveAck(t *testing.T, b surgetank.Broker, name string) {
	t.Helper()
	d := receive(t, b, name)
	if r, err := b.Settle(t.Context(), []surgetank.Settlement{{Receipt: d.Receipt}}); err != nil || r[0] != nil {
		t.Fatal(err, r)
	}
}

// TestPoolOverShards: the leased messages of a pool are never more than its limit. Each shard gets
// its turn again and again while the others always have messages, although the limit is below the
// number of shards. How exactly the shards share depends on the scheduler, so the test does not
// compare counts.
func TestPoolOverShards(t *testing.T) {
	b := openOn(t, []*memlog.Store{memlog.NewStore(), memlog.NewStore(), memlog.NewStore()}, nil)
	const each, limit = 20, 2
	pool := door.NewPool()
	names := []string{"a", "b", "c"}
	var subs []door.Subscription
	for i, name := range names {
		declare(t, b, name, surgetank.QueueConfig{Shard: i + 1})
		s, err := b.Attach(t.Context(), name, door.SubscribeOptions{Pool: pool})
		if err != nil {
			t.Fatal(err)
		}
		s.SetPoolLimit(limit)
		s.AddCredit(1 << 30)
		subs = append(subs, s)
	}
	for range limit + 1 { // a queue with all of the pool's leases still has a message
		for _, name := range names {
			publishTo(t, b, name, "m")
		}
	}
	counts := map[string]int{}
	var leased []surgetank.Delivery
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for counts["a"] < each || counts["b"] < each || counts["c"] < each {
		if ctx.Err() != nil {
			t.Fatalf("a shard waits for its turn: %v", counts)
		}
		for _, s := range subs {
			var err error
			if leased, err = s.TryReceive(leased, 100, 1<<20); err != nil {
				t.Fatal(err)
			}
		}
		if len(leased) > limit {
			t.Fatalf("%d messages are leased, the limit is %d", len(leased), limit)
		}
		if len(leased) == 0 {
			select {
			case <-subs[0].Ready():
			case <-subs[1].Ready():
			case <-subs[2].Ready():
			case <-ctx.Done():
			}
			continue
		}
		d := leased[0]
		counts[d.Queue]++
		publishTo(t, b, d.Queue, "m")
		if r, err := b.Settle(t.Context(), []surgetank.Settlement{{Receipt: d.Receipt}}); err != nil || r[0] != nil {
			t.Fatal(err, r)
		}
		leased = leased[1:]
	}
}
