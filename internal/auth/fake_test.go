package auth

import (
	"context"
	"maps"
	"strings"
	"sync"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/door"
)

// metaBroker has the methods of a Broker that a Store uses. Other methods panic (nil interface).
type metaBroker struct {
	door.Broker
	mu     sync.Mutex
	meta   map[string][]byte
	queues map[string]bool
	fail   func(op, name string) error
}

func newMetaBroker() *metaBroker {
	return &metaBroker{meta: map[string][]byte{}, queues: map[string]bool{}, fail: func(string, string) error { return nil }}
}

func (b *metaBroker) SetMeta(_ context.Context, namespace, name string, value []byte) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if namespace != Namespace {
		panic("wrong namespace " + namespace)
	}
	if err := b.fail("set", name); err != nil {
		return err
	}
	if value == nil {
		delete(b.meta, name)
	} else {
		b.meta[name] = value
	}
	return nil
}

func (b *metaBroker) Meta(context.Context, string) (map[string][]byte, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return maps.Clone(b.meta), nil
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

func (b *metaBroker) records() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var all strings.Builder
	for k, v := range b.meta {
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
