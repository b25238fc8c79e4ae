package queue

import (
	"encoding/binary"
	"math/bits"
)

// table stores rows, and finds the rows of its index by their 16-byte keys. Keys are parts of a
// cryptographic hash. At most one row of each key is in the index.
//
// Rows are in pages, so a row never moves while the table grows. The index grows by linear hashing
// (Litwin, VLDB 1980): a new row splits two buckets at most. So no insert copies the whole table.
type table[V any] struct {
	salt  uint64 // random, so that publishers cannot choose keys of one bucket
	pages []*[tablePage]row[V]
	used  int      // rows in use
	made  uint32   // rows that were ever in use
	free  uint32   // the first row that is free again; 0: none
	heads []uint32 // for each bucket, its first row; 0: none
	found int      // rows in the index
}

// row is one row of a table. Rows are numbered from 1.
type row[V any] struct {
	key   [16]byte
	v     V
	next  uint32 // the next row of the bucket, or of the free rows; 0: none
	state rowState
}

type rowState uint8

const (
	rowFree rowState = iota
	rowStored
	rowIndexed
)

const (
	tablePage   = 64
	fewestHeads = 8
	perRow      = 2 // buckets: most searches find no row, and should not read another row
)

// at returns a row in use.
func (t *table[V]) at(i uint32) *row[V] { return &t.pages[(i-1)/tablePage][(i-1)%tablePage] }

// add returns the number of a new row, which is not in the index.
func (t *table[V]) add(key [16]byte, v V) uint32 {
	i := t.free
	if i != 0 {
		t.free = t.at(i).next
	} else {
		if int(t.made) == len(t.pages)*tablePage {
			t.pages = append(t.pages, new([tablePage]row[V]))
		}
		t.made++
		i = t.made
	}
	t.used++
	*t.at(i) = row[V]{key: key, v: v, state: rowStored}
	return i
}

// remove frees a row. It takes the row from the index if the row is there.
func (t *table[V]) remove(i uint32) {
	t.take(i)
	*t.at(i) = row[V]{next: t.free}
	t.free = i
	if t.used--; t.used == 0 {
		t.made, t.free = 0, 0
	}
}

// bucket returns the bucket of a key. The number of buckets is between a power of two and its
// double. The buckets from that power on are the split parts of the first buckets.
func (t *table[V]) bucket(key *[16]byte) *uint32 {
	n, whole := uint64(len(t.heads)), t.whole()
	h := binary.LittleEndian.Uint64(key[:]) * (t.salt | 1) >> 32
	b := h & (2*whole - 1)
	if b >= n {
		b -= whole
	}
	return &t.heads[b]
}

// whole returns the highest power of two that is at most the number of buckets.
func (t *table[V]) whole() uint64 { return 1 << (bits.Len(uint(len(t.heads))) - 1) }

// find returns the row of a key in the index, or 0.
func (t *table[V]) find(key [16]byte) uint32 {
	if t.found == 0 {
		return 0
	}
	for i := *t.bucket(&key); i != 0; {
		r := t.at(i)
		if r.key == key {
			return i
		}
		i = r.next
	}
	return 0
}

// put adds a row to the index. If the index has another row with its key, put removes that row from
// the index and returns its number.
func (t *table[V]) put(i uint32) (before uint32) {
	if t.heads == nil {
		t.heads = make([]uint32, fewestHeads)
	}
	r := t.at(i)
	head := t.bucket(&r.key)
	for p := head; *p != 0; {
		x := t.at(*p)
		if x.key == r.key {
			if before = *p; before == i {
				return 0
			}
			*p, r.next, r.state = i, x.next, rowIndexed
			x.next, x.state = 0, rowStored
			return before
		}
		p = &x.next
	}
	*head, r.next, r.state = i, *head, rowIndexed
	for t.found++; perRow*t.found > len(t.heads); {
		t.split()
	}
	return 0
}

// take removes a row from the index.
func (t *table[V]) take(i uint32) {
	r := t.at(i)
	if r.state != rowIndexed {
		return
	}
	p := t.bucket(&r.key)
	for *p != i {
		p = &t.at(*p).next
	}
	*p, r.next, r.state = r.next, 0, rowStored
	t.found--
}

// split adds a bucket. Its rows come from one other bucket.
func (t *table[V]) split() {
	old := len(t.heads) - int(t.whole())
	i := t.heads[old]
	t.heads[old] = 0
	t.heads = append(t.heads, 0)
	for i != 0 {
		r := t.at(i)
		head := t.bucket(&r.key)
		i, r.next, *head = r.next, *head, i
	}
}

// compact copies the rows to a small table if most of the memory is unused. moved gets each row's
// new number.
func (t *table[V]) compact(moved func(i uint32, v *V)) {
	if room := len(t.pages) * tablePage; room < compactFrom || t.used > room/compactBy {
		return
	}
	small := table[V]{salt: t.salt}
	for i := uint32(1); i <= t.made; i++ {
		r := t.at(i)
		if r.state == rowFree {
			continue
		}
		to := small.add(r.key, r.v)
		if r.state == rowIndexed {
			small.put(to)
		}
		moved(to, &r.v)
	}
	*t = small
}
