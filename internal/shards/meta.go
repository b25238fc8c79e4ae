package shards

import (
	"context"
	"maps"

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

// Meta reads a namespace. Marks are in all shards. See door.Metadata.
func (b *Broker) Meta(ctx context.Context, namespace string) (map[string][]byte, error) {
	if b == nil || ctx == nil {
		return nil, noBroker(b)
	}
	parts := 1
	if namespace == door.MarksNamespace {
		parts = len(b.parts)
	}
	all := map[string][]byte{}
	for i := range parts {
		p, err := b.part(i)
		if err != nil {
			return nil, err
		}
		values, err := p.Meta(ctx, namespace)
		if err != nil {
			return nil, err
		}
		maps.Copy(all, values)
	}
	return all, nil
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
