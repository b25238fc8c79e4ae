package adapt

import "slices"

// sorted contains up to 30 latencies of one probe, in order.
type sorted struct {
	n int
	v [probeMost]float32
}

func (s *sorted) add(x float32) {
	if s.n == len(s.v) {
		return
	}
	i := s.n
	for ; i > 0 && s.v[i-1] > x; i-- {
		s.v[i] = s.v[i-1]
	}
	s.v[i] = x
	s.n++
}

// median returns the median, and the quartile range as a multiple of the median.
func (s *sorted) median() (median, spread float64) {
	m := middle(s.v[:s.n])
	if m <= 0 {
		return 0, 0
	}
	return m, float64(s.v[s.n*3/4]-s.v[s.n/4]) / m
}

// middle returns the median of a sorted list, and 0 for an empty list.
func middle(v []float32) float64 {
	n := len(v)
	switch {
	case n == 0:
		return 0
	case n%2 == 1:
		return float64(v[n/2])
	}
	return (float64(v[n/2-1]) + float64(v[n/2])) / 2
}

// sample is a list of latencies with a limited size. When it is full, every second latency is
// removed, and from then on only every second new latency is added; the next time every fourth, and
// so on. So the list always covers the whole window evenly.
type sample struct {
	seen int
	skip int // add every skip+1st
	n    int
	v    [64]float32
}

func (s *sample) clear() { s.seen, s.skip, s.n = 0, 0, 0 }

func (s *sample) add(x float32) {
	s.seen++
	if s.seen&s.skip != 0 {
		return
	}
	if s.n == len(s.v) {
		for i := range s.n / 2 {
			s.v[i] = s.v[2*i+1]
		}
		s.n /= 2
		s.skip = 2*s.skip + 1
		if s.seen&s.skip != 0 {
			return
		}
	}
	s.v[s.n] = x
	s.n++
}

// median sorts the list. Call clear before the next add.
func (s *sample) median() float64 {
	slices.Sort(s.v[:s.n])
	return middle(s.v[:s.n])
}

// recent is a ring of medians. Its capacity is at most 32.
type recent struct {
	n, next, size int
	v             [32]float32
}

func (r *recent) clear() { r.n, r.next = 0, 0 }

func (r *recent) add(x float64) {
	r.v[r.next] = float32(x)
	r.next = (r.next + 1) % r.size
	r.n = min(r.n+1, r.size)
}

func (r *recent) median() float64 {
	v := r.v // a copy, so that the ring keeps its order
	slices.Sort(v[:r.n])
	return middle(v[:r.n])
}
