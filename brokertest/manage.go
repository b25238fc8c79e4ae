package brokertest

import (
	"bytes"
	"strings"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/fullname"
	"github.com/surgetank/surgetank/internal/settings"
)

func peek(e *env) {
	e.declare("q", surgetank.QueueConfig{})
	ids := e.bodies("q", "1", "2", "3", "4")
	late := message("q", "5")
	late.Message.Delay = time.Hour
	e.publish(late)
	e.await("q", 1, 0)
	show := func(o surgetank.PeekOptions) []string {
		got, err := e.b.Peek(e.ctx, "q", o)
		e.must(err)
		var out []string
		for _, d := range got {
			if d.Receipt != (surgetank.Receipt{}) {
				e.Fatalf("a peek returned a receipt: %+v", d)
			}
			out = append(out, string(d.State)+" "+string(d.Body))
		}
		return out
	}
	e.same(show(surgetank.PeekOptions{}), []string{"leased 1", "ready 2", "ready 3", "ready 4", "delayed 5"})
	e.same(show(surgetank.PeekOptions{Max: 2, After: ids[1].Seq}), []string{"ready 3", "ready 4"})
	e.same(show(surgetank.PeekOptions{State: surgetank.StateDelayed}), []string{"delayed 5"})
	e.same(show(surgetank.PeekOptions{ID: ids[2]}), []string{"ready 3"})
	e.counts("q", 3, 0, 1, 1)
	_, err := e.b.Peek(e.ctx, "nope", surgetank.PeekOptions{})
	e.code(err, surgetank.CodeNotFound)
}

func purge(e *env) {
	e.declare("q", surgetank.QueueConfig{})
	e.bodies("q", "1", "2", "3")
	got := e.await("q", 1, 0)
	n, err := e.b.PurgeQueue(e.ctx, "q")
	e.must(err)
	if n != 2 {
		e.Fatalf("purged %d, want 2", n)
	}
	e.counts("q", 0, 0, 0, 1)
	e.settle(surgetank.Ack, got...)
	_, err = e.b.PurgeQueue(e.ctx, "nope")
	e.code(err, surgetank.CodeNotFound)
	if n, err := e.b.DropDamaged(e.ctx, "q"); err != nil || n != 0 {
		e.Errorf("nothing is damaged, and dropping gave %d, %v", n, err)
	}
	_, err = e.b.DropDamaged(e.ctx, "nope")
	e.code(err, surgetank.CodeNotFound)
}

func pause(e *env) {
	e.declare("q", surgetank.QueueConfig{})
	e.must(e.b.PauseQueue(e.ctx, "q", 0))
	e.bodies("q", "x", "y")
	e.none("q")
	if i := e.info("q"); !i.Config.Paused || !i.Config.PausedUntil.IsZero() || i.Waiting == "" {
		e.Fatalf("paused %v until %v, waiting %q", i.Config.Paused, i.Config.PausedUntil, i.Waiting)
	}
	e.must(e.b.ResumeQueue(e.ctx, "q"))
	e.same(texts(e.await("q", 1, 0)), []string{"x"})
	e.must(e.b.PauseQueue(e.ctx, "q", e.span()))
	e.pass(e.span())
	e.same(texts(e.await("q", 1, 0)), []string{"y"})
	if i := e.info("q"); i.Config.Paused || !i.Config.PausedUntil.IsZero() {
		e.Fatalf("paused %v until %v after its end", i.Config.Paused, i.Config.PausedUntil)
	}
	e.code(e.b.PauseQueue(e.ctx, "nope", 0), surgetank.CodeNotFound)
	e.code(e.b.ResumeQueue(e.ctx, "nope"), surgetank.CodeNotFound)
}

func redrive(e *env) {
	e.declare("q", surgetank.QueueConfig{Retry: surgetank.RetryConfig{MaxAttempts: 1}})
	e.declare("other", surgetank.QueueConfig{})
	e.bodies("q", "1", "2", "3")
	for _, d := range e.await("q", 3, 0) {
		e.nack(d, surgetank.Settlement{Reason: "down"})
	}
	move := func(o surgetank.RedriveOptions) surgetank.RedriveResult {
		r, err := e.b.Redrive(e.ctx, "q.dead", o)
		e.must(err)
		return r
	}
	if r := move(surgetank.RedriveOptions{DryRun: true}); r.Matched != 3 || r.Moved != 0 {
		e.Fatalf("dry run: %+v", r)
	}
	e.counts("q.dead", 3, 0, 0, 0)
	if r := move(surgetank.RedriveOptions{Reason: surgetank.ReasonExpired}); r.Moved != 0 {
		e.Fatalf("another reason: %+v", r)
	}
	if r := move(surgetank.RedriveOptions{To: "other", Max: 1}); r.Moved != 1 {
		e.Fatalf("one: %+v", r)
	}
	if r := move(surgetank.RedriveOptions{}); r.Moved != 2 {
		e.Fatalf("the rest: %+v", r)
	}
	e.same(texts(e.await("other", 1, 0)), []string{"1"})
	got := e.await("q", 2, 0)
	e.same(texts(got), []string{"2", "3"})
	if d := got[0]; d.Attempt != 1 || len(d.Deaths) != 1 || d.Deaths[0].Detail != "down" {
		e.Fatalf("attempts start anew and history is kept: %+v", d)
	}
	e.counts("q.dead", 0, 0, 0, 0)
	_, err := e.b.Redrive(e.ctx, "other", surgetank.RedriveOptions{To: "nope"})
	e.code(err, surgetank.CodeNotFound)
}

func declare(e *env) {
	full := surgetank.QueueConfig{
		GroupBy: "header:customer", Group: surgetank.GroupConfig{MaxInFlight: 1, Rate: 50, Fair: true, Weights: map[string]int{"acme": 3, surgetank.OtherGroups: 2}},
		Level:      surgetank.LevelConfig{Rate: 2000, Burst: 20, MaxInFlight: 64, FreshShare: 0.2, FreshAge: time.Hour},
		Retry:      surgetank.RetryConfig{MaxAttempts: -1, Initial: -1, Factor: 3, Max: time.Minute, Jitter: -1},
		DeadLetter: "dl", DedupWindow: time.Minute, TTL: time.Hour, MaxBytes: 1 << 40, MaxMessages: 1e9, MaxConsumers: 1e6,
		Overflow: surgetank.OverflowDeadLetter, MaxPriority: 3, PriorityStep: time.Minute, Lease: time.Minute,
	}
	info := e.declare("q", full)
	if info.Name != "q" || info.ID == 0 || info.Created.IsZero() || !settings.Equal(info.Config, full) {
		e.Fatalf("declared %+v", info)
	}
	_, _, err := e.b.DeclareQueue(e.ctx, "q", full, surgetank.DeclareNew)
	e.code(err, surgetank.CodeExists)
	same, created, err := e.b.DeclareQueue(e.ctx, "q", surgetank.QueueConfig{}, surgetank.DeclareIfAbsent)
	e.must(err)
	if created || same.ID != info.ID || !settings.Equal(same.Config, full) {
		e.Fatalf("if absent: %v %+v", created, same)
	}
	_, _, err = e.b.DeclareQueue(e.ctx, "nope", surgetank.QueueConfig{}, surgetank.DeclareUpdate)
	e.code(err, surgetank.CodeNotFound)
	changed, created, err := e.b.DeclareQueue(e.ctx, "q", surgetank.QueueConfig{Lease: time.Second}, surgetank.DeclareOrUpdate)
	e.must(err)
	if created || changed.ID != info.ID || changed.Config.Lease != time.Second || changed.Config.GroupBy != "none" && changed.Config.GroupBy != "" {
		e.Fatalf("changed: %v %+v", created, changed)
	}
	_, _, err = e.b.DeclareQueue(e.ctx, "bad", surgetank.QueueConfig{Overflow: "explode"}, surgetank.DeclareNew)
	e.code(err, surgetank.CodeInvalid)
	for _, name := range []string{"", "a\nb", string(bytes.Repeat([]byte("n"), 256))} {
		_, _, err = e.b.DeclareQueue(e.ctx, name, surgetank.QueueConfig{}, surgetank.DeclareNew)
		e.code(err, surgetank.CodeInvalid)
	}
	v := fullname.Of("vhost", "q/with slash")
	if e.hasVhosts() {
		if i := e.declare(v, surgetank.QueueConfig{}); i.Name != v || i.ID == info.ID {
			e.Fatalf("in a virtual host: %+v", i)
		}
	}
	list, err := e.b.Queues(e.ctx)
	e.must(err)
	found := false
	for _, q := range list {
		found = found || q.Name == "q"
	}
	if !found {
		e.Fatalf("listed %v", list)
	}
}

// hasVhosts reports whether the broker has the virtual host "vhost". A door with a list of virtual
// hosts may not.
func (e *env) hasVhosts() bool {
	_, err := e.b.Queue(e.ctx, fullname.Of("vhost", "x"))
	return surgetank.CodeOf(err) == surgetank.CodeNotFound
}

func deleteQueue(e *env) {
	first := e.declare("q", surgetank.QueueConfig{})
	e.bodies("q", "1", "2")
	_, err := e.b.DeleteQueue(e.ctx, "q", surgetank.DeleteOptions{IfEmpty: true})
	e.code(err, surgetank.CodeExists)
	s := e.subscribe("q", surgetank.SubscribeOptions{Credit: 1})
	_, err = e.b.DeleteQueue(e.ctx, "q", surgetank.DeleteOptions{IfUnused: true})
	e.code(err, surgetank.CodeExists)
	leased := e.collect(s, 1)
	n, err := e.b.DeleteQueue(e.ctx, "q", surgetank.DeleteOptions{})
	e.must(err)
	if n != 1 {
		e.Fatalf("removed %d, want 1", n)
	}
	_, err = e.b.Queue(e.ctx, "q")
	e.code(err, surgetank.CodeNotFound)
	_, err = e.b.DeleteQueue(e.ctx, "q", surgetank.DeleteOptions{})
	e.code(err, surgetank.CodeNotFound)
	e.code(e.settleAll(surgetank.Ack, leased...)[0], surgetank.CodeLeaseLost)
	if again := e.declare("q", surgetank.QueueConfig{}); again.ID == first.ID {
		e.Fatal("a queue that was created again has the old number")
	}
	e.none("q")
}

func queueInfo(e *env) {
	e.declare("q", surgetank.QueueConfig{Group: surgetank.GroupConfig{MaxInFlight: 1}, Retry: surgetank.RetryConfig{MaxAttempts: 1}})
	e.publish(grouped("q", "a", "12345"), grouped("q", "a", "123"), grouped("q", "b", "1"))
	i := e.info("q")
	if i.Ready != 2 || i.Blocked != 1 || i.Bytes != 9 || i.Groups != 2 || i.Published != 3 {
		e.Fatalf("%+v", i)
	}
	got := e.await("q", 2, 0)
	e.settle(surgetank.Ack, got[0])
	e.nack(got[1], surgetank.Settlement{})
	i = e.info("q")
	if i.Delivered != 2 || i.Acked != 1 || i.Nacked != 1 || i.DeadLettered != 1 || i.Ready != 1 || i.Bytes != 3 {
		e.Fatalf("%+v", i)
	}
	_, err := e.b.Queue(e.ctx, "nope")
	e.code(err, surgetank.CodeNotFound)
}

func transact(e *env) {
	e.declare("in", surgetank.QueueConfig{Shard: 1}) // a transaction stays within a shard
	e.declare("out", surgetank.QueueConfig{Shard: 1})
	e.bodies("in", "1", "2")
	got := e.await("in", 2, 0)
	ack := []surgetank.Settlement{{Receipt: got[0].Receipt}}
	_, err := e.b.Transact(e.ctx, []surgetank.Publishing{message("out", "a"), message("nope", "b")}, ack)
	e.code(err, surgetank.CodeNotFound)
	bad := got[1].Receipt
	bad.Lease += 99
	_, err = e.b.Transact(e.ctx, []surgetank.Publishing{message("out", "a")}, append(ack[:1:1], surgetank.Settlement{Receipt: bad}))
	e.code(err, surgetank.CodeLeaseLost)
	e.counts("in", 0, 0, 0, 2) // the refused transactions changed nothing
	e.none("out")
	results, err := e.b.Transact(e.ctx, []surgetank.Publishing{message("out", "a"), message("out", "b")}, ack)
	e.must(err)
	if len(results) != 2 || results[0].ID.Seq != 1 || results[1].ID.Seq != 2 {
		e.Fatalf("results %+v", results)
	}
	e.counts("in", 0, 0, 0, 1)
	e.same(texts(e.await("out", 2, 0)), []string{"a", "b"})
}

func closing(e *env) {
	e.declare("q", surgetank.QueueConfig{})
	s := e.subscribe("q", surgetank.SubscribeOptions{Credit: 1})
	e.must(e.b.Close())
	_, err := e.b.Publish(e.ctx, []surgetank.Publishing{message("q", "x")})
	e.code(err, surgetank.CodeClosed)
	e.code(e.b.PublishAsync(e.ctx, []surgetank.Publishing{message("q", "x")}, func([]surgetank.PublishResult, error) { e.Error("done was called") }), surgetank.CodeClosed)
	_, err = e.b.Receive(e.ctx, "q", surgetank.ReceiveOptions{})
	e.code(err, surgetank.CodeClosed)
	_, err = e.b.Queues(e.ctx)
	e.code(err, surgetank.CodeClosed)
	_, err = s.Receive(e.ctx, nil, 1, 1)
	e.code(err, surgetank.CodeClosed)
	e.must(s.Close())
	e.must(e.b.Close())
}

// backingOff requires that a peek shows the failure and the next try of a message in back-off. A
// message that waits for this message must show that it waits.
func backingOff(e *env) {
	e.declare("q", surgetank.QueueConfig{Group: surgetank.GroupConfig{MaxInFlight: 1}, Retry: surgetank.RetryConfig{Initial: time.Hour, Jitter: -1}})
	g := func(body string) surgetank.Publishing {
		m := message("q", body)
		m.Message.Group = "g"
		return m
	}
	late := message("q", "late")
	late.Message.Delay = 24 * time.Hour
	ids := e.publish(g("1"), g("2"), message("q", "3"), late)
	got := e.await("q", 2, 0)
	before := e.peeked("q", ids[3])
	if before.Due.Sub(before.Time) != 24*time.Hour || before.Failure != "" {
		e.Fatalf("a delayed message is due at %v, with the failure %q", before.Due, before.Failure)
	}
	e.nack(got[0], surgetank.Settlement{Op: surgetank.Nack, Delay: surgetank.RetryBackoff, Reason: "no such customer"})
	first, second, third := e.peeked("q", ids[0]), e.peeked("q", ids[1]), e.peeked("q", ids[2])
	if first.State != surgetank.StateDelayed || first.Failure != "no such customer" || first.Attempt != 1 || first.Due.IsZero() {
		e.Errorf("the message that backs off is shown as %s, attempt %d, %q, due %v", first.State, first.Attempt, first.Failure, first.Due)
	}
	if second.State != surgetank.StateBlocked || !strings.Contains(second.Waiting, ids[0].String()) || second.Failure != "" {
		e.Errorf("the message behind it is %s, waits %q, failed %q", second.State, second.Waiting, second.Failure)
	}
	if third.State != surgetank.StateLeased || third.Waiting != "" || !third.Due.IsZero() {
		e.Errorf("the leased message is %s, waits %q, due %v", third.State, third.Waiting, third.Due)
	}
	e.counts("q", 0, 1, 2, 1)
	q := e.info("q")
	if q.BackingOff != 1 || !q.NextTry.Equal(first.Due) || q.Failure != "no such customer" {
		e.Errorf("the queue shows %d messages that back off, the next at %v, %q", q.BackingOff, q.NextTry, q.Failure)
	}
	// A new reason replaces the old one.
	e.nack(got[1], surgetank.Settlement{Op: surgetank.Nack, Delay: 0, Reason: strings.Repeat("long ", 1000)})
	if d := e.peeked("q", ids[2]); d.State != surgetank.StateReady || len(d.Failure) == 0 || len(d.Failure) > 256 {
		e.Errorf("a long reason is shown as %q of a message that is %s", d.Failure, d.State)
	}
}

// oldestAge requires that only waiting messages count in the oldest age.
func oldestAge(e *env) {
	if _, ok := e.manual(); !ok {
		e.Skip("the time cannot be moved")
	}
	e.declare("q", surgetank.QueueConfig{})
	late := message("q", "late")
	late.Message.Delay = 24 * time.Hour
	e.publish(late)
	age := func(want time.Duration) {
		e.Helper()
		if got := e.info("q").OldestAge; got < want || got >= want+time.Second {
			e.Errorf("the oldest age is %v, want %v", got, want)
		}
	}
	e.pass(time.Hour)
	age(0)
	e.pass(23*time.Hour + 10*time.Minute)
	e.counts("q", 1, 0, 0, 0)
	age(10 * time.Minute)
	got := e.await("q", 1, time.Hour)
	age(0)
	e.nack(got[0], surgetank.Settlement{Op: surgetank.Nack, Delay: time.Hour})
	e.pass(time.Minute)
	age(0)
}

// peeked returns one message by a peek.
func (e *env) peeked(queue string, id surgetank.MessageID) surgetank.Delivery {
	e.Helper()
	got, err := e.b.Peek(e.ctx, queue, surgetank.PeekOptions{ID: id})
	e.must(err)
	if len(got) != 1 {
		e.Fatalf("a peek at %s returned %d messages", id, len(got))
	}
	return got[0]
}
