package shards

import (
	"context"
	"maps"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/door"
)

// SetMeta stores a door's value in the first shard. In the namespace of marks it changes the first
// shard and removes the value from the others. See door.Metadata.
func (b *Broker) SetMeta(ctx context.Context, namespace, name string, value []byte) error {
	if b == nil || ctx == nil {
		return noBroker(b)
	}
	if namespace == door.MarksNamespace {
		for i := 1; i < len(b.parts); i++ {
			p, err := b.part(i)
			if err != nil {
				return err
			}
			if err := p.SetMeta(ctx, namespace, name, nil); err != nil {
				return err
			}
		}
	}
	p, err := b.part(0)
	if err != nil {
		return err
	}
	return p.SetMeta(ctx, namespace, name, value)
}

// SetMetaIf stores a door's value in the first shard under a condition. Marks have no conditions.
// See door.Metadata.
func (b *Broker) SetMetaIf(ctx context.Context, namespace, name string, value []byte, expected uint64) (uint64, error) {
	if b == nil || ctx == nil {
		return 0, noBroker(b)
	}
	if namespace == door.MarksNamespace {
		return 0, surgetank.FieldErrorf("namespace", "values of %s are stored without conditions, each in the log of its queue", namespace)
	}
	p, err := b.part(0)
	if err != nil {
		return 0, err
	}
	return p.SetMetaIf(ctx, namespace, name, value, expected)
}

// Meta reads a namespace. Marks are in all shards. If a shard is not open, Meta returns the marks
// of the others, and a door.PartialError. See door.Metadata.
func (b *Broker) Meta(ctx context.Context, namespace string) (all door.MetaState, err error) {
	if b == nil || ctx == nil {
		return all, noBroker(b)
	}
	p, err := b.part(0)
	if err != nil {
		return all, err
	}
	if all, err = p.Meta(ctx, namespace); err != nil || namespace != door.MarksNamespace {
		return all, err
	}
	var failed error
	for i := 1; i < len(b.parts); i++ {
		state, err := door.MetaState{}, b.unavailable(i)
		if !b.down(i) {
			state, err = b.parts[i].Meta(ctx, namespace)
		}
		if err != nil {
			failed = &door.PartialError{Err: err}
			continue
		}
		maps.Copy(all.Values, state.Values)
	}
	return all, failed
}

// WatchMeta passes a namespace of the first shard and its changes to a feed. Marks are not watched.
// See door.Metadata.
func (b *Broker) WatchMeta(ctx context.Context, namespace string, feed *door.MetaFeed) (stop func(), err error) {
	if b == nil || ctx == nil {
		return nil, noBroker(b)
	}
	if namespace == door.MarksNamespace {
		return nil, surgetank.FieldErrorf("namespace", "the values of %s cannot be watched", namespace)
	}
	p, err := b.part(0)
	if err != nil {
		return nil, err
	}
	return p.WatchMeta(ctx, namespace, feed)
}

// SetMetaLater stores a mark in the shard of its queue. The first mark of a name removes the marks
// of that name from the other shards: the queue can have been in another shard before. See
// door.Broker.
func (b *Broker) SetMetaLater(queue, name string, value []byte) error {
	p, err := b.shard(context.Background(), queue)
	if err != nil {
		return err
	}
	if err := p.SetMetaLater(queue, name, value); err != nil {
		return err
	}
	at, _ := b.dir.locate(queue)
	if was, had := b.marks.Swap(name, at); !had || was != at {
		for i := range b.parts {
			if other, err := b.part(i); err == nil && i != at {
				_ = other.SetMetaLater(queue, name, nil) // the next mark of another opening tries again
			}
		}
	}
	return nil
}
