package shards_test

import (
	"context"
	"testing"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/embedded"
)

// open opens a broker with shards in memory.
func open(t *testing.T, n int) *embedded.Broker {
	t.Helper()
	b, err := embedded.Memory(embedded.Options{Shards: n})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return b
}

func declare(t *testing.T, b surgetank.Broker, name string, c surgetank.QueueConfig) surgetank.QueueInfo {
	t.Helper()
	i, _, err := b.DeclareQueue(t.Context(), name, c, surgetank.DeclareOrUpdate)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// receive waits for one message.
func receive(t *testing.T, b surgetank.Broker, name string) surgetank.Delivery {
	t.Helper()
	for { // the queue of a first dead letter can be created by the transfer
		ds, err := b.Receive(t.Context(), name, surgetank.ReceiveOptions{Wait: 10 * time.Second})
		if surgetank.CodeOf(err) == surgetank.CodeNotFound {
			continue
		}
		if err != nil || len(ds) != 1 {
			t.Fatalf("receive from %s: %d messages, %v", name, len(ds), err)
		}
		return ds[0]
	}
}

// A rejected, an expired and a redriven message move to the shard of their queue, with their
// history.
func TestTransfers(t *testing.T) {
	b := open(t, 2)
	declare(t, b, "jobs", surgetank.QueueConfig{Shard: 1, DeadLetter: "parked"})
	declare(t, b, "short", surgetank.QueueConfig{Shard: 1, DeadLetter: "parked", TTL: time.Millisecond})
	declare(t, b, "parked", surgetank.QueueConfig{Shard: 2})
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	_, err := b.Publish(t.Context(), []surgetank.Publishing{{Queues: []string{"jobs"}, Message: surgetank.Message{Body: []byte("a"), Group: "g", Headers: []surgetank.Header{{Name: "h", Value: "v"}}}}})
	must(err)
	d := receive(t, b, "jobs")
	res, err := b.Settle(t.Context(), []surgetank.Settlement{{Receipt: d.Receipt, Op: surgetank.Reject, Reason: "bad"}})
	must(err)
	must(res[0])
	got := receive(t, b, "parked")
	if string(got.Body) != "a" || got.Group != "g" || len(got.Headers) != 1 || len(got.Deaths) != 1 || got.Deaths[0].Queue != "jobs" || got.Deaths[0].Reason != surgetank.ReasonRejected || got.Deaths[0].Detail != "bad" || !got.Time.Equal(d.Time) || got.ID.Shard() != 2 {
		t.Fatalf("%+v", got)
	}
	res, err = b.Settle(t.Context(), []surgetank.Settlement{{Receipt: got.Receipt, Op: surgetank.Nack}})
	must(err)
	must(res[0])
	r, err := b.Redrive(t.Context(), "parked", surgetank.RedriveOptions{})
	must(err)
	if r.Moved != 1 || r.Skipped != 0 {
		t.Fatalf("%+v", r)
	}
	back := receive(t, b, "jobs")
	if string(back.Body) != "a" || len(back.Deaths) != 1 || !back.Redelivered || back.Attempt != 1 {
		t.Fatalf("%+v", back)
	}
	_, err = b.Publish(t.Context(), []surgetank.Publishing{{Queues: []string{"short"}, Message: surgetank.Message{Body: []byte("late")}}})
	must(err)
	if got := receive(t, b, "parked"); string(got.Body) != "late" || got.Deaths[0].Reason != surgetank.ReasonExpired {
		t.Fatalf("%+v", got)
	}
	infos, err := b.Queues(context.Background())
	must(err)
	if len(infos) != 3 {
		t.Fatalf("users see %d queues, want 3: %+v", len(infos), infos)
	}
}
