package policy

import (
	"context"
	"testing"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/embedded"
	"github.com/surgetank/surgetank/internal/auth"
	"github.com/surgetank/surgetank/internal/fullname"
	"github.com/surgetank/surgetank/internal/shards/shardstest"
)

func exclusiveRig(t *testing.T) (*Broker, *auth.Store) {
	t.Helper()
	plain, err := embedded.Memory(embedded.Options{Shards: shardstest.N})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { plain.Close() })
	users, err := auth.Open(t.Context(), plain)
	if err != nil {
		t.Fatal(err)
	}
	b, err := Open(t.Context(), plain, users, nil)
	if err != nil {
		t.Fatal(err)
	}
	return b, users
}

// TestOwners: only its owner's calls may use an exclusive queue, while the queue and its owner
// exist.
func TestOwners(t *testing.T) {
	b, users := exclusiveRig(t)
	one, two := new(int), new(int)
	mine, theirs := WithOwner(t.Context(), one), WithOwner(t.Context(), two)
	want := func(what string, err error, code surgetank.Code) {
		t.Helper()
		if got := surgetank.CodeOf(err); got != code {
			t.Errorf("%s: %v, want %q", what, err, code)
		}
	}
	if _, _, err := b.DeclareExclusive(t.Context(), "q", surgetank.QueueConfig{}); err == nil {
		t.Error("a queue was declared exclusive to nobody")
	}
	_, created, err := b.DeclareExclusive(mine, "q", surgetank.QueueConfig{Transient: true})
	if want("declare", err, ""); !created {
		t.Error("the queue existed before")
	}
	for _, ctx := range []context.Context{t.Context(), theirs} {
		_, _, err = b.DeclareExclusive(ctx, "q", surgetank.QueueConfig{})
		if err == nil {
			t.Error("declared by another")
		}
		_, _, err = b.Change(ctx, "q", func(*surgetank.QueueInfo) (surgetank.QueueConfig, error) {
			t.Error("another connection used the exclusive queue")
			return surgetank.QueueConfig{}, nil
		})
		want("change by another", err, surgetank.CodeDenied)
		want("pause by another", b.PauseQueue(ctx, "q", 0), surgetank.CodeDenied)
		_, err = b.Subscribe(ctx, "q", surgetank.SubscribeOptions{Credit: 1})
		want("subscribe by another", err, surgetank.CodeDenied)
	}
	_, err = b.Publish(theirs, []surgetank.Publishing{{Queues: []string{"q"}, Message: surgetank.Message{Body: []byte("x")}}})
	want("publish by another", err, "")
	if got, err := b.Receive(mine, "q", surgetank.ReceiveOptions{}); len(got) != 1 || err != nil {
		t.Errorf("the owner gets %d, %v", len(got), err)
	}

	// After its owner is gone, nothing stays exclusive.
	b.Release(one)
	_, err = b.DeleteQueue(t.Context(), "q", surgetank.DeleteOptions{})
	want("delete after the owner", err, "")

	// An existing queue stays open to every user.
	_, _, err = b.DeclareQueue(t.Context(), "q", surgetank.QueueConfig{}, surgetank.DeclareNew)
	want("declare", err, "")
	if _, created, err = b.DeclareExclusive(mine, "q", surgetank.QueueConfig{}); created || err != nil {
		t.Error(created, err)
	}
	want("pause of a queue of everybody", b.PauseQueue(theirs, "q", 0), "")

	// A queue removed with its virtual host leaves no claim to its name.
	if _, err := users.PutVhost(t.Context(), "team", ""); err != nil {
		t.Fatal(err)
	}
	name := fullname.Of("team", "q")
	_, _, err = b.DeclareExclusive(mine, name, surgetank.QueueConfig{})
	want("declare", err, "")
	if err := users.DeleteVhost(t.Context(), "team"); err != nil {
		t.Fatal(err)
	}
	if _, err := users.PutVhost(t.Context(), "team", ""); err != nil {
		t.Fatal(err)
	}
	_, _, err = b.DeclareQueue(theirs, name, surgetank.QueueConfig{}, surgetank.DeclareNew)
	want("declare in a new virtual host", err, "")
	want("pause in a new virtual host", b.PauseQueue(theirs, name, 0), "")
}
