package seqset

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// model is a set as a map.
type model map[uint64]bool

func (m model) runs() Set {
	var s Set
	for n := uint64(0); n < 200; n++ {
		if !m[n] {
			continue
		}
		if k := len(s); k > 0 && s[k-1].Last+1 == n {
			s[k-1].Last = n
		} else {
			s = append(s, Run{n, n})
		}
	}
	return s
}

// TestSetAgreesWithAMap compares the result of every operation with that of a plain map.
func TestSetAgreesWithAMap(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for round := range 2000 {
		var s Set
		m := model{}
		for step := range 30 {
			n := rng.Uint64N(150)
			switch rng.IntN(7) {
			case 0, 1, 2:
				last := n + rng.Uint64N(12)
				s.Add(n, last)
				for k := n; k <= last; k++ {
					m[k] = true
				}
			case 3:
				if got := s.Remove(n); got != m[n] {
					t.Fatalf("round %d: Remove(%d) returned %v", round, n, got)
				}
				delete(m, n)
			case 4:
				s.RemoveBelow(n / 3)
				for k := range m {
					if k < n/3 {
						delete(m, k)
					}
				}
			case 5:
				keep := []uint64{n / 4, n/4 + 3}
				s.RemoveBelowExcept(n/2, keep)
				for k := range m {
					if k < n/2 && !slices.Contains(keep, k) {
						delete(m, k)
					}
				}
			case 6:
				var o Set
				om := model{}
				for range rng.IntN(5) {
					k := rng.Uint64N(150)
					o.Add(k, k+3)
					for j := k; j <= k+3; j++ {
						om[j], m[j] = true, true
					}
				}
				s = Union(s, o)
			}
			if want := m.runs(); !slices.Equal(s, want) {
				t.Fatalf("round %d step %d: have %v, want %v", round, step, s, want)
			}
			if s.Count() != uint64(len(m)) || s.Has(n) != m[n] {
				t.Fatalf("round %d step %d: Count %d Has(%d) %v", round, step, s.Count(), n, s.Has(n))
			}
			if x := s.Within(n, n-min(n, 1+rng.Uint64N(9))); n > 0 && x != nil {
				t.Fatalf("Within a range that ends before its beginning: %v", x)
			}
			part := s.Within(n, n+20)
			for k := uint64(0); k < 200; k++ {
				if part.Has(k) != (m[k] && k >= n && k <= n+20) {
					t.Fatalf("round %d step %d: Within(%d, %d) of %v is %v", round, step, n, n+20, s, part)
				}
			}
		}
	}
}
