package queue

import (
	"math"
	"sort"
)

// extents counts, for consecutive stretches of the log, what of it is still needed: it answers from
// where on the log must be kept, and where moving a few survivors would free much.
type extents struct {
	list  []extent
	bytes int64 // how much of the log one extent covers
	last  int   // the extent that was used last; most lookups hit it again
}

type extent struct {
	first uint64 // number of its first entry; it ends where the next one begins
	size  int64  // bytes of its entries
	live  int64  // bytes of messages and notes in it that are still needed, roughly
	count int64  // of those messages and notes
}

// grow tells of a new entry. A message's entry must be told of before its messages.
func (x *extents) grow(entry uint64, size int) {
	n := len(x.list)
	if n == 0 || x.list[n-1].size >= x.bytes && entry > x.list[n-1].first {
		x.list = append(x.list, extent{first: entry})
		n++
	}
	x.list[n-1].size += int64(size)
}

func (x *extents) at(ref Ref) *extent {
	e := ref.Entry()
	if l := x.last; l < len(x.list) && x.list[l].first <= e && (l+1 == len(x.list) || e < x.list[l+1].first) {
		return &x.list[l]
	}
	i := sort.Search(len(x.list), func(i int) bool { return x.list[i].first > e }) - 1
	if i < 0 {
		return nil
	}
	x.last = i
	return &x.list[i]
}

func (x *extents) add(ref Ref, size int64) {
	if e := x.at(ref); e != nil {
		e.live += size
		e.count++
	}
}

func (x *extents) sub(ref Ref, size int64) {
	if e := x.at(ref); e != nil {
		e.live -= size
		e.count--
	}
}

// trim forgets extents at the front that nothing needs and gives the first entry that may still be
// needed.
func (x *extents) trim() uint64 {
	n := 0
	for n < len(x.list)-1 && x.list[n].count == 0 {
		n++
	}
	x.list = x.list[n:]
	x.last = 0
	if len(x.list) == 0 {
		return 0
	}
	return x.list[0].first
}

// Needed gives the number of the first entry that may hold something needed; MaxUint64 when no
// entry does.
func (m *Machine) Needed() uint64 {
	first := m.extents.trim()
	if n := len(m.extents.list); n == 0 || n == 1 && m.extents.list[0].count == 0 {
		return math.MaxUint64
	}
	return first
}

// Prefix gives the longest part of the log's beginning whose needed bytes, to be written again, are
// at most some: the first entry behind the part, and its needed bytes. The newest extent never
// belongs to the part.
func (m *Machine) Prefix(atMost int64) (end uint64, live int64) {
	m.extents.trim()
	list := m.extents.list
	for i := 0; i+1 < len(list) && live+list[i].live <= atMost; i++ {
		live += list[i].live
		end = list[i+1].first
	}
	return end, live
}

// LogShare says how many bytes of the log from Needed on there are, and how many of them are
// needed.
func (m *Machine) LogShare() (size, live int64) {
	for i := range m.extents.list {
		size += m.extents.list[i].size
		live += m.extents.list[i].live
	}
	return size, live
}

// Oldest gives the range of entries [first, end) of the oldest extent and how much of it is needed.
// The newest extent is never given: ok is false when there is no other.
func (m *Machine) Oldest() (first, end uint64, size, live int64, ok bool) {
	m.extents.trim()
	if len(m.extents.list) < 2 {
		return 0, 0, 0, 0, false
	}
	e := m.extents.list[0]
	return e.first, m.extents.list[1].first, e.size, e.live, true
}
