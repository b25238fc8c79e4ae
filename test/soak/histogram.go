//go:build linux

package main

import (
	"math/bits"
	"sync"
	"time"
)

// histogram counts durations in buckets that are at most 1/32 of their value wide. It is safe for
// use by many goroutines.
type histogram struct {
	mu      sync.Mutex
	n       int64
	buckets [64 * 32]int64
}

// bucketOf returns the bucket of a duration in microseconds: 32 linear ones for each power of two.
func bucketOf(us uint64) int {
	if us < 64 {
		return int(us)
	}
	shift := bits.Len64(us) - 6
	return shift*32 + int(us>>shift)
}

// bucketTop is the upper end of a bucket, in microseconds.
func bucketTop(b int) uint64 {
	if b < 64 {
		return uint64(b)
	}
	shift := b/32 - 1
	return (uint64(b-shift*32)+1)<<shift - 1
}

func (h *histogram) add(d time.Duration) {
	b := bucketOf(uint64(max(0, d.Microseconds())))
	h.mu.Lock()
	h.n++
	h.buckets[b]++
	h.mu.Unlock()
}

// take adds the counts to sum, empties h, and returns the old counts.
func (h *histogram) take(sum *histogram) *histogram {
	h.mu.Lock()
	defer h.mu.Unlock()
	had := &histogram{n: h.n, buckets: h.buckets}
	if sum != nil {
		sum.n += h.n
		for i, c := range h.buckets {
			sum.buckets[i] += c
		}
	}
	h.n, h.buckets = 0, [len(h.buckets)]int64{}
	return had
}

// quantile returns the value below which the share q of all durations lies; 0 if there are none.
func (h *histogram) quantile(q float64) time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	left := int64(q * float64(h.n))
	for b, c := range h.buckets {
		if left -= c; left < 0 {
			return time.Duration(bucketTop(b)) * time.Microsecond
		}
	}
	return 0
}
