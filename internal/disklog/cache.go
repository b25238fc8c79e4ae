package disklog

import (
	"container/list"
	"math/bits"
	"sync"
)

// recentCache keeps the newest entries as they were appended, up to a number of bytes. Entries are
// numbered without gaps, so the cache is a ring and a lookup is a subtraction. A lookup holds a
// read lock for some nanoseconds.
type recentCache struct {
	limit int64

	mu    sync.RWMutex
	ring  [][]byte // the entries; the ring's length is a power of two
	base  uint64   // number of the oldest entry
	n     int      // entries in the ring
	bytes int64
}

// entryCost is the memory of a cached entry in addition to its bytes.
const entryCost = 24

func (c *recentCache) add(first uint64, batch []pending) {
	if c.limit <= 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n == 0 {
		c.base = first
	}
	for _, p := range batch {
		if c.n == len(c.ring) {
			c.grow()
		}
		data := p.data
		if data == nil {
			data = []byte{}
		}
		c.ring[(c.base+uint64(c.n))&uint64(len(c.ring)-1)] = data
		c.n++
		c.bytes += int64(len(data)) + entryCost
		for c.bytes > c.limit {
			slot := &c.ring[c.base&uint64(len(c.ring)-1)]
			c.bytes -= int64(len(*slot)) + entryCost
			*slot = nil
			c.base++
			c.n--
		}
	}
}

// drop removes the entries before a number, and frees memory that the remaining entries do not
// need.
func (c *recentCache) drop(before uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.n > 0 && c.base < before {
		slot := &c.ring[c.base&uint64(len(c.ring)-1)]
		c.bytes -= int64(len(*slot)) + entryCost
		*slot = nil
		c.base++
		c.n--
	}
	if len(c.ring) > 1024 && c.n < len(c.ring)/4 {
		c.resize(max(64, 2<<bits.Len(uint(c.n))))
	}
}

func (c *recentCache) grow() { c.resize(max(64, 2*len(c.ring))) }

// resize moves the entries to a ring of another size: a power of two with room for them.
func (c *recentCache) resize(size int) {
	ring := make([][]byte, size)
	for i := range uint64(c.n) {
		ring[(c.base+i)&uint64(len(ring)-1)] = c.ring[(c.base+i)&uint64(len(c.ring)-1)]
	}
	c.ring = ring
}

func (c *recentCache) get(number uint64) ([]byte, bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if number-c.base >= uint64(c.n) { // true also for a number below base, because the subtraction wraps
		return nil, false
	}
	return c.ring[number&uint64(len(c.ring)-1)], true
}

func (c *recentCache) size() int64 {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.bytes
}

// coldCache keeps entries that were read from disk recently, because the next message of a backlog
// is mostly in the same entry. Readers that need the same entry at the same time share one read.
type coldCache struct {
	limit int64

	mu    sync.Mutex
	items map[uint64]*coldItem
	used  list.List // the *coldItem values that were read, most recently used first
	bytes int64
}

type coldItem struct {
	number uint64
	data   []byte
	err    error
	read   chan struct{} // closed when data and err are set
	place  *list.Element
}

func (c *coldCache) init(limit int64) {
	c.limit = limit
	c.items = map[uint64]*coldItem{}
}

// get returns an entry. It calls load if the entry is not cached. Errors are not cached.
func (c *coldCache) get(number uint64, load func(uint64) ([]byte, error)) ([]byte, error) {
	c.mu.Lock()
	if item, ok := c.items[number]; ok {
		if item.place != nil {
			c.used.MoveToFront(item.place)
			c.mu.Unlock()
			return item.data, nil
		}
		c.mu.Unlock()
		<-item.read
		return item.data, item.err
	}
	item := &coldItem{number: number, read: make(chan struct{})}
	c.items[number] = item
	c.mu.Unlock()

	item.data, item.err = load(number)
	close(item.read)

	c.mu.Lock()
	defer c.mu.Unlock()
	if item.err != nil || int64(len(item.data)) > c.limit {
		delete(c.items, number)
		return item.data, item.err
	}
	item.place = c.used.PushFront(item)
	c.bytes += int64(len(item.data)) + entryCost
	for c.bytes > c.limit {
		old := c.used.Remove(c.used.Back()).(*coldItem)
		delete(c.items, old.number)
		c.bytes -= int64(len(old.data)) + entryCost
	}
	return item.data, nil
}

func (c *coldCache) size() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.bytes
}
