package auth

import (
	"context"
	"strings"
	"sync"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/door"
	"github.com/surgetank/surgetank/internal/door/doortest"
)

// metaBroker has the methods of a Broker that a Store uses. Other methods panic (nil interface).
type metaBroker struct {
	door.Broker
	doortest.MetaStore
	mu     sync.Mutex
	queues map[string]bool
	fail   func(op, name string) error
}

func newMetaBroker() *metaBroker {
	b := &metaBroker{queues: map[string]bool{}, fail: func(string, string) error { return nil }}
	b.MetaStore.Fail = func(namespace, name string) error {
		if namespace != Namespace {
			panic("wrong namespace " + namespace)
		}
		b.mu.Lock()
		defer b.mu.Unlock()
		return b.fail("set", name)
	}
	return b
}

func (b *metaBroker) SetMeta(ctx context.Context, namespace, name string, value []byte) error {
	return b.MetaStore.SetMeta(ctx, namespace, name, value)
}

func (b *metaBroker) SetMetaIf(ctx context.Context, namespace, name string, value []byte, expected uint64) (uint64, error) {
	return b.MetaStore.SetMetaIf(ctx, namespace, name, value, expected)
}

func (b *metaBroker) Meta(ctx context.Context, namespace string) (door.MetaState, error) {
	return b.MetaStore.Meta(ctx, namespace)
}

func (b *metaBroker) WatchMeta(ctx context.Context, namespace string, feed *door.MetaFeed) (func(), error) {
	return b.MetaStore.WatchMeta(ctx, namespace, feed)
}

// put stores a record as another version of this program could.
func (b *metaBroker) put(name, value string) {
	var v []byte
	if value != "" {
		v = []byte(value)
	}
	if err := b.MetaStore.SetMeta(context.Background(), Namespace, name, v); err != nil {
		panic(err)
	}
}

func (b *metaBroker) Queues(context.Context) ([]surgetank.QueueInfo, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var list []surgetank.QueueInfo
	for q := range b.queues {
		list = append(list, surgetank.QueueInfo{Name: q})
	}
	return list, nil
}

func (b *metaBroker) DeleteQueue(_ context.Context, name string, _ surgetank.DeleteOptions) (int64, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.fail("delete", name); err != nil {
		return 0, err
	}
	delete(b.queues, name)
	return 0, nil
}

func (b *metaBroker) values() map[string][]byte {
	state, _ := b.MetaStore.Meta(context.Background(), Namespace)
	return state.Bytes()
}

func (b *metaBroker) records() string {
	var all strings.Builder
	for k, v := range b.values() {
		all.WriteString(k + "=" + string(v) + "\n")
	}
	return all.String()
}

// testClock is a clock that a test sets.
type testClock struct {
	mu sync.Mutex
	t  time.Time
}

func (c *testClock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *testClock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}
