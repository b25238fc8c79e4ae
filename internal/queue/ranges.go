package queue

import "sort"

// Range is a run of numbers, both ends included.
type Range struct{ First, Last uint64 }

// ranges is a set of numbers as ascending runs that do not touch.
type ranges []Range

// find gives the index of the first run that ends at or behind n.
func (r ranges) find(n uint64) int {
	return sort.Search(len(r), func(i int) bool { return r[i].Last >= n })
}

func (r ranges) has(n uint64) bool {
	i := r.find(n)
	return i < len(r) && r[i].First <= n
}

// add puts in a run whose numbers are above all that the set has.
func (r *ranges) add(first, last uint64) {
	if n := len(*r); n > 0 && (*r)[n-1].Last+1 == first {
		(*r)[n-1].Last = last
		return
	}
	*r = append(*r, Range{first, last})
}

// remove takes a number out; false: it was not in.
func (r *ranges) remove(n uint64) bool {
	i := r.find(n)
	if i == len(*r) || (*r)[i].First > n {
		return false
	}
	x := (*r)[i]
	var put []Range
	if x.First < n {
		put = append(put, Range{x.First, n - 1})
	}
	if n < x.Last {
		put = append(put, Range{n + 1, x.Last})
	}
	*r = append((*r)[:i:i], append(put, (*r)[i+1:]...)...)
	return true
}

// below takes out everything below a number except some.
func (r *ranges) below(n uint64, except []uint64) {
	var kept ranges
	for _, seq := range except {
		if seq < n && r.has(seq) {
			kept = append(kept, Range{seq, seq})
		}
	}
	for _, x := range *r {
		if x.Last >= n {
			kept = append(kept, Range{max(x.First, n), x.Last})
		}
	}
	*r = kept
}

func (r ranges) count() (n uint64) {
	for _, x := range r {
		n += x.Last - x.First + 1
	}
	return n
}
