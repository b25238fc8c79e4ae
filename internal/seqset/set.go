// Package seqset provides sets of message numbers as ascending runs. A set of mostly consecutive
// numbers needs only a few bytes, even if it is large.
package seqset

import "sort"

// Run is an unbroken run of numbers, including both ends.
type Run struct{ First, Last uint64 }

// Set is a set of numbers, as runs in ascending order with gaps between them. The zero value is
// empty. Copy a Set with Clone before two owners change it.
type Set []Run

// find returns the index of the first run that ends at or after n.
func (s Set) find(n uint64) int {
	return sort.Search(len(s), func(i int) bool { return s[i].Last >= n })
}

// Has reports whether n is in the set.
func (s Set) Has(n uint64) bool {
	i := s.find(n)
	return i < len(s) && s[i].First <= n
}

// Count returns how many numbers are in the set.
func (s Set) Count() (n uint64) {
	for _, x := range s {
		n += x.Last - x.First + 1
	}
	return n
}

// Clone returns a copy.
func (s Set) Clone() Set { return append(Set(nil), s...) }

// Add adds the run from first to last. Adding at the end is cheap. Adding elsewhere moves the later
// runs.
func (s *Set) Add(first, last uint64) {
	r := *s
	n := len(r)
	switch {
	case n == 0 || r[n-1].Last < first && r[n-1].Last+1 < first:
		*s = append(r, Run{first, last})
		return
	case r[n-1].First <= first: // the new run overlaps or touches only the last run
		r[n-1].Last = max(r[n-1].Last, last)
		return
	}
	// Runs [i, j) overlap or touch the new one and are merged with it.
	i := sort.Search(n, func(i int) bool { return r[i].Last+1 >= first })
	j := i
	for j < n && r[j].First <= last+1 {
		first, last = min(first, r[j].First), max(last, r[j].Last)
		j++
	}
	if i == j {
		r = append(r, Run{})
		copy(r[i+1:], r[i:])
	} else {
		r = append(r[:i+1], r[j:]...)
	}
	r[i] = Run{first, last}
	*s = r
}

// Remove removes a number. It returns false if the number was not in the set.
func (s *Set) Remove(n uint64) bool {
	i := s.find(n)
	if i == len(*s) || (*s)[i].First > n {
		return false
	}
	x := (*s)[i]
	var put []Run
	if x.First < n {
		put = append(put, Run{x.First, n - 1})
	}
	if n < x.Last {
		put = append(put, Run{n + 1, x.Last})
	}
	*s = append((*s)[:i:i], append(put, (*s)[i+1:]...)...)
	return true
}

// RemoveBelow removes all numbers below n.
func (s *Set) RemoveBelow(n uint64) {
	i := s.find(n)
	*s = (*s)[i:]
	if len(*s) > 0 && (*s)[0].First < n {
		(*s)[0].First = n
	}
}

// RemoveBelowExcept removes all numbers below n except the ascending numbers of keep.
func (s *Set) RemoveBelowExcept(n uint64, keep []uint64) {
	var kept Set
	for _, k := range keep {
		if k < n && s.Has(k) {
			kept.Add(k, k)
		}
	}
	for _, x := range *s {
		if x.Last >= n {
			kept.Add(max(x.First, n), x.Last)
		}
	}
	*s = kept
}

// Union returns the numbers that are in a or in b. It shares no memory with them.
func Union(a, b Set) Set {
	out := make(Set, 0, len(a)+len(b))
	for len(a) > 0 || len(b) > 0 {
		from := &a
		if len(a) == 0 || len(b) > 0 && b[0].First < a[0].First {
			from = &b
		}
		x := (*from)[0]
		*from = (*from)[1:]
		if n := len(out); n > 0 && (out[n-1].Last >= x.First || out[n-1].Last+1 == x.First) {
			out[n-1].Last = max(out[n-1].Last, x.Last)
		} else {
			out = append(out, x)
		}
	}
	return out
}

// Within returns the numbers of the set from first to last, including both. It returns nothing if
// first is above last. The result shares no memory with the set.
func (s Set) Within(first, last uint64) Set {
	var out Set
	if first > last {
		return nil
	}
	for i := s.find(first); i < len(s) && s[i].First <= last; i++ {
		out = append(out, Run{max(s[i].First, first), min(s[i].Last, last)})
	}
	return out
}
