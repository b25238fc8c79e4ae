package shards_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/door"
	"github.com/surgetank/surgetank/internal/shards"
)

const movePublisher = "publisher-of-the-moves"

// fill makes a queue in a shard, with messages in every state that a queue keeps over a restart. It
// returns the highest fencing token.
func fill(t *testing.T, b *shards.Broker, shard int) (token int64) {
	t.Helper()
	declare(t, b, "q", surgetank.QueueConfig{Shard: shard, MaxPriority: 9, DedupWindow: time.Hour, Group: surgetank.GroupConfig{MaxInFlight: 1}, Retry: surgetank.RetryConfig{MaxAttempts: 3, Initial: time.Hour}})
	n := uint64(0)
	send := func(m surgetank.Message) {
		t.Helper()
		n++
		m.Body = fmt.Append(nil, "message ", n)
		r, err := b.Publish(t.Context(), []surgetank.Publishing{{Queues: []string{"q"}, Message: m, Publisher: movePublisher, Sequence: n}})
		if err != nil || r[0].Err != nil || r[0].Duplicate {
			t.Fatalf("%+v, %v", r, err)
		}
	}
	settle := func(s surgetank.Settlement) {
		t.Helper()
		r, err := b.Settle(t.Context(), []surgetank.Settlement{s})
		if err != nil || r[0] != nil {
			t.Fatal(r, err)
		}
	}
	nack := func(delay time.Duration) {
		t.Helper()
		d := receive(t, b, "q")
		token = max(token, d.FencingToken)
		settle(surgetank.Settlement{Receipt: d.Receipt, Op: surgetank.Nack, Delay: delay, Reason: "failed " + string(d.Body)})
	}
	send(surgetank.Message{})
	d := receive(t, b, "q")
	settle(d.Ack())
	send(surgetank.Message{Group: "rejected", Headers: []surgetank.Header{{Name: "h", Value: "v"}}, ContentType: "text/plain", Key: "k"})
	d = receive(t, b, "q")
	settle(d.Reject("bad"))
	send(surgetank.Message{Group: "backs off"})
	nack(time.Hour)
	send(surgetank.Message{}) // backs off, too
	nack(2 * time.Hour)
	send(surgetank.Message{Group: "tried"})
	nack(0)
	send(surgetank.Message{Delay: time.Hour})
	send(surgetank.Message{Group: "delayed", Delay: 2 * time.Hour, TTL: 3 * time.Hour})
	send(surgetank.Message{Group: "backs off"})
	send(surgetank.Message{DedupID: "id", TTL: time.Hour})
	send(surgetank.Message{Priority: 5})
	for i := range 100 {
		send(surgetank.Message{Group: fmt.Sprint("g", i%7)})
	}
	if err := b.PauseQueue(t.Context(), "q", time.Hour); err != nil {
		t.Fatal(err)
	}
	return token
}

// show is everything that users see of a queue's messages and settings.
func show(t *testing.T, b *shards.Broker, name string) string {
	t.Helper()
	i, err := b.Queue(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	ds, err := b.Peek(t.Context(), name, surgetank.PeekOptions{Max: 1000})
	if err != nil {
		t.Fatal(err)
	}
	c := i.Config
	c.Shard = 0
	var w strings.Builder
	fmt.Fprintf(&w, "%s %d %+v created %v paused %q %v\n", i.Name, i.ID, c, i.Created, i.PausedBy, i.PausedAt)
	fmt.Fprintln(&w, i.Ready, i.Blocked, i.Delayed, i.Leased, i.Bytes, i.Groups, i.BackingOff, i.NextTry, i.Failure, *door.QueueFloor(&i))
	for _, d := range ds {
		fmt.Fprintf(&w, "%s %s %+v time %v attempt %d redelivered %v state %s due %v failure %q deaths %+v\n",
			d.ID, d.Body, d.Message, d.Time.UnixNano(), d.Attempt, d.Redelivered, d.State, d.Due.UnixNano(), d.Failure, d.Deaths)
	}
	return w.String()
}

func same(t *testing.T, what, got, want string) {
	t.Helper()
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range max(len(g), len(w)) {
		if i >= len(g) || i >= len(w) || g[i] != w[i] {
			t.Fatalf("%s: line %d of %d and %d is\n%s\nwant\n%s", what, i, len(g), len(w), g[min(i, len(g)-1)], w[min(i, len(w)-1)])
		}
	}
}

// TestMoveKeepsEverything moves a queue with all kinds of messages, and looks at it after every
// step at which all shards can crash.
func TestMoveKeepsEverything(t *testing.T) {
	all := stores(2)
	var images []image
	var recording bool
	shoot := func(point string) {
		if !recording {
			return
		}
		m := image{point: point}
		for _, s := range all {
			c := s.Copy()
			c.Crash(0)
			m.stores = append(m.stores, c)
		}
		images = append(images, m)
	}
	b := openOn(t, all, shoot)
	token := fill(t, b, 1)
	want, wantDead := show(t, b, "q"), show(t, b, "q.dead")
	recording = true
	r := moveTo(t, b, "q", 2)
	recording = false
	if r.From != 1 || r.Shard != 2 || r.Messages != 109 || r.Returned != 0 || fmt.Sprint(r.Queues) != "[q q.dead]" {
		t.Errorf("%+v", r)
	}
	same(t, "q", show(t, b, "q"), want)
	same(t, "q.dead", show(t, b, "q.dead"), wantDead)
	images = append(images, image{"the end", all})
	if len(images) < 20 {
		t.Fatalf("only %d images", len(images))
	}
	judge := func(t *testing.T, b *shards.Broker) {
		t.Helper()
		same(t, "q", show(t, b, "q"), want)
		same(t, "q.dead", show(t, b, "q.dead"), wantDead)
		infos, err := b.Queues(t.Context())
		if err != nil || len(infos) != 2 {
			t.Fatalf("%d queues, %v", len(infos), err)
		}
	}
	where := map[int]int{}
	for i, m := range images {
		t.Run(fmt.Sprintf("%d_%s", i, m.point), func(t *testing.T) {
			if m.point == "the end" {
				if err := b.Close(); err != nil {
					t.Fatal(err)
				}
			}
			b := openOn(t, m.stores, nil)
			judge(t, b)
			info, err := b.Queue(t.Context(), "q")
			if err != nil {
				t.Fatal(err)
			}
			where[info.Shard]++
			repeats(t, b)
			if info.Shard == 1 {
				moveTo(t, b, "q", 2)
				judge(t, b)
				repeats(t, b)
			}
			moveTo(t, b, "q", 1)
			judge(t, b)
			repeats(t, b)
			if err := b.Close(); err != nil {
				t.Fatal(err)
			}
			b = openOn(t, m.stores, nil)
			judge(t, b)
			repeats(t, b)
			drainAll(t, b, token)
		})
	}
	if where[1] < 10 || where[2] < 2 {
		t.Errorf("after a crash the queue was in its old and new shard %v times", where)
	}
}

// repeats sends messages again that are stored.
func repeats(t *testing.T, b *shards.Broker) {
	t.Helper()
	for _, n := range []uint64{1, 2, 5, 50, 110} {
		r, err := b.Publish(t.Context(), []surgetank.Publishing{{Queues: []string{"q"}, Message: surgetank.Message{Body: []byte("again")}, Publisher: movePublisher, Sequence: n}})
		if err != nil || r[0].Err != nil || !r[0].Duplicate {
			t.Fatalf("the repeat of number %d: %+v, %v", n, r, err)
		}
	}
	r, err := b.Publish(t.Context(), []surgetank.Publishing{{Queues: []string{"q"}, Message: surgetank.Message{Body: []byte("again"), DedupID: "id"}}})
	if err != nil || r[0].Err != nil || !r[0].Duplicate {
		t.Fatalf("the repeat of the dedup id: %+v, %v", r, err)
	}
}

// drainAll receives the messages that may be delivered now, and checks their order.
func drainAll(t *testing.T, b *shards.Broker, token int64) {
	t.Helper()
	if err := b.ResumeQueue(t.Context(), "q"); err != nil {
		t.Fatal(err)
	}
	const next = 111
	r, err := b.Publish(t.Context(), []surgetank.Publishing{{Queues: []string{"q"}, Message: surgetank.Message{Body: []byte("message 111")}, Publisher: movePublisher, Sequence: next}})
	if err != nil || r[0].Err != nil || r[0].Duplicate {
		t.Fatalf("a new number: %+v, %v", r, err)
	}
	last := map[string]surgetank.Delivery{}
	n := 0
	for ; ; n++ {
		ds, err := b.Receive(t.Context(), "q", surgetank.ReceiveOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if len(ds) == 0 {
			break
		}
		d := ds[0]
		if before, ok := last[d.Group]; ok && d.Priority == before.Priority && d.ID.Seq <= before.ID.Seq {
			t.Errorf("%s comes after %s", d.ID, before.ID)
		}
		if d.Group != "" {
			if d.FencingToken <= token {
				t.Errorf("the fencing token %d of %s is not above %d", d.FencingToken, d.ID, token)
			}
			token = d.FencingToken
		}
		last[d.Group] = d
		res, err := b.Settle(t.Context(), []surgetank.Settlement{d.Ack()})
		if err != nil || res[0] != nil {
			t.Fatal(err, res)
		}
	}
	if n != 104 {
		t.Errorf("%d messages were delivered", n)
	}
}
