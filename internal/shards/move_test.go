package shards_test

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/memlog"
	"github.com/surgetank/surgetank/internal/shards"
)

func stores(n int) (all []*memlog.Store) {
	for range n {
		all = append(all, memlog.NewStore())
	}
	return all
}

func moveTo(t *testing.T, b *shards.Broker, name string, shard int) surgetank.MoveResult {
	t.Helper()
	r, err := b.MoveQueue(t.Context(), name, surgetank.MoveOptions{Shard: shard})
	if err != nil {
		t.Fatalf("moving %s to shard %d: %v", name, shard, err)
	}
	return r
}

// ledger judges the deliveries of one queue: each message is acked once, the messages of a group
// arrive in their order, and a message that was acked never comes again.
type ledger struct {
	mu    sync.Mutex
	t     *testing.T
	next  map[string]int   // by group: the number of the next message that was never delivered
	done  map[string]bool  // messages that were acked
	token map[string]int64 // the newest fencing token
	acked int
	lost  int // acks whose lease a move had ended
}

func (l *ledger) delivered(d *surgetank.Delivery) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if d.FencingToken <= l.token[d.Group] {
		l.t.Errorf("group %s has the fencing token %d after %d", d.Group, d.FencingToken, l.token[d.Group])
	}
	l.token[d.Group] = d.FencingToken
	n, err := strconv.Atoi(string(d.Body))
	switch next := l.next[d.Group]; {
	case err != nil || n > next || n < next-1:
		l.t.Errorf("group %s delivers message %s (%v), want %d", d.Group, d.Body, d.ID, next)
	case l.done[d.Group+"/"+string(d.Body)]:
		l.t.Errorf("group %s delivers message %s (%v) after its ack", d.Group, d.Body, d.ID)
	case n == next:
		l.next[d.Group]++
	}
}

func (l *ledger) settled(d *surgetank.Delivery, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch surgetank.CodeOf(err) {
	case "":
		l.acked++
		l.done[d.Group+"/"+string(d.Body)] = true
	case surgetank.CodeLeaseLost:
		l.lost++
	default:
		l.t.Errorf("the ack of %s failed: %v", d.ID, err)
	}
}

// TestMoveWhileInUse: publishers and consumers of a queue do not notice that it moves.
func TestMoveWhileInUse(t *testing.T) {
	b := openOn(t, stores(3), nil)
	declare(t, b, "q", surgetank.QueueConfig{Shard: 1, Group: surgetank.GroupConfig{MaxInFlight: 1}})
	const publishers, least = 4, 6
	l := &ledger{t: t, next: map[string]int{}, done: map[string]bool{}, token: map[string]int64{}}
	ctx, stop := context.WithTimeout(t.Context(), 2*time.Minute)
	defer stop()
	var consumers, senders sync.WaitGroup
	var moves, sent atomic.Int64
	room := make(chan struct{}, 200)    // messages that are not acked yet
	news := make(chan struct{}, 10_000) // messages that were sent
	for range 3 {
		sub, err := b.Subscribe(ctx, "q", surgetank.SubscribeOptions{Credit: 8})
		if err != nil {
			t.Fatal(err)
		}
		consumers.Go(func() {
			for {
				ds, err := sub.Receive(ctx, nil, 4, 1<<20)
				if err != nil {
					if ctx.Err() == nil {
						t.Errorf("the subscription ended: %v", err)
					}
					return
				}
				for i := range ds {
					l.delivered(&ds[i])
					res, err := b.Settle(context.Background(), []surgetank.Settlement{ds[i].Ack()})
					if err == nil {
						err = res[0]
					}
					l.settled(&ds[i], err)
					if err == nil {
						<-room
					}
				}
			}
		})
	}
	for p := range publishers {
		senders.Go(func() {
			group := fmt.Sprint("g", p)
			for i := 0; moves.Load() < least; i++ {
				select {
				case room <- struct{}{}:
				case <-ctx.Done():
					return
				}
				msg := []surgetank.Publishing{{Queues: []string{"q"}, Message: surgetank.Message{Body: fmt.Append(nil, i), Group: group}, Publisher: "publisher-of-this-" + group, Sequence: uint64(i + 1)}}
				r, err := b.Publish(t.Context(), msg)
				if err == nil {
					err = r[0].Err
				}
				if err != nil {
					t.Errorf("publish %d of %s: %v", i, group, err)
					return
				}
				sent.Add(1)
				select {
				case news <- struct{}{}:
				default:
				}
				if i%7 == 0 { // a repeat is not stored again, wherever the queue is
					if r, err := b.Publish(t.Context(), msg); err != nil || r[0].Err != nil || !r[0].Duplicate {
						t.Errorf("a repeat of %d of %s: %+v, %v", i, group, r, err)
					}
				}
			}
		})
	}
	for n := range least {
		for range 100 {
			select {
			case <-news:
			case <-ctx.Done():
				t.Fatal("nothing is published any more")
			}
		}
		if _, err := b.MoveQueue(ctx, "q", surgetank.MoveOptions{Shard: (n+1)%3 + 1}); err != nil {
			t.Errorf("move %d: %v", n, err)
		}
		moves.Add(1)
	}
	senders.Wait()
	all := int(sent.Load())
	if t.Failed() {
		t.FailNow()
	}
	deadline, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		l.mu.Lock()
		done := l.acked
		l.mu.Unlock()
		if done >= all || deadline.Err() != nil || t.Failed() {
			break
		}
		if _, err := b.Publish(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
	}
	stop()
	consumers.Wait()
	if l.acked != all {
		i, _ := b.Queue(t.Context(), "q")
		t.Errorf("%d of %d messages were acked, %d leases lost; the queue is %+v", l.acked, all, l.lost, i)
	}
	if i, err := b.Queue(t.Context(), "q"); err != nil || i.Ready+i.Blocked+i.Leased+i.Delayed != 0 || i.Consumers != 3 {
		t.Errorf("in the end the queue is %+v, %v", i, err)
	}
	t.Logf("%d messages, %d leases lost", all, l.lost)
}
