package fenced

import "sync"

// cache contains the newest entries in memory, up to limit bytes.
type cache struct {
	mu    sync.Mutex
	limit int64
	bytes int64
	data  map[uint64][]byte
	order []uint64 // oldest first
}

// perEntry is about the memory of an entry in addition to its bytes.
const perEntry = 128

func (c *cache) add(at uint64, data []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, has := c.data[at]; has {
		return
	}
	if c.data == nil {
		c.data = map[uint64][]byte{}
	}
	c.data[at] = data
	c.order = append(c.order, at)
	c.bytes += int64(len(data)) + perEntry
	for c.bytes > c.limit && len(c.order) > 0 {
		old := c.order[0]
		c.order = c.order[1:]
		c.bytes -= int64(len(c.data[old])) + perEntry
		delete(c.data, old)
	}
}

func (c *cache) get(at uint64) ([]byte, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	data, ok := c.data[at]
	return data, ok
}
