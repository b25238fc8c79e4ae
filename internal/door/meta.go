package door

import (
	"context"
	"sync"
)

// MarksNamespace is the namespace of SetMetaLater. Its values are stored in the log of their queue.
// The other namespaces are in the log of the broker's first shard.
const MarksNamespace = "sink.written"

// Metadata stores the state of doors and sinks in the broker: small values under a namespace and a
// name. internal/metacache has the cache that doors and sinks use.
//
// Each change has a version, which is higher than the version of every earlier change of any
// namespace. The version of a value is the version of the change that set it. The version of a
// missing value is 0.
type Metadata interface {
	// SetMeta stores a small value of at most 1 MiB durably. nil removes the value.
	SetMeta(ctx context.Context, namespace, name string, value []byte) error
	// SetMetaIf is SetMeta with a condition: the version of the present value must be expected. 0
	// means that the value must not exist, and AnyVersion is no condition. If another writer has
	// changed the value, SetMetaIf returns CodeExists and changes nothing. Otherwise it returns the
	// version of the change, or 0 if a missing value was to be removed. When it returns, every
	// MetaFeed of the namespace has received the change.
	SetMetaIf(ctx context.Context, namespace, name string, value []byte, expected uint64) (version uint64, err error)
	// Meta returns all values of a namespace.
	Meta(ctx context.Context, namespace string) (MetaState, error)
	// WatchMeta passes all values of a namespace to the feed, and from then on each change, in the
	// order of the log. Only durable values and changes are passed, and none is left out. After a
	// broker was opened again, all values can be passed once more. stop ends the watch. Otherwise
	// the watch ends with the broker.
	WatchMeta(ctx context.Context, namespace string, feed *MetaFeed) (stop func(), err error)
}

// AnyVersion is the expected version of a change without a condition.
const AnyVersion = ^uint64(0)

// MetaValue is a value and its version. Do not change the bytes. Value is nil in the change that
// removes a value.
type MetaValue struct {
	Value   []byte
	Version uint64
}

// MetaState is all values of a namespace at one moment. Version is the version of the newest change
// before that moment, of any namespace.
type MetaState struct {
	Values  map[string]MetaValue
	Version uint64
}

// Bytes returns the values without their versions.
func (s MetaState) Bytes() map[string][]byte {
	values := make(map[string][]byte, len(s.Values))
	for name, v := range s.Values { // unordered: a map of the same
		values[name] = v.Value
	}
	return values
}

// MetaUpdate is the content of a MetaFeed. If Whole is true, it contains all values of the
// namespace; names that are missing do not exist. Otherwise it contains the newest change of each
// changed name.
type MetaUpdate struct {
	MetaState
	Whole bool
}

// MetaFeed receives the values of one namespace from a broker and keeps them until its reader takes
// them. A slow reader delays no one: of several changes of a name, the feed keeps the newest. So a
// feed never has more values than the namespace and its removed names. NewMetaFeed makes a feed.
// All methods are safe for use by many goroutines.
type MetaFeed struct {
	notify func()
	mu     sync.Mutex
	update MetaUpdate
	filled bool
}

// NewMetaFeed returns an empty feed. notify is called when the feed is not empty any more. It is
// called on a goroutine of the broker, must not block and must not call the broker.
func NewMetaFeed(notify func()) *MetaFeed { return &MetaFeed{notify: notify} }

// Restart passes all values of the namespace to the reader. The feed keeps the map.
func (f *MetaFeed) Restart(s MetaState) {
	f.mu.Lock()
	f.update = MetaUpdate{MetaState: s, Whole: true}
	f.wake()
}

// Change passes one change to the reader. A change that is not newer than the feed is ignored, so
// changes that Restart has already passed can be passed again.
func (f *MetaFeed) Change(name string, v MetaValue) {
	f.mu.Lock()
	u := &f.update
	if v.Version <= u.Version {
		f.mu.Unlock()
		return
	}
	u.Version = v.Version
	if u.Values == nil {
		u.Values = map[string]MetaValue{}
	}
	if u.Values[name] = v; v.Value == nil && u.Whole {
		delete(u.Values, name)
	}
	f.wake()
}

// wake calls notify if the feed was empty, and unlocks the feed.
func (f *MetaFeed) wake() {
	first := !f.filled
	f.filled = true
	f.mu.Unlock()
	if first {
		f.notify()
	}
}

// Take empties the feed and returns its content. It returns false if the feed was empty.
func (f *MetaFeed) Take() (MetaUpdate, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.filled {
		return MetaUpdate{}, false
	}
	u := f.update
	f.update = MetaUpdate{MetaState: MetaState{Version: u.Version}}
	f.filled = false
	return u, true
}
