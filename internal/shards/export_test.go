package shards

// Known reports whether the directory has a queue.
func (b *Broker) Known(name string) bool {
	_, ok := b.dir.find(name)
	return ok
}
