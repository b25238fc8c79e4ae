package broker

import (
	"context"
	"sync"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/door"
	"github.com/surgetank/surgetank/internal/queue"
)

// watches is the watches of metadata. The loop passes durable changes to their feeds. A feed never
// blocks, so a slow reader does not delay the loop.
type watches struct {
	mu    sync.Mutex
	feeds map[string]map[*watch]struct{} // by namespace
}

// watch is one call of WatchMeta. The same feed can be in several watches.
type watch struct {
	feed    *door.MetaFeed
	stopped bool // guarded by watches.mu
}

// pass passes a turn's durable changes to the feeds. Only the loop calls it, in the order of turns.
func (w *watches) pass(changes []queue.MetaChange) {
	if len(changes) == 0 {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := range changes {
		c := &changes[i]
		for x := range w.feeds[c.Namespace] { // unordered: each feed gets the same
			x.feed.Change(c.Name, c.MetaValue)
		}
	}
}

// add starts a watch, unless it was stopped before.
func (w *watches) add(namespace string, x *watch, state door.MetaState) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if x.stopped {
		return
	}
	x.feed.Restart(state)
	if w.feeds == nil {
		w.feeds = map[string]map[*watch]struct{}{}
	}
	if w.feeds[namespace] == nil {
		w.feeds[namespace] = map[*watch]struct{}{}
	}
	w.feeds[namespace][x] = struct{}{}
}

func (w *watches) remove(namespace string, x *watch) {
	w.mu.Lock()
	defer w.mu.Unlock()
	x.stopped = true
	if delete(w.feeds[namespace], x); len(w.feeds[namespace]) == 0 {
		delete(w.feeds, namespace)
	}
}

// passMetas passes the changes of a durable turn to the watches, and starts the watches that the
// turn contains. It is called before the turn's outputs are sent, so a writer's own change is in
// every feed when the writer gets its answer.
//
// The state of a new watch can be older than a later change of the same turn. So the watch starts
// first, and gets the changes of the turn like the other watches. Its feed ignores those that the
// state contains.
func (b *core) passMetas(f *flight) {
	for _, o := range f.ops {
		if o.watch != nil {
			o.watch()
		}
	}
	b.watches.pass(f.metas)
}

// SetMeta stores a door's value. See door.Metadata.
func (b *Broker) SetMeta(ctx context.Context, namespace, name string, value []byte) error {
	_, err := b.SetMetaIf(ctx, namespace, name, value, door.AnyVersion)
	return err
}

// SetMetaIf stores a door's value if its version is expected. See door.Metadata.
func (b *Broker) SetMetaIf(ctx context.Context, namespace, name string, value []byte, expected uint64) (uint64, error) {
	if namespace == "" || name == "" {
		return 0, surgetank.FieldErrorf("name", "a stored value needs a namespace and a name, and one of them is empty")
	}
	c := &queue.SetMeta{Namespace: namespace, Name: name, Value: value, Conditional: expected != door.AnyVersion, Expected: expected}
	if err := b.do(ctx, c, int64(len(value))); err != nil {
		return 0, err
	}
	return c.Version, c.Err
}

// SetMetaLater stores a door's value without waiting. The value is durable when any later command
// of the same goroutine is durable, such as a settlement. An error means that the broker is closed.
func (b *Broker) SetMetaLater(_, name string, value []byte) error {
	c := &queue.SetMeta{Namespace: door.MarksNamespace, Name: name, Value: value}
	return b.put(context.Background(), &op{cmd: c, weight: int64(len(value)), quiet: true, release: func(error) {}}, false)
}

// Meta reads a namespace. See door.Metadata.
func (b *Broker) Meta(ctx context.Context, namespace string) (door.MetaState, error) {
	c := &queue.Meta{Namespace: namespace}
	if err := b.do(ctx, c, 0); err != nil {
		return door.MetaState{}, err
	}
	return c.State, nil
}

// WatchMeta passes a namespace and its changes to a feed. See door.Metadata.
func (b *Broker) WatchMeta(ctx context.Context, namespace string, feed *door.MetaFeed) (stop func(), err error) {
	if b == nil || ctx == nil {
		return nil, b.put(ctx, nil, true)
	}
	if feed == nil {
		return nil, surgetank.FieldErrorf("feed", "the feed is nil; make one with door.NewMetaFeed")
	}
	o, stop := b.watchOp(namespace, feed)
	if err := b.doOp(ctx, o); err != nil {
		stop() // a call that was given up can still be decided later
		return nil, err
	}
	return stop, nil
}

// SendWatch starts a watch without waiting. It is for a Stepped broker.
func (b *Broker) SendWatch(namespace string, feed *door.MetaFeed) error {
	o, _ := b.watchOp(namespace, feed)
	o.release = func(error) {}
	return b.put(context.Background(), o, false)
}

func (b *Broker) watchOp(namespace string, feed *door.MetaFeed) (o *op, stop func()) {
	c, x := &queue.Meta{Namespace: namespace}, &watch{feed: feed}
	start := func() { b.watches.add(namespace, x, c.State) }
	return &op{cmd: c, weight: opWeight, watch: start}, func() { b.watches.remove(namespace, x) }
}
