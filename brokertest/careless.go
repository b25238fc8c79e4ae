package brokertest

import (
	"context"
	"errors"
	"math"
	"runtime"
	"strings"
	"time"

	"github.com/surgetank/surgetank"
)

// careless calls every method with invalid arguments: nil, negative, empty and random ones. No
// method may panic, and errors are an *Error. The broker works afterwards.
func careless(e *env) {
	e.declare("q", surgetank.QueueConfig{})
	e.bodies("q", "kept")
	var none context.Context // nil, as in a program that forgot it
	ctx := e.ctx
	nobody := func([]surgetank.PublishResult, error) {}
	x := []surgetank.Publishing{message("q", "x")}
	first := func(r []surgetank.PublishResult, err error) error {
		if err == nil && len(r) > 0 {
			err = r[0].Err
		}
		return err
	}
	settled := func(r []surgetank.SettleResult, err error) error {
		if err == nil && len(r) > 0 {
			err = r[0]
		}
		return err
	}
	publish := func(p surgetank.Publishing) error { return first(e.b.Publish(ctx, []surgetank.Publishing{p})) }
	subscribe := func(ctx context.Context, queue string, o surgetank.SubscribeOptions) error {
		s, err := e.b.Subscribe(ctx, queue, o)
		if err == nil {
			err = s.Close()
		}
		return err
	}
	const may, must = false, true // whether an error is required
	for _, c := range []struct {
		name string
		err  bool
		call func() error
	}{
		{"Publish without a context", must, func() error { return first(e.b.Publish(none, x)) }},
		{"PublishAsync without a context", must, func() error { return e.b.PublishAsync(none, x, nobody) }},
		{"PublishAsync without done", must, func() error { return e.b.PublishAsync(ctx, x, nil) }},
		{"Publish of nothing", may, func() error { return first(e.b.Publish(ctx, nil)) }},
		{"Publish of zero values", must, func() error { return publish(surgetank.Publishing{}) }},
		{"Publish without a body", may, func() error { return publish(surgetank.Publishing{Queues: []string{"q"}}) }},
		{"Publish to no name", must, func() error { return publish(surgetank.Publishing{Queues: []string{""}}) }},
		{"Publish with negative times", must, func() error {
			return publish(surgetank.Publishing{Queues: []string{"q"}, Message: surgetank.Message{Delay: -1, TTL: math.MinInt64}})
		}},
		{"Publish with the longest times", must, func() error {
			return publish(surgetank.Publishing{Queues: []string{"q"}, Message: surgetank.Message{Delay: math.MaxInt64, TTL: math.MaxInt64}})
		}},
		{"Publish with an empty header", may, func() error {
			return publish(surgetank.Publishing{Queues: []string{"q"}, Message: surgetank.Message{Headers: []surgetank.Header{{}}}})
		}},
		{"Settle without a context", must, func() error { return settled(e.b.Settle(none, []surgetank.Settlement{{}})) }},
		{"Settle of nothing", may, func() error { return settled(e.b.Settle(ctx, nil)) }},
		{"Settle of zero values", must, func() error { return settled(e.b.Settle(ctx, []surgetank.Settlement{{}})) }},
		{"Settle with an unknown verdict", must, func() error { return settled(e.b.Settle(ctx, []surgetank.Settlement{{Op: 200}})) }},
		{"Settle with negative times", must, func() error {
			return settled(e.b.Settle(ctx, []surgetank.Settlement{{Op: surgetank.Extend, Lease: math.MinInt64}}))
		}},
		{"SettleAsync without a context", may, func() error { return e.b.SettleAsync(none, nil, nil) }},
		{"Transact without a context", must, func() error { return first(e.b.Transact(none, x, nil)) }},
		{"Transact of nothing", may, func() error { return first(e.b.Transact(ctx, nil, nil)) }},
		{"Transact of zero values", must, func() error {
			return first(e.b.Transact(ctx, []surgetank.Publishing{{}}, []surgetank.Settlement{{}}))
		}},
		{"Subscribe without a context", must, func() error { return subscribe(none, "q", surgetank.SubscribeOptions{}) }},
		{"Subscribe to no name", must, func() error { return subscribe(ctx, "", surgetank.SubscribeOptions{}) }},
		{"Subscribe with zero values", may, func() error { return subscribe(ctx, "q", surgetank.SubscribeOptions{}) }},
		{"Subscribe with negative numbers", may, func() error {
			return subscribe(ctx, "q", surgetank.SubscribeOptions{Credit: math.MinInt, Priority: math.MinInt})
		}},
		{"Subscribe with a lease of nonsense", must, func() error { return subscribe(ctx, "q", surgetank.SubscribeOptions{Lease: math.MinInt64}) }},
		{"Receive without a context", must, func() error {
			_, err := e.b.Receive(none, "q", surgetank.ReceiveOptions{Wait: time.Second})
			return err
		}},
		{"Receive from no name", must, func() error { _, err := e.b.Receive(ctx, "", surgetank.ReceiveOptions{}); return err }},
		{"Receive with negative numbers", may, func() error {
			_, err := e.b.Receive(ctx, "empty", surgetank.ReceiveOptions{Max: -1, MaxBytes: -1, Wait: -1})
			return err
		}},
		{"Receive with huge numbers", may, func() error {
			_, err := e.b.Receive(ctx, "empty", surgetank.ReceiveOptions{Max: math.MaxInt, MaxBytes: math.MaxInt, Wait: math.MinInt64})
			return err
		}},
		{"Receive with a lease of nonsense", must, func() error {
			_, err := e.b.Receive(ctx, "empty", surgetank.ReceiveOptions{Lease: math.MinInt64})
			return err
		}},
		{"Subscribe with huge numbers", may, func() error {
			return subscribe(ctx, "empty", surgetank.SubscribeOptions{Credit: math.MaxInt, Priority: math.MaxInt})
		}},
		{"Peek with huge numbers", may, func() error {
			_, err := e.b.Peek(ctx, "empty", surgetank.PeekOptions{Max: math.MaxInt, MaxBytes: math.MaxInt, After: math.MaxUint64})
			return err
		}},
		{"Redrive with huge numbers", must, func() error {
			_, err := e.b.Redrive(ctx, "empty", surgetank.RedriveOptions{To: "q", Max: math.MaxInt64, Rate: surgetank.Rate(math.Inf(1))})
			return err
		}},
		{"DeclareQueue with huge numbers", must, func() error {
			_, _, err := e.b.DeclareQueue(ctx, "n", surgetank.QueueConfig{TTL: math.MaxInt64, DedupWindow: math.MaxInt64, Lease: math.MaxInt64}, surgetank.DeclareNew)
			return err
		}},
		{"Peek without a context", must, func() error { _, err := e.b.Peek(none, "q", surgetank.PeekOptions{}); return err }},
		{"Peek with negative numbers", may, func() error {
			_, err := e.b.Peek(ctx, "q", surgetank.PeekOptions{Max: math.MinInt, MaxBytes: math.MinInt, State: "nonsense"})
			return err
		}},
		{"Explain without a context", must, func() error { _, err := e.b.Explain(none, "q", surgetank.ExplainOptions{}); return err }},
		{"Explain no name", must, func() error { _, err := e.b.Explain(ctx, "", surgetank.ExplainOptions{}); return err }},
		{"Peek into no name", must, func() error { _, err := e.b.Peek(ctx, "", surgetank.PeekOptions{}); return err }},
		{"DeclareQueue without a context", must, func() error {
			_, _, err := e.b.DeclareQueue(none, "n", surgetank.QueueConfig{}, surgetank.DeclareNew)
			return err
		}},
		{"DeclareQueue without a name", must, func() error {
			_, _, err := e.b.DeclareQueue(ctx, "", surgetank.QueueConfig{}, surgetank.DeclareNew)
			return err
		}},
		{"DeclareQueue with an unknown mode", must, func() error {
			_, _, err := e.b.DeclareQueue(ctx, "n", surgetank.QueueConfig{}, 200)
			return err
		}},
		{"DeclareQueue with nonsense", must, func() error {
			_, _, err := e.b.DeclareQueue(ctx, "n", surgetank.QueueConfig{MaxBytes: -1, Lease: math.MinInt64, Level: surgetank.LevelConfig{Rate: surgetank.Rate(math.NaN())}}, surgetank.DeclareNew)
			return err
		}},
		{"DeleteQueue without a context", must, func() error { _, err := e.b.DeleteQueue(none, "n", surgetank.DeleteOptions{}); return err }},
		{"DeleteQueue without a name", must, func() error { _, err := e.b.DeleteQueue(ctx, "", surgetank.DeleteOptions{}); return err }},
		{"PurgeQueue without a context", must, func() error { _, err := e.b.PurgeQueue(none, "q"); return err }},
		{"PurgeQueue without a name", must, func() error { _, err := e.b.PurgeQueue(ctx, ""); return err }},
		{"DropDamaged without a context", must, func() error { _, err := e.b.DropDamaged(none, "q"); return err }},
		{"MoveQueue without a context", must, func() error { _, err := e.b.MoveQueue(none, "q", surgetank.MoveOptions{Shard: 1}); return err }},
		{"MoveQueue without a name", must, func() error { _, err := e.b.MoveQueue(ctx, "", surgetank.MoveOptions{Shard: 1}); return err }},
		{"MoveQueue to no shard", must, func() error { _, err := e.b.MoveQueue(ctx, "q", surgetank.MoveOptions{}); return err }},
		{"MoveQueue to a shard that cannot exist", must, func() error { _, err := e.b.MoveQueue(ctx, "q", surgetank.MoveOptions{Shard: math.MinInt}); return err }},
		{"PauseQueue without a context", must, func() error { return e.b.PauseQueue(none, "q", 0) }},
		{"PauseQueue without a name", must, func() error { return e.b.PauseQueue(ctx, "", 0) }},
		{"PauseQueue for a negative time", must, func() error { return e.b.PauseQueue(ctx, "q", -time.Second) }},
		{"PauseQueue for ever", must, func() error { return e.b.PauseQueue(ctx, "q", math.MaxInt64) }},
		{"ResumeQueue without a context", must, func() error { return e.b.ResumeQueue(none, "q") }},
		{"ResumeQueue without a name", must, func() error { return e.b.ResumeQueue(ctx, "") }},
		{"Redrive without a context", must, func() error { _, err := e.b.Redrive(none, "q", surgetank.RedriveOptions{}); return err }},
		{"Redrive without a name", must, func() error { _, err := e.b.Redrive(ctx, "", surgetank.RedriveOptions{}); return err }},
		{"Redrive with negative numbers", must, func() error {
			_, err := e.b.Redrive(ctx, "empty", surgetank.RedriveOptions{To: "q", Max: -1, Rate: -1})
			return err
		}},
		{"Redrive at a rate that is no number", must, func() error {
			_, err := e.b.Redrive(ctx, "empty", surgetank.RedriveOptions{To: "q", Rate: surgetank.Rate(math.NaN())})
			return err
		}},
		{"Queue without a context", must, func() error { _, err := e.b.Queue(none, "q"); return err }},
		{"Queue without a name", must, func() error { _, err := e.b.Queue(ctx, ""); return err }},
		{"Queues without a context", must, func() error { _, err := e.b.Queues(none); return err }},
	} {
		func() {
			defer func() {
				if p := recover(); p != nil {
					e.Errorf("%s panicked: %v", c.name, p)
				}
			}()
			if c.name == "Receive with negative numbers" {
				e.declare("empty", surgetank.QueueConfig{})
			}
			err := c.call()
			var se *surgetank.Error
			if err == nil && c.err || err != nil && (!errors.As(err, &se) || se.Message == "") {
				e.Errorf("%s gave %#v (%v)", c.name, err, err)
			}
		}()
	}

	s := e.subscribe("q", surgetank.SubscribeOptions{Credit: math.MinInt, ManualCredit: true})
	_, err := s.Receive(none, nil, 1, 1)
	e.code(err, surgetank.CodeInvalid)
	if got, err := s.TryReceive(nil, -1, -1); err != nil || len(got) != 0 {
		e.Errorf("TryReceive with limit -1: %d messages, %v", len(got), err)
	}
	s.AddCredit(math.MinInt)
	s.AddCredit(math.MaxInt)
	s.AddCredit(math.MaxInt)
	e.must(s.Cancel())
	e.must(s.Cancel())
	e.must(s.Close())
	e.must(s.Close())
	s.AddCredit(1)
	e.works()
}

// works requires that the broker still stores, delivers and settles.
func (e *env) works() {
	e.Helper()
	e.declare("works", surgetank.QueueConfig{})
	e.bodies("works", "1")
	e.settle(surgetank.Ack, e.await("works", 1, 0)...)
	_, err := e.b.DeleteQueue(e.ctx, "works", surgetank.DeleteOptions{IfEmpty: true})
	e.must(err)
}

// callbacksThatFail passes functions that panic, and functions that end their goroutine as a test's
// Fatal does. Neither ends the process or the broker, and other calls succeed.
func callbacksThatFail(e *env) {
	e.declare("q", surgetank.QueueConfig{})
	for name, fail := range map[string]func(){"panics": func() { panic("a careless function") }, "ends its goroutine": runtime.Goexit} {
		called := make(chan string, 100)
		did := func(what string) {
			select {
			case called <- what:
			default:
			}
			fail()
		}
		await := func(what string) {
			e.Helper()
			for {
				select {
				case got := <-called:
					if got == what {
						return
					}
				case <-time.After(patience):
					e.Fatalf("%s was not called, where each function %s", what, name)
				}
			}
		}
		e.must(e.b.PublishAsync(e.ctx, []surgetank.Publishing{message("q", "1")}, func([]surgetank.PublishResult, error) { did("publish") }))
		ok := make(chan error, 1)
		e.must(e.b.PublishAsync(e.ctx, []surgetank.Publishing{message("q", "2")}, func(_ []surgetank.PublishResult, err error) { ok <- err }))
		await("publish")
		e.must(<-ok)
		s := e.subscribe("q", surgetank.SubscribeOptions{Credit: 2})
		got := e.collect(s, 2)
		e.must(e.b.SettleAsync(e.ctx, []surgetank.Settlement{{Receipt: got[0].Receipt}}, func([]surgetank.SettleResult, error) { did("settle") }))
		await("settle")
		e.settle(surgetank.Reject, got[1])
		e.must(s.Close())
		if name == "panics" { // Progress is called on the caller's goroutine, so the other function would end this test's goroutine
			_, err := e.b.Redrive(e.ctx, "q.dead", surgetank.RedriveOptions{Progress: func(int64) { did("progress") }})
			if e.code(err, surgetank.CodeInvalid); !strings.Contains(err.Error(), "Progress") {
				e.Errorf("%v", err)
			}
		}
		if _, err := e.b.PurgeQueue(e.ctx, "q"); err != nil {
			e.Fatal(err)
		}
		if _, err := e.b.PurgeQueue(e.ctx, "q.dead"); err != nil {
			e.Fatal(err)
		}
		e.works()
	}
}
