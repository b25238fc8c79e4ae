package vfs

import (
	"math/rand/v2"
	"slices"
)

// Crash describes what a power failure does to data that was not durable.
type Crash struct {
	// Percent is the probability that an unsynced block, size or change of a name survives.
	Percent int
	// Torn means that single sectors (512 bytes) of a block can survive.
	Torn bool
	// Garbage replaces changed bytes that did not survive by random bytes, as an interrupted write
	// can. Unchanged bytes stay ("powersafe overwrite", see docs/assumptions.md).
	Garbage bool
}

// CrashClone returns the file system as a new process finds it after a crash at this moment:
// nothing is locked, and all data in it is durable. CrashClone does not change the original. The
// same rng and history lead to the same clone.
func (m *Mem) CrashClone(rng *rand.Rand, crash Crash) *Mem {
	m.mu.Lock()
	defer m.mu.Unlock()
	survives := func() bool { return crash.Percent >= 100 || crash.Percent > 0 && rng.IntN(100) < crash.Percent }

	names := make(map[string]*memNode, len(m.durable))
	for name, node := range m.durable {
		names[name] = node
	}
	for _, op := range m.pending {
		if survives() {
			op.apply(names)
		}
	}

	clone := NewMem()
	clone.capacity = m.capacity
	for dir := range m.dirs {
		clone.dirs[dir] = true
	}
	sorted := make([]string, 0, len(names))
	for name := range names {
		sorted = append(sorted, name)
	}
	slices.Sort(sorted) // sort, so that the random order of the map does not influence the use of rng
	for _, name := range sorted {
		node := names[name].crashed(rng, crash, survives)
		clone.names[name] = node
		clone.durable[name] = node
	}
	return clone
}

// crashed returns a file's contents after a crash.
func (n *memNode) crashed(rng *rand.Rand, crash Crash, survives func() bool) *memNode {
	size := n.onDisk
	if n.size != n.onDisk && survives() {
		size = n.size
	}
	c := &memNode{size: size, dirty: map[int]struct{}{}, blocks: make([]*block, blocksOf(size))}
	copy(c.blocks, n.durable)
	dirty := make([]int, 0, len(n.dirty))
	for i := range n.dirty {
		dirty = append(dirty, i)
	}
	slices.Sort(dirty)
	for _, i := range dirty {
		if i < len(c.blocks) {
			c.blocks[i] = mix(blockAt(n.durable, i), blockAt(n.blocks, i), rng, crash, survives)
		}
	}
	if in := int(size % blockSize); in != 0 && c.blocks[len(c.blocks)-1] != nil {
		b := *c.blocks[len(c.blocks)-1]
		clear(b[in:])
		c.blocks[len(c.blocks)-1] = &b
	}
	c.durable, c.onDisk = slices.Clone(c.blocks), size
	return c
}

// mix returns a block with some old sectors, some new sectors and some random bytes.
func mix(old, now *block, rng *rand.Rand, crash Crash, survives func() bool) *block {
	if !crash.Torn && !crash.Garbage {
		if survives() {
			return now
		}
		return old
	}
	var zero, b block
	if old == nil {
		old = &zero
	}
	if now == nil {
		now = &zero
	}
	whole := survives()
	for s := 0; s < blockSize; s += sectorSize {
		keep := whole
		if crash.Torn {
			keep = survives()
		}
		src := old
		if keep {
			src = now
		}
		copy(b[s:s+sectorSize], src[s:s+sectorSize])
		if crash.Garbage && !keep && rng.IntN(2) == 0 {
			for i := s; i < s+sectorSize; i++ {
				if old[i] != now[i] {
					b[i] = byte(rng.Uint32())
				}
			}
		}
	}
	return &b
}
