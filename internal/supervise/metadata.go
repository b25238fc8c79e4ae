package supervise

import (
	"context"

	"github.com/surgetank/surgetank"
)

// SetMeta stores a value. See door.Metadata.
func (s *Supervisor) SetMeta(ctx context.Context, namespace, name string, value []byte) error {
	return change(s, ctx, func(o *opening) error { return o.SetMeta(ctx, namespace, name, value) })
}

// SetMetaLater stores a value without a wait. While no opening serves, it returns CodeUnavailable.
// See door.Broker.
func (s *Supervisor) SetMetaLater(namespace, name string, value []byte) error {
	if s == nil {
		_, err := s.acquire(context.Background(), nil)
		return err
	}
	if o := s.cur.Load(); o != nil {
		if err := o.SetMetaLater(namespace, name, value); err == nil || !o.failed() {
			return err
		}
		return surgetank.Errorf(surgetank.CodeUnavailable, "the broker's log has failed; the value was not stored: %w", o.Err())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.refusal()
}

// Meta reads a namespace. See door.Metadata.
func (s *Supervisor) Meta(ctx context.Context, namespace string) (map[string][]byte, error) {
	return read(s, ctx, func(o *opening) (map[string][]byte, error) { return o.Meta(ctx, namespace) })
}
