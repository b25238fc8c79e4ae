package shards_test

import (
	"context"
	"errors"
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
	"github.com/surgetank/surgetank/internal/supervise"
)

// failing is a router over supervisors of logs in memory.
type failing struct {
	*shards.Broker
	stores []*memlog.Store

	mu   sync.Mutex
	hold chan struct{} // if not nil, later openings wait until it is closed
}

func openFailing(t *testing.T, n int) *failing { return openAway(t, stores(n), -1, nil) }

// openAway opens a router whose shard away cannot be opened before back is closed; -1: none.
func openAway(t *testing.T, all []*memlog.Store, away int, back <-chan struct{}) *failing {
	t.Helper()
	n := len(all)
	f := &failing{stores: all}
	parts := make([]shards.Part, n)
	routed := make(chan struct{})
	for i, store := range all {
		var first *broker.Broker
		s, err := supervise.Open(t.Context(), supervise.Options{Shard: i + 1, Optional: i > 0, Wait: time.Millisecond,
			Fell: func() { <-routed; f.Fell(i) },
			Open: func(ctx context.Context, again bool) (supervise.Instance, error) {
				f.mu.Lock()
				hold := f.hold
				f.mu.Unlock()
				if i == away {
					select {
					case <-back:
					default:
						return nil, surgetank.Errorf(surgetank.CodeUnavailable, "the shard is away")
					}
				}
				if hold != nil {
					select {
					case <-hold:
					case <-ctx.Done():
						return nil, ctx.Err()
					}
				}
				b, err := broker.Open(broker.Options{Snapshots: store.Snapshots(), Limits: queue.Limits{Shards: n},
					OpenLog: func(from commitlog.Offset, _ broker.LogHooks) (commitlog.Replay, commitlog.Log, error) {
						r, l, err := store.Open(memlog.Options{From: from})
						return r, l, err
					}})
				if err != nil {
					return nil, err
				}
				if first == nil && i != away {
					first = b
					return b, nil
				}
				<-routed
				if err := f.Opened(ctx, i, b); err != nil {
					return nil, errors.Join(err, b.Close())
				}
				return b, nil
			}})
		if err != nil {
			t.Fatal(err)
		}
		parts[i] = shards.Part{Shard: s, Failed: s.Done(), Err: func() error { return s.Status().Reason }, Away: i == away}
		if first != nil {
			parts[i].Now = first
		}
	}
	var err error
	if f.Broker, err = shards.New(context.Background(), parts, shards.Options{}); err != nil {
		t.Fatal(err)
	}
	close(routed)
	t.Cleanup(func() { _ = f.Close() })
	return f
}

func (f *failing) block() (release func()) {
	c := make(chan struct{})
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hold = c
	return func() {
		f.mu.Lock()
		f.hold = nil
		f.mu.Unlock()
		close(c)
	}
}

// eventually asks the router until ok.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for tick := time.NewTicker(time.Millisecond); !ok(); {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatal("never: ", what)
		}
	}
}

// A declaration without an answer, because its shard failed: afterwards the router knows the queue
// if the shard has it, and otherwise the queue can be declared in another shard. The same is true
// of a deletion.
func TestUncertainDeclare(t *testing.T) {
	for _, stored := range []bool{false, true} {
		f := openFailing(t, 3)
		release := f.block()
		f.stores[1].Fail(errors.New("injected"))
		_, _, err := f.DeclareQueue(t.Context(), "q", surgetank.QueueConfig{Shard: 2}, surgetank.DeclareOrUpdate)
		if surgetank.CodeOf(err) != surgetank.CodeUncertain {
			t.Fatal(err)
		}
		// While the shard is not open, nobody knows, and no other shard may get the queue.
		if _, _, err := f.DeclareQueue(t.Context(), "q", surgetank.QueueConfig{Shard: 3}, surgetank.DeclareOrUpdate); surgetank.CodeOf(err) != surgetank.CodeUnavailable {
			t.Fatal(err)
		}
		if stored { // by the log, which failed after it
			b, err := broker.Open(broker.Options{Snapshots: f.stores[1].Snapshots(), Limits: queue.Limits{Shards: 3},
				OpenLog: func(from commitlog.Offset, _ broker.LogHooks) (commitlog.Replay, commitlog.Log, error) {
					r, l, err := f.stores[1].Open(memlog.Options{From: from})
					return r, l, err
				}})
			if err != nil {
				t.Fatal(err)
			}
			declare(t, b, "q", surgetank.QueueConfig{Shard: 2})
			if err := b.Close(); err != nil {
				t.Fatal(err)
			}
		}
		release()
		eventually(t, "the router agrees with the shard", func() bool {
			all, err := f.Queues(t.Context())
			if err != nil {
				return false
			}
			if has := slices.ContainsFunc(all, func(i surgetank.QueueInfo) bool { return i.Name == "q" }); has != stored {
				t.Fatalf("the shard has the queue: %v, want %v", has, stored)
			}
			return f.Known("q") == stored
		})
		info, _, err := f.DeclareQueue(t.Context(), "q", surgetank.QueueConfig{Shard: 3}, surgetank.DeclareOrUpdate)
		if err != nil {
			t.Fatal(err)
		}
		if at, want := info.ID>>surgetank.ShardBits+1, map[bool]uint64{false: 3, true: 2}[stored]; at != want {
			t.Errorf("stored %v: the queue is in shard %d, want %d", stored, at, want)
		}
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}
}

// A pool whose shard fails lends the shard's part to the others. After the next opening, all shards
// together stay below the limit.
func TestPoolOfAFailedShard(t *testing.T) {
	f := openFailing(t, 2)
	const limit = 2
	pool := door.NewPool()
	var subs []door.Subscription
	for i, name := range []string{"a", "b"} {
		declare(t, f, name, surgetank.QueueConfig{Shard: i + 1})
		s, err := f.Attach(t.Context(), name, door.SubscribeOptions{Pool: pool})
		if err != nil {
			t.Fatal(err)
		}
		s.SetPoolLimit(limit)
		s.AddCredit(100)
		subs = append(subs, s)
	}
	var leased []surgetank.Delivery
	receive := func(s door.Subscription) {
		t.Helper()
		var err error
		if leased, err = s.TryReceive(leased, 100, 1<<20); err != nil {
			t.Fatal(err)
		}
		if len(leased) > limit {
			t.Fatalf("%d messages are leased", len(leased))
		}
	}
	for range limit + 1 {
		publishTo(t, f, "b", "m")
	}
	eventually(t, "shard 2 has all", func() bool { receive(subs[1]); return len(leased) == limit })
	release := f.block()
	f.stores[1].Fail(errors.New("injected"))
	_ = f.SetMetaLater("b", "x", []byte("y"))
	eventually(t, "the shard is down", func() bool { _, err := f.Queues(t.Context()); return err != nil })
	leased = nil // they have ended with the opening
	for range limit + 1 {
		publishTo(t, f, "a", "m")
	}
	eventually(t, "shard 1 has all", func() bool { receive(subs[0]); return len(leased) == limit })
	release()
	counts := map[string]int{}
	eventually(t, "both shards get turns", func() bool {
		receive(subs[0])
		receive(subs[1])
		if len(leased) > 0 {
			d := leased[0]
			leased = leased[1:]
			counts[d.Queue]++
			publishTo(t, f, d.Queue, "m")
			if r, err := f.Settle(t.Context(), []surgetank.Settlement{{Receipt: d.Receipt}}); err != nil || r[0] != nil {
				t.Fatal(err, r)
			}
		}
		return counts["a"] > 5 && counts["b"] > 5
	})
}
