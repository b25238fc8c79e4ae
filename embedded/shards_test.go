package embedded_test

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/embedded"
)

// A broker gets more shards and loses empty ones. Mixed-up directories are refused.
func TestShards(t *testing.T) {
	dir := t.TempDir()
	open := func(dir string, o embedded.Options) (*embedded.Broker, error) {
		t.Helper()
		o.SegmentBytes = 1 << 20
		return embedded.Open(dir, o)
	}
	use := func(n int, f func(b *embedded.Broker)) {
		t.Helper()
		b, err := open(dir, embedded.Options{Shards: n})
		if err != nil {
			t.Fatal(err)
		}
		if f != nil {
			f(b)
		}
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
	}
	refused := func(text, dir string, o embedded.Options) {
		t.Helper()
		b, err := open(dir, o)
		if err == nil {
			_ = b.Close()
		}
		if surgetank.CodeOf(err) != surgetank.CodeInvalid || !strings.Contains(err.Error(), text) {
			t.Errorf("got %v, want an error with %q", err, text)
		}
	}
	declare := func(b *embedded.Broker, name string, shard int) surgetank.QueueInfo {
		t.Helper()
		i, _, err := b.DeclareQueue(t.Context(), name, surgetank.QueueConfig{Shard: shard}, surgetank.DeclareOrUpdate)
		if err != nil {
			t.Fatal(err)
		}
		return i
	}
	use(1, func(b *embedded.Broker) {
		if i := declare(b, "old", 0); i.ID != 1 {
			t.Errorf("queue number %d", i.ID)
		}
	})
	use(3, func(b *embedded.Broker) {
		if i := declare(b, "old", 0); i.ID != 1 {
			t.Errorf("the old queue has number %d", i.ID)
		}
		if i := declare(b, "new", 3); i.ID>>surgetank.ShardBits != 2 {
			t.Errorf("the queue of shard 3 has number %d", i.ID)
		}
		if n := b.Shards(); n != 3 || b.Shard(3).Dir() != filepath.Join(dir, "shard-3") || b.Shard(4) != nil {
			t.Errorf("%d shards", n)
		}
		if _, _, err := b.DeclareQueue(t.Context(), "far", surgetank.QueueConfig{Shard: 4}, surgetank.DeclareOrUpdate); surgetank.CodeOf(err) != surgetank.CodeInvalid {
			t.Errorf("shard 4: %v", err)
		}
		if _, _, err := b.DeclareQueue(t.Context(), "new.dead", surgetank.QueueConfig{Shard: 1}, surgetank.DeclareOrUpdate); surgetank.CodeOf(err) != surgetank.CodeInvalid {
			t.Errorf("a dead-letter queue in another shard: %v", err)
		}
		if i := declare(b, "new.dead", 0); i.ID>>surgetank.ShardBits != 2 {
			t.Errorf("the dead-letter queue has number %d", i.ID)
		}
	})
	refused("has queues", dir, embedded.Options{Shards: 2})
	refused("has queues", dir, embedded.Options{Shards: 1})
	refused("is shard 2 of a broker", filepath.Join(dir, "shard-2"), embedded.Options{Shards: 1})
	refused("is shard 3", dir, embedded.Options{ShardDirs: []string{"", filepath.Join(dir, "shard-3"), filepath.Join(dir, "shard-2")}})
	refused("the same directory", dir, embedded.Options{ShardDirs: []string{"", filepath.Join(dir, "x"), filepath.Join(dir, "x")}})
	other := t.TempDir()
	b, err := open(other, embedded.Options{Shards: 2})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	refused("another broker", dir, embedded.Options{ShardDirs: []string{"", filepath.Join(other, "shard-2"), ""}})
	use(3, func(b *embedded.Broker) {
		for _, name := range []string{"new", "new.dead"} {
			if _, err := b.DeleteQueue(t.Context(), name, surgetank.DeleteOptions{}); err != nil {
				t.Fatal(err)
			}
		}
	})
	use(2, nil)
	use(1, func(b *embedded.Broker) {
		if all, err := b.Queues(t.Context()); err != nil || len(all) != 1 || all[0].Name != "old" {
			t.Errorf("%v, %v", all, err)
		}
	})
	use(2, nil)
}
