package embedded

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/door/doortest"
)

// TestRestoredDirectory restores a data directory from a copy. Epochs, message numbers and lease
// numbers then repeat. Receipts from before the restore must still be rejected.
func TestRestoredDirectory(t *testing.T) {
	ctx := t.Context()
	dir := filepath.Join(t.TempDir(), "data")
	open := func() *Broker {
		b, err := Open(dir, Options{})
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	publish := func(b *Broker, body string) surgetank.MessageID {
		r, err := b.Publish(ctx, []surgetank.Publishing{{Queues: []string{"q"}, Message: surgetank.Message{Body: []byte(body)}}})
		if err != nil || r[0].Err != nil {
			t.Fatal(err, r[0].Err)
		}
		return r[0].ID
	}
	receive := func(b *Broker) []surgetank.Delivery {
		d, err := b.Receive(ctx, "q", surgetank.ReceiveOptions{Max: 10})
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	closed := func(b *Broker) {
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
	}

	b := open()
	if _, _, err := b.DeclareQueue(ctx, "q", surgetank.QueueConfig{}, surgetank.DeclareNew); err != nil {
		t.Fatal(err)
	}
	shared := publish(b, "before the copy")
	closed(b)
	backup := filepath.Join(t.TempDir(), "copy")
	if err := os.CopyFS(backup, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}

	b = open()
	first := publish(b, "lost with the restore")
	kept := receive(b)
	before, err := doortest.Of(t, b).History(ctx, "q")
	if err != nil || len(kept) != 2 {
		t.Fatalf("%d messages, %v", len(kept), err)
	}
	closed(b)
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(dir, os.DirFS(backup)); err != nil {
		t.Fatal(err)
	}

	b = open()
	defer closed(b)
	second := publish(b, "after the restore")
	if first.Queue != second.Queue || first.Seq != second.Seq {
		t.Fatalf("the test shows nothing: %v and %v do not have the same numbers", first, second)
	}
	if first == second {
		t.Errorf("two messages have the id %v", first)
	}
	again := receive(b)
	if len(again) != 2 || again[0].ID != shared || again[1].ID != second {
		t.Fatalf("after the restore: %v", again)
	}
	for i := range kept {
		if k, a := kept[i].Receipt, again[i].Receipt; k.ID.Seq != a.ID.Seq || k.Lease != a.Lease || k.Epoch != a.Epoch {
			t.Fatalf("the test shows nothing: the receipts %v and %v have other numbers", k, a)
		}
		r, err := b.Settle(ctx, []surgetank.Settlement{{Receipt: kept[i].Receipt}})
		if err != nil || surgetank.CodeOf(r[0]) != surgetank.CodeLeaseLost {
			t.Errorf("a receipt from before the restore: %v, %v, want lease_lost", r, err)
		}
	}
	after, err := doortest.Of(t, b).History(context.WithoutCancel(ctx), "q")
	if err != nil {
		t.Fatal(err)
	}
	n := len(after.Openings)
	if n != len(before.Openings) || after.Openings[n-2] != before.Openings[n-2] || after.Openings[n-1].Incarnation == before.Openings[n-1].Incarnation {
		t.Errorf("openings %v before and %v after the restore, want a common past and another present", before.Openings, after.Openings)
	}
	if r, err := b.Settle(ctx, []surgetank.Settlement{{Receipt: again[0].Receipt}}); err != nil || r[0] != nil {
		t.Errorf("a receipt from after the restore: %v, %v", r, err)
	}
}
