package broker

import (
	"testing"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/commitlog"
	"github.com/surgetank/surgetank/internal/memlog"
)

// TestIdleConsumersHoldNoEntry: a consumer without waiting hand-outs keeps no entry of the log in
// memory. Otherwise ten thousand idle consumers could keep ten thousand entries.
func TestIdleConsumersHoldNoEntry(t *testing.T) {
	store := memlog.NewStore()
	b, err := Open(Options{OpenLog: func(from commitlog.Offset, _ LogHooks) (commitlog.Replay, commitlog.Log, error) {
		return store.Open(memlog.Options{From: from})
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	ctx := t.Context()
	if _, _, err := b.DeclareQueue(ctx, "q", surgetank.QueueConfig{}, surgetank.DeclareNew); err != nil {
		t.Fatal(err)
	}
	sub, err := b.Subscribe(ctx, "q", surgetank.SubscribeOptions{Credit: 2})
	if err != nil {
		t.Fatal(err)
	}
	msgs := []surgetank.Publishing{{Queues: []string{"q"}, Message: surgetank.Message{Body: []byte("one")}}, {Queues: []string{"q"}, Message: surgetank.Message{Body: []byte("two")}}}
	if _, err := b.Publish(ctx, msgs); err != nil {
		t.Fatal(err)
	}
	r := &sub.(*subscription).reader
	for i, want := range []bool{true, false} { // one message waits, none waits
		got, err := sub.Receive(ctx, nil, 1, 1<<20)
		if err != nil || len(got) != 1 {
			t.Fatal(got, err)
		}
		if has := r.entry != nil; has != want {
			t.Errorf("after message %d an entry is held: %v, want %v", i+1, has, want)
		}
	}
	if len(r.stored.Message.Body) > 0 {
		t.Error("the last body is still held")
	}
}
