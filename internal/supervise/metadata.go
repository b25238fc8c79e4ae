package supervise

import (
	"context"
	"maps"
	"slices"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/door"
)

// SetMeta stores a value. See door.Metadata.
func (s *Supervisor) SetMeta(ctx context.Context, namespace, name string, value []byte) error {
	return change(s, ctx, func(o *opening) error { return o.SetMeta(ctx, namespace, name, value) })
}

// SetMetaLater stores a value without a wait. While no opening serves, it returns CodeUnavailable.
// See door.Broker.
func (s *Supervisor) SetMetaLater(queue, name string, value []byte) error {
	if s == nil {
		_, err := s.acquire(context.Background(), nil)
		return err
	}
	if o := s.cur.Load(); o != nil {
		if err := o.SetMetaLater(queue, name, value); err == nil || !o.failed() {
			return err
		}
		return surgetank.Errorf(surgetank.CodeUnavailable, "the broker's log has failed; the value was not stored: %w", o.Err())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.refusal()
}

// SetMetaIf stores a value under a condition. See door.Metadata.
func (s *Supervisor) SetMetaIf(ctx context.Context, namespace, name string, value []byte, expected uint64) (uint64, error) {
	return write(s, ctx, func(o *opening) (uint64, error) { return o.SetMetaIf(ctx, namespace, name, value, expected) })
}

// Meta reads a namespace. See door.Metadata.
func (s *Supervisor) Meta(ctx context.Context, namespace string) (door.MetaState, error) {
	return read(s, ctx, func(o *opening) (door.MetaState, error) { return o.Meta(ctx, namespace) })
}

// metaWatch is a call of WatchMeta. It begins again in each opening.
type metaWatch struct {
	namespace string
	feed      *door.MetaFeed
	stop      func() // ends the watch in the present opening; guarded by Supervisor.mu
}

// WatchMeta passes a namespace and its changes to a feed. Each opening passes all values again, so
// the feed sees what became of a change without an answer. See door.Metadata.
func (s *Supervisor) WatchMeta(ctx context.Context, namespace string, feed *door.MetaFeed) (stop func(), err error) {
	w := &metaWatch{namespace: namespace, feed: feed}
	for {
		o, err := s.acquire(ctx, nil)
		if err != nil {
			return nil, err
		}
		stop, err := o.WatchMeta(ctx, namespace, feed)
		if err != nil {
			if o.failed() && ctx != nil && ctx.Err() == nil {
				continue
			}
			return nil, err
		}
		s.mu.Lock()
		serves := s.cur.Load() == o
		if serves {
			w.stop = stop
			s.watches[w] = struct{}{}
		}
		s.mu.Unlock()
		if serves {
			return func() { s.unwatch(w) }, nil
		}
		stop() // the opening has failed or was closed
	}
}

func (s *Supervisor) unwatch(w *metaWatch) {
	s.mu.Lock()
	delete(s.watches, w)
	stop := w.stop
	s.mu.Unlock()
	stop()
}

// watchAgain begins all watches in an opening that does not serve yet.
func (s *Supervisor) watchAgain(o *opening) error {
	s.mu.Lock()
	watches := slices.Collect(maps.Keys(s.watches))
	s.mu.Unlock()
	for _, w := range watches { // unordered: each watch has its own feed
		stop, err := o.WatchMeta(s.ctx, w.namespace, w.feed)
		if err != nil {
			return err
		}
		s.mu.Lock()
		_, wanted := s.watches[w]
		w.stop = stop
		s.mu.Unlock()
		if !wanted {
			stop()
		}
	}
	return nil
}
