package histogram

import (
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"
)

const bucketCount = (64 - stepBits) * steps // the last bucket contains the largest duration

// TestBucketsAreNarrow: for any value, the bucket's upper edge is not below it and at most 0.8 %
// above.
func TestBucketsAreNarrow(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ns := time.Duration(rapid.Int64Range(0, math.MaxInt64).Draw(t, "ns"))
		b := bucketOf(ns)
		if b < 0 || b >= bucketCount {
			t.Fatalf("bucket %d of %d", b, bucketCount)
		}
		if up := upperOf(b); up < ns || float64(up-ns) > 0.008*float64(ns) {
			t.Fatalf("%d ns is in bucket %d, whose upper edge is %d", ns, b, up)
		}
	})
}

func TestBucketsTouch(t *testing.T) {
	for b := range bucketCount - 1 {
		if next := bucketOf(upperOf(b) + 1); next != b+1 {
			t.Fatalf("after bucket %d (to %d) comes bucket %d", b, upperOf(b), next)
		}
	}
}

func TestQuantiles(t *testing.T) {
	var h, other Histogram
	if q := h.Quantile(.5); q != 0 {
		t.Errorf("the median of nothing is %v", q)
	}
	for ms := int64(1); ms <= 1000; ms++ {
		part := &h
		if ms%2 == 0 {
			part = &other
		}
		part.Add(time.Duration(ms) * time.Millisecond)
	}
	h.Add(-5) // a clock that stepped back counts as no time
	h.Merge(&other)
	for q, want := range map[float64]float64{.5: 500, .99: 990, 1: 1000, 0: 0} {
		if got := h.Millis(q); math.Abs(got-want) > 0.008*want+1 {
			t.Errorf("quantile %v is %v ms, want about %v", q, got, want)
		}
	}
}
