//go:build linux

package powerfs

import (
	"maps"
	"math/rand/v2"
	"slices"
)

// Survival says which unsynced changes survive a power cut.
type Survival int

// The kinds of power cut.
const (
	// Nothing loses every unsynced change.
	Nothing Survival = iota
	// Some keeps a random part of the changes. Each sector of a write, each size and each name
	// survives or not by itself.
	Some
	// Torn keeps all changes before some moment, a part of the write at that moment, and no later
	// change. The part may end inside a sector.
	Torn
	// Noise gives files their new size. Of the written bytes, a part survives, a part becomes zeros
	// and a part becomes noise. Reserved room can become noise, too. Other bytes stay unchanged.
	Noise
	// Bytes keeps written bytes and loses changes of names.
	Bytes
	// Names keeps changes of names and loses written bytes.
	Names
)

func (s Survival) String() string {
	return [...]string{"nothing unsynced left", "some of the unsynced left", "torn", "noise", "names lost", "bytes lost"}[s]
}

// After cuts the power and returns the disk as it is afterwards: everything on the new disk is
// durable, and its power is on. The old disk's power stays off, and its callers wait until Release.
func (d *Disk) After(s Survival, rng *rand.Rand) *Disk {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.cut()
	c := cutter{survival: s, rng: rng, moment: d.steps + 1, next: New(), names: map[*node]map[string]*node{}}
	if s == Torn {
		oldest := d.oldest()
		c.moment = oldest - 1 + rng.Int64N(d.steps+3-oldest)
	}
	for _, n := range d.names {
		if c.nameSurvives(n.step) {
			n.apply(c.entries)
		}
	}
	c.copyDir(d.root, c.next.root)
	return c.next
}

// oldest returns the step of the oldest change that is not on the disk, or a future step.
func (d *Disk) oldest() int64 {
	oldest := d.steps + 1
	if len(d.names) > 0 {
		oldest = min(oldest, d.names[0].step)
	}
	seen := map[*node]bool{}
	var walk func(*node)
	walk = func(n *node) {
		if seen[n] {
			return
		}
		seen[n] = true
		if len(n.pending) > 0 {
			oldest = min(oldest, n.pending[0].step)
		}
		for _, e := range n.entries { // the order of the map does not affect a minimum
			walk(e)
		}
		for _, e := range n.keptEntries { // the order does not matter here either
			walk(e)
		}
	}
	walk(d.root)
	return oldest
}

// cutter copies the surviving data of one disk to the next.
type cutter struct {
	survival Survival
	rng      *rand.Rand
	moment   int64 // step of a torn cut: later changes are lost
	next     *Disk
	names    map[*node]map[string]*node // names in each directory after the cut
}

// entries returns a directory's names on the next disk. The caller applies surviving changes to
// them.
func (c *cutter) entries(dir *node) map[string]*node {
	if c.names[dir] == nil {
		c.names[dir] = maps.Clone(dir.keptEntries)
	}
	return c.names[dir]
}

func (c *cutter) nameSurvives(step int64) bool {
	switch c.survival {
	case Some, Noise:
		return c.rng.IntN(2) == 0
	case Torn:
		return step < c.moment
	case Names:
		return true
	}
	return false
}

// copyDir copies a directory as it is on the disk. Names are processed in order, so the same random
// numbers go to the same files. A name that survived in two places becomes two files.
func (c *cutter) copyDir(from, to *node) {
	entries := c.entries(from)
	for _, name := range slices.Sorted(maps.Keys(entries)) {
		n := entries[name]
		var made *node
		if n.dir() {
			made = c.next.newDir(n.mode & 0o7777)
			c.copyDir(n, made)
		} else {
			made = c.next.newFile(n.mode & 0o7777)
			made.kept = c.survivors(n)
			made.live = made.kept.clone()
		}
		to.entries[name], to.keptEntries[name] = made, made
	}
}

// survivors returns a file's bytes after the cut.
func (c *cutter) survivors(n *node) content {
	left := n.kept.clone()
	for _, ch := range n.pending {
		switch {
		case c.survival == Nothing || c.survival == Names:
		case ch.data == nil:
			c.resize(&left, &n.kept, ch)
		case c.survival == Bytes:
			left.write(ch.data, ch.off, &n.kept)
		case c.survival == Torn:
			part := ch.data
			if ch.step > c.moment {
				part = nil
			} else if ch.step == c.moment {
				part = part[:c.rng.IntN(len(part)+1)]
			}
			if len(part) > 0 {
				left.write(part, ch.off, &n.kept)
			}
		default:
			c.scatter(&left, &n.kept, ch)
		}
	}
	return left
}

// resize decides whether a change of size survives.
func (c *cutter) resize(left, kept *content, ch change) {
	switch c.survival {
	case Some:
		if c.rng.IntN(2) == 0 {
			return
		}
	case Torn:
		if ch.step >= c.moment {
			return
		}
	}
	was := left.size
	if ch.grows && ch.off <= was {
		return
	}
	left.resize(ch.off, kept)
	if c.survival != Noise {
		return
	}
	for at := (was + pageSize - 1) / pageSize * pageSize; at+pageSize <= ch.off; at += pageSize {
		if c.rng.IntN(32) == 0 { // the new room contains old data of the disk
			left.write(c.noise(pageSize), at, kept)
		}
	}
}

// scatter writes a change sector by sector. Each sector survives or is lost; with Noise it can also
// become zeros or noise.
func (c *cutter) scatter(left, kept *content, ch change) {
	b, off := ch.data, ch.off
	keep := 1 + c.rng.IntN(9) // this many of ten sectors survive, on average
	if c.survival == Noise {
		left.size = max(left.size, off+int64(len(b)))
	}
	for len(b) > 0 {
		n := min(int64(len(b)), sectorSize-off%sectorSize)
		switch k := c.rng.IntN(10); {
		case k < keep:
			left.write(b[:n], off, kept)
		case c.survival == Noise && k%3 == 0:
			left.write(make([]byte, n), off, kept)
		case c.survival == Noise && k%3 == 1:
			left.write(c.noise(int(n)), off, kept)
		}
		b, off = b[n:], off+n
	}
}

func (c *cutter) noise(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(c.rng.Uint32())
	}
	return b
}
