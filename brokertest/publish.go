package brokertest

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/door"
)

func publishAndReceive(e *env) {
	info := e.declare("q", surgetank.QueueConfig{MaxPriority: 9})
	in := surgetank.Message{
		Body: []byte("\x00 any \xff bytes\n"), ContentType: "x/y", Key: "k", Group: "g", DedupID: "d", Priority: 3,
		Headers: []surgetank.Header{{Name: "b", Value: "1"}, {Name: "a", Value: "ü"}, {Name: "b", Value: ""}},
	}
	*door.Opaque(&in) = []byte{0xEE, 0, 1}
	before := time.Now().Add(-time.Hour)
	ids := e.publish(surgetank.Publishing{Queues: []string{"q"}, Message: in}, message("q", ""), message("q", `{"a": 1}`), message("q", " 7 "))
	for i, id := range ids {
		if want := (surgetank.MessageID{Queue: info.ID, Seq: uint64(i + 1)}); id.Queue != want.Queue || id.Seq != want.Seq {
			e.Fatalf("message %d has id %v, want %v", i, id, want)
		}
	}
	got := e.await("q", 4, 0)
	d := got[0]
	if !reflect.DeepEqual(d.Message, in) {
		e.Fatalf("received %+v\nwant %+v", d.Message, in)
	}
	if d.ID != ids[0] || d.Queue != "q" || d.Attempt != 1 || d.Redelivered || d.Receipt.ID.Queue != d.ID.Queue || d.Receipt.ID.Seq != d.ID.Seq || len(d.Deaths) != 0 {
		e.Fatalf("received %+v", d)
	}
	if _, ok := e.manual(); !ok && d.Time.Before(before) || d.Time.IsZero() || !d.Deadline.After(d.Time) {
		e.Fatalf("time %v, deadline %v", d.Time, d.Deadline)
	}
	e.same(texts(got[1:]), []string{"", `{"a": 1}`, " 7 "})
	e.counts("q", 0, 0, 0, 4)
	e.settle(surgetank.Ack, got...)
	e.counts("q", 0, 0, 0, 0)
	e.none("q")
}

func publishRefused(e *env) {
	e.declare("q", surgetank.QueueConfig{})
	bad := []surgetank.Publishing{
		message("nope", "x"), message("q", "good"), message("q\x00", "x"),
		{Queues: []string{"q"}, Message: surgetank.Message{Delay: -1}},
		{Queues: []string{"q"}, Message: surgetank.Message{DedupID: strings.Repeat("d", surgetank.MaxDedupIDLen+1)}},
		{},
		// A message never loses its group or id.
		{Queues: []string{"q"}, Message: surgetank.Message{Group: strings.Repeat("g", surgetank.MaxNameLen+1)}},
		{Queues: []string{"q"}, Message: surgetank.Message{Group: "a\tb"}},
		{Queues: []string{"q"}, Message: surgetank.Message{DedupID: "a\x00"}},
	}
	results, err := e.b.Publish(e.ctx, bad)
	e.must(err)
	for i, want := range []surgetank.Code{surgetank.CodeNotFound, "", surgetank.CodeNotFound, surgetank.CodeInvalid, surgetank.CodeTooLarge, surgetank.CodeInvalid,
		surgetank.CodeTooLarge, surgetank.CodeInvalid, surgetank.CodeInvalid} {
		got := surgetank.CodeOf(results[i].Err)
		if i == 2 && got == surgetank.CodeInvalid || i == 4 && got == surgetank.CodeInvalid {
			continue // a name that no queue can have is also not found; a long id is also invalid
		}
		if got != want {
			e.Errorf("message %d: %v (code %q), want code %q", i, results[i].Err, got, want)
		}
	}
	e.same(texts(e.await("q", 1, 0)), []string{"good"})
	e.none("q")
	// A message that one of its queues refuses is not confirmed, even if other queues have stored
	// it.
	results, err = e.b.Publish(e.ctx, []surgetank.Publishing{{Queues: []string{"q", "nope"}}})
	e.must(err)
	e.code(results[0].Err, surgetank.CodeNotFound)
}

func publishNumbered(e *env) {
	// One shard: only there, a number that comes again for another queue is known.
	e.declare("q", surgetank.QueueConfig{Shard: 1})
	e.declare("other", surgetank.QueueConfig{Shard: 1})
	const id = "publisher-of-this-test"
	numbered := func(queue, body string, n uint64) surgetank.Publishing {
		p := message(queue, body)
		p.Publisher, p.Sequence = id, n
		return p
	}
	results, err := e.b.Publish(e.ctx, []surgetank.Publishing{numbered("q", "too early", 2)})
	e.must(err)
	var unknown *surgetank.Error
	if e.code(results[0].Err, surgetank.CodeUncertain); !errors.As(results[0].Err, &unknown) || unknown.Field != surgetank.FieldPublisher {
		e.Errorf("the field of %+v is not %s", results[0].Err, surgetank.FieldPublisher)
	}
	first := e.publish(numbered("q", "1", 1), numbered("q", "2", 2), numbered("q", "4", 4))
	for i, p := range []surgetank.Publishing{numbered("q", "4 again", 4), numbered("other", "2 again", 2), numbered("q", "3", 3), numbered("other", "5", 5), message("q", "plain")} {
		results, err := e.b.Publish(e.ctx, []surgetank.Publishing{p})
		e.must(err)
		e.must(results[0].Err)
		if results[0].Duplicate != (i < 2) || i == 0 && results[0].ID != first[2] {
			e.Errorf("message %d: %+v", i, results[0])
		}
	}
	e.same(texts(e.await("q", 5, 0)), []string{"1", "2", "4", "3", "plain"})
	e.same(texts(e.await("other", 1, 0)), []string{"5"})
	e.none("q")
	// A message with a publisher is stored in all its queues or in none.
	both := surgetank.Publishing{Queues: []string{"other", "nope"}, Publisher: id, Sequence: 6}
	results, err = e.b.Publish(e.ctx, []surgetank.Publishing{both})
	e.must(err)
	e.code(results[0].Err, surgetank.CodeNotFound)
	e.none("other")
	_, err = e.b.Transact(e.ctx, []surgetank.Publishing{numbered("q", "x", 7)}, nil)
	e.code(err, surgetank.CodeInvalid)
	for _, bad := range []surgetank.Publishing{{Publisher: "short", Sequence: 1}, {Publisher: id}, {Sequence: 1}} {
		bad.Queues = []string{"q"}
		results, err := e.b.Publish(e.ctx, []surgetank.Publishing{bad})
		e.must(err)
		e.code(results[0].Err, surgetank.CodeInvalid)
	}
}

func publishAsyncInOrder(e *env) {
	e.declare("q", surgetank.QueueConfig{})
	const n = 500
	type done struct {
		i   int
		err error
	}
	all := make(chan done, n)
	for i := range n {
		e.must(e.b.PublishAsync(e.ctx, []surgetank.Publishing{message("q", fmt.Sprint(i))}, func(r []surgetank.PublishResult, err error) {
			if err == nil {
				err = r[0].Err
			}
			all <- done{i, err}
		}))
	}
	for i := range n {
		select {
		case d := <-all:
			e.must(d.err)
			if d.i != i {
				e.Fatalf("confirm %d came as number %d", d.i, i)
			}
		case <-time.After(patience):
			e.Fatalf("only %d confirms came", i)
		}
	}
	for i, d := range e.await("q", n, 0) {
		if string(d.Body) != fmt.Sprint(i) {
			e.Fatalf("message %d is %q", i, d.Body)
		}
	}
}

func publishToSeveralQueues(e *env) {
	a, b := e.declare("a", surgetank.QueueConfig{}), e.declare("b", surgetank.QueueConfig{})
	ids := e.publish(surgetank.Publishing{Queues: []string{"b", "a"}, Message: surgetank.Message{Body: []byte("x")}})
	if ids[0].Queue != b.ID {
		e.Fatalf("the id %v is not from the first queue", ids[0])
	}
	gotA, gotB := e.await("a", 1, 0), e.await("b", 1, 0)
	if gotA[0].ID.Queue != a.ID || string(gotA[0].Body) != "x" || string(gotB[0].Body) != "x" {
		e.Fatalf("received %+v and %+v", gotA, gotB)
	}
	e.settle(surgetank.Ack, gotA...)
	e.counts("b", 0, 0, 0, 1)
}

func order(e *env) {
	e.declare("q", surgetank.QueueConfig{})
	const n = 2000
	var msgs []surgetank.Publishing
	for i := range n {
		msgs = append(msgs, message("q", fmt.Sprint(i)))
	}
	e.publish(msgs[:n/2]...)
	e.publish(msgs[n/2:]...)
	for i := 0; i < n; {
		got := e.await("q", min(300, n-i), 0)
		for _, d := range got {
			if string(d.Body) != fmt.Sprint(i) || d.ID.Seq != uint64(i+1) {
				e.Fatalf("message %d is %q (%s)", i, d.Body, d.ID)
			}
			i++
		}
		e.settle(surgetank.Ack, got...)
	}
}

func dedup(e *env) {
	window := 4 * e.span()
	e.declare("q", surgetank.QueueConfig{DedupWindow: window})
	e.declare("free", surgetank.QueueConfig{})
	m := message("q", "first")
	m.Message.DedupID = "id"
	first := e.publish(m)
	m.Message.Body = []byte("second")
	again := func() surgetank.PublishResult {
		r, err := e.b.Publish(e.ctx, []surgetank.Publishing{m})
		e.must(err)
		e.must(r[0].Err)
		return r[0]
	}
	if r := again(); !r.Duplicate || r.ID != first[0] {
		e.Fatalf("the same id within the window: %+v", r)
	}
	e.same(texts(e.await("q", 1, 0)), []string{"first"})
	if r := again(); !r.Duplicate { // a duplicate, even if the first message is leased or gone
		e.Fatalf("the same id once more: %+v", r)
	}
	e.none("q")
	m.Queues = []string{"free"} // a queue without a window stores both
	if a, b := again(), again(); a.Duplicate || b.Duplicate {
		e.Fatalf("without a window: %+v, %+v", a, b)
	}
	m.Queues = []string{"q"}
	e.pass(window + time.Second)
	e.until("the id is free again", func() bool { return !again().Duplicate })

	// If the publisher sets no id, the queue finds one. The publisher does not see the found id.
	e.declare("by", surgetank.QueueConfig{DedupWindow: time.Hour, DedupBy: "$.id"})
	e.declare("header", surgetank.QueueConfig{DedupWindow: time.Hour, DedupBy: "header:Order"})
	for body, want := range map[string]bool{`{"id":"a"}`: true, `{"n":1}`: false, `no JSON`: false} {
		m := message("by", body)
		r, err := e.b.Publish(e.ctx, []surgetank.Publishing{m, m})
		e.must(err)
		if r[0].Duplicate || r[1].Duplicate != want {
			e.Fatalf("%s twice: %+v", body, r)
		}
	}
	m = message("header", "x")
	m.Message.Headers = []surgetank.Header{{Name: "order", Value: "1"}}
	both := m
	both.Queues = []string{"free", "header"} // the first queue has no rule, the second has one
	r, err := e.b.Publish(e.ctx, []surgetank.Publishing{m, both})
	e.must(err)
	if r[0].Duplicate || r[1].Duplicate || r[1].Err != nil { // one of its queues stored it
		e.Fatalf("by header: %+v", r)
	}
	e.counts("header", 1, 0, 0, 0)
}

// coalesce: of the waiting messages with a key, the last or the first is delivered. While a message
// is leased, a new one waits for the end of the lease.
func coalesce(e *env) {
	e.declare("last", surgetank.QueueConfig{Coalesce: surgetank.CoalesceConfig{By: "$.id"}})
	e.declare("first", surgetank.QueueConfig{Coalesce: surgetank.CoalesceConfig{By: "header:id", Keep: surgetank.KeepFirst}})
	for _, n := range []string{"1", "2", "3"} {
		first := message("first", n)
		first.Message.Headers = []surgetank.Header{{Name: "id", Value: "a"}}
		e.publish(message("last", `{"id":"a","n":`+n+`}`), first)
	}
	d := e.await("last", 1, 0)
	e.same(texts(d), []string{`{"id":"a","n":3}`})
	e.publish(message("last", `{"id":"a","n":4}`), message("last", `{"id":"a","n":5}`))
	e.none("last")
	e.settle(surgetank.Ack, d...)
	e.same(texts(e.await("last", 1, 0)), []string{`{"id":"a","n":5}`})
	e.same(texts(e.await("first", 1, 0)), []string{"1"})
	for name, want := range map[string]uint64{"last": 3, "first": 2} {
		i, err := e.b.Queue(e.ctx, name)
		e.must(err)
		if i.Coalesced != want {
			e.Fatalf("queue %s coalesced %d messages, want %d", name, i.Coalesced, want)
		}
	}
}

func delay(e *env) {
	e.declare("q", surgetank.QueueConfig{})
	m := message("q", "late")
	m.Message.Delay = e.span()
	started := time.Now()
	e.publish(m, message("q", "now"))
	first := e.await("q", 1, 0)
	e.same(texts(first), []string{"now"})
	e.settle(surgetank.Ack, first...)
	if _, ok := e.manual(); ok {
		e.none("q")
		e.counts("q", 0, 0, 1, 0)
	}
	e.pass(e.span())
	e.same(texts(e.await("q", 1, 0)), []string{"late"})
	if _, ok := e.manual(); !ok && time.Since(started) < e.span() {
		e.Fatal("the message arrived before its delay had passed")
	}
}

func ttl(e *env) {
	e.declare("gone", surgetank.QueueConfig{})
	e.declare("q", surgetank.QueueConfig{DeadLetter: "gone"})
	m := message("q", "short")
	m.Message.TTL = e.span()
	e.publish(m, message("q", "long"))
	e.pass(2 * e.span())
	got := e.await("gone", 1, 0)
	e.same(texts(got), []string{"short"})
	if len(got[0].Deaths) != 1 || got[0].Deaths[0].Reason != surgetank.ReasonExpired || got[0].Deaths[0].Queue != "q" {
		e.Fatalf("history %+v", got[0].Deaths)
	}
	e.same(texts(e.await("q", 1, 0)), []string{"long"})
}

func priority(e *env) {
	e.declare("q", surgetank.QueueConfig{MaxPriority: 5})
	for i, p := range []uint8{1, 0, 5, 1, 200, 5} {
		m := message("q", fmt.Sprintf("%d:%d", p, i))
		m.Message.Priority = p
		e.publish(m)
	}
	e.same(texts(e.await("q", 6, 0)), []string{"5:2", "200:4", "5:5", "1:0", "1:3", "0:1"}) // higher priorities are lowered to the maximum
}

func limitReject(e *env) {
	e.declare("q", surgetank.QueueConfig{MaxMessages: 2})
	results, err := e.b.Publish(e.ctx, []surgetank.Publishing{message("q", "1"), message("q", "2"), message("q", "3")})
	e.must(err)
	e.must(results[0].Err)
	e.must(results[1].Err)
	e.code(results[2].Err, surgetank.CodeFull)
	got := e.await("q", 2, 0)
	e.settle(surgetank.Ack, got...) // acks still work, and free space
	e.bodies("q", "4")
}

func limitDropOldest(e *env) {
	e.declare("q", surgetank.QueueConfig{MaxMessages: 2, Overflow: surgetank.OverflowDropOldest})
	e.bodies("q", "1", "2", "3", "4")
	e.same(texts(e.await("q", 2, 0)), []string{"3", "4"})
	if i := e.info("q"); i.Dropped != 2 {
		e.Fatalf("%d messages count as dropped", i.Dropped)
	}
}
