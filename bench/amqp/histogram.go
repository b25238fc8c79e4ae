package main

import (
	"math/bits"
	"time"
)

// histogram counts latencies in buckets that widen with the value. Every power of two has 128 equal
// steps, so a quantile is wrong by less than 0.8 %. The zero value is ready. It has one writer;
// merge it only after the writer has ended.
type histogram struct {
	count   int64
	buckets [bucketCount]int64
}

const (
	stepBits    = 7
	steps       = 1 << stepBits
	bucketCount = (64 - stepBits) * steps // the last bucket contains the largest int64
)

// bucketOf returns the bucket of a value: each value below 128 ns has its own.
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

// quantile returns the value that a share q of all values does not exceed, in milliseconds; 0 if
// there are none.
func (h *histogram) quantile(q float64) float64 {
	before := min(int64(q*float64(h.count)), h.count-1) // number of values that are smaller or equal
	for i, n := range h.buckets {
		if before -= n; n > 0 && before < 0 {
			return float64(upperOf(i)) / float64(time.Millisecond)
		}
	}
	return 0
}
