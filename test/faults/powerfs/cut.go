//go:build linux

package powerfs

import (
	"maps"
	"math/rand/v2"
	"slices"
)

// Survival says what is left of changes that were not synced.
type Survival int

// The kinds of power cut.
const (
	// Nothing that was not synced is left.
	Nothing Survival = iota
	// Some of it is, in no order: each sector of a write, each size and each name by itself.
	Some
	// Torn keeps all that was done before some moment, of the write at that moment a part that may
	// end inside a sector, and nothing of what came later.
	Torn
	// Noise makes files as long as they were to be; of what was to be written a part is there, a
	// part is zeros and a part noise, in room that was only reserved too. Bytes that were not being
	// written stay as they were.
	Noise
	// Bytes keeps what was written, and loses changes of names.
	Bytes
	// Names keeps changes of names, and loses what was written.
	Names
)

func (s Survival) String() string {
	return [...]string{"nothing unsynced left", "some of the unsynced left", "torn", "noise", "names lost", "bytes lost"}[s]
}

// After gives the disk as it is after a power cut now: everything on it is durable, and its power
// is on. The power of this one stays off, and its callers stay where they are until Release.
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

// oldest is the step of the oldest change that is not on the disk, or one that is still to come.
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
		for _, e := range n.entries { // unordered: a minimum is the same in any order
			walk(e)
		}
		for _, e := range n.keptEntries { // unordered: as above
			walk(e)
		}
	}
	walk(d.root)
	return oldest
}

// cutter copies what survives of one disk into the next.
type cutter struct {
	survival Survival
	rng      *rand.Rand
	moment   int64 // of a torn cut
	next     *Disk
	names    map[*node]map[string]*node // of directories, as the cut leaves them
}

// entries gives a directory's names on the disk, to be changed by what survives.
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

// copyDir copies a directory as it is on the disk. Names are taken in order, so that the same
// numbers go to the same files. A name that survived in two places leaves two files.
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

// survivors gives a file's bytes after the cut.
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

// resize lets a change of size survive, or not.
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
		if c.rng.IntN(32) == 0 { // new room reads as what the disk had there
			left.write(c.noise(pageSize), at, kept)
		}
	}
}

// scatter writes a change sector by sector: each is there, or not, or, with noise, is something
// else.
func (c *cutter) scatter(left, kept *content, ch change) {
	b, off := ch.data, ch.off
	keep := 1 + c.rng.IntN(9) // of ten; some writes survive nearly whole, some hardly
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
