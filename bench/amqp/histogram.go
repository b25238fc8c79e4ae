package main

import (
	"math/bits"
	"time"
)

// histogram counts latencies in buckets that widen with the value. Every power of two has 128 equal
// buckets, so a quantile's error is below 0.8 %. The zero value is ready to use. It has one writer.
// Merge it after the writer has ended.
type histogram struct {
	count   int64
	buckets [bucketCount]int64
}

const (
	stepBits    = 7
	steps       = 1 << stepBits
	bucketCount = (64 - stepBits) * steps // the last bucket has the largest int64
)

// bucketOf returns the bucket of a value. Each value below 128 ns has its own bucket.
func bucketOf(ns int64) int {
	if ns < 0 {
		ns = 0
	}
	shift := max(0, bits.Len64(uint64(ns))-stepBits-1)
	return shift*steps + int(ns>>shift)
}

// upperOf returns the largest value of a bucket.
func upperOf(bucket int) int64 {
	if bucket < 2*steps {
		return int64(bucket)
	}
	shift := bucket/steps - 1
	return int64(bucket-shift*steps+1)<<shift - 1
}

func (h *histogram) add(ns int64) {
	h.buckets[bucketOf(ns)]++
	h.count++
}

func (h *histogram) merge(other *histogram) {
	for i, n := range other.buckets {
		h.buckets[i] += n
	}
	h.count += other.count
}

// quantile returns the smallest value that at least a share q of all values do not exceed, in
// milliseconds. It returns 0 if there are no values.
func (h *histogram) quantile(q float64) float64 {
	before := min(int64(q*float64(h.count)), h.count-1) // the number of values to skip
	for i, n := range h.buckets {
		if before -= n; n > 0 && before < 0 {
			return float64(upperOf(i)) / float64(time.Millisecond)
		}
	}
	return 0
}
