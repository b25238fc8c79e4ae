package queue

import (
	"math"
	"sort"
)

// extents divides the log into consecutive parts and counts the bytes of each part that are still
// needed. It tells from which entry on the log must be kept, and where writing a few messages again
// would free much space.
type extents struct {
	list  []extent
	bytes int64 // the size at which an extent is full
	last  int   // index of the extent used last, where most lookups hit again
}

type extent struct {
	first uint64 // number of its first entry; the extent ends before the first entry of the next extent
	size  int64  // bytes of its entries
	live  int64  // estimated bytes of its messages and notes that are still needed
	count int64  // how many messages and notes are still needed
}

// grow adds an entry. Add an entry before its messages.
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

// trim removes extents at the front that contain nothing needed. It returns the first entry that
// can still be needed.
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

// Needed returns the number of the first entry that can still be needed, or MaxUint64 if no entry
// is needed.
func (m *Machine) Needed() uint64 {
	first := m.extents.trim()
	if n := len(m.extents.list); n == 0 || n == 1 && m.extents.list[0].count == 0 {
		return math.MaxUint64
	}
	return first
}

// Prefix returns the longest part of the log's beginning that has at most atMost needed bytes. end
// is the first entry after the part. live is the number of needed bytes in the part, which must be
// written again before the part can be trimmed. The newest extent never belongs to the part.
func (m *Machine) Prefix(atMost int64) (end uint64, live int64) {
	m.extents.trim()
	list := m.extents.list
	for i := 0; i+1 < len(list) && live+list[i].live <= atMost; i++ {
		live += list[i].live
		end = list[i+1].first
	}
	return end, live
}

// LogShare returns the bytes of the log from entry Needed() on, and how many of them are needed.
func (m *Machine) LogShare() (size, live int64) {
	for i := range m.extents.list {
		size += m.extents.list[i].size
		live += m.extents.list[i].live
	}
	return size, live
}

// Oldest returns the range of entries [first, end) of the oldest extent, its size, and its needed
// bytes. ok is false if there is only one extent: the newest is never returned.
func (m *Machine) Oldest() (first, end uint64, size, live int64, ok bool) {
	m.extents.trim()
	if len(m.extents.list) < 2 {
		return 0, 0, 0, 0, false
	}
	e := m.extents.list[0]
	return e.first, m.extents.list[1].first, e.size, e.live, true
}
