// Package metacache has the one cache of metadata that doors and sinks use. Users and rights,
// policies and declarations, the AMQP topology and the sinks each have a Cache of their namespace.
//
// A Cache has the decoded values of one namespace. The broker passes every durable change to it,
// from any writer, in the order of the log. A writer's own change is in its Cache when the call
// returns. A change that depends on a value that was read is made with the version of that value:
// if another writer was faster, nothing is changed, and the caller decides again.
//
// A Cache has no goroutine of its own. The broker's notice starts one, which applies the waiting
// changes and ends. Writers and Refresh apply waiting changes, too.
package metacache

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"sync"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/door"
)

// Tries is how often Update decides again after another writer was faster.
const Tries = 100

// Options describe a Cache.
type Options[T any] struct {
	Namespace string
	// Decode decodes a stored value. The result must not be changed afterwards. If Decode fails,
	// the value is bad: the Cache logs an error and has the error in place of the value. Other
	// values are not affected.
	Decode func(name string, value []byte) (T, error)
	// Apply, if not nil, is called with changes after the Cache contains them. The first call has
	// all values, and Open returns after it. Changes of one name are in order. Several changes of a
	// name can be one Change. Calls do not overlap, and a writer's call returns after Apply has
	// seen the writer's change. So Apply must not change metadata through the Cache, and must not
	// wait for a lock whose owner changes metadata.
	Apply func([]Change[T])
	Log   *slog.Logger // nil: discarded
}

// Value is a decoded value and its version. If Err is not nil, the value is bad: it exists, and it
// could not be decoded.
type Value[T any] struct {
	V       T
	Version uint64
	Err     error
}

// Change is one change of a value. If Removed is true, the value does not exist any more, and Value
// is the value before.
type Change[T any] struct {
	Name    string
	Removed bool
	Value[T]
}

// Cache is the cache of a namespace. All methods are safe for use by many goroutines.
type Cache[T any] struct {
	store  door.Metadata
	opts   Options[T]
	feed   *door.MetaFeed
	stop   func()
	end    sync.Once
	closed chan struct{}

	applying sync.Mutex // held while changes are decoded and applied

	mu      sync.RWMutex
	values  map[string]Value[T]
	version uint64
	moved   chan struct{} // closed and replaced when version changes
	running bool          // a goroutine applies changes, or is about to
	again   bool          // the goroutine must look once more
}

// Open reads the namespace and begins to follow its changes. A bad value is no error.
func Open[T any](ctx context.Context, store door.Metadata, opts Options[T]) (*Cache[T], error) {
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	c := &Cache[T]{store: store, opts: opts, values: map[string]Value[T]{}, moved: make(chan struct{}), closed: make(chan struct{})}
	first := make(chan struct{}, 1)
	c.feed = door.NewMetaFeed(func() {
		select {
		case first <- struct{}{}:
		default:
		}
		c.notify()
	})
	c.applying.Lock() // the first values are applied here
	defer c.applying.Unlock()
	stop, err := store.WatchMeta(ctx, opts.Namespace, c.feed)
	if err != nil {
		return nil, err
	}
	c.stop = stop
	select {
	case <-first:
	case <-ctx.Done():
		stop()
		return nil, surgetank.Errorf(surgetank.CodeUnavailable, "the stored values of %s could not be read in time: %w", opts.Namespace, ctx.Err())
	}
	c.applyAll()
	return c, nil
}

// Close ends the watch. The Cache keeps its values and does not change any more.
func (c *Cache[T]) Close() {
	c.stop()
	c.end.Do(func() { close(c.closed) })
}

// notify starts a goroutine that applies the changes in the feed, unless one is running.
func (c *Cache[T]) notify() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.again = true; c.running {
		return
	}
	c.running = true
	go c.run()
}

func (c *Cache[T]) run() {
	for {
		c.mu.Lock()
		if !c.again {
			c.running = false
			c.mu.Unlock()
			return
		}
		c.again = false
		c.mu.Unlock()
		c.Refresh()
	}
}

// Refresh applies all changes that the broker has passed. After a call of the broker has returned,
// Refresh makes every change visible that the broker decided before that call.
func (c *Cache[T]) Refresh() {
	c.applying.Lock()
	defer c.applying.Unlock()
	c.applyAll()
}

// applyAll applies the content of the feed. The caller holds applying.
func (c *Cache[T]) applyAll() {
	u, some := c.feed.Take()
	if !some {
		return
	}
	var changes []Change[T]
	c.mu.RLock()
	for _, name := range slices.Sorted(maps.Keys(u.Values)) {
		v := u.Values[name]
		old, exists := c.values[name]
		switch {
		case v.Value == nil && exists:
			changes = append(changes, Change[T]{name, true, Value[T]{old.V, v.Version, old.Err}})
		case v.Value != nil && (!exists || old.Version != v.Version):
			changes = append(changes, Change[T]{name, false, c.decode(name, v)})
		}
	}
	if u.Whole {
		for _, name := range slices.Sorted(maps.Keys(c.values)) {
			if _, exists := u.Values[name]; !exists {
				old := c.values[name]
				changes = append(changes, Change[T]{name, true, Value[T]{old.V, u.Version, old.Err}})
			}
		}
	}
	c.mu.RUnlock()
	c.mu.Lock()
	for i := range changes {
		if x := &changes[i]; x.Removed {
			delete(c.values, x.Name)
		} else {
			c.values[x.Name] = x.Value
		}
	}
	c.mu.Unlock()
	if c.opts.Apply != nil && (len(changes) > 0 || u.Whole) {
		c.opts.Apply(changes)
	}
	c.mu.Lock()
	c.version = u.Version
	close(c.moved)
	c.moved = make(chan struct{})
	c.mu.Unlock()
}

func (c *Cache[T]) decode(name string, v door.MetaValue) Value[T] {
	d, err := c.opts.Decode(name, v.Value)
	if err != nil {
		c.opts.Log.Error("a stored value cannot be used; it counts as missing until it is stored again", "namespace", c.opts.Namespace, "name", name, "err", err)
	}
	return Value[T]{d, v.Version, err}
}

// Get returns a value. It returns false if the value does not exist or is bad. The version is right
// in both cases.
func (c *Cache[T]) Get(name string) (Value[T], bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	v, exists := c.values[name]
	return v, exists && v.Err == nil
}

// All returns all values by name, including bad ones.
func (c *Cache[T]) All() map[string]Value[T] {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return maps.Clone(c.values)
}

// Version returns the version of the newest change that the Cache contains and that Apply has seen.
func (c *Cache[T]) Version() uint64 {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.version
}

// Set stores a value if the version of the present value is expected, as door.Metadata.SetMetaIf. A
// nil value removes it. When Set returns nil, the Cache contains the change, and Apply has seen it.
// When it returns CodeExists, the Cache contains the change of the other writer.
func (c *Cache[T]) Set(ctx context.Context, name string, value []byte, expected uint64) (version uint64, err error) {
	version, err = c.store.SetMetaIf(ctx, c.opts.Namespace, name, value, expected)
	switch {
	case err == nil:
		return version, c.wait(ctx, version)
	case surgetank.CodeOf(err) == surgetank.CodeExists:
		c.Refresh()
	}
	return 0, err
}

// Update changes a value that depends on the present one. change gets the present value, and
// whether it exists and is good. It returns the new value, or nil to remove the value. If another
// writer is faster, change is called again with that writer's value. An error of change ends the
// Update and is returned; ErrSame ends it without an error and without a change.
func (c *Cache[T]) Update(ctx context.Context, name string, change func(now Value[T], exists bool) ([]byte, error)) error {
	for try := 1; ; try++ {
		now, exists := c.Get(name)
		value, err := change(now, exists)
		if err == ErrSame {
			return nil
		}
		if err != nil {
			return err
		}
		_, err = c.Set(ctx, name, value, now.Version)
		if surgetank.CodeOf(err) != surgetank.CodeExists {
			return err
		}
		if try == Tries {
			return surgetank.Errorf(surgetank.CodeBusy, "the stored value %s/%.100s is changed by many writers at once; try again: %w", c.opts.Namespace, name, err)
		}
	}
}

// ErrSame is returned by a function of Update if the present value is right.
var ErrSame = surgetank.Errorf(surgetank.CodeInternal, "the stored value need not change")

// wait waits until the Cache contains a change.
func (c *Cache[T]) wait(ctx context.Context, version uint64) error {
	for {
		c.Refresh()
		c.mu.RLock()
		there, moved := c.version >= version, c.moved
		c.mu.RUnlock()
		if there {
			return nil
		}
		select {
		case <-moved:
		case <-c.closed:
			return nil
		case <-ctx.Done():
			return surgetank.Errorf(surgetank.CodeUncertain, "the value is stored, but it was not seen in the cache in time: %w", ctx.Err())
		}
	}
}

// DecodeJSON reads a stored record strictly, because an unknown field might be a restriction. version
// points to the version in into, which must be known. Numbers of unknown type become json.Number.
func DecodeJSON(value []byte, into any, version *int, known int) error {
	d := json.NewDecoder(bytes.NewReader(value))
	d.DisallowUnknownFields()
	d.UseNumber()
	if err := d.Decode(into); err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("something follows the record")
	}
	if *version != known {
		return fmt.Errorf("it has version %d, this version knows %d", *version, known)
	}
	return nil
}
