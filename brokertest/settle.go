package brokertest

import (
	"context"
	"time"

	"github.com/surgetank/surgetank"
)

func leaseExpires(e *env) {
	e.declare("q", surgetank.QueueConfig{Retry: surgetank.RetryConfig{Initial: -1}})
	e.bodies("q", "x")
	first := e.await("q", 1, e.span())
	e.pass(e.span() + time.Second)
	second := e.await("q", 1, time.Hour)
	if d := second[0]; d.ID != first[0].ID || d.Attempt != 2 || !d.Redelivered || d.Receipt == first[0].Receipt {
		e.Fatalf("after the lease: %+v", d)
	}
	for _, op := range []surgetank.SettleOp{surgetank.Ack, surgetank.Nack, surgetank.Reject, surgetank.Extend} {
		e.code(e.settleAll(op, first...)[0], surgetank.CodeLeaseLost)
	}
	e.settle(surgetank.Ack, second...)
	if i := e.info("q"); i.LeasesLost != 1 {
		e.Fatalf("%d leases count as lost", i.LeasesLost)
	}
}

func leaseExtended(e *env) {
	e.declare("q", surgetank.QueueConfig{})
	e.bodies("q", "x", "y")
	got := e.await("q", 2, e.span())
	results, err := e.b.Settle(e.ctx, []surgetank.Settlement{{Receipt: got[0].Receipt, Op: surgetank.Extend, Lease: time.Hour}})
	e.must(err)
	e.must(results[0])
	e.pass(e.span() + time.Second)
	// The end of the second message's lease shows that time has passed. The first lease still
	// exists.
	e.until("the lease that was not extended ends", func() bool { return e.info("q").LeasesLost == 1 })
	e.settle(surgetank.Ack, got[0])
	e.code(e.settleAll(surgetank.Ack, got[1])[0], surgetank.CodeLeaseLost)
}

func nackAtOnce(e *env) {
	e.declare("q", surgetank.QueueConfig{})
	e.bodies("q", "1", "2", "3")
	got := e.await("q", 2, 0)
	e.nack(got[0], surgetank.Settlement{})
	again := e.await("q", 2, 0) // in its old position, before the third
	e.same(texts(again), []string{"1", "3"})
	if again[0].Attempt != 2 || !again[0].Redelivered || again[1].Redelivered {
		e.Fatalf("attempts %d and %d", again[0].Attempt, again[1].Attempt)
	}
}

func nackLater(e *env) {
	e.declare("q", surgetank.QueueConfig{Level: surgetank.LevelConfig{MaxInFlight: 1}})
	e.bodies("q", "1", "2")
	d := e.await("q", 1, 0)[0]
	e.nack(d, surgetank.Settlement{Delay: e.span()})
	next := e.await("q", 1, 0) // a waiting message uses no in-flight slot
	e.same(texts(next), []string{"2"})
	e.settle(surgetank.Ack, next...)
	e.pass(e.span())
	e.same(texts(e.await("q", 1, 0)), []string{"1"})
}

func nackBackoff(e *env) {
	e.declare("q", surgetank.QueueConfig{Retry: surgetank.RetryConfig{Initial: e.span(), Factor: 2, Jitter: -1}})
	e.bodies("q", "x")
	for attempt, wait := range []time.Duration{e.span(), 2 * e.span()} {
		d := e.await("q", 1, 0)[0]
		if d.Attempt != attempt+1 {
			e.Fatalf("attempt %d, want %d", d.Attempt, attempt+1)
		}
		started := time.Now()
		e.nack(d, surgetank.Settlement{Delay: surgetank.RetryBackoff})
		if _, ok := e.manual(); ok {
			e.pass(wait - time.Millisecond)
			e.none("q")
			e.pass(time.Millisecond)
			continue
		}
		back := e.await("q", 1, 0)[0]
		if since := time.Since(started); since < wait {
			e.Fatalf("after attempt %d it came back in %v, want %v", attempt+1, since, wait)
		}
		e.nack(back, surgetank.Settlement{Uncounted: true})
	}
}

func nackUncounted(e *env) {
	e.declare("q", surgetank.QueueConfig{Retry: surgetank.RetryConfig{MaxAttempts: 1}})
	e.bodies("q", "x")
	for range 3 {
		d := e.await("q", 1, 0)[0]
		if d.Attempt != 1 {
			e.Fatalf("attempt %d, want 1", d.Attempt)
		}
		e.nack(d, surgetank.Settlement{Uncounted: true})
	}
	e.nack(e.await("q", 1, 0)[0], surgetank.Settlement{})
	e.await("q.dead", 1, 0)
}

func deadLetterAtLimit(e *env) {
	e.declare("q", surgetank.QueueConfig{Retry: surgetank.RetryConfig{MaxAttempts: 2}})
	m := message("q", "x")
	m.Message.Headers = []surgetank.Header{{Name: "h", Value: "v"}}
	e.publish(m)
	for range 2 {
		e.nack(e.await("q", 1, 0)[0], surgetank.Settlement{Reason: "no such customer"})
	}
	e.none("q")
	d := e.await("q.dead", 1, 0)[0]
	if string(d.Body) != "x" || len(d.Headers) != 1 || d.Attempt != 1 {
		e.Fatalf("dead letter %+v", d)
	}
	if len(d.Deaths) != 1 {
		e.Fatalf("history %+v", d.Deaths)
	}
	death := d.Deaths[0]
	if death.Queue != "q" || death.Reason != surgetank.ReasonAttempts || death.Detail != "no such customer" || death.Attempts != 2 || death.Time.IsZero() {
		e.Fatalf("history %+v", death)
	}
}

func reject(e *env) {
	e.declare("parked", surgetank.QueueConfig{})
	e.declare("q", surgetank.QueueConfig{DeadLetter: "parked"})
	e.bodies("q", "x")
	d := e.await("q", 1, 0)[0]
	results, err := e.b.Settle(e.ctx, []surgetank.Settlement{{Receipt: d.Receipt, Op: surgetank.Reject, Reason: "bad"}})
	e.must(err)
	e.must(results[0])
	got := e.await("parked", 1, 0)[0]
	if got.Deaths[0].Reason != surgetank.ReasonRejected || got.Deaths[0].Detail != "bad" {
		e.Fatalf("history %+v", got.Deaths)
	}
	e.counts("q", 0, 0, 0, 0)
}

func deadLetterDrop(e *env) {
	e.declare("q", surgetank.QueueConfig{DeadLetter: surgetank.DeadLetterDrop})
	e.bodies("q", "x")
	e.settle(surgetank.Reject, e.await("q", 1, 0)...)
	e.counts("q", 0, 0, 0, 0)
	_, err := e.b.Queue(e.ctx, "q.dead")
	e.code(err, surgetank.CodeNotFound)
}

func settleResults(e *env) {
	e.declare("q", surgetank.QueueConfig{})
	e.bodies("q", "1", "2")
	got := e.await("q", 2, 0)
	forged := got[1].Receipt
	forged.Lease += 1000
	old := got[1].Receipt
	old.Epoch--
	results, err := e.b.Settle(e.ctx, []surgetank.Settlement{
		{Receipt: got[0].Receipt, Op: surgetank.Ack}, {Receipt: got[0].Receipt, Op: surgetank.Ack}, {Receipt: forged, Op: surgetank.Ack},
		{Receipt: old, Op: surgetank.Ack}, {Receipt: got[1].Receipt, Op: surgetank.Ack},
	})
	e.must(err)
	for i, want := range []surgetank.Code{"", surgetank.CodeLeaseLost, surgetank.CodeLeaseLost, surgetank.CodeLeaseLost, ""} {
		if got := surgetank.CodeOf(results[i]); got != want {
			e.Errorf("settlement %d: %v, want code %q", i, results[i], want)
		}
	}
	e.counts("q", 0, 0, 0, 0)
}

func settleAsync(e *env) {
	e.declare("q", surgetank.QueueConfig{})
	e.bodies("q", "1", "2")
	got := e.await("q", 2, 0)
	done := make(chan error, 1)
	e.must(e.b.SettleAsync(e.ctx, []surgetank.Settlement{{Receipt: got[0].Receipt}}, nil))
	e.must(e.b.SettleAsync(e.ctx, []surgetank.Settlement{{Receipt: got[1].Receipt}}, func(r []surgetank.SettleResult, err error) {
		if err == nil {
			err = r[0]
		}
		done <- err
	}))
	e.must(<-done)
	e.until("both are gone", func() bool { i := e.info("q"); return i.Leased == 0 && i.Acked == 2 })
}

func grouped(queue, group, body string) surgetank.Publishing {
	m := message(queue, body)
	m.Message.Group = group
	return m
}

func groupInFlight(e *env) {
	e.declare("q", surgetank.QueueConfig{Group: surgetank.GroupConfig{MaxInFlight: 1}})
	e.publish(grouped("q", "a", "a1"), grouped("q", "a", "a2"), grouped("q", "b", "b1"), grouped("q", "a", "a3"))
	got := e.await("q", 2, 0)
	e.same(texts(got), []string{"a1", "b1"})
	e.none("q")
	e.counts("q", 0, 2, 0, 2)
	// A message in back-off blocks its group, so that the order is kept.
	e.nack(got[0], surgetank.Settlement{Delay: e.span()})
	e.settle(surgetank.Ack, got[1])
	if _, ok := e.manual(); ok {
		e.none("q")
	}
	e.pass(e.span())
	for _, want := range []string{"a1", "a2", "a3"} {
		d := e.await("q", 1, 0)
		e.same(texts(d), []string{want})
		e.none("q")
		e.settle(surgetank.Ack, d...)
	}
}

func levelInFlight(e *env) {
	e.declare("q", surgetank.QueueConfig{Level: surgetank.LevelConfig{MaxInFlight: 2}})
	e.bodies("q", "1", "2", "3")
	got := e.await("q", 2, 0)
	e.none("q")
	e.settle(surgetank.Ack, got[0])
	e.same(texts(e.await("q", 1, 0)), []string{"3"})
}

func longPoll(e *env) {
	if _, ok := e.manual(); ok {
		e.Skip("a wait is real time")
	}
	e.declare("q", surgetank.QueueConfig{})
	got := make(chan []surgetank.Delivery, 1)
	go func() {
		d, err := e.b.Receive(e.ctx, "q", surgetank.ReceiveOptions{Max: 5, Wait: patience})
		if err != nil {
			e.Error(err)
		}
		got <- d
	}()
	e.until("a receive waits", func() bool { return e.info("q").Consumers == 1 })
	e.bodies("q", "x")
	e.same(texts(<-got), []string{"x"})
	// A receive without a message returns no error, and leaves no consumer behind that would get
	// later messages.
	d, err := e.b.Receive(e.ctx, "q", surgetank.ReceiveOptions{Wait: time.Millisecond})
	e.must(err)
	e.same(texts(d), []string(nil))
	ctx, cancel := context.WithCancel(e.ctx)
	left := make(chan struct{})
	go func() {
		defer close(left)
		_, _ = e.b.Receive(ctx, "q", surgetank.ReceiveOptions{Wait: patience}) // ends when its context ends
	}()
	e.until("a receive waits again", func() bool { return e.info("q").Consumers == 1 })
	cancel()
	<-left
	e.until("no receive waits", func() bool { return e.info("q").Consumers == 0 })
	e.bodies("q", "y")
	e.same(texts(e.await("q", 1, 0)), []string{"y"})
	_, err = e.b.Receive(e.ctx, "nope", surgetank.ReceiveOptions{})
	e.code(err, surgetank.CodeNotFound)
}

func receiveMaxBytes(e *env) {
	e.declare("q", surgetank.QueueConfig{})
	big := string(make([]byte, 1000))
	e.bodies("q", big, big, big, big, big)
	got, err := e.b.Receive(e.ctx, "q", surgetank.ReceiveOptions{Max: 5, MaxBytes: 1500})
	e.must(err)
	if len(got) != 2 {
		e.Fatalf("received %d messages of 1,000 bytes, want 2", len(got))
	}
	e.counts("q", 3, 0, 0, 2) // other consumers can get the messages above the limit
	got, err = e.b.Receive(e.ctx, "q", surgetank.ReceiveOptions{Max: 5, MaxBytes: 1})
	e.must(err)
	if len(got) != 1 || got[0].Attempt != 1 || got[0].ID.Seq != 3 {
		e.Fatalf("received %d messages, want one at least", len(got))
	}
}

func receiveNoAck(e *env) {
	e.declare("q", surgetank.QueueConfig{})
	e.bodies("q", "x")
	got, err := e.b.Receive(e.ctx, "q", surgetank.ReceiveOptions{NoAck: true})
	e.must(err)
	e.same(texts(got), []string{"x"})
	if got[0].Receipt != (surgetank.Receipt{}) {
		e.Fatalf("receipt %v", got[0].Receipt)
	}
	e.counts("q", 0, 0, 0, 0)
}

func fencingTokens(e *env) {
	e.declare("q", surgetank.QueueConfig{Group: surgetank.GroupConfig{MaxInFlight: 1}})
	e.declare("free", surgetank.QueueConfig{})
	e.publish(surgetank.Publishing{Queues: []string{"q", "free"}, Message: surgetank.Message{Group: "g", Body: []byte("1")}})
	e.publish(surgetank.Publishing{Queues: []string{"q"}, Message: surgetank.Message{Group: "g", Body: []byte("2")}})
	last := int64(0)
	for range 3 { // message 1, message 1 again after a nack, then message 2
		d := e.await("q", 1, 0)[0]
		if d.FencingToken <= last {
			e.Fatalf("token %d after %d", d.FencingToken, last)
		}
		if d.Attempt == 1 && last == 0 {
			e.nack(d, surgetank.Settlement{})
		} else {
			e.settle(surgetank.Ack, d)
		}
		last = d.FencingToken
	}
	if d := e.await("free", 1, 0)[0]; d.FencingToken != 0 {
		e.Fatalf("a queue without strict groups has the token %d", d.FencingToken)
	}
}
