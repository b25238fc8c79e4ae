// Package histogram counts durations, with quantiles that are right to 0.8 %.
package histogram

import (
	"math/bits"
	"slices"
	"sync"
	"time"
)

// Histogram counts durations in buckets that widen with the value. Every power of two has 128 equal
// steps, so a quantile is wrong by less than 0.8 %. The zero value is ready. It has one writer;
// merge it only after the writer has ended.
type Histogram struct {
	count   int64
	buckets []int64 // counts of the buckets up to the highest that is used
}

const (
	stepBits = 7
	steps    = 1 << stepBits
)

// bucketOf returns the bucket of a value: each value below 128 ns has its own.
func bucketOf(d time.Duration) int {
	ns := max(0, int64(d))
	shift := max(0, bits.Len64(uint64(ns))-stepBits-1)
	return shift*steps + int(ns>>shift)
}

// upperOf returns the largest value of a bucket.
func upperOf(bucket int) time.Duration {
	if bucket < 2*steps {
		return time.Duration(bucket)
	}
	shift := bucket/steps - 1
	return time.Duration(bucket-shift*steps+1)<<shift - 1
}

// grow makes room for n buckets.
func (h *Histogram) grow(n int) {
	if n > len(h.buckets) {
		h.buckets = slices.Grow(h.buckets, n-len(h.buckets))[:n]
	}
}

// Add counts a duration. A negative duration counts as 0.
func (h *Histogram) Add(d time.Duration) {
	b := bucketOf(d)
	h.grow(b + 1)
	h.buckets[b]++
	h.count++
}

// Merge adds the counts of another histogram.
func (h *Histogram) Merge(other *Histogram) {
	h.grow(len(other.buckets))
	for i, n := range other.buckets {
		h.buckets[i] += n
	}
	h.count += other.count
}

// Quantile returns the value that a share q of all values does not exceed. Without values it
// returns 0.
func (h *Histogram) Quantile(q float64) time.Duration {
	before := min(int64(q*float64(h.count)), h.count-1) // number of values that are smaller or equal
	for i, n := range h.buckets {
		if before -= n; n > 0 && before < 0 {
			return upperOf(i)
		}
	}
	return 0
}

// Millis returns Quantile in milliseconds.
func (h *Histogram) Millis(q float64) float64 {
	return float64(h.Quantile(q)) / float64(time.Millisecond)
}

// Shared is a histogram with many writers.
type Shared struct {
	mu sync.Mutex
	h  Histogram
}

// Add counts a duration.
func (s *Shared) Add(d time.Duration) {
	s.mu.Lock()
	s.h.Add(d)
	s.mu.Unlock()
}

// Take empties the histogram and returns the old counts.
func (s *Shared) Take() *Histogram {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.h
	s.h = Histogram{}
	return &h
}
