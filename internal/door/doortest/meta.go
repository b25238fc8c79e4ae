package doortest

import (
	"context"
	"maps"
	"slices"
	"sync"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/door"
)

// MetaStore is the metadata of a broker in memory. It keeps the contract of door.Metadata. The zero
// value is empty.
type MetaStore struct {
	// Fail, if not nil, is called before each change with its name. If it returns an error, the
	// change fails.
	Fail func(namespace, name string) error

	mu      sync.Mutex
	version uint64
	spaces  map[string]map[string]door.MetaValue
	feeds   map[*door.MetaFeed]string
}

// SetMeta stores a value. See door.Metadata.
func (s *MetaStore) SetMeta(ctx context.Context, namespace, name string, value []byte) error {
	_, err := s.SetMetaIf(ctx, namespace, name, value, door.AnyVersion)
	return err
}

// SetMetaIf stores a value under a condition. See door.Metadata.
func (s *MetaStore) SetMetaIf(_ context.Context, namespace, name string, value []byte, expected uint64) (uint64, error) {
	if s.Fail != nil {
		if err := s.Fail(namespace, name); err != nil {
			return 0, err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now, exists := s.spaces[namespace][name]
	if expected != door.AnyVersion && expected != now.Version {
		return 0, surgetank.Errorf(surgetank.CodeExists, "the value %s/%s was changed by another writer", namespace, name)
	}
	if value == nil && !exists {
		return 0, nil
	}
	s.version++
	v := door.MetaValue{Value: slices.Clone(value), Version: s.version}
	if value == nil {
		delete(s.spaces[namespace], name)
	} else {
		if s.spaces == nil {
			s.spaces = map[string]map[string]door.MetaValue{}
		}
		if s.spaces[namespace] == nil {
			s.spaces[namespace] = map[string]door.MetaValue{}
		}
		s.spaces[namespace][name] = v
	}
	for f, ns := range s.feeds { // unordered: each feed gets the same
		if ns == namespace {
			f.Change(name, v)
		}
	}
	return s.version, nil
}

// Meta returns the values of a namespace. See door.Metadata.
func (s *MetaStore) Meta(_ context.Context, namespace string) (door.MetaState, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state(namespace), nil
}

func (s *MetaStore) state(namespace string) door.MetaState {
	values := maps.Clone(s.spaces[namespace])
	if values == nil {
		values = map[string]door.MetaValue{}
	}
	return door.MetaState{Values: values, Version: s.version}
}

// WatchMeta passes a namespace and its changes to a feed. See door.Metadata.
func (s *MetaStore) WatchMeta(_ context.Context, namespace string, feed *door.MetaFeed) (stop func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	feed.Restart(s.state(namespace))
	if s.feeds == nil {
		s.feeds = map[*door.MetaFeed]string{}
	}
	s.feeds[feed] = namespace
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.feeds, feed)
	}, nil
}

// Resend passes all values to all feeds again, as a broker does that was opened again.
func (s *MetaStore) Resend() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for f, ns := range s.feeds { // unordered: each feed gets its own
		f.Restart(s.state(ns))
	}
}

// Clone returns a copy without watches.
func (s *MetaStore) Clone() *MetaStore {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := &MetaStore{version: s.version, spaces: map[string]map[string]door.MetaValue{}}
	for ns, values := range s.spaces { // unordered: a map of the same
		c.spaces[ns] = maps.Clone(values)
	}
	return c
}
