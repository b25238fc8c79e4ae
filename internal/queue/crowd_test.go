package queue

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/door"
)

// TestLineIsAStableOrder compares the heaps of a queue's line with a sorted list: by priority, then
// by the time of joining the line or of being served. Pools must not change the order.
func TestLineIsAStableOrder(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	q := &Queue{}
	seats := []*seat{newSeat(q, nil), newSeat(q, &pool{}), newSeat(q, &pool{})}
	var want []*consumer
	in := func(c *consumer) {
		i := len(want)
		for i > 0 && want[i-1].opts.Priority < c.opts.Priority {
			i--
		}
		want = slices.Insert(want, i, c)
	}
	out := func(c *consumer) { want = slices.DeleteFunc(want, func(o *consumer) bool { return o == c }) }
	for step := range 20_000 {
		switch op := rng.IntN(4); {
		case op == 0 || len(want) == 0:
			c := &consumer{opts: door.SubscribeOptions{SubscribeOptions: surgetank.SubscribeOptions{Priority: rng.IntN(4)}}, seat: seats[rng.IntN(len(seats))], credit: 1}
			c.spot.c = c
			c.seat.put(c)
			in(c)
		case op == 1 && len(want) > rng.IntN(200):
			c := want[rng.IntN(len(want))]
			c.seat.drop(c)
			c.seat.drop(c)
			out(c)
		case op == 2:
			c := want[rng.IntN(len(want))]
			c.seat.put(c)
			out(c)
			in(c)
		}
		if len(want) > 0 && q.nextConsumer() != want[0] || len(want) == 0 && q.nextConsumer() != nil {
			t.Fatalf("step %d: the wrong consumer is first in line", step)
		}
	}
	for i, c := range want {
		if q.nextConsumer() != c {
			t.Fatalf("emptying: the order is wrong from index %d on", i)
		}
		c.credit = 0 // the consumer leaves when dispatch looks at the line
	}
	if q.nextConsumer() != nil || len(q.line.heap) > 0 {
		t.Error("a consumer is left in line")
	}
}

// TestAFullPoolKeepsPlaces: members that wait for room in their pool keep their positions among the
// other consumers of the queue.
func TestAFullPoolKeepsPlaces(t *testing.T) {
	r := newRig(t, Limits{}, 1)
	r.step(&Declare{Name: "q"})
	var ids []uint64
	for i := range 4 { // pool members and other consumers, alternately
		c := &Attach{Queue: "q", Opts: door.SubscribeOptions{SubscribeOptions: surgetank.SubscribeOptions{Credit: 9}, Pool: uint64(1 - i%2)}}
		r.step(c)
		ids = append(ids, c.Consumer)
	}
	r.step(&PoolLimit{Pool: 1, Limit: 1})
	var got []uint64
	var first Handout
	next := func(cmds ...Command) {
		t.Helper()
		out := r.step(append(cmds, publish(surgetank.Message{Body: []byte("m")}, "q"))...)
		for _, h := range out.Handouts {
			if len(got) == 0 {
				first = h
			}
			got = append(got, h.Consumer)
		}
	}
	for range 4 {
		next()
	}
	// The second member was first in line when the pool became full. It must be first again when
	// the pool has room.
	next(&Settle{Items: []surgetank.Settlement{{Receipt: surgetank.Receipt{Epoch: r.m.Epoch(), Incarnation: r.m.Incarnation(), ID: first.ID, Lease: first.Lease}}},
		Results: make([]error, 1)})
	if want := []uint64{ids[0], ids[1], ids[3], ids[1], ids[2]}; !slices.Equal(got, want) {
		t.Errorf("served %v, want %v", got, want)
	}
}

// TestListKeepsOrder compares an intrusive list with a slice, and removes elements during an
// iteration.
func TestListKeepsOrder(t *testing.T) {
	type element struct {
		number int
		at     node[element]
	}
	rng := rand.New(rand.NewPCG(5, 6))
	var l list[element]
	var want []*element
	for step := range 5_000 {
		if rng.IntN(3) > 0 || len(want) == 0 {
			e := &element{number: step}
			e.at.of = e
			l.push(&e.at)
			want = append(want, e)
		} else {
			i := rng.IntN(len(want))
			l.remove(&want[i].at)
			l.remove(&want[i].at)
			want = slices.Delete(want, i, i+1)
		}
		if l.n != len(want) || len(want) > 0 && l.front() != want[0] {
			t.Fatalf("step %d: the list has %d elements, want %d", step, l.n, len(want))
		}
	}
	var odd []*element
	for e := range l.all {
		if e.number%2 == 0 {
			l.remove(&e.at)
		} else {
			odd = append(odd, e)
		}
	}
	want = slices.DeleteFunc(want, func(e *element) bool { return e.number%2 == 0 })
	if !slices.Equal(odd, want) || !slices.Equal(slices.Collect(l.all), want) || l.n != len(want) {
		t.Errorf("%d elements are left, want %d in the order in which they were added", l.n, len(want))
	}
}

// TestDeletingEndsConsumersInParts: a deleted queue with many consumers is gone at once. Its
// subscriptions end over several turns, each once, in the order of subscribing, with the same
// error. Other queues are served in between.
func TestDeletingEndsConsumersInParts(t *testing.T) {
	r := newRig(t, Limits{TurnEnds: 3}, 1)
	r.step(&Declare{Name: "q"}, &Declare{Name: "other"})
	var want []uint64
	for i := range 10 {
		c := &Attach{Queue: "q", Opts: door.SubscribeOptions{SubscribeOptions: surgetank.SubscribeOptions{Credit: 1, Single: i%2 == 0}}, Now: i == 9}
		if i < 9 {
			r.step(c)
			want = append(want, c.Consumer)
			continue
		}
		r.step(c, &Delete{Name: "q"})
		want = append(want, c.Consumer)
	}
	ended := func(o *Output) (ids []uint64) {
		for _, e := range o.Ended {
			if surgetank.CodeOf(e.Err) != surgetank.CodeNotFound {
				t.Errorf("consumer %d ended with %v", e.Consumer, e.Err)
			}
			ids = append(ids, e.Consumer)
		}
		return ids
	}
	if c := (&Info{Name: "q"}); r.step(c) == nil || surgetank.CodeOf(c.Err) != surgetank.CodeNotFound {
		t.Errorf("the queue is still there: %v", c.Err)
	}
	// The turn of the deletion ended three subscriptions. This turn and the one before ended three
	// more each.
	if r.step(&Attach{Queue: "other", Opts: door.SubscribeOptions{SubscribeOptions: surgetank.SubscribeOptions{Credit: 1, NoAck: true}}}); !r.m.Sweeping() {
		t.Fatal("nothing is left to do, and a subscription has not ended")
	}
	// A consumer that detaches by itself in the meantime receives no error.
	out := r.step(&Detach{Consumer: want[9]}, publish(surgetank.Message{Body: []byte("m")}, "other"))
	if ids := ended(out); len(ids) != 0 || len(out.Handouts) != 1 {
		t.Errorf("ended %v, handed out %d", ids, len(out.Handouts))
	}
	if r.m.Sweeping() || len(r.m.consumers) != 1 {
		t.Errorf("%d consumers are known at the end", len(r.m.consumers))
	}

	// A second run checks every end.
	r = newRig(t, Limits{TurnEnds: 3}, 1)
	r.step(&Declare{Name: "q"})
	var got []uint64
	want = nil
	for range 10 {
		c := &Attach{Queue: "q"}
		r.step(c)
		want = append(want, c.Consumer)
	}
	got = append(got, ended(r.step(&Delete{Name: "q"}))...)
	for turns := 1; r.m.Sweeping(); turns++ {
		ids := ended(r.step())
		if got = append(got, ids...); len(ids) > 3 || turns > 4 {
			t.Fatalf("turn %d ended %d subscriptions", turns, len(ids))
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("ended %v, want %v", got, want)
	}
}

// TestWhatALeftConsumerHolds: a detached consumer keeps its leases, and a second Detach returns
// their messages. When the consumer has no more leases, the machine forgets the consumer.
func TestWhatALeftConsumerHolds(t *testing.T) {
	r := newRig(t, Limits{}, 1)
	r.step(&Declare{Name: "q"})
	c := &Attach{Queue: "q", Opts: door.SubscribeOptions{SubscribeOptions: surgetank.SubscribeOptions{Credit: 3}}}
	r.step(c)
	for range 3 {
		r.step(publish(surgetank.Message{Body: []byte("m")}, "q"))
	}
	r.step(&Detach{Consumer: c.Consumer})
	if q := r.m.byName["q"]; q.leased != 3 || len(r.m.left) != 1 {
		t.Fatalf("%d messages are leased to %d detached consumers", q.leased, len(r.m.left))
	}
	r.step(&Detach{Consumer: c.Consumer, All: true})
	if q := r.m.byName["q"]; q.leased != 0 || q.waiting+q.delayedN != 3 || len(r.m.left) != 0 {
		t.Errorf("%d messages are leased, %d wait, %d detached consumers are remembered", q.leased, q.waiting, len(r.m.left))
	}
}
