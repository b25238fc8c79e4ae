package brokertest

import (
	"context"
	"math"
	"runtime"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/door"
)

// door returns the part of the broker that doors and sinks use. If the broker has none, as a client
// of a server, the test is skipped.
func (e *env) door() door.Broker {
	e.Helper()
	d, err := door.Of(e.b)
	if err != nil {
		e.Skip("the broker has no part for doors:", err)
	}
	return d
}

func (e *env) attach(queue string, o door.SubscribeOptions) door.Subscription {
	e.Helper()
	s, err := e.door().Attach(e.ctx, queue, o)
	e.must(err)
	return s
}

// credit returns options with this credit.
func credit(n int) surgetank.SubscribeOptions { return surgetank.SubscribeOptions{Credit: n} }

func doorGroupRun(e *env) {
	e.door()
	e.declare("q", surgetank.QueueConfig{Group: surgetank.GroupConfig{MaxInFlight: 1}})
	e.publish(grouped("q", "a", "a1"), grouped("q", "a", "a2"), grouped("q", "a", "a3"))
	s := e.attach("q", door.SubscribeOptions{SubscribeOptions: credit(10), GroupRun: 2})
	got := e.collect(s, 2)
	e.same(texts(got), []string{"a1", "a2"})
	e.quiet(s, "q")
	e.settle(surgetank.Ack, got...)
	e.same(texts(e.collect(s, 1)), []string{"a3"})
	e.must(s.Close())
}

func doorMeta(e *env) {
	d := e.door()
	e.must(d.SetMeta(e.ctx, "brokertest", "b/1", []byte{0, 255}))
	e.must(d.SetMeta(e.ctx, "brokertest", "empty", []byte{}))
	e.must(d.SetMeta(e.ctx, "brokertest", "gone", []byte("x")))
	e.must(d.SetMeta(e.ctx, "brokertest", "gone", nil))
	e.must(d.SetMeta(e.ctx, "another", "b", []byte("x")))
	got, err := d.Meta(e.ctx, "brokertest")
	e.must(err)
	if v, ok := got.Bytes()["empty"]; len(got.Values) != 2 || string(got.Values["b/1"].Value) != "\x00\xff" || !ok || len(v) != 0 {
		e.Fatalf("%q", got.Bytes())
	}
	none, err := d.Meta(e.ctx, "nothing here")
	e.must(err)
	if len(none.Values) != 0 {
		e.Fatalf("%q", none.Bytes())
	}
}

// doorMetaIf: of two writers that read the same value, the second must read again.
func doorMetaIf(e *env) {
	d := e.door()
	first, err := d.SetMetaIf(e.ctx, "n", "x", []byte("1"), 0)
	e.must(err)
	_, err = d.SetMetaIf(e.ctx, "n", "x", []byte("2"), 0)
	e.code(err, surgetank.CodeExists)
	second, err := d.SetMetaIf(e.ctx, "n", "x", []byte("3"), first)
	e.must(err)
	_, err = d.SetMetaIf(e.ctx, "n", "x", nil, first)
	e.code(err, surgetank.CodeExists)
	state, err := d.Meta(e.ctx, "n")
	e.must(err)
	if v := state.Values["x"]; string(v.Value) != "3" || v.Version != second || second <= first || state.Version != second {
		e.Fatalf("%q %d, want version %d after %d; the newest is %d", v.Value, v.Version, second, first, state.Version)
	}
	removed, err := d.SetMetaIf(e.ctx, "n", "x", nil, second)
	e.must(err)
	none, err := d.SetMetaIf(e.ctx, "n", "x", nil, 0)
	e.must(err)
	last, err := d.SetMetaIf(e.ctx, "n", "x", []byte("4"), door.AnyVersion)
	e.must(err)
	if removed <= second || none != 0 || last <= removed {
		e.Fatalf("versions %d, %d, %d, %d, %d", first, second, removed, none, last)
	}
}

// doorMetaWatch: a watch passes all values, and then each change before its writer is answered.
func doorMetaWatch(e *env) {
	d := e.door()
	e.must(d.SetMeta(e.ctx, "n", "old", []byte("1")))
	e.must(d.SetMeta(e.ctx, "another", "old", []byte("1")))
	told := make(chan struct{}, 1)
	feed := door.NewMetaFeed(func() {
		select {
		case told <- struct{}{}:
		default:
		}
	})
	stop, err := d.WatchMeta(e.ctx, "n", feed)
	e.must(err)
	next := func(whole bool, want map[string]string) {
		e.Helper()
		select {
		case <-told:
		case <-time.After(patience):
			e.Fatal("the watch passed nothing")
		}
		u, _ := feed.Take()
		got := map[string]string{}
		for name, v := range u.Values {
			got[name] = string(v.Value)
			if v.Value == nil {
				got[name] = "removed"
			}
		}
		if u.Whole != whole {
			e.Errorf("whole: %v", u.Whole)
		}
		e.same(got, want)
	}
	next(true, map[string]string{"old": "1"})
	e.must(d.SetMeta(e.ctx, "n", "x", []byte("1")))
	e.must(d.SetMeta(e.ctx, "another", "x", []byte("1")))
	_, err = d.SetMetaIf(e.ctx, "n", "x", []byte("not stored"), 0)
	e.code(err, surgetank.CodeExists)
	next(false, map[string]string{"x": "1"})
	e.must(d.SetMeta(e.ctx, "n", "x", []byte("2")))
	e.must(d.SetMeta(e.ctx, "n", "x", []byte("3")))
	e.must(d.SetMeta(e.ctx, "n", "old", nil))
	next(false, map[string]string{"x": "3", "old": "removed"})
	stop()
	e.must(d.SetMeta(e.ctx, "n", "x", []byte("4")))
	if u, some := feed.Take(); some {
		e.Errorf("a watch that was stopped passed %q", u.Bytes())
	}
}

func doorPool(e *env) {
	e.door()
	e.declare("a", surgetank.QueueConfig{})
	e.declare("b", surgetank.QueueConfig{})
	pool := door.NewPool()
	sa := e.attach("a", door.SubscribeOptions{SubscribeOptions: credit(10), Pool: pool})
	sb := e.attach("b", door.SubscribeOptions{SubscribeOptions: credit(10), Pool: pool})
	other := e.attach("b", door.SubscribeOptions{Pool: door.NewPool()})
	sa.SetPoolLimit(2)
	e.info("a") // the limit applies after this round trip
	e.bodies("a", "a1")
	got := e.collect(sa, 1)
	e.bodies("b", "b1", "b2")
	got = append(got, e.collect(sb, 1)...)
	e.quiet(sb, "b")
	e.settle(surgetank.Ack, got[0])
	e.same(texts(e.collect(sb, 1)), []string{"b2"})
	for _, s := range []door.Subscription{sa, sb, other} {
		e.must(s.Close())
	}
}

func doorFloor(e *env) {
	e.door()
	e.declare("q", surgetank.QueueConfig{})
	s := e.attach("q", door.SubscribeOptions{SubscribeOptions: credit(10)})
	e.bodies("q", "1", "2", "3")
	got := e.collect(s, 3)
	e.settle(surgetank.Ack, got[0], got[2])
	if f, _ := s.Floor(); f > got[1].ID.Seq {
		e.Fatalf("floor %d is above a message that is not settled (%d)", f, got[1].ID.Seq)
	}
	e.settle(surgetank.Ack, got[1])
	e.bodies("q", "4") // the floor is updated with deliveries
	e.collect(s, 1)
	if f, _ := s.Floor(); f > 4 {
		e.Fatalf("floor %d", f)
	}
	if i := e.info("q"); *door.QueueFloor(&i) != 4 {
		e.Fatalf("the queue's floor is %d, want 4", *door.QueueFloor(&i))
	}
	e.must(s.Close())
}

// doorNotify: Notify is called when messages arrive. A Notify that fails does not end the process
// or the broker.
func doorNotify(e *env) {
	e.door()
	e.declare("q", surgetank.QueueConfig{})
	for name, after := range map[string]func(){"returns": func() {}, "panics": func() { panic("a careless function") }, "ends its goroutine": runtime.Goexit} {
		called := make(chan struct{}, 1)
		s := e.attach("q", door.SubscribeOptions{SubscribeOptions: credit(2), Notify: func() {
			select {
			case called <- struct{}{}:
			default:
			}
			after()
		}})
		e.bodies("q", "1", "2")
		select {
		case <-called:
		case <-time.After(patience):
			e.Fatalf("a Notify that %s was not called", name)
		}
		e.settle(surgetank.Ack, e.collect(s, 2)...)
		e.must(s.Close())
		e.works()
	}
}

// doorCareless calls the methods for doors with invalid arguments. None may panic, and the broker
// works afterwards.
func doorCareless(e *env) {
	d := e.door()
	e.declare("q", surgetank.QueueConfig{})
	e.bodies("q", "kept")
	var none context.Context // nil, as in a program that forgot it
	_, err := d.Attach(none, "q", door.SubscribeOptions{})
	e.code(err, surgetank.CodeInvalid)
	e.code(d.SetMeta(none, "n", "n", nil), surgetank.CodeInvalid)
	e.code(d.SetMeta(e.ctx, "", "", []byte("x")), surgetank.CodeInvalid)
	_, err = d.Meta(none, "n")
	e.code(err, surgetank.CodeInvalid)
	_, err = d.History(none, "q")
	e.code(err, surgetank.CodeInvalid)
	for _, o := range []door.SubscribeOptions{
		{SubscribeOptions: credit(math.MinInt), GroupRun: -5},
		{SubscribeOptions: credit(math.MaxInt), GroupRun: math.MaxInt, Pool: math.MaxUint64},
	} {
		s := e.attach("q", o)
		s.SetPoolLimit(-1)
		e.must(s.Close())
		s.SetPoolLimit(1)
	}
	e.works()
}
